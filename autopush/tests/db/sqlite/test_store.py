"""What is particular to the SQLite store: its file, its thread, its errors (spec/storage 17)."""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import uuid
from types import SimpleNamespace
from typing import Any
from unittest import mock

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs

from autopush.constants import MAX_EXPIRY
from autopush.db import SqliteStore, groupwriter, sqlite_path, store_from_dsn
from autopush.db.sqlite import (
    records as sqlite_records,
    schema as sqlite_schema,
    store as sqlite_module,
    writer as sqlite_writer,
)
from autopush.db.sqlite.errors import store_error
from autopush.db.writes import WriteBatch
from autopush.exceptions import ChannelLimit, InvalidConfig, StoreBusy, StoreError
from autopush.tests.db.sqlite.support import PATIENCE, SqliteCase
from autopush.tests.db.store_contract import CHID, START, TS, UAID, message, topic, versions


class TestGroupCommit(SqliteCase):
    """One thread, shared transactions, one wake-up."""

    def trace(self) -> list[str]:
        """Statements of the writer's connection from now on."""
        statements: list[str] = []
        open_writer = sqlite_schema.open_writer

        def traced(path: str) -> sqlite3.Connection:
            connection = open_writer(path)
            connection.set_trace_callback(statements.append)
            return connection

        self.patch(sqlite_schema, "open_writer", traced)
        return statements

    async def test_queued_writes_share_one_transaction_and_one_wake_up(self):
        store = await self.open_store()
        statements = self.trace()
        with mock.patch.object(reactor, "callFromThread", wraps=reactor.callFromThread) as wake:
            await gatherResults(
                [
                    store.register_user({"uaid": UAID, "router_type": "x", "connected_at": 1}),
                    store.add_channel("m", UAID, CHID),
                    *[store.store_message("m", message(TS + number)) for number in range(30)],
                    store.delete_message("m", message(1)),
                ]
            )
        self.assertEqual(wake.call_count, 1)
        self.assertEqual(statements.count("BEGIN IMMEDIATE"), 1)
        self.assertEqual(statements.count("COMMIT"), 1)
        self.assertLess(len([s for s in statements if s.startswith("INSERT INTO messages")]), 6)

    async def test_message_deleted_before_it_is_written_never_touches_the_disk(self):
        store = await self.open_store(commit_delay=0.05)
        statements = self.trace()
        stored = store.store_message("m", message())
        deleted = store.delete_message("m", message())
        self.assertFalse(stored.called or deleted.called)  # not amid the caller's work
        self.assertEqual(await gatherResults([stored, deleted]), [None, True])
        await store.close()
        self.assertEqual(statements, [])

    async def test_message_taken_back_in_time_is_never_written(self):
        store = await self.open_store(commit_delay=0.05)
        statements = self.trace()
        stored = store.store_message("m", message())
        self.assertFalse(store.take_back("m", message(version="another")))
        self.assertTrue(store.take_back("m", message()))
        self.assertFalse(store.take_back("m", message()))
        self.assertFalse(stored.called)  # not amid the caller's work
        self.assertIsNone(await stored)
        await store.close()
        self.assertEqual(statements, [])

    async def test_message_taken_back_too_late_stays(self):
        store = await self.open_store()
        await store.store_message("m", message())
        self.assertFalse(store.take_back("m", message()))
        self.assertEqual(self.sql("SELECT count(*) FROM messages"), [(1,)])

    async def test_message_of_a_topic_is_not_taken_back(self):
        """What it replaces may be on disk: it has to be deleted."""
        store = await self.open_store(commit_delay=0.05)
        stored = store.store_message("m", topic("a", "v"))
        self.assertFalse(store.take_back("m", topic("a", "v")))
        await stored
        self.assertEqual(self.sql("SELECT count(*) FROM messages"), [(1,)])

    async def test_batch_that_is_empty_when_the_thread_comes_does_not_stop_the_next(self):
        store = await self.open_store(commit_delay=0)
        writer = store._writer
        start = writer._open_gate

        def take_back_first() -> None:
            self.assertTrue(store.take_back("m", message()))
            waiting.append(store.drop_user(UAID))
            start()

        waiting: list[Any] = []
        self.patch(writer, "_open_gate", take_back_first)
        await store.store_message("m", message())
        self.patch(writer, "_open_gate", start)
        self.assertFalse(await waiting[0].addTimeout(PATIENCE, reactor))

    async def test_every_operation_is_answered(self):
        """Whatever is taken back or deleted at which moment."""
        store = await self.open_store(commit_delay=0.0005)
        chance = random.Random(7)
        answers: list[Any] = []
        for number in range(1500):
            notification = message(TS + number)
            answers.append(store.store_message("m", notification))
            if chance.random() < 0.2:
                answers.append(store.get_user(UAID))
                answers.append(store.drop_user(UAID))
            if chance.random() < 0.4:
                await deferLater(reactor, chance.choice([0, 0, 0.0005, 0.001]), lambda: None)
            if chance.random() < 0.8 and not store.take_back("m", notification):
                answers.append(store.delete_message("m", notification))
        await gatherResults(answers).addTimeout(PATIENCE, reactor)

    async def test_nothing_is_left_in_memory_of_messages_taken_back(self):
        store = await self.open_store(commit_delay=0)
        for number in range(3):
            stored = store.store_message("m", message(TS + number))
            store.take_back("m", message(TS + number))
            await stored
        await deferLater(reactor, 0.05, lambda: None)
        for batch in (store._writer._growing, store._writer._ripe or WriteBatch()):
            self.assertEqual((len(batch), batch._by_id, batch._waiting), (0, {}, {}))

    async def test_message_being_written_is_deleted_from_the_disk(self):
        store = await self.open_store(commit_delay=0)
        started, go_on = threading.Event(), threading.Event()
        write = sqlite_writer.write

        def slowly(*args: Any) -> None:
            started.set()
            go_on.wait(PATIENCE)
            write(*args)

        self.patch(sqlite_writer, "write", slowly)
        stored = store.store_message("m", message())
        self.assertTrue(await deferToThread(started.wait, PATIENCE))
        deleted = store.delete_message("m", message())
        self.assertFalse(stored.called)
        go_on.set()
        self.assertEqual(await gatherResults([stored, deleted]), [None, True])
        self.assertEqual(self.sql("SELECT count(*) FROM messages"), [(0,)])

    async def test_results_come_after_the_commit_and_are_seen_by_every_reader(self):
        store = await self.open_store()
        await store.store_message("m", message())
        self.assertEqual(self.sql("SELECT count(*) FROM messages"), [(1,)])
        other = await self.open_store()
        self.assertEqual(len((await other.fetch_since("m", UAID, None)).messages), 1)

    async def test_pointer_that_moves_while_a_message_waits_is_respected(self):
        store = await self.open_store()
        stored = store.store_message("m", message(TS - 1))
        await gatherResults([stored, store.set_pointer("m", UAID, TS)])
        self.assertEqual(len((await store.fetch_since("m", UAID, TS)).messages), 1)

    async def test_one_bad_operation_does_not_fail_the_others(self):
        store = await self.open_store()
        bad = message(TS + 1, version="\ud800")  # a lone surrogate is no UTF-8
        huge = topic("a", "v", timestamp=2**70)
        writes = [
            store.store_message("m", message(TS)),
            store.store_message("m", bad),
            store.add_channel("m", UAID, "\ud800"),
            store.store_message("m", huge),
            store.add_channel("m", UAID, CHID),
            store.store_message("m", message(TS + 2)),
        ]
        await self.assertFailure(writes[1], StoreError)
        await self.assertFailure(writes[2], StoreError)
        await self.assertFailure(writes[3], StoreError)
        await gatherResults([writes[0], writes[4], writes[5]])
        self.assertEqual(len((await store.fetch_since("m", UAID, None)).messages), 2)
        self.assertEqual(await store.list_channels("m", UAID), (True, {CHID}))
        self.assertEqual(await store.health(), {"router": None, "storage": None})
        self.assertEqual(len(self.flushLoggedErrors()), 3)

    async def test_channels_in_other_spellings(self):
        """As other programs may have written them."""
        chid = "abcdefab-cdef-4abc-8def-abcdefabcdef"
        store = await self.open_store()
        await store.register_user({"uaid": UAID, "router_type": "webpush", "connected_at": 1})
        for text in (chid.replace("-", ""), chid.upper(), chid[:20] + chid[20:].upper()):
            await store.add_channel("m", UAID, CHID)
            await store._writer.call(
                lambda c, text=text: c.execute("INSERT INTO channels VALUES (?, ?)", (UAID, text))
            )
            for _ in range(2):  # read, and remembered
                self.assertTrue((await store.get_subscription(UAID, chid)).subscribed, text)
            self.assertEqual((await store.list_channels("m", UAID)).chids, {chid, CHID})
            self.assertTrue(await store.remove_channel("m", UAID, chid))
            self.assertFalse((await store.get_subscription(UAID, chid)).subscribed)
            self.assertFalse(await store.remove_channel("m", UAID, chid))
        self.assertEqual((await store.list_channels("m", UAID)).chids, {CHID})

    async def test_operation_that_fails_half_way_leaves_no_trace(self):
        store = await self.open_store()

        def half(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO channels VALUES (?, ?)", (UAID, CHID))
            raise RuntimeError("half way")

        failing = store._writer.call(half)
        good = store.store_message("m", message())
        await self.assertFailure(failing, StoreError)
        await good
        self.assertEqual(self.sql("SELECT count(*) FROM channels"), [(0,)])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_queue_is_limited(self):
        store = await self.open_store(commit_delay=0.2)
        self.patch(groupwriter, "MAX_WAITING", 3)
        writes = [store.store_message("m", message(TS + number)) for number in range(4)]
        await self.assertFailure(writes[3], StoreBusy)
        await gatherResults(writes[:3])

    async def test_close_finishes_accepted_writes_and_refuses_others(self):
        store = await self.open_store()
        accepted = [store.store_message("m", message(TS + number)) for number in range(5)]
        closed = store.close()
        refused = store.store_message("m", message())
        await closed
        self.assertTrue(all(write.called for write in accepted))
        await gatherResults(accepted)
        await self.assertFailure(refused, StoreError)
        await self.assertFailure(store.get_user(UAID), StoreError)
        await self.assertFailure(store.get_subscription(UAID, CHID), StoreError)
        await self.assertFailure(store.list_channels("m", UAID), StoreError)
        await self.assertFailure(store.fetch_topics("m", UAID), StoreError)
        await self.assertFailure(store.fetch_since("m", UAID, None), StoreError)
        await self.assertFailure(store.touch_channels("m", UAID), StoreError)
        self.assertEqual(self.sql("SELECT count(*) FROM messages"), [(5,)])

    async def test_close_ends_the_thread_and_tidies_up_the_file(self):
        store = await self.open_store()
        await store.store_message("m", message())
        await store.close()
        await store.close()
        self.assertFalse(store._writer._thread.is_alive())
        self.assertEqual(os.listdir(self.directory), ["autopush.sqlite"])

    async def test_close_before_setup(self):
        await self.new_store().close()

    async def test_setup_needs_no_running_reactor(self):
        store = SqliteStore(self.path, reactor)
        self.successResultOf(store.setup())
        await store.close()


class TestErrors(SqliteCase):
    """Errors of the whole database (17.1, section 12): callers hear of them, and it goes on."""

    def limit_writer(self, pragma: str) -> None:
        open_writer = sqlite_schema.open_writer

        def limited(path: str) -> sqlite3.Connection:
            connection = open_writer(path)
            connection.execute(f"PRAGMA {pragma}").fetchall()
            return connection

        self.patch(sqlite_schema, "open_writer", limited)

    async def test_locked_database_is_busy_and_recovers(self):
        store = await self.open_store()
        self.patch(sqlite_schema, "WRITE_WAIT", 0.05)
        locker = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(locker.close)
        locker.execute("BEGIN IMMEDIATE")
        writes = [store.add_channel("m", UAID, CHID), store.store_message("m", message())]
        with capturedLogs() as logs:
            for write in writes:
                await self.assertFailure(write, StoreBusy)
        self.assertEqual(len([e for e in logs if e["log_level"].name == "error"]), 1)
        self.assertEqual((await store.health())["storage"], "the database is locked")
        self.assertEqual(versions(await store.fetch_since("m", UAID, None)), [])  # not blocked
        locker.execute("ROLLBACK")
        await store.store_message("m", message())
        self.assertIsNone((await store.health())["storage"])

    async def test_full_disk_is_busy_and_recovers(self):
        store = await self.open_store()
        pages = self.sql("PRAGMA page_count")[0][0]
        self.limit_writer(f"max_page_count = {pages + 3}")
        big = {"data": "x" * 100_000, "headers": {"encoding": "aes128gcm"}}
        await self.assertFailure(store.store_message("m", message(**big)), StoreBusy)
        self.assertEqual((await store.health())["storage"], "the disk is full")
        await store.store_message("m", message())
        self.assertEqual(await store.health(), {"router": None, "storage": None})

    async def test_other_failures_are_errors(self):
        store = await self.open_store()
        self.limit_writer("query_only = ON")
        failure = await self.assertFailure(store.store_message("m", message()), StoreError)
        self.assertNotIsInstance(failure, StoreBusy)
        self.assertIn("readonly", (await store.health())["storage"])

    async def test_connection_that_cannot_be_opened_is_tried_again(self):
        store = await self.open_store()
        broken = mock.patch.object(
            sqlite_schema, "open_writer", side_effect=sqlite3.OperationalError("unable to open")
        )
        with broken:
            await self.assertFailure(store.store_message("m", message()), StoreError)
        await store.store_message("m", message())

    async def test_writer_thread_survives_everything(self):
        store = await self.open_store()
        with mock.patch.object(store._writer, "_write", side_effect=SystemExit):
            await self.assertFailure(store.store_message("m", message()), StoreError)
            self.assertIn("SystemExit", (await store.health())["storage"])
        await store.store_message("m", message())
        self.assertIsNone((await store.health())["storage"])

    async def test_writer_that_does_not_run_is_reported_and_nobody_hangs(self):
        store = self.new_store()
        await self.assertFailure(store.store_message("m", message()), StoreError)
        self.assertEqual((await store.health())["storage"], "the writer thread is not running")

    async def test_transaction_that_does_not_end_is_reported(self):
        store = await self.open_store(commit_delay=0)
        self.patch(groupwriter, "STUCK_AFTER", -1)
        go_on = threading.Event()
        started = threading.Event()

        def wait(_connection: sqlite3.Connection) -> None:
            started.set()
            go_on.wait(PATIENCE)

        waiting = store._writer.call(wait)
        while not started.is_set():
            await deferLater(reactor, 0)
        self.assertEqual((await store.health())["storage"], "a transaction doesn't end")
        go_on.set()
        await waiting

    async def test_unreadable_record_is_an_error(self):
        store = await self.open_store()
        self.sql("INSERT INTO users VALUES (?, '{broken')", UAID)
        await self.assertFailure(store.get_user(UAID), StoreError)
        await self.assertFailure(store.get_subscription(UAID, CHID), StoreError)

    async def test_unreadable_rows_are_logged_without_content(self):
        store = await self.open_store()
        self.sql(
            "INSERT INTO messages VALUES (1, ?, 'f000', 'id', 'secret', NULL, 1, 1, ?, NULL, NULL)",
            UAID,
            int(START) + 60,
        )
        with capturedLogs() as logs:
            await store.fetch_since("m", UAID, None)
        (event,) = [event for event in logs if event["log_level"].name == "error"]
        self.assertEqual(event["count"], 1)
        self.assertNotIn("secret", repr(event))

    def test_error_text_holds_no_values(self):
        try:
            "\ud800secret".encode()
        except UnicodeEncodeError as error:
            self.assertNotIn("secret", str(store_error(error)))


class TestLimits(SqliteCase):
    """What one user may take of the disk that all share (decisions/quotas)."""

    async def test_channels_of_a_user(self):
        self.patch(sqlite_records, "MAX_CHANNELS", 3)
        store = await self.open_store()
        chids = [str(uuid.uuid4()) for _ in range(4)]
        for chid in chids[:3]:
            await store.add_channel("m", UAID, chid)
        with self.assertRaises(ChannelLimit):
            await store.add_channel("m", UAID, chids[3])
        await store.add_channel("m", UAID, chids[0])  # is a member already
        self.assertEqual((await store.list_channels("m", UAID)).chids, set(chids[:3]))
        await store.remove_channel("m", UAID, chids[0])
        await store.add_channel("m", UAID, chids[3])
        await store.add_channel("m", uuid.uuid4().hex, chids[3])
        self.assertEqual((await store.list_channels("m", UAID)).chids, set(chids[1:]))


class TestExpiry(SqliteCase):
    """Expiry and sweeping (17.5)."""

    async def test_sweep_removes_expired_rows_only(self):
        store = await self.open_store()
        await store.register_user({"uaid": UAID, "router_type": "webpush", "connected_at": 1})
        await store.add_channel("m", UAID, CHID)
        await store.store_message("m", message(ttl=10))
        await store.store_message("m", message(TS + 1, ttl=MAX_EXPIRY + 99))
        self.time += 10
        self.assertFalse(await store.sweep())
        self.assertEqual(self.sql("SELECT sortkey FROM messages"), [(f"02:{TS + 1}:{CHID}",)])
        self.assertEqual(self.sql("SELECT count(*) FROM channels"), [(1,)])
        self.time += MAX_EXPIRY
        await store.sweep()
        for table in ("messages", "channel_rows", "channels"):
            self.assertEqual(self.sql(f"SELECT count(*) FROM {table}"), [(0,)])
        self.assertIsNotNone(await store.get_user(UAID))

    async def test_sweep_works_in_slices(self):
        self.patch(sqlite_module, "SWEEP_SLICE", 3)
        store = await self.open_store()
        for number in range(7):
            await store.store_message("m", message(TS + number, ttl=10))
        self.time += 10
        self.assertEqual([await store.sweep() for _ in range(3)], [True, True, False])
        self.assertEqual(self.sql("SELECT count(*) FROM messages"), [(0,)])

    def background(self) -> tuple[Clock, SqliteStore]:
        """A store whose timers are a test's, and whose writes are done at once."""
        clock = Clock()
        clock.callFromThread = lambda function, *args: None  # type: ignore[attr-defined]
        store = SqliteStore(self.path, clock, now=lambda: self.time)
        self.successResultOf(store.setup())
        self.addCleanup(store._writer._thread.join, PATIENCE)
        self.addCleanup(lambda: store.close() and None)
        return clock, store

    def test_background_sweep_goes_on_quickly_while_there_is_more(self):
        clock, store = self.background()
        results = [True, True, False, False]
        with mock.patch.object(store, "sweep", side_effect=lambda: _now(results.pop(0))):
            clock.advance(60)
            self.assertEqual(len(results), 3)
            clock.advance(0.1)
            clock.advance(0.1)
            self.assertEqual(len(results), 1)
            clock.advance(1)
            self.assertEqual(len(results), 1)
            clock.advance(60)
            self.assertEqual(len(results), 0)

    def test_background_sweep_survives_its_failures(self):
        clock, store = self.background()
        outcomes: list[Any] = [StoreBusy("x"), StoreError("y"), False]
        with mock.patch.object(store, "sweep", side_effect=lambda: _now(outcomes.pop(0))):
            for left in (2, 1, 0):
                clock.advance(60)
                self.assertEqual(len(outcomes), left)

    def test_background_sweep_survives_exceptions(self):
        clock, store = self.background()
        with mock.patch.object(store, "sweep", side_effect=ValueError("bug")) as sweep:
            clock.advance(60)
            clock.advance(60)
        self.assertEqual(sweep.call_count, 2)

    def test_background_sweep_ends_with_the_store(self):
        clock, store = self.background()
        store.close()
        self.assertEqual(clock.getDelayedCalls(), [])

    async def test_touch_channels_writes_at_most_once_a_day(self):
        store = await self.open_store()
        await store.add_channel("m", UAID, CHID)
        self.time += 86_000
        await store.touch_channels("m", UAID)
        expiry = int(START) + MAX_EXPIRY
        self.assertEqual(self.sql("SELECT expiry FROM channel_rows"), [(expiry,)])
        self.time += 1000
        await store.touch_channels("m", UAID)
        self.assertEqual(self.sql("SELECT expiry FROM channel_rows"), [(expiry + 87_000,)])


def _now(outcome: Any) -> Any:
    from twisted.internet.defer import fail, succeed

    return fail(outcome) if isinstance(outcome, Exception) else succeed(outcome)


class TestMonths(SqliteCase):
    """One table that never ends (17.4, spec/websocket Q13)."""

    async def test_any_month_means_the_one_table(self):
        store = await self.open_store(month="push")
        self.assertEqual(store.months.current, "push")
        for month in ("push", "message_2015_01", "anything"):
            self.assertTrue(store.months.accepts(month))
        self.assertFalse(store.months.accepts(11))
        await store.store_message("message_2015_01", message())
        self.assertEqual(len((await store.fetch_since("push", UAID, None)).messages), 1)


class TestDsn(SqliteCase):
    """``db_dsn`` (decisions/stores)."""

    def conf(self, dsn: str) -> Any:
        return SimpleNamespace(
            db_dsn=dsn,
            key_hash="k",
            max_stored=1,
            max_stored_bytes=0,
            max_stored_share=100,
            workers=1,
            router_table=SimpleNamespace(tablename="router_x"),
            message_table=SimpleNamespace(tablename="message_x"),
        )

    def test_paths(self):
        for dsn, path in (
            ("sqlite:///var/lib/autopush.sqlite", "/var/lib/autopush.sqlite"),
            ("sqlite:data/push.db", "data/push.db"),
            ("sqlite:/abs.db", "/abs.db"),
            ("sqlite:///with%20blank ?#.db", "/with%20blank ?#.db"),
        ):
            self.assertEqual(sqlite_path(dsn), path)

    def test_others_are_refused(self):
        for dsn in (
            "",
            "dynamodb:http://host",
            "mysql://host/db",
            "sqlite:",
            "sqlite://",
            "sqlite:///",
            "sqlite://host/path",
            "sqlite::memory:",
            "/var/lib/file",
        ):
            with self.assertRaisesRegex(InvalidConfig, "sqlite:///absolute/path"):
                store_from_dsn(self.conf(dsn), reactor)

    async def test_store_is_made_from_the_configuration(self):
        store = store_from_dsn(self.conf(f"sqlite://{self.path}"), reactor)
        self.addCleanup(store.close)
        await store.setup()
        self.assertEqual(store.months.current, "message_x")
        self.assertEqual(await store.health(), {"router_x": None, "storage": None})
        await store.add_channel("m", UAID, CHID)
        self.assertEqual(len(self.sql("SELECT uaid FROM channels")[0][0]), 64)
        await store.store_message("m", message())
        self.assertIsNotNone(store.refusal(message(TS + 1)))

    async def test_path_with_special_characters(self):
        self.path = os.path.join(self.directory, "a %20?#ü.db")
        await self.open_store()
        self.assertTrue(os.path.exists(self.path))
