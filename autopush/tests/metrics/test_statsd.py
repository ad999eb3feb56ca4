"""Metrics as statsd datagrams (spec/observability 7.1)."""

from __future__ import annotations

import os
import socket
from typing import Any
from unittest import mock

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from automock.statsd import parse
from autopush.metrics import statsd as module
from autopush.metrics.statsd import MAX_WAITING, TwistedMetrics, first_address


class Receiver:
    """A UDP socket that is read when asked to."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(60)
        self.port = self.socket.getsockname()[1]

    def line(self):
        return self.socket.recv(65536).decode()

    def lines(self, count):
        return [self.line() for _ in range(count)]

    def nothing(self):
        self.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            self.socket.recv(1)
        self.socket.settimeout(60)
        return True


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.socket.close()


@pytest.fixture
def metrics(receiver):
    metrics = TwistedMetrics("127.0.0.1", receiver.port)
    metrics.start()
    yield metrics
    metrics.stop()


@pytest.fixture
def events():
    found: list[dict] = []
    with mock.patch.object(module.log, "observer", found.append):
        yield found


class TestLines:
    def test_counter(self, metrics, receiver):
        metrics.increment("ua.command.hello")
        assert receiver.line() == "autopush.ua.command.hello:1|c"

    def test_count_is_the_value_and_0_is_sent(self, metrics, receiver):
        metrics.increment("ua.message_data", 4096)
        metrics.increment("ua.message_data", 0)
        assert receiver.lines(2) == [
            "autopush.ua.message_data:4096|c",
            "autopush.ua.message_data:0|c",
        ]

    def test_gauge(self, metrics, receiver):
        metrics.gauge("twisted.threadpool.idleWorkerCount", 7)
        assert receiver.line() == "autopush.twisted.threadpool.idleWorkerCount:7|g"

    def test_timing_is_in_milliseconds_with_12_digits(self, metrics, receiver):
        metrics.timing("notification.request_time", 0.0581469535828123)
        metrics.timing("notification.request_time", duration=2)
        assert receiver.lines(2) == [
            "autopush.notification.request_time:58.1469535828|ms",
            "autopush.notification.request_time:2000|ms",
        ]

    def test_tags_in_the_order_given(self, metrics, receiver):
        metrics.increment("x", tags=["b:1", "a:2"])
        metrics.increment("x", tags=("a:2", "b:1"))
        metrics.increment("x", tags=[])
        metrics.increment("x", tags=None)
        assert receiver.lines(4) == [
            "autopush.x:1|c|#b:1,a:2",
            "autopush.x:1|c|#a:2,b:1",
            "autopush.x:1|c",
            "autopush.x:1|c",
        ]

    def test_blanks_of_documented_values_are_kept(self, metrics, receiver):
        tags = ["ua_os_family:Mac OS X", "host:push.example.com:8082"]
        metrics.timing("ua.connection.lifespan", 0.5, tags=tags)
        line = receiver.line()
        assert line == (
            "autopush.ua.connection.lifespan:500|ms"
            "|#ua_os_family:Mac OS X,host:push.example.com:8082"
        )

    def test_o13_what_would_break_the_line_is_replaced(self, metrics, receiver):
        metrics.increment("a|b:c\nd@e", tags=["user_agent:a,b|c\nd\u2028e"])
        assert receiver.line() == "autopush.a_b_c_d_e:1|c|#user_agent:a_b_c_d_e"

    def test_one_datagram_per_call(self, metrics, receiver):
        for _ in range(3):
            metrics.increment("x")
        assert receiver.lines(3) == ["autopush.x:1|c"] * 3
        assert receiver.nothing()

    def test_stand_in_understands_them(self, metrics, receiver):
        metrics.timing("a.b", 0.25, tags=["x:y z", "p:q"])
        seen = parse(receiver.line())
        assert (seen["name"], seen["value"], seen["type"]) == ("autopush.a.b", 250.0, "ms")
        assert seen["tags"] == ["x:y z", "p:q"]

    def test_package_adds_nothing_of_its_own(self, receiver):
        environment = {
            "DATADOG_TAGS": "a:b",
            "DD_ENV": "production",
            "DD_ENTITY_ID": "x",
            "DD_EXTERNAL_ENV": "y",
            "DD_AGENT_HOST": "192.0.2.1",
            "DD_DOGSTATSD_PORT": "9",
            "DD_DOGSTATSD_DISABLE": "true",
        }
        with mock.patch.dict(os.environ, environment):
            metrics = TwistedMetrics("127.0.0.1", receiver.port)
            metrics.start()
            metrics.increment("x")
        assert receiver.line() == "autopush.x:1|c"
        metrics.stop()


class TestNeverRaises:
    """Quirk O1."""

    def test_odd_keywords_and_tags(self, metrics, receiver, events):
        odd: list[dict[str, Any]] = [
            {"error": 404, "errno": 0},
            {"tags": {"platform": "apns"}},
            {"sample_rate": 0.1},
        ]
        for kwargs in odd:
            metrics.increment("x", **kwargs)
        assert receiver.lines(3) == [
            "autopush.x:1|c",
            "autopush.x:1|c|#platform",
            "autopush.x:1|c",
        ]
        assert events == []

    def test_what_can_not_be_sent_is_logged(self, metrics, receiver, events):
        for call in metrics.increment, metrics.gauge, metrics.timing:
            call("x", object())
            call("x", 1, tags=[1])
            call("x", 1, tags=[["list"]])
        assert receiver.nothing()
        assert {event["log_level"] for event in events} == {LogLevel.warn}
        assert len(events) == 9

    def test_nobody_listens(self, receiver, events):
        # The port stays ours, but what comes from others than this one is refused.
        receiver.socket.connect(("127.0.0.1", 9))
        metrics = TwistedMetrics("127.0.0.1", receiver.port)
        metrics.start()
        for _ in range(10):
            metrics.increment("x")
        metrics.stop()
        assert events == []

    def test_after_the_end(self, metrics, receiver, events):
        metrics.stop()
        metrics.increment("x")
        assert receiver.nothing()
        assert events == []


class TestHost:
    @pytest.fixture
    def unresolved(self, receiver, monkeypatch):
        """Metrics for a host whose address a test decides about."""
        self.answer: Deferred[str] = Deferred()
        self.asked: list[tuple] = []

        def ask(*args):
            self.asked.append(args)
            return self.answer

        monkeypatch.setattr(module, "deferToThread", ask)
        metrics = TwistedMetrics("statsd.example", receiver.port)
        yield metrics
        metrics.stop()

    def test_is_resolved_once_off_the_loop(self, unresolved, receiver):
        unresolved.start()
        assert self.asked == [(first_address, "statsd.example", receiver.port)]
        self.answer.callback("127.0.0.1")
        unresolved.increment("x")
        assert receiver.line() == "autopush.x:1|c"
        assert len(self.asked) == 1

    def test_1000_datagrams_wait_for_it(self, unresolved, receiver):
        unresolved.increment("early")
        unresolved.start()
        for number in range(MAX_WAITING + 10):
            unresolved.gauge("x", number)
        assert receiver.nothing()
        waiting = unresolved.client.waiting
        assert len(waiting) == MAX_WAITING == 1000
        del waiting[3:]
        self.answer.callback("127.0.0.1")
        assert receiver.lines(3) == ["autopush.early:1|c", "autopush.x:0|g", "autopush.x:1|g"]
        unresolved.increment("late")
        assert receiver.line() == "autopush.late:1|c"

    def test_unknown_one_is_logged_and_metrics_are_lost(self, unresolved, receiver, events):
        unresolved.start()
        unresolved.increment("x")
        self.answer.errback(Failure(OSError("Name or service not known")))
        (event,) = events
        assert event["log_level"] is LogLevel.error
        assert event["host"] == "statsd.example"
        unresolved.increment("x")
        assert unresolved.client.waiting is None
        assert receiver.nothing()

    def test_stop_while_it_is_looked_up(self, unresolved, receiver):
        unresolved.start()
        unresolved.stop()
        self.answer.callback("127.0.0.1")
        unresolved.increment("x")
        assert receiver.nothing()

    def test_address_needs_no_look_up(self, monkeypatch):
        monkeypatch.setattr(module, "deferToThread", lambda *args: fail(AssertionError()))
        metrics = TwistedMetrics("127.0.0.1", 9)
        metrics.start()
        assert metrics.client.socket is not None
        metrics.stop()

    def test_ipv4_is_preferred(self, monkeypatch):
        answer = [
            (socket.AF_INET6, socket.SOCK_DGRAM, 17, "", ("::1", 8125, 0, 0)),
            (socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("127.0.0.1", 8125)),
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: list(answer))
        assert first_address("localhost", 8125) == "127.0.0.1"
        del answer[1]
        assert first_address("localhost", 8125) == "::1"

    def test_no_way_to_the_address(self, events, monkeypatch):
        metrics = TwistedMetrics("127.0.0.1", 8125)
        monkeypatch.setattr(metrics.client, "open", mock.Mock(side_effect=OSError("unreachable")))
        metrics.start()
        assert "unreachable" in events[0]["error"]


def test_texts_remembered_are_bounded(metrics, receiver, monkeypatch):
    monkeypatch.setattr(module, "MAX_CACHED", 10)
    for number in range(100):
        metrics.increment("x", tags=[f"n:{number}"])
    assert len(metrics.client._texts) <= 10


def test_client_is_the_packages_own():
    from datadog.dogstatsd import DogStatsd

    metrics = TwistedMetrics()
    assert isinstance(metrics.client, DogStatsd)
    assert (metrics.host, metrics.port) == ("localhost", 8125)
    assert metrics._metric is metrics.client
