"""Monthly transition (spec/websocket 15)."""

from __future__ import annotations

import pytest

from autopush.db.interface import MOVING_FROM
from autopush.exceptions import StoreBusy, StoreError
from autopush.session.month import is_later
from autopush.session.states import State
from autopush.tests.session.support import (
    CHID,
    CHID2,
    MONTH,
    UAID,
    Events,
    Rig,
    ack,
    message,
    numbers,
    versions,
)

OLD = "message_2026_10"


@pytest.fixture
def rig():
    rig = Rig()
    rig.store.months.accepted.add(OLD)
    rig.user(current_month=OLD, last_connect=202610180006)
    return rig


def notifications(session):
    return versions(f for f in session.wire.take() if f.get("messageType") == "notification")


def month(rig):
    return rig.store.users[UAID]["current_month"]


def test_15_a_drained_user_moves(rig):
    rig.store.add_channel(OLD, UAID, CHID)
    stored = [message(topic="a"), message(1)]
    rig.put(*stored, month=OLD)
    session = rig.hello(UAID)
    assert notifications(session) == numbers(stored[0])
    session.received(ack(stored[0]))
    assert month(rig) == OLD and session.month == OLD
    session.received(ack(stored[1]))
    assert month(rig) == MONTH and session.month == MONTH
    assert session.state is State.LIVE
    assert rig.store.channels[MONTH, UAID].chids == {CHID}
    assert str(rig.store.users[UAID]["last_connect"]).startswith("202611")


def test_15_until_then_everything_goes_to_the_old_month(rig):
    rig.put(message(1), month=OLD)
    session = rig.hello(UAID)
    session.received({"messageType": "register", "channelID": CHID})
    assert rig.store.channels[OLD, UAID].chids == {CHID}
    rig.deliver(message())
    session.closed()
    assert len(rig.rows(month=OLD)) == 2


def test_15_commands_wait_while_it_moves(rig):
    rig.store.hold("move_month")
    session = rig.hello(UAID)
    assert session.state is State.MOVING_MONTH
    session.received({"messageType": "register", "channelID": CHID})
    assert not session.wire.reading
    assert len(session.wire.sent) == 1
    rig.store.release("move_month")
    assert session.wire.reading
    assert session.wire.sent[1]["status"] == 200
    assert rig.store.channels[MONTH, UAID].chids == {CHID}


def test_q19_what_was_stored_late_is_delivered(rig):
    rig.store.hold("fetch_since")
    session = rig.hello(UAID)
    late = message(5)
    rig.put(late, month=OLD)
    rig.store.release("fetch_since")
    assert notifications(session) == numbers(late)
    session.received(ack(late))
    assert rig.pointer() == late.sortkey_timestamp


def test_q19_the_new_month_is_read_after_it(rig):
    waiting = message(5)
    rig.put(waiting)
    assert notifications(rig.hello(UAID)) == numbers(waiting)


def test_q20_channels_are_merged(rig):
    rig.store.add_channel(OLD, UAID, CHID)
    rig.store.add_channel(MONTH, UAID, CHID2)
    rig.hello(UAID)
    assert rig.store.channels[MONTH, UAID].chids == {CHID, CHID2}


def test_q20_a_user_to_be_reset_does_not_move(rig):
    rig.user(current_month=OLD, record_version=None)
    session = rig.hello(UAID)
    assert session.wire.closes == [None]
    assert rig.store.users == {}
    assert rig.store.called("move_month") == 0


def test_15_throttled_is_tried_again_later(rig):
    rig.store.fail("move_month", StoreBusy())
    session = rig.hello(UAID)
    assert rig.draws == [(1, 1800)]
    assert session.state is State.LIVE and month(rig) == OLD
    # The connection works normally meanwhile.
    session.received({"messageType": "register", "channelID": CHID})
    assert session.wire.sent[1]["status"] == 200
    rig.clock.advance(1)
    assert month(rig) == MONTH
    assert rig.store.channels[MONTH, UAID].chids == {CHID}


def test_15_a_check_meanwhile_is_a_pass_and_another_try(rig):
    rig.node.randrange = lambda low, high: 1000
    rig.store.fail("move_month", StoreBusy())
    rig.hello(UAID)
    rig.node.check(UAID)
    assert month(rig) == MONTH
    assert rig.clock.getDelayedCalls() == []


def test_q1_a_check_flagged_meanwhile_does_not_wait_for_the_retry(rig):
    rig.node.randrange = lambda low, high: 1000
    rig.store.fail("move_month", StoreBusy())
    session = rig.hello(UAID)
    session.wire.output_paused = True
    rig.node.check(UAID)
    session.wire.output_paused = False
    session.output_resumed()
    assert month(rig) == MONTH


@pytest.mark.parametrize("failure", [StoreError(), RuntimeError()])
def test_15_other_errors_close(rig, failure):
    rig.store.fail("move_month", failure)
    with Events() as events:
        session = rig.hello(UAID)
    assert session.wire.closes == [None]
    assert len(events.of("Unexpected error")) == 1


@pytest.mark.parametrize("failure", [None, StoreBusy()])
def test_15_the_connection_may_end_meanwhile(rig, failure):
    if failure:
        rig.store.fail("move_month", failure)
    rig.store.hold("move_month")
    session = rig.hello(UAID)
    session.closed()
    rig.store.calls.clear()
    rig.store.release("move_month")
    assert session.state is State.CLOSED
    assert rig.store.calls == [] and rig.clock.getDelayedCalls() == []


def test_15_rows_being_deleted_are_waited_for(rig):
    rig.node.store_direct = True
    rig.store.hold("fetch_since")
    session = rig.hello(UAID)
    direct = message()
    rig.deliver(direct)
    rig.store.hold("delete_message")
    session.received(ack(direct))
    rig.store.release("fetch_since")
    assert session.state is State.MOVING_MONTH
    assert rig.store.called("move_month") == 0
    rig.store.release("delete_message")
    assert rig.store.called("move_month") == 1
    assert session.state is State.LIVE


def test_15_rows_not_acknowledged_move_along(rig):
    rig.node.store_direct = True
    rig.store.hold("fetch_since")
    session = rig.hello(UAID)
    direct = message()
    rig.deliver(direct)
    rig.store.release("fetch_since")
    assert session.month == MONTH
    assert notifications(session) == numbers(direct)  # once
    session.received(ack(direct))
    assert rig.rows() == []


def test_the_move_names_its_connection(rig):
    session = rig.hello(UAID)
    (args,) = [args for name, args in rig.store.calls if name == "move_month"]
    assert args == (UAID, OLD, MONTH, (rig.node.router_url, session.connected_at))


def test_another_connection_has_the_user_by_then(rig):
    rig.store.add_channel(OLD, UAID, CHID)
    rig.store.hold("fetch_since")
    session = rig.hello(UAID)
    rig.store.users[UAID].update(node_id="http://other.example", connected_at=1 << 50)
    rig.store.release("fetch_since")
    assert session.wire.closes == [None]
    assert month(rig) == OLD
    assert (MONTH, UAID) not in rig.store.channels


def test_a_move_that_a_node_left_half_done_is_finished(rig):
    late = message(5)
    rig.put(late, month=OLD)
    rig.store.add_channel(OLD, UAID, CHID)
    rig.user(current_month=MONTH, **{MOVING_FROM: OLD})
    session = rig.hello(UAID)
    assert MOVING_FROM not in rig.store.users[UAID]
    assert rig.store.channels[MONTH, UAID].chids == {CHID}
    assert rig.rows(month=OLD) == []
    rig.clock.advance(1)
    assert notifications(session) == numbers(late)


def test_a_move_of_which_nothing_is_left_costs_nothing(rig):
    rig.user(current_month=MONTH)
    rig.hello(UAID)
    assert rig.store.called("finish_move") == 0


def test_a_user_of_a_later_month_stays_there(rig):
    later = "message_2026_12"
    rig.store.months.accepted.add(later)
    rig.user(current_month=later)
    session = rig.hello(UAID)
    assert month(rig) == later and session.month == later


@pytest.mark.parametrize(
    "one, other, expected",
    [
        ("message_2026_12", "message_2026_11", True),
        ("message_2027_01", "message_2026_12", True),
        ("message_2026_11", "message_2026_11", False),
        ("message_2026_10", "message_2026_11", False),
        ("other_2026_12", "message_2026_11", False),
        ("message", "message_2026_11", False),
        ("message_2026_11", "message", False),
    ],
)
def test_is_later(one, other, expected):
    assert is_later(one, other) is expected
