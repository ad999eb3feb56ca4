"""Routers of the bridges that speak HTTP/1.1, against their stand-ins over the wire."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, ClassVar, cast
from uuid import UUID

from cryptography.fernet import Fernet, MultiFernet
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock, deferLater
from twisted.internet.tcp import Client
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from automock.running import Background
from autopush.config import AutopushConfig
from autopush.exceptions import RouterException
from autopush.message.notification import WebPushNotification
from autopush.message.urgency import NORMAL

UAID = "a0" * 16
CHID = "76dfb18c-1eb1-4f92-80a5-7fdf8d462b5c"
FERNET = MultiFernet([Fernet(Fernet.generate_key())])

HEADERS = {
    "aes128gcm": {"content-encoding": "aes128gcm"},
    "aesgcm": {
        "content-encoding": "aesgcm",
        "encryption": "keyid=p256dh;salt=S3Y5cEV0Y0pWcGZFRFFrSA",
        "crypto-key": "keyid=p256dh;dh=BDHk5ldLLsdHqTlkZbbQCSLRW0dBTBBbyM6z8Jk9e5Q",
    },
    "aesgcm128": {
        "content-encoding": "aesgcm128",
        "encryption": "keyid=p256dh;salt=S3Y5cEV0Y0pWcGZFRFFrSA",
        "encryption-key": "keyid=p256dh;dh=BDHk5ldLLsdHqTlkZbbQCSLRW0dBTBBbyM6z8Jk9e5Q",
    },
}
"""What a sender gives along with a message, by encoding."""

SENT_KEYS = {
    "aes128gcm": {},
    "aesgcm": {
        "enc": HEADERS["aesgcm"]["encryption"],
        "cryptokey": HEADERS["aesgcm"]["crypto-key"],
    },
    "aesgcm128": {
        "enc": HEADERS["aesgcm128"]["encryption"],
        "enckey": HEADERS["aesgcm128"]["encryption-key"],
    },
}
"""What of it a device gets."""


PATIENT = 600
"""Seconds a router waits for a bridge, so that none gives up because the machine is busy."""


def notification(
    body: bytes = b"",
    encoding: str = "aes128gcm",
    ttl: int | None = 60,
    topic: str | None = None,
    urgency: int = NORMAL,
) -> WebPushNotification:
    """A message as the endpoint makes it."""
    return WebPushNotification.from_webpush_request_schema(
        {
            "subscription": {"uaid": UAID, "chid": UUID(CHID)},
            "headers": {**HEADERS[encoding], "ttl": ttl, "topic": topic, "urgency": urgency},
            "body": body,
        },
        FERNET,
    )


class Metrics:
    """Remembers what is counted."""

    active = True

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, Any]] = []

    def increment(self, name: str, count: int = 1, tags: Any = None) -> None:
        self.calls.append((name, count, tags))

    def errors(self) -> list[list[str]]:
        return [tags for name, _, tags in self.calls if name == "notification.bridge.error"]


class Refused(Exception):
    """What a router raised or returned instead of a 201."""


def _is_outgoing(reader: object) -> bool:
    return isinstance(reader, Client)


class BridgeTestCase(TestCase):
    """One stand-in for all tests of a class; a new router for each.

    ``SECRETS`` are texts which no event may contain; all tests look for them.
    """

    STAND_IN: ClassVar[str]
    APP: ClassVar[str]
    """What the stand-in's credentials are for."""
    SECRETS: ClassVar[tuple[str, ...]] = ()
    mock: ClassVar[Background]

    @classmethod
    def setUpClass(cls) -> None:
        cls.mock = Background(cls.STAND_IN).__enter__()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.mock.__exit__(None, None, None)

    def setUp(self) -> None:
        self.bridge = self.mock[self.STAND_IN]
        self.bridge.reset()
        self.metrics: Any = Metrics()
        self.conf = AutopushConfig(hostname="push.example", endpoint_port=8082)
        self.events: list[Any] = []
        observer: Any = self.events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.addCleanup(self._check_events)
        self.router = self.make_router()
        self.addCleanup(self._close)

    def make_router(self, **changes: Any) -> Any:
        raise NotImplementedError

    @property
    def http(self) -> Any:
        """The router's :class:`~autopush.router.bridgehttp.BridgeClient`."""
        raise NotImplementedError

    def replace_router(self, **changes: Any) -> Any:
        old, self.router = self.router, self.make_router(**changes)
        return old.close()

    def refused(self, router_data: Any, app_id: str | None = None) -> tuple[Any, ...]:
        """Text, status and errno of a registration that is refused."""
        with self.assertRaises(RouterException) as caught:
            self.router.register("", router_data, app_id or self.APP)
        return str(caught.exception), caught.exception.status_code, caught.exception.errno

    def assert_registers(self, added: Any, response: Any) -> None:
        """Check what a registration adds to the record and to the answer."""
        data = {"token": "any"}
        self.router.register("", router_data=data, app_id=self.APP)
        self.assertEqual(data, {"token": "any", **added})
        answer: dict[str, Any] = {}
        self.router.amend_endpoint_response(answer, data)
        self.assertEqual(answer, response)

    def user(self, **router_data: Any) -> dict[str, Any]:
        """A device's record."""
        raise NotImplementedError

    async def _close(self) -> None:
        await self.router.close()
        # TLS connections end with an exchange.
        await self.until(lambda: not any(map(_is_outgoing, cast(Any, reactor).getReaders())))

    def _check_events(self) -> None:
        text = "\n".join(repr(event) for event in self.events)
        for secret in (*self.SECRETS, *getattr(self.bridge, "access_tokens", {})):
            self.assertNotIn(secret, text)

    # ---- sending

    async def send(self, *args: Any, user: Any = None, **kwargs: Any) -> Any:
        """Route a message; returns what the sender gets."""
        message = notification(*args, **kwargs)
        try:
            answer = await self.router.route_notification(message, user or self.user())
        except RouterException as exc:
            return exc
        if answer.status_code == 201:
            self.assertEqual(
                answer.headers["Location"], f"{self.conf.endpoint_url}/m/{message.location}"
            )
            self.assertEqual((answer.response_body, answer.logged_status), ("", 200))
        return answer

    async def answered(self, script: Any, *args: Any, **kwargs: Any) -> Any:
        """As :meth:`send`, after scripting the service."""
        self.bridge.script.add(script)
        return await self.send(*args, **kwargs)

    async def given_up(self, script: Any, seen: Callable[[], Any] | None = None) -> Any:
        """As :meth:`answered`, by a router that has waited long enough.

        :param seen: whether it has waited for what it should; default: the service has got the
            message that it won't answer, which takes as long as it takes
        """
        clock = self.http.reactor = Clock()
        answer = Deferred.fromCoroutine(self.answered(script))
        await self.until(lambda: answer.called or (seen or self._script_is_over)())
        clock.advance(PATIENT)
        self.http.reactor = reactor
        return await answer

    def _script_is_over(self) -> bool:
        return not self.bridge.script.waiting

    async def until(self, check: Callable[[], Any]) -> None:
        """Wait for something that must happen (else trial ends the test)."""
        while not check():
            await deferLater(reactor, 0.01)

    def assert_answer(self, answer: Any, status: int, errno: int | None, body: str) -> None:
        """Check what the sender gets when the message wasn't taken."""
        self.assertEqual(
            (answer.status_code, answer.errno, answer.response_body), (status, errno, body)
        )

    def assert_kept(self, answer: Any, router_type: str) -> None:
        """Check that the device's record stays as it is (spec/http-endpoint 5.8)."""
        if isinstance(answer, RouterException):
            if router_type != "gcm":
                self.assertNotIn(answer.status_code, (404, 410))
        else:
            self.assertIsNone(answer.router_data)

    def assert_retry(self, answer: Any, seconds: int) -> None:
        """Check the 503 for a message that may be sent again."""
        self.assert_answer(answer, 503, None, f"Please try request in {seconds} seconds.")
        self.assertEqual(answer.headers["Retry-After"], str(seconds))

    async def assert_encodings(self) -> None:
        """Check that keys and data of every encoding reach the device (spec/bridges 9.1)."""
        for encoding in HEADERS:
            self.assertEqual((await self.send(b"\x00secret\xff", encoding)).status_code, 201)
            self.assertEqual(
                self.last["payload"]["data"],
                {
                    "chid": CHID.replace("-", ""),
                    "con": encoding,
                    "body": "AHNlY3JldP8",
                    **SENT_KEYS[encoding],
                },
            )

    async def assert_clamped(self, member: str) -> None:
        """Check the bounds of the TTL (spec/bridges 9.2), in the payload and in the answer."""
        for ttl, sent in ((None, 60), (0, 60), (59, 60), (61, 61), (5184000, 2419200)):
            answer = await self.send(ttl=ttl)
            self.assertEqual(answer.headers["TTL"], str(sent))
            self.assertEqual(self.last["payload"][member], sent)

    async def assert_counted(self, platform: str) -> None:
        """Check what is counted for a message that was taken."""
        await self.send(b"12345")
        self.assertEqual(
            self.metrics.calls,
            [
                ("notification.bridge.sent", 1, [f"platform:{platform}"]),
                (
                    "notification.message_data",
                    7,
                    [f"platform:{platform}", "destination:Direct"],
                ),
            ],
        )

    def tags(self) -> list[str]:
        """The tags of the only error that was counted."""
        (tags,) = self.metrics.errors()
        return tags

    @property
    def last(self) -> dict[str, Any]:
        """The last message the service saw."""
        message: dict[str, Any] = self.bridge.messages[-1]
        return message

    def logged(self, start: str) -> list[str]:
        """Levels of the events whose text starts like this."""
        return [
            event["log_level"].name
            for event in self.events
            if (formatEvent(event) or "").startswith(start)
        ]


def options_of(stand_in: Any, name: str) -> Any:
    """A copy of an option's value."""
    return json.loads(json.dumps(stand_in.options()[name]))


class NoAnswer:
    """Tests of a bridge that gives no answer; ``gone(script, errno, reason)`` is the class's.

    :cvar NAME: of the bridge in its log events
    :cvar EVENTS: how many there are of one failure
    """

    NAME: str
    EVENTS = 1
    gone: Any
    logged: Any
    assertEqual: Any

    async def test_hang(self):
        await self.gone({"action": "hang"}, 903, "timeout")
        self.assertEqual(self.logged(f"{self.NAME} Timeout: "), ["warn"] * self.EVENTS)

    async def test_reset(self):
        await self.gone({"action": "reset"}, 902, "connection_unavailable")
        self.assertEqual(self.logged(f"{self.NAME} Unavailable: "), ["warn"] * self.EVENTS)

    async def test_close(self):
        await self.gone({"action": "close"}, 902, "connection_unavailable")

    async def test_close_mid_body(self):
        await self.gone({"action": "close_mid_body"}, 902, "connection_unavailable")

    async def test_garbage(self):
        await self.gone({"action": "garbage"}, 902, "connection_unavailable")


class TokenFetches:
    """Tests of a bridge whose access tokens are fetched."""

    bridge: Any
    send: Any
    deferred_send: Any
    assertEqual: Any

    async def test_fetched_once(self):
        for _ in range(3):
            await self.send()
        self.assertEqual(len(self.bridge.token_requests), 1)

    async def test_one_fetch_at_a_time(self):
        self.bridge.script.add({"on": "token", "delay": 0.2})
        answers = await gatherResults([self.deferred_send() for _ in range(50)])
        self.assertEqual({answer.status_code for answer in answers}, {201})
        self.assertEqual(len(self.bridge.token_requests), 1)
