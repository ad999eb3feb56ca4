"""A test's view of the service: requests, faults, time, and a clean start."""

from __future__ import annotations

import threading
import time

import pytest
import requests

from autopush.testing import ControlError, NoMessage
from autopush.tests.e2e.clients import VapidSender
from autopush.tests.e2e.harness import eventually

SUB = "mailto:ops@example.com"


def vapid(sender, **claims):
    """pywebpush's arguments for a signed message."""
    return {"vapid_private_key": sender.rfc8292, "vapid_claims": {"sub": SUB, **claims}}


def test_an_accepted_request(push, send):
    browser = push.browser()
    subscription = browser.subscribe()
    assert send(subscription, "x", ttl=7, headers={"Topic": "news", "Urgency": "high"}) == 201
    (request,) = push.requests
    assert (request.status, request.method, request.ttl) == (201, "POST", 7)
    assert request.endpoint == subscription["endpoint"]
    assert request.headers["topic"] == "news"
    assert request.answer["Location"].endswith(f"/m/{request.message}")
    assert request.body and request.vapid is None and request.reason is None
    message = browser.wait()
    assert (message.id, message.channel) == (request.message, request.channel)


def test_refused_requests_say_why(push, send):
    sender, stranger = VapidSender(), VapidSender()
    subscription = push.browser().subscribe(sender.public_key)
    assert send(subscription, "x") == 401
    assert send(subscription, "x", **vapid(stranger)) == 401
    assert send(subscription, "x" * 5000, **vapid(sender)) == 413
    assert requests.post(subscription["endpoint"], timeout=60).status_code == 401
    assert requests.post(f"{push.url}/wpush/v2/nonsense", timeout=60).status_code == 404
    assert requests.post(f"{push.url}/nowhere", timeout=60).status_code == 404
    assert requests.put(subscription["endpoint"], timeout=60).status_code == 405
    assert requests.options(subscription["endpoint"], timeout=60).status_code == 200  # no request
    assert [(r.status, r.errno) for r in push.requests] == [
        (401, 109),
        (401, 109),
        (413, 104),
        (401, 109),
        (404, 102),
        (404, 102),
        (405, 999),
    ]
    assert all(request.reason for request in push.requests)


def test_what_is_no_request_is_seen_too(push):
    huge = {"X-Much": "x" * 100_000}
    status = requests.post(f"{push.url}/wpush/v1/x", headers=huge, timeout=60).status_code
    assert [(r.status, r.method) for r in push.requests] == [(status, "")]


def test_a_sender_is_known_by_its_signature(push, send):
    sender = VapidSender()
    subscription = push.browser().subscribe(sender.public_key)
    assert send(subscription, "x", **vapid(sender)) == 201
    (request,) = push.requests
    assert request.vapid["sub"] == SUB
    assert request.vapid["aud"] == push.url
    assert request.vapid["key"] == sender.public_key


STATUSES = {
    404: 102,
    410: 106,
    413: 104,
    429: 204,
    500: 999,
    502: None,
    503: 201,
}


@pytest.mark.parametrize("status", STATUSES)
def test_statuses(push, send, status):
    browser = push.browser()
    subscription = browser.subscribe()
    push.fail(status, times=2)
    assert [send(subscription) for _ in range(3)] == [status, status, 201]
    first = push.requests[0]
    assert (first.status, first.errno) == (status, STATUSES[status])
    assert first.fault and push.requests[2].fault is None
    browser.wait()
    assert len(browser.messages) == 1


def test_when_to_come_back(push, send):
    subscription = push.browser().subscribe()
    push.fail(429, retry_after=7, times=1)
    push.fail("unavailable", times=1)
    assert [send(subscription) for _ in range(2)] == [429, 503]
    assert [r.answer["Retry-After"] for r in push.requests] == ["7", "30"]


def test_faults_stay_until_they_are_healed(push, send):
    subscription = push.browser().subscribe()
    push.fail(500)
    assert [send(subscription) for _ in range(3)] == [500] * 3
    push.heal()
    assert send(subscription) == 201


def test_a_fault_of_one_subscription(push, send):
    browser = push.browser()
    one, other = browser.subscribe(), browser.subscribe()
    push.fail(410, subscription=one)
    assert (send(one), send(other), send(one)) == (410, 201, 410)


@pytest.mark.parametrize("by", ["key", "sub", "address"])
def test_a_fault_of_one_sender(push, send, by):
    one, other = VapidSender(), VapidSender()
    subscription = push.browser().subscribe()
    sender = {"key": one.public_key, "sub": "mailto:one@example.com", "address": "127.0.0.1"}[by]
    push.fail(429, sender=sender)
    given = {"vapid_claims": {"sub": "mailto:one@example.com"}}
    assert send(subscription, "x", vapid_private_key=one.rfc8292, **given) == 429
    assert send(subscription, "x", **vapid(other)) == (429 if by == "address" else 201)


def test_what_is_wrong_anyway_meets_no_fault(push, send):
    subscription = push.browser().subscribe(VapidSender().public_key)
    push.fail(500, times=1)
    assert send(subscription) == 401
    assert push.requests[0].fault is None


def test_reset(push, send):
    browser = push.browser()
    subscription = browser.subscribe()
    push.fail(reset=True, times=1)
    with pytest.raises(requests.exceptions.ConnectionError):
        send(subscription)
    assert [(r.status, r.fault) for r in push.requests] == [(None, "reset")]
    assert not browser.messages


def test_time_out(push, send):
    browser = push.browser()
    subscription = browser.subscribe()
    push.fail("time-out", times=1)
    with pytest.raises(requests.exceptions.ReadTimeout):
        send(subscription, timeout=0.2)
    # On a busy machine it has met the fault when the sender has gone.
    eventually(lambda: [(r.status, r.fault) for r in push.requests] == [(None, "time-out")])
    assert not browser.messages


def test_late(push, send):
    browser = push.browser()
    subscription = browser.subscribe()
    push.fail(delay=0.01, times=1)
    assert send(subscription) == 201
    assert push.requests[0].fault == "late"
    assert browser.wait().text == "x"


def test_late_by_the_services_clock(push, send):
    browser = push.browser()
    subscription = browser.subscribe()
    push.fail(delay=3600, times=1)
    statuses: list[int] = []
    sending = threading.Thread(target=lambda: statuses.append(send(subscription)))
    sending.start()
    # It has met the fault when that is used up.
    eventually(lambda: not push.control.call("GET", "/faults")["faults"])
    assert not statuses
    push.advance(3600)
    sending.join(60)
    assert statuses == [201]
    assert browser.wait().text == "x"


def test_duplicate(push, send):
    browser = push.browser()
    subscription = browser.subscribe()
    push.fail("duplicate", times=1)
    assert send(subscription, "twice") == 201
    assert [m.text for m in browser.messages] == ["twice", "twice"]
    one, other = browser.messages
    assert one.id != other.id
    assert one.ttl == other.ttl == 60


def test_duplicate_for_who_is_away(push, send):
    browser = push.browser()
    subscription = browser.subscribe()
    browser.offline()
    push.fail("duplicate", times=1)
    assert send(subscription, "twice") == 201
    browser.online()
    assert [browser.wait(60).text for _ in range(2)] == ["twice", "twice"]


def test_disorder(push, send):
    browser = push.browser()
    subscription, other = browser.subscribe(), browser.subscribe()
    push.fail("disorder", times=1)
    for target, text in ((subscription, "1"), (other, "2"), (subscription, "3")):
        assert send(target, text) == 201
    assert [browser.wait().text for _ in range(3)] == ["2", "3", "1"]


def test_what_disorder_holds_comes_when_healed(push, send):
    browser = push.browser()
    subscription = browser.subscribe()
    push.fail("disorder", times=1)
    assert send(subscription, "1") == 201
    assert not browser.messages
    push.heal()
    assert browser.wait().text == "1"


@pytest.mark.parametrize(("fault", "ttl"), [("lost", "60"), ("expired", "0")])
def test_never_comes(push, send, fault, ttl):
    browser = push.browser()
    subscription = browser.subscribe()
    push.fail(fault, times=1)
    assert send(subscription, "1") == send(subscription, "2") == 201
    assert browser.wait().text == "2"
    assert len(browser.messages) == 1
    assert push.requests[0].answer["TTL"] == ttl


def test_no_such_fault(push):
    with pytest.raises(ControlError, match="one of late"):
        push.fail("nonsense")
    with pytest.raises(ControlError):
        push.fail(418)
    with pytest.raises(ValueError, match="which fault"):
        push.fail()


def test_expiry_follows_the_clock(push, send):
    browser = push.browser()
    subscription = browser.subscribe()
    browser.offline()
    for ttl in (3599, 3700):
        send(subscription, str(ttl), ttl=ttl)
    push.advance(3600)
    browser.online()
    assert browser.wait(60).text == "3700"
    assert len(browser.messages) == 1


def test_signatures_follow_the_clock(push, send):
    """RFC 8292 2: a token is good until exp, and for no more than 24 hours."""
    sender = VapidSender()
    subscription = push.browser().subscribe(sender.public_key)
    exp = int(push.time) + 12 * 3600
    assert send(subscription, "x", **vapid(sender, exp=exp)) == 201
    push.advance(13 * 3600)
    assert send(subscription, "x", **vapid(sender, exp=exp)) == 401
    assert send(subscription, "x", **vapid(sender, exp=exp + 12 * 3600)) == 201


def test_browsers_stay_connected_while_time_passes(push, send):
    browser = push.browser()
    subscription = browser.subscribe()
    for seconds in (60, 300, 3600, 86_400, 40 * 86_400):
        push.advance(seconds)
        assert send(subscription, str(seconds)) == 201
        assert browser.wait().text == str(seconds)


def test_the_clock_goes_back(push):
    push.advance(86_400)
    assert push.time > time.time() + 86_000
    push.reset()
    assert abs(push.time - time.time()) < 3000


def test_reset_leaves_nothing(push, send):
    browser = push.browser()
    subscription = browser.subscribe()
    send(subscription)
    push.fail(500)
    push.reset()
    assert not push.requests
    assert send(subscription) == 410
    assert [r.status for r in push.requests] == [410]
    with pytest.raises(ControlError, match="no browser"):
        browser.subscribe()


def test_messages_of_before_do_not_come_back(push, send):
    """After a reset the clock goes back, but nothing stored is left that could be taken for new."""
    for _ in range(2):
        browser = push.browser()
        subscription = browser.subscribe()
        push.advance(86_400)
        browser.offline()
        send(subscription, "waits")
        browser.online()
        assert browser.wait(60).text == "waits"
        push.reset()


def test_preferences(push):
    preferences = push.firefox_preferences()
    assert preferences["dom.push.serverURL"] == push.websocket_url
    assert preferences["dom.push.testing.ignorePermission"] is True


def test_nothing_came(push):
    with pytest.raises(NoMessage, match="nobody has sent anything"):
        push.browser().wait(timeout=0)
