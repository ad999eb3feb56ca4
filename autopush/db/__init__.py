"""What the service remembers: the interface and its back ends (storage.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from autopush.constants import MAX_EXPIRY
from autopush.db.interface import (
    Batch,
    Channels,
    Months,
    Registration,
    Store,
    StoreUnusable,
    Subscription,
    User,
)
from autopush.db.lastconnect import generate_last_connect, has_connected_this_month
from autopush.db.months import get_month, make_rotating_tablename
from autopush.db.rows import hash_uaid
from autopush.db.sqlite import SqliteStore
from autopush.exceptions import InvalidConfig

if TYPE_CHECKING:
    from autopush.config import AutopushConfig

__all__ = [
    "DB_CALLS",
    "MAX_EXPIRY",
    "TRACK_DB_CALLS",
    "Batch",
    "Channels",
    "Months",
    "Registration",
    "SqliteStore",
    "Store",
    "StoreUnusable",
    "Subscription",
    "User",
    "generate_last_connect",
    "get_month",
    "has_connected_this_month",
    "hasher",
    "key_hash",
    "make_rotating_tablename",
    "sqlite_path",
    "store_from_dsn",
]

key_hash = ""
"""The process's ``key_hash`` option, set by :class:`autopush.config.AutopushConfig`."""


def hasher(uaid: str) -> str:
    """The UAID as logs name it (``uaid_hash``): see storage.md 5."""
    return hash_uaid(key_hash, uaid)


TRACK_DB_CALLS = False
"""Whether the blocking methods note their calls."""

DB_CALLS: list[str] = []
"""Names of the methods that were called while they do."""

BLOCKING = frozenset(
    {
        "DatabaseManager",
        "DynamoDBResource",
        "DynamoDBTable",
        "MAX_DDB_SESSIONS",
        "Message",
        "Router",
        "_drop_table",
        "_make_table",
        "create_message_table",
        "create_rotating_message_table",
        "create_router_table",
        "get_rotating_message_tablename",
        "get_router_table",
        "normalize_id",
        "preflight_check",
        "table_exists",
        "track_provisioned",
    }
)
"""Documented names (python-api.md 3) from :mod:`autopush.db.blocking`. They are fetched when they
are asked for: a process that keeps everything in a file needs no boto3, which takes 20 MB."""


def __getattr__(name: str) -> Any:
    if name in BLOCKING:
        from autopush.db import blocking

        return getattr(blocking, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_KINDS = "dynamodb:, sqlite:///absolute/path or sqlite:relative/path"


def store_from_dsn(conf: AutopushConfig, reactor: Any, resource: Any = None) -> Store:
    """The back end that ``conf.db_dsn`` names; not set up yet.

    :param resource: DynamoDB resource to use instead of an own connection
    :raises InvalidConfig: there is no such back end
    """
    if conf.db_dsn == "dynamodb:":
        return _dynamo_store(conf, reactor, resource)
    return SqliteStore(
        sqlite_path(conf.db_dsn),
        reactor,
        month=conf.message_table.tablename,
        router_table=conf.router_table.tablename,
        key_hash=conf.key_hash,
        max_stored=conf.max_stored,
        max_stored_bytes=conf.max_stored_bytes,
        share=conf.max_stored_share,
    )


def _dynamo_store(conf: AutopushConfig, reactor: Any, resource: Any) -> Store:
    from autopush.db.blocking import low_level_client
    from autopush.db.dynamodb import DynamoStore
    from autopush.db.dynamodb_client import make_client

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
