"""Channels and stored messages are counted a slice at a time."""

from __future__ import annotations

import uuid
from unittest import mock

from autopush.constants import MAX_EXPIRY
from autopush.db.interface import Stock
from autopush.db.sqlite import store as sqlite_module
from autopush.db.sqlite.quota import size_of
from autopush.tests.db.sqlite.support import SqliteCase
from autopush.tests.db.store_contract import START, TS, message


class TestStock(SqliteCase):
    async def count(self):
        """All slices."""
        parts = []
        after = ""
        while after is not None:
            parts.append(await self.store.take_stock(after))
            after = parts[-1].last
        return parts

    async def test_empty(self):
        self.store = await self.open_store()
        self.assertEqual(await self.count(), [Stock(0, 0, 0, "0"), Stock(0, 0, 0, None)])

    async def test_all_are_counted_whatever_the_slice(self):
        self.store = await self.open_store()
        for user in range(3):
            for _ in range(user + 1):
                await self.store.add_channel("m", f"{user:032x}", str(uuid.uuid4()))
        sent = [message(TS + number, data="x" * number) for number in range(7)]
        for one in sent:
            await self.store.store_message("m", one)
        await self.store.delete_message("m", sent.pop(3))
        size = sum(map(size_of, sent))
        for limit in (1, 2, 3, 4, 5, 6, 7, 250):
            with mock.patch.object(sqlite_module, "STOCK_SLICE", limit):
                parts = await self.count()
            self.assertEqual([sum(column) for column in zip(*(p[:3] for p in parts), strict=True)],
                             [6, 6, size])  # fmt: skip
            self.assertLessEqual(max(max(p.channels, p.messages) for p in parts), limit)

    async def test_what_has_expired_goes_with_the_sweep(self):
        self.store = await self.open_store()
        await self.store.add_channel("m", "0" * 32, str(uuid.uuid4()))
        await self.store.store_message("m", message(TS, ttl=60))
        self.time = START + MAX_EXPIRY + 1
        await self.store.sweep()
        self.assertEqual(await self.count(), [Stock(0, 0, 0, "0"), Stock(0, 0, 0, None)])

    async def test_writes_that_wait_are_known(self):
        self.store = await self.open_store(commit_delay=0.05)
        self.assertEqual(self.store.writes_waiting(), 0)
        writes = [self.store.store_message("m", message(TS + number)) for number in range(3)]
        writes.append(self.store.drop_user("0" * 32))
        self.assertEqual(self.store.writes_waiting(), 4)
        for write in writes:
            await write
        self.assertEqual(self.store.writes_waiting(), 0)
