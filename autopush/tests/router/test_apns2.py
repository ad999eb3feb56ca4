"""spec/bridges 7.3 to 7.5 over TLS, against the stand-in (and so over real sockets)."""

from __future__ import annotations

import time
import uuid
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs
from twisted.trial.unittest import TestCase

from automock.running import Background
from autopush.config import AutopushConfig
from autopush.exceptions import RouterException
from autopush.message.notification import WebPushNotification
from autopush.net import http2
from autopush.net.http2 import PING_TIMEOUT
from autopush.router.apnsrouter import DEFAULT_APS, APNSRouter
from autopush.router.apnstoken import KEEP_FOR
from autopush.tests.router.bridge_support import PATIENT
from autopush.tests.web.support import CHID, UAID, Metrics

reactor: Any = _reactor
TOKEN = "ab" * 32

FAILED = "APNS returned an error processing request"
GONE = "User is no longer registered"


class Wire(TestCase):
    """A router and the stand-in."""

    mock: Background

    @classmethod
    def setUpClass(cls):
        cls.mock = Background("apns").__enter__()
        cls.apns = cls.mock["apns"]

    @classmethod
    def tearDownClass(cls):
        cls.mock.__exit__()

    def setUp(self):
        # A stand-in that has much to do, or no CPU, isn't silent.
        self.patch(http2, "PING_TIMEOUT", PATIENT)
        self.conf = AutopushConfig(hostname="push.example", endpoint_port=8082)
        self.metrics: Any = Metrics()
        self.router = self.make_router()
        self.addCleanup(self.apns.reset)

    def make_router(self, channel="firefox", **settings):
        given = {
            **self.apns.options()["apns_creds"][channel],
            "timeout": PATIENT,
            **settings,
        }
        router = APNSRouter(self.conf, {"firefox": given}, self.metrics)
        self.addCleanup(router.close)
        return router

    def script(self, *answers, **answer):
        self.apns.script.add(list(answers) or answer)

    def notification(self, **kwargs):
        notification = WebPushNotification(
            uaid=uuid.UUID(UAID), channel_id=uuid.UUID(CHID), **{"ttl": 60, **kwargs}
        )
        notification.generate_message_id(self.conf.fernet)
        return notification

    def send(self, router=None, token=TOKEN, router_data=(), **kwargs):
        user = {
            "uaid": UAID,
            "router_data": {"token": token, "rel_channel": "firefox", **dict(router_data)},
        }
        router = router or self.router
        return router.route_notification(self.notification(**kwargs), user)

    async def outcome(self, **kwargs):
        """Status and body of the answer to the sender."""
        try:
            response = await self.send(**kwargs)
        except RouterException as exc:
            return exc.status_code, exc.errno, exc.response_body
        return response.status_code, response.errno, response.response_body

    async def until(self, check):
        """Wait for something that must happen (else trial ends the test)."""
        while not check():
            await deferLater(reactor, 0.01, lambda: None)

    @property
    def requests(self):
        return list(self.apns.script.requests)

    def reasons(self):
        tags = [tags for _, tags in self.metrics.of("notification.bridge.error")]
        return [tag[7:] for one in tags for tag in one if tag.startswith("reason:")]


class RequestTest(Wire):
    """What Apple sees (7.3)."""

    async def test_headers(self):
        before = int(time.time())
        await self.send(ttl=60, topic="news")
        (request,) = self.requests
        headers = request["headers"]
        assert request["path"] == f"/3/device/{TOKEN}"
        assert request["reason"] is None
        assert request["certificate"] is True
        assert str(uuid.UUID(headers.pop("apns-id"))).islower
        assert before + 60 <= int(headers.pop("apns-expiration")) <= time.time() + 60
        assert headers == {
            "apns-priority": "10",
            "apns-topic": "com.mozilla.org.firefox",
            "apns-push-type": "alert",
        }

    async def test_payload(self):
        await self.send(data="AAAA", headers={"encoding": "aes128gcm"})
        (request,) = self.requests
        assert request["payload"] == {
            "chid": CHID.replace("-", ""),
            "ver": request["payload"]["ver"],
            "con": "aes128gcm",
            "body": "AAAA",
            "aps": DEFAULT_APS,
        }

    async def test_payload_is_compact_utf8(self):
        await self.send(router_data={"aps": {"alert": "日本語"}})
        (request,) = self.requests
        assert request["payload"]["aps"] == {"alert": "日本語"}
        assert request["size"] < 300

    async def test_background_push_is_accepted(self):
        await self.send(router_data={"aps": {"content-available": 1}})
        (request,) = self.requests
        assert request["headers"]["apns-push-type"] == "background"
        assert request["headers"]["apns-priority"] == "5"
        assert request["reason"] is None

    async def test_collapse_id(self):
        router = self.make_router(collapse_id=True)
        await self.send(router, topic="news")
        (request,) = self.requests
        assert len(request["headers"]["apns-collapse-id"]) == 64

    async def test_device_token_is_percent_encoded(self):
        assert await self.outcome(token="../x?y=%41&é/" * 3) == (410, 106, GONE)
        (request,) = self.requests
        assert request["path"] == "/3/device/" + "..%2Fx%3Fy%3D%2541%26%C3%A9%2F" * 3

    async def test_device_token_of_absurd_length_is_not_sent(self):
        assert await self.outcome(token="a" * 5000) == (410, 106, GONE)
        assert self.requests == []

    async def test_biggest_message_that_fits(self):
        router_data = {"aps": {}}
        await self.send(data="A" * 3500, headers={"encoding": "aes128gcm"}, router_data=router_data)
        assert self.requests[0]["size"] <= 4096

    async def test_message_that_does_not_fit_is_apples_to_refuse(self):
        outcome = await self.outcome(data="A" * 5461, headers={"encoding": "aes128gcm"})
        assert outcome == (502, None, FAILED)
        assert self.reasons() == ["PayloadTooLarge"]


class OutcomeTest(Wire):
    """The mapping table (7.5) and the fixes to it."""

    async def test_200(self):
        assert await self.outcome() == (201, None, "")

    async def test_404_and_410_with_reason(self):
        for status in (404, 410):
            self.script(status=status, reason="Unregistered")
            assert await self.outcome() == (status, 106, GONE)
        assert self.reasons() == []

    async def test_device_the_vendor_forgot(self):
        self.apns.configure({"unregistered": [TOKEN]})
        assert await self.outcome() == (410, 106, GONE)

    async def test_bad_device_token_drops(self):
        assert await self.outcome(token="nonsense") == (410, 106, GONE)
        assert self.requests[0]["reason"] == "BadDeviceToken"

    async def test_device_token_not_for_topic_drops(self):
        self.script(status=400, reason="DeviceTokenNotForTopic")
        assert await self.outcome() == (410, 106, GONE)

    async def test_bad_path_keeps_the_user(self):
        self.script(status=404, reason="BadPath")
        assert await self.outcome() == (502, None, FAILED)

    async def test_other_statuses_with_reason(self):
        rows = [
            (400, "BadTopic"),
            (403, "InvalidProviderToken"),
            (405, "MethodNotAllowed"),
            (413, "PayloadTooLarge"),
            (429, "TooManyRequests"),
            (500, "InternalServerError"),
            (503, "ServiceUnavailable"),
            (503, "Shutdown"),
        ]
        for status, reason in rows:
            self.script(status=status, reason=reason)
            assert await self.outcome() == (502, None, FAILED)
        assert self.reasons() == [reason for _, reason in rows]
        assert len(self.requests) == len(rows)  # nothing is sent again

    async def test_bodies_without_reason(self):
        bodies: list[dict[str, Any]] = [
            {"status": 400, "body": "<html>Bad gateway</html>"},
            {"status": 500, "body": ""},
            {"status": 410, "json": {"error": "gone"}},
            {"status": 404, "json": ["reason"]},
            {"status": 400, "json": {"reason": 5}},
            {"status": 400, "json": {"reason": "x" * 65}},
            {"status": 400, "json": {"reason": "two words"}},
            {"status": 302, "headers": {"location": "https://elsewhere.example/"}},
            {"status": 204},
        ]
        self.script(*bodies)
        for _ in bodies:
            assert await self.outcome() == (502, None, FAILED)
        assert self.reasons() == ["unknown"] * len(bodies)

    async def test_retry_after_is_passed_on(self):
        self.script(status=503, reason="ServiceUnavailable", headers={"retry-after": "9"})
        with self.assertRaises(RouterException) as caught:
            await self.send()
        assert caught.exception.headers == {"Retry-After": "9"}

    async def test_reason_is_the_log_text_and_nothing_of_the_token_is(self):
        self.script(status=400, reason="BadTopic")
        with capturedLogs() as events, self.assertRaises(RouterException) as caught:
            await self.send()
        assert str(caught.exception) == "APNS Transmit Error 400:BadTopic"
        assert TOKEN not in f"{events} {caught.exception.extra}"

    async def test_one_that_is_reset_is_sent_again(self):
        self.script(action="rst_stream", code="REFUSED_STREAM")
        assert await self.outcome() == (201, None, "")
        assert len({request["headers"]["apns-id"] for request in self.requests}) == 1
        self.script(action="rst_stream", code="INTERNAL_ERROR")
        assert await self.outcome() == (201, None, "")

    async def test_resets_after_max_retry(self):
        self.script(action="rst_stream", code="INTERNAL_ERROR", times=2)
        assert await self.outcome() == (502, None, FAILED)
        assert self.reasons() == ["http2_error"]

    async def test_max_retry_is_an_option(self):
        self.script(action="rst_stream", code="INTERNAL_ERROR", times=4)
        assert await self.outcome(router=self.make_router(max_retry=5)) == (201, None, "")
        assert len(self.requests) == 5

    async def test_connection_reset_closed_or_garbage(self):
        for action in ("reset", "close", "close_mid_body", "garbage"):
            self.script(action=action)
            assert await self.outcome() == (201, None, ""), action
            self.script(action=action, times=2)
            assert await self.outcome() == (502, None, FAILED), action
        assert self.reasons() == ["http2_error"] * 3 + ["connection_error"]
        assert self.apns.accepted > 8  # a new connection each time

    async def test_goaway(self):
        self.script(action="goaway")
        assert await self.outcome() == (201, None, "")
        self.script(action="goaway_after")
        assert await self.outcome() == (201, None, "")
        assert await self.outcome() == (201, None, "")
        assert self.apns.protocol_errors == []

    async def test_goaway_with_an_error_after_retries(self):
        self.script(action="goaway", code="ENHANCE_YOUR_CALM", times=20)
        status, _, body = await self.outcome()
        assert (status, body) == (502, FAILED)

    async def test_goaway_under_load_loses_nothing(self):
        self.script({"delay": 0.05, "times": 20}, {"action": "goaway"})
        outcomes = await gatherResults([Deferred.fromCoroutine(self.outcome()) for _ in range(60)])
        assert outcomes == [(201, None, "")] * 60
        assert self.apns.protocol_errors == []

    async def test_one_that_hangs(self):
        router = self.make_router()
        pool = router.apns["firefox"]._pool
        assert await self.outcome(router=router) == (201, None, "")
        self.script(action="hang")
        pool._timeout = 1
        slow = Deferred.fromCoroutine(self.outcome(router=router))
        pool._timeout = PATIENT
        assert await self.outcome(router=router) == (201, None, "")  # the others do not wait
        assert await slow == (502, None, FAILED)
        assert self.reasons() == ["timeout"]
        assert await self.outcome(router=router) == (201, None, "")
        assert self.apns.accepted == 1

    async def test_a_connection_that_goes_silent(self):
        self.script(action="freeze")
        outcome = Deferred.fromCoroutine(self.outcome())
        await self.until(lambda: self.requests)
        self.patch(http2, "PING_TIMEOUT", PING_TIMEOUT)
        await self.until(lambda: self.apns.accepted > 1)  # found out by PING, sent elsewhere
        self.patch(http2, "PING_TIMEOUT", PATIENT)
        assert await outcome == (201, None, "")
        assert self.apns.accepted == 2

    async def test_nobody_listens(self):
        router = self.make_router(port=1)
        for _ in range(3):
            assert await self.outcome(router=router) == (502, None, FAILED)
        assert self.reasons() == ["http2_error"] * 3

    async def test_a_certificate_nobody_vouches_for(self):
        router = self.make_router(ca_file=None)
        assert await self.outcome(router=router) == (502, None, FAILED)
        assert self.requests == []

    async def test_a_certificate_of_another_name(self):
        router = self.make_router(host="127.0.0.2", port=self.apns.port)
        assert await self.outcome(router=router) == (502, None, FAILED)
        assert self.requests == []


class ConcurrencyTest(Wire):
    """Many messages at a time."""

    async def test_slow_under_500_concurrent_sends(self):
        """A slow vendor holds up nobody but those who wait for it: the loop stays free."""
        self.script(held=True, times=500)
        sends = [Deferred.fromCoroutine(self.outcome()) for _ in range(500)]
        # Other work has its turn, although nobody is answered.
        await self.until(lambda: len(self.requests) >= 500)
        assert not any(send.called for send in sends)
        self.apns.script.release()
        assert await gatherResults(sends) == [(201, None, "")] * 500
        assert max(request["open_streams"] for request in self.requests) > 100
        assert self.apns.accepted <= 5

    async def test_streams_above_the_limit_wait(self):
        self.apns.configure({"max_concurrent_streams": 3})
        router = self.make_router(max_connections=2)
        sends = [Deferred.fromCoroutine(self.outcome(router=router)) for _ in range(40)]
        assert await gatherResults(sends) == [(201, None, "")] * 40
        assert self.apns.accepted == 2
        assert max(request["open_streams"] for request in self.requests) <= 3
        assert self.apns.protocol_errors == []

    async def test_small_windows(self):
        self.apns.configure({"initial_window_size": 100})
        data = {"data": "A" * 3000, "headers": {"encoding": "aes128gcm"}}
        sends = [Deferred.fromCoroutine(self.outcome(**data)) for _ in range(40)]
        assert await gatherResults(sends) == [(201, None, "")] * 40
        assert {len(request["payload"]["body"]) for request in self.requests} == {3000}

    async def test_more_than_the_connection_window(self):
        data = {"data": "A" * 3000, "headers": {"encoding": "aes128gcm"}}
        sends = [Deferred.fromCoroutine(self.outcome(**data)) for _ in range(100)]
        assert await gatherResults(sends) == [(201, None, "")] * 100


class TokenTest(Wire):
    """Token authentication."""

    def setUp(self):
        super().setUp()
        self.router = self.make_router("token", topic="com.mozilla.org.token")

    async def test_token_is_accepted(self):
        assert await self.outcome() == (201, None, "")
        (request,) = self.requests
        assert request["certificate"] is False
        assert request["headers"]["authorization"].startswith("bearer eyJ")

    async def test_one_stream_until_the_token_is_known(self):
        sends = [Deferred.fromCoroutine(self.outcome()) for _ in range(50)]
        assert await gatherResults(sends) == [(201, None, "")] * 50
        assert self.apns.protocol_errors == []
        assert {request["headers"]["authorization"] for request in self.requests} == {
            self.requests[0]["headers"]["authorization"]
        }

    async def test_expired_token_is_renewed_once(self):
        provider = self.router.apns["firefox"]._token
        assert provider is not None
        now = time.time()
        provider._now = lambda: now - KEEP_FOR - 300
        provider.get()
        provider._now = lambda: now
        self.apns.configure({"tokens_expire_after": KEEP_FOR})
        sends = [Deferred.fromCoroutine(self.outcome()) for _ in range(5)]
        assert await gatherResults(sends) == [(201, None, "")] * 5
        used = {request["headers"]["authorization"] for request in self.requests}
        assert len(used) == 2

    async def test_expired_token_that_is_new_is_not_renewed(self):
        self.script(status=403, reason="ExpiredProviderToken", times=5)
        assert await self.outcome() == (502, None, FAILED)
        assert len(self.requests) == 1
        assert self.reasons() == ["ExpiredProviderToken"]

    async def test_wrong_team(self):
        router = self.make_router("token", team_id="SOMEBODY")
        assert await self.outcome(router=router) == (502, None, FAILED)
        assert self.reasons() == ["InvalidProviderToken"]

    async def test_without_credentials_apple_refuses(self):
        client = self.router.apns["firefox"]
        client._token = None
        assert await self.outcome() == (502, None, FAILED)
        assert self.reasons() == ["MissingProviderToken"]
