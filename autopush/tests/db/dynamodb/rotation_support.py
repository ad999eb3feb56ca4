"""Stores whose months change under an injected clock."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any
from unittest import SkipTest

from twisted.trial.unittest import TestCase

from autopush.db.dynamodb import tables
from autopush.db.dynamodb.client import DynamoError
from autopush.db.dynamodb.store import DynamoStore
from autopush.db.months import (
    message_tables,
)
from autopush.tests.db.dynamodb.support import (
    URL,
    new_store,
    raw_call,
    table_names,
)
from autopush.tests.db.store_contract import UAID

DAY = 86_400


MINUTE = 60


def at(text: str) -> float:
    """Seconds since the epoch of a UTC time such as ``2026-11-30 23:59``."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def status(table: str) -> str | None:
    return tables.status(raw_call, table)


def ttl_of(table: str) -> str:
    answer = raw_call("describe_time_to_live", TableName=table)
    return str(answer["TimeToLiveDescription"]["TimeToLiveStatus"])


def needs_ttl() -> None:
    """Skip the test on a server that knows no TTL, unless it is the one all tests run on."""
    try:
        raw_call(
            "update_time_to_live",
            TableName="no such table",
            TimeToLiveSpecification={"Enabled": True, "AttributeName": "expiry"},
        )
    except DynamoError as error:
        if error.code == "UnknownOperationException" and os.environ.get(URL):
            raise SkipTest("this server has no UpdateTimeToLive") from error


class RotationCase(TestCase):
    """Nodes on the same tables; each has a clock of its own in ``times``."""

    def setUp(self) -> None:
        self.router, self.prefix = table_names()
        self.times: list[float] = []

    async def start(self, when: str, **kwargs: Any) -> DynamoStore:
        number = len(self.times)
        self.times.append(at(when))
        store = new_store(self.router, self.prefix, now=lambda: self.times[number], **kwargs)
        self.addCleanup(store.close)
        await store.setup()
        return store

    def month(self, text: str) -> str:
        return f"{self.prefix}_{text}"

    def exists(self, *months: str) -> None:
        found = message_tables(self.prefix, tables.names(raw_call))
        self.assertEqual(found, [self.month(month) for month in months])

    async def hello(self, store: DynamoStore, uaid: str = UAID, connected_at: int = 1000) -> Any:
        """A new user of this node, or a known one that comes back."""
        user = await store.get_user(uaid)
        if user is not None and not store.months.accepts(user["current_month"]):
            return None
        new = {} if user else {"current_month": store.months.current}
        record = {"uaid": uaid, "router_type": "webpush", "connected_at": connected_at, **new}
        self.assertTrue((await store.register_user(record)).written)
        return await store.get_user(uaid)
