"""What the service remembers: the interface and its back ends (spec/storage).

Sessions and handlers know a :class:`~autopush.db.interface.Store` and nothing else. Which one it
is says ``db_dsn``, read by :func:`~autopush.db.open.store_from_dsn`::

                            Store
               (interface: every method fires a Deferred)
          │                        │                          │
     DynamoStore            PostgresqlStore              SqliteStore
  a thread for each     one thread writes, two      one thread writes,
       request           read, all in groups           anybody reads
          │                        │                          │
   DynamoDB, shared      a server, shared by        a file, shared by
     by a cluster             a cluster               one machine

Three kinds of things are kept: a *record* for each user, which says how and where it is reached;
a *channel row* with its subscriptions; and *messages* that wait. The latter two are in the
message table of the user's month (:mod:`~autopush.db.months`). What a row is called and holds is
the same in every store (:mod:`~autopush.db.rows`), and in DynamoDB what 1.58.3 understands.

What a method's Deferred says has happened is durable. It fires, or fails, within seconds, whatever
the database does (:mod:`autopush.db.deadlines`). One contract is tested against every store.

What 1.58.3 had in this module is here, too, most of it only when it is asked for.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from autopush import ids
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
from autopush.db.open import sqlite_path, store_from_dsn
from autopush.db.sqlite.store import SqliteStore

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
    "make_rotating_tablename",
    "sqlite_path",
    "store_from_dsn",
]


def hasher(uaid: str) -> str:
    """The UAID as logs name it (``uaid_hash``): see spec/storage 5."""
    return ids.hash_uaid(sys.modules[__name__].key_hash, uaid)


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
"""Documented names (spec/python-api 3) from :mod:`autopush.db.dynamodb.blocking`. They are fetched
when they are asked for: a process that keeps everything in a file needs no boto3, which takes 20
MB."""


def __getattr__(name: str) -> Any:
    if name in BLOCKING:
        return getattr(import_module("autopush.db.dynamodb.blocking"), name)
    if name == "key_hash":
        return ids.key_hash
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
