"""A user agent without a browser."""

from __future__ import annotations

import asyncio
import base64

import pytest

from autopush.testing import ControlError, NoMessage
from autopush.tests.e2e.clients import VapidSender


def test_what_a_page_gets(push):
    subscription = push.browser().subscribe()
    assert subscription.keys() == {"endpoint", "expirationTime", "keys"}
    assert subscription["endpoint"].startswith(f"{push.url}/wpush/v1/")
    sizes = {
        name: len(base64.urlsafe_b64decode(key + "=="))
        for name, key in subscription["keys"].items()
    }
    assert sizes == {"p256dh": 65, "auth": 16}


def test_a_message(push, send):
    browser = push.browser()
    sender = VapidSender()
    subscription = browser.subscribe(sender.public_key)
    send(
        subscription,
        '{"title": "Gr\\u00fc\\u00dfe"}',
        ttl=30,
        headers={"Topic": "t", "Urgency": "low"},
        vapid_private_key=sender.rfc8292,
        vapid_claims={"sub": "mailto:ops@example.com"},
    )
    message = browser.wait()
    assert message.json() == {"title": "Grüße"}
    assert message.data == message.text.encode()
    assert (message.ttl, message.topic, message.urgency) == (30, "t", "low")
    assert message.vapid["sub"] == "mailto:ops@example.com"
    assert (message.encoding, message.error) == ("aes128gcm", None)


def test_the_older_encoding(push, send):
    browser = push.browser()
    send(browser.subscribe(), "x" * 3000, content_encoding="aesgcm")
    message = browser.wait()
    assert (message.text, message.encoding) == ("x" * 3000, "aesgcm")


def test_no_data(push, send):
    browser = push.browser()
    send(browser.subscribe(), None)
    message = browser.wait()
    assert (message.data, message.encoding) == (None, None)
    with pytest.raises(ValueError, match="no data"):
        _ = message.text


def test_bytes(push, send):
    browser = push.browser()
    send(browser.subscribe(), b"\xff\x00")
    message = browser.wait()
    assert message.data == b"\xff\x00"
    with pytest.raises(ValueError):
        _ = message.text


def test_wrong_keys(push, send):
    browser = push.browser()
    one, other = browser.subscribe(), browser.subscribe()
    assert send({**one, "keys": other["keys"]}, "x") == 201
    message = browser.wait()
    assert "other keys" in message.error
    with pytest.raises(ValueError, match="other keys"):
        _ = message.text


def test_messages_come_once_by_wait_and_stay_in_messages(push, send):
    browser = push.browser()
    subscription = browser.subscribe()
    for text in ("1", "2"):
        send(subscription, text)
    assert [browser.wait().text for _ in range(2)] == ["1", "2"]
    with pytest.raises(NoMessage, match="of 2 requests was answered 201"):
        browser.wait(timeout=0)
    assert [message.text for message in browser.messages] == ["1", "2"]


def test_what_was_sent_has_arrived(push, send):
    """No waiting: who has been answered 201 finds the message."""
    browser = push.browser()
    subscription = browser.subscribe()
    for number in range(20):
        send(subscription, str(number))
        assert len(browser.messages) == number + 1


def test_waiting_in_an_event_loop(push, send):
    browser = push.browser()
    subscription = browser.subscribe()

    async def both():
        waiting = asyncio.create_task(browser.wait_async(timeout=60))
        await asyncio.to_thread(send, subscription, "x")
        return await waiting

    assert asyncio.run(both()).text == "x"


def test_two_browsers(push, send):
    one, other = push.browser(), push.browser()
    assert one.uaid != other.uaid
    subscription = other.subscribe()
    one.subscribe()
    send(subscription, "x")
    assert other.wait().text == "x"
    assert not one.messages


def test_offline_and_online(push, send):
    browser = push.browser()
    subscription = browser.subscribe()
    uaid = browser.uaid
    browser.offline()
    assert send(subscription, "waits") == 201
    assert send(subscription, "gone", ttl=0) == 201
    assert not browser.messages
    browser.online()
    assert browser.wait(60).text == "waits"
    assert browser.uaid == uaid
    assert len(browser.messages) == 1


def test_offline_pages_cannot_subscribe(push):
    browser = push.browser()
    browser.offline()
    with pytest.raises(ControlError, match="offline") as refused:
        browser.subscribe()
    assert refused.value.status == 409


def test_expired(push, send):
    browser = push.browser()
    one, other = browser.subscribe(), browser.subscribe()
    browser.expire(one)
    assert (send(one), send(other)) == (410, 201)
    assert push.requests[0].reason == "Request did not validate No such subscription"
    browser.offline()
    push.expire(other)
    assert send(other) == 410


def test_unsubscribed(push, send):
    browser = push.browser()
    subscription = browser.subscribe()
    browser.unsubscribe(subscription)
    assert send(subscription) == 410
    with pytest.raises(ValueError, match="no such subscription"):
        browser.unsubscribe(subscription)


def test_closed(push, send):
    browser = push.browser()
    subscription = browser.subscribe()
    browser.close()
    assert send(subscription) == 410
    with pytest.raises(ControlError, match="no browser"):
        browser.online()


@pytest.mark.parametrize("key", ["nonsense", "A" * 87, b"\x04" * 65])
def test_a_key_that_is_none(push, key):
    with pytest.raises(ControlError, match="applicationServerKey"):
        push.browser().subscribe(key)


def test_a_key_as_bytes(push, send):
    sender = VapidSender()
    key = base64.urlsafe_b64decode(sender.public_key + "=")
    subscription = push.browser().subscribe(key)
    claims = {"sub": "mailto:ops@example.com"}
    assert send(subscription, "x", vapid_private_key=sender.rfc8292, vapid_claims=claims) == 201


def test_nobodys_endpoint(push):
    with pytest.raises(ControlError, match="no endpoint of this service"):
        push.expire({"endpoint": f"{push.url}/wpush/v1/nonsense"})
