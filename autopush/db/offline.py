"""Records as the small commands see them: read without setting anything up.

Synchronous, and made for a process that does nothing else. Nothing is created, checked or migrated:
a command that looks at a running cluster must not change it (quirks C13 and C14).
"""

from __future__ import annotations

import os
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

from autopush import clock
from autopush.addresses import without_password
from autopush.db.dynamodb.client import ConditionFailed, caller, make_client, patient
from autopush.db.dynamodb.items import read_record
from autopush.db.dynamodb.messages import Messages
from autopush.db.dynamodb.users import Users
from autopush.db.interface import Channels, StoreUnusable, User
from autopush.db.open import POSTGRESQL, postgresql_parameters, sqlite_path
from autopush.db.rows import channel_ids, load_json
from autopush.db.sqlite import schema as sqlite_schema
from autopush.db.sqlite.records import GET_USER, LIST_CHANNELS
from autopush.ids import hash_uaid

if TYPE_CHECKING:
    from autopush.config import AutopushConfig

BROWSER_TYPES = ("webpush", "simplepush")
"""Router types of users who come back when they live. Those of the bridges never say hello: their
``last_connect`` is the time of their registration and tells nothing."""


STALE = (
    "WHERE json_extract(record, '$.last_connect') < ?"
    f" AND json_extract(record, '$.router_type') IN {BROWSER_TYPES}"
)


_STALE_JSONB = (
    "WHERE jsonb_typeof(record->'last_connect') = 'number'"
    " AND record->'last_connect' < to_jsonb(%s) AND record->>'router_type' = ANY(%s)"
)


class Stale(NamedTuple):
    """A user who has not connected for long."""

    key: str
    """The UAID as stored, which may be its hash."""
    last_connect: int


class Offline(ABC):
    """One storage back end. All methods raise :class:`~autopush.exceptions.StoreError`."""

    def __init__(self, key_hash: str = "") -> None:
        self._key_hash = key_hash

    def key(self, uaid: str) -> str:
        """The UAID as stored (spec/storage 5)."""
        return hash_uaid(self._key_hash, uaid)

    @abstractmethod
    def get_user(self, uaid: str) -> User | None:
        """The user's record as it is stored."""

    @abstractmethod
    def list_channels(self, month: str, uaid: str) -> Channels:
        """The user's channels in a message table."""

    @abstractmethod
    def stale_users(self, before: int) -> Iterator[Stale]:
        """Browser users whose last connect is less than this 12-digit number (spec/storage 7)."""

    @abstractmethod
    def drop(self, user: Stale) -> bool:
        """Delete the record, unless the user has connected since; whether it was done."""

    def drop_all(self, users: Iterable[Stale]) -> int:
        """The same for some; returns how many it was done for."""
        return sum(self.drop(user) for user in users)

    def count_stale(self, before: int) -> int | None:
        """How many :meth:`stale_users` returns; None where counting is as dear as that."""
        return None


class OfflineSqlite(Offline):
    """A file of :mod:`autopush.db.sqlite.store`, which may be in use."""

    def __init__(self, path: str, key_hash: str = "") -> None:
        super().__init__(key_hash)
        self._path = os.path.abspath(path)
        if not os.path.isfile(self._path):
            raise StoreUnusable(f"storage file {path} doesn't exist: name one that does")
        if self._rows("PRAGMA application_id") != [(sqlite_schema.APPLICATION_ID,)]:
            raise StoreUnusable(f"storage file {path} belongs to another program")

    def _rows(self, sql: str, *values: Any) -> list[Any]:
        try:
            with closing(sqlite_schema.open_reader(self._path)) as connection:
                return connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise sqlite_schema.unusable(self._path, error) from error

    def get_user(self, uaid: str) -> User | None:
        key = self.key(uaid)
        rows = self._rows(GET_USER, key)
        return {"uaid": key, **load_json(rows[0][0])} if rows else None

    def list_channels(self, month: str, uaid: str) -> Channels:
        key = self.key(uaid)
        rows = self._rows(LIST_CHANNELS, key, _now())
        return Channels(bool(rows), channel_ids(chid for (chid,) in rows if chid is not None))

    def stale_users(self, before: int) -> Iterator[Stale]:
        columns = "uaid, json_extract(record, '$.last_connect')"
        rows = self._rows(f"SELECT {columns} FROM users {STALE}", before)
        return (Stale(key, last_connect) for key, last_connect in rows)

    def count_stale(self, before: int) -> int:
        ((count,),) = self._rows(f"SELECT count(*) FROM users {STALE}", before)
        return int(count)

    def drop(self, user: Stale) -> bool:
        return self.drop_all([user]) > 0

    def drop_all(self, users: Iterable[Stale]) -> int:
        """In one transaction: one write to the disk, whose place others wait for meanwhile."""
        statement = (
            "DELETE FROM users WHERE uaid = ? AND json_extract(record, '$.last_connect') = ?"
        )
        try:
            with closing(sqlite_schema.open_writer(self._path)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                count = connection.executemany(statement, users).rowcount
                connection.execute("COMMIT")
                return max(count, 0)
        except sqlite3.Error as error:
            raise sqlite_schema.unusable(self._path, error) from error


class OfflinePostgresql(Offline):
    """A database of :mod:`autopush.db.postgresql.store`, which may be in use.

    :raises InvalidConfig: the DSN can't be read, or psycopg is not installed
    """

    def __init__(self, dsn: str, key_hash: str = "") -> None:
        super().__init__(key_hash)
        parameters = postgresql_parameters(dsn)
        from autopush.db.postgresql import schema
        from autopush.db.postgresql.link import Link

        self._link = Link(parameters, threading.Event())
        if not self._link.run(schema.version):
            raise StoreUnusable(f"{without_password(dsn)} has no tables of autopush")

    def _rows(self, sql: str, *values: Any) -> list[Any]:
        def fetch(connection: Any) -> list[Any]:
            rows: list[Any] = connection.execute(sql, values).fetchall()
            return rows

        return self._link.run(fetch)

    def get_user(self, uaid: str) -> User | None:
        from autopush.db.postgresql.records import load_record

        key = self.key(uaid)
        rows = self._rows("SELECT record::text FROM users WHERE uaid = %s", key)
        return {"uaid": key, **load_record(rows[0][0])} if rows else None

    def list_channels(self, month: str, uaid: str) -> Channels:
        rows = self._rows(
            "SELECT c.chid FROM channel_rows r LEFT JOIN channels c ON c.uaid = r.uaid"
            " WHERE r.uaid = %s AND r.expiry > %s",
            *(self.key(uaid), _now()),
        )
        return Channels(bool(rows), {chid for (chid,) in rows if chid is not None})

    def stale_users(self, before: int) -> Iterator[Stale]:
        columns = "uaid, (record->'last_connect')::bigint"
        rows = self._rows(f"SELECT {columns} FROM users {_STALE_JSONB}", *self._stale(before))
        return (Stale(key, last_connect) for key, last_connect in rows)

    def count_stale(self, before: int) -> int:
        sql = f"SELECT count(*) FROM users {_STALE_JSONB}"
        ((count,),) = self._rows(sql, *self._stale(before))
        return int(count)

    @staticmethod
    def _stale(before: int) -> tuple[object, ...]:
        return before, list(BROWSER_TYPES)

    def drop(self, user: Stale) -> bool:
        return self.drop_all([user]) > 0

    def drop_all(self, users: Iterable[Stale]) -> int:
        """In one statement."""
        given = list(users)
        gone = self._rows(
            "DELETE FROM users u USING unnest(%s::text[], %s::bigint[]) AS v(uaid, last)"
            " WHERE u.uaid = v.uaid AND u.record->'last_connect' = to_jsonb(v.last) RETURNING 1",
            *([user.key for user in given], [user.last_connect for user in given]),
        )
        return len(gone)


class OfflineDynamo(Offline):
    """Tables in DynamoDB.

    :param client: a boto3 low-level client
    :param router_table: name of the table of users
    """

    def __init__(self, client: Any, router_table: str, key_hash: str = "") -> None:
        super().__init__(key_hash)
        self._call = patient(caller(client))
        self._users = Users(self._call, router_table, self.key, _now)
        self._messages = Messages(self._call, self.key, clock.now)

    def get_user(self, uaid: str) -> User | None:
        item = self._users.item(uaid)
        return read_record(item, self.key(uaid)) if item else None

    def list_channels(self, month: str, uaid: str) -> Channels:
        return self._messages.channels(month, uaid)

    def stale_users(self, before: int) -> Iterator[Stale]:
        types = {f":type{i}": {"S": name} for i, name in enumerate(BROWSER_TYPES)}
        request: dict[str, Any] = {
            "TableName": self._users.table,
            "FilterExpression": f"last_connect < :before AND router_type IN ({', '.join(types)})",
            "ExpressionAttributeValues": {":before": {"N": str(before)}, **types},
            "ProjectionExpression": "uaid, last_connect",
        }
        while True:
            answer = self._call("scan", **request)
            for item in answer["Items"]:
                yield Stale(item["uaid"]["S"], int(item["last_connect"]["N"]))
            if "LastEvaluatedKey" not in answer:
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def drop(self, user: Stale) -> bool:
        try:
            self._call(
                "delete_item",
                TableName=self._users.table,
                Key={"uaid": {"S": user.key}},
                ConditionExpression="last_connect = :last",
                ExpressionAttributeValues={":last": {"N": str(user.last_connect)}},
            )
        except ConditionFailed as failed:
            # Perhaps because an attempt whose answer was lost has deleted it.
            return failed.unsure and not self._exists(user)
        return True

    def _exists(self, user: Stale) -> bool:
        answer = self._call(
            "get_item",
            TableName=self._users.table,
            Key={"uaid": {"S": user.key}},
            ConsistentRead=True,
        )
        return bool(answer.get("Item"))


def _now() -> int:
    return int(clock.now())


def offline_from_config(conf: AutopushConfig, resource: Any = None) -> Offline:
    """The back end that ``conf.db_dsn`` names.

    :param resource: boto3 DynamoDB resource whose region and endpoint are used instead (tests)
    :raises InvalidConfig: there is no such back end
    :raises StoreUnusable: it is not what we know
    """
    if conf.db_dsn.startswith(POSTGRESQL):
        return OfflinePostgresql(conf.db_dsn, conf.key_hash)
    if conf.db_dsn != "dynamodb:":
        return OfflineSqlite(sqlite_path(conf.db_dsn), conf.key_hash)
    if resource is None:
        client = make_client(endpoint_url=conf.aws_ddb_endpoint)
    else:
        # Its own client takes and gives plain values, where we want typed ones.
        meta = resource.meta.client.meta
        client = make_client(endpoint_url=meta.endpoint_url, region_name=meta.region_name)
    return OfflineDynamo(client, conf.router_table.tablename, conf.key_hash)
