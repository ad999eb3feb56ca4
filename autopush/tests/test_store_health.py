"""Health of the embedded store: it tells the truth (configuration.md 10, websocket.md 20)."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import threading
from unittest import mock

from twisted.internet import reactor
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from autopush.db import SqliteStore, sqlite_health, sqlite_schema, sqlite_writer


class HealthTest(TestCase):
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
            go_on.wait(10)

        waiting = store._writer.call(wait)
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
        # The answer is what was last known; asking is what finds out.
        await store.health()
        await store.alive()
        self.assertEqual(await store.health(), {"router": None, "storage": None})

    async def test_a_writer_thread_that_is_stuck(self):
        self.patch(sqlite_health, "WRITE_WITHIN", 0.05)
        store = await self.open_store()
        await self.stuck(store)
        storage = (await store.health())["storage"]
        self.assertEqual(storage, "a write takes longer than 0.05 seconds")
        self.patch(sqlite_writer, "STUCK_AFTER", -1)
        self.assertEqual((await store.health())["storage"], "a transaction doesn't end")

    async def test_a_file_that_was_moved_away_or_replaced(self):
        store = await self.open_store()
        await store.alive()  # the writer has opened it
        for change in (
            lambda: os.rename(self.path, f"{self.path}.away"),
            lambda: sqlite_schema.prepare(self.path),
        ):
            change()
            report = await store.health()
            self.assertEqual(len([e for e in report.values() if e and "moved away" in e]), 2)
        os.replace(f"{self.path}.away", self.path)
        self.assertEqual(await store.health(), {"router": None, "storage": None})

    async def test_a_disk_that_takes_no_more(self):
        store = await self.open_store()
        await store._writer.call(lambda c: c.execute("PRAGMA query_only = ON"))
        self.assertIn("readonly", (await store.health())["storage"])

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
