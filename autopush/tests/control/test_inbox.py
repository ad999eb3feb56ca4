"""What the page of the test mode shows, over HTTP and in memory."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from twisted.internet.task import Clock

from autopush.control import inbox
from autopush.control.inbox import Inbox
from autopush.control.journal import Journal
from autopush.control.observed import Record
from autopush.testing import Push, PushService

Send = Callable[..., Any]


def shown(push: Push) -> Any:
    return requests.get(f"{push.url}/page/figures", timeout=60).json()


def test_it_is_empty_at_first(push: Push) -> None:
    assert shown(push) == {
        "ahead": 0,
        "faults": [],
        "messages": [],
        "refused": [],
        "subscriptions": [],
    }


def test_messages(push: Push, send: Send) -> None:
    """The latest first: what came, and what waits."""
    browser, away = push.browser(), push.browser()
    subscription, other = browser.subscribe(), away.subscribe()
    away.offline()
    send(subscription, "Hello", headers={"Topic": "greeting", "Urgency": "high"})
    browser.wait()
    send(other, "later")
    later, hello = shown(push)["messages"]
    assert hello["texts"] == ["Hello"]
    assert (hello["count"], hello["ttl"], hello["error"]) == (1, 60, None)
    assert (hello["topic"], hello["urgency"]) == ("greeting", "high")
    assert (later["texts"], later["count"]) == ([], 0)
    assert later["bytes"] > len("later")
    assert hello["browser"] != later["browser"]


def test_a_message_that_comes_twice(push: Push, send: Send) -> None:
    browser = push.browser()
    push.fail("duplicate", times=1)
    send(browser.subscribe(), "again")
    for _ in range(2):
        browser.wait()
    (message,) = shown(push)["messages"]
    assert (message["count"], message["texts"]) == (2, ["again", "again"])
    assert message["fault"] == "duplicate"


def test_what_cannot_be_decrypted(push: Push) -> None:
    browser = push.browser()
    subscription = browser.subscribe()
    headers = {"TTL": "60", "Content-Encoding": "aes128gcm"}
    requests.post(subscription["endpoint"], b"x" * 30, headers=headers, timeout=60)
    browser.wait()
    (message,) = shown(push)["messages"]
    assert message["texts"] == [] and message["error"]


def test_refusals(push: Push) -> None:
    """With the reason; who only looks is no sender."""
    subscription = push.browser().subscribe()
    requests.post(subscription["endpoint"], timeout=60)
    requests.post(f"{push.url}/wpush/v2/nonsense", headers={"TTL": "0"}, timeout=60)
    requests.get(f"{push.url}/nowhere", timeout=60)
    nowhere, no_ttl = shown(push)["refused"]
    assert (no_ttl["status"], nowhere["status"]) == (400, 404)
    assert no_ttl["reason"] and nowhere["reason"]
    assert nowhere["path"] == "/wpush/v2/nonsense"
    assert shown(push)["messages"] == []


def test_whose_subscription_has_ended(push: Push) -> None:
    """It is refused before its channel is looked at, but everybody can tell whose it was."""
    browser = push.browser()
    subscription = browser.subscribe()
    browser.expire(subscription)
    requests.post(subscription["endpoint"], headers={"TTL": "0"}, timeout=60)
    (refused,) = shown(push)["refused"]
    assert refused["status"] == 410
    assert refused["browser"] == shown(push)["subscriptions"][0]["browser"]


def test_browsers_faults_and_the_clock(push: Push) -> None:
    browser = push.browser()
    first, second = browser.subscribe(), browser.subscribe()
    browser.offline()
    push.fail(503)
    push.advance(10)
    found = shown(push)
    assert [entry["endpoint"] for entry in found["subscriptions"]] == [
        second["endpoint"],
        first["endpoint"],
    ]
    assert {entry["online"] for entry in found["subscriptions"]} == {False}
    assert (found["faults"], found["ahead"]) == (["unavailable"], 10)


def test_who_is_no_operator_sees_nothing(push: Push) -> None:
    """As a page of another name that leads here (DNS rebinding), or somebody behind a proxy."""
    for header in ({"Host": "evil.example"}, {"X-Forwarded-For": "192.0.2.1"}):
        answer = requests.get(f"{push.url}/page/figures", headers=header, timeout=60)
        assert answer.status_code == 401
        page = requests.get(push.url, headers=header, timeout=60)
        assert 'data-local=""' in page.text
    page = requests.get(push.url, timeout=60)
    assert 'data-local="yes"' in page.text and "inbox.js" in page.text
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]


@pytest.mark.parametrize(("how", "status"), [("off", 404), ("info", 200)])
def test_there_may_be_less_of_it(how: str, status: int) -> None:
    with PushService([f"--page={how}"]) as push:
        page = requests.get(push.url, timeout=60)
        assert page.status_code == status and "inbox.js" not in page.text
        assert requests.get(f"{push.url}/page/figures", timeout=60).status_code == 404


def test_it_has_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The latest requests only, and the beginning of long texts."""
    monkeypatch.setattr(inbox, "SHOWN", 3)
    journal: Journal[Record] = Journal(Clock())
    for number in range(10):
        journal.append(Record(number, "POST", "", "/", "", {}, b"x" * 9, status=201))
    messages: Journal[Any] = Journal(Clock())
    messages.append(SimpleNamespace(request=journal.after(9)[0], data=b"x" * 9999, error=None))
    rig: Any = SimpleNamespace(
        endpoint=SimpleNamespace(requests=journal, faults=[]),
        agents={"1": SimpleNamespace(name="1", messages=messages)},
        subscriptions=list,
        shift=SimpleNamespace(seconds=0.0),
    )
    found = Inbox(rig).show()["messages"]
    assert [message["time"] for message in found] == [9, 8, 7]
    assert [sum(map(len, message["texts"])) for message in found] == [inbox.MAX_TEXT, 0, 0]
