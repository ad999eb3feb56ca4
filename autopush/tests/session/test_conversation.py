"""Which message does what, by state (spec/websocket 4)."""

from __future__ import annotations

import pytest

from autopush.session.conversation import MAX_NOT_UNDERSTOOD, MAX_QUEUED
from autopush.tests.session.support import CHID, MORE_INFO, UAID, Events, Rig, hello

DUPLICATE = {
    "messageType": "hello",
    "reason": "duplicate hello",
    "status": 401,
    "more_info": MORE_INFO,
}

NOT_UNDERSTOOD = {
    "messageType": "error",
    "status": 400,
    "reason": "Unknown messageType",
    "more_info": MORE_INFO,
}


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"messageType": "register", "channelID": CHID},
        {"messageType": "HELLO", "use_webpush": True},
        {"messageType": ["hello"]},
        {"messageType": "ping"},
    ],
)
def test_4_before_hello_anything_else_closes(rig, message):
    session = rig.connect()
    session.received(message)
    assert session.wire.closes == [None]
    assert session.wire.sent == []


@pytest.mark.parametrize("identified", [False, True])
def test_4_no_object_closes(rig, identified):
    session = rig.live() if identified else rig.connect()
    session.bad_input()
    assert session.wire.closes == [None]
    assert session.wire.sent == []


@pytest.mark.parametrize(
    "message",
    [
        {"messageType": "purge"},
        {"type": "register"},
        {"messageType": 7},
        {"messageType": ["register"]},
        {"messageType": None},
        {"messageType": "Register", "channelID": CHID},
    ],
)
def test_4_unknown_types_are_answered_and_the_connection_stays(rig, message):
    session = rig.live()
    session.received(message)
    assert session.wire.take() == [NOT_UNDERSTOOD]
    assert rig.metrics.of("ua.command.unknown") == [(1, None)]
    session.received({})
    assert session.wire.take() == [{}]
    assert session.wire.closes == []


def test_4_unknown_types_in_a_row_close_at_last(rig):
    session = rig.live()
    for known in ({}, {"messageType": "nack", "version": "v"}):
        for _ in range(MAX_NOT_UNDERSTOOD - 1):
            session.received({"messageType": "purge"})
        session.received(known)
        rig.clock.advance(60)
    assert session.wire.closes == []
    session.wire.take()
    for _ in range(MAX_NOT_UNDERSTOOD):
        session.received({"messageType": "purge"})
    assert session.wire.take() == [NOT_UNDERSTOOD] * (MAX_NOT_UNDERSTOOD - 1)
    assert session.wire.closes == [None]


def test_4_a_second_hello_is_refused(rig):
    session = rig.live()
    session.received(hello())
    assert session.wire.sent == [DUPLICATE]
    assert session.wire.closes == [None]


def test_4_an_unexpected_error_is_logged_and_the_connection_stays(rig):
    session = rig.live()
    session.node.metrics.increment = None
    with Events() as events:
        session.received({"messageType": "nack", "version": "v"})
    assert len(events.of("Unexpected error")) == 1
    assert session.wire.closes == []


def test_q36_commands_wait_until_the_hello_is_done(rig):
    rig.store.hold("register_user")
    session = rig.hello(UAID)
    session.received({"messageType": "register", "channelID": CHID})
    session.received({})
    assert session.wire.sent == []
    assert not session.wire.reading
    rig.store.release("register_user")
    answers = session.wire.take()
    assert [answer.get("messageType") for answer in answers] == ["hello", "register", None]
    assert answers[0]["uaid"] == UAID and UAID in answers[1]["pushEndpoint"]
    assert session.wire.reading


def test_q36_a_hello_pipelined_with_the_first_is_a_duplicate_afterwards(rig):
    rig.store.hold("register_user")
    session = rig.hello(UAID)
    session.received(hello())
    session.received({})
    rig.store.release("register_user")
    answers = session.wire.take()
    assert answers[0]["status"] == 200
    assert answers[1:] == [DUPLICATE]
    assert session.wire.closes == [None]


def test_q36_reading_goes_on_while_nothing_waits(rig):
    rig.store.hold("register_user")
    session = rig.hello(UAID)
    assert session.wire.reading
    rig.store.release("register_user")
    assert session.wire.pauses == 0


def test_q36_what_waits_is_bounded(rig):
    rig.store.hold("register_user")
    session = rig.hello(UAID)
    for _ in range(MAX_QUEUED):
        session.received({})
    assert session.wire.closes == []
    session.received({})
    assert session.wire.closes == [None]


def test_q26_nothing_counts_after_the_close(rig):
    session = rig.live()
    session.close()
    session.received({"messageType": "register", "channelID": CHID})
    session.received({"messageType": "unregister", "channelID": CHID})
    assert rig.store.calls == []
    assert session.wire.closes == [None]


def test_close_is_sent_once(rig):
    session = rig.live()
    session.close(4774)
    session.close()
    session.bad_input()
    assert session.wire.closes == [4774]


def test_5_7_ping(rig):
    session = rig.live()
    session.received({})
    assert session.wire.take() == [{}]
    rig.clock.advance(55)
    session.received({})
    assert session.wire.take() == [{}]
    rig.clock.advance(54.9)
    session.received({})
    assert session.wire.closes == [4774]
    assert session.wire.sent == []


def test_5_7_the_first_ping_is_answered_whatever_the_time(rig):
    session = rig.live()
    rig.clock.advance(1)
    session.received({})
    assert session.wire.sent == [{}]


def test_23_1_ping_by_name_is_a_ping(rig):
    session = rig.live()
    session.received({"messageType": "ping"})
    assert session.wire.take() == [{}]
    session.received({})
    assert session.wire.closes == [4774]


def test_what_the_socket_side_asks(rig):
    session = rig.connect()
    assert session.awaiting_hello and not session.registered
    assert session.base_tags == [
        "ua_os_family:Linux",
        "ua_browser_family:Firefox",
        "host:push.example",
    ]
    session.received(hello())
    assert session.registered and not session.awaiting_hello
    assert session.base_tags[-1] == "use_webpush:True"
    session.close()
    assert not session.registered


def test_5_uaid_hash_is_hashed_with_key_hash():
    rig = Rig(key_hash="SuperSikkret")
    assert rig.connect().uaid_hash is None
    session = rig.hello(UAID)
    assert session.uaid_hash != UAID and len(session.uaid_hash) == 64
    assert Rig().hello(UAID).uaid_hash == UAID
