"""hello (spec/websocket 5.1 and 7)."""

from __future__ import annotations

import re
import uuid
from decimal import Decimal

import pytest
from hypothesis import given, strategies as st
from twisted.internet.defer import fail, succeed
from twisted.logger import LogLevel

from autopush.db.interface import Arrival
from autopush.exceptions import StoreBusy, StoreError
from autopush.logging import events as logging
from autopush.net.nodeclient import NodeGone
from autopush.session import Delivery
from autopush.session.hello import AHEAD
from autopush.session.states import State
from autopush.tests.session.support import (
    CHID,
    CHID2,
    MONTH,
    MORE_INFO,
    ROUTER_URL,
    START,
    UAID,
    Events,
    Peers,
    Rig,
    hello,
    message,
    versions,
)

OTHER = "http://other.example:8081"


@pytest.fixture
def rig():
    return Rig()


def error(reason, status):
    return {"messageType": "hello", "reason": reason, "status": status, "more_info": MORE_INFO}


def test_5_1_the_answer(rig):
    session = rig.hello()
    (answer,) = session.wire.sent
    uaid = answer.pop("uaid")
    assert re.fullmatch("[0-9a-f]{32}", uaid) and session.uaid == uaid
    assert answer == {
        "messageType": "hello",
        "status": 200,
        "use_webpush": True,
        "env": "development",
    }
    assert rig.node.clients == {uaid: session}
    assert rig.metrics.of("ua.command.hello") == [(1, None)]


def test_5_1_ping_tells_the_interval():
    session = Rig(auto_ping_interval=300.0, env="stage").hello()
    (answer,) = session.wire.sent
    assert answer["ping"] == 300.0 and isinstance(answer["ping"], float)
    assert answer["env"] == "stage"


@pytest.mark.parametrize(
    "wanted, found",
    [
        ({}, {}),
        (None, {}),
        ({"a": "v"}, {"errors": {"a": "Broadcast not found"}}),
        (["a"], {}),
    ],
)
def test_23_2_broadcasts_are_answered_where_asked_for(rig, wanted, found):
    (answer,) = rig.hello(broadcasts=wanted).wire.sent
    assert answer["broadcasts"] == found


@pytest.mark.parametrize("value", [True, 1, "x", [0], {"a": 1}])
def test_5_1_use_webpush_passes_if_truthy(rig, value):
    session = rig.connect()
    session.received({"messageType": "hello", "use_webpush": value})
    assert session.wire.sent[0]["status"] == 200


@pytest.mark.parametrize("extra", [{}, {"use_webpush": None}])
def test_5_1_who_does_not_speak_of_it_means_web_push(rig, extra):
    session = rig.connect()
    session.received({"messageType": "hello", **extra})
    (answer,) = session.wire.sent
    assert (answer["status"], answer["use_webpush"]) == (200, True)
    assert session.state is State.LIVE


@pytest.mark.parametrize("value", [False, 0, "", [], {}])
def test_5_1_use_webpush_is_not_to_be_denied(rig, value):
    session = rig.connect()
    session.received({"messageType": "hello", "use_webpush": value})
    assert session.wire.sent == [error("Simplepush not supported", 401)]
    assert session.wire.closes == [None]
    assert rig.store.calls == []


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(uaid=JSON_VALUES | st.sampled_from([" " + UAID, "é" * 32, UAID[:-1], UAID + "0", "٣" * 32]))
def test_5_1_what_is_no_uaid_counts_as_none(uaid):
    rig = Rig()
    session = rig.connect()
    session.received({**hello(), "uaid": uaid})
    (answer,) = session.wire.sent
    assert answer["status"] == 200 and re.fullmatch("[0-9a-f]{32}", answer["uaid"])
    assert session.wire.closes == [] and not session.existing_uaid
    assert rig.store.called("get_user") == 0


SPELLINGS = {
    "dashes": lambda uaid: str(uuid.UUID(uaid)),
    "upper case": str.upper,
    "dashes, upper case": lambda uaid: str(uuid.UUID(uaid)).upper(),
    "braces": lambda uaid: f"{{{uuid.UUID(uaid)}}}",
    "urn": lambda uaid: uuid.UUID(uaid).urn,
    "as we write it": str,
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_5_1_a_known_uaid_is_recognised_in_any_spelling(rig, spelling):
    rig.user(UAID)
    session = rig.hello(SPELLINGS[spelling](UAID), known=False)
    (answer,) = session.wire.sent
    assert answer["uaid"] == UAID  # named as ever
    assert session.existing_uaid and rig.node.clients == {UAID: session}
    assert list(rig.store.users) == [UAID]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_5_1_an_unknown_one_is_replaced_in_any_spelling(rig, spelling):
    session = rig.hello(SPELLINGS[spelling](UAID), known=False)
    assert session.wire.sent[0]["uaid"] != UAID
    assert rig.store.users == {} and not session.recorded


@pytest.mark.parametrize(
    "first, second, reason",
    [
        ({"messageType": "hello", "use_webpush": False}, None, "Simplepush not supported"),
        (hello(UAID), hello(UAID), "duplicate hello"),
    ],
)
def test_18_a_refused_hello_is_logged_with_its_reason(rig, first, second, reason):
    rig.user(UAID)
    session = rig.connect()
    with Events() as events:
        session.received(first)
        if second is not None:
            session.received(second)
    (event,) = events.of("Hello refused")
    assert event["log_level"] is LogLevel.info and event["reason"] == reason
    assert event["uaid_hash"] == session.uaid
    assert event["ua_browser_family"] == "Firefox"


def test_7_a_new_user_costs_the_store_nothing(rig):
    session = rig.hello()
    assert rig.store.calls == []
    assert session.state is State.LIVE and session.registered
    assert session.uaid_reset and not session.existing_uaid


def test_7_a_new_user_is_written_with_its_first_channel(rig):
    session = rig.hello()
    for chid in (CHID, CHID2):
        session.received({"messageType": "register", "channelID": chid})
    assert [answer["status"] for answer in session.wire.sent] == [200] * 3
    writes = [name for name, _ in rig.store.calls]
    assert writes == ["register_user", "add_channel", "add_channel"]
    assert rig.store.channels[MONTH, session.uaid].chids == {CHID, CHID2}
    record = rig.store.users[session.uaid]
    assert str(record.pop("last_connect")).startswith("202611")
    assert record == {
        "router_type": "webpush",
        "node_id": ROUTER_URL,
        "connected_at": session.connected_at,
        "record_version": 1,
        "current_month": MONTH,
    }


def test_7_one_that_returns_without_a_channel_gets_another_uaid(rig):
    first = rig.hello()
    first.closed()
    second = rig.hello(first.uaid, known=False)
    (answer,) = second.wire.sent
    assert answer["status"] == 200 and answer["uaid"] not in (None, first.uaid)
    assert rig.store.users == {} and rig.node.clients == {answer["uaid"]: second}


def test_7_one_that_returns_with_a_channel_keeps_its_uaid(rig):
    first = rig.hello()
    first.received({"messageType": "register", "channelID": CHID})
    first.closed()
    assert rig.hello(first.uaid, known=False).wire.sent[0]["uaid"] == first.uaid


def test_7_a_known_user_keeps_its_uaid(rig):
    rig.user(critical="kept", last_connect=202611180006)
    session = rig.hello(UAID)
    assert session.wire.sent[0]["uaid"] == UAID
    assert session.existing_uaid and not session.uaid_reset
    assert rig.store.users[UAID] == {
        "router_type": "webpush",
        "node_id": ROUTER_URL,
        "connected_at": session.connected_at,
        "last_connect": 202611180006,
        "record_version": 1,
        "current_month": MONTH,
        "critical": "kept",
    }
    assert [name for name, _ in rig.store.calls] == [
        "get_user",
        "register_user",
        "touch_channels",
        "fetch_topics",
        "fetch_since",
    ]


def test_7_record_the_store_has_written_is_not_written_again():
    rig = Rig(peers=Peers())
    rig.user(node_id=OTHER, connected_at=1)

    def return_user(uaid, node_id, connected_at):
        previous = {**rig.store.users[uaid], "uaid": uaid}
        rig.store.users[uaid].update(node_id=node_id, connected_at=connected_at)
        return succeed(Arrival(True, previous))

    rig.store.return_user = return_user
    session = rig.hello(UAID)
    assert session.wire.sent[0]["uaid"] == UAID
    assert session.existing_uaid and not session.uaid_reset
    assert (session.month, session.rotate, session.reset_uaid) == (MONTH, False, False)
    assert [name for name, _ in rig.store.calls] == [
        "touch_channels",
        "fetch_topics",
        "fetch_since",
    ]
    assert rig.peers.requests == [("DELETE", f"{OTHER}/notif/{UAID}/1")]


def test_7_last_connect_is_renewed_in_a_new_month(rig):
    rig.user(last_connect=202610180006)
    rig.hello(UAID)
    assert str(rig.store.users[UAID]["last_connect"]).startswith("202611")


def test_s2_a_hello_keeps_the_channels_alive(rig):
    rig.user()
    rig.store.add_channel(MONTH, UAID, CHID)
    before = rig.store.channels[MONTH, UAID].expiry
    rig.clock.advance(86400)
    rig.hello(UAID)
    assert rig.store.channels[MONTH, UAID].expiry == before + 86400


def test_7_an_unknown_uaid_is_replaced(rig):
    session = rig.hello(UAID, known=False)
    assert session.wire.sent[0]["uaid"] != UAID
    assert session.existing_uaid and session.uaid_reset
    assert rig.store.users == {}


@pytest.mark.parametrize(
    "changes, code",
    [
        ({"router_type": None}, 104),
        ({"connected_at": None}, 104),
        ({"current_month": None}, 105),
        ({"current_month": "nope"}, 105),
        ({"router_type": None, "current_month": None}, 104),
    ],
)
def test_7_a_useless_record_is_dropped(rig, changes, code):
    rig.user(**changes)
    with Events() as events:
        session = rig.hello(UAID)
    assert session.wire.sent[0]["uaid"] != UAID
    assert rig.store.users == {}
    assert rig.metrics.of("ua.expiration") == [(1, [f"code:{code}"])]
    (event,) = events.of("Dropping User")
    assert event["code"] == code and event["uaid_hash"] == UAID
    assert UAID in event["uaid_record"]


@pytest.mark.parametrize("router_type", ["fcm", "gcm", "apns", "adm"])
def test_q12_a_bridge_users_record_is_left_alone(rig, router_type):
    rig.user(router_type=router_type, current_month=None, node_id=None)
    before = dict(rig.store.users[UAID])
    session = rig.hello(UAID)
    assert session.wire.sent[0]["uaid"] != UAID
    assert rig.store.users[UAID] == before
    assert rig.metrics.of("ua.expiration") == []


def test_q13_months_the_store_accepts_are_kept(rig):
    rig.store.months.accepted.add("message_2026_01")
    rig.user(current_month="message_2026_01")
    assert rig.hello(UAID).wire.sent[0]["uaid"] == UAID


@pytest.mark.parametrize("version, reset", [(None, True), (0, True), ("1", False), (2, False)])
def test_7_an_old_record_is_reset_after_draining(rig, version, reset):
    rig.user(record_version=version)
    rig.put(message(1))
    session = rig.hello(UAID)
    assert session.uaid_reset is reset
    assert len(versions(session.wire.sent[1:])) == 1
    assert session.wire.closes == []


def test_7_6_a_newer_connection_wins(rig):
    rig.user(node_id=OTHER, connected_at=(START + 100) * 1000)
    session = rig.hello(UAID)
    assert session.wire.sent == [error("already_connected", 500)]
    # Quirk Q3: it is closed.
    assert session.wire.closes == [None]
    assert rig.node.clients == {}


def test_q34_equal_moments_are_refused(rig):
    session = rig.connect()
    rig.user(node_id=OTHER, connected_at=session.connected_at)
    session.received(hello(UAID))
    assert session.wire.sent == [error("already_connected", 500)]


def test_a_clock_set_back_at_a_restart_shuts_nobody_out(rig):
    later = Decimal((START + 3600) * 1000)
    rig.user(connected_at=later)
    session = rig.hello(UAID)
    assert session.wire.sent[0]["uaid"] == UAID
    assert rig.store.users[UAID]["connected_at"] == session.connected_at == later + 1
    again = rig.hello(UAID)
    assert session.wire.closes == [None] and again.registered


def test_q34_in_a_cluster_a_record_from_the_future_is_refused():
    rig = Rig(Peers())
    rig.user(connected_at=Decimal((START + 3600) * 1000))
    session = rig.hello(UAID)
    assert session.wire.sent == [error("already_connected", 500)]


SIBLING = "worker-2.localhost"


@pytest.mark.parametrize("node_id", [ROUTER_URL, f"http://{SIBLING}"])
def test_a_clock_set_back_shuts_nobody_out_of_a_service_with_workers(node_id):
    sockets = {ROUTER_URL.removeprefix("http://"): "/a", SIBLING: "/b"}
    rig = Rig(Peers(), worker_sockets=sockets)
    later = Decimal((START + 3600) * 1000)
    rig.user(connected_at=later, node_id=node_id)
    session = rig.hello(UAID)
    assert session.wire.sent[0]["uaid"] == UAID
    assert rig.store.users[UAID]["connected_at"] == session.connected_at == later + 1


@pytest.mark.parametrize("ahead", [1, AHEAD])
def test_a_newer_connection_of_another_worker_is_not_outdone(ahead):
    rig = Rig(Peers(), worker_sockets={SIBLING: "/b"})
    session = rig.connect()
    newer = Decimal(max(session.connected_at, START * 1000) + ahead)
    rig.user(connected_at=newer, node_id=f"http://{SIBLING}")
    rig.clock.advance(0.5)
    session.received(hello(UAID))
    assert session.wire.sent == [error("already_connected", 500)]


def test_a_newer_connection_of_this_process_is_not_outdone(rig):
    older, newer = rig.connect(), rig.connect()
    rig.user()
    newer.received(hello(UAID))
    with Events() as events:
        older.received(hello(UAID))
    assert older.wire.sent == [error("already_connected", 500)]
    assert [e["reason"] for e in events.of("Hello refused")] == ["already_connected"]
    assert newer.registered and newer.wire.closes == []


@pytest.mark.parametrize("failure", [StoreBusy("throttled"), StoreError("disk")])
@pytest.mark.parametrize("call", ["get_user", "register_user"])
def test_5_1_storage_errors_are_told_after_a_while(rig, failure, call):
    rig.user()
    rig.store.fail(call, failure)
    session = rig.hello(UAID)
    assert rig.draws == [(4, 9)]
    rig.clock.advance(3.9)
    assert session.wire.sent == [] and session.wire.closes == []
    rig.clock.advance(0.2)
    assert session.wire.sent == [error("error - overloaded", 503)]
    assert session.wire.closes == [None]


def test_13_1_the_delay_ends_with_the_connection(rig):
    rig.store.fail("register_user", StoreBusy())
    session = rig.hello(UAID)
    session.closed()
    assert rig.clock.getDelayedCalls() == []


@pytest.mark.parametrize("known", [True, False])
def test_5_1_any_other_error_is_told_at_once(rig, known, monkeypatch):
    if known:
        rig.store.fail("register_user", RuntimeError("oops"))
    else:
        monkeypatch.setattr(rig.node, "conf", None)
    with Events() as events:
        session = rig.hello(UAID if known else None)
    assert session.wire.sent == [error("error", 503)]
    assert session.wire.closes == [None]
    assert len(events.of("Unexpected error")) == 1


def test_7_7_the_older_connection_of_this_node_is_closed(rig):
    first = rig.hello(UAID)
    second = rig.hello(UAID)
    assert first.wire.closes == [None]
    assert rig.node.clients == {UAID: second}
    first.closed()
    assert rig.node.clients == {UAID: second}


def test_7_7_a_connection_that_is_not_newer_closes_itself(rig):
    rig.user()
    rig.store.hold("register_user")
    older, newer = rig.connect(), rig.connect()
    older.received(hello(UAID))
    newer.received(hello(UAID))
    held = rig.store._held["register_user"]
    held.reverse()
    with Events() as events:
        rig.store.release("register_user")
    assert [e["reason"] for e in events.of("Hello refused")] == ["a newer connection is here"]
    assert newer.registered
    assert older.wire.closes == [None] and older.wire.sent == []


def test_7_8_the_other_node_is_told():
    rig = Rig(peers=Peers())
    rig.user(node_id=OTHER, connected_at=Decimal(12345))
    session = rig.hello(UAID)
    assert rig.peers.requests == [("DELETE", f"{OTHER}/notif/{UAID}/12345")]
    assert session.registered


@pytest.mark.parametrize(
    "changes",
    [
        {"node_id": None},
        {"node_id": ROUTER_URL},
        {"node_id": "file:///etc/passwd#"},
        {"node_id": 7},
    ],
)
def test_7_8_only_another_node_is_told(changes):
    rig = Rig(peers=Peers())
    rig.user(**changes)
    assert rig.hello(UAID).registered
    assert rig.peers.requests == []


@pytest.mark.parametrize("failure, logged", [(NodeGone("dead"), 0), (RuntimeError("x"), 1)])
def test_7_8_that_it_is_gone_is_no_error(failure, logged):
    rig = Rig(peers=Peers(fail(failure)))
    rig.user(node_id=OTHER)
    with Events() as events:
        assert rig.hello(UAID).registered
    found = events.of("Unexpected error")
    assert [event["extra"] for event in found] == ["Failed to delete old node"] * logged


def test_7_a_record_dropped_meanwhile_is_not_revived(rig):
    rig.user()
    rig.store.hold("get_user")
    session = rig.hello(UAID)
    del rig.store.users[UAID]
    rig.store.release("get_user")
    assert session.wire.sent[0]["uaid"] != UAID
    assert rig.store.users == {}


def test_7_a_month_changed_meanwhile_is_adopted(rig):
    rig.store.months.accepted.add("message_2026_10")
    rig.user(current_month="message_2026_10")
    rig.store.hold("get_user")
    session = rig.hello(UAID)
    rig.store.users[UAID]["current_month"] = MONTH
    rig.store.release("get_user")
    assert session.month == MONTH and not session.rotate
    assert rig.store.users[UAID]["current_month"] == MONTH


def test_7_the_connection_may_end_meanwhile(rig):
    rig.store.hold("register_user")
    session = rig.hello(UAID)
    session.closed()
    rig.store.release("register_user")
    assert session.wire.output_paused  # nothing is connected any more
    assert rig.node.clients == {}
    assert list(rig.store.users) == [UAID]


def test_18_hello_is_logged(rig):
    with Events() as events:
        session = rig.hello()
    (event,) = events.of("hello")
    assert event["uaid_hash"] == session.uaid
    assert event["ua_browser_family"] == "Firefox" and event["ua_browser_ver"].startswith("140")
    assert event["log_namespace"] == "autopush.websocket.PushServerProtocol"


@pytest.mark.parametrize("held", ["get_user", "register_user"])
def test_7_while_a_hello_is_under_way_the_user_counts_as_busy(rig, held):
    """The record may lead here already: an endpoint that hears "not connected" would clear it."""
    rig.user()
    rig.store.hold(held)
    session = rig.hello(UAID)
    assert rig.node.check(UAID) is Delivery.BUSY
    assert rig.deliver(message()) is Delivery.BUSY
    rig.store.release(held)
    assert session.registered
    assert rig.node.check(UAID) is Delivery.DELIVERED


def test_7_a_hello_that_fails_leaves_nobody_busy(rig):
    rig.user()
    rig.store.fail("get_user", StoreError())
    rig.hello(UAID)
    assert rig.node.check(UAID) is Delivery.NOT_CONNECTED


def test_7_a_connection_that_ends_during_hello_leaves_nobody_busy(rig):
    rig.user()
    rig.store.hold("register_user")
    rig.hello(UAID).closed()
    rig.store.release("register_user")
    assert rig.node.check(UAID) is Delivery.NOT_CONNECTED


@pytest.mark.parametrize("people", [False, True])
def test_a_hello_is_one_line(rig, monkeypatch, people):
    """For people at the level that is written by default, else for those who look for faults."""
    monkeypatch.setattr(logging, "_for_people", people)
    with Events() as events:
        rig.live()
    (event,) = events.of("hello")
    assert event["log_level"].name == ("info" if people else "debug")
    assert event.get("shown") == ({"status": 200, "took": 0} if people else None)
