"""The shared suite on DynamoDB, and what only that store promises of users and rows."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from autopush.db.dynamodb import tables
from autopush.db.dynamodb.items import write_value
from autopush.db.interface import Store
from autopush.tests.db.dynamodb.support import (
    AlsoAccepting,
    new_store,
    put_item,
    raw_call,
    raw_item,
    sort_keys,
)
from autopush.tests.db.store_contract import CHID, UAID, StoreContract, message

OTHER_MONTH = "message_2099_01"


class DynamoCase(TestCase):
    """A store on fresh tables, whose clock is ``self.time``."""

    key_hash = ""
    time: float

    async def open_store(self, **kwargs: Any) -> Any:
        store = new_store(key_hash=self.key_hash, now=lambda: self.time, **kwargs)
        self.addCleanup(store.close)
        await store.setup()
        return store


class TestDynamoStore(StoreContract, DynamoCase):  # type: ignore[misc]
    # DynamoDB removes them some day; until then they are delivered, as 1.58.3 did (10).
    hides_expired_rows = False

    async def make_store(self) -> Store:
        store = await self.open_store(router="router")
        await store.drop_user(UAID)
        # The table is shared, also by tests with another key for the same user.
        self.addCleanup(store.drop_user, UAID)
        self.router = store.users.table
        self.key = store.users.key(UAID)
        tables.ensure(raw_call, OTHER_MONTH, tables.MESSAGE_KEYS, (5, 5))
        for sort_key in sort_keys(OTHER_MONTH, self.key):
            store.messages.delete_row(OTHER_MONTH, self.key, sort_key, None)
        store.months = AlsoAccepting(store.months, OTHER_MONTH)
        return store

    def put_raw(self, sort_key: str, **columns: Any) -> None:
        put_item(self.month, raw_item(self.key, sort_key, columns))

    def put_record(self, uaid: str, record: dict[str, Any]) -> None:
        item = {name: write_value(value) for name, value in record.items()}
        put_item(self.router, {"uaid": {"S": self.store.users.key(uaid)}, **item})

    def count_rows(self) -> int:
        return len([key for key in sort_keys(self.month, self.key) if key != " "])


class TestDynamoStoreHashed(TestDynamoStore):
    """With ``key_hash`` (5; S1: records carry the plain UAID, everything else is hashed once)."""

    key_hash = "SuperSikkret"

    async def test_no_plain_uaid_in_the_tables(self):
        await self.register()
        await self.store.add_channel(self.month, UAID, CHID)
        await self.put(message())
        for table in (self.router, self.month):
            for item in raw_call("scan", TableName=table)["Items"]:
                self.assertRegex(item["uaid"]["S"], "^[0-9a-f]{64}$")
