"""An endpoint in memory: real application, router and handlers; no socket, no file."""

from __future__ import annotations

import json
import time
from typing import Any, cast
from uuid import UUID

from twisted.internet.task import Clock

from autopush.config import AutopushConfig
from autopush.http import EndpointHTTPFactory
from autopush.router import routers_from_config
from autopush.session import Delivery
from autopush.tests.db.memory_store import MemoryStore
from autopush.tests.httpserver.support import Wire
from autopush.tests.message.vapid_support import ES256, Sender, claims

UAID = "a0" * 16
CHID = "76dfb18c-1eb1-4f92-80a5-7fdf8d462b5c"
ORIGIN = "http://push.example:8082"
NODE_URL = "http://node.example:8081"
ERROR_URL = "http://autopush.readthedocs.io/en/latest/http.html#error-codes"

SENDER = Sender()

AES128GCM = {"content_encoding": "aes128gcm"}
AESGCM = {
    "content_encoding": "aesgcm",
    "encryption": 'keyid=p256dh;salt="S3Y5cEV0Y0pWcGZFRFFrSA"',
    "crypto_key": 'keyid=p256dh;dh="BDHk5ldLLsdHqTlkZbbQCSLRW0dBTBBbyM6z8Jk9e5Q"',
}


class Metrics:
    """Remembers what is counted."""

    active = True
    histograms = False

    def __init__(self):
        self.calls = []

    def increment(self, name, count=1, tags=None):
        self.calls.append((name, count, tags))

    def timing(self, name, duration, tags=None):
        self.calls.append((name, duration, tags))

    def of(self, name):
        return [call[1:] for call in self.calls if call[0] == name]


class FakeNode:
    """A connection node whose answers a test sets."""

    def __init__(self, metrics=None):
        self.router_url = NODE_URL
        self.metrics = metrics
        self.delivery = Delivery.DELIVERED
        self.check_result = Delivery.NOT_CONNECTED
        self.delivered = []
        self.checked = []
        self.error = None

    async def deliver(self, uaid, notification):
        self.delivered.append((uaid, notification))
        if self.error is not None:
            raise self.error
        return self.delivery

    def check(self, uaid):
        self.checked.append(uaid)
        return self.check_result


class Endpoint:
    """An application and a client's connection to it."""

    def __init__(self, store=None, **conf):
        conf = {
            "hostname": "push.example",
            "endpoint_port": 8082,
            "router_hostname": "node.example",
            "router_port": 8081,
            "cors": True,
            **conf,
        }
        self.conf = AutopushConfig(**conf)
        self.store = store or MemoryStore()
        self.metrics: Any = Metrics()
        self.node = cast(Any, FakeNode(self.metrics))
        self.routers = routers_from_config(self.conf, self.store, None, self.node)
        self.app = EndpointHTTPFactory(
            self.conf, self.store, self.routers, metrics=self.metrics, clock=Clock()
        )
        self.wire: Any = Wire(self.app)

    @property
    def month(self):
        return self.store.months.current

    def request(self, method, path, body=b"", **headers):
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        return self.wire.request(method, path, body, **headers)

    def add_user(self, uaid=UAID, chid=CHID, connected=True, **record):
        """Store a browser's record, with one channel."""
        self.store.users[uaid] = {
            "router_type": "webpush",
            "current_month": self.month,
            "connected_at": 1_700_000_000_000,
            **({"node_id": NODE_URL} if connected else {}),
            **record,
        }
        self.store.add_channel(self.month, uaid, chid)

    def endpoint(self, key=None, uaid=UAID, chid=CHID):
        """Path of the push resource."""
        return self.conf.make_endpoint(uaid, chid, key)[len(self.conf.endpoint_url) :]

    def sealed(self, content):
        """A token of ours with any content, without padding."""
        return self.conf.fernet.encrypt(content).decode().rstrip("=")

    def push(self, body=b"", path=None, ttl="60", **headers):
        """POST a message."""
        headers = {name: value for name, value in headers.items() if value is not None}
        if ttl is not None:
            headers["ttl"] = ttl
        return self.request("POST", path or self.endpoint(), body, **headers)

    def messages(self, uaid=UAID, month=None):
        """What is stored for a user."""
        return list(self.store.messages.get((month or self.month, uaid), {}).values())


def token_for(sender: Sender, header=ES256, der=False, **changes):
    """A VAPID token that is valid now for this service, but for the changes."""
    content = claims(**{"aud": ORIGIN, "exp": int(time.time()) + 3600, **changes})
    return sender.token(content, header, der)


def vapid(sender=SENDER, key=None, **changes):
    """An ``Authorization`` header that is valid now, but for the changes."""
    return f"vapid t={token_for(sender, **changes)},k={key or sender.public_key}"


def error(answer):
    """The members of a standard error that differ, after checking those that don't."""
    body = json.loads(answer.body)
    assert answer.headers["content-type"] == "application/json"
    assert body["code"] == answer.status
    assert body["more_info"] == ERROR_URL
    return answer.status, body["errno"], body.get("message")


def refused(answer):
    """As :func:`error`, for errors of validation: without their prefix."""
    status, errno, message = error(answer)
    prefix = "Request did not validate "
    assert message.startswith(prefix)
    return status, errno, message[len(prefix) :]


def field_errors(answer):
    """The field errors of a refused request, which is a standard error as well.

    Source: spec/http-endpoint 3.2.
    """
    status, errno, message = refused(answer)
    body = json.loads(answer.body)
    assert (status, body["error"]) == (400, "Bad Request")
    assert errno in (101, 108, 111, 112, 116)
    assert all(field in message for place in body["errors"].values() for field in place)
    return body["errors"]


def bytes_of(uaid=UAID, chid=CHID):
    """The plain content of a version 1 token."""
    return UUID(uaid).bytes + UUID(chid).bytes
