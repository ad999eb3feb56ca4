"""register and unregister (spec/websocket 5.2 and 5.3)."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, strategies as st

from autopush.exceptions import ChannelLimit, StoreBusy, StoreError
from autopush.message.encoding import base64url_encode
from autopush.session.states import State
from autopush.tests.message.vapid_support import Sender
from autopush.tests.session.support import (
    CHID,
    CHID2,
    MONTH,
    MORE_INFO,
    UAID,
    Events,
    Rig,
    ack,
    message,
    numbers,
    versions,
)

SENDER = Sender()
KEY = SENDER.public_key

OVERLOADED = {"messageType": "error", "reason": "overloaded", "status": 503}
SERVER_ERROR = {
    "messageType": "register",
    "status": 500,
    "reason": "An unexpected server error occurred",
}


@pytest.fixture
def rig():
    return Rig()


def register(chid=CHID, **extra):
    return {"messageType": "register", "channelID": chid, **extra}


def unregister(chid=CHID, **extra):
    return {"messageType": "unregister", "channelID": chid, **extra}


def channels(rig):
    return rig.store.channels[MONTH, UAID].chids


def refused(kind, reason, **members):
    answer = {"messageType": kind, "status": 401, "more_info": MORE_INFO, "reason": reason}
    return {**answer, **members}


def test_5_2_register(rig):
    session = rig.live()
    with Events() as events:
        session.received(register())
    assert session.wire.sent == [
        {
            "messageType": "register",
            "channelID": CHID,
            "pushEndpoint": f"https://push.example/wpush/v1/{UAID}-{CHID}",
            "status": 200,
        }
    ]
    assert channels(rig) == {CHID}
    assert rig.metrics.of("ua.command.register") == [(1, None)]
    assert session.registers == 1
    (event,) = events.of("Register")
    assert event["channel_id"] == CHID and event["uaid_hash"] == UAID
    assert "Firefox" in event["user_agent"] and event["ua_os_family"] == "Linux"


def test_5_2_the_log_does_not_hold_the_capability(rig):
    with Events() as events:
        rig.live().received(register())
    (event,) = events.of("Register")
    assert event["endpoint"] == "https://push.example/wpush/v1/..."


@pytest.mark.parametrize("key", [KEY, KEY + "=", " " + KEY + "\n", KEY.replace("_", "/")])
def test_5_2_a_key_gives_a_v2_endpoint(rig, key):
    session = rig.live()
    session.received(register(key=key))
    session.received(register(key=None))
    first, second = session.wire.sent
    assert "/v2/" in first["pushEndpoint"] and "/v1/" in second["pushEndpoint"]


def test_5_2_without_a_channel(rig):
    session = rig.live()
    session.received({"messageType": "register"})
    assert session.wire.sent == [refused("register", "Missing ChannelID")]
    assert session.wire.closes == []


@pytest.mark.parametrize(
    "chid", [CHID.upper(), CHID.replace("-", ""), "{" + CHID + "}", "urn:uuid:" + CHID]
)
def test_q7_another_spelling(rig, chid):
    session = rig.live()
    session.received(register(chid))
    text = "Bad UUID format, uselower case, dashed format"
    assert session.wire.sent == [refused("register", text, channelID=chid)]
    assert rig.store.calls == [] and session.wire.closes == []


@pytest.mark.parametrize("chid", ["", "nope", CHID + "0", "é", "_".join(CHID.split("-"))[:32]])
def test_5_2_no_uuid(rig, chid):
    session = rig.live()
    session.received(register(chid))
    assert session.wire.sent == [refused("register", "Invalid UUID specified", channelID=chid)]


@pytest.mark.parametrize("chid", [None, 7, [CHID], {"a": 1}, True])
def test_q8_a_channel_that_is_no_text(rig, chid):
    session = rig.live()
    session.received(register(chid))
    assert session.wire.sent == [refused("register", "Invalid UUID specified", channelID=chid)]
    assert session.wire.closes == []


OTHER_CURVE = Sender(ec.SECP384R1()).public_key
COMPRESSED = base64url_encode(b"\x02" + SENDER.point[1:33])


@pytest.mark.parametrize(
    "key",
    [
        *("abcde", "a", "!!!!", "BAAA", KEY[:-2], KEY + "AAAA", COMPRESSED, OTHER_CURVE, "\ud800"),
        *(1, True, False, 0, [], {}, ["a"]),
    ],
)
def test_5_2_a_key_no_sender_can_have(rig, key):
    session = rig.live()
    with Events() as events:
        session.received(register(key=key))
    reason = "Invalid key: not a P-256 point"
    assert session.wire.sent == [refused("register", reason, status=400, channelID=CHID)]
    assert session.wire.closes == [] and session.wire.reading
    assert rig.store.calls == []
    (event,) = events.of("Register refused")
    assert event["reason"] == reason and event["uaid_hash"] == UAID


def test_5_2_the_limit_of_channels_is_told_as_such(rig):
    session = rig.live()
    rig.store.fail("add_channel", ChannelLimit("10000 channels"))
    session.received(register())
    reason = "Too many channels: end some first"
    assert session.wire.sent == [refused("register", reason, status=403, channelID=CHID)]
    assert session.wire.closes == [] and session.wire.reading


@given(
    chid=st.one_of(st.none(), st.integers(), st.text(), st.lists(st.text()), st.just(CHID)),
    key=st.one_of(st.none(), st.integers(), st.text(), st.just(KEY)),
    failure=st.sampled_from([None, StoreError(), StoreBusy(), ChannelLimit(), RuntimeError()]),
)
def test_q6_whatever_is_answered_names_the_channel(chid, key, failure):
    rig = Rig()
    session = rig.live()
    if failure is not None:
        rig.store.fail("add_channel", failure)
    session.received(register(chid, key=key))
    (answer,) = session.wire.sent
    assert answer["channelID"] == chid
    assert answer["status"] == 200 or answer["reason"]


@pytest.mark.parametrize("failure", [StoreBusy(), StoreError()])
def test_q5_reading_goes_on_after_a_storage_error(rig, failure):
    session = rig.live()
    rig.store.fail("add_channel", failure)
    session.received(register())
    assert session.wire.sent == [{**OVERLOADED, "channelID": CHID}]
    assert session.wire.reading and session.wire.pauses == 1
    session.received(register())
    assert session.wire.sent[1]["status"] == 200


def test_5_2_any_other_error(rig):
    session = rig.live()
    rig.store.fail("add_channel", RuntimeError())
    with Events() as events:
        session.received(register())
    assert session.wire.sent == [{**SERVER_ERROR, "channelID": CHID}]
    assert events.of("Unexpected error")[0]["extra"] == "Failed to register"


def test_12_reading_is_paused_while_it_is_stored(rig):
    session = rig.live()
    rig.store.hold("add_channel")
    session.received(register())
    assert not session.wire.reading and session.wire.sent == []
    session.received(register(CHID2))
    rig.store.release("add_channel")
    assert session.wire.reading
    assert [answer["channelID"] for answer in session.wire.sent] == [CHID, CHID2]


@pytest.mark.parametrize("chid", [CHID, CHID.upper(), CHID.replace("-", ""), "urn:uuid:" + CHID])
def test_5_3_unregister_echoes(rig, chid):
    session = rig.live()
    session.received(register())
    session.wire.take()
    session.received(unregister(chid, code=True, more={"a": [1]}))
    assert session.wire.sent == [
        {
            "messageType": "unregister",
            "channelID": chid,
            "code": True,
            "more": {"a": [1]},
            "status": 200,
        }
    ]
    assert channels(rig) == set()
    assert rig.metrics.of("ua.command.unregister") == [(1, None)]
    assert session.unregisters == 1


def test_5_3_a_channel_that_was_not_registered(rig):
    session = rig.live()
    session.received(unregister())
    assert session.wire.sent[0]["status"] == 200


@pytest.mark.parametrize("extra, code", [({}, None), ({"code": 202}, 202), ({"code": "x"}, 0)])
def test_18_unregister_is_logged(rig, extra, code):
    with Events() as events:
        rig.live().received(unregister(**extra))
    (event,) = events.of("Unregister")
    assert event["channel_id"] == CHID and event["uaid_hash"] == UAID
    assert event.get("code") == code
    assert event["shown"] == {"status": 200, "took": 0}


def test_18_what_failed_is_not_logged_as_done(rig):
    session = rig.live()
    rig.store.fail("add_channel", StoreError())
    rig.store.fail("remove_channel", StoreError())
    with Events() as events:
        session.received(unregister())
        session.received(register())
    assert events.of("Unregister") == events.of("Register") == []
    assert len(events.of("Failed to unregister")) == len(events.of("Failed to register")) == 1


def test_5_3_errors(rig):
    session = rig.live()
    session.received({"messageType": "unregister"})
    session.received(unregister("nope"))
    session.received(unregister("1_2" + "0" * 29))
    assert session.wire.sent == [
        refused("unregister", "Missing ChannelID"),
        refused("unregister", "Invalid ChannelID"),
        refused("unregister", "Invalid ChannelID"),
    ]
    assert session.wire.closes == [] and rig.store.calls == []


@pytest.mark.parametrize("chid", [None, 7, True, [CHID], {}])
def test_q8_unregister_of_the_wrong_type(rig, chid):
    session = rig.live()
    with Events() as events:
        session.received(unregister(chid))
    assert session.wire.sent == [] and session.wire.closes == []
    assert len(events.of("Malformed message")) == 1


def test_5_3_the_answer_waits_for_the_store(rig):
    session = rig.live()
    rig.store.hold("remove_channel")
    session.received(unregister())
    assert session.wire.sent == [] and not session.wire.reading
    rig.store.release("remove_channel")
    assert session.wire.sent[0]["status"] == 200 and session.wire.reading


@pytest.mark.parametrize(
    "failure, answer",
    [
        (StoreBusy(), OVERLOADED),
        (StoreError(), OVERLOADED),
        (RuntimeError(), {**SERVER_ERROR, "messageType": "unregister"}),
    ],
)
def test_5_3_a_removal_that_fails_is_told_and_changes_nothing(rig, failure, answer):
    session = rig.live()
    session.received(register())
    notification = message()
    rig.deliver(notification)
    session.wire.take()
    rig.store.fail("remove_channel", failure)
    session.received(unregister())
    assert session.wire.sent == [answer] and session.wire.reading
    assert channels(rig) == {CHID}
    session.closed()
    assert versions(rig.hello(UAID).wire.sent[1:]) == numbers(notification)


def test_5_3_what_is_stored_for_it_does_not_come_any_more(rig):
    rows = [message(topic="t"), *(message(stamp) for stamp in range(1, 12))]
    kept = message(20, chid=CHID2)
    rig.put(*rows, kept)
    session = rig.hello(UAID)
    session.received(unregister())
    session.closed()
    session = rig.hello(UAID)
    assert versions(session.wire.sent[1:]) == numbers(kept)
    # Nor when there is such a channel again; but what is sent to that one does.
    session.received(register())
    fresh = message(21)
    rig.put(fresh)
    session.closed()
    assert versions(rig.hello(UAID).wire.sent[1:]) == numbers(kept, fresh)


@pytest.mark.parametrize("deletes", [False, True])
def test_5_3_what_an_old_node_or_a_late_sender_left_is_deleted_when_met(rig, deletes):
    rig.store.deletes_read = deletes
    rig.put(message(topic="t"), message(1), message(2, chid=CHID2))
    rig.store.channels[MONTH, UAID].chids.remove(CHID)
    session = rig.hello(UAID)
    (frame,) = session.wire.sent[1:]
    assert frame["channelID"] == CHID2
    session.received(
        {"messageType": "ack", "updates": [{"channelID": CHID2, "version": frame["version"]}]}
    )
    assert session.state is State.LIVE
    rig.store.channels[MONTH, UAID].chids.add(CHID)
    session.closed()
    assert rig.hello(UAID).wire.sent[1:] == []


def test_5_3_a_channel_registered_during_the_pass_has_not_ended(rig):
    before = [message(stamp, chid=CHID2) for stamp in range(1, 11)]
    rig.put(*before)
    session = rig.hello(UAID)
    session.wire.take()
    fresh = message(20)
    rig.put(fresh)
    session.received(ack(*before))
    assert versions(session.wire.sent) == numbers(fresh)


def test_5_3_of_a_batch_what_was_acknowledged_stays_so(rig):
    """The others of the batch were acknowledged before: they must not come again."""
    first, second, other = message(1), message(2), message(3, chid=CHID2)
    rig.put(first, second, other)
    session = rig.hello(UAID)
    session.received(ack(first, second))
    session.received(unregister(CHID2))
    session.closed()
    assert rig.hello(UAID).wire.sent[1:] == []


def test_q25_what_was_sent_is_forgotten_whatever_the_spelling(rig):
    session = rig.live()
    kept = message(chid=CHID2)
    rig.deliver(message())
    rig.deliver(kept)
    session.received(unregister(CHID.upper()))
    session.closed()
    (row,) = rig.store.messages[MONTH, UAID].values()
    assert row.update_id == kept.version


def test_q35_the_drain_goes_on_when_the_last_one_was_forgotten(rig):
    first, second = message(1), message(20, chid=CHID2)
    rig.put(*[message(stamp) for stamp in range(2, 11)], first, second)
    session = rig.hello(UAID)
    assert len(session.wire.take()) == 11
    session.received(unregister())
    assert versions(session.wire.take()[1:]) == numbers(second)
    session.received(ack(second))
    assert rig.pointer() == second.sortkey_timestamp


def test_5_3_no_fetch_while_storage_is_told_of_acks(rig):
    topics = [message(topic="a"), message(topic="b")]
    rig.put(*topics)
    session = rig.hello(UAID)
    fetches = rig.store.called("fetch_topics")
    rig.store.hold("delete_message")
    session.received(ack(topics[0]))
    session.received(unregister())
    assert rig.store.called("fetch_topics") == fetches
    rig.store.release("delete_message")
    assert rig.store.called("fetch_topics") == fetches + 1


class TestFirstChannel:
    """A new user's record comes with its first channel (decisions/new-users)."""

    @pytest.mark.parametrize("failing", ["register_user", "add_channel"])
    def test_a_refusal_is_told_and_the_next_attempt_writes_both(self, rig, failing):
        session = rig.hello()
        rig.store.fail(failing, StoreBusy())
        session.received(register())
        session.received(register())
        assert [answer["status"] for answer in session.wire.sent] == [200, 503, 200]
        assert rig.store.users[session.uaid]["connected_at"] == session.connected_at
        assert rig.store.channels[MONTH, session.uaid].chids == {CHID}

    def test_registrations_at_once(self, rig):
        session = rig.hello()
        rig.store.hold("register_user")
        session.received(register())
        session.received(register(CHID2))
        rig.store.release("register_user")
        assert [answer["status"] for answer in session.wire.sent] == [200] * 3
        assert rig.store.channels[MONTH, session.uaid].chids == {CHID, CHID2}

    def test_the_month_is_that_of_the_registration(self, rig):
        session = rig.hello()
        rig.store.months.current = "message_2026_12"
        session.received(register())
        assert session.month == "message_2026_12"
        assert rig.store.users[session.uaid]["current_month"] == session.month
        assert rig.store.channels[session.month, session.uaid].chids == {CHID}

    def test_a_month_that_changes_under_an_attempt_of_unknown_outcome(self, rig):
        session = rig.hello()
        rig.store.fail("add_channel", StoreError())  # after the record
        session.received(register())
        rig.store.months.current = "message_2026_12"
        session.received(register())
        assert session.month == MONTH == rig.store.users[session.uaid]["current_month"]
        assert rig.store.channels[MONTH, session.uaid].chids == {CHID}

    def test_what_is_sent_to_it_arrives(self, rig):
        session = rig.hello()
        session.received(register())
        session.wire.take()
        rig.deliver(message(uaid=session.uaid), session.uaid)
        assert [frame["channelID"] for frame in session.wire.sent] == [CHID]
