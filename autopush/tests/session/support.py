"""A node on a memory store, with a clock of its own and wires that only note what happens."""

from __future__ import annotations

import itertools
import uuid
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from autopush.message.notification import WebPushNotification
from autopush.session import Node, Session
from autopush.tests.db.memory_store import MemoryStore

START = 1_795_459_299
MONTH = "message_2026_11"
ROUTER_URL = "http://node.example:8081"
UAID = "a0" * 16
CHID = "76dfb18c-1eb1-4f92-80a5-7fdf8d462b5c"
CHID2 = "86dfb18c-1eb1-4f92-80a5-7fdf8d462b5c"
MORE_INFO = "http://autopush.readthedocs.io/en/latest/api/websocket.html#private-http-endpoint"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"

_numbers = itertools.count(1)


class Wire:
    """Notes what the session does with its connection."""

    def __init__(self):
        self.output_paused = False
        self.sent = []
        self.closes = []
        self.reading = True
        self.pauses = 0

    def send(self, message):
        if not self.closes:
            self.sent.append(message)

    def send_all(self, messages):
        for message in messages:
            self.send(message)

    def close(self, code=None):
        self.closes.append(code)

    def pause_reading(self):
        assert self.reading
        self.reading = False
        self.pauses += 1

    def resume_reading(self):
        assert not self.reading
        self.reading = True

    def take(self):
        sent, self.sent = self.sent, []
        return sent


class Metrics:
    active = True

    def __init__(self):
        self.calls = []

    def increment(self, name, count=1, tags=None):
        self.calls.append((name, count, tags))

    def timing(self, name, duration, tags=None):
        self.calls.append((name, duration, tags))

    def of(self, name):
        return [call[1:] for call in self.calls if call[0] == name]


class Peers:
    def __init__(self, result=None):
        self.requests = []
        self.result = result

    def request(self, method, url, body=b""):
        self.requests.append((method, url))
        return succeed(200) if self.result is None else self.result


class Rig:
    """A node and what is around it. Random delays take their lower limit."""

    def __init__(self, peers: Any = None, **conf: Any) -> None:
        self.peers = peers
        self.clock = Clock()
        self.store = MemoryStore(now=self.now)
        self.store.months.current = MONTH
        self.metrics = cast(Any, Metrics())
        self.draws: list[tuple[int, int]] = []
        values = {
            "env": "development",
            "msg_limit": 100,
            "key_hash": "",
            "auto_ping_interval": 0,
            "router_url": ROUTER_URL,
            "store_direct": False,
            "max_direct_unacked": 1000,
            "worker_sockets": {},
            "make_endpoint": self.make_endpoint,
            **conf,
        }
        self.conf = cast(Any, SimpleNamespace(**values))
        self.node = Node(
            self.conf,
            self.store,
            self.metrics,
            self.clock,
            peers,
            now=self.now,
            randrange=self.draw,
        )
        self.connections = START * 1000

    def now(self):
        return START + self.clock.seconds()

    def draw(self, low, high):
        self.draws.append((low, high))
        return low

    def make_endpoint(self, uaid, chid, key=None):
        return f"https://push.example/wpush/{'v1' if key is None else 'v2'}/{uaid}-{chid}"

    def connect(self, agent=FIREFOX, host="push.example", connected_at=None):
        self.connections += 1
        return Session(self.node, Wire(), connected_at or self.connections, agent, host)

    def user(self, uaid=UAID, **changes):
        """Store a router record; a change to None removes an attribute."""
        record = {
            "router_type": "webpush",
            "node_id": ROUTER_URL,
            "connected_at": START * 1000,
            "last_connect": 202611180006,
            "record_version": 1,
            "current_month": MONTH,
            **changes,
        }
        self.store.users[uaid] = {k: v for k, v in record.items() if v is not None}
        return uaid

    def hello(self, uaid=None, known=True, **extra):
        """A connection after a hello; with a UAID that of a known user."""
        if uaid and known and uaid not in self.store.users:
            self.user(uaid)
        session = self.connect()
        session.received(hello(uaid, **extra))
        return session

    def live(self):
        """A connected user with a record; the hello's answer is taken."""
        session = self.hello(UAID)
        session.wire.take()
        self.store.calls.clear()
        self.metrics.calls.clear()
        return session

    def put(self, *notifications, month=MONTH):
        """Store messages of channels that are registered."""
        for notification in notifications:
            self.store.add_channel(month, notification.uaid.hex, str(notification.channel_id))
            self.store.store_message(month, notification)
        self.store.calls.clear()

    def deliver(self, notification, uaid=UAID):
        """Result of a delivery, or the Deferred while there is none."""
        return outcome(Deferred.fromCoroutine(self.node.deliver(uaid, notification)))

    def rows(self, uaid=UAID, month=MONTH):
        return sorted(self.store.messages.get((month, uaid), {}))

    def pointer(self, uaid=UAID, month=MONTH):
        row = self.store.channels.get((month, uaid))
        return row and row.pointer


def outcome(deferred):
    """What a Deferred has fired with; itself if it has not; its exception is raised."""
    if not deferred.called or deferred.paused:
        return deferred
    if isinstance(deferred.result, Failure):
        failure = deferred.result
        deferred.addErrback(lambda _: None)
        failure.raiseException()
    return deferred.result


def hello(uaid=None, **extra):
    message = {"messageType": "hello", "use_webpush": True, **extra}
    if uaid is not None:
        message["uaid"] = uaid
    return message


def message(stamp=None, chid=CHID, ttl=60, age=0, data="YWJj", uaid=UAID, **values):
    """A notification with a fresh version; ``stamp`` in microseconds after START."""
    version = values.pop("version", None) or f"version-{next(_numbers):06}"
    return WebPushNotification(
        uuid.UUID(uaid),
        uuid.UUID(chid),
        ttl,
        data=data,
        headers={"encoding": "aes128gcm"} if data else None,
        timestamp=START - age,
        sortkey_timestamp=None if stamp is None else START * 1_000_000 + stamp,
        message_id=version,
        update_id=version,
        **values,
    )


def ack(*notifications, code=100):
    return {
        "messageType": "ack",
        "updates": [
            {"channelID": str(n.channel_id), "version": n.version, "code": code}
            for n in notifications
        ],
    }


def versions(frames):
    return [frame["version"] for frame in frames]


def numbers(*notifications):
    return [n.version for n in notifications]


class Events:
    """Collects log events: ``with Events() as events``."""

    def __init__(self):
        self.seen: list[dict[str, Any]] = []

    def __call__(self, event):
        self.seen.append(event)

    def __enter__(self):
        globalLogPublisher.addObserver(cast(Any, self))
        return self

    def __exit__(self, *_):
        globalLogPublisher.removeObserver(cast(Any, self))

    def of(self, text):
        return [event for event in self.seen if event.get("log_format") == text]
