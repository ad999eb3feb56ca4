"""The operations, as a program in another language calls them."""

from __future__ import annotations

import threading

import pytest
from pywebpush import webpush

from autopush.control.operations import OPERATIONS
from autopush.testing import ControlError

ID = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def call(push):
    return push.control.call


@pytest.fixture
def made(call):
    """A subscription of a browser of its own."""
    return call("POST", "/subscriptions", {})


def refused(call, *request):
    with pytest.raises(ControlError) as caught:
        call(*request)
    return caught.value.status


def test_browsers(call):
    made = call("POST", "/browsers")
    assert made["online"] is True and made["uaid"]
    assert call("GET", "/browsers") == {"browsers": [made]}
    path = f"/browsers/{made['id']}"
    assert call("GET", path) == made
    assert call("POST", f"{path}/offline") == {**made, "online": False}
    made = call("POST", f"{path}/online")  # who has no subscription may get another uaid
    assert made["online"] is True and call("GET", path) == made
    assert call("DELETE", path) is None
    assert call("GET", "/browsers") == {"browsers": []}
    assert refused(call, "GET", path) == refused(call, "DELETE", path) == 404


def test_subscriptions(call, made):
    assert call("GET", "/subscriptions") == {"subscriptions": [made]}
    path = f"/subscriptions/{made['id']}"
    assert call("GET", path) == made
    more = call("POST", "/subscriptions", {"browser": made["browser"]})
    assert more["browser"] == made["browser"]
    call("DELETE", path)
    assert call("GET", "/subscriptions") == {"subscriptions": [more]}
    assert refused(call, "DELETE", path) == 404


def test_an_offline_browser_can_do_nothing(call, made):
    browser = made["browser"]
    call("POST", f"/browsers/{browser}/offline")
    assert refused(call, "POST", "/subscriptions", {"browser": browser}) == 409
    assert refused(call, "DELETE", f"/subscriptions/{made['id']}") == 409
    assert len(call("GET", "/subscriptions")["subscriptions"]) == 1


def test_nobodys(call):
    assert refused(call, "POST", "/subscriptions", {"browser": "nobody"}) == 404
    assert refused(call, "GET", f"/subscriptions/{ID}") == 404
    assert refused(call, "DELETE", "/faults/99999") == refused(call, "DELETE", "/faults/x") == 404
    assert refused(call, "POST", "/expire", {"endpoint": "https://push.example/x"}) == 404


def test_a_fault_is_for_a_subscription_there_may_be(call, made):
    """A slip of the pen would be a fault that nobody meets."""
    for subscription in (made["subscription"]["endpoint"], made["id"], ID):
        call("POST", "/faults", {"fault": "lost", "subscription": subscription})
    for subscription in ("https://push.example/x", made["id"].replace("-", ""), ""):
        assert (
            refused(call, "POST", "/faults", {"fault": "lost", "subscription": subscription}) == 404
        )
    assert len(call("GET", "/faults")["faults"]) == 3


def test_a_parameter_nobody_knows(call, made):
    assert refused(call, "GET", f"/browsers/{made['browser']}/messages?timeuot=1") == 400


def test_long_poll(call, made):
    path = f"/browsers/{made['browser']}/messages"
    found: list[dict[str, object]] = []
    waiting = threading.Thread(target=lambda: found.append(call("GET", path, after=0, timeout=60)))
    waiting.start()
    webpush(made["subscription"], "one", ttl=60)
    waiting.join(60)
    (message,) = found[0]["messages"]
    assert (message["text"], message["subscription"]) == ("one", made["id"])
    assert found[0]["last"] == 1
    assert call("GET", path, after=1) == {"messages": [], "last": 1}
    webpush(made["subscription"], "two", ttl=60)
    assert [m["text"] for m in call("GET", path, after=1)["messages"]] == ["two"]


def test_requests(call, made):
    before = call("GET", "/requests")["last"]
    webpush(made["subscription"], "one", ttl=60)
    found = call("GET", "/requests", after=before, timeout=60)
    (request,) = found["requests"]
    assert (request["status"], request["subscription"]) == (201, made["id"])
    assert found["last"] == before + 1


def test_faults(call, made):
    one = call("POST", "/faults", {"fault": "429", "times": 2})
    other = call("POST", "/faults", {"fault": "lost", "subscription": made["id"]})
    assert call("GET", "/faults") == {"faults": [one, other]}
    assert one["fault"] == "too-many"
    call("DELETE", f"/faults/{one['id']}")
    assert call("GET", "/faults") == {"faults": [other]}
    call("DELETE", "/faults")
    assert call("GET", "/faults") == {"faults": []}


def test_clock(call):
    before = call("GET", "/clock")
    after = call("POST", "/clock", {"advance": 100})
    assert after["ahead"] == before["ahead"] + 100
    assert after["time"] >= before["time"] + 100
    call("POST", "/reset")
    assert call("GET", "/clock")["ahead"] == 0


def test_each_has_a_name():
    assert len({row.name for row in OPERATIONS}) == len(OPERATIONS)
    assert all(row.text and row.text[0].isupper() for row in OPERATIONS)
