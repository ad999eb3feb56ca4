"""Users who stay connected for weeks (quirk S2, spec/storage 8.5), and messages that come to a
month which the user has left (quirk S17)."""

from __future__ import annotations

import pytest

from autopush.constants import MAX_EXPIRY
from autopush.exceptions import StoreBusy, StoreError
from autopush.session.moves import LOOK_BACK
from autopush.session.states import State
from autopush.session.upkeep import DAY, STEP, STEPS
from autopush.tests.session.support import (
    CHID,
    CHID2,
    MONTH,
    START,
    UAID,
    Events,
    Peers,
    Rig,
    ack,
    message,
    numbers,
    versions,
)

OLD, NEW = MONTH, "message_2026_12"
OTHER = "http://other.example:8081"


@pytest.fixture
def rig():
    rig = Rig(Peers())
    rig.store.add_channel(MONTH, UAID, CHID)
    return rig


def pass_time(rig, seconds):
    """As the timer of the service does."""
    for _ in range(int(seconds / STEP)):
        rig.clock.advance(STEP)
        rig.node.upkeep.step()


def new_month(rig):
    rig.store.months.current = NEW
    rig.store.months.accepted.add(OLD)


def expiry(rig, month=MONTH):
    return rig.store.channels[month, UAID].expiry


def many_users(rig, number):
    return [rig.hello(f"{n:032x}") for n in range(number)]


class TestChannelRow:
    def test_s2_it_does_not_expire_under_a_connection_that_stays(self, rig):
        rig.hello(UAID)
        pass_time(rig, 90 * DAY)
        assert expiry(rig) > rig.now() + MAX_EXPIRY - 2 * DAY - STEP
        assert rig.store.channels[MONTH, UAID].chids == {CHID}

    def test_once_a_day_is_enough(self, rig):
        rig.hello(UAID)
        rig.store.calls.clear()
        pass_time(rig, 10 * DAY)
        assert 8 <= rig.store.called("touch_channels") <= 10

    def test_connections_younger_than_a_day_cost_nothing(self, rig):
        session = rig.hello(UAID)
        rig.store.calls.clear()
        pass_time(rig, DAY - STEP)
        session.closed()
        pass_time(rig, DAY)
        assert rig.store.calls == []

    def test_who_has_no_record_costs_nothing_and_stays(self, rig):
        session = rig.hello()
        rig.store.calls.clear()
        pass_time(rig, 2 * DAY)
        new_month(rig)
        pass_time(rig, 40 * DAY)
        assert rig.store.calls == [] and session.wire.closes == []
        session.received({"messageType": "register", "channelID": CHID})
        assert rig.store.users[session.uaid]["current_month"] == NEW
        pass_time(rig, 90 * DAY)
        assert rig.store.channels[NEW, session.uaid].expiry > rig.now()

    def test_throttled_is_tried_again(self, rig):
        rig.hello(UAID)
        pass_time(rig, DAY)
        rig.store.fail("touch_channels", StoreBusy())
        pass_time(rig, DAY)
        assert expiry(rig) > rig.now() + MAX_EXPIRY - DAY - STEP

    def test_turns_are_spread_evenly_over_the_day(self):
        rig = Rig()
        many_users(rig, 2 * STEPS + 1)
        pass_time(rig, DAY)
        per_step = set()
        for _ in range(STEPS):
            rig.store.calls.clear()
            pass_time(rig, STEP)
            per_step.add(rig.store.called("touch_channels"))
        assert max(per_step) == 3
        assert len({args for _, args in rig.store.calls}) == len(rig.store.calls)

    def test_everybody_gets_a_turn_every_day(self):
        rig = Rig()
        many_users(rig, 100)
        pass_time(rig, DAY)
        rig.store.calls.clear()
        pass_time(rig, DAY)
        touched = [args[1] for name, args in rig.store.calls if name == "touch_channels"]
        assert sorted(touched) == sorted(rig.node.clients)


class TestNewMonth:
    """A table is accepted until the end of the month after its own, however long one stays."""

    def test_connection_that_stays_moves_within_a_day(self, rig):
        session = rig.hello(UAID)
        pass_time(rig, 2 * DAY)
        new_month(rig)
        pass_time(rig, DAY)
        assert rig.store.users[UAID]["current_month"] == NEW == session.month
        assert rig.store.channels[NEW, UAID].chids == {CHID}
        assert session.state is State.LIVE and not session.rotate
        session.received({"messageType": "register", "channelID": CHID2})
        assert rig.store.channels[NEW, UAID].chids == {CHID, CHID2}

    def test_what_is_not_acknowledged_yet_comes_first(self, rig):
        stored = message(1, ttl=30 * DAY)
        rig.put(stored)
        session = rig.hello(UAID)
        pass_time(rig, 2 * DAY)
        new_month(rig)
        pass_time(rig, DAY)
        assert session.month == OLD
        session.received(ack(stored))
        rig.clock.advance(1)
        assert session.month == NEW
        assert versions(f for f in session.wire.sent if "version" in f) == numbers(stored)

    def test_young_connection_is_left_alone(self, rig):
        new_month(rig)
        rig.store.months.current = OLD
        session = rig.hello(UAID)
        rig.store.months.current = NEW
        pass_time(rig, DAY - STEP)
        assert session.month == OLD

    def test_user_of_a_later_month_stays_there(self, rig):
        rig.store.months.accepted.add(NEW)
        rig.user(current_month=NEW)
        session = rig.hello(UAID)
        pass_time(rig, 2 * DAY)
        assert session.month == NEW
        assert rig.store.called("move_month") == 0

    @pytest.mark.parametrize("record", [None, {"connected_at": START * 1000 + 99_999}])
    def test_connection_the_user_has_left_is_closed(self, rig, record):
        session = rig.hello(UAID)
        pass_time(rig, 2 * DAY)
        new_month(rig)
        if record is None:
            del rig.store.users[UAID]
        else:
            rig.store.users[UAID].update(record)
        pass_time(rig, DAY)
        assert session.wire.closes == [None]
        assert rig.store.called("move_month") == 0

    def test_failure_is_made_good_the_next_day(self, rig):
        session = rig.hello(UAID)
        pass_time(rig, 2 * DAY)
        new_month(rig)
        rig.store.fail("get_user", StoreError())
        pass_time(rig, DAY)
        assert session.month == OLD and not session.wire.closes
        pass_time(rig, DAY)
        assert session.month == NEW


class TestLookBack:
    """A node of 1.58.3 has stored into the old month after the user had left it."""

    @pytest.fixture
    def moved(self, rig):
        new_month(rig)
        rig.user(current_month=OLD)
        session = rig.hello(UAID)
        assert session.month == NEW
        session.wire.take()
        return session

    def test_s17_late_message_is_found(self, rig, moved):
        late = message(5, ttl=3600)
        rig.put(late, month=OLD)
        rig.node.check(UAID)
        assert moved.wire.take() == []
        pass_time(rig, LOOK_BACK)
        assert versions(moved.wire.take()) == numbers(late)
        moved.received(ack(late))
        assert rig.rows(month=OLD) == []

    def test_for_the_next_connection_too(self, rig, moved):
        late = message(5, ttl=3600)
        rig.put(late, month=OLD)
        moved.closed()
        pass_time(rig, LOOK_BACK)
        assert versions(rig.hello(UAID).wire.sent[1:]) == numbers(late)

    def test_the_node_that_has_the_user_by_then_is_told(self, rig, moved):
        rig.put(message(5, ttl=3600), month=OLD)
        moved.closed()
        rig.store.users[UAID]["node_id"] = OTHER
        pass_time(rig, LOOK_BACK)
        assert rig.peers.requests == [("PUT", f"{OTHER}/notif/{UAID}")]

    def test_nobody_is_told_of_nothing(self, rig, moved):
        moved.closed()
        rig.store.users[UAID]["node_id"] = OTHER
        pass_time(rig, LOOK_BACK)
        assert rig.store.called("carry_late") == 1
        assert rig.peers.requests == []

    def test_channels_do_not_come_back(self, rig, moved):
        moved.received({"messageType": "unregister", "channelID": CHID})
        pass_time(rig, LOOK_BACK)
        assert rig.store.called("carry_late") == 1
        assert rig.store.channels[NEW, UAID].chids == set()

    def test_once(self, rig, moved):
        pass_time(rig, 10 * LOOK_BACK)
        assert rig.store.called("carry_late") == 1

    def test_not_before(self, rig, moved):
        pass_time(rig, LOOK_BACK - STEP)
        assert rig.store.called("carry_late") == 0

    def test_throttled_is_tried_again(self, rig, moved):
        rig.put(message(5, ttl=3600), month=OLD)
        rig.store.fail("carry_late", StoreBusy())
        pass_time(rig, LOOK_BACK + STEP)
        assert len(moved.wire.take()) == 1

    def test_move_that_came_to_nothing(self, rig):
        new_month(rig)
        rig.user(current_month=OLD)
        rig.store.fail("move_month", RuntimeError())
        rig.hello(UAID)
        rig.put(message(5, ttl=3600), month=OLD)
        pass_time(rig, LOOK_BACK)
        assert len(rig.rows(month=OLD)) == 1

    def test_user_that_was_dropped(self, rig, moved):
        del rig.store.users[UAID]
        pass_time(rig, LOOK_BACK)
        assert rig.store.called("carry_late") == 0

    def test_node_that_stops_looks_at_once(self, rig, moved):
        rig.put(message(5, ttl=3600), month=OLD)
        rig.node.shutdown()
        assert rig.rows(month=OLD) == []
        assert len(rig.rows(month=NEW)) == 1

    def test_channel_that_an_old_node_registered_late(self, rig, moved):
        rig.store.add_channel(OLD, UAID, CHID2)
        pass_time(rig, LOOK_BACK)
        assert rig.store.channels[NEW, UAID].chids == {CHID, CHID2}

    def test_node_that_stops_waits_for_the_look(self, rig, moved):
        rig.put(message(5, ttl=3600), month=OLD)
        rig.store.hold("carry_late")
        done = rig.node.shutdown()
        assert not done.called
        rig.store.release("carry_late")
        assert done.called and rig.rows(month=OLD) == []

    def test_node_that_stops_tries_it_again(self, rig, moved):
        rig.put(message(5, ttl=3600), month=OLD)
        rig.store.fail("carry_late", StoreBusy(), StoreError())
        with Events() as events:
            done = rig.node.shutdown()
            rig.clock.pump([1.0] * 3)
        assert done.called and rig.rows(month=OLD) == []
        assert not [e for e in events.of("Unexpected error") if e.get("extra") == "Given up"]


class TestMovedByAnother:
    """A node of 1.58.3 moved the user after its next connection had begun in the old month."""

    @pytest.fixture
    def session(self, rig):
        new_month(rig)
        rig.user(current_month=OLD)
        self.waiting = message(1, ttl=3600)
        rig.put(self.waiting, month=OLD)
        session = rig.hello(UAID)
        assert session.month == OLD
        rig.store.users[UAID]["current_month"] = NEW
        return session

    def test_what_it_did_not_acknowledge_is_carried_over(self, rig, session):
        session.closed()
        pass_time(rig, LOOK_BACK + STEP)
        again = rig.hello(UAID)
        assert versions(again.wire.sent[1:]) == numbers(self.waiting)

    def test_its_rows_are_left_alone_as_long_as_it_stays(self, rig, session):
        pass_time(rig, 10 * LOOK_BACK)
        assert rig.store.called("carry_late") == 0
        session.closed()
        pass_time(rig, 2 * LOOK_BACK)
        assert rig.store.called("carry_late") == 1
        assert rig.rows(month=OLD) == []

    def test_it_moves_itself_when_it_has_read_all(self, rig, session):
        session.received(ack(self.waiting))
        assert session.month == NEW
        pass_time(rig, 10 * LOOK_BACK)
        assert rig.store.called("carry_late") == 1

    def test_nobody_moved_it(self, rig, session):
        rig.store.users[UAID]["current_month"] = OLD
        session.closed()
        pass_time(rig, 10 * LOOK_BACK)
        assert rig.store.called("carry_late") == 0
        assert len(rig.rows(month=OLD)) == 1
