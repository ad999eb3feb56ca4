"""Batches of writes end where the same writes one after the other would (db/writes.py)."""

from __future__ import annotations

import sqlite3
import uuid
from typing import Any

from hypothesis import given, settings, strategies as st
from twisted.python.failure import Failure

from autopush.db.rows import key_timestamp
from autopush.db.sqlite import records as sqlite_records, schema as sqlite_schema
from autopush.db.sqlite.cache import ReadCache
from autopush.db.sqlite.writer import write
from autopush.db.writes import Call, Delete, Put, Together, WriteBatch
from autopush.exceptions import StoreError
from autopush.message.notification import WebPushNotification
from autopush.tests.db.memory_store import MemoryStore
from autopush.tests.db.store_contract import CHID, CHID2, START, TS, UAID, message

MONTH = "message_2026_11"

PUTS = st.tuples(
    st.just("put"), st.sampled_from([CHID, CHID2]), st.integers(0, 5) | st.sampled_from("ab")
)
DELETES = st.tuples(st.sampled_from(["delete", "take back"]), st.integers(0, 30))
POINTERS = st.tuples(st.just("pointer"), st.integers(0, 8))
WRITES = st.lists(st.lists(PUTS | PUTS | DELETES | POINTERS, max_size=12), max_size=4)


class Database:
    """The tables in memory, without thread and queue."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        for step in sqlite_schema.schema_steps():
            self.connection.executescript(step)
        self.batch = WriteBatch()

    def put(self, notification: WebPushNotification) -> None:
        self.batch.put(Put(UAID, notification, int(START)))

    def take_back(self, notification: WebPushNotification) -> bool:
        assert notification.update_id is not None
        return self.batch.take_back(UAID, notification.update_id) is not None

    def delete(self, notification: WebPushNotification) -> None:
        self.batch.delete(Delete(UAID, notification.sort_key, notification.update_id))

    def pointer(self, timestamp: int) -> None:
        values = (UAID, timestamp, int(START), int(START) + 1)
        self.batch.calls.append(Call(lambda c: sqlite_records.set_pointer(c, *values)))

    def flush(self) -> None:
        write(self.connection, self.batch, ReadCache())
        assert self.batch.error is None
        self.batch = WriteBatch()

    def versions(self) -> set[str]:
        return {row[0] for row in self.connection.execute("SELECT updateid FROM messages")}


def message_for(number: int, chid: str, kind: Any) -> WebPushNotification:
    values: dict[str, Any] = {"channel_id": uuid.UUID(chid), "version": f"v{number}"}
    if isinstance(kind, int):
        return message(TS + kind, **values)
    return message(None, topic=kind, **values)


@settings(max_examples=300, deadline=None)
@given(WRITES)
def test_batches_end_like_single_writes(batches):
    database = Database()
    model = MemoryStore(now=lambda: START)
    known: list[WebPushNotification] = []
    for batch in batches:
        for name, *args in batch:
            if name == "put":
                notification = message_for(len(known), *args)
                known.append(notification)
                database.put(notification)
                model.store_message(MONTH, notification)
            elif name == "pointer":
                database.pointer(TS + args[0])
                model.set_pointer(MONTH, UAID, TS + args[0])
            elif args[0] < len(known):
                if name == "delete" or not database.take_back(known[args[0]]):
                    database.delete(known[args[0]])
                model.delete_message(MONTH, known[args[0]])
        database.flush()
        expected = {row.update_id for row in model.messages.get((MONTH, UAID), {}).values()}
        assert database.versions() == expected
    database.connection.close()


@settings(max_examples=200, deadline=None)
@given(WRITES)
def test_no_reader_ever_misses_a_message(batches):
    """Whoever reads after every commit, from where it stopped, sees every message once."""
    database = Database()
    seen: list[str] = []
    passed = 0
    number = 0
    for batch in batches:
        for name, *args in batch:
            if name == "put" and isinstance(args[1], int):
                database.put(message_for(number, *args))
                number += 1
        database.flush()
        above = f"02:{passed}:z" if passed else "01;"
        rows = database.connection.execute(
            "SELECT updateid, sortkey FROM messages WHERE sortkey > ? ORDER BY sortkey", (above,)
        ).fetchall()
        seen += [row[0] for row in rows]
        if rows:
            # The pointer is not stored yet: the reader is ahead of what the store knows.
            passed = key_timestamp(rows[-1][1]) or 0
    assert sorted(seen) == sorted(f"v{n}" for n in range(number))
    database.connection.close()


def test_together_fires_when_all_are_answered():
    for failures in ([], [1], [0, 2]):
        together = Together(3)
        outcomes: list[Any] = []
        together.deferred.addBoth(outcomes.append)
        for number in range(3):
            assert outcomes == []
            if number in failures:
                together.errback(Failure(StoreError(number)))
            else:
                together.callback(True)
        (outcome,) = outcomes
        assert outcome is None if not failures else outcome.value.args == (failures[0],)
    assert Together(0).deferred.called
