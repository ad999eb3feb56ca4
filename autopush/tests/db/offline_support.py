"""Databases of both kinds with some users in them, for the tests of the small commands."""

from __future__ import annotations

from typing import Any

import boto3

from autopush.db.rows import dump_json
from autopush.db.sqlite.schema import open_writer, prepare
from autopush.ids import hash_uaid
from autopush.tests.db.postgresql.server import shared_server

MONTH = "message_2026_11"
FUTURE = 4_000_000_000
"""Expiry of a channel row, seconds since the epoch."""


class SqliteSide:
    """A file as :mod:`autopush.db.sqlite.store` keeps it."""

    resource = None

    def __init__(self, path: str) -> None:
        self.dsn = f"sqlite://{path}"
        prepare(path)
        self._connection = open_writer(path)

    def put_user(self, uaid: str, key_hash: str = "", **record: Any) -> None:
        values = (hash_uaid(key_hash, uaid), dump_json(record))
        self._connection.execute("INSERT INTO users (uaid, record) VALUES (?, ?)", values)

    def put_channels(self, uaid: str, *chids: str) -> None:
        self._connection.execute("INSERT INTO channel_rows VALUES (?, NULL, ?)", (uaid, FUTURE))
        for chid in chids:
            self._connection.execute("INSERT INTO channels VALUES (?, ?)", (uaid, chid))

    def users(self) -> set[str]:
        return {row[0] for row in self._connection.execute("SELECT uaid FROM users")}

    def dump(self) -> list[str]:
        return list(self._connection.iterdump())


class PostgresqlSide:
    """Tables as :mod:`autopush.db.postgresql.store` keeps them."""

    resource = None

    def __init__(self) -> None:
        from autopush.db.postgresql.link import parameters
        from autopush.db.postgresql.schema import prepare

        self._server = shared_server()
        self.dsn = self._server.new_schema()
        prepare(parameters(self.dsn), "here")

    def _run(self, sql: str, *values: Any) -> list[Any]:
        return self._server.sql(sql, *values, dsn=self.dsn)

    def put_user(self, uaid: str, key_hash: str = "", **record: Any) -> None:
        values = (hash_uaid(key_hash, uaid), dump_json(record))
        self._run("INSERT INTO users (uaid, record) VALUES (%s, %s::jsonb)", *values)

    def put_channels(self, uaid: str, *chids: str) -> None:
        self._run("INSERT INTO channel_rows VALUES (%s, NULL, %s)", uaid, FUTURE)
        for chid in chids:
            self._run("INSERT INTO channels VALUES (%s, %s)", uaid, chid)

    def users(self) -> set[str]:
        return {row[0] for row in self._run("SELECT uaid FROM users")}

    def dump(self) -> list[str]:
        tables = ("users", "channel_rows", "channels", "messages")
        return [repr(self._run(f"SELECT * FROM {table} ORDER BY 1, 2")) for table in tables]


class DynamoSide:
    """Tables in moto; use it inside ``mock_aws``."""

    dsn = "dynamodb:"

    def __init__(self) -> None:
        self.resource = boto3.resource("dynamodb", region_name="us-east-1")
        self._router = self._table("router", "uaid")
        self._message = self._table(MONTH, "uaid", "chidmessageid")

    def _table(self, name: str, *keys: str) -> Any:
        return self.resource.create_table(
            TableName=name,
            KeySchema=[
                {"AttributeName": key, "KeyType": kind}
                for key, kind in zip(keys, ("HASH", "RANGE"), strict=False)
            ],
            AttributeDefinitions=[{"AttributeName": k, "AttributeType": "S"} for k in keys],
            BillingMode="PAY_PER_REQUEST",
        )

    def put_user(self, uaid: str, key_hash: str = "", **record: Any) -> None:
        self._router.put_item(Item={"uaid": hash_uaid(key_hash, uaid), **record})

    def put_channels(self, uaid: str, *chids: str) -> None:
        item = {"uaid": uaid, "chidmessageid": " ", "expiry": FUTURE, "chids": set(chids)}
        self._message.put_item(Item=item)

    def users(self) -> set[str]:
        return {item["uaid"] for item in self._router.scan()["Items"]}

    def dump(self) -> list[str]:
        client = self.resource.meta.client
        tables = client.list_tables()["TableNames"]
        return [repr(client.scan(TableName=name)["Items"]) for name in tables]
