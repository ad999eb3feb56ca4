"""The contract, on each back end; and what only the in-memory one has."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase, TestCase

from autopush.db import SqliteStore, Store
from autopush.db.rows import MessageRow, dump_json
from autopush.exceptions import StoreBusy
from autopush.tests.db.memory_store import MemoryMonths, MemoryStore
from autopush.tests.db.sqlite.support import be_patient
from autopush.tests.db.store_contract import CHID, UAID, StoreContract, message, topic, versions


def raw_row(sort_key: str, columns: dict[str, Any]) -> MessageRow:
    values = {
        "update_id": "poison",
        "data": None,
        "headers": None,
        "ttl": 60,
        "timestamp": 1_795_459_299,
        "expiry": 1_795_459_299 + 60,
        **columns,
    }
    return MessageRow(sort_key, **values)


class TestMemoryStore(StoreContract, TestCase):  # type: ignore[misc]
    def make_store(self) -> Deferred[Store]:
        return succeed(MemoryStore(now=lambda: self.time))

    def put_raw(self, sort_key: str, **columns: Any) -> None:
        rows = self.store.messages.setdefault((self.month, UAID), {})
        rows[sort_key] = raw_row(sort_key, columns)

    def put_record(self, uaid: str, record: dict[str, Any]) -> None:
        self.store.users[uaid] = record

    def count_rows(self) -> int:
        return len(self.store.messages[self.month, UAID])


class TestSqliteStore(StoreContract, TestCase):  # type: ignore[misc]
    key_hash = ""

    async def make_store(self) -> Store:
        be_patient(self)
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        self.path = os.path.join(directory, "autopush.sqlite")
        store = SqliteStore(self.path, reactor, key_hash=self.key_hash, now=lambda: self.time)
        self.addCleanup(store.close)
        await store.setup()
        self.key = store._key(UAID)
        return store

    def sql(self, statement: str, *values: Any) -> list[Any]:
        connection = sqlite3.connect(self.path, isolation_level=None)
        try:
            return connection.execute(statement, values).fetchall()
        finally:
            connection.close()

    def put_raw(self, sort_key: str, **columns: Any) -> None:
        self.sql(
            "INSERT INTO messages (uaid, sortkey, updateid, data, headers, ttl, timestamp, expiry,"
            " live, urgency)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            self.key,
            *raw_row(sort_key, columns),
        )

    def put_record(self, uaid: str, record: dict[str, Any]) -> None:
        self.sql("INSERT INTO users VALUES (?, ?)", self.store._key(uaid), dump_json(record))

    def count_rows(self) -> int:
        return self.sql("SELECT count(*) FROM messages WHERE uaid = ?", self.key)[0][0]


class TestSqliteStoreHashed(TestSqliteStore):
    """With ``key_hash`` (5; S1: records carry the plain UAID, everything else is hashed once)."""

    key_hash = "SuperSikkret"

    async def test_no_plain_uaid_in_the_file(self):
        await self.register()
        await self.store.add_channel(self.month, UAID, CHID)
        await self.put(message())
        for table in ("users", "channel_rows", "channels", "messages"):
            ((uaid,),) = self.sql(f"SELECT uaid FROM {table}")
            self.assertRegex(uaid, "^[0-9a-f]{64}$")


class TestMemoryStoreControls(SynchronousTestCase):
    def test_fail_is_used_up_in_order(self):
        store = MemoryStore()
        store.fail("get_user", StoreBusy("first"))
        self.failureResultOf(store.get_user(UAID), StoreBusy)
        self.assertIsNone(self.successResultOf(store.get_user(UAID)))
        self.assertEqual(store.called("get_user"), 2)

    def test_hold_keeps_results_back(self):
        store = MemoryStore()
        store.hold("store_message")
        stored = store.store_message("m", message())
        self.assertNoResult(stored)
        self.assertEqual(len(self.successResultOf(store.fetch_since("m", UAID, None)).messages), 1)
        store.release("store_message")
        self.successResultOf(stored)

    def test_months_are_separate(self):
        store = MemoryStore(MemoryMonths("message_2026_11"))
        store.store_message("message_2026_11", topic("a", "old"))
        store.add_channel("message_2026_11", UAID, CHID)
        new = self.successResultOf(store.fetch_topics("message_2026_12", UAID))
        self.assertEqual(versions(new), [])
        self.assertFalse(self.successResultOf(store.list_channels("message_2026_12", UAID)).exists)
        self.assertFalse(store.months.accepts("message_2026_12"))
        store.months.current = "message_2026_12"
        self.assertTrue(store.months.accepts("message_2026_12"))

    def test_read_messages_stay_in_the_old_month(self):
        store = MemoryStore(now=lambda: 1_795_459_299)
        store.register_user({"uaid": UAID, "router_type": "webpush", "connected_at": 1})
        store.store_message("old", message(version="read"))
        store.set_pointer("old", UAID, message().sortkey_timestamp or 0)
        store.store_message("old", message(version="late"))
        store.move_month(UAID, "old", "new")
        batch = self.successResultOf(store.fetch_since("new", UAID, None))
        self.assertEqual(versions(batch), ["late"])
