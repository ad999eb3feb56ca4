"""Refused requests leave a line each, a flood of them no more than a few."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from autopush.ids import generate_hash
from autopush.logging import events as logging
from autopush.logging.floods import INTERVAL, LINES
from autopush.tests.web.support import CHID, UAID, Endpoint
from autopush.web.refusals import Refusals

NEW = "/v1/webpush/app/registration"
OTHER = "86dfb18c-1eb1-4f92-80a5-7fdf8d462b5c"


@pytest.fixture
def endpoint():
    endpoint = Endpoint(bear_hash_key=["b" * 20])
    endpoint.add_user()
    return endpoint


def told(endpoint, act):
    """Events of level info and above of a request."""
    with capturedLogs() as events:
        act(endpoint)
    return [event for event in events if event["log_level"].name != "debug"]


def test_the_rest_of_a_flood():
    refusals = Refusals(Clock())
    for errno in (*[106] * (LINES + 5), 102):
        refusals.take(errno)
    with capturedLogs() as events:
        refusals.stop()
    (event,) = events
    assert event["log_format"] == "Refused {count} more with errno {errno}"
    assert (event["count"], event["errno"]) == (5, 106)


def test_requests_are_counted_all_the_same(endpoint):
    def flood(endpoint):
        for _ in range(LINES + 3):
            assert endpoint.push(path=endpoint.endpoint(chid=OTHER)).status == 410

    assert len(told(endpoint, flood)) == LINES
    assert len(endpoint.metrics.of("requests.refused")) == LINES + 3
    (event,) = told(endpoint, lambda endpoint: endpoint.app.clock.advance(INTERVAL))
    assert (event["count"], event["errno"]) == (3, 106)


# ------------------------------------------------------------------------------------ what is told


def refused(event):
    assert event["log_format"] == "Refused"
    return event["status_code"], event["errno"], event["reason"]


def test_whom_a_message_was_for(endpoint):
    path = endpoint.endpoint(chid=OTHER)
    (event,) = told(endpoint, lambda endpoint: endpoint.push(path=path))
    text = "Request did not validate No such subscription"
    assert refused(event) == (410, 106, text)
    assert (event["uaid_hash"], event["channel_id"]) == (UAID, OTHER.replace("-", ""))
    assert event["client_info"]["remote_ip"] == "192.0.2.7"
    assert event["shown"]["took"] >= 0


def test_nobody_knows_whom(endpoint):
    (event,) = told(endpoint, lambda endpoint: endpoint.push(path="/wpush/v1/x"))
    assert refused(event) == (404, 102, "Request did not validate invalid token")
    assert "uaid_hash" not in event


def test_field_errors(endpoint):
    (event,) = told(endpoint, lambda endpoint: endpoint.push(ttl="x"))
    assert refused(event)[:2] == (400, 112)
    assert event["uaid_hash"] == UAID


def test_refused_by_the_router(endpoint):
    """Whom it was for is among the fields of the request then."""
    del endpoint.store.users[UAID]["node_id"]
    (event,) = told(endpoint, lambda endpoint: endpoint.push(ttl=None))
    assert refused(event)[:2] == (400, 111)
    assert event["client_info"]["uaid_hash"] == UAID
    assert event["client_info"]["channel_id"] == CHID.replace("-", "")


@pytest.mark.parametrize("uaid", [UAID, UAID.upper(), "nobody"])
def test_registrations(endpoint, uaid):
    path = f"{NEW}/{uaid}/subscription/{CHID}"
    (event,) = told(endpoint, lambda endpoint: endpoint.request("DELETE", path))
    known = uaid != "nobody"
    assert refused(event)[:2] == ((401, 109) if known else (404, 0))
    assert event.get("uaid_hash") == (UAID if known else None)


def test_one_line_each(endpoint):
    """What another line tells of already isn't told again."""

    def fail(*_):
        raise ZeroDivisionError

    endpoint.store.get_subscription = fail
    (event,) = told(endpoint, lambda endpoint: endpoint.push())
    assert event["log_level"].name == "critical"
    for path in ("/v1/err", "/v1/err/crit"):
        (event,) = told(endpoint, lambda endpoint, path=path: endpoint.request("GET", path))
        assert event["log_format"].startswith("Test ")
    (event,) = told(endpoint, lambda endpoint: endpoint.request("BREW", NEW))
    assert event["log_format"] == "Request refused: {code}"


def test_private_service():
    endpoint = Endpoint(access_keys=["k" * 22])
    (event,) = told(endpoint, lambda endpoint: endpoint.request("POST", NEW))
    assert event["log_format"].startswith("Refused without an access key")


def test_good_requests_are_not(endpoint):
    secret = generate_hash("b" * 20, UAID)

    def good(endpoint):
        assert endpoint.push().status == 201
        path = f"{NEW}/{UAID}"
        assert endpoint.request("GET", path, authorization=f"webpush {secret}").status == 200

    assert told(endpoint, good) == []


def test_nobody_listens(endpoint, monkeypatch):
    monkeypatch.setattr(logging, "_threshold", logging.LEVELS["warn"])
    assert told(endpoint, lambda endpoint: endpoint.push(path="/wpush/v1/x")) == []
    assert endpoint.app.refusals.take(102)


# ------------------------------------------------------------------------------ what was accepted


@pytest.fixture
def people(monkeypatch):
    monkeypatch.setattr(logging, "_for_people", True)


def message(endpoint, **kwargs):
    (event,) = told(endpoint, lambda endpoint: endpoint.push(b"", **kwargs))
    assert event["log_format"] == "Message"
    assert (event["uaid_hash"], event["channel_id"]) == (UAID, CHID.replace("-", ""))
    return event["outcome"], event["status_code"]


def test_what_became_of_messages(endpoint, people):
    assert message(endpoint) == ("delivered", 201)
    del endpoint.store.users[UAID]["node_id"]
    assert message(endpoint) == ("stored", 201)
    assert message(endpoint, ttl="0") == ("dropped (TTL 0, and nobody there)", 201)


def test_refused_messages_have_one_line_for_people_too(endpoint, people):
    (event,) = told(endpoint, lambda endpoint: endpoint.push(ttl="x"))
    assert event["log_format"] == "Refused"
