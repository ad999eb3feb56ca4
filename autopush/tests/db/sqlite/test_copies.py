"""Copies of the database: made while it is used, put in its place while it is not."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet import reactor as _reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater

from autopush.db.interface import StoreUnusable
from autopush.db.sqlite import copies, schema
from autopush.tests.db.sqlite.support import SqliteCase
from autopush.tests.db.store_contract import TS, UAID, message

reactor: Any = _reactor


class TestBackup(SqliteCase):
    """Copying a database in use."""

    def setUp(self) -> None:
        super().setUp()
        self.copy = os.path.join(self.directory, "copy.sqlite")

    async def test_backup_while_the_server_writes(self):
        store = await self.open_store()
        for number in range(50):
            store.store_message("m", message(TS + number))
        await store.store_message("m", message(TS + 99))
        written = [store.store_message("m", message(TS + 100 + number)) for number in range(50)]
        await deferLater(reactor, 0)
        copies.backup(self.path, self.copy)
        await gatherResults(written)

        self.assertEqual(stat.S_IMODE(os.stat(self.copy).st_mode), 0o600)
        self.assertEqual(
            sorted(name for name in os.listdir(self.directory) if "copy" in name), ["copy.sqlite"]
        )
        connection = sqlite3.connect(self.copy)
        self.addCleanup(connection.close)
        self.assertEqual(connection.execute("PRAGMA integrity_check").fetchone(), ("ok",))
        count = connection.execute("SELECT count(*) FROM messages").fetchone()[0]
        self.assertIn(count, range(51, 102))

    async def test_backup_can_be_used_as_a_store(self):
        store = await self.open_store()
        await store.store_message("m", message())
        copies.backup(self.path, self.copy)
        self.path = self.copy
        copy = await self.open_store()
        self.assertEqual(len((await copy.fetch_since("m", UAID, None)).messages), 1)

    async def test_backup_never_overwrites(self):
        await self.open_store()
        Path(self.copy).write_text("precious")
        with self.assertRaisesRegex(StoreUnusable, "exists already"):
            copies.backup(self.path, self.copy)
        self.assertEqual(Path(self.copy).read_text(), "precious")

    def test_backup_of_nothing(self):
        with self.assertRaisesRegex(StoreUnusable, "doesn't exist"):
            copies.backup(self.path, self.copy)
        self.assertEqual(os.listdir(self.directory), [])

    def test_failed_backup_leaves_no_copy(self):
        Path(self.path).write_text("no database at all" * 100)
        with self.assertRaisesRegex(StoreUnusable, "not an SQLite database"):
            copies.backup(self.path, self.copy)
        self.assertFalse(os.path.exists(self.copy))

    def test_backup_of_another_programs_database(self):
        self.sql("CREATE TABLE bookmarks (url TEXT)")
        with self.assertRaisesRegex(StoreUnusable, "another program"):
            copies.backup(self.path, self.copy)
        self.assertFalse(os.path.exists(self.copy))

    async def test_backup_to_missing_directory(self):
        await self.open_store()
        with self.assertRaisesRegex(StoreUnusable, "can't be created"):
            copies.backup(self.path, self.copy + "/x/y")

    async def test_one_state_though_it_takes_many_steps(self):
        """Others write between the steps: what they write isn't in it, and nothing starts again."""
        store = await self.open_store()
        for number in range(200):
            await store.store_message("m", message(TS + number, data="x" * 3000))
        writer = schema.open_writer(self.path)
        self.addCleanup(writer.close)
        steps = []

        def shown(done, total):
            steps.append((done, total))
            writer.execute("DELETE FROM messages WHERE rowid % 7 = ?", (len(steps) % 7,))

        with mock.patch.object(copies, "STEP", 16):
            copies.backup(self.path, self.copy, shown)
        self.assertGreater(len(steps), 8)
        self.assertEqual(steps, sorted(steps))
        self.assertEqual(len({total for _, total in steps}), 1)
        self.assertEqual(steps[-1][0], steps[-1][1])
        self.assertEqual(count(self.copy), 200)
        self.assertLess(count(self.path), 200)


def count(path):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT count(*) FROM messages").fetchone()[0]


class TestRestore(SqliteCase):
    """Putting a copy in the place of the database."""

    def setUp(self) -> None:
        super().setUp()
        self.copy = os.path.join(self.directory, "copy.sqlite")

    async def make_copy(self):
        """A copy with one message and one user; the database then has three messages."""
        store = await self.open_store()
        await store.register_user(
            {"uaid": UAID, "router_type": "webpush", "connected_at": 1, "current_month": "m"}
        )
        await store.store_message("m", message(TS))
        copies.backup(self.path, self.copy)
        for number in (1, 2):
            await store.store_message("m", message(TS + number))
        return store

    def names(self):
        return sorted(os.listdir(self.directory))

    async def test_the_one_before_stays_beside_it(self):
        store = await self.make_copy()
        await store.close()
        done = copies.restore(self.copy, self.path)
        self.assertEqual((done.users, done.size), (1, os.path.getsize(self.path)))
        self.assertEqual((count(self.path), count(done.kept)), (1, 3))
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        kept = os.path.basename(done.kept)
        self.assertTrue(kept.startswith("autopush.sqlite.before-"))
        self.assertEqual(self.names(), ["autopush.sqlite", kept, "copy.sqlite"])
        again = await self.open_store()
        self.assertEqual(len((await again.fetch_since("m", UAID, None)).messages), 1)

    async def test_each_one_before_has_a_name_of_its_own(self):
        await (await self.make_copy()).close()
        kept = {copies.restore(self.copy, self.path).kept for _ in range(3)}
        self.assertEqual(len(kept), 3)

    async def test_where_there_was_none(self):
        await (await self.make_copy()).close()
        os.unlink(self.path)
        Path(self.path + "-wal").write_bytes(b"of another one")
        done = copies.restore(self.copy, self.path)
        self.assertIsNone(done.kept)
        self.assertEqual(count(self.path), 1)
        self.assertEqual(self.names(), ["autopush.sqlite", "copy.sqlite"])

    async def test_a_damaged_one_is_replaced(self):
        """That is what copies are for. What is beside it goes with it."""
        await (await self.make_copy()).close()
        Path(self.path).write_bytes(b"no database at all" * 1000)
        Path(self.path + "-wal").write_bytes(b"its log")
        done = copies.restore(self.copy, self.path)
        self.assertEqual(Path(done.kept + "-wal").read_bytes(), b"its log")
        self.assertEqual(Path(done.kept).read_bytes()[:2], b"no")
        self.assertEqual(count(self.path), 1)
        self.assertFalse(os.path.exists(self.path + "-wal"))

    async def refused(self, text, path=None):
        names = self.names()
        with self.assertRaisesRegex(StoreUnusable, text):
            copies.restore(path or self.copy, self.path)
        self.assertEqual((count(self.path), self.names()), (3, names))

    async def test_not_while_it_is_used(self):
        await self.make_copy()
        with (
            mock.patch.object(copies, "IN_USE_WAIT", 0.01),
            self.assertRaisesRegex(StoreUnusable, "locked by another process: end that"),
        ):
            copies.restore(self.copy, self.path)
        self.assertEqual(count(self.path), 3)
        self.assertFalse([name for name in self.names() if "before" in name or "rest" in name])

    async def test_what_is_no_good_copy(self):
        await (await self.make_copy()).close()
        sound = Path(self.copy).read_bytes()
        await self.refused("doesn't exist: name the copy", self.copy + "x")
        await self.refused("is the database itself", self.path)
        Path(self.copy).write_bytes(b"no database at all" * 100)
        await self.refused("is not an SQLite database")
        Path(self.copy).write_bytes(sound[: len(sound) // 2])
        await self.refused("is damaged")
        for statement, text in (
            ("PRAGMA application_id = 5", "belongs to another program"),
            ("PRAGMA user_version = 99", "was written by a newer autopush"),
            ("DROP TABLE messages", "is incomplete, it has no table messages"),
        ):
            Path(self.copy).write_bytes(sound)
            with closing(sqlite3.connect(self.copy)) as connection:
                connection.execute(statement)
            await self.refused(text)

    async def test_it_is_in_place_whatever_fails(self):
        """At any time there is a database under the name, the one or the other."""
        await (await self.make_copy()).close()
        for name in ("fsync", "chown", "link", "replace"):
            with (
                mock.patch.object(copies.os, name, side_effect=OSError("on purpose")),
                self.assertRaisesRegex(OSError, "on purpose"),
            ):
                copies.restore(self.copy, self.path)
            self.assertEqual(count(self.path), 3, name)
            self.assertFalse(os.path.exists(self.path + ".restoring"))

    async def test_a_draft_of_a_crash_is_no_obstacle(self):
        await (await self.make_copy()).close()
        Path(self.path + ".restoring").write_text("half of it")
        copies.restore(self.copy, self.path)
        self.assertEqual(count(self.path), 1)
