"""User agents without a browser."""

from __future__ import annotations

import asyncio

import pytest

from autopush.control.agents import AgentFactory, AgentProtocol, Received, text_of
from autopush.control.observed import Record
from autopush.tests.e2e.clients import UserAgent, VapidSender


def test_text():
    assert text_of("ü".encode()) == "ü"
    assert text_of(b"\xff") is None
    assert text_of(None) is None


def received(**given):
    request = Record(
        1.0, "POST", "e", "/", "r", {"topic": "t", "urgency": "low"}, b"", ttl=5, vapid={"sub": "s"}
    )
    return Received(
        "id",
        "channel",
        2.0,
        **{"data": b"x", "encoding": "aes128gcm", "error": None, "request": request, **given},
    )


def test_as_json():
    assert received().to_json() == {
        "id": "id",
        "subscription": "channel",
        "time": 2.0,
        "data": "eA",
        "text": "x",
        "encoding": "aes128gcm",
        "error": None,
        "ttl": 5,
        "topic": "t",
        "urgency": "low",
        "vapid": {"sub": "s"},
        "headers": {"topic": "t", "urgency": "low"},
    }


def test_without_data_or_request():
    shown = received(data=None, request=None).to_json()
    assert (shown["data"], shown["text"], shown["ttl"], shown["headers"]) == (None, None, None, {})


def test_no_time_outs_of_its_own():
    """They would go off when a test moves the clock."""
    factory = AgentFactory("ws://127.0.0.1:1/", reactor=None)
    assert factory.openHandshakeTimeout == factory.closeHandshakeTimeout == 0
    assert factory.autoPingInterval == 0
    assert factory.protocol is AgentProtocol


def test_comes_back_after_the_service_has_closed_it(push, send):
    """As browsers do. A hello of somebody else with its id is one way to be closed."""
    browser = push.browser()
    subscription = browser.subscribe()

    async def take_over():
        async with await UserAgent.open(push.websocket_url, browser.uaid) as other:
            assert other.uaid == browser.uaid
            await other.closed()  # for it comes back itself

    asyncio.run(take_over())
    send(subscription, "x")
    assert browser.wait(60).text == "x"


def test_a_service_that_does_not_know_it_has_none_of_its_subscriptions(push):
    browser = push.browser()
    browser.subscribe()
    uaid = browser.uaid
    browser.offline()
    # Its record goes, as that of somebody who is away for months.
    push.advance(400 * 86_400)
    browser.online()
    subscriptions = push.control.call("GET", "/subscriptions")["subscriptions"]
    assert (browser.uaid == uaid) == bool(subscriptions)


def test_keys_of_senders_are_checked(push, send):
    browser = push.browser()
    subscription = browser.subscribe(VapidSender().public_key)
    other = VapidSender()
    claims = {"sub": "mailto:ops@example.com"}
    assert send(subscription, "x", vapid_private_key=other.rfc8292, vapid_claims=claims) == 401


@pytest.mark.parametrize("text", ["", "x", "ü" * 1000])
def test_texts(push, send, text):
    browser = push.browser()
    assert send(browser.subscribe(), text) == 201
    assert browser.wait().data in (text.encode(), None)
