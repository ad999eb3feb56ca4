"""What user agents see of a DynamoDB that throttles, fails, hangs, hangs up and loses tables.

A whole connection node on loopback, spoken to with the ``websockets`` client, on a store behind the
proxy of :mod:`automock.dynamodb_proxy`. The node's delays pass a few hundred times faster.
"""

# mypy: disable-error-code="arg-type,union-attr"

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from autopush.config import AutopushConfig
from autopush.db.dynamodb import tables
from autopush.db.dynamodb.http import Connection
from autopush.exceptions import StoreError
from autopush.http import InternalRouterHTTPFactory, WebSocketHTTPFactory
from autopush.metrics import SinkMetrics
from autopush.session import Node
from autopush.session.states import State
from autopush.tests.db.dynamodb.support import PATIENCE, raw_call
from autopush.tests.db.dynamodb.test_faults import SOON, FaultCase
from autopush.tests.db.store_contract import CHID, CHID2, TS, message
from autopush.websocket import PushServerFactory

reactor: Any = _reactor

FASTER = 200.0

WAIT = 60
"""Seconds after which a client gives up; a hanging store takes one."""

REFUSALS = ("throttled", "throttling", "server_error", "unavailable", "missing", "denied")
CONNECTION = ("timeout", "reset")
UNSURE = ("lost_answer", "late_timeout")
"""Faults after which a write may have been carried out."""

SILENT = ("timeout", "late_timeout")
IMPATIENT = 1.0
"""Seconds that the store waits for an answer which these keep back. It gets all others, however
slow the emulator is."""

EVERY = (*REFUSALS, *CONNECTION)
THROTTLING = ("throttled", "throttling")

OVERLOADED = {
    "messageType": "hello",
    "reason": "error - overloaded",
    "status": 503,
}
UNREGISTER_OVERLOADED = {
    "messageType": "error",
    "reason": "overloaded",
    "status": 503,
}
REGISTER_OVERLOADED = {**UNREGISTER_OVERLOADED, "channelID": CHID2}


class Hurrying:
    """The reactor's clock, but faster."""

    def seconds(self) -> float:
        return float(reactor.seconds()) * FASTER

    def callLater(self, delay: float, function: Callable[..., Any], *args: Any) -> Any:
        return reactor.callLater(delay / FASTER, function, *args)


class Browser:
    """A WebSocket."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws

    async def say(self, **fields: Any) -> None:
        await self.ws.send(json.dumps(fields))

    async def hear(self) -> Any:
        async with asyncio.timeout(WAIT):
            return json.loads(await self.ws.recv())

    async def hello(self, uaid: str | None = None) -> Any:
        known = {} if uaid is None else {"uaid": uaid}
        await self.say(messageType="hello", use_webpush=True, **known)
        return await self.hear()

    async def ack(self, *frames: Any) -> None:
        updates = [
            {"channelID": frame["channelID"], "version": frame["version"]} for frame in frames
        ]
        await self.say(messageType="ack", updates=updates)

    async def goes_on(self) -> None:
        """Commands are answered; and nothing else has come before."""
        await self.say(messageType="register", channelID="no UUID")
        answer = await self.hear()
        assert answer["status"] == 401, answer

    async def ended(self) -> None:
        async with asyncio.timeout(WAIT):
            try:
                heard = await self.ws.recv()
            except ConnectionClosed:
                return
        raise AssertionError(heard)

    async def leave(self) -> None:
        await self.ws.close()

    def vanish(self) -> None:
        """Leave without a word; a node that does not read hears none anyway."""
        self.ws.transport.abort()


Talk = Callable[[str], Awaitable[None]]


class WebSocketFaultCase(FaultCase):
    """A connection node behind a faulty way to its store."""

    delays: tuple[float, ...] = SOON[:1]

    async def setUp(self) -> None:
        await super().setUp()
        self.unanswered: tuple[bytes, bytes] | None = None
        self.patch(Connection, "exchange", self.hasty(Connection.exchange))
        self.draws: list[tuple[int, int]] = []
        options = {"statsd_host": None, "store_direct": self.store_direct}
        conf = AutopushConfig(hostname="localhost", **options)
        self.node = Node(conf, self.store, SinkMetrics(), Hurrying(), randrange=self.draw)
        self.factory = PushServerFactory(conf, self.node, reactor)
        public = WebSocketHTTPFactory(conf, self.factory, metrics=SinkMetrics())
        internal = InternalRouterHTTPFactory(conf, self.store, self.node.clients, node=self.node)
        self.ports = [
            reactor.listenTCP(0, factory, interface="127.0.0.1") for factory in (public, internal)
        ]
        self.url = f"ws://127.0.0.1:{self.ports[0].getHost().port}/"

    store_direct = False

    def draw(self, low: int, high: int) -> int:
        self.draws.append((low, high))
        return low

    def hasty(self, exchange: Callable[..., Any]) -> Callable[..., Any]:
        """Give up soon what stays without an answer, and that alone."""

        def hastily(connection: Any, request: bytes) -> Any:
            unanswered = self.unanswered
            silent = unanswered is not None and all(part in request for part in unanswered)
            connection._sock.settimeout(IMPATIENT if silent else PATIENCE)
            return exchange(connection, request)

        return hastily

    async def tearDown(self) -> None:
        self.heal()
        for port in self.ports:
            await port.stopListening()
        await self.factory.shutdown()
        await self.node.shutdown()
        await self.node.idle()
        # Each of them is of a storage operation that failed, and was to.
        self.flushLoggedErrors(StoreError)

    # ---- to be called in the client's thread

    async def open(self) -> Browser:
        return Browser(await connect(self.url, proxy=None, compression=None, ping_interval=None))

    async def connected(self, uaid: str) -> Browser:
        browser = await self.open()
        reply = await browser.hello(uaid)
        assert (reply["status"], reply.get("uaid")) == (200, uaid), reply
        return browser

    async def ack_is_kept(self, browser: Browser, uaid: str) -> None:
        """Once storage works again, the next connection gets nothing."""
        self.heal()
        await self.in_reactor(self.node.idle)
        again = await self.connected(uaid)
        await self.gets_nothing(again, uaid)
        await again.leave()
        await browser.leave()

    async def in_reactor(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run something in the reactor's thread, and wait for its result."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Any] = loop.create_future()

        def run() -> None:
            done = Deferred.fromCoroutine(_awaiting(function, *args))
            done.addCallbacks(
                lambda value: loop.call_soon_threadsafe(result.set_result, value),
                lambda failure: loop.call_soon_threadsafe(result.set_exception, failure.value),
            )

        reactor.callFromThread(run)
        async with asyncio.timeout(WAIT):
            return await result

    async def until(self, check: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(WAIT):
            while not await check():
                await asyncio.sleep(0.01)

    async def gets_nothing(self, browser: Browser, uaid: str) -> None:
        """All that is stored was looked for, and nothing was there."""

        async def looked() -> bool:
            return self.node.clients[uaid].state is State.LIVE

        await self.until(looked)
        await browser.goes_on()

    async def failed_once(self, operation: str) -> None:
        """Wait until the fault has been met."""

        async def met() -> bool:
            return operation in self.proxy.operations

        await self.until(met)

    async def user(self, *messages: Any, month: str | None = None) -> str:
        """A known user with a channel and these messages, on no node."""
        uaid = uuid.uuid4().hex
        record = {
            "uaid": uaid,
            "router_type": "webpush",
            "connected_at": 1000,
            "current_month": month or self.month,
            "record_version": 1,
        }

        async def store() -> None:
            await self.sure.register_user(record)
            await self.sure.add_channel(self.month, uaid, CHID)
            for each in messages:
                await self.sure.store_message(self.month, each(uaid))

        await self.in_reactor(store)
        return uaid

    def spoil(self, operation: str, fault: str, table: str | None = None, **kwargs: Any) -> None:
        if fault in SILENT:
            name = b"" if operation == "*" else f".{operation}\r\n".encode()
            self.unanswered = (name, (table or "").encode())
        self.proxy.operations.clear()
        self.proxy.fail(operation, fault, table=table, **kwargs)

    def heal(self) -> None:
        self.unanswered = None
        self.proxy.heal()

    def in_turn(self, faults: tuple[str, ...], talk: Talk) -> Deferred[None]:
        """Let a client talk once for each fault; nothing may need a restart in between."""

        async def all_of_them() -> None:
            for fault in faults:
                self.draws.clear()
                try:
                    await talk(fault)
                except Exception as error:
                    raise AssertionError(f"with {fault}: {error!r}") from error
                finally:
                    self.heal()

        return deferToThread(asyncio.run, all_of_them())


async def _awaiting(function: Callable[..., Any], *args: Any) -> Any:
    return await function(*args)


def fresh(uaid: str, ts: int | None = None, **values: Any) -> Any:
    return message(ts, uaid=uuid.UUID(uaid), timestamp=int(time.time()), **values)


def timestamped(number: int = 0) -> Callable[[str], Any]:
    return lambda uaid: fresh(uaid, TS + number)


def on_topic(uaid: str) -> Any:
    return fresh(uaid, topic="t", version="topic")


class TestHello(WebSocketFaultCase):
    """5.1: any error of the store is ``overloaded`` after 4 to 8 seconds, then the end."""

    async def _refused(self, uaid: str | None) -> None:
        browser = await self.open()
        reply = await browser.hello(uaid)
        assert OVERLOADED.items() <= reply.items(), reply
        await browser.ended()
        assert self.draws == [(4, 9)]

    def test_new_user_needs_no_store(self):
        async def talk(fault):
            self.spoil("*", fault)
            browser = await self.open()
            assert (await browser.hello())["status"] == 200
            await browser.goes_on()
            await browser.leave()

        return self.in_turn((*EVERY, *UNSURE), talk)

    def test_known_user_keeps_its_id(self):
        async def talk(fault):
            uaid = await self.user()
            self.spoil("UpdateItem", fault, table=self.router)
            await self._refused(uaid)
            self.heal()
            await (await self.connected(uaid)).leave()

        return self.in_turn((*EVERY, *UNSURE), talk)


class TestPassingFaults(WebSocketFaultCase):
    delays = SOON

    def test_hello_does_not_notice(self):
        async def talk(fault):
            uaid = await self.user()
            self.spoil("*", fault, times=1)
            await (await self.connected(uaid)).leave()
            assert not self.proxy.waiting

        passing = tuple(f for f in (*EVERY, *UNSURE) if f not in ("missing", "denied"))
        return self.in_turn(passing, talk)


class TestRegister(WebSocketFaultCase):
    """5.2: any error of the store is ``overloaded``; the connection goes on (spec/websocket Q5)."""

    async def _register(self, browser: Browser) -> Any:
        await browser.say(messageType="register", channelID=CHID2)
        return await browser.hear()

    def test_first_channel(self):
        async def talk(fault):
            browser = await self.open()
            uaid = (await browser.hello())["uaid"]
            self.spoil("UpdateItem", fault)
            assert await self._register(browser) == REGISTER_OVERLOADED
            await browser.goes_on()
            self.heal()
            assert (await self._register(browser))["status"] == 200
            found = await self.in_reactor(self.sure.get_subscription, uaid, CHID2)
            assert found.subscribed and found.user["current_month"] == self.month
            await browser.leave()
            await (await self.connected(uaid)).leave()

        return self.in_turn((*EVERY, *UNSURE), talk)

    def test_register(self):
        async def talk(fault):
            uaid = await self.user()
            browser = await self.connected(uaid)
            self.spoil("UpdateItem", fault)
            assert await self._register(browser) == REGISTER_OVERLOADED
            await browser.goes_on()
            self.heal()
            assert (await self._register(browser))["status"] == 200
            found = await self.in_reactor(self.sure.list_channels, self.month, uaid)
            assert found.chids == {CHID, CHID2}
            await browser.leave()

        return self.in_turn((*EVERY, *UNSURE), talk)

    def test_unregister_that_fails_is_told(self):
        """5.3: and may be said again."""

        async def talk(fault):
            uaid = await self.user()
            browser = await self.connected(uaid)
            self.spoil("UpdateItem", fault)
            await browser.say(messageType="unregister", channelID=CHID)
            assert await browser.hear() == UNREGISTER_OVERLOADED
            self.heal()
            await browser.say(messageType="unregister", channelID=CHID)
            assert (await browser.hear())["status"] == 200
            found = await self.in_reactor(self.sure.list_channels, self.month, uaid)
            assert not found.chids
            await browser.leave()

        return self.in_turn(EVERY, talk)


class TestFetch(WebSocketFaultCase):
    """9.3: throttling is waited for, 5 to 59 seconds; anything else ends the connection."""

    def test_throttled(self):
        async def talk(fault):
            uaid = await self.user(on_topic, timestamped())
            self.spoil("Query", fault, times=4)
            browser = await self.connected(uaid)
            frames = [await browser.hear()]
            assert not self.proxy.waiting
            assert self.draws == [(5, 60)] * 2  # two requests an attempt
            await browser.ack(frames[0])
            frames.append(await browser.hear())
            assert frames[0]["version"] == "topic" != frames[1]["version"]
            await browser.ack(frames[1])
            await self.gets_nothing(browser, uaid)
            await browser.leave()

        return self.in_turn(THROTTLING, talk)

    def test_throttled_between_two_batches(self):
        async def talk(fault):
            uaid = await self.user(*map(timestamped, range(11)))
            browser = await self.connected(uaid)
            frames = [await browser.hear() for _ in range(10)]
            self.spoil("Query", fault)
            await browser.ack(*frames)
            await self.failed_once("Query")
            await browser.goes_on()
            self.heal()
            last = await browser.hear()
            assert last["version"] == f"version-{TS + 10}-"
            await browser.ack(last)
            await self.gets_nothing(browser, uaid)
            await browser.leave()

        return self.in_turn(THROTTLING, talk)

    def test_other_errors(self):
        async def talk(fault):
            uaid = await self.user(timestamped())
            self.spoil("Query", fault)
            browser = await self.connected(uaid)
            await browser.ended()
            self.heal()
            browser = await self.connected(uaid)
            assert (await browser.hear())["version"] == f"version-{TS}-"
            await browser.leave()

        others = tuple(f for f in (*EVERY, *UNSURE) if f not in THROTTLING)
        return self.in_turn(others, talk)


class TestAck(WebSocketFaultCase):
    """10, spec/storage 12: no acknowledgement is lost, whether the user agent stays or leaves."""

    async def _acknowledge(self, kind: Any, operation: str, fault: str) -> tuple[Browser, str]:
        uaid = await self.user(kind)
        browser = await self.connected(uaid)
        frame = await browser.hear()
        self.spoil(operation, fault)
        await browser.ack(frame)
        await self.failed_once(operation)
        return browser, uaid

    def test_timestamped(self):
        async def talk(fault):
            browser, uaid = await self._acknowledge(timestamped(), "UpdateItem", fault)
            await self.ack_is_kept(browser, uaid)

        return self.in_turn((*EVERY, *UNSURE), talk)

    def test_topic(self):
        async def talk(fault):
            browser, uaid = await self._acknowledge(on_topic, "DeleteItem", fault)
            await self.ack_is_kept(browser, uaid)

        return self.in_turn((*EVERY, *UNSURE), talk)

    def test_user_agent_leaves_before_it_is_written(self):
        async def talk(fault):
            for kind, operation in ((timestamped(), "UpdateItem"), (on_topic, "DeleteItem")):
                browser, uaid = await self._acknowledge(kind, operation, fault)
                browser.vanish()
                await self.ack_is_kept(browser, uaid)

        return self.in_turn((*EVERY, *UNSURE), talk)

    def test_connection_goes_on_with_the_same_user_agent(self):
        async def talk(fault):
            browser, _ = await self._acknowledge(timestamped(), "UpdateItem", fault)
            self.heal()
            await browser.say(messageType="register", channelID=CHID2)
            assert (await browser.hear())["status"] == 200
            await browser.leave()

        return self.in_turn((*EVERY, *UNSURE), talk)


class TestUnacknowledged(WebSocketFaultCase):
    """14 step 4: direct messages are saved when their connection ends."""

    def test_saved_as_soon_as_can_be(self):
        async def talk(fault):
            uaid = await self.user()
            browser = await self.connected(uaid)
            sent = fresh(uaid, version="direct")
            await self.in_reactor(self.node.deliver, uaid, sent)
            assert (await browser.hear())["version"] == "direct"
            self.spoil("PutItem", fault)
            await browser.leave()
            await self.failed_once("PutItem")
            self.heal()
            await self.in_reactor(self.node.idle)
            again = await self.connected(uaid)
            frame = await again.hear()
            assert frame["version"] == "direct"
            await again.ack(frame)
            await self.gets_nothing(again, uaid)
            await again.leave()

        return self.in_turn((*EVERY, *UNSURE), talk)


class TestStoreDirect(WebSocketFaultCase):
    """``store_direct``: the row of a direct message goes when that is acknowledged."""

    store_direct = True

    def test_acknowledgement_is_kept(self):
        async def talk(fault):
            uaid = await self.user()
            browser = await self.connected(uaid)
            sent = fresh(uaid, version="direct")
            await self.in_reactor(self.node.deliver, uaid, sent)
            frame = await browser.hear()
            self.spoil("DeleteItem", fault)
            await browser.ack(frame)
            await self.failed_once("DeleteItem")
            await self.ack_is_kept(browser, uaid)

        return self.in_turn((*EVERY, *UNSURE), talk)


class TestMonthlyMove(WebSocketFaultCase):
    """15: throttling is tried again within half an hour; anything else ends the connection."""

    async def _old_user(self) -> str:
        uaid = await self.user(month=self.old)
        await self.in_reactor(self.sure.add_channel, self.old, uaid, CHID2)
        return uaid

    async def _month(self, uaid: str) -> Any:
        return (await self.in_reactor(self.sure.get_user, uaid))["current_month"]

    async def _arrives(self, uaid: str) -> None:
        async def there() -> bool:
            return await self._month(uaid) == self.month

        await self.until(there)
        found = await self.in_reactor(self.sure.list_channels, self.month, uaid)
        assert found.chids == {CHID, CHID2}

    def test_throttled(self):
        async def talk(fault):
            uaid = await self._old_user()
            self.spoil("UpdateItem", fault, table=self.month, times=2)
            browser = await self.connected(uaid)
            await self._arrives(uaid)
            assert (1, 1800) in self.draws
            await browser.goes_on()
            await browser.leave()

        return self.in_turn(THROTTLING, talk)

    def test_other_errors(self):
        async def talk(fault):
            uaid = await self._old_user()
            self.spoil("UpdateItem", fault, table=self.month)
            browser = await self.connected(uaid)
            await browser.ended()
            assert await self._month(uaid) == self.old
            self.heal()
            browser = await self.connected(uaid)
            await self._arrives(uaid)
            await browser.leave()

        others = tuple(f for f in (*EVERY, *UNSURE) if f not in THROTTLING)
        return self.in_turn(others, talk)


class TestTableThatDisappears(WebSocketFaultCase):
    """Answers are those of any failure, until the minutely look at the tables has made it anew."""

    def test_message_table(self):
        async def talk():
            uaid = await self.user(timestamped())
            browser = await self.connected(uaid)
            frame = await browser.hear()
            raw_call("delete_table", TableName=self.month)
            await browser.say(messageType="register", channelID=CHID2)
            await browser.ack(frame)
            assert await browser.hear() == REGISTER_OVERLOADED
            other = await self.connected(uaid)
            await other.ended()
            await self.in_reactor(self.store.rotate)
            await self.in_reactor(self.node.idle)
            again = await self.connected(uaid)
            await again.say(messageType="register", channelID=CHID2)
            assert (await again.hear())["status"] == 200
            await again.leave()
            row = await self.in_reactor(self.sure.fetch_topics, self.month, uaid)
            assert row.timestamp == TS  # what was acknowledged meanwhile

        return deferToThread(asyncio.run, talk())

    def test_router_table(self):
        async def talk():
            uaid = await self.user()
            browser = await self.connected(uaid)
            raw_call("delete_table", TableName=self.router)
            other = await self.open()
            assert OVERLOADED.items() <= (await other.hello(uaid)).items()
            await other.ended()
            await browser.say(messageType="register", channelID=CHID2)
            assert (await browser.hear())["status"] == 200
            tables.ensure(raw_call, self.router, tables.ROUTER_KEYS, (5, 5))
            other = await self.open()
            reply = await other.hello(uaid)
            assert reply["status"] == 200 and reply["uaid"] != uaid  # its record is gone
            await other.leave()
            await browser.leave()

        return deferToThread(asyncio.run, talk())
