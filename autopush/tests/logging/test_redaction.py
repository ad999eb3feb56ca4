"""Ids that open a door, where they are hidden: in the standalone service (decisions/secrets)."""

from __future__ import annotations

import json
import uuid

import pytest
from hypothesis import given, strategies as st
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from autopush.ids import generate_hash
from autopush.logging import PushLogger, hide_ids, redact, redact_text, redact_uri
from autopush.logging.redaction import pseudonym
from autopush.logging.sentry import scrubbed

KEY = "key of the data directory"
UAID = "0123456789abcdef0123456789abcdef"
NAME = generate_hash(KEY, UAID)
MESSAGE_ID = "gAAAAABlXx-_" + "m" * 110 + "=="
CHID = "fedcba98-7654-3210-fedc-ba9876543210"


@pytest.fixture(scope="module", autouse=True)
def hiding():
    hide_ids(KEY)
    yield
    hide_ids("")


def fields(**event):
    event = {"log_format": "text", "log_level": LogLevel.info, "log_time": 1.0, **event}
    return json.loads(PushLogger("A").json_format(event))["Fields"]


@given(st.uuids())
def test_a_user_agent_has_one_name_whatever_the_spelling(uaid):
    name = generate_hash(KEY, uaid.hex)
    for spelling in (uaid.hex, str(uaid), uaid.urn, f"{{{uaid}}}", uaid.hex.upper()):
        assert pseudonym(spelling) == name
    assert pseudonym(name) == name


@given(st.text())
def test_nothing_else_stays(ident):
    name = pseudonym(ident)
    assert len(name) == (64 if ident else 0)
    assert pseudonym(name) == name


def test_another_key_gives_other_names():
    hide_ids("another key")
    try:
        assert pseudonym(UAID) == generate_hash("another key", UAID)
    finally:
        hide_ids(KEY)


@pytest.mark.parametrize("name", ["uaid_hash", "message_id", "version"])
@pytest.mark.parametrize("ident", [UAID, MESSAGE_ID])
def test_fields(name, ident):
    assert redact(name, ident) == generate_hash(KEY, ident)
    assert redact(name, redact(name, ident)) == redact(name, ident)
    assert redact(name, None) is None
    assert fields(**{name: ident})[name] == generate_hash(KEY, ident)
    assert fields(client_info={name: ident})[name] == generate_hash(KEY, ident)


def test_what_operators_look_for_stays():
    channel = uuid.UUID(CHID)
    found = fields(channel_id=channel.hex, request_id=CHID, remote_ip="::1", user_agent="Firefox")
    assert found["channel_id"] == channel.hex
    assert (found["request_id"], found["remote_ip"]) == (CHID, "::1")
    assert found["user_agent"] == "Firefox"
    assert redact_text(f"Unknown subscription: {CHID}") == f"Unknown subscription: {CHID}"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        (f"/v1/fcm/app/registration/{UAID}", f"/v1/fcm/app/registration/{NAME}"),
        (
            f"/v1/fcm/app/registration/{uuid.UUID(UAID)}/subscription/{CHID}?a=b",
            f"/v1/fcm/app/registration/{NAME}/subscription/{CHID}?a=b",
        ),
        (f"/v1/fcm/app/registration/%7B{UAID}%7D", f"/v1/fcm/app/registration/{NAME}"),
        ("/v1/x/y/registration/nonsense", "/v1/x/y/registration/" + generate_hash(KEY, "nonsense")),
        ("/v1/x/y/registration", "/v1/x/y/registration"),
        (f"/push/{UAID}", f"/push/{NAME}"),
        (f"/notif/{uuid.UUID(UAID)}/123", f"/notif/{NAME}/123"),
        ("/opt/push/autopush/main.py", "/opt/push/autopush/main.py"),
        (f"/nowhere?uaid={UAID}", f"/nowhere?uaid={NAME}"),
        ("/m/" + MESSAGE_ID, "/m/..."),
    ],
)
def test_paths(uri, shown):
    assert redact_uri(uri) == shown
    assert redact_uri(shown) == shown
    assert fields(client_info={"uri": uri})["uri"] == shown
    assert redact_text(f"GET {uri} failed") == f"GET {shown} failed"


def test_texts():
    text = f"no {UAID} has {MESSAGE_ID}, or {{'uaid': '{UAID}'}}"
    shown = redact_text(text)
    assert shown.count(NAME) == 2
    assert UAID not in shown
    assert MESSAGE_ID[:40] not in shown
    for name in ("reason", "error", "text", "uaid_record", "info", "exc"):
        assert fields(**{name: text})[name] == shown
    assert fields(log_format="{why_not}", why_not=text)["message"] == shown


def test_tracebacks_and_lines_for_people():
    try:
        raise ValueError(f"{UAID} at /push/{UAID}")
    except ValueError:
        failure = Failure()
    trace = fields(log_failure=failure)["traceback"]
    event = {"log_format": "text", "log_level": LogLevel.info, "log_time": 1.0}
    line = PushLogger("A", log_format="text").text_format({**event, "log_failure": failure})
    assert line is not None
    for shown in (trace, line):
        assert UAID not in shown
        assert NAME in shown


def test_sentry():
    found = scrubbed({"uaid_hash": UAID, "message_id": MESSAGE_ID, "uri": f"/push/{UAID}"})
    assert found == {"uaid_hash": NAME, "message_id": "...", "uri": f"/push/{NAME}"}


def test_the_daemons_name_them_as_key_hash_says():
    hide_ids("")
    try:
        for text in (UAID, MESSAGE_ID, str(uuid.UUID(UAID))):
            assert redact("uaid_hash", text) == redact("message_id", text) == text
            assert redact_text(f"text {text}") == f"text {text}"
        assert redact_uri(f"/registration/{UAID}") == f"/registration/{UAID}"
    finally:
        hide_ids(KEY)


def test_a_hash_is_not_hashed_again():
    """With ``key_hash`` UAIDs have one already."""
    assert redact("uaid_hash", NAME) == NAME
