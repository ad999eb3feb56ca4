"""Counting and forgetting (db/postgresql/census.py)."""

from __future__ import annotations

import uuid
from typing import Any

from autopush.db.interface import Forgotten, Stock, Survey
from autopush.db.sqlite.quota import size_of
from autopush.tests.db.postgresql.support import PostgresqlCase
from autopush.tests.db.store_contract import CHID, CHID2, NODE, START, TS, UAID, message

NOW = int(START * 1000)


class TestCensus(PostgresqlCase):
    async def put(self, store: Any, number: int, **values: Any) -> str:
        uaid = f"{number:032x}"
        record = {"uaid": uaid, "router_type": "webpush", "connected_at": 1000, **values}
        await store.register_user(record)
        return uaid

    async def survey(self, store: Any, forgotten: Forgotten | None) -> list[Survey]:
        parts, last = [], ""
        while True:
            part = await store.survey(last, forgotten)
            parts.append(part)
            if part.last is None:
                return parts
            last = part.last

    async def test_users_are_counted_in_slices(self):
        from autopush.db.postgresql import census

        self.patch(census, "SURVEY_SLICE", 3)
        store = await self.open_store()
        for number in range(7):
            await self.put(store, number)
        parts = await self.survey(store, None)
        self.assertEqual([part.users for part in parts], [3, 3, 1])

    async def test_who_is_forgotten(self):
        store = await self.open_store(key_hash="key")
        gone = await self.put(store, 1)
        there = await self.put(store, 2)
        kept = [
            await self.put(store, 3, connected_at=NOW),
            await self.put(store, 4, router_type="fcm"),
            await self.put(store, 5, node_id="http://other"),
            await self.put(store, 6),
            await self.put(store, 7),
        ]
        await store.add_channel("m", kept[3], CHID)
        await store.add_channel("m", kept[4], CHID)
        await store.remove_channel("m", kept[4], CHID)  # was here a moment ago
        forgotten = Forgotten(NOW - 1000, NODE, frozenset([there]))
        (part,) = await self.survey(store, forgotten)
        self.assertEqual(tuple(part), (6, 1, None))
        self.assertIsNone(await store.get_user(gone))
        for uaid in (*kept, there):
            self.assertIsNotNone(await store.get_user(uaid))

    async def test_who_subscribes_meanwhile_is_not_forgotten(self):
        from autopush.db.postgresql import census

        store = await self.open_store()
        uaid = await self.put(store, 1)
        begin = census.begin

        def late(connection: Any, uaids: Any) -> str:
            self.sql("INSERT INTO channels VALUES (%s, %s)", uaid, CHID)
            return begin(connection, uaids)

        self.patch(census, "begin", late)
        part = await store.survey("", Forgotten(NOW, NODE, frozenset()))
        self.assertEqual(tuple(part), (1, 0, None))
        self.assertIsNotNone(await store.get_user(uaid))

    async def test_stock(self):
        from autopush.db.postgresql import census

        self.patch(census, "STOCK_SLICE", 2)
        store = await self.open_store()
        for uaid in (UAID, uuid.uuid4().hex):
            for chid in (CHID, CHID2):
                await store.add_channel("m", uaid, chid)
        size = 0
        for number in range(5):
            one = message(TS + number, data="a" * number, headers={"encoding": "aes128gcm"})
            await store.store_message("m", one)
            size += size_of(one)
        total, last = Stock(0, 0, 0, None), ""
        while last is not None:
            part = await store.take_stock(last)
            total = Stock(*(a + b for a, b in zip(total[:3], part[:3], strict=True)), None)
            last = part.last
        self.assertEqual(total, Stock(4, 5, size, None))
