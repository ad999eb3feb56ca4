"""Which back end a ``db_dsn`` names (spec/configuration 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from autopush.db.interface import Store
from autopush.db.sqlite.store import SqliteStore
from autopush.exceptions import InvalidConfig

if TYPE_CHECKING:
    from autopush.config import AutopushConfig

_KINDS = (
    "dynamodb:, sqlite:///absolute/path, sqlite:relative/path or postgresql://user@host/database"
)

POSTGRESQL = ("postgresql:", "postgres:")
"""How DSNs begin that libpq takes."""

NO_PSYCOPG = (
    "db_dsn postgresql: needs psycopg, which is not installed:"
    " pip install 'autopush-server[postgresql]'"
)


def store_from_dsn(conf: AutopushConfig, reactor: Any, resource: Any = None) -> Store:
    """The back end that ``conf.db_dsn`` names; not set up yet.

    :param resource: DynamoDB resource to use instead of an own connection
    :raises InvalidConfig: there is no such back end
    """
    if conf.db_dsn == "dynamodb:":
        return _dynamo_store(conf, reactor, resource)
    if conf.db_dsn.startswith(POSTGRESQL):
        return _postgresql_store(conf, reactor)
    return SqliteStore(
        sqlite_path(conf.db_dsn),
        reactor,
        month=conf.message_table.tablename,
        router_table=conf.router_table.tablename,
        key_hash=conf.key_hash,
        max_stored=conf.max_stored,
        max_stored_bytes=conf.max_stored_bytes,
        share=conf.max_stored_share,
        shared=conf.workers > 1,
    )


def _dynamo_store(conf: AutopushConfig, reactor: Any, resource: Any) -> Store:
    from autopush.db.dynamodb.client import low_level_client, make_client
    from autopush.db.dynamodb.store import DynamoStore

    client = (
        make_client(thin=True, endpoint_url=conf.aws_ddb_endpoint)
        if resource is None
        else low_level_client(resource)
    )
    return DynamoStore(
        client,
        reactor,
        conf.router_table,
        conf.message_table,
        rotation=conf.allow_table_rotation,
        key_hash=conf.key_hash,
        preflight_uaid=conf.preflight_uaid,
    )


def _postgresql_store(conf: AutopushConfig, reactor: Any) -> Store:
    postgresql_parameters(conf.db_dsn)
    from autopush.db.postgresql.store import PostgresqlStore

    return PostgresqlStore(
        conf.db_dsn,
        reactor,
        month=conf.message_table.tablename,
        router_table=conf.router_table.tablename,
        key_hash=conf.key_hash,
    )


def postgresql_parameters(dsn: str) -> str:
    """What libpq is to be told of a database.

    :raises InvalidConfig: the DSN can't be read, or psycopg is not installed
    """
    try:
        import psycopg

        from autopush.db.postgresql.link import parameters
    except ImportError as error:
        # Also where it is there, and libpq isn't.
        raise InvalidConfig(NO_PSYCOPG) from error
    try:
        return parameters(dsn)
    except psycopg.Error:
        # The error has parts of it, which may be those of a password.
        raise InvalidConfig(
            "db_dsn can't be read, use postgresql://user@host:port/database?parameter=value;"
            " characters with a meaning of their own are written as % and two hex digits"
        ) from None


def sqlite_path(dsn: str) -> str:
    """The file of an ``sqlite:`` DSN, whose path is taken as it is (no percent-decoding).

    :raises InvalidConfig: it is none, or names no file
    """
    scheme, _, rest = dsn.partition(":")
    if scheme != "sqlite":
        raise InvalidConfig(f"db_dsn {scheme}: is not supported, use {_KINDS}")
    if rest.startswith("//"):
        if urlsplit(f"{scheme}:{rest}").netloc:
            raise InvalidConfig(f"db_dsn must not name a host, use {_KINDS}")
        rest = rest[2:]
    if not rest or rest.endswith("/") or rest == ":memory:":
        raise InvalidConfig(f"db_dsn names no file, use {_KINDS}")
    return rest
