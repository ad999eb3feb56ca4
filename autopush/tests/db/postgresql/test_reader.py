"""Reads that share a statement (db/postgresql/reader.py)."""

from __future__ import annotations

import threading
import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater

from autopush.db import groupwriter
from autopush.db.deadlines import TooLate
from autopush.exceptions import StoreBusy, StoreClosed
from autopush.tests.db.postgresql.support import PostgresqlCase
from autopush.tests.db.store_contract import CHID, UAID


class TestReader(PostgresqlCase):
    async def make(self) -> Any:
        store = await self.open_store()
        self.runs: list[int] = []
        from autopush.db.postgresql.statements import Kind

        run = Kind.run

        def counted(kind: Any, connection: Any, operations: Any, now: int) -> Any:
            self.runs.append(len(operations))
            return run(kind, connection, operations, now)

        self.patch(Kind, "run", counted)
        return store

    async def test_what_is_asked_for_in_one_turn_is_one_statement_a_kind(self):
        store = await self.make()
        users = [f"{number:032x}" for number in range(20)]
        for uaid in users[:10]:
            record = {"uaid": uaid, "router_type": "x", "connected_at": int(uaid, 16)}
            await store.register_user(record)
        self.runs.clear()
        found = await gatherResults([*map(store.get_user, users), store.list_channels("m", UAID)])
        self.assertEqual(self.runs, [20, 1])
        expected = [int(uaid, 16) for uaid in users[:10]] + [None] * 10
        self.assertEqual([user and user["connected_at"] for user in found[:-1]], expected)

    async def test_what_comes_while_all_are_at_work_waits_together(self):
        store = await self.make()
        gate = threading.Event()
        self.addCleanup(gate.set)
        busy = []
        for _ in range(2):
            busy.append(store._reader.call(lambda connection: gate.wait(60)))
            while store._reader._growing:
                await deferLater(reactor, 0.001, lambda: None)
        self.assertEqual(store._reader._idle, [])
        reads = []
        for _ in range(10):
            reads.append(store.get_user(UAID))
            await deferLater(reactor, 0, lambda: None)
        self.assertEqual(self.runs, [])
        gate.set()
        await gatherResults([*busy, *reads])
        self.assertEqual(self.runs, [10])

    async def test_too_many_are_refused_and_the_late_are_told(self):
        from autopush.db.postgresql import reader

        store = await self.make()
        gate = threading.Event()
        self.addCleanup(gate.set)
        for _ in range(2):
            store._reader.call(lambda connection: gate.wait(60)).addErrback(lambda _: None)
            while store._reader._growing:
                await deferLater(reactor, 0.001, lambda: None)
        self.patch(reader, "MAX_WAITING", 1)
        waiting = store.get_user(UAID)
        await self.assertFailure(store.get_user(UAID), StoreBusy)
        self.patch(groupwriter, "DEADLINE", 0)
        store._reader.tell_late()
        await self.assertFailure(waiting, TooLate)

    async def test_after_the_end(self):
        store = await self.make()
        await store.close()
        await self.assertFailure(store.get_user(UAID), StoreClosed)
        await self.assertFailure(store.get_subscription(UAID, CHID), StoreClosed)
        names = [thread.name for thread in threading.enumerate()]
        deadline = time.monotonic() + 60
        while any(name.startswith("postgresql-") for name in names):
            self.assertLess(time.monotonic(), deadline)
            names = [thread.name for thread in threading.enumerate()]
