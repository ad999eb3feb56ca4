"""The file: created, checked, migrated, copied (spec/storage 17.1)."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
from pathlib import Path
from unittest import mock

from twisted.internet.task import Clock

from autopush.db import SqliteStore, StoreUnusable
from autopush.db.sqlite import (
    schema as sqlite_schema,
)
from autopush.tests.db.sqlite.support import SqliteCase
from autopush.tests.db.store_contract import CHID, START, TS, UAID, message


class TestFile(SqliteCase):
    """Creating, checking, migrating (17.1)."""

    def refused(self, path: str | None = None) -> str:
        store = SqliteStore(path or self.path, Clock())
        failure = self.failureResultOf(store.setup(), StoreUnusable)
        self.assertNotIn("\n", str(failure.value))
        return str(failure.value)

    async def test_file_is_private(self):
        store = await self.open_store()
        await store.store_message("m", message())
        for name in os.listdir(self.directory):
            mode = stat.S_IMODE(os.stat(os.path.join(self.directory, name)).st_mode)
            self.assertEqual((name, oct(mode)), (name, "0o600"))

    async def test_mode_of_an_existing_file_is_left_alone(self):
        Path(self.path).touch()
        os.chmod(self.path, 0o640)
        await self.open_store()
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o640)

    async def test_writes_are_durable_in_wal_mode(self):
        await self.open_store()
        self.assertEqual(self.sql("PRAGMA journal_mode"), [("wal",)])
        connection = sqlite_schema.open_writer(self.path)
        self.addCleanup(connection.close)
        self.assertEqual(connection.execute("PRAGMA synchronous").fetchone(), (2,))

    async def test_preflight_leaves_nothing_behind(self):
        await self.open_store()
        for table in ("users", "channel_rows", "channels", "messages"):
            self.assertEqual(self.sql(f"SELECT count(*) FROM {table}"), [(0,)])

    async def test_contents_survive_a_restart(self):
        store = await self.open_store()
        await store.store_message("m", message())
        await store.close()
        again = await self.open_store()
        self.assertEqual(len((await again.fetch_since("m", UAID, None)).messages), 1)

    def test_missing_directory(self):
        self.assertIn("create its directory", self.refused(self.path + "/x/y"))

    def test_path_is_a_directory(self):
        self.assertIn("is not a file", self.refused(self.directory))

    def test_not_a_database_is_left_alone(self):
        content = b"Dear diary, " * 500
        Path(self.path).write_bytes(content)
        self.assertIn("is not an SQLite database", self.refused())
        self.assertEqual(Path(self.path).read_bytes(), content)
        self.assertEqual(os.listdir(self.directory), ["autopush.sqlite"])

    def test_database_of_another_program_is_left_alone(self):
        self.sql("CREATE TABLE bookmarks (url TEXT)")
        self.assertIn("belongs to another program", self.refused())
        self.assertEqual(self.sql("SELECT name FROM sqlite_master"), [("bookmarks",)])
        self.assertEqual(self.sql("PRAGMA journal_mode"), [("delete",)])

    async def test_corrupt_database_is_left_alone(self):
        store = await self.open_store()
        await store.close()
        content = bytearray(Path(self.path).read_bytes())
        content[100:4096] = b"\xa5" * 3996  # the schema's page
        Path(self.path).write_bytes(content)
        self.assertIn("is damaged", self.refused())
        self.assertEqual(Path(self.path).read_bytes(), content)

    async def test_newer_schema_is_left_alone(self):
        store = await self.open_store()
        await store.close()
        self.sql("PRAGMA user_version = 99")
        self.assertIn("newer autopush (schema 99, this one knows 3)", self.refused())
        self.assertEqual(self.sql("PRAGMA user_version"), [(99,)])

    async def test_unwritable_file(self):
        store = await self.open_store()
        await store.close()
        with mock.patch.object(sqlite_schema, "_WRITER", ("query_only = ON",)):
            self.assertIn("not writable", self.refused())

    async def test_locked_file(self):
        store = await self.open_store()
        await store.close()
        locker = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(locker.close)
        locker.execute("BEGIN IMMEDIATE")
        with mock.patch.object(sqlite_schema, "LOCK_WAIT", 0.05):
            self.assertIn("is locked by another process", self.refused())

    def schema(self, *extra: str) -> Path:
        directory = Path(self.directory) / "schema"
        shutil.copytree(sqlite_schema.SCHEMA_DIRECTORY, directory)
        for number, script in enumerate(extra, start=4):
            (directory / f"{number:03}.sql").write_text(script)
        return directory

    async def test_migration_from_an_older_version_keeps_the_contents(self):
        store = await self.open_store()
        await store.store_message("m", message())
        await store.close()
        sqlite_schema.prepare(
            self.path,
            self.schema(
                "-- a comment; with a semicolon\nALTER TABLE messages ADD COLUMN colour TEXT;\n",
                "UPDATE messages\n   SET colour = 'red; very';\nCREATE TABLE notes (a);\n",
            ),
        )
        self.assertEqual(self.sql("PRAGMA user_version"), [(5,)])
        self.assertEqual(self.sql("SELECT colour, ttl FROM messages"), [("red; very", 3600)])

    async def test_a_file_of_the_first_version_is_brought_up_to_date(self):
        first = Path(self.directory) / "first"
        first.mkdir()
        shutil.copy(sqlite_schema.SCHEMA_DIRECTORY / "001.sql", first)
        sqlite_schema.prepare(self.path, first)
        self.sql(
            "INSERT INTO messages (uaid, sortkey, updateid, ttl, timestamp, expiry)"
            " VALUES (?, ?, 'v', 60, ?, ?)",
            *(UAID, f"02:{TS}:{CHID}", int(START), int(START) + 60),
        )
        store = await self.open_store()
        (found,) = (await store.fetch_since("m", UAID, None)).messages
        self.assertEqual((found.version, found.live), ("v", False))

    async def test_failed_migration_changes_nothing(self):
        store = await self.open_store()
        await store.close()
        schema = self.schema("CREATE TABLE notes (a);", "INSERT INTO nowhere VALUES (1);")
        with self.assertRaises(StoreUnusable):
            sqlite_schema.prepare(self.path, schema)
        self.assertEqual(self.sql("PRAGMA user_version"), [(3,)])
        self.assertEqual(self.sql("SELECT name FROM sqlite_master WHERE name = 'notes'"), [])

    def test_missing_migration_is_noticed(self):
        schema = self.schema("CREATE TABLE a (a);", "CREATE TABLE b (b);")
        (schema / "002.sql").unlink()
        with self.assertRaisesRegex(StoreUnusable, "install autopush again"):
            sqlite_schema.prepare(self.path, schema)


def test_a_file_that_another_process_is_creating_is_ours(tmp_path, monkeypatch):
    """What is looked at is one moment, not before and after."""
    path = str(tmp_path / "db")
    look = sqlite_schema.pragma
    monkeypatch.setattr(sqlite_schema, "LOCK_WAIT", 0)

    def creating(connection, name):
        value = look(connection, name)
        if name != "application_id":
            return value
        monkeypatch.setattr(sqlite_schema, "pragma", look)
        with contextlib.suppress(StoreUnusable, sqlite3.Error):
            sqlite_schema.prepare(path)  # by another one; now, or when we don't look any more
        return value

    monkeypatch.setattr(sqlite_schema, "pragma", creating)
    sqlite_schema.prepare(path)
    sqlite_schema.prepare(path)
