"""What is remembered of the file never differs from what is in it (sqlite_cache.py)."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from typing import Any

from hypothesis import given, settings, strategies as st
from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from autopush.db import SqliteStore
from autopush.db.sqlite import (
    messages as sqlite_messages,
    records as sqlite_records,
    schema as sqlite_schema,
)
from autopush.db.sqlite.cache import MAX_ENTRIES, MAX_LENGTH, ReadCache, WalIndex, _count
from autopush.exceptions import StoreError
from autopush.tests.db.sqlite.support import be_patient
from autopush.tests.db.store_contract import CHID, CHID2, START, UAID, message

RECORD = {"uaid": UAID, "router_type": "webpush", "connected_at": 1, "node_id": "http://a:1"}


class CacheCase(TestCase):
    """A store in a fresh directory, and how often it reads the file."""

    async def open_store(self) -> SqliteStore:
        store = SqliteStore(self.path, reactor, now=lambda: self.time, commit_delay=0)
        self.addCleanup(store.close)
        await store.setup()
        return store

    def setUp(self) -> None:
        be_patient(self)
        self.time = START
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = os.path.join(self.directory, "autopush.sqlite")

    def counted(self, store: SqliteStore) -> list[str]:
        reads: list[str] = []
        assert store._connection is not None
        store._connection.set_trace_callback(reads.append)
        return reads


class TestReads(CacheCase):
    async def test_unchanged_file_is_read_once(self):
        store = await self.open_store()
        await store.register_user(RECORD)
        await store.add_channel("m", UAID, CHID)
        reads = self.counted(store)
        for _ in range(3):
            user, subscribed = await store.get_subscription(UAID, CHID)
            self.assertEqual((user, subscribed), (RECORD, True))
            self.assertEqual(await store.get_user(UAID), RECORD)
        self.assertEqual(len(reads), 1)

    async def test_callers_may_change_what_they_get(self):
        store = await self.open_store()
        await store.register_user(RECORD)
        (await store.get_subscription(UAID, CHID)).user.clear()
        (await store.get_user(UAID)).clear()
        self.assertEqual(await store.get_user(UAID), RECORD)

    async def test_own_writes_are_seen(self):
        store = await self.open_store()
        await store.register_user(RECORD)
        self.assertFalse((await store.get_subscription(UAID, CHID)).subscribed)
        await store.add_channel("m", UAID, CHID)
        self.assertTrue((await store.get_subscription(UAID, CHID)).subscribed)
        await store.clear_node(UAID, "http://a:1", 1)
        self.assertNotIn("node_id", await store.get_user(UAID))
        await store.remove_channel("m", UAID, CHID)
        self.assertFalse((await store.get_subscription(UAID, CHID)).subscribed)
        await store.drop_user(UAID)
        self.assertIsNone(await store.get_user(UAID))
        self.assertIsNone((await store.get_subscription(UAID, CHID)).user)

    async def test_writes_of_another_connection_are_seen(self):
        store = await self.open_store()
        await store.register_user(RECORD)
        await store.get_subscription(UAID, CHID)
        other = sqlite_schema.open_writer(self.path)
        self.addCleanup(other.close)
        sqlite_records.drop(other, UAID)
        self.assertIsNone((await store.get_subscription(UAID, CHID)).user)

    async def test_messages_stored_and_deleted_leave_it_valid(self):
        store = await self.open_store()
        await store.register_user(RECORD)
        await store.add_channel("m", UAID, CHID)
        await store.get_subscription(UAID, CHID)
        reads = self.counted(store)
        await store.store_message("m", message())
        self.assertTrue((await store.get_subscription(UAID, CHID)).subscribed)
        await store.delete_message("m", message())
        self.assertTrue((await store.get_subscription(UAID, CHID)).subscribed)
        self.assertEqual([sql for sql in reads if "FROM users" in sql], [])

    async def test_message_and_another_process_at_once(self):
        """Of two transactions between two looks at the header, one is not ours."""
        store = await self.open_store()
        await store.register_user(RECORD)
        await store.get_subscription(UAID, CHID)
        committed = store._cache.committed

        def drop_first() -> None:
            other = sqlite_schema.open_writer(self.path)
            sqlite_records.drop(other, UAID)
            other.close()
            committed()

        self.patch(store._cache, "committed", drop_first)
        await store.store_message("m", message())
        self.assertIsNone((await store.get_subscription(UAID, CHID)).user)

    async def test_own_commit_is_recognized_before_the_writer_thread_says_so(self):
        store = await self.open_store()
        await store.register_user(RECORD)
        await store.get_user(UAID)
        seen = []

        def look_first() -> None:
            seen.append(store._cache.is_current())
            committed()

        committed = store._cache.committed
        self.patch(store._cache, "committed", look_first)
        await store.store_message("m", message())
        self.assertEqual((seen, store._cache.is_current()), ([True], True))

    async def test_failed_commit_forgets(self):
        store = await self.open_store()
        await store.register_user(RECORD)
        await store.get_user(UAID)
        self.assertTrue(store._cache.is_current())

        def fail(*_args: object) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        self.patch(sqlite_messages, "put", fail)
        await self.assertFailure(store.store_message("m", message()), StoreError)
        self.assertFalse(store._cache.is_current())
        self.flushLoggedErrors(sqlite3.OperationalError)

    async def test_channel_row_expires_in_memory_too(self):
        store = await self.open_store()
        await store.register_user(RECORD)
        await store.add_channel("m", UAID, CHID)
        self.assertTrue((await store.get_subscription(UAID, CHID)).subscribed)
        self.time += 365 * 86_400
        self.assertFalse((await store.get_subscription(UAID, CHID)).subscribed)

    async def test_other_channels_are_read(self):
        store = await self.open_store()
        await store.register_user(RECORD)
        await store.add_channel("m", UAID, CHID)
        self.assertTrue((await store.get_subscription(UAID, CHID)).subscribed)
        self.assertFalse((await store.get_subscription(UAID, CHID2)).subscribed)

    async def test_bounded(self):
        store = await self.open_store()
        cache = store._cache
        cache.is_current()
        for number in range(MAX_ENTRIES + 1):
            cache.remember(str(number), "{}", CHID, 1)
        self.assertEqual((len(cache.records), len(cache.channels)), (1, 1))
        cache.remember("long", "x" * (MAX_LENGTH + 1))
        self.assertNotIn("long", cache.records)

    async def test_works_without_a_wal_index(self):
        self.patch(WalIndex, "__init__", lambda self, path: (_ for _ in ()).throw(OSError()))
        store = await self.open_store()
        await store.register_user(RECORD)
        reads = self.counted(store)
        for _ in range(2):
            self.assertEqual(await store.get_user(UAID), RECORD)
        self.assertEqual(len(reads), 2)

    async def test_closed_store_remembers_nothing(self):
        store = await self.open_store()
        await store.register_user(RECORD)
        await store.get_user(UAID)
        await store.close()
        await self.assertFailure(store.get_user(UAID), Exception)

    async def test_locks_of_other_stores_of_the_process_survive_a_close(self):
        """Closing a descriptor of the index would drop them: it is closed with the last store."""
        first, second = await self.open_store(), await self.open_store()
        index = second._cache._index
        assert index is not None
        await first.close()
        self.assertEqual(len(index.header()), 48)
        await second.register_user(RECORD)
        self.assertEqual(await second.get_user(UAID), RECORD)
        await second.close()
        with self.assertRaises(ValueError):
            index.header()


STEPS = st.lists(
    st.sampled_from(["read", "message", "foreign message", "foreign drop", "foreign register"]),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_header_tells_every_change(steps: list[str]) -> None:
    """Whatever is committed by whom: what is remembered is what a fresh read brings."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "x.sqlite")
        sqlite_schema.prepare(path)
        reader, ours, foreign = (
            sqlite_schema.open_reader(path),
            sqlite_schema.open_writer(path),
            sqlite_schema.open_writer(path),
        )
        reader.execute(sqlite_records.GET_USER, (UAID,)).fetchone()
        cache = ReadCache()
        cache.open(path)
        number = 0

        def read() -> Any:
            row = reader.execute(sqlite_records.GET_USER, (UAID,)).fetchone()
            return row and row[0]

        def insert(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO messages (uaid, sortkey, ttl, timestamp, expiry)"
                " VALUES ('a', ?, 1, 1, 1)",
                (str(number),),
            )

        for step in steps:
            number += 1
            if step == "read":
                if not cache.is_current() or UAID not in cache.records:
                    found = read()
                    if found:
                        cache.remember(UAID, found)
                assert cache.records.get(UAID, read()) == read()
            elif step == "message":
                ours.execute("BEGIN IMMEDIATE")
                insert(ours)
                cache.committing()
                ours.execute("COMMIT")
                if number % 2:
                    assert cache.is_current() in (True, False)  # before the writer comes to say so
                cache.committed()
            elif step == "foreign message":
                insert(foreign)
            elif step == "foreign drop":
                sqlite_records.drop(foreign, UAID)
            else:
                new = {"router_type": "webpush", "connected_at": number}
                sqlite_records.register(foreign, UAID, new)
        index = cache.close()
        for connection in (reader, ours, foreign):
            connection.close()
        assert index is not None
        index.close()


def test_transactions_are_counted_one_by_one() -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "x.sqlite")
        sqlite_schema.prepare(path)
        connection = sqlite_schema.open_writer(path)
        sqlite_records.register(connection, "a", {"router_type": "x", "connected_at": 1})
        index = WalIndex(path)
        counts = []
        for number in range(50):
            sqlite_records.register(connection, f"b{number}", RECORD)
            if number % 20 == 0:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            counts.append(_count(index.header())[0])
        assert counts == list(range(counts[0], counts[0] + 50))
        connection.close()
        index.close()
