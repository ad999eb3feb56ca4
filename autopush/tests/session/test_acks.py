"""ack and nack (spec/websocket 5.4, 5.5 and 10)."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import pytest
from twisted.internet.defer import Deferred

from autopush.exceptions import StoreBusy
from autopush.session.acks import CHUNK
from autopush.session.drain import CHECK_DELAY
from autopush.session.settle import GATHER
from autopush.session.states import State
from autopush.tests.session.support import (
    CHID,
    CHID2,
    FIREFOX,
    MONTH,
    UAID,
    Events,
    ack,
    message,
    numbers,
    versions,
)


def batch(rig, count=3):
    """A session that was sent this many timestamped messages, and those."""
    stored = [message(stamp) for stamp in range(1, count + 1)]
    rig.put(*stored)
    session = rig.hello(UAID)
    session.wire.take()
    rig.store.calls.clear()
    rig.metrics.calls.clear()
    return session, stored


@pytest.mark.parametrize("updates", [None, [], {}, "", 0, "x", {"a": 1}, True])
def test_5_4_no_list_is_ignored(rig, updates):
    session = rig.live()
    session.received({"messageType": "ack", "updates": updates})
    session.received({"messageType": "ack"})
    assert rig.metrics.calls == []
    assert session.wire.closes == [] and session.wire.sent == []


def test_5_4_one_metric_for_each_message(rig):
    session, stored = batch(rig)
    session.received(ack(*stored))
    assert rig.metrics.of("ua.command.ack") == [(1, None)]
    assert session.wire.sent == []


@pytest.mark.parametrize(
    "update",
    [
        None,
        {},
        [],
        0,
        {"channelID": CHID},
        {"version": "v"},
        {"channelID": "", "version": "v"},
        {"channelID": CHID, "version": ""},
        {"channelID": 7, "version": "v"},
        {"channelID": CHID, "version": ["v"]},
        {"channelID": CHID, "version": {"v": 1}},
        {"channelID": CHID2, "version": "v"},
    ],
)
def test_5_4_elements_that_name_nothing_are_skipped(rig, update):
    session, stored = batch(rig)
    rest = ack(*stored)["updates"]
    with Events() as events:
        session.received({"messageType": "ack", "updates": [update, *rest]})
    assert session.stored_acked == 3
    assert events.of("Malformed message") == []


@pytest.mark.parametrize(
    "update",
    ["x", 7, True, [1], {"channelID": [1], "version": "v"}, {"channelID": {"a": 1}, "version": 1}],
)
def test_5_4_elements_of_the_wrong_type_end_the_list(rig, update):
    session, stored = batch(rig)
    first, *rest = ack(*stored)["updates"]
    with Events() as events:
        session.received({"messageType": "ack", "updates": [first, update, *rest]})
    assert session.stored_acked == 1
    assert len(events.of("Malformed message")) == 1
    assert session.wire.closes == [] and session.wire.sent == []


@pytest.mark.parametrize("change", [{"channelID": CHID.upper()}, {"version": "other"}])
def test_5_4_channel_and_version_must_match(rig, change):
    session = rig.live()
    notification = message()
    rig.deliver(notification)
    update = {"channelID": CHID, "version": notification.version, **change}
    session.received({"messageType": "ack", "updates": [update]})
    assert session.direct_acked == 0
    session.received(ack(notification))
    assert session.direct_acked == 1


def test_q24_unknown_channels_take_no_memory(rig):
    session = rig.live()
    for number in range(100):
        update = {"channelID": str(number), "version": "v"}
        session.received({"messageType": "ack", "updates": [update]})
    assert session.direct is None and session.stored is None


def test_10_direct_acks_touch_no_storage(rig):
    session = rig.live()
    notification = message()
    rig.deliver(notification)
    with Events() as events:
        session.received(ack(notification, code=102))
    assert rig.store.calls == []
    assert session.direct == {}
    (event,) = events.of("Ack")
    fields = {
        "router_key": "webpush",
        "channel_id": CHID,
        "message_id": notification.version,
        "message_source": "direct",
        "message_size": 4,
        "uaid_hash": UAID,
        "user_agent": FIREFOX,
        "code": 102,
    }
    assert fields.items() <= event.items()


def test_10_a_second_ack_is_ignored(rig):
    session = rig.live()
    notification = message()
    rig.deliver(notification)
    session.received(ack(notification, notification))
    assert session.direct_acked == 1


def test_10_of_ten_only_the_last_the_nine_come_again(rig):
    session, stored = batch(rig, 10)
    session.received(ack(stored[9]))
    rig.clock.advance(GATHER)
    assert rig.pointer() is None and len(rig.rows()) == 9
    session.closed()
    assert versions(rig.hello(UAID).wire.sent[1:]) == numbers(*stored[:9])


def test_10_of_ten_only_the_first_it_does_not_come_again(rig):
    session, stored = batch(rig, 10)
    session.received(ack(stored[0]))
    rig.clock.advance(GATHER)
    assert rig.pointer() == stored[0].sortkey_timestamp
    session.closed()
    assert versions(rig.hello(UAID).wire.sent[1:]) == numbers(*stored[1:])


@pytest.mark.parametrize("deletes", [False, True])
@pytest.mark.parametrize("acked", list(itertools.permutations(range(3), 2)))
def test_10_any_two_of_three_in_any_order(rig, acked, deletes):
    rig.store.deletes_read = deletes
    session, stored = batch(rig)
    for index in acked:
        session.received(ack(stored[index]))
        rig.clock.advance(GATHER)
    session.closed()
    (left,) = set(range(3)) - set(acked)
    assert versions(rig.hello(UAID).wire.sent[1:]) == numbers(stored[left])


def test_10_what_waits_for_company_is_written_at_the_end(rig):
    session, stored = batch(rig)
    session.received(ack(stored[0], stored[2]))
    assert rig.store.calls == []
    session.closed()
    assert rig.clock.getDelayedCalls() == []
    assert versions(rig.hello(UAID).wire.sent[1:]) == numbers(stored[1])


def test_10_the_pointer_does_not_move_to_a_row_that_is_gone(rig):
    """spec/storage 17.6: who stores a message finds its place by the rows that are there."""
    session, stored = batch(rig)
    session.received(ack(stored[2]))
    rig.clock.advance(GATHER)
    # Stored late, between those that were read: nothing tells that a reader is past it.
    late = attrs.evolve(message(), sortkey_timestamp=stored[1].sortkey_timestamp + 1)
    rig.put(late)
    rig.node.check(UAID)
    session.received(ack(stored[0], stored[1]))
    assert rig.pointer() == stored[1].sortkey_timestamp
    session.wire.take()
    rig.clock.advance(CHECK_DELAY)
    assert versions(session.wire.sent) == numbers(late)


def test_10_a_pointer_once_for_acks_that_come_one_by_one(rig):
    session, stored = batch(rig, 10)
    for notification in stored:
        session.received(ack(notification))
        rig.clock.advance(GATHER / 20)
    names = [name for name, _ in rig.store.calls]
    assert names == ["set_pointer", "fetch_since"]
    assert rig.pointer() == stored[9].sortkey_timestamp


def test_10_rows_are_deleted_where_the_store_says_so(rig):
    rig.store.deletes_read = True
    session, stored = batch(rig)
    session.received(ack(stored[1]))
    rig.clock.advance(0)
    assert rig.rows() == sorted([stored[0].sort_key, stored[2].sort_key])
    session.received(ack(stored[0], stored[2]))
    assert rig.rows() == [] and rig.pointer() is None
    assert session.state is State.LIVE


def test_10_a_replaced_topic_that_is_acknowledged_leaves_the_new_one(rig):
    old, new = message(topic="t"), message(topic="t")
    rig.put(old)
    session = rig.hello(UAID)
    rig.put(new)
    session.received(ack(old))
    session.closed()
    assert versions(rig.hello(UAID).wire.sent[1:]) == numbers(new)


def test_10_the_next_connection_waits_for_what_is_being_written(rig):
    first, stored = batch(rig, 2)
    pointer = rig.store.set_pointer
    waiting = Deferred()
    rig.store.set_pointer = lambda *args: waiting
    first.received(ack(*stored))
    second = rig.hello(UAID)
    assert len(second.wire.take()) == 1  # the hello's answer
    pointer(MONTH, UAID, stored[1].sortkey_timestamp)
    waiting.callback(None)
    assert second.wire.take() == [] and second.state is State.LIVE


def test_10_a_pointer_once_for_a_batch_in_order(rig):
    session, stored = batch(rig)
    session.received(ack(*stored))
    assert rig.store.called("set_pointer") == 1
    assert rig.store.called("fetch_since") == 1
    assert session.state is State.LIVE


def test_10_topics_are_deleted_by_update_id(rig):
    topic = message(topic="a")
    rig.put(topic)
    session = rig.hello(UAID)
    newer = message(topic="a")
    rig.put(newer)
    session.wire.take()
    session.received(ack(topic))
    # The replacement is still there, and comes now.
    assert versions(session.wire.sent) == numbers(newer)
    session.received(ack(newer))
    assert rig.rows() == []


def test_10_reading_is_paused_while_storage_is_told(rig):
    topics = [message(topic="a"), message(topic="b")]
    rig.put(*topics)
    session = rig.hello(UAID)
    session.wire.take()
    rig.store.hold("delete_message")
    session.received(ack(*topics))
    assert not session.wire.reading
    fetches = rig.store.called("fetch_topics")
    session.received(ack(*topics))
    assert session.stored_acked == 2
    rig.store.release("delete_message")
    assert session.wire.reading and session.wire.pauses == 1
    assert rig.store.called("fetch_topics") == fetches + 1
    assert session.state is State.LIVE


def test_q16_storage_is_told_again_with_growing_pauses(rig):
    session, stored = batch(rig, 1)
    rig.store.fail("set_pointer", StoreBusy(), StoreBusy(), StoreBusy())
    session.received(ack(*stored))
    for pause in (0.25, 0.5, 1.0):
        rig.clock.advance(pause - 0.01)
        assert rig.pointer() is None
        rig.clock.advance(0.01)
    assert rig.pointer() == stored[0].sortkey_timestamp
    assert session.state is State.LIVE and session.wire.reading


def test_q16_storage_that_never_hears_ends_the_connection(rig):
    session, stored = batch(rig, 1)
    rig.store.fail("set_pointer", *[StoreBusy()] * 9)
    session.received(ack(*stored))
    rig.clock.pump([30.0] * 8)
    assert session.wire.closes == [None]
    assert rig.clock.getDelayedCalls() == []


def test_10_the_connection_may_end_meanwhile(rig):
    session, stored = batch(rig, 1)
    rig.store.hold("set_pointer")
    session.received(ack(*stored))
    session.closed()
    rig.store.calls.clear()
    rig.store.release("set_pointer")
    assert rig.store.calls == []


@pytest.mark.parametrize("code, logged", [(100, 100), (True, 0), ("x", 0), (None, 0), (1.5, 0)])
def test_q33_only_integers_are_codes(rig, code, logged):
    session, stored = batch(rig, 1)
    with Events() as events:
        session.received(ack(*stored, code=code))
    (event,) = events.of("Ack")
    assert event["code"] == logged and type(event["code"]) is int
    assert event["message_source"] == "stored"


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """How many functions are called: what something costs, on a machine of any speed."""
    made: Counter[str] = Counter()
    sys.setprofile(lambda _frame, event, _: made.update([event]))
    try:
        yield made
    finally:
        sys.setprofile(None)


def test_a_hundred_thousand_updates_are_taken_in_pieces(rig):
    session = rig.live()
    sent = [message() for _ in range(3)]
    for notification in sent:
        rig.deliver(notification)
    updates = [{"channelID": CHID, "version": str(number)} for number in range(100_000)]
    updates[5:5] = ack(sent[0])["updates"]
    updates[50_000:50_000] = ack(sent[1])["updates"]
    updates += ack(sent[2])["updates"]
    with counted() as first:
        session.received({"messageType": "ack", "updates": updates})
    assert first.total() < 20 * CHUNK  # calls and returns; nothing for the updates of later turns
    assert session.direct_acked == 1 and not session.wire.reading
    turns = []
    later = rig.clock.callLater

    def call_later(*args):
        turns.append(args)
        return later(*args)

    rig.clock.callLater = call_later
    with counted() as rest:
        rig.clock.advance(0)
    assert 1 + len(turns) == len(updates) // CHUNK
    assert session.direct_acked == 3 and session.wire.reading
    assert rest.total() < 20 * len(updates)
    assert rig.metrics.of("ua.command.ack") == [(1, None)]


def test_many_updates_stop_with_the_connection(rig):
    session = rig.live()
    notification = message()
    rig.deliver(notification)
    filler = [{"channelID": CHID, "version": "x"}] * CHUNK
    session.received({"messageType": "ack", "updates": filler + ack(notification)["updates"]})
    session.closed()
    rig.clock.advance(0)
    assert session.direct_acked == 0


def test_many_updates_with_a_wrong_one(rig):
    session = rig.live()
    with Events() as events:
        session.received({"messageType": "ack", "updates": [{}] * CHUNK + [7] + [{}] * 5000})
        rig.clock.advance(0)
    assert len(events.of("Malformed message")) == 1
    assert session.wire.reading and rig.clock.getDelayedCalls() == []


@pytest.mark.parametrize("code, tag", [(301, 301), (303, 303), (304, 0), ("301", 0), (True, 0)])
def test_5_5_nack(rig, code, tag):
    session = rig.live()
    notification = message()
    rig.deliver(notification)
    with Events() as events:
        session.received({"messageType": "nack", "version": notification.version, "code": code})
    assert rig.metrics.of("ua.command.nack") == [(1, [f"code:{tag}"])]
    assert session.nacks == 1
    (event,) = events.of("Nack")
    assert event["message_id"] == notification.version
    # Quirk Q9: it still has to be acknowledged.
    assert len(session.direct) == 1
    assert session.wire.closes == []


@pytest.mark.parametrize("version", [None, "", 0])
def test_5_5_nack_without_version_is_ignored(rig, version):
    session = rig.live()
    session.received({"messageType": "nack", "version": version, "code": 301})
    assert session.nacks == 0 and rig.metrics.calls == []
