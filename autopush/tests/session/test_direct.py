"""Direct notifications, and those that are stored as well (spec/websocket 11)."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred

from autopush.exceptions import StoreBusy, StoreError, UserFull
from autopush.session import Delivery
from autopush.session.states import State
from autopush.tests.session.support import (
    CHID,
    CHID2,
    MONTH,
    START,
    UAID,
    Rig,
    ack,
    message,
    numbers,
    outcome,
    versions,
)

DELIVERED, BUSY = Delivery.DELIVERED, Delivery.BUSY


@pytest.fixture
def durable():
    return Rig(store_direct=True)


def stored_ids(rig, month=MONTH):
    return sorted(row.update_id for row in rig.store.messages.get((month, UAID), {}).values())


def fresh(session):
    return versions(f for f in session.wire.take() if f.get("messageType") == "notification")


# ---- plain


def test_11_sent_at_once(rig):
    session = rig.live()
    notification = message(data="YWJj")
    assert rig.deliver(notification) is DELIVERED
    assert session.wire.sent == [
        {
            "messageType": "notification",
            "channelID": CHID,
            "version": notification.version,
            "data": "YWJj",
            "headers": {"encoding": "aes128gcm"},
        }
    ]
    assert rig.store.calls == []
    assert rig.metrics.calls == [("ua.message_data", 4, ["source:Direct"])]


def test_11_topics_are_counted(rig):
    rig.live()
    rig.deliver(message(topic="a", data=None))
    assert rig.metrics.of("ua.notification.topic") == [(1, None)]
    assert rig.metrics.of("ua.message_data") == [(0, ["source:Direct"])]


def test_age_is_observed_for_those_who_keep_histograms(rig):
    observed = rig.metrics.observed = []
    rig.metrics.observe = lambda *args: observed.append(args)
    rig.node.histograms = True
    rig.live()
    rig.deliver(message(age=7))
    rig.deliver(message(age=-7))  # another machine's clock is ahead
    assert observed == [("notification.age", 7), ("notification.age", 0)]


def test_age_is_not_worked_out_for_others(rig):
    rig.live()
    rig.metrics.observe = None
    rig.deliver(message(age=7))
    assert rig.metrics.of("ua.message_data") == [(4, ["source:Direct"])]


def test_metrics_nobody_wants_are_not_prepared(rig):
    rig.node.metered = False
    rig.live()
    rig.deliver(message(topic="a"))
    assert rig.metrics.calls == []


def test_11_not_connected(rig):
    assert rig.deliver(message()) is Delivery.NOT_CONNECTED


def test_12_output_paused(rig):
    session = rig.live()
    session.wire.output_paused = True
    assert rig.deliver(message()) is BUSY
    assert session.direct is None


def test_11_while_a_batch_is_outstanding(rig):
    rig.put(message(1))
    session = rig.hello(UAID)
    notification = message()
    session.wire.take()
    assert rig.deliver(notification) is DELIVERED
    assert versions(session.wire.sent) == numbers(notification)


def test_q24_unacknowledged_ones_are_limited():
    rig = Rig(max_direct_unacked=2)
    session = rig.live()
    sent = [message(), message()]
    for notification in sent:
        assert rig.deliver(notification) is DELIVERED
    assert rig.deliver(message()) is BUSY
    session.received(ack(sent[0]))
    assert rig.deliver(message()) is DELIVERED


def test_11_without_room_for_its_row_a_notification_is_not_sent(durable, monkeypatch):
    """Else its sender, who is refused, would send it again."""
    session = durable.live()
    monkeypatch.setattr(durable.store, "refusal", lambda notification: UserFull("full"))
    assert durable.deliver(message()) is BUSY
    assert session.wire.sent == [] and not session.direct
    assert durable.deliver(message(ttl=0)) is DELIVERED  # has no row


def test_11_what_has_no_frame_leaves_no_trace(rig):
    session = rig.live()
    notification = message()
    notification.headers = 7
    with pytest.raises(TypeError):
        rig.deliver(notification)
    assert session.wire.sent == [] and not session.direct


def test_11_a_closing_connection_is_none(rig):
    session = rig.live()
    session.close()
    assert rig.deliver(message()) is Delivery.NOT_CONNECTED


# ---- store_direct


def test_durable_is_stored_and_sent_together(durable):
    session = durable.live()
    durable.store.hold("store_message")
    notification = message(ttl=60)
    result = durable.deliver(notification)
    assert isinstance(result, Deferred)
    assert fresh(session) == numbers(notification)
    durable.store.release("store_message")
    assert outcome(result) is DELIVERED
    assert stored_ids(durable) == numbers(notification)


@pytest.mark.parametrize("ttl", [0, None])
def test_durable_only_with_a_ttl(durable, ttl):
    durable.live()
    assert durable.deliver(message(ttl=ttl)) is DELIVERED
    assert durable.store.calls == []


@pytest.mark.parametrize("topic", [None, "a"])
def test_durable_an_ack_deletes_the_row(durable, topic):
    session = durable.live()
    notification = message(topic=topic)
    durable.deliver(notification)
    session.received(ack(notification))
    assert stored_ids(durable) == []
    assert not session.direct and not session.leaving
    assert session.row_operations == 0
    assert session.wire.pauses == 0


@pytest.mark.parametrize("failure", [StoreBusy(), StoreError()])
def test_durable_a_store_that_fails_is_told(durable, failure):
    session = durable.live()
    durable.store.fail("store_message", failure)
    notification = message()
    with pytest.raises(StoreError):
        durable.deliver(notification)
    assert fresh(session) == numbers(notification)
    # It is as any other direct one now: saved at the end.
    session.closed()
    assert stored_ids(durable) == numbers(notification)


def test_durable_a_store_that_fails_after_the_ack(durable):
    session = durable.live()
    durable.store.fail("store_message", StoreError())
    durable.store.hold("store_message")
    notification = message()
    result = durable.deliver(notification)
    session.received(ack(notification))
    durable.store.release("store_message")
    with pytest.raises(StoreError):
        outcome(result)
    assert not session.leaving and session.row_operations == 0
    session.closed()
    assert stored_ids(durable) == []


def test_durable_an_ack_while_it_is_written_deletes_at_once(durable):
    session = durable.live()
    durable.store.hold("store_message")
    notification = message()
    durable.deliver(notification)
    session.received(ack(notification))
    assert durable.store.called("delete_message") == 1
    assert stored_ids(durable) == []
    durable.store.release("store_message")
    assert durable.store.called("delete_message") == 1
    assert not session.leaving and session.row_operations == 0


def test_durable_an_ack_before_it_is_written_takes_it_back(durable):
    session = durable.live()
    durable.store.hold("store_message")
    durable.store.take_back = lambda month, taken: taken is notification
    notification = message()
    result = durable.deliver(notification)
    session.received(ack(notification))
    durable.store.release("store_message")
    assert outcome(result) is Delivery.DELIVERED
    assert durable.store.called("delete_message") == 0
    assert not session.leaving and not session.direct and session.row_operations == 0


class Unordered:
    """Puts the row there only when told, whatever was asked for meanwhile."""

    def __init__(self, rig):
        self.rig = rig
        self.store = rig.store
        self.really = self.store.store_message
        self.store.store_message = self.later
        self.waiting = []

    def later(self, month, notification):
        done: Deferred[None] = Deferred()
        self.waiting.append((done, month, notification))
        return done

    def write(self):
        ((done, month, notification),) = self.waiting
        self.really(month, notification)
        done.callback(None)


def test_durable_a_delete_that_came_before_the_write_is_repeated(durable):
    session = durable.live()
    slow = Unordered(durable)
    notification = message()
    durable.deliver(notification)
    session.received(ack(notification))
    assert durable.store.called("delete_message") == 1
    slow.write()
    assert durable.store.called("delete_message") == 2
    assert stored_ids(durable) == []
    assert not session.leaving and session.row_operations == 0


def test_durable_a_delete_that_is_told_after_the_write_is_repeated_too(durable):
    session = durable.live()
    slow = Unordered(durable)
    durable.store.hold("delete_message")
    notification = message()
    durable.deliver(notification)
    session.received(ack(notification))
    slow.write()
    durable.store.release("delete_message")
    assert stored_ids(durable) == []
    assert not session.leaving and session.row_operations == 0


@pytest.mark.parametrize("topic", [None, "a"])
def test_durable_a_check_does_not_send_it_again(durable, topic):
    session = durable.live()
    notification = message(topic=topic)
    durable.deliver(notification)
    fresh(session)
    durable.node.check(UAID)
    assert fresh(session) == []
    assert session.stored_retrieved == 0
    session.received(ack(notification))
    assert session.direct_acked == 1 and session.stored_acked == 0


@pytest.mark.parametrize("topic", [None, "a"])
def test_durable_nor_while_its_delete_is_under_way(durable, topic):
    session = durable.live()
    notification = message(topic=topic)
    durable.deliver(notification)
    fresh(session)
    # The memory store deletes at once; this one's rows stay.
    durable.store.delete_message = lambda *_: Deferred()
    session.received(ack(notification))
    durable.node.check(UAID)
    assert fresh(session) == []


@pytest.mark.parametrize("topic", [None, "a"])
def test_durable_nor_if_the_delete_ended_during_the_fetch(durable, topic):
    session = durable.live()
    notification = message(topic=topic)
    durable.deliver(notification)
    fresh(session)
    durable.store.hold("fetch_topics" if topic else "fetch_since")
    durable.node.check(UAID)
    session.received(ack(notification))
    assert stored_ids(durable) == [] and session.leaving
    durable.store.release("fetch_topics" if topic else "fetch_since")
    assert fresh(session) == []
    assert not session.leaving


def test_durable_a_batch_of_topics_that_are_all_known_does_not_stall(durable):
    session = durable.live()
    for number in range(30):
        durable.deliver(message(topic=f"a{number:02}"))
    fresh(session)
    stored = message(topic="b")
    durable.put(stored)
    durable.node.check(UAID)
    assert fresh(session) == numbers(stored)


def test_durable_topics_sent_while_topics_are_fetched(durable):
    session = durable.live()
    stored = [message(topic=f"b{number}") for number in range(3)]
    for number in range(20):
        durable.put(message(topic=f"a{number:02}", version=f"a{number}"))
    durable.put(*stored)
    durable.store.hold("fetch_topics")
    durable.node.check(UAID)
    for number in range(20):
        durable.deliver(message(topic=f"a{number:02}", version=f"a{number}"))
    fresh(session)
    durable.store.release("fetch_topics")
    assert fresh(session) == numbers(*stored)


def test_durable_pages_of_known_messages_are_passed(durable):
    session = durable.live()
    for _ in range(25):
        durable.deliver(message())
    fresh(session)
    stored = message()
    durable.put(stored)
    durable.node.check(UAID)
    assert fresh(session) == numbers(stored)
    # Not even an acknowledged batch moves the stored pointer past them.
    session.received(ack(stored))
    assert durable.pointer() is None
    assert len(stored_ids(durable)) == 25
    session.closed()
    again = durable.hello(UAID)
    assert len(fresh(again)) == 10


def test_durable_the_pointer_stays_below_what_was_not_acknowledged(durable):
    session = durable.live()
    before = [message(None), message(None)]
    durable.put(*before)
    direct = message()
    durable.deliver(direct)
    after = [message(None), message(None)]
    durable.put(*after)
    fresh(session)
    durable.node.check(UAID)
    assert fresh(session) == numbers(*before, *after)
    session.received(ack(*before, *after))
    assert durable.pointer() == before[-1].sortkey_timestamp
    assert stored_ids(durable) == numbers(*before, direct)
    session.closed()
    assert fresh(durable.hello(UAID)) == numbers(direct)


def test_durable_the_pointer_moves_again_when_it_is_acknowledged(durable):
    session = durable.live()
    direct = message()
    durable.deliver(direct)
    stored = [message(None), message(None)]
    durable.put(*stored)
    fresh(session)
    durable.node.check(UAID)
    session.received(ack(direct, *stored))
    assert durable.pointer() == stored[-1].sortkey_timestamp
    assert session.direct == {} and session.stored == {}


def test_durable_one_that_comes_during_a_batch_does_not_hold_the_pointer(durable):
    stored = [message(None), message(None)]
    session = durable.live()
    durable.put(*stored)
    durable.node.check(UAID)
    direct = message()
    durable.deliver(direct)
    session.received(ack(*stored))
    assert durable.pointer() == stored[-1].sortkey_timestamp < direct.sortkey_timestamp
    session.closed()
    assert durable.hello(UAID).wire.sent[1]["version"] == direct.version


def test_durable_a_clock_behind_what_was_read_does_not_lose_it(durable):
    session = durable.live()
    ahead = message(10**15)
    durable.put(ahead)
    durable.node.check(UAID)
    directs = [message(None), message(None)]
    for direct in directs:
        durable.deliver(direct)
    stamps = [direct.sortkey_timestamp for direct in directs]
    assert len(set(stamps)) == 2 and min(stamps) > ahead.sortkey_timestamp
    session.received(ack(ahead))
    session.closed()
    assert sorted(fresh(durable.hello(UAID))) == numbers(*directs)


def test_durable_expired_ones_do_not_move_the_pointer_past_it(durable):
    session = durable.live()
    direct = message(ttl=1000)
    durable.deliver(direct)
    durable.put(message(None, ttl=30))
    for key, row in list(durable.store.messages[MONTH, UAID].items()):
        durable.store.messages[MONTH, UAID][key] = row._replace(expiry=START + 10_000)
    durable.clock.advance(31)
    fresh(session)
    durable.node.check(UAID)
    assert session.stored_retrieved == 1
    assert durable.pointer() is None


def test_durable_unregister_deletes_the_rows(durable):
    session = durable.live()
    kept = message(chid=CHID2)
    durable.deliver(message())
    durable.deliver(message(topic="a"))
    durable.deliver(kept)
    session.received({"messageType": "unregister", "channelID": CHID})
    assert stored_ids(durable) == numbers(kept)


def test_durable_nothing_is_saved_twice(durable):
    session = durable.live()
    durable.deliver(message())
    durable.deliver(message(topic="a"))
    durable.store.calls.clear()
    session.closed()
    assert durable.store.called("store_message") == 0
    assert session.direct_storage == 2
    assert len(stored_ids(durable)) == 2


def test_durable_a_moving_user_gets_nothing_directly(durable):
    durable.store.months.accepted.add("message_2026_10")
    durable.user(current_month="message_2026_10")
    durable.store.hold("move_month")
    durable.hello(UAID)
    assert durable.deliver(message()) is BUSY
    durable.store.release("move_month")
    assert durable.deliver(message()) is DELIVERED
    assert len(stored_ids(durable)) == 1


def test_durable_a_replaced_topic_leaves_the_new_row(durable):
    session = durable.live()
    first, second = message(topic="a"), message(topic="a")
    durable.deliver(first)
    durable.deliver(second)
    session.received(ack(first))
    assert stored_ids(durable) == numbers(second)
    session.received(ack(second))
    assert stored_ids(durable) == []


def test_topics_a_sender_stored_as_well_do_not_keep_the_loop_busy(rig):
    session = rig.live()
    for number in range(20):
        notification = message(topic=f"a{number:02}")
        rig.deliver(notification)
        rig.put(notification)
    session.wire.take()
    rig.node.check(UAID)
    assert session.state is State.LIVE
    assert session.wire.sent == []
    assert rig.clock.getDelayedCalls() == []


def test_durable_a_sender_that_no_longer_waits(durable):
    session = durable.live()
    durable.store.hold("store_message")
    notification = message()
    result = durable.deliver(notification)
    result.addErrback(lambda _: None)
    result.cancel()
    session.received(ack(notification))
    durable.store.release("store_message")
    assert stored_ids(durable) == [] and session.row_operations == 0
