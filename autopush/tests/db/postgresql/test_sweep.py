"""What has expired goes (db/postgresql/sweep.py)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from autopush.constants import MAX_EXPIRY
from autopush.exceptions import StoreBusy
from autopush.tests.db.postgresql.support import PostgresqlCase
from autopush.tests.db.store_contract import CHID, OTHER, TS, UAID, message


class TestSweep(PostgresqlCase):
    def counts(self) -> list[int]:
        tables = ("messages", "channel_rows", "channels")
        return [self.sql(f"SELECT count(*) FROM {table}")[0][0] for table in tables]

    async def fill(self, store: Any) -> None:
        for uaid in (UAID, OTHER):
            await store.add_channel("m", uaid, CHID)
        for number in range(5):
            await store.store_message("m", message(TS + number, ttl=60))
        await store.store_message("m", message(TS + 9, ttl=6000))

    async def test_what_has_expired_goes_and_the_rest_stays(self):
        store = await self.open_store()
        await self.fill(store)
        self.assertFalse(await store.sweeper.sweep())
        self.assertEqual(self.counts(), [6, 2, 2])
        self.time += 60
        await store.sweeper.sweep()
        self.assertEqual(self.counts(), [1, 2, 2])
        self.time += MAX_EXPIRY
        await store.add_channel("m", OTHER, CHID)
        await store.sweeper.sweep()
        self.assertEqual(self.counts(), [0, 1, 1])

    async def test_a_slice_at_a_time(self):
        from autopush.db.postgresql import sweep

        self.patch(sweep, "SWEEP_SLICE", 2)
        store = await self.open_store()
        await self.fill(store)
        self.time += 60
        self.assertEqual([await store.sweeper.sweep() for _ in range(3)], [True, True, False])
        self.assertEqual(self.counts()[0], 1)

    async def test_one_process_at_a_time(self):
        import psycopg

        from autopush.db.postgresql.schema import LOCK, SWEEP

        store = await self.open_store()
        await self.fill(store)
        self.time += 60
        with psycopg.connect(self.dsn, autocommit=True) as other:
            other.execute("BEGIN")
            other.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCK, SWEEP))
            self.assertFalse(await store.sweeper.sweep())
            self.assertEqual(self.counts()[0], 6)
            other.execute("COMMIT")
        await store.sweeper.sweep()
        self.assertEqual(self.counts()[0], 1)

    async def test_what_is_being_written_is_left_alone(self):
        import psycopg

        store = await self.open_store()
        await self.fill(store)
        self.time += 60
        row = (store._key(UAID), message(TS).sort_key)
        with psycopg.connect(self.dsn, autocommit=True) as other:
            other.execute("BEGIN")
            other.execute(
                "UPDATE messages SET expiry = expiry + 1 WHERE uaid = %s AND sortkey = %s", row
            )
            await store.sweeper.sweep()
            self.assertEqual(self.counts()[0], 2)
            other.execute("COMMIT")


class TestSweeper(PostgresqlCase):
    """Now and then, whatever the last look brought."""

    def test_intervals(self):
        from autopush.db.postgresql.sweep import SWEEP_INTERVAL, SWEEP_PAUSE, Sweeper

        clock, answers = Clock(), [succeed(True), fail(StoreBusy("no")), succeed(False)]

        class Reader:
            looks = 0

            def call(self, task: Any) -> Deferred[Any]:
                self.looks += 1
                return answers.pop(0)

        reader: Any = Reader()
        sweeper = Sweeper(clock, reader, lambda: 0)
        sweeper.start()
        clock.advance(0.5 * SWEEP_INTERVAL - 1)
        self.assertEqual(reader.looks, 0)
        clock.advance(SWEEP_INTERVAL + 1)
        self.assertEqual(reader.looks, 1)
        clock.advance(SWEEP_PAUSE)
        self.assertEqual(reader.looks, 2)
        clock.advance(1.5 * SWEEP_INTERVAL)
        self.assertEqual(reader.looks, 3)
        sweeper.stop()
        self.assertEqual(clock.getDelayedCalls(), [])
