"""The client and the token cache which bridges over HTTP/1.1 share."""

import subprocess
import sys

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseFailed
from twisted.web.http_headers import Headers

from autopush import router
from autopush.exceptions import InvalidConfig
from autopush.router.bridge import BridgeMetrics
from autopush.router.bridgehttp import (
    BODY_LIMIT,
    MAX_WAIT,
    BodyReader,
    BridgeBusy,
    BridgeClient,
    BridgeTimeout,
    BridgeUnavailable,
    Reply,
    Token,
    TokenCache,
    base_url,
    describe,
    no_answer,
    tls_policy,
)
from autopush.tests.web.support import Metrics


class TestTokenCache(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        self.fetches = []
        self.cache = TokenCache(self.fetch, self.clock.seconds, 100)

    def fetch(self):
        self.fetches.append(Deferred())
        return self.fetches[-1]

    def fetched(self, value="t", lifetime=1000.0):
        self.fetches[-1].callback(Token(value, lifetime))

    def has(self, value):
        self.assertEqual(self.successResultOf(self.cache.get()), value)

    def test_all_wait_for_one_fetch(self):
        waiting = [self.cache.get() for _ in range(3)]
        self.fetched()
        self.assertEqual([self.successResultOf(one) for one in waiting], ["t"] * 3)
        self.has("t")
        self.assertEqual(len(self.fetches), 1)

    def test_renewed_early_and_used_until_the_end(self):
        self.cache.get()
        self.fetched()
        self.clock.advance(899)
        self.has("t")
        self.assertEqual(len(self.fetches), 1)
        self.clock.advance(1)
        self.has("t")
        self.has("t")
        self.assertEqual(len(self.fetches), 2)
        self.clock.advance(99)
        self.has("t")
        self.clock.advance(1)
        waiting = self.cache.get()
        self.assertNoResult(waiting)
        self.fetched("new")
        self.assertEqual(self.successResultOf(waiting), "new")
        self.has("new")
        self.assertEqual(len(self.fetches), 2)

    def test_early_is_at_most_half_of_a_short_life(self):
        self.cache.get()
        self.fetched(lifetime=10)
        self.clock.advance(4.9)
        self.has("t")
        self.assertEqual(len(self.fetches), 1)
        self.clock.advance(0.2)
        self.has("t")
        self.assertEqual(len(self.fetches), 2)

    def test_no_lifetime(self):
        for number in range(2):
            waiting = self.cache.get()
            self.fetched(f"t{number}", 0)
            self.assertEqual(self.successResultOf(waiting), f"t{number}")

    def test_failure_reaches_all_and_holds_off(self):
        waiting = [self.cache.get() for _ in range(2)]
        self.fetches[-1].errback(ValueError("no"))
        for one in waiting:
            self.failureResultOf(one, ValueError)
        self.failureResultOf(self.cache.get(), ValueError)
        self.assertEqual(len(self.fetches), 1)
        self.clock.advance(TokenCache.HOLD_OFF)
        waiting = self.cache.get()
        self.fetched()
        self.assertEqual(self.successResultOf(waiting), "t")

    def test_failed_renewal_leaves_the_old_one_in_use(self):
        self.cache.get()
        self.fetched()
        self.clock.advance(950)
        self.has("t")
        self.fetches[-1].errback(ValueError("no"))
        self.has("t")
        self.assertEqual(len(self.fetches), 2)
        self.clock.advance(1)
        self.has("t")
        self.assertEqual(len(self.fetches), 3)

    def test_who_gives_up_disturbs_nobody(self):
        first, second = self.cache.get(), self.cache.get()
        first.addErrback(lambda _: None)
        first.cancel()
        self.fetched()
        self.assertEqual(self.successResultOf(second), "t")

    def test_invalidate(self):
        self.cache.get()
        self.fetched()
        self.cache.invalidate("other")
        self.has("t")
        self.cache.invalidate("t", younger_than=10)
        self.has("t")
        self.clock.advance(10)
        self.cache.invalidate("t", younger_than=10)
        self.assertNoResult(self.cache.get())
        self.assertEqual(len(self.fetches), 2)


class TestQueue(SynchronousTestCase):
    """Connections and those that wait for one are bounded"""

    def setUp(self):
        self.clock = Clock()
        self.client = BridgeClient(timeout=3, max_connections=2, max_waiting=2, reactor=self.clock)
        self.exchanges = []
        self.client._exchange = self.exchange

    async def exchange(self, *_args):
        self.exchanges.append(Deferred())
        return await self.exchanges[-1]

    def post(self):
        return self.client.post("https://x", {}, b"")

    def test_bounds(self):
        sends = [self.post() for _ in range(5)]
        self.assertEqual(len(self.exchanges), 2)
        self.failureResultOf(sends[4], BridgeBusy)
        reply = Reply(200, Headers(), b"")
        self.exchanges[0].callback(reply)
        self.assertEqual(self.successResultOf(sends[0]), reply)
        self.assertEqual(len(self.exchanges), 3)
        for exchange in self.exchanges[1:3]:
            exchange.callback(reply)
        self.exchanges[3].callback(reply)
        self.assertEqual([self.successResultOf(one) for one in sends[1:4]], [reply] * 3)
        self.assertEqual(self.client._active, 0)

    def test_time_limits(self):
        sends = [self.post() for _ in range(3)]
        self.clock.advance(3)
        for send in sends[:2]:
            self.failureResultOf(send, BridgeTimeout)
        self.assertEqual(len(self.exchanges), 3)
        self.clock.advance(3)
        self.failureResultOf(sends[2], BridgeTimeout)
        self.assertEqual(self.client._active, 0)

    def test_waiting_is_limited(self):
        self.client.timeout = MAX_WAIT * 2
        sends = [self.post() for _ in range(3)]
        self.clock.advance(MAX_WAIT)
        self.failureResultOf(sends[2], BridgeBusy)
        for exchange in self.exchanges:
            exchange.callback(None)
        self.assertEqual((self.client._active, len(self.exchanges)), (0, 2))

    def test_failures(self):
        sends = [self.post() for _ in range(3)]
        self.exchanges[0].errback(ConnectionLost())
        self.failureResultOf(sends[0], BridgeUnavailable)
        self.assertEqual(len(self.exchanges), 3)
        for exchange in self.exchanges[1:]:
            exchange.errback(BridgeUnavailable("x"))
        for send in sends[1:]:
            self.failureResultOf(send, BridgeUnavailable)


class TestBody(SynchronousTestCase):
    def test_limit(self):
        reader = BodyReader()
        reader.dataReceived(b"x" * BODY_LIMIT)
        self.assertNoResult(reader.finished)
        reader.dataReceived(b"x")
        self.failureResultOf(reader.finished, BridgeUnavailable)
        reader.dataReceived(b"x")
        reader.connectionLost(Failure(ConnectionLost()))


@pytest.mark.parametrize(
    ("value", "url"),
    [
        (None, "https://default"),
        ("", "https://default"),
        ("a.example", "https://a.example"),
        ("a.example:99/x/", "https://a.example:99/x"),
        ("http://[::1]:5", "http://[::1]:5"),
    ],
)
def test_base_url(value, url):
    assert base_url(value, "https://default", "thing") == url


@pytest.mark.parametrize(
    "value", ["ftp://a", "https://", "a:port", "a:0", "a?x", "a#x", "u@a", 5, "\xe9.example", "/x"]
)
def test_bad_base_url(value):
    with pytest.raises(InvalidConfig, match=r"^Invalid thing: "):
        base_url(value, "https://default", "thing")


def test_ca_file_without_certificates(tmp_path):
    path = tmp_path / "ca.pem"
    path.write_text("nothing")
    with pytest.raises(InvalidConfig, match="it holds no certificate"):
        tls_policy(str(path))


def test_describe_tells_the_innermost_reason():
    exc = ResponseFailed([Failure(ConnectionLost("gone"))])
    assert describe(exc).startswith("ResponseFailed: ConnectionLost: Connection to the other side")


def test_busy_is_answered_503():
    metrics = Metrics()
    answer = no_answer(BridgeBusy("full"), BridgeMetrics(metrics, "x"))
    assert (answer.status_code, answer.headers) == (503, {"Retry-After": "60"})
    assert metrics.calls[0][2][:2] == ["platform:x", "reason:retry"]


@pytest.mark.parametrize(
    "name", ["ADMRouter", "APNSRouter", "FCMRouter", "FCMv1Router", "GCMRouter", "WebPushRouter"]
)
def test_package_has_the_routers(name):
    """spec/python-api 7"""
    assert getattr(router, name).__name__ == name
    assert name in router.__all__
    with pytest.raises(AttributeError):
        router.Nope  # noqa: B018


def test_a_service_without_bridges_does_without_their_libraries():
    script = (
        "import sys, autopush.main\n"
        "assert not {'treq', 'google.auth', 'h2'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
