"""The HTTP API, watched: what is written down, what is held, and what is let go.

What each fault does is in autopush/tests/testing/test_client.py, as senders and tests see it.
"""

from __future__ import annotations

import socket
import threading
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
import requests
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from autopush.config import AutopushConfig
from autopush.control import observed
from autopush.control.observed import (
    OBSERVED,
    ObservedEndpoint,
    ObservedStandalone,
    ObservedWebPushHandler,
    Record,
)
from autopush.http import EndpointHTTPFactory, StandaloneHTTPFactory
from autopush.web.webpush import PushRequest, WebPushHandler


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def app(clock):
    conf = AutopushConfig(hostname="push.example", endpoint_port=8082)
    return ObservedEndpoint(conf, None, {}, clock=clock)


def record(**given):
    return Record(1.0, "POST", "https://push/x", "/x", "10.0.0.1", {}, b"\xff", **given)


@pytest.mark.parametrize(
    ("usual", "observed"),
    [(EndpointHTTPFactory, ObservedEndpoint), (StandaloneHTTPFactory, ObservedStandalone)],
)
def test_the_routes_are_those_of_the_service(usual, observed):
    plain, watched = usual.ap_handlers, observed.ap_handlers
    assert [pattern for pattern, _ in watched] == [pattern for pattern, _ in plain]
    assert [OBSERVED.get(handler, handler) for _, handler in plain] == [h for _, h in watched]
    assert set(OBSERVED) <= {handler for _, handler in plain}


def test_the_rules_are_those_of_the_service():
    """A handler of its own, but nothing between a sender and the rules."""
    assert issubclass(ObservedWebPushHandler, WebPushHandler)
    assert ObservedWebPushHandler.post.__wrapped__ is ObservedWebPushHandler.meet
    assert WebPushHandler.post.__wrapped__ is WebPushHandler.route
    assert PushRequest.rules[-1].__name__ == "make_notification"


def test_as_json():
    shown = record(channel="c").to_json()
    assert (shown["body"], shown["subscription"]) == ("_w", "c")
    assert "channel" not in shown


def test_names_of_a_sender():
    assert record().senders == {"10.0.0.1"}
    signed = record(vapid={"sub": "mailto:a@b", "key": "K", "aud": "x"})
    assert signed.senders == {"10.0.0.1", "mailto:a@b", "K"}
    assert record(vapid={"sub": ["x"], "key": "K"}).senders == {"10.0.0.1", "K"}


def test_what_the_parser_refuses(app):
    headers, body = app.refusal(400, "nonsense")
    (entry,) = app.requests.after(0)
    assert (entry.status, entry.errno, entry.reason) == (400, 999, "nonsense")
    assert entry.answer == headers and body


def test_what_brought_messages_is_not_kept_for_ever(app, monkeypatch):
    monkeypatch.setattr(observed, "MAX_ENTRIES", 2)
    for number in range(3):
        app.remember(SimpleNamespace(message_id=f"m{number}"), record())
    assert list(app.by_message) == ["m1", "m2"]


class Handler:
    """As far as it is asked to wait."""

    def __init__(self):
        self.finished: Deferred[None] = Deferred()

    def notifyFinish(self):
        return self.finished


def holding(app, *args):
    done: list[object] = []
    Deferred.fromCoroutine(app.hold(*args)).addCallback(done.append)
    return done


def test_held_by_the_services_clock(app, clock):
    done = holding(app, Handler(), 10)
    clock.advance(9)
    assert not done
    clock.advance(1)
    assert done


def test_held_until_the_sender_leaves(app, clock):
    handler = Handler()
    done = holding(app, handler)
    clock.advance(10_000)
    assert not done
    handler.finished.callback(None)
    assert done


@pytest.mark.parametrize("end", ["heal", "stop"])
def test_let_go(app, clock, end):
    handler = Handler()
    done = holding(app, handler, 10), holding(app, handler)
    healing = getattr(app, end)()
    if end == "heal":
        Deferred.fromCoroutine(healing)
    assert all(done)
    handler.finished.callback(None)  # later, which changes nothing
    assert not clock.getDelayedCalls()


def test_a_request_that_is_none(push):
    """Over a socket: what was no HTTP is in the book."""
    parts = urlsplit(push.url)
    with socket.create_connection((parts.hostname, parts.port), 60) as client:
        client.sendall(b"nonsense\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 400 ")
    assert [(r.status, r.method) for r in push.requests] == [(400, "")]


def test_a_sender_that_waits_is_let_go_when_healed(push):
    subscription = push.browser().subscribe()
    push.fail("time-out")
    failures: list[Exception] = []

    def send():
        try:
            requests.post(subscription["endpoint"], headers={"TTL": "60"}, timeout=120)
        except requests.exceptions.ConnectionError as exc:
            failures.append(exc)

    sending = threading.Thread(target=send)
    sending.start()
    push.control.call("GET", "/requests", after=0, timeout=60)
    push.heal()
    sending.join(60)
    assert failures
    assert [(r.status, r.fault) for r in push.requests] == [(None, "time-out")]
