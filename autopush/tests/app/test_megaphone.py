"""Fetching broadcasts (spec/broadcasts 1.1)."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given, strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionRefusedError,
    DNSLookupError,
)
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed

from autopush.app.megaphone import (
    MAX_TIMEOUT,
    MAX_VERSION,
    Megaphone,
    NoAnswer,
    Source,
    broadcasts_in,
    reason_of,
    usable,
)
from autopush.exceptions import InvalidConfig
from autopush.net.tunnel import ProxyError
from autopush.router.bridgehttp import BridgeUnavailable
from autopush.session.broadcasts import MAX_NAME, Broadcasts
from autopush.tests.session.support import Events, Metrics

URL = "https://megaphone.example/v1/broadcasts"


class Answers:
    """A source that answers when it is told to."""

    def __init__(self, url, token, timeout, reactor):
        self.given = (url, token, timeout)
        self.asked = []
        self.closed = False
        self.cancelled_with = None

    def fetch(self):
        self.asked.append(Deferred(self._cancel))
        return self.asked[-1]

    def _cancel(self, asked):
        if self.cancelled_with is not None:
            asked.errback(self.cancelled_with)

    def close(self):
        self.closed = True
        return succeed(None)


class Rig:
    def __init__(self, interval=30):
        self.clock = Clock()
        self.metrics = Metrics()
        self.known = Broadcasts({}, self.clock, self.metrics)
        conf = SimpleNamespace(
            megaphone_api_url=URL, megaphone_api_token="t", megaphone_poll_interval=interval
        )
        self.megaphone = Megaphone(conf, self.known, self.metrics, self.clock, self.make)

    def make(self, *args):
        self.source = Answers(*args)
        return self.source

    def answer(self, **broadcasts):
        self.source.asked[-1].callback(broadcasts)

    def fail(self, error):
        self.source.asked[-1].errback(Failure(error))

    def next(self):
        self.clock.advance(30)

    @property
    def versions(self):
        return {name: version.text for name, version in self.known.known.items()}


@pytest.fixture
def rig():
    made = Rig()
    made.megaphone.startService()
    return made


def test_1_1_it_asks_at_the_start_and_then_each_interval(rig):
    assert len(rig.source.asked) == 1
    rig.answer(a="1")
    rig.clock.advance(29.9)
    assert len(rig.source.asked) == 1
    rig.clock.advance(0.1)
    assert len(rig.source.asked) == 2
    assert rig.versions == {"a": "1"}
    assert rig.metrics.of("megaphone.updater.ok") == [(1, None)]


def test_1_1_one_request_at_a_time(rig):
    rig.clock.pump([30] * 3)
    assert len(rig.source.asked) == 1
    rig.answer()
    rig.clock.advance(30)
    assert len(rig.source.asked) == 2


@pytest.mark.parametrize("interval", [1, 5, 30, 3600])
def test_1_1_the_time_out_is_below_the_interval(interval):
    url, token, timeout = Rig(interval).source.given
    assert (url, token) == (URL, "t")
    assert 0 < timeout < interval and timeout <= MAX_TIMEOUT


@pytest.mark.parametrize(
    "error, reason",
    [
        (TimeoutError("no answer within 10 s"), "timeout"),
        (ConnectionRefusedError(), "connect"),
        (ConnectError(), "connect"),
        (DNSLookupError(), "connect"),
        (ProxyError("no way"), "connect"),
        (ResponseFailed([Failure(OSError())]), "io"),
        (BridgeUnavailable("the answer is too long"), "io"),
        (NoAnswer("status 500"), "io"),
        (ZeroDivisionError(), "unknown"),
    ],
)
def test_1_1_a_failure_is_counted_told_once_and_changes_nothing(rig, error, reason):
    assert reason_of(error) == reason
    rig.answer(a="1")
    with Events() as events:
        for _ in range(3):
            rig.next()
            rig.fail(error)
        rig.next()
        rig.answer(a="1")
    tags = [f"reason:{reason}"]
    assert rig.metrics.of("megaphone.updater.error") == [(1, tags)] * 3
    assert rig.metrics.of("megaphone.updater.ok") == [(1, None)] * 2
    assert rig.versions == {"a": "1"}
    warned = events.of("Broadcasts could not be fetched")
    assert len(warned) == (0 if reason == "unknown" else 1)
    assert all(event["reason"].startswith(f"{reason}: ") for event in warned)
    assert len(events.of("Unexpected error")) == (3 if reason == "unknown" else 0)
    assert len(events.of("Broadcasts are fetched again")) == 1


def test_1_1_a_failure_at_the_start_is_none_of_the_start(rig):
    rig.fail(ConnectionRefusedError())
    rig.next()
    rig.answer(a="1")
    assert rig.versions == {"a": "1"}


def test_1_1_changes_are_logged(rig):
    with Events() as events:
        rig.answer(a="1", b="1")
        rig.next()
        rig.answer(a="1", b="1")
    (event,) = events.of("Broadcasts changed")
    assert (event["count"], event["names"]) == (2, "a, b")


def test_1_1_entries_of_no_use_are_left_out_with_one_line(rig):
    bad = {"n": 1, "": "1", "x" * (MAX_NAME + 1): "1", "l": "v" * (MAX_VERSION + 1), "errors": "1"}
    with Events() as events:
        for _ in range(3):
            rig.answer(a="1", **bad)
            rig.next()
    assert rig.versions == {"a": "1"}
    (event,) = events.of("Broadcasts of no use left out")
    assert event["count"] == len(bad)


@given(
    st.dictionaries(
        st.text(max_size=MAX_NAME + 2) | st.just("errors"), st.text() | st.integers() | st.none()
    )
)
def test_what_is_told_is_text_of_bounded_length(found):
    good = usable(found)
    for name, text in found.items():
        can = type(text) is str and name != "errors" and 0 < len(name) <= MAX_NAME
        assert good.get(name) == (text if can else None)


@pytest.mark.parametrize("phase", [None, ConnectingCancelledError(None), ResponseFailed([])])
def test_the_end_gives_up_what_is_under_way(rig, phase):
    """Whatever the request was at, the log has nothing about it."""
    rig.source.cancelled_with = phase
    with Events() as events:
        rig.megaphone.stopService()
    assert not events.of("Unexpected error") + events.of("Broadcasts could not be fetched")
    assert rig.source.closed
    assert rig.source.asked[-1].called
    rig.clock.advance(100)
    assert len(rig.source.asked) == 1
    assert rig.metrics.calls == []
    assert not rig.clock.getDelayedCalls()


def test_it_may_be_stopped_before_it_has_begun():
    rig = Rig()
    rig.megaphone.stopService()
    assert rig.source.closed


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"1", b"{}", b'{"broadcasts": []}', b'{"broadcasts": null}', b"\xff"],
)
def test_what_is_no_answer(body):
    with pytest.raises(NoAnswer):
        broadcasts_in(body)


def test_what_is_one():
    assert broadcasts_in(b'{"code": 200, "broadcasts": {"a": "1", "b": 2}}') == {"a": "1", "b": 2}


def test_a_proxy_that_cant_be_used_is_an_error_of_the_configuration(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "socks5://proxy.example:1080")
    with pytest.raises(InvalidConfig):
        Source(URL, None, 1, Clock())
