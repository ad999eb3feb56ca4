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
from autopush.db.rows import hash_uaid
from autopush.db.sqlite import SqliteStore
from autopush.exceptions import InvalidConfig

if TYPE_CHECKING:
    from autopush.config import AutopushConfig

__all__ = [
    "MAX_EXPIRY",
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
    "has_connected_this_month",
    "hasher",
    "key_hash",
    "sqlite_path",
    "store_from_dsn",
]

key_hash = ""
"""The process's ``key_hash`` option, set by :class:`autopush.config.AutopushConfig`."""


def hasher(uaid: str) -> str:
    """The UAID as logs name it (``uaid_hash``): see storage.md 5."""
    return hash_uaid(key_hash, uaid)


_KINDS = "sqlite:///absolute/path or sqlite:relative/path"


def store_from_dsn(conf: AutopushConfig, reactor: Any) -> Store:
    """The back end that ``conf.db_dsn`` names; not set up yet.

    :raises InvalidConfig: there is no such back end
    """
    return SqliteStore(
        sqlite_path(conf.db_dsn),
        reactor,
        month=conf.message_table.tablename,
        router_table=conf.router_table.tablename,
        key_hash=conf.key_hash,
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
