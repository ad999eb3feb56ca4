"""A real store with two nodes and senders around it, in a time of their own, without sockets."""

from __future__ import annotations

import itertools
import queue
import time
import uuid
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from autopush.db.interface import Store
from autopush.db.sqlite.store import SqliteStore
from autopush.message.notification import WebPushNotification
from autopush.metrics import SinkMetrics
from autopush.net.nodeclient import NodeGone
from autopush.router.webpush import WebPushRouter
from autopush.session import Delivery, Node, Session
from autopush.tests.session.support import Wire, outcome
from autopush.web.nodes import parse_notification

NODES = ("http://one.example:8081", "http://two.example:8081")

PATIENCE = 240.0
"""Seconds until a test gives up waiting for a thread."""

DAY = 86_400

SOON = 2.0
"""Seconds within which everything that is under way comes to its end."""

_numbers = itertools.count(1)


class Reactor(Clock):
    """A clock that also hears what threads have to say."""

    def __init__(self) -> None:
        super().__init__()
        self.said: queue.Queue[Any] = queue.Queue()

    def callFromThread(self, function: Any, *args: Any, **kwargs: Any) -> None:
        self.said.put((function, args, kwargs))

    def listen(self, seconds: float = 0) -> None:
        """Do what threads have asked for; wait so long for the first to ask."""
        for _ in range(5_000):
            try:
                function, args, kwargs = self.said.get(seconds > 0, seconds or None)
            except queue.Empty:
                return
            seconds = 0
            function(*args, **kwargs)
        raise AssertionError("It never comes to rest")


class Inline:
    """A thread pool without threads."""

    def callInThreadWithCallback(self, told: Any, function: Any, *args: Any, **kwargs: Any) -> None:
        try:
            result = function(*args, **kwargs)
        except Exception:
            told(False, None)
            raise
        told(True, result)


class Dead:
    """What is left of a store to a process that was killed: nothing it asks for is done."""

    deletes_read = True

    def __getattr__(self, name: str) -> Any:
        return lambda *_: Deferred()


def begin_of_time() -> float:
    """Now, unless the month may end while a test lasts, whose time goes on by hours: a user of the
    month before would be turned away then. It is tomorrow then."""
    now = time.time()
    return now if time.gmtime(now).tm_mon == time.gmtime(now + DAY).tm_mon else now + DAY


class World:
    """Everything but the user agent.

    :param store: opens the store, given a reactor and a clock
    """

    def __init__(self, store: Any) -> None:
        self.reactor = Reactor()
        self.begin = begin_of_time()
        self.store: Store = store(self.reactor, self.now)
        self.wait(self.store.setup())
        self.nodes: dict[str, Node] = {}
        self.connections = int(self.begin * 1000)
        self.store_direct = False

    def now(self) -> float:
        return self.begin + self.reactor.seconds()

    # ---- time

    def wait(self, deferred: Deferred[Any]) -> Any:
        """The outcome, once there is one."""
        while not deferred.called:
            if self.is_writing():
                self.reactor.listen(PATIENCE)
            else:
                self.reactor.advance(0.002)
                self.reactor.listen()
        return outcome(deferred)

    def is_writing(self) -> bool:
        """Whether a thread is at work: as long as that takes, time stands still."""
        if not isinstance(self.store, SqliteStore):
            return False
        writer = self.store._writer
        with writer._lock:
            return writer._gate_open or bool(writer._taken)

    def settle(self) -> None:
        """Let everything that is under way come to its end."""
        end = self.reactor.seconds() + SOON
        for _ in range(5_000):
            self.reactor.listen()
            calls: Any = self.reactor.getDelayedCalls()
            due = [at for call in calls if (at := call.getTime()) <= end]
            if due:
                self.reactor.advance(max(0, min(due) - self.reactor.seconds()))
            elif isinstance(self.store, SqliteStore):
                before = len(self.reactor.getDelayedCalls())
                self.wait(self.store.alive())
                if len(self.reactor.getDelayedCalls()) == before and self.reactor.said.empty():
                    return
            elif self.reactor.said.empty():
                return
        raise AssertionError("It never comes to rest")

    # ---- nodes

    def start(self, url: str) -> Node:
        conf = SimpleNamespace(
            env="development",
            msg_limit=1_000_000,
            key_hash="",
            auto_ping_interval=0,
            router_url=url,
            store_direct=self.store_direct,
            max_direct_unacked=3,
            worker_sockets={},
            endpoint_url="http://push.example",
            make_endpoint=lambda *_: "http://push.example/wpush/v1/token",
        )
        node = Node(
            cast(Any, conf),
            self.store,
            SinkMetrics(),
            self.reactor,
            cast(Any, self),
            now=self.now,
            randrange=lambda low, high: low,
        )
        self.nodes[url] = node
        return node

    def kill(self, url: str) -> None:
        """As ``kill -9``: nothing the process has not asked the store for is ever done."""
        node = self.nodes[url]
        node.store = cast(Any, Dead())
        node.clients.clear()
        self.start(url)

    def connect(self, url: str, uaid: str | None) -> Session:
        self.connections = max(self.connections + 1, int(self.now() * 1000))
        session = Session(self.nodes[url], cast(Any, Wire()), self.connections, None, "")
        hello = {"messageType": "hello", "use_webpush": True}
        session.received({**hello, "uaid": uaid} if uaid else hello)
        return session

    def request(self, method: str, url: str, body: bytes = b"") -> Deferred[int]:
        """The nodes' internal API."""
        return Deferred.fromCoroutine(self._request(method, url, body))

    async def _request(self, method: str, url: str, body: bytes) -> int:
        address, _, path = url.partition("8081/")
        node = self.nodes.get(address + "8081")
        if node is None:
            raise NodeGone("nobody there")
        what, uaid, *more = path.split("/")
        if method == "DELETE":
            return 200 if node.disconnect(uaid, int(more[0])) else 404
        if what == "push":
            delivery = await node.deliver(uaid, parse_notification(uaid, body))
            return {Delivery.DELIVERED: 200, Delivery.BUSY: 503}.get(delivery, 404)
        return {Delivery.DELIVERED: 200, Delivery.BUSY: 202}.get(node.check(uaid), 404)

    # ---- senders

    def message(self, uaid: str, chid: str, topic: str | None, ttl: int) -> WebPushNotification:
        version = f"version-{next(_numbers):07}"
        return WebPushNotification(
            uuid.UUID(uaid),
            uuid.UUID(chid),
            ttl,
            timestamp=int(self.now()),
            topic=topic,
            message_id=version,
            update_id=version,
        )

    def post(self, notification: WebPushNotification) -> bool:
        """What an endpoint node does; whether it has accepted the message."""
        return bool(self.wait(Deferred.fromCoroutine(self._post(notification))))

    async def _post(self, notification: WebPushNotification) -> bool:
        uaid, chid = notification.uaid.hex, str(notification.channel_id)
        user, subscribed = await self.store.get_subscription(uaid, chid)
        if user is None or not subscribed:
            return False
        conf = cast(Any, SimpleNamespace(endpoint_url="http://push.example", msg_limit=0))
        router = WebPushRouter(conf, None, self.store, cast(Any, self), now=self.now)
        return (await router.route(notification, user)).status_code == 201
