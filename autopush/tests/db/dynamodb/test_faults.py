"""DynamoDB that throttles, fails, hangs and hangs up: each fault at each request of each operation.

Through the proxy of :mod:`automock.dynamodb_proxy`, over the wire.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable
from typing import Any
from unittest import mock

import pytest
from botocore.config import Config
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase, TestCase

from automock.dynamodb_proxy import FAULTS, DynamoDBProxy
from autopush import clock
from autopush.config import DDBTableConfig
from autopush.constants import MAX_EXPIRY
from autopush.db.deadlines import Deadlines, TooLate, Unknown
from autopush.db.dynamodb import tables
from autopush.db.dynamodb.client import (
    DEADLINE,
    DELAYS,
    Throttled,
    Unavailable,
    caller,
    client_options,
    delays,
    make_client,
    patient,
)
from autopush.db.dynamodb.items import CHANNEL_ROW, row_key, write_message, write_value
from autopush.db.dynamodb.messages import Messages
from autopush.db.dynamodb.store import MAX_RUNNING, DynamoStore
from autopush.db.dynamodb.users import Users
from autopush.db.interface import StoreUnusable
from autopush.db.lastconnect import generate_last_connect
from autopush.db.months import RotatingMonths
from autopush.db.offline import OfflineDynamo, Stale
from autopush.exceptions import RouterException, StoreBusy, StoreError
from autopush.tests.db.dynamodb.support import (
    PATIENCE,
    dynamodb_url,
    get_item,
    new_store,
    raw_call,
    sort_keys,
    table_names,
)
from autopush.tests.db.store_contract import CHID, CHID2, NODE, TS, message, topic
from autopush.tests.web.support import AES128GCM
from autopush.tests.web.test_on_sqlite import LateEndpoint

PASSING = frozenset(
    {"throttled", "throttling", "server_error", "unavailable", "timeout", "reset"}
    | {"lost_answer", "late_timeout"}
)
"""Faults after which another attempt may succeed."""

IMPATIENT = 0.3
"""Seconds that whoever waits for a time-out that a test makes waits; it may see more of them. Who
is to see none has :data:`PATIENCE`."""

MANY = 50
"""More requests than an operation makes, those after time-outs of a busy machine included."""

SOON = (0.002,) * 6

NO_ERROR = {("carry_late", "missing")}
"""The month that is looked back at may be gone."""


def client(url: str, timeout: float = PATIENCE) -> Any:
    timeouts = Config(read_timeout=timeout, connect_timeout=timeout)
    config = client_options()["config"].merge(timeouts)
    return make_client(thin=True, endpoint_url=url, config=config)


class FaultCase(TestCase):
    """A proxy, a store behind it (``store``), and one that isn't (``sure``) on the same tables.

    Their time stands still: no month begins amid a test.
    """

    delays: tuple[float, ...] = SOON
    read_timeout = PATIENCE

    async def setUp(self) -> None:
        patcher = mock.patch("autopush.db.dynamodb.client.DELAYS", self.delays)
        patcher.start()
        self.addCleanup(patcher.stop)
        # On any day as in the middle of a month: about its end some look into both tables.
        calendar = mock.patch.object(RotatingMonths, "settled", lambda all, one: one == all.current)
        calendar.start()
        self.addCleanup(calendar.stop)
        self.time = clock.now()
        self.proxy = DynamoDBProxy(dynamodb_url()).start()
        self.addCleanup(self.proxy.stop)
        self.router, self.prefix = table_names()
        self.store = self._new_store(self.read_timeout)
        self.sure = new_store(self.router, self.prefix, now=lambda: self.time)
        self.addCleanup(self.store.close)
        self.addCleanup(self.sure.close)
        await self.sure.setup()
        await self._set_up_in_time()
        self.month = self.store.months.current
        self.old = min(name for name in self.store._sure if name != self.month)

    def _new_store(self, timeout: float = PATIENCE) -> DynamoStore:
        """One behind the proxy."""
        return DynamoStore(
            client(self.proxy.url, timeout),
            reactor,
            DDBTableConfig(self.router),
            DDBTableConfig(self.prefix),
            now=lambda: self.time,
            deadline=PATIENCE,
        )

    async def _set_up_in_time(self) -> None:
        """Start the store, whose time-outs may be too short for a machine that is busy."""
        for _ in range(100):
            try:
                await self.store.setup()
            except StoreUnusable:
                continue
            return
        raise AssertionError("the store never starts")

    async def new_user(self) -> str:
        """A user with a channel, a topic message and two timestamped ones."""
        uaid = uuid.uuid4().hex
        record = {
            "uaid": uaid,
            "router_type": "webpush",
            "connected_at": 1000,
            "node_id": NODE,
            "current_month": self.month,
            "record_version": 1,
            "last_connect": generate_last_connect(self.time),
        }
        now = self.sure.messages.now()
        rows = [
            {
                **row_key(uaid, CHANNEL_ROW),
                "chids": {"SS": [CHID]},
                "expiry": {"N": str(now + MAX_EXPIRY)},
            },
            write_message(uaid, topic("t", "topic", uaid=uuid.UUID(uaid)), now),
            write_message(uaid, mine(uaid, TS), now),
            write_message(uaid, mine(uaid, TS + 5), now),
        ]
        items = {self.month: rows, self.old: rows, self.router: [write_value(record)["M"]]}
        for table, several in items.items():
            puts = [{"PutRequest": {"Item": item}} for item in several]
            raw_call("batch_write_item", RequestItems={table: puts})
        return uaid


Check = Callable[[Any, str, Any], Awaitable[None]]


class Operation:
    """One operation of the store, and what must be so after it.

    :param run: starts it
    :param check: called with the case, the UAID and the result
    """

    def __init__(self, run: Callable[[Any, str], Deferred[Any]], check: Check) -> None:
        self.run = run
        self.check = check


OPERATIONS: dict[str, Operation] = {}


def operation(run: Callable[[Any, str], Deferred[Any]]) -> Callable[[Check], Check]:
    def add(check: Check) -> Check:
        OPERATIONS[check.__name__] = Operation(run, check)
        return check

    return add


def mine(uaid: str, ts: int | None = TS, **kwargs: Any) -> Any:
    return message(ts, uaid=uuid.UUID(uaid), **kwargs)


@operation(lambda case, uaid: case.store.get_user(uaid))
async def get_user(case, uaid, user):
    case.assertEqual((user["uaid"], user["node_id"]), (uaid, NODE))


@operation(lambda case, uaid: case.store.get_subscription(uaid, CHID))
async def get_subscription(case, uaid, found):
    case.assertTrue(found.subscribed)
    case.assertEqual(found.user["uaid"], uaid)


@operation(
    lambda case, uaid: case.store.register_user(
        {"uaid": uaid, "router_type": "webpush", "connected_at": 2000, "node_id": "http://new"}
    )
)
async def register_user(case, uaid, registration):
    case.assertTrue(registration.written)
    # A registration that met its own earlier attempt still knows the user.
    case.assertEqual(registration.previous["current_month"], case.month)
    user = await case.sure.get_user(uaid)
    case.assertEqual((user["node_id"], user["connected_at"]), ("http://new", 2000))


@operation(lambda case, uaid: case.store.return_user(uaid, "http://new", 2000))
async def return_user(case, uaid, arrival):
    case.assertTrue(arrival.written)
    case.assertEqual(arrival.previous["current_month"], case.month)
    case.assertNotEqual(arrival.previous.get("node_id"), "http://new")
    user = await case.sure.get_user(uaid)
    case.assertEqual((user["node_id"], user["connected_at"]), ("http://new", 2000))


@operation(lambda case, uaid: case.store.drop_user(uaid))
async def drop_user(case, uaid, existed):
    case.assertTrue(existed)
    case.assertIsNone(await case.sure.get_user(uaid))


@operation(lambda case, uaid: case.store.clear_node(uaid, NODE, 1000))
async def clear_node(case, uaid, done):
    case.assertTrue(done)
    case.assertNotIn("node_id", await case.sure.get_user(uaid))


@operation(lambda case, uaid: case.store.add_channel(case.month, uaid, CHID2))
async def add_channel(case, uaid, _):
    case.assertEqual((await case.sure.list_channels(case.month, uaid)).chids, {CHID, CHID2})


@operation(lambda case, uaid: case.store.remove_channel(case.month, uaid, CHID))
async def remove_channel(case, uaid, was_member):
    case.assertTrue(was_member)
    case.assertEqual((await case.sure.list_channels(case.month, uaid)).chids, set())


@operation(lambda case, uaid: case.store.list_channels(case.month, uaid))
async def list_channels(case, uaid, channels):
    case.assertEqual(tuple(channels), (True, {CHID}))


@operation(lambda case, uaid: case.store.touch_channels(case.month, uaid))
async def touch_channels(case, uaid, _):
    case.assertTrue((await case.sure.list_channels(case.month, uaid)).exists)


@operation(lambda case, uaid: case.store.add_channel(None, uaid, CHID2))
async def add_bridge_channel(case, uaid, _):
    case.assertIn(CHID2, (await case.sure.list_channels(None, uaid)).chids)


@operation(lambda case, uaid: case.store.remove_channel(None, uaid, CHID))
async def remove_bridge_channel(case, uaid, was_member):
    case.assertTrue(was_member)
    case.assertEqual((await case.sure.list_channels(None, uaid)).chids, set())


@operation(lambda case, uaid: case.store.list_channels(None, uaid))
async def list_bridge_channels(case, uaid, channels):
    case.assertEqual(channels.chids, {CHID})


@operation(lambda case, uaid: case.store.store_message(case.month, mine(uaid, TS + 9)))
async def store_message(case, uaid, _):
    batch = await case.sure.fetch_since(case.month, uaid, TS + 5)
    case.assertEqual([n.version for n in batch.messages], [f"version-{TS + 9}-"])


@operation(lambda case, uaid: case.store.store_message(case.month, mine(uaid, TS - 9)))
async def store_late_message(case, uaid, _):
    batch = await case.sure.fetch_since(case.month, uaid, TS + 5)
    case.assertEqual([n.version for n in batch.messages], [f"version-{TS - 9}-"])
    case.assertEqual(len(sort_keys(case.month, uaid)), 5)  # and the row it began as is gone


@operation(lambda case, uaid: case.store.store_and_look(case.month, mine(uaid, TS + 9)))
async def store_and_look(case, uaid, stored):
    case.assertTrue(stored.was_read)
    case.assertEqual((stored.user["uaid"], stored.user["node_id"]), (uaid, NODE))
    await store_message(case, uaid, None)


@operation(lambda case, uaid: case.store.delete_message(case.month, mine(uaid)))
async def delete_message(case, uaid, done):
    case.assertTrue(done)
    case.assertEqual(len(sort_keys(case.month, uaid)), 3)


@operation(
    lambda case, uaid: case.store.delete_message(
        case.month, mine(uaid, TS - 99, version=f"version-{TS}-")
    )
)
async def delete_message_by_update_id(case, uaid, done):
    case.assertTrue(done)
    case.assertEqual(len(sort_keys(case.month, uaid)), 3)


@operation(lambda case, uaid: case.store.fetch_topics(case.month, uaid))
async def fetch_topics(case, uaid, batch):
    case.assertEqual([n.version for n in batch.messages], ["topic"])


@operation(lambda case, uaid: case.store.fetch_since(case.month, uaid, None))
async def fetch_since(case, uaid, batch):
    case.assertEqual((batch.timestamp, len(batch.messages)), (TS + 5, 2))


@operation(lambda case, uaid: case.store.set_pointer(case.month, uaid, TS))
async def set_pointer(case, uaid, _):
    case.assertEqual((await case.sure.fetch_topics(case.month, uaid)).timestamp, TS)


@operation(lambda case, uaid: case.store.move_month(uaid, case.old, case.month))
async def move_month(case, uaid, _):
    case.assertEqual(sort_keys(case.old, uaid), [" "])
    batch = await case.sure.fetch_since(case.month, uaid, None)
    case.assertEqual(len(batch.messages), 2)
    case.assertEqual(len((await case.sure.fetch_topics(case.month, uaid)).messages), 1)


@operation(lambda case, uaid: case.store.carry_late(uaid, case.old, case.month))
async def carry_late(case, uaid, found):
    case.assertTrue(found)
    case.assertEqual(sort_keys(case.old, uaid), [" "])
    case.assertEqual(len((await case.sure.fetch_since(case.month, uaid, None)).messages), 2)


class SurvivesFault(FaultCase):
    """Item: inject each at each operation; no lost acknowledgements, recovery."""

    async def _survives(self, fault: str, most: int = MANY) -> None:
        """:param most: requests of an operation that are spoilt, one at a time."""
        for name, tested in OPERATIONS.items():
            for skip in range(most):
                uaid = await self.new_user()
                self.proxy.fail("*", fault, times=1, skip=skip)
                result = await tested.run(self, uaid)
                happened = not self.proxy.waiting
                self.proxy.heal()
                try:
                    await tested.check(self, uaid, result)
                except Exception as error:
                    raise AssertionError(f"{name}, request {skip}, {fault}") from error
                if not happened:
                    break
            else:
                self.assertLess(most, MANY, f"{name} makes too many requests")


class TestEveryFault(SurvivesFault):
    async def test_survives_throttled(self):
        await self._survives("throttled")

    async def test_survives_throttling(self):
        await self._survives("throttling", most=2)

    async def test_survives_server_error(self):
        await self._survives("server_error")

    async def test_survives_unavailable(self):
        await self._survives("unavailable", most=2)

    async def test_survives_reset(self):
        await self._survives("reset", most=2)

    async def test_survives_lost_answer(self):
        await self._survives("lost_answer")

    async def test_survives_unprocessed_keys(self):
        uaid = await self.new_user()
        self.proxy.fail("BatchGetItem", "unprocessed", times=3)
        found = await self.store.get_subscription(uaid, CHID)
        self.assertTrue(found.subscribed)

    def test_all_faults_are_tested(self):
        self.assertEqual(FAULTS, PASSING | {"missing", "denied", "unprocessed"})


class TestEveryTimeout(SurvivesFault):
    """The same of those that the client sees as time-outs."""

    read_timeout = IMPATIENT

    async def test_survives_timeout(self):
        await self._survives("timeout", most=2)

    async def test_survives_late_timeout(self):
        await self._survives("late_timeout", most=2)


class TestLastingFaults(FaultCase):
    """What callers are told, and that it works again as soon as DynamoDB does."""

    delays = SOON[:2]

    async def _fails(self, fault: str, expected: type[StoreError], attempts: int) -> None:
        uaid = await self.new_user()
        for name, tested in OPERATIONS.items():
            if (name, fault) in NO_ERROR:
                continue
            self.proxy.fail("*", fault)
            self.proxy.operations.clear()
            with self.assertRaises(StoreError) as caught:
                await tested.run(self, uaid)
            self.assertIs(isinstance(caught.exception, StoreBusy), expected is StoreBusy, name)
            if (name, fault) != ("move_month", "missing"):  # the old month may be gone
                self.assertEqual(len(self.proxy.operations), attempts, name)
            self.assertNotIn(uaid, str(caught.exception))
            self.proxy.heal()
        for name, tested in OPERATIONS.items():
            fresh = await self.new_user()
            result = await tested.run(self, fresh)
            try:
                await tested.check(self, fresh, result)
            except Exception as error:
                raise AssertionError(f"{name} after {fault}") from error

    async def test_throttled(self):
        await self._fails("throttled", StoreBusy, 3)

    async def test_throttling(self):
        await self._fails("throttling", StoreBusy, 3)

    async def test_server_error(self):
        await self._fails("server_error", StoreError, 3)

    async def test_unavailable(self):
        await self._fails("unavailable", StoreError, 3)

    async def test_reset(self):
        await self._fails("reset", StoreError, 3)

    async def test_denied_is_not_tried_again(self):
        self.store.users.may_batch = False  # it would do without what is denied
        await self._fails("denied", StoreError, 1)

    async def test_missing_table_is_not_tried_again(self):
        await self._fails("missing", StoreError, 1)
        self.assertTrue(self.store._in_doubt)

    async def test_nobody_listens(self):
        self.proxy.stop()
        with self.assertRaises(Unavailable) as caught:
            await self.store.get_user("a0" * 16)
        self.assertFalse(caught.exception.maybe_done)

    async def test_unprocessed_keys_for_ever(self):
        self.proxy.fail("BatchGetItem", "unprocessed")
        with self.assertRaises(StoreBusy):
            await self.store.get_subscription("a0" * 16, CHID)


class TestOtherTables(FaultCase):
    async def test_table_that_disappears_comes_back_without_restart(self):
        uaid = await self.new_user()
        raw_call("delete_table", TableName=self.month)
        with self.assertRaises(StoreError):
            await self.store.store_message(self.month, mine(uaid))
        self.assertEqual((await self.store.health())["storage"], "Nonexistent table")
        with capturedLogs() as logs:
            self.assertFalse(await self.store.rotate())
        self.assertIn(
            f"Created table {self.month}", str([e["log_format"].format(**e) for e in logs])
        )
        await self.store.store_message(self.month, mine(uaid))
        self.assertEqual(len((await self.store.fetch_since(self.month, uaid, None)).messages), 1)
        self.proxy.operations.clear()
        await self.store.rotate()
        self.assertEqual(list(self.proxy.operations), [])

    async def test_router_table_that_is_restored_is_used_again(self):
        raw_call("delete_table", TableName=self.router)
        with self.assertRaises(StoreError):
            await self.store.get_user("a0" * 16)
        self.assertEqual((await self.store.health())[self.router], "Nonexistent table")
        tables.ensure(raw_call, self.router, tables.ROUTER_KEYS, (5, 5))
        self.assertIsNone(await self.store.get_user("a0" * 16))

    async def test_health(self):
        for fault, text in (
            ("server_error", "Server error"),
            ("denied", "Internal error"),
            ("throttled", "Internal error"),
            ("missing", "Nonexistent table"),
        ):
            self.proxy.fail("DescribeTable", fault, table=self.router)
            self.assertEqual(await self.store.health(), {self.router: text, "storage": None})
            self.proxy.heal()
        self.proxy.fail("DescribeTable", "reset", table=self.month)
        self.assertEqual(
            await self.store.health(), {self.router: None, "storage": "Internal error"}
        )

    async def test_alive_needs_no_database(self):
        self.proxy.stop()
        await self.store.alive()

    async def test_role_that_may_not_batch(self):
        # 1.58.3 made no such request, so nobody had to allow it.
        uaid = await self.new_user()
        self.proxy.fail("BatchGetItem", "denied")
        with capturedLogs() as logs:
            for _ in range(2):
                self.proxy.operations.clear()
                found = await self.store.get_subscription(uaid, CHID)
                self.assertEqual((found.user["uaid"], found.subscribed), (uaid, True))
        self.assertEqual(list(self.proxy.operations), ["GetItem", "GetItem"])
        said = [e for e in logs if "BatchGetItem" in str(e["log_format"])]
        self.assertEqual(len(said), 1)
        self.proxy.heal()
        self.proxy.fail("GetItem", "reset", times=1, skip=1)
        self.assertTrue((await self.store.get_subscription(uaid, CHID)).subscribed)
        self.assertFalse(self.proxy.waiting)

    async def test_poison_that_cannot_be_deleted_is_only_logged(self):
        uaid = await self.new_user()
        item = get_item(self.month, uaid, f"02:{TS}:{CHID}")
        item["timestamp"] = {"NULL": True}
        raw_call("put_item", TableName=self.month, Item=item)
        self.proxy.fail("DeleteItem", "denied")
        batch = await self.store.fetch_since(self.month, uaid, None)
        self.assertEqual(len(batch.messages), 1)

    async def test_start_fails_with_one_line(self):
        for fault in ("denied", "server_error", "timeout"):
            self.proxy.fail("PutItem", fault)
            store = self._new_store(IMPATIENT if fault == "timeout" else PATIENCE)
            with self.assertRaises(StoreUnusable) as caught:
                await store.setup()
            self.assertNotIn("\n", str(caught.exception))
            self.proxy.heal()

    async def test_start_survives_passing_faults(self):
        store = self._new_store()
        for fault in ("throttled", "server_error", "reset"):
            self.proxy.fail("*", fault, times=2, skip=2)
        await store.setup()
        self.assertFalse(self.proxy.waiting)

    async def test_start_survives_each_lost_answer(self):
        """What an attempt finds that comes after a lost answer is that attempt's own doing."""
        for operation in ("PutItem", "UpdateItem", "DeleteItem"):
            for skip in range(MANY):
                for fault in ("lost_answer", "late_timeout"):
                    store = self._new_store(IMPATIENT if fault == "late_timeout" else PATIENCE)
                    self.proxy.fail(operation, fault, times=1, skip=skip)
                    await store.setup()
                    happened = not self.proxy.waiting
                    self.proxy.heal()
                    await store.close()
                if not happened:
                    break
            else:
                self.fail(f"{operation}: there are more")

    async def test_tools_know_their_own_doing(self):
        """Verdicts of the blocking objects, after an answer that was lost."""
        call = patient(caller(client(self.proxy.url)), lambda _: None)
        users = Users(call, self.router, str, lambda: 0)
        messages = Messages(call, str, lambda: 0.0)
        offline = OfflineDynamo(client(self.proxy.url), self.router)
        offline._call = call
        newer = {"router_type": "webpush", "connected_at": 2000, "node_id": "http://new"}
        verdicts: dict[str, Callable[[str], Any]] = {
            "register": lambda uaid: users.register({"uaid": uaid, **newer}).written,
            "clear_node": lambda uaid: users.clear_node(uaid, NODE, 1000),
            "drop": users.drop,
            "drop_users": lambda uaid: offline.drop(Stale(uaid, 202600000000)),
            "remove_channel": lambda uaid: messages.take_channel(self.month, uaid, CHID)[1],
        }
        for name, verdict in verdicts.items():
            uaid = await self.new_user()
            self.sure.users.set_month(uaid, self.month, 202600000000)
            self.proxy.fail("*", "lost_answer", times=1)
            self.assertTrue(await deferToThread(verdict, uaid), name)
            self.assertFalse(self.proxy.waiting)
            again = await deferToThread(verdict, uaid)
            self.assertFalse(again, name)

    async def test_user_who_came_back_is_not_dropped_by_a_lost_answer(self):
        uaid = await self.new_user()
        offline = OfflineDynamo(client(self.proxy.url), self.router)
        offline._call = patient(caller(client(self.proxy.url)), lambda _: None)
        self.proxy.fail("DeleteItem", "lost_answer", times=1)
        self.assertFalse(await deferToThread(offline.drop, Stale(uaid, 200001010000)))
        self.assertIsNotNone(await self.sure.get_user(uaid))

    async def test_start_on_a_store_that_keeps_nothing(self):
        for method in ("put_item", "delete_item", "update_item"):
            store = new_store(self.router, self.prefix, now=lambda: self.time)
            call = store._tables_call

            def forgetful(operation: str, /, method: str = method, **parameters: Any) -> Any:
                return {} if operation == method else call(operation, **parameters)  # noqa: B023

            store._tables_call = forgetful
            with self.assertRaisesRegex(StoreUnusable, "doesn't keep"):
                await store.setup()

    async def test_close_waits_for_writes_and_ends_further_attempts(self):
        uaid = await self.new_user()
        self.proxy.fail("PutItem", "throttled", times=1)
        refused = self.store.store_message(self.month, mine(uaid, TS + 1))
        queued = self.store.store_message(self.month, mine(uaid, TS + 2))
        closed = self.store.close()
        with self.assertRaises(StoreBusy):
            await refused
        await queued
        await closed
        self.assertEqual(len(sort_keys(self.month, uaid)), 5)
        with self.assertRaisesRegex(StoreError, "closed"):
            await self.store.get_user(uaid)

    async def test_too_many_operations_are_refused_at_once(self):
        self.store._running = MAX_RUNNING
        with self.assertRaises(StoreBusy):
            await self.store.get_user("a0" * 16)
        self.store._running = 0


class Answers(FaultCase):
    """spec/http-endpoint 11, through the real handlers."""

    delays = SOON[:1]

    async def _answer(self, operation: str, fault: str) -> tuple[int, int]:
        endpoint = LateEndpoint(self.store)
        uaid = await self.new_user()
        record = {"uaid": uaid, "router_type": "webpush", "connected_at": 3000}
        await self.sure.clear_node(uaid, NODE, 1000)
        await self.sure.register_user(record)
        self.proxy.fail(operation, fault)
        path = endpoint.endpoint(uaid=uaid, chid=CHID)
        answer = await endpoint.ask("POST", path, b"x", ttl="60", **AES128GCM)
        self.proxy.heal()
        if answer.status == 201:
            return 201, 0
        body = json.loads(answer.body)
        return answer.status, body["errno"]


class TestDocumentedAnswers(Answers):
    async def test_throttled_look_up(self):
        self.assertEqual(await self._answer("BatchGetItem", "throttled"), (503, 201))

    async def test_failed_look_up(self):
        for fault in ("server_error", "reset", "missing"):
            self.assertEqual(await self._answer("BatchGetItem", fault), (503, 202), fault)

    async def test_message_that_is_not_stored_is_not_accepted(self):
        for fault in ("throttled", "server_error", "reset", "missing"):
            self.assertEqual(await self._answer("PutItem", fault), (503, 201), fault)
        self.assertEqual(len(self.flushLoggedErrors(RouterException)), 3)  # not the throttled one

    async def test_message_that_is_stored_is_accepted(self):
        # The look at the record after storing is only about telling a node.
        self.assertEqual(await self._answer("GetItem", "server_error"), (201, 0))

    async def test_recovery(self):
        self.assertEqual(await self._answer("PutItem", "throttled"), (503, 201))
        self.assertEqual(await self._answer("Nothing", "throttled"), (201, 0))


class TestDocumentedAnswersAfterTimeouts(Answers):
    def _give_up(self, operation: str) -> None:
        """Wait for this operation only a moment, and for the others before it as long as it takes:
        there are too few attempts for time-outs that no test has made."""
        patiently, shortly = (caller(client(self.proxy.url, t)) for t in (PATIENCE, IMPATIENT))

        def call(name: str, /, **parameters: Any) -> dict[str, Any]:
            return (shortly if name == operation else patiently)(name, **parameters)

        self.store.users.call = self.store.messages.call = call

    async def test_failed_look_up(self):
        self._give_up("batch_get_item")
        self.assertEqual(await self._answer("BatchGetItem", "timeout"), (503, 202))

    async def test_message_that_is_not_stored_is_not_accepted(self):
        self._give_up("put_item")
        for fault in ("timeout", "late_timeout"):
            self.assertEqual(await self._answer("PutItem", fault), (503, 201), fault)
        self.assertEqual(len(self.flushLoggedErrors(RouterException)), 2)


class TestBackOff(SynchronousTestCase):
    """Growing pauses with a cap, jitter, and an end; under a clock."""

    def test_pauses_grow_up_to_a_cap(self):
        self.assertEqual(list(DELAYS), sorted(DELAYS))
        for pause, longest in zip(delays(), DELAYS, strict=True):
            self.assertTrue(longest / 2 <= pause <= longest)

    def _store(self, clock: Clock, answers: list[Any]) -> Any:
        store = new_store(reactor=clock)

        def in_thread(function: Any, *args: Any, **kwargs: Any) -> Deferred[Any]:
            done: Deferred[Any] = Deferred()
            self.attempts.append(clock.seconds())
            answer = answers.pop(0) if answers else Throttled("later")
            clock.callLater(
                self.lasts, done.errback if isinstance(answer, Exception) else done.callback, answer
            )
            return done

        store._in_thread = in_thread
        return store

    def setUp(self) -> None:
        self.attempts: list[float] = []
        self.lasts = 0.0

    def test_no_thread_waits_and_the_last_error_is_told(self):
        clock = Clock()
        result = self._store(clock, []).get_user("a0" * 16)
        clock.pump([0.01] * 1000)
        self.failureResultOf(result, StoreBusy)
        self.assertEqual(len(self.attempts), len(DELAYS) + 1)

    def test_no_attempt_begins_after_the_deadline(self):
        clock = Clock()
        self.lasts = 5.0
        result = self._store(clock, [Unavailable("x", True)] * 9).get_user("a0" * 16)
        clock.pump([0.1] * 300)
        self.failureResultOf(result, StoreError)
        self.assertEqual(len(self.attempts), 2)
        self.assertLess(self.attempts[-1], 5.0 + DEADLINE)

    def test_attempt_that_succeeds(self):
        clock = Clock()
        result = self._store(clock, [Throttled("x"), "user"]).get_user("a0" * 16)
        clock.pump([0.01] * 20)
        self.assertEqual(self.successResultOf(result), "user")


@pytest.mark.parametrize("fault", ["", "nonsense"])
def test_unknown_faults_are_refused(fault):
    proxy = DynamoDBProxy("http://127.0.0.1:1")
    with pytest.raises(ValueError, match="unknown fault"):
        proxy.fail("*", fault)
    proxy._server.server_close()


class TestTimeouts(FaultCase):
    read_timeout = IMPATIENT
    delays = SOON[:2]

    async def test_timeout(self):
        self.proxy.fail("*", "timeout")
        with self.assertRaisesRegex(StoreError, "ReadTimeoutError"):
            await self.store.get_user("a0" * 16)


class TestThreads(FaultCase):
    async def test_reactor_goes_on_while_dynamodb_hangs(self):
        self.proxy.fail("*", "timeout", times=1)
        waiting = self.store.get_user("a0" * 16)
        self.assertEqual(await deferToThread(lambda: 1), 1)
        self.assertFalse(waiting.called)
        while self.proxy.waiting:
            await deferLater(reactor, 0.01)
        self.proxy.heal()  # ends the request, and another one follows
        self.assertIsNone(await waiting)


class TestStalled(FaultCase):
    """DynamoDB hangs: whoever waits is answered by a deadline counted from arrival."""

    POSTS, THREADS, DEADLINE = 60, 2, 0.5

    async def setUp(self) -> None:
        await super().setUp()
        pool = ThreadPool(self.THREADS, self.THREADS, "stalled")
        pool.start()
        self.addCleanup(pool.stop)
        self.addCleanup(self.proxy.heal)  # before that: threads that hang can't be stopped
        config = client_options()["config"].merge(Config(read_timeout=300))
        self.stalling = DynamoStore(
            make_client(thin=True, endpoint_url=self.proxy.url, config=config),
            reactor,
            DDBTableConfig(self.router),
            DDBTableConfig(self.prefix),
            now=lambda: self.time,
            threadpool=pool,
            deadline=PATIENCE,  # the start is not what is tested
        )
        await self.stalling.setup()
        self.uaid = await self.new_user()
        await self.sure.clear_node(self.uaid, NODE, 1000)

    def hurry(self) -> None:
        """From now on what is asked for is late as soon as the test says so."""
        self.clock = Clock()
        self.stalling._deadlines = Deadlines(self.clock, self.DEADLINE)
        self.proxy.operations.clear()

    async def late(self, *begun: str, asked: int = 1) -> None:
        """The deadline passes.

        :param begun: the operations that DynamoDB has been asked for by then
        :param asked: how many wait for an answer
        """
        while self.stalling._running < asked or len(self.proxy.operations) < len(begun):
            await deferLater(reactor, 0.01)
        self.assertEqual(tuple(self.proxy.operations), begun)
        self.clock.advance(self.DEADLINE)

    async def idle(self) -> None:
        """Until the last operation is over, whoever waited for it."""
        while self.stalling._running:
            await deferLater(reactor, 0.01)

    async def post(self) -> Any:
        endpoint = LateEndpoint(self.stalling)
        path = endpoint.endpoint(uaid=self.uaid, chid=CHID)
        return await endpoint.ask("POST", path, b"x", ttl="60", **AES128GCM)

    async def test_everybody_is_answered_and_nothing_is_left_over(self):
        self.hurry()
        self.proxy.fail("*", "timeout")
        posts = [Deferred.fromCoroutine(self.post()) for _ in range(self.POSTS)]
        await self.late(*["BatchGetItem"] * self.THREADS, asked=self.POSTS)
        answers = [await answer for answer in posts]
        self.assertEqual([answer.status for answer in answers], [503] * self.POSTS)
        self.assertTrue(all(int(answer.headers["retry-after"]) > 0 for answer in answers))
        # Those that had their turn still hang; the others must never have one.
        self.assertEqual(len(self.proxy.operations), self.THREADS)
        self.stalling._deadlines = Deadlines(reactor, PATIENCE)
        self.proxy.operations.clear()
        self.proxy.heal()
        self.assertEqual((await self.post()).status, 201)
        await self.idle()
        self.assertLessEqual(self.proxy.operations.count("BatchGetItem"), 1)
        self.assertEqual(self.proxy.operations.count("PutItem"), 1)

    async def test_a_write_that_was_begun_may_be_kept(self):
        self.hurry()
        self.proxy.fail("PutItem", "late_timeout")
        post = Deferred.fromCoroutine(self.post())
        await self.late("BatchGetItem", "PutItem")
        self.assertEqual((await post).status, 503)
        self.flushLoggedErrors(RouterException)
        self.proxy.heal()
        await self.idle()
        found = await self.sure.fetch_since(self.month, self.uaid, None)
        self.assertEqual([m.data for m in found.messages].count("eA"), 1)

    async def test_what_waits_for_an_earlier_one_of_its_row_is_late_as_well(self):
        self.hurry()
        self.proxy.fail("UpdateItem", "timeout")
        writes = [self.stalling.add_channel(self.month, self.uaid, CHID2) for _ in range(3)]
        await self.late("UpdateItem", asked=len(writes))
        errors = []
        for write in writes:
            with self.assertRaises(StoreError) as caught:
                await write
            errors.append(type(caught.exception))
        self.assertEqual(errors, [Unknown, TooLate, TooLate])
        self.proxy.operations.clear()
        self.proxy.heal()
        await self.idle()
        self.assertFalse(self.proxy.operations)
