"""A private service: who may register, and what a key never gets into."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies as st
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from autopush.config import AutopushConfig
from autopush.http import EndpointHTTPFactory
from autopush.ids import generate_hash
from autopush.logging import redaction
from autopush.tests.web.support import CHID, SENDER, UAID, Endpoint
from autopush.web.access import LOG_INTERVAL, MAX_ADDRESS, NEW_REGISTRATION, Access
from autopush.web.registration import NewRegistrationHandler

KEY, OTHER, WRONG = "k" * 43, "-o_" * 14, "w" * 43
NEW = "/v1/webpush/app/registration"


@pytest.fixture
def endpoint():
    return Endpoint(access_keys=[KEY, OTHER], bear_hash_key=["b" * 20])


@pytest.fixture
def access():
    return Access([KEY, OTHER], Clock().seconds)


@pytest.mark.parametrize("key", [KEY, OTHER])
@pytest.mark.parametrize("where", ["/{}", "/{}/", "/{}/more", "/some/prefix/{}"])
def test_key_in_a_path(access, key, where):
    assert access.shown(where.format(key))


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/", ""),
        ("", ""),
        (f"/{WRONG}", f"key={WRONG}"),
        (f"/{KEY}x", ""),
        (f"/{KEY[:-1]}", ""),
        (f"/{KEY.upper()}", ""),
        ("/", f"yek={KEY}"),
        ("/", f"key={WRONG}&key={KEY}"),
        ("/", "key="),
        ("/", f"key%3D{KEY}"),
    ],
)
def test_no_key(access, path, query):
    assert not access.shown(path, query)


def test_key_in_a_query(access):
    assert access.shown("/", f"key={OTHER}")
    assert access.shown("/", f"a=b&key={KEY}")
    assert access.shown("/", [KEY])


@given(st.text())
def test_nothing_else_opens(text):
    assert not Access([KEY, OTHER], Clock().seconds).opens(text)
    assert not Access([KEY, OTHER], Clock().seconds).shown(f"/{text}", f"key={text}")


def test_without_keys_there_is_no_door():
    assert Access.of(AutopushConfig(), Clock().seconds) is None
    assert Endpoint().request("POST", NEW, {}).status == 200


def test_every_new_registration_is_behind_the_door():
    (pattern,) = (p for p, h in EndpointHTTPFactory.ap_handlers if h is NewRegistrationHandler)
    named = NEW_REGISTRATION.pattern.replace("[^/]+", "(?P<>[^\\/]+)")
    assert named == pattern.replace("<type>", "<>").replace("<app_id>", "<>")


@pytest.mark.parametrize("path", [f"/{KEY}{NEW}", f"{NEW}?key={KEY}", f"/{OTHER}{NEW}?a=b"])
def test_registration_with_a_key(endpoint, path):
    answer = endpoint.request("POST", path, {})
    assert answer.status == 200
    assert KEY not in answer.body.decode() and OTHER not in answer.body.decode()
    user = f"{NEW}/{json.loads(answer.body)['uaid']}"
    secret = f"Bearer {json.loads(answer.body)['secret']}"
    # What exists needs its secret only, under whatever address the user agent knows the service.
    for prefix in ("", f"/{KEY}"):
        assert endpoint.request("GET", f"{prefix}{user}", authorization=secret).status == 200
        subscribed = endpoint.request(
            "POST", f"{prefix}{user}/subscription", {}, authorization=secret
        )
        assert subscribed.status == 200
        assert endpoint.request("GET", f"{prefix}{user}", authorization="Bearer x").status == 401


@pytest.mark.parametrize("path", [NEW, f"{NEW}?key={WRONG}", f"/{WRONG}{NEW}", f"/{KEY}x{NEW}"])
def test_registration_without_a_key(endpoint, path):
    answer = endpoint.request("POST", path, {})
    assert (answer.status, json.loads(answer.body)["errno"]) == (401, 109)
    assert answer.headers["www-authenticate"] == "webpush"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert WRONG not in answer.body.decode()
    assert not endpoint.store.users
    assert endpoint.request("OPTIONS", path).status == 200


def test_senders_need_no_key(endpoint):
    endpoint.add_user()
    answer = endpoint.request("POST", endpoint.endpoint(), ttl="60")
    assert answer.status == 201
    assert endpoint.request("GET", "/status").status == 200
    assert endpoint.request("GET", f"/{KEY}/status").status == 404


def test_existing_registration_needs_no_key(endpoint):
    endpoint.add_user()
    secret = generate_hash("b" * 20, UAID)
    path = f"{NEW}/{UAID}/subscription/{CHID}"
    assert endpoint.request("DELETE", path, authorization=f"webpush {secret}").status == 200


def test_endpoints_hold_no_key(endpoint):
    endpoint.add_user()
    path = f"/{KEY}{NEW}"
    answer = endpoint.request("POST", path, {"key": SENDER.public_key})
    assert json.loads(answer.body)["endpoint"].startswith("http://push.example:8082/wpush/v2/")


def test_who_has_no_key_is_logged_now_and_then():
    clock = Clock()
    access = Access([KEY], clock.seconds)
    with capturedLogs() as events:
        for number in range(5):
            access.refuse(f"192.0.2.{number}")
        clock.advance(LOG_INTERVAL)
        access.refuse("192.0.2.9")
        clock.advance(LOG_INTERVAL)
        access.refuse("x" * 5000)
    assert len(events.pop()["remote_ip"]) == MAX_ADDRESS
    told = [(event["count"], event["remote_ip"]) for event in events]
    assert told == [(1, "192.0.2.0"), (5, "192.0.2.9")]


def test_those_of_the_last_seconds_are_logged_at_the_end(endpoint):
    with capturedLogs() as events:
        for _ in range(3):
            assert endpoint.request("POST", NEW, {}).status == 401
        endpoint.app.tell_counted()
        endpoint.app.tell_counted()
    told = [event["count"] for event in events if "without an access key" in event["log_format"]]
    assert told == [1, 2]


@pytest.mark.parametrize("path", [f"{NEW}?key={WRONG}", f"/{WRONG}{NEW}", f"{NEW}?a=b&key={WRONG}"])
def test_uris_are_logged_without_key(path):
    text = redaction.redact("uri", path)
    assert WRONG not in text
    assert "/v1/webpush/app/registration" in text
    assert WRONG not in redaction.redact_text(f"No such file: http://push.example{path}")


def test_known_keys_are_nowhere():
    redaction.hide([KEY, OTHER])
    try:
        assert redaction.redact("anything", f"<{KEY}>") == "<...>"
        assert redaction.redact_text(json.dumps({"a": [KEY, OTHER]})) == '{"a": ["...", "..."]}'
    finally:
        redaction.hide([])
    assert redaction.redact("anything", KEY) == KEY
