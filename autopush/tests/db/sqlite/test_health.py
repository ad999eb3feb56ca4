"""Health of the embedded store: it tells the truth (spec/configuration 10, spec/websocket 20)."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import threading
from pathlib import Path
from unittest import mock

import pytest
from twisted.internet import reactor
from twisted.internet.task import Clock, deferLater
from twisted.logger import capturedLogs
from twisted.trial.unittest import TestCase

from autopush.db import SqliteStore, groupwriter
from autopush.db.deadlines import TooLate, Unknown
from autopush.db.interface import StoreUnusable
from autopush.db.sqlite import (
    file as sqlite_file,
    health as sqlite_health,
    schema as sqlite_schema,
)
from autopush.exceptions import StoreBusy
from autopush.tests.db.sqlite.support import PATIENCE, be_patient
from autopush.tests.db.store_contract import CHID, TS, message


class HealthTest(TestCase):
    def setUp(self):
        be_patient(self)

    async def open_store(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = os.path.join(directory.name, "db")
        store = SqliteStore(self.path, reactor, commit_delay=0)
        await store.setup()
        self.addCleanup(store.close)
        return store

    def sql(self, text):
        connection = sqlite3.connect(self.path, isolation_level=None)
        try:
            return connection.execute(text).fetchall()
        finally:
            connection.close()

    async def stuck(self, store):
        """Make the writer thread busy; returns what lets it go on."""
        go_on, started = threading.Event(), threading.Event()

        def wait(_connection):
            started.set()
            go_on.wait(PATIENCE)

        self.waiting = waiting = store._writer.call(wait)
        self.addCleanup(lambda: waiting)
        self.addCleanup(go_on.set)
        while not started.is_set():
            await deferLater(reactor, 0)
        return go_on

    async def test_well(self):
        store = await self.open_store()
        self.assertEqual(await store.health(), {"router": None, "storage": None})

    async def test_a_missing_table(self):
        for table, expected in (
            ("users", {"router": "Nonexistent table", "storage": None}),
            ("messages", {"router": None, "storage": "Nonexistent table"}),
            ("channels", {"router": None, "storage": "Nonexistent table"}),
            ("channel_rows", {"router": None, "storage": "Nonexistent table"}),
        ):
            store = await self.open_store()
            self.sql(f"DROP TABLE {table}")
            self.assertEqual(await store.health(), expected)

    async def test_locked_although_nobody_has_tried_to_write(self):
        self.patch(sqlite_schema, "WRITE_WAIT", 0.01)
        store = await self.open_store()
        locker = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(locker.close)
        locker.execute("BEGIN IMMEDIATE")
        self.assertEqual(
            await store.health(), {"router": None, "storage": "the database is locked"}
        )
        locker.execute("ROLLBACK")
        self.assertEqual(await store.health(), {"router": None, "storage": None})

    async def test_a_writer_thread_that_is_stuck(self):
        self.patch(sqlite_health, "WRITE_WITHIN", 0.05)
        store = await self.open_store()
        await self.stuck(store)
        storage = (await store.health())["storage"]
        self.assertEqual(storage, "a write takes longer than 0.05 seconds")
        self.patch(groupwriter, "STUCK_AFTER", -1)
        self.assertEqual((await store.health())["storage"], "a transaction doesn't end")

    async def refuses(self, store):
        """Whether nothing is stored or looked up, for a reason that says why."""
        uaid = message().uaid.hex
        for operation in (
            store.store_message("m", message()),
            store.get_user(uaid),
            store.get_subscription(uaid, CHID),
            store.fetch_since("m", uaid, None),
            store.register_user({"uaid": uaid, "router_type": "webpush", "connected_at": 1}),
        ):
            with self.assertRaisesRegex(StoreBusy, "moved away or replaced"):
                await operation

    async def test_a_file_that_was_moved_away_or_replaced(self):
        store = await self.open_store()
        await store.store_message("m", message())
        for change in (
            lambda: os.rename(self.path, f"{self.path}.away"),
            lambda: Path(self.path).write_bytes(b"another"),
        ):
            change()
            with capturedLogs() as events:
                report = await store.health()
            self.assertEqual(len([e for e in report.values() if e and "moved away" in e]), 2)
            await self.refuses(store)
        self.assertEqual(events, [])  # said once
        os.replace(f"{self.path}.away", self.path)
        self.assertEqual(await store.health(), {"router": None, "storage": None})
        await store.store_message("m", message(TS + 1))
        found = await store.fetch_since("m", message().uaid.hex, None)
        self.assertEqual(len(found.messages), 2)

    async def test_a_file_that_is_gone_is_noticed_without_being_asked(self):
        clock = Clock()
        self.patch(sqlite_file, "WATCH_INTERVAL", 1)
        store = await self.open_store()
        store._watch_timer.cancel()
        store._reactor, real = clock, store._reactor
        store._watch()
        os.unlink(self.path)
        with capturedLogs() as events:
            clock.advance(1)
            clock.advance(1)
        (event,) = [e for e in events if e["log_level"].name == "error"]
        self.assertIn("stop the service", event["advice"])
        await self.refuses(store)
        self.assertIn("moved away", (await store.health())["storage"])
        store._reactor = real

    async def test_a_log_that_lost_its_name_is_kept_by_a_proper_end(self):
        for part in ("-wal", "-shm"):
            store = await self.open_store()
            await store.store_message("m", message())
            os.unlink(self.path + part)
            self.assertIn(f"file{part} was moved", (await store.health())["router"])
            await self.refuses(store)
            await store.close()
            again = SqliteStore(self.path, reactor, commit_delay=0)
            await again.setup()
            found = await again.fetch_since("m", message().uaid.hex, None)
            self.assertEqual(len(found.messages), 1)
            await again.close()

    async def test_writes_are_answered_in_time_whatever_the_thread_does(self):
        self.patch(groupwriter, "DEADLINE", 0)
        store = await self.open_store()
        store._watch_timer.cancel()  # we look ourselves
        go_on = await self.stuck(store)
        (hanging,) = next(iter(store._writer._taken)).calls
        hanging = hanging.deferred
        self.waiting.addErrback(lambda failure: failure.trap(Unknown))
        waiting = [store.store_message("m", message(TS + n)) for n in range(3)]
        alive = store.alive()
        store._writer.tell_late()
        self.assertTrue(hanging.called)
        for write in waiting:
            with self.assertRaises(TooLate):
                await write
        self.assertNoResult(alive)
        self.patch(groupwriter, "DEADLINE", PATIENCE)
        later = store.store_message("m", message(TS + 9))
        go_on.set()
        await later
        self.assertEqual(self.sql("SELECT count(*) FROM messages"), [(1,)])
        await store.alive()

    async def test_a_write_that_was_begun_may_be_kept(self):
        self.patch(groupwriter, "DEADLINE", 0)
        store = await self.open_store()
        store._watch_timer.cancel()
        locker = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(locker.close)
        locker.execute("BEGIN IMMEDIATE")
        write = store.store_message("m", message())
        while not store._writer._taken:
            await deferLater(reactor, 0)
        store._writer.tell_late()
        with self.assertRaises(Unknown):
            await write
        locker.execute("ROLLBACK")
        self.patch(groupwriter, "DEADLINE", PATIENCE)
        await store.alive()
        self.assertEqual(self.sql("SELECT count(*) FROM messages"), [(1,)])

    async def test_a_disk_that_takes_no_more(self):
        store = await self.open_store()
        await store._writer.call(lambda c: c.execute("PRAGMA query_only = ON"))
        self.assertIn("readonly", (await store.health())["storage"])

    async def test_the_first_answer_after_a_full_disk_has_room_again_is_right(self):
        store = await self.open_store()
        pages = (await store._writer.call(lambda c: c.execute("PRAGMA page_count").fetchone()))[0]
        await store._writer.call(lambda c: c.execute(f"PRAGMA max_page_count = {pages}").fetchall())
        with self.assertRaises(StoreBusy):
            await store.store_message("m", message(data="x" * 100_000))
        for _ in range(2):
            self.assertEqual((await store.health())["storage"], "the disk is full")
        await store._writer.call(lambda c: c.execute("PRAGMA max_page_count = 9999").fetchall())
        store._writer._failing = "the disk is full"  # nobody has written since
        self.assertEqual(await store.health(), {"router": None, "storage": None})
        self.assertEqual(self.sql("SELECT count(*) FROM messages"), [(0,)])

    async def test_asking_often_writes_once_a_second(self):
        store = await self.open_store()
        clock = store._health._reactor = Clock()
        with mock.patch.object(sqlite_health, "_touch", wraps=sqlite_health._touch) as touch:
            for _ in range(3):
                await store.health()
            self.assertEqual(touch.call_count, 1)
            clock.advance(sqlite_health.FRESH)
            await store.health()
            self.assertEqual(touch.call_count, 2)

    async def test_it_changes_nothing(self):
        store = await self.open_store()
        version = self.sql("PRAGMA user_version")
        await store.health()
        self.assertEqual(self.sql("PRAGMA user_version"), version)
        self.assertEqual(self.sql("SELECT count(*) FROM messages"), [(0,)])

    async def test_alive_waits_for_the_writer_thread_whatever_its_database_does(self):
        self.patch(sqlite_schema, "WRITE_WAIT", 0.01)
        store = await self.open_store()
        locker = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(locker.close)
        locker.execute("BEGIN IMMEDIATE")
        fired = []
        await store.alive().addErrback(fired.append)
        self.assertEqual(len(fired), 1)  # an answer, too
        locker.execute("ROLLBACK")
        go_on = await self.stuck(store)
        alive = store.alive()
        self.assertNoResult(alive)
        go_on.set()
        await alive


def objects():
    connection = sqlite3.connect(":memory:")
    for script in sqlite_schema.schema_steps():
        connection.executescript(script)
    found = connection.execute(
        "SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite%'"
    ).fetchall()
    connection.close()
    return found


@pytest.mark.parametrize(("kind", "name"), objects())
def test_an_incomplete_database_refuses_to_start(tmp_path, kind, name):
    path = str(tmp_path / "db")
    sqlite_schema.prepare(path)
    connection = sqlite3.connect(path)
    connection.execute(f"DROP {kind} {name}")
    connection.close()
    with pytest.raises(StoreUnusable, match=f"no {kind} {name}.*restore a backup"):
        sqlite_schema.prepare(path)


def test_a_database_that_lacks_a_column_refuses_to_start(tmp_path):
    path = str(tmp_path / "db")
    sqlite_schema.prepare(path)
    connection = sqlite3.connect(path)
    connection.execute("ALTER TABLE users RENAME COLUMN record TO other")
    connection.close()
    with pytest.raises(StoreUnusable, match="no column record in users: restore"):
        sqlite_schema.prepare(path)
