"""Lines for people: whom an event was about, how it ended, how long it took."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, strategies as st
from twisted.logger import LogLevel

from autopush.logging import PushLogger, hide_ids, human
from autopush.logging.redaction import pseudonym

UAID = "0f" * 16
CHANNEL = "76dfb18c-1eb1-4f92-80a5-7fdf8d462b5c"
WHOM = f"uaid={UAID} channel={CHANNEL}"


def event(text, **fields):
    return {
        "log_format": text,
        "log_level": LogLevel.info,
        "log_namespace": "some.Class",
        "log_time": 1_795_458_959.1,
        **fields,
    }


def line(text, **fields):
    """What a line says behind its time and name space."""
    written = PushLogger("Autopush", log_format="text").text_format(event(text, **fields))
    assert written is not None
    head, _, said = written.partition("] ")
    assert head.endswith("[some.Class#info")
    assert said.endswith("\n")
    return said[:-1]


@pytest.fixture
def hiding():
    hide_ids("k" * 20)
    yield
    hide_ids("")


def test_what_was_done_for_whom():
    said = line(
        "Register",
        uaid_hash=UAID,
        channel_id=CHANNEL,
        endpoint="https://push.example/wpush/v1/...",
        user_agent="Firefox",
        shown={"status": 200, "took": 0.0031},
    )
    assert said == f"register {WHOM} 200 in 3 ms"


@pytest.mark.parametrize("channel", [CHANNEL, CHANNEL.replace("-", ""), CHANNEL.upper()])
def test_channels_have_one_form(channel, hiding):
    """Without dashes they would look like UAIDs, which the standalone service hides."""
    assert line("Unregister", uaid_hash="", channel_id=channel) == f"unregister channel={CHANNEL}"


def test_names_of_hidden_uaids_are_short(hiding):
    assert line("hello", uaid_hash=UAID) == f"hello uaid={pseudonym(UAID)[: human.SHORT]}"
    name = "ab" * 32  # what key_hash makes of one
    assert line("hello", uaid_hash=name) == f"hello uaid={name[: human.SHORT]}"


def test_what_became_of_a_message():
    said = line(
        "Message",
        uaid_hash=UAID,
        channel_id=CHANNEL,
        message_size=120,
        outcome="stored",
        status_code=201,
        shown={"took": 0.002},
    )
    assert said == f"message {WHOM} bytes=120 stored 201 in 2 ms"


def test_who_was_refused_and_why():
    said = line(
        "Refused",
        uaid_hash=UAID,
        channel_id=CHANNEL,
        reason="No such subscription",
        status_code=410,
        errno=106,
        client_info={"remote_ip": "192.0.2.7", "uri": "/wpush/...", "user_agent": "x"},
        shown={"took": 0.0},
    )
    assert said == (
        f'refused {WHOM} from=192.0.2.7 errno=106 reason="No such subscription" 410 in 0 ms'
    )


def test_a_session_has_what_is_not_zero():
    said = line(
        "Session", uaid_hash=UAID, host="push.example", connection_time=34, direct_acked=2, nacks=0
    )
    assert said == f"session uaid={UAID} host=push.example seconds=34 direct_acked=2"


def test_fields_of_requests_and_their_time():
    info = {"uaid_hash": UAID, "channel_id": CHANNEL.replace("-", ""), "remote_ip": "192.0.2.7"}
    timings = {"request_time": 0.0104, "route_time": 0.001}
    said = line("Request timings", client_info=info, timings=timings, status_code=201)
    assert said == f"Request timings {WHOM} 201 in 10 ms"


def test_what_the_text_says_is_not_said_twice():
    assert line("Unknown subscription: {channel_id}", channel_id=CHANNEL, uaid_hash=UAID) == (
        f"Unknown subscription: {CHANNEL} uaid={UAID}"
    )


def test_other_events_are_their_text():
    assert line("Created table {name}", name="message_2026_11") == "Created table message_2026_11"
    assert not human.concerns(event("Created table {name}", name="x", reason="y"))


def test_texts_that_are_no_format():
    assert line("{a} {", uaid_hash=UAID) == f"{{a}} {{ uaid={UAID}"


def test_a_clock_that_was_set_back():
    assert line("hello", uaid_hash=UAID, shown={"took": -5.0}).endswith(" in 0 ms")


def test_secrets_stay_out():
    reason = "no https://push.example/wpush/v1/gAAAsecretsecret"
    said = line("Refused", uaid_hash=UAID, reason=reason)
    assert "gAAA" not in said
    assert "/wpush/v1/..." in said


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_value_can_pass_for_something_else(reason, address):
    """Whatever senders write: a value has no blank outside of quotes, and the line is one."""
    said = line("Refused", reason=reason, status_code=400, client_info={"remote_ip": address})
    assert len(said.splitlines()) == 1
    pairs = re.fullmatch(
        r'refused((?: \w+=(?:"(?:[^"\\]|\\.)*"|[^\s"=\\]+))*) 400(?:\.\.\.\[\+\d+\]\n)?', said
    )
    assert pairs is not None, said
    names = re.findall(r' (\w+)=(?:"(?:[^"\\]|\\.)*"|[^\s"=\\]+)', pairs[1])
    assert names == [name for name, value in (("from", address), ("reason", reason)) if value]


def test_what_is_shown_is_for_people_only():
    text = PushLogger("Autopush").json_format(
        event("Register", uaid_hash=UAID, shown={"status": 200, "took": 0.1, "channel_id": "x"})
    )
    assert set(json.loads(text)["Fields"]) == {
        "uaid_hash",
        "log_namespace",
        "log_level",
        "message",
    }
    assert json.loads(text)["Fields"]["message"] == "Register"
