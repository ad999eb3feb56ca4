"""Batches as transactions (db/postgresql/writer.py)."""

from __future__ import annotations

import random
import uuid
from typing import Any

from twisted.internet.defer import gatherResults

from autopush.tests.db.postgresql.support import PostgresqlCase
from autopush.tests.db.store_contract import CHID, OTHER, TS, UAID, message, versions


class TestWriter(PostgresqlCase):
    def watch(self) -> list[str]:
        """The statements of transactions from now on, by their first words."""
        from autopush.db.postgresql import writer

        seen: list[str] = []
        begin, commit = writer.begin, writer.commit

        def noted_begin(connection: Any, uaids: Any) -> str:
            seen.append("begin")
            return begin(connection, uaids)

        def noted_commit(connection: Any, number: str) -> None:
            seen.append("commit")
            commit(connection, number)

        self.patch(writer, "begin", noted_begin)
        self.patch(writer, "commit", noted_commit)
        return seen

    async def test_what_comes_together_is_one_transaction(self):
        store = await self.open_store(commit_delay=0.05)
        seen = self.watch()
        await gatherResults(
            [
                store.register_user({"uaid": UAID, "router_type": "x", "connected_at": 1}),
                store.add_channel("m", UAID, CHID),
                *[store.store_message("m", message(TS + number)) for number in range(30)],
                store.delete_message("m", message(1)),
            ]
        )
        self.assertEqual(seen, ["begin", "commit"])

    async def test_very_many_are_several(self):
        from autopush.db.postgresql import writer

        self.patch(writer, "AT_ONCE", 10)
        store = await self.open_store(commit_delay=0.05)
        seen = self.watch()
        writes = [store.store_message("m", message(TS + number)) for number in range(25)]
        await gatherResults(writes)
        self.assertEqual(seen, ["begin", "commit"] * 3)
        self.assertEqual(len((await store.fetch_since("m", UAID, None, 100)).messages), 25)

    async def test_a_message_taken_back_in_time_costs_nothing(self):
        store = await self.open_store(commit_delay=0.05)
        seen = self.watch()
        stored = store.store_message("m", message())
        self.assertTrue(store.take_back("m", message()))
        self.assertIsNone(await stored)
        self.assertEqual(seen, [])

    def test_calls_about_one_user_keep_their_order(self):
        from autopush.db.postgresql.records import IDLE
        from autopush.db.postgresql.writer import Change, _waves
        from autopush.db.writes import Call

        rng = random.Random(1)
        calls = [Call(Change(IDLE, {"uaid": rng.choice("abcd"), "n": n})) for n in range(40)]
        waves = list(_waves(list(calls)))
        for wave in waves:
            users = [call.function.uaid for call in wave]
            self.assertEqual(len(users), len(set(users)))
        flat = [call for wave in waves for call in wave]
        self.assertEqual(len(flat), 40)
        for uaid in "abcd":
            numbers = [c.function.values["n"] for c in flat if c.function.uaid == uaid]
            self.assertEqual(numbers, sorted(numbers))

    async def test_processes_that_write_for_the_same_users_do_not_deadlock(self):
        stores = [await self.open_store(commit_delay=0) for _ in range(3)]
        users = [uuid.uuid4() for _ in range(12)]
        rng = random.Random(2)
        writes = []
        for number in range(300):
            store, uaid = rng.choice(stores), rng.choice(users)
            if rng.random() < 0.7:
                one = message(TS + number // 6, uaid=uaid, version=f"v{number}")
                writes.append(store.store_message("m", one))
            else:
                writes.append(store.add_channel("m", uaid.hex, CHID))
        await gatherResults(writes)
        ((deadlocks,),) = self.sql("SELECT sum(deadlocks)::int FROM pg_stat_database")
        self.assertEqual(deadlocks, 0)
        keys = self.sql("SELECT uaid, split_part(sortkey, ':', 2) FROM messages")
        self.assertEqual(len(keys), len(set(keys)))  # no two of a user at one place

    async def test_of_writers_at_once_no_message_comes_before_one_that_was_read(self):
        """Two nodes store for one user, a third one reads meanwhile (17.6)."""
        writers = [await self.open_store(commit_delay=0) for _ in range(2)]
        reader = await self.open_store()
        rng = random.Random(3)
        versions_sent, seen = set(), []
        position: int | None = None
        for round_ in range(40):
            writes = []
            for store in writers:
                stamp = TS + round_ * 10 - rng.randrange(25)
                one = message(stamp, version=f"{round_}-{len(versions_sent)}")
                versions_sent.add(one.version)
                writes.append(store.store_message("m", one))
            batch = await reader.fetch_since("m", UAID, position)
            seen += versions(batch)
            position = batch.timestamp or position
            await gatherResults(writes)
        while (batch := await reader.fetch_since("m", UAID, position)).messages:
            seen += versions(batch)
            position = batch.timestamp
        self.assertEqual(sorted(map(str, seen)), sorted(map(str, versions_sent)))

    async def test_other_users_are_not_waited_for(self):
        import psycopg

        from autopush.db.postgresql.writer import begin

        store = await self.open_store()
        with psycopg.connect(self.dsn, autocommit=True) as other:
            begin(other, [UAID])
            await store.store_message("m", message(uaid=uuid.UUID(OTHER)))
            other.execute("ROLLBACK")

    async def test_nothing_is_committed_that_failed(self):
        import psycopg

        from autopush.db.postgresql.writer import begin, commit

        with psycopg.connect(self.dsn, autocommit=True) as connection:
            number = begin(connection, [UAID])
            with self.assertRaises(psycopg.Error):
                connection.execute("SELECT broken")
            with self.assertRaises(psycopg.Error):
                commit(connection, number)
