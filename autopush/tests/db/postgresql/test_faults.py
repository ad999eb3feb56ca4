"""What fails between the store and its database, and what becomes of it."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from automock.postgresql_proxy import PostgresqlProxy
from autopush.db import groupwriter
from autopush.db.deadlines import Unknown
from autopush.db.postgresql import link
from autopush.exceptions import StoreBusy, StoreError
from autopush.tests.db.postgresql.server import Server, shared_server
from autopush.tests.db.postgresql.support import PostgresqlCase
from autopush.tests.db.store_contract import CHID, CHID2, NODE, TS, UAID, message, topic, versions

USER = {"uaid": UAID, "router_type": "webpush", "connected_at": 1000, "node_id": NODE}


async def life(store: Any) -> list[Any]:
    """What there is to do for a user; returns all that was answered."""
    month = store.months.current
    answers: list[Any] = []

    async def note(asked: Any) -> None:
        answers.append(await asked)

    await note(store.register_user(USER))
    await note(store.register_user({**USER, "connected_at": 2000, "node_id": "http://other"}))
    await note(store.add_channel(month, UAID, CHID))
    await note(store.add_channel(month, UAID, CHID2))
    await note(store.get_subscription(UAID, CHID))
    await note(store.store_message(month, message()))
    await note(store.store_message(month, message(TS - 5, version="late")))
    await note(store.store_message(month, topic("t", "1")))
    await note(store.restore_message(month, topic("t", "2")))
    batch = await store.fetch_since(month, UAID, None)
    answers.append(versions(batch))
    answers.append(versions(await store.fetch_topics(month, UAID)))
    await note(store.delete_message(month, message()))
    await note(store.delete_message(month, message(TS + 99, version="nothing")))
    await note(store.set_pointer(month, UAID, TS))
    await note(store.remove_channel(month, UAID, CHID2))
    await note(store.ended_channels(month, UAID, {CHID, CHID2}))
    await note(store.clear_node(UAID, "http://other", 2000))
    await note(store.move_month(UAID, month, "message_2099_01"))
    record = await store.get_user(UAID)
    del record["last_connect"]
    answers.append(record)
    await note(store.list_channels(month, UAID))
    await note(store.remove_channel(month, UAID, CHID))
    await note(store.drop_user(UAID))
    await note(store.drop_user(UAID))
    return answers


class ProxyCase(PostgresqlCase):
    """A store that reaches its database by a proxy."""

    def setUp(self) -> None:
        super().setUp()
        self.proxy = PostgresqlProxy("127.0.0.1", self.server.port).start()
        self.addCleanup(self.proxy.stop)
        self.straight = self.dsn

    async def open_store(self, dsn: str = "", **kwargs: Any) -> Any:
        self.dsn = self.straight
        schema = self.straight.partition("search_path%3D")[2]
        by_proxy = self.server.dsn(
            host="127.0.0.1", port=self.proxy.port, options=f"-csearch_path={schema}"
        )
        self.patch(link, "PAUSE", 0.01)
        return await super().open_store(by_proxy, **kwargs)


class TestStatementsLost(ProxyCase):
    """A connection that breaks at any statement changes no answer, and nothing happens twice."""

    async def each(self, fault: str) -> None:
        store = await self.open_store()
        expected = await life(store)
        self.sql("DELETE FROM channel_rows")
        self.proxy.statements.clear()
        self.proxy.fail_each(fault)
        self.assertEqual(await life(store), expected)
        spoilt = set(self.proxy.statements)
        self.assertGreater(len(spoilt), 20)
        for part in ("BEGIN", "COMMIT", "set_config", "INSERT INTO messages", "JOIN users"):
            self.assertTrue(any(part in statement for statement in spoilt), part)

    async def test_before_it_was_carried_out(self):
        await self.each("cut")

    async def test_after_it_was_carried_out(self):
        await self.each("lost_answer")

    async def test_several_times_in_a_row(self):
        store = await self.open_store()
        self.proxy.fail("COMMIT", "lost_answer")
        self.proxy.fail("", "cut", times=3)
        self.assertEqual((await store.register_user(USER)).written, True)
        self.assertEqual((await store.get_user(UAID))["node_id"], NODE)

    async def test_a_commit_of_which_nothing_can_be_learned(self):
        store = await self.open_store()
        self.patch(link, "PATIENCE", 0.05)
        self.proxy.fail("COMMIT", "lost_answer")
        self.proxy.fail("pg_xact_status|set_config", "cut", times=1000)
        await self.assertFailure(store.store_message("m", message()), Unknown)
        self.proxy.heal()
        self.assertEqual(versions(await store.fetch_since("m", UAID, None)), [message().version])


class TestHanging(ProxyCase):
    """No answer at all: callers are told in time, and the connection is given up."""

    async def hang(self, fault: str, pattern: str, operation: Any, error: Any = Unknown) -> Any:
        store = await self.open_store()
        self.proxy.statements.clear()
        self.proxy.fail(pattern, fault)
        hanging = operation(store)
        while not any(re.search(pattern, statement) for statement in list(self.proxy.statements)):
            await deferLater(reactor, 0.01)
        self.patch(groupwriter, "DEADLINE", 0.2)
        await self.assertFailure(hanging, error)
        self.patch(groupwriter, "DEADLINE", 240)
        self.assertEqual((await store.register_user(USER)).written, True)
        self.assertEqual((await store.get_user(UAID))["node_id"], NODE)

    async def test_a_write_hangs(self):
        await self.hang("hang", "INSERT INTO messages", lambda s: s.store_message("m", message()))

    async def test_a_commit_hangs(self):
        await self.hang("late_hang", "COMMIT", lambda s: s.store_message("m", message()))

    async def test_a_read_hangs(self):
        read = "FROM v JOIN users"
        await self.hang("late_hang", read, lambda s: s.get_user(UAID), StoreBusy)

    async def test_one_read_that_hangs_does_not_hold_up_others(self):
        store = await self.open_store()
        self.proxy.fail("FROM v JOIN users", "late_hang")
        hanging = store.get_user(UAID)
        await deferLater(reactor, 0.05, lambda: None)
        self.assertFalse((await store.list_channels("m", UAID)).exists)
        self.assertFalse(hanging.called)
        self.proxy.heal()
        self.assertIsNone(await hanging)


class TestOutage(ProxyCase):
    """A database that is away for long."""

    async def test_callers_are_told_to_come_back_and_it_works_as_soon_as_it_can(self):
        self.patch(link, "PATIENCE", 0.1)
        store = await self.open_store()
        self.proxy.cut(refuse=True)
        for _ in range(2):
            await self.assertFailure(store.register_user(USER), StoreBusy)
            await self.assertFailure(store.get_user(UAID), StoreBusy)
        health = await store.health()
        for error in health.values():
            self.assertIn("can't be reached", error)
        await self.assertFailure(store.alive(), StoreBusy)  # a sign of life
        self.proxy.heal()
        self.assertEqual((await store.register_user(USER)).written, True)
        self.assertEqual(await store.health(), {"router": None, "storage": None})

    async def test_close_does_not_wait_for_it(self):
        store = await self.open_store()
        self.proxy.cut(refuse=True)
        reading = store.get_user(UAID)
        await deferLater(reactor, 0.05, lambda: None)
        await store.close()
        await self.assertFailure(reading, StoreError)


class TestRefusals(PostgresqlCase):
    """What the server itself refuses."""

    def failing_trigger(self, code: str, times: int) -> None:
        """Let that many inserts into ``messages`` fail."""
        self.sql("CREATE SEQUENCE failures")
        self.sql(
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" IF nextval('failures') <= {times} THEN"
            f" RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; END IF; RETURN NEW; END $$"
        )
        self.sql(
            "CREATE TRIGGER fail BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION fail()"
        )

    async def test_serialization_failures_and_deadlocks_are_tried_again(self):
        self.patch(link, "PAUSE", 0.01)
        for code in ("40001", "40P01"):
            self.dsn = self.server.new_schema()
            store = await self.open_store()
            self.failing_trigger(code, 3)
            await store.store_message("m", message())
            batch = await store.fetch_since("m", UAID, None)
            self.assertEqual(versions(batch), [message().version])

    async def test_what_passes_is_busy_and_what_does_not_is_not(self):
        self.patch(link, "PAUSE", 0.01)
        self.patch(link, "PATIENCE", 0.1)
        busy = {"40001": "serialize", "53100": "disk is full", "53200": "memory", "57014": "long"}
        for code, text in busy.items():
            self.dsn = self.server.new_schema()
            store = await self.open_store()
            self.failing_trigger(code, 1_000)
            error = await self.assertFailure(store.store_message("m", message()), StoreBusy)
            self.assertIn(text, str(error))
            self.assertIn(text, (await store.health())["storage"])
        self.dsn = self.server.new_schema()
        store = await self.open_store()
        self.sql("DROP TABLE messages")
        error = await self.assertFailure(store.store_message("m", message()), StoreError)
        self.assertNotIsInstance(error, StoreBusy)
        self.assertEqual(await store.health(), {"router": None, "storage": "Nonexistent table"})

    async def test_one_operation_that_cannot_be_done_fails_alone(self):
        store = await self.open_store()
        good, bad = (
            store.store_message("m", message()),
            store.store_message("m", message(TS + 1, data="nul\0")),
        )
        other = store.register_user(USER)
        await good
        error = await self.assertFailure(bad, StoreError)
        self.assertNotIsInstance(error, StoreBusy)
        self.assertTrue((await other).written)
        reads = [store.get_subscription(UAID, "nul\0"), store.get_subscription(UAID, CHID)]
        await self.assertFailure(reads[0], StoreError)
        self.assertFalse((await reads[1]).subscribed)

    async def test_too_many_connections(self):
        self.patch(link, "PATIENCE", 0.1)
        self.sql("DROP ROLE IF EXISTS narrow")
        self.sql("CREATE ROLE narrow LOGIN SUPERUSER CONNECTION LIMIT 3")
        self.sql("ALTER ROLE narrow NOSUPERUSER")
        self.sql("GRANT USAGE, CREATE ON SCHEMA " + self.dsn.partition("%3D")[2] + " TO narrow")
        narrow = self.dsn.replace("user=postgres", "user=narrow")
        store = await self.open_store(narrow)
        await store.register_user(USER)
        await store.get_user(UAID)
        self.sql("ALTER ROLE narrow CONNECTION LIMIT 0")
        self.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'narrow'")
        await self.assertFailure(store.get_user(UAID), StoreBusy)
        error = await self.assertFailure(store.get_user(UAID), StoreBusy)
        self.assertIn("too many connections", str(error))
        self.sql("ALTER ROLE narrow CONNECTION LIMIT -1")
        self.assertEqual((await store.get_user(UAID))["node_id"], NODE)

    async def test_a_transaction_that_is_left_open_does_not_stop_others(self):
        """A process that stops amid one, while its connection stays."""
        import psycopg

        from autopush.db.postgresql.writer import begin

        store = await self.open_store()
        stopped = psycopg.connect(self.dsn, autocommit=True)
        self.addCleanup(stopped.close)
        stopped.execute("SET idle_in_transaction_session_timeout = 500")
        begin(stopped, [UAID])
        await store.store_message("m", message())
        self.assertEqual(versions(await store.fetch_since("m", UAID, None)), [message().version])


class TestRestart(PostgresqlCase):
    """The server ends and comes back, or as another one."""

    def get_server(self) -> Server:
        server = Server().start()
        self.addCleanup(server.close)
        return server

    async def test_what_was_acknowledged_is_there_after_a_crash(self):
        store = await self.open_store()
        for number, mode in enumerate(("immediate", "fast")):
            await store.store_message("m", message(TS + number))
            restarting = deferToThread(self.server.restart, mode)
            waiting = store.register_user({**USER, "connected_at": number})
            await restarting
            written = (await waiting).written  # waited out
            self.assertTrue(written)
        batch = await store.fetch_since("m", UAID, None)
        self.assertEqual(len(batch.messages), 2)

    async def test_a_server_that_has_become_a_standby_is_neither_written_to_nor_read_from(self):
        self.patch(link, "PATIENCE", 0.5)
        store = await self.open_store()
        await store.register_user(USER)
        await deferToThread(self.server.stop, "fast")
        (self.server.data / "standby.signal").touch()
        await deferToThread(self.server.start)
        await self.assertFailure(store.register_user(USER), StoreBusy)
        await self.assertFailure(store.get_user(UAID), StoreBusy)  # perhaps of the end before
        error = await self.assertFailure(store.get_user(UAID), StoreBusy)
        self.assertIn("read-only", str(error))
        await deferToThread(self.server.run, "pg_ctl", "-D", str(self.server.data), "promote")
        self.assertEqual((await store.get_user(UAID))["node_id"], NODE)
        self.assertFalse((await store.register_user(USER)).written)  # not newer

    async def test_reads_only_by_its_own_setting(self):
        store = await self.open_store()
        self.patch(link, "PATIENCE", 0.5)
        self.server.sql("ALTER SYSTEM SET default_transaction_read_only = on")
        self.server.sql("SELECT pg_reload_conf()")
        while self.server.sql("SHOW default_transaction_read_only") != [("on",)]:
            pass
        error = await self.assertFailure(store.register_user(USER), StoreBusy)
        self.assertIn("read-only", str(error))

    async def test_the_host_that_is_primary_is_found_among_several(self):
        dsn = self.dsn.replace(
            f"port={self.server.port}", f"port={shared_server().port},{self.server.port}"
        )
        dsn = dsn.replace("host=", "host=%2Fnowhere,")
        store = await self.open_store(dsn)
        self.assertTrue((await store.register_user(USER)).written)
