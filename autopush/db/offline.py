"""Records as the small commands see them: read without setting anything up.

Synchronous, and made for a process that does nothing else. Nothing is created, checked or migrated:
a command that looks at a running cluster must not change it (quirks C13 and C14).
"""

from __future__ import annotations

import os
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

from autopush.db import sqlite_path, sqlite_schema
from autopush.db.interface import Channels, StoreUnusable, User
from autopush.db.rows import hash_uaid, load_json
from autopush.exceptions import StoreError

if TYPE_CHECKING:
    from autopush.config import AutopushConfig

BROWSER_TYPES = ("webpush", "simplepush")
"""Router types of users who come back when they live. Those of the bridges never say hello: their
``last_connect`` is the time of their registration and tells nothing."""

CHANNEL_ROW = " "
"""Sort key of the row with a user's channels (storage.md 3.1)."""


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
        """The UAID as stored (storage.md 5)."""
        return hash_uaid(self._key_hash, uaid)

    @abstractmethod
    def get_user(self, uaid: str) -> User | None:
        """The user's record as it is stored."""

    @abstractmethod
    def list_channels(self, month: str, uaid: str) -> Channels:
        """The user's channels in a message table."""

    @abstractmethod
    def stale_users(self, before: int) -> Iterator[Stale]:
        """Browser users whose last connect is less than this 12-digit number (storage.md 7)."""

    @abstractmethod
    def drop(self, user: Stale) -> bool:
        """Delete the record, unless the user has connected since; whether it was done."""


class OfflineSqlite(Offline):
    """A file of :mod:`autopush.db.sqlite`, which may be in use."""

    def __init__(self, path: str, key_hash: str = "") -> None:
        super().__init__(key_hash)
        self._path = os.path.abspath(path)
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
        rows = self._rows("SELECT record FROM users WHERE uaid = ?", key)
        return {"uaid": key, **load_json(rows[0][0])} if rows else None

    def list_channels(self, month: str, uaid: str) -> Channels:
        key = self.key(uaid)
        exists = self._rows("SELECT 1 FROM channel_rows WHERE uaid = ?", key)
        chids = self._rows("SELECT chid FROM channels WHERE uaid = ?", key)
        return Channels(bool(exists), {row[0] for row in chids})

    def stale_users(self, before: int) -> Iterator[Stale]:
        wanted = ", ".join(f"'{name}'" for name in BROWSER_TYPES)
        rows = self._rows(
            "SELECT uaid, json_extract(record, '$.last_connect') FROM users"
            " WHERE json_extract(record, '$.last_connect') < ?"
            f" AND json_extract(record, '$.router_type') IN ({wanted})",
            before,
        )
        return (Stale(key, last_connect) for key, last_connect in rows)

    def drop(self, user: Stale) -> bool:
        try:
            with closing(sqlite_schema.open_writer(self._path)) as connection:
                done = connection.execute(
                    "DELETE FROM users"
                    " WHERE uaid = ? AND json_extract(record, '$.last_connect') = ?",
                    (user.key, user.last_connect),
                )
                return done.rowcount > 0
        except sqlite3.Error as error:
            raise sqlite_schema.unusable(self._path, error) from error


class OfflineDynamo(Offline):
    """Tables in DynamoDB.

    :param client: a boto3 low-level client
    :param router_table: name of the table of users
    """

    def __init__(self, client: Any, router_table: str, key_hash: str = "") -> None:
        super().__init__(key_hash)
        self._client = client
        self._router_table = router_table

    def _call(self, operation: str, **request: Any) -> dict[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer: dict[str, Any] = getattr(self._client, operation)(**request)
            return answer
        except (BotoCoreError, ClientError) as error:
            raise StoreError(str(error)) from error

    def get_user(self, uaid: str) -> User | None:
        key = {"uaid": {"S": self.key(uaid)}}
        answer = self._call("get_item", TableName=self._router_table, Key=key, ConsistentRead=True)
        return plain_item(answer["Item"]) if "Item" in answer else None

    def list_channels(self, month: str, uaid: str) -> Channels:
        key = {"uaid": {"S": self.key(uaid)}, "chidmessageid": {"S": CHANNEL_ROW}}
        answer = self._call("get_item", TableName=month, Key=key, ConsistentRead=True)
        item = plain_item(answer.get("Item", {}))
        return Channels(bool(item), item.get("chids", set()))

    def stale_users(self, before: int) -> Iterator[Stale]:
        names = {f":type{i}": {"S": name} for i, name in enumerate(BROWSER_TYPES)}
        request: dict[str, Any] = {
            "TableName": self._router_table,
            "FilterExpression": f"last_connect < :before AND router_type IN ({', '.join(names)})",
            "ExpressionAttributeValues": {":before": {"N": str(before)}, **names},
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
        from botocore.exceptions import ClientError

        try:
            self._call(
                "delete_item",
                TableName=self._router_table,
                Key={"uaid": {"S": user.key}},
                ConditionExpression="last_connect = :last",
                ExpressionAttributeValues={":last": {"N": str(user.last_connect)}},
            )
        except StoreError as error:
            cause = error.__cause__
            if not isinstance(cause, ClientError):
                raise
            if cause.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise
            return False
        return True


def plain_item(item: dict[str, Any]) -> dict[str, Any]:
    """An item of the low-level client as plain values; whole numbers are ints."""
    return {name: _plain(value) for name, value in item.items()}


def _plain(value: dict[str, Any]) -> Any:
    ((kind, content),) = value.items()
    if kind == "N":
        return int(content) if content.lstrip("-").isdigit() else float(content)
    if kind == "NULL":
        return None
    if kind == "M":
        return plain_item(content)
    if kind == "L":
        return [_plain(entry) for entry in content]
    if kind == "SS":
        return set(content)
    return content


def offline_from_config(conf: AutopushConfig, resource: Any = None) -> Offline:
    """The back end that ``conf.db_dsn`` names.

    :param resource: boto3 DynamoDB resource whose region and endpoint are used instead (tests)
    :raises InvalidConfig: there is no such back end
    :raises StoreUnusable: it is not what we know
    """
    if conf.db_dsn.startswith("dynamodb:"):
        client = dynamodb_client(conf, resource)
        return OfflineDynamo(client, conf.router_table.tablename, conf.key_hash)
    return OfflineSqlite(sqlite_path(conf.db_dsn), conf.key_hash)


def dynamodb_client(conf: AutopushConfig, resource: Any = None) -> Any:
    """A boto3 client for the DynamoDB that ``conf`` means (storage.md 1)."""
    import boto3

    if resource is not None:
        # Its own client takes and gives plain values, where we want typed ones.
        meta = resource.meta.client.meta
        return boto3.client("dynamodb", meta.region_name, endpoint_url=meta.endpoint_url)
    options: dict[str, Any] = {}
    if conf.aws_ddb_endpoint:
        options = {
            "endpoint_url": conf.aws_ddb_endpoint,
            "aws_access_key_id": "Bogus",
            "aws_secret_access_key": "Bogus",
        }
    region = os.environ.get("AWS_DEFAULT_REGION", "us-east-1")
    return boto3.client("dynamodb", region_name=region, **options)
