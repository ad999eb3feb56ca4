"""The stored notification loop (spec/websocket 9 and 12)."""

from __future__ import annotations

import pytest
from twisted.internet.defer import succeed

from autopush.db.interface import Batch
from autopush.exceptions import StoreBusy, StoreError
from autopush.session import Delivery
from autopush.session.states import State
from autopush.tests.session.support import (
    CHID,
    CHID2,
    MONTH,
    START,
    UAID,
    Events,
    Rig,
    ack,
    message,
    numbers,
    versions,
)


def drained(rig, session):
    """All versions sent, each batch acknowledged, by batch."""
    batches = []
    while frames := [f for f in session.wire.take() if f.get("messageType") == "notification"]:
        batches.append(versions(frames))
        session.received(
            {
                "messageType": "ack",
                "updates": [{"channelID": f["channelID"], "version": f["version"]} for f in frames],
            }
        )
    return batches


def topics(count, start=0):
    return [message(topic=f"t{start + number:02}") for number in range(count)]


def test_9_2_frames(rig):
    sent = message(1, topic=None, data="YWJj")
    bare = message(2, data=None)
    rig.put(sent, bare)
    session = rig.hello(UAID)
    assert session.wire.sent[1:] == [
        {
            "messageType": "notification",
            "channelID": CHID,
            "version": sent.version,
            "data": "YWJj",
            "headers": {"encoding": "aes128gcm"},
        },
        {"messageType": "notification", "channelID": CHID, "version": bare.version},
    ]
    assert session.stored_retrieved == 2
    assert rig.metrics.of("ua.message_data") == [(4, ["source:Stored"]), (0, ["source:Stored"])]
    assert rig.metrics.of("ua.notification.topic") == []


def test_9_2_a_topic_is_counted(rig):
    rig.put(*topics(1))
    rig.hello(UAID)
    assert rig.metrics.of("ua.notification.topic") == [(1, None)]


def all_of(rig, monkeypatch):
    """Let the store say, truly, that nothing is behind the topics."""
    fetch = rig.store.fetch_topics

    def fetch_topics(*args):
        return fetch(*args).addCallback(lambda batch: batch._replace(is_all=True))

    monkeypatch.setattr(rig.store, "fetch_topics", fetch_topics)


def test_what_is_known_not_to_be_there_is_not_fetched(rig, monkeypatch):
    all_of(rig, monkeypatch)
    session = rig.hello(UAID)
    assert session.state is State.LIVE
    assert rig.store.called("fetch_since") == 0


def test_topics_that_are_all_are_sent_and_nothing_else_is_fetched(rig, monkeypatch):
    all_of(rig, monkeypatch)
    rig.put(*topics(3))
    session = rig.hello(UAID)
    assert [len(batch) for batch in drained(rig, session)] == [3]
    assert session.state is State.LIVE
    assert rig.store.called("fetch_since") == 0


def test_what_is_stored_while_all_is_read_comes(rig, monkeypatch):
    all_of(rig, monkeypatch)
    rig.store.hold("fetch_topics")
    session = rig.hello(UAID)
    monkeypatch.undo()
    rig.put(message(1))
    assert rig.node.check(UAID) is Delivery.DELIVERED
    rig.store.release("fetch_topics")
    assert [len(batch) for batch in drained(rig, session)] == [1]


def test_24_thirteen_stored_messages_come_in_batches_of_10_and_3(rig):
    stored = [message(stamp) for stamp in range(1, 14)]
    rig.put(*stored)
    session = rig.hello(UAID)
    assert [len(batch) for batch in drained(rig, session)] == [10, 3]
    assert rig.pointer() == stored[-1].sortkey_timestamp
    assert len(rig.rows()) == 13


def test_24_twelve_topics_and_one_plain_come_in_batches_of_9_3_and_1(rig):
    rig.put(*topics(12), message(1))
    session = rig.hello(UAID)
    assert [len(batch) for batch in drained(rig, session)] == [9, 3, 1]
    assert len(rig.rows()) == 1


def test_24_order_with_legacy_rows(rig):
    chids = ["00", "01234", "01a", "020", "02a", "f0"]
    legacy = {
        start: message(chid=start.ljust(8, "0") + CHID[8:], legacy=True, version=f"legacy-{start}")
        for start in chids
    }
    topic, plain = message(topic="t"), message(1)
    rig.put(*legacy.values(), topic, plain)
    session = rig.hello(UAID)
    first = ["legacy-00", "legacy-01234", topic.version, "legacy-01a"]
    second = ["legacy-020", plain.version, "legacy-02a", "legacy-f0"]
    assert drained(rig, session) == [first, second]
    assert rig.rows() == [plain.sort_key]


def test_9_1_direct_ones_do_not_block(rig):
    session = rig.live()
    rig.deliver(message(1))
    session.wire.take()
    stored = message(2)
    rig.put(stored)
    assert rig.node.check(UAID) is Delivery.DELIVERED
    assert versions(session.wire.sent) == numbers(stored)


def test_9_2_a_batch_waits_for_all_acks(rig):
    stored = [message(stamp) for stamp in range(1, 13)]
    rig.put(*stored)
    session = rig.hello(UAID)
    session.wire.take()
    session.received(ack(*stored[:9]))
    assert session.wire.sent == []
    session.received(ack(stored[9]))
    assert versions(session.wire.sent) == numbers(*stored[10:])


def test_9_2_expired_topics_are_deleted(rig):
    late = message(topic="b")
    rig.put(message(topic="a", ttl=60), message(topic="c", ttl=60), late)
    rig.clock.advance(59)
    late_2 = message(topic="b", ttl=600)
    rig.put(late_2)
    # Expired for delivery one second before the rows may go.
    for row in list(rig.store.messages[MONTH, UAID].values()):
        rig.store.messages[MONTH, UAID][row.sort_key] = row._replace(expiry=START + 10_000)
    rig.clock.advance(1)
    session = rig.hello(UAID)
    assert versions(session.wire.sent[1:]) == numbers(late_2)
    assert len(rig.rows()) == 1
    assert session.stored_retrieved == 3


def keep_rows(rig):
    rows = rig.store.messages[MONTH, UAID]
    for key, row in list(rows.items()):
        rows[key] = row._replace(expiry=START + 1_000_000)


def test_9_2_6_only_expired_topics(rig):
    rig.put(*topics(12), message(1, ttl=10_000))
    keep_rows(rig)
    rig.clock.advance(61)
    session = rig.hello(UAID)
    assert len(session.wire.sent) == 2
    assert len(rig.rows()) == 1


def test_9_2_6_only_expired_timestamped_ones_move_the_pointer(rig):
    stored = [message(stamp) for stamp in range(1, 13)]
    fresh = message(20, ttl=10_000)
    rig.put(*stored, fresh)
    keep_rows(rig)
    rig.clock.advance(61)
    session = rig.hello(UAID)
    assert versions(session.wire.sent[1:]) != []
    # The first page held expired ones only.
    assert rig.pointer() == stored[9].sortkey_timestamp
    assert len(rig.rows()) == 13
    session.received(ack(fresh))
    assert rig.pointer() == fresh.sortkey_timestamp


def test_9_2_6_a_page_of_rows_that_are_not_even_read_is_not_the_last(rig):
    """The store leaves out what is over, so that a page may be short, or empty, in the midst."""
    over, fresh = message(12), message(20)
    rig.put(fresh)
    fetch_since = rig.store.fetch_since

    def page_of_expired_ones(*args):
        rig.store.fetch_since = fetch_since
        return succeed(Batch(over.sortkey_timestamp, []))

    rig.store.fetch_since = page_of_expired_ones
    session = rig.hello(UAID)
    assert versions(session.wire.sent[1:]) == [fresh.version]


def test_9_2_6_a_full_page_that_leads_no_further_is_not_the_last(rig):
    """Rows of old nodes have no timestamp: the next page is what is left once they are deleted."""
    old = [message(chid=f"f{number:x}000000" + CHID[8:], legacy=True) for number in range(12)]
    fresh = message(chid="ff000000" + CHID[8:], legacy=True, ttl=10_000)
    rig.put(*old, fresh)
    keep_rows(rig)
    rig.clock.advance(61)
    session = rig.hello(UAID)
    assert versions(session.wire.sent[1:]) == [fresh.version]
    assert rig.rows() == [fresh.sort_key]


def test_9_2_6_deletes_that_take_time_are_waited_for(rig):
    rig.put(*topics(2))
    keep_rows(rig)
    rig.clock.advance(61)
    rig.store.hold("delete_message")
    session = rig.hello(UAID)
    assert rig.store.called("fetch_topics") == 1 and rig.store.called("fetch_since") == 0
    rig.store.release("delete_message")
    assert rig.store.called("fetch_since") == 1
    assert session.state is State.LIVE


def test_thousands_of_expired_rows_do_not_block_the_reactor(rig):
    rig.put(*[message(stamp) for stamp in range(1, 2002)])
    keep_rows(rig)
    rig.clock.advance(61)
    session = rig.hello(UAID)
    assert rig.store.called("fetch_since") < 25
    assert session.state is State.DRAINING_TIMESTAMPED
    rig.clock.pump([0] * 20)
    assert session.state is State.LIVE
    assert rig.pointer() == START * 1_000_000 + 2001


def test_q11_a_single_topic_is_delivered_without_a_channel_row(rig):
    rig.put(*topics(1))
    assert len(rig.hello(UAID).wire.sent) == 2


def test_9_4_msg_limit_drops_the_user():
    rig = Rig(msg_limit=5)
    rig.put(*[message(stamp) for stamp in range(1, 8)])
    session = rig.hello(UAID)
    assert len(session.wire.sent) == 1 + 5
    assert session.wire.closes == [None]
    assert rig.store.users == {}
    assert len(rig.rows()) == 7


def test_9_4_exactly_msg_limit_is_allowed_and_counts_the_pass():
    rig = Rig(msg_limit=12)
    rig.put(*[message(stamp) for stamp in range(1, 13)])
    session = rig.hello(UAID)
    assert [len(batch) for batch in drained(rig, session)] == [10, 2]
    rig.put(*[message(stamp) for stamp in range(20, 32)])
    rig.node.check(UAID)
    assert [len(batch) for batch in drained(rig, session)] == [10, 2]
    assert session.wire.closes == []


def test_9_4_the_limit_is_not_per_batch():
    rig = Rig(msg_limit=12)
    rig.put(*[message(stamp) for stamp in range(1, 14)])
    session = rig.hello(UAID)
    assert [len(batch) for batch in drained(rig, session)] == [10, 2]
    assert session.wire.closes == [None]
    assert rig.store.users == {}


def test_9_4_what_was_delivered_directly_is_no_backlog():
    """A stalled user agent finds all of it when it returns."""
    rig = Rig(msg_limit=5)
    rig.store.add_channel(MONTH, UAID, CHID)
    session = rig.live()
    notifications = [message() for _ in range(50)]
    for notification in notifications:
        rig.deliver(notification)
    session.closed()
    again = rig.hello(UAID)
    assert UAID in rig.store.users
    seen = [version for batch in drained(rig, again) for version in batch]
    assert sorted(seen) == sorted(numbers(*notifications))
    assert again.wire.closes == []


def test_9_4_nor_is_what_was_stored_while_it_was_connected():
    """Too many direct messages were unacknowledged, or output was paused."""
    rig = Rig(msg_limit=5, max_direct_unacked=1)
    session = rig.live()
    for _ in range(20):
        notification = message()
        if rig.deliver(notification) is Delivery.BUSY:
            rig.put(notification)
    session.closed()
    again = rig.hello(UAID)
    assert sum(map(len, drained(rig, again))) == 20
    assert again.wire.closes == []


def test_9_4_nor_what_came_after_the_connection_began():
    rig = Rig(msg_limit=5)
    session = rig.hello(UAID)
    rig.clock.advance(1)
    rig.put(*[message(stamp, age=-1) for stamp in range(1, 21)])
    rig.node.check(UAID)
    assert sum(map(len, drained(rig, session))) == 20
    assert session.wire.closes == []


def test_9_4_without_a_limit_there_is_no_reset():
    rig = Rig(msg_limit=0)
    rig.put(*[message(stamp) for stamp in range(1, 301)])
    session = rig.hello(UAID)
    assert sum(map(len, drained(rig, session))) == 300
    assert session.wire.closes == []


def test_9_3_throttled_fetches_are_repeated_later(rig):
    rig.put(message(1))
    rig.store.fail("fetch_topics", StoreBusy())
    rig.store.fail("fetch_since", StoreBusy())
    session = rig.hello(UAID)
    assert rig.draws == [(5, 60)]
    rig.clock.advance(5)
    assert rig.draws == [(5, 60)] * 2
    assert len(session.wire.sent) == 1
    rig.clock.advance(5)
    assert len(session.wire.sent) == 2
    assert session.wire.closes == []


@pytest.mark.parametrize("failure", [StoreError("disk"), RuntimeError("x")])
def test_9_3_other_errors_close(rig, failure):
    rig.store.fail("fetch_topics", failure)
    with Events() as events:
        session = rig.hello(UAID)
    assert session.wire.closes == [None]
    assert len(events.of("Unexpected error")) == 1


def test_9_3_expired_ones_that_can_not_be_deleted_close(rig):
    rig.put(*topics(1))
    keep_rows(rig)
    rig.clock.advance(61)
    rig.store.fail("delete_message", *[StoreBusy()] * 9)
    session = rig.hello(UAID)
    rig.clock.pump([30] * 10)
    assert session.wire.closes == [None]


def test_check_when_idle_is_a_full_pass(rig):
    session = rig.live()
    topic, plain = message(topic="a"), message(1)
    rig.put(topic, plain)
    rig.node.check(UAID)
    assert drained(rig, session) == [numbers(topic), numbers(plain)]


def test_q17_one_pending_check(rig):
    stored = message(1)
    rig.put(stored)
    session = rig.hello(UAID)
    session.wire.take()
    for _ in range(5):
        rig.node.check(UAID)
    rig.clock.pump([1.0] * 5)
    assert session.wire.sent == []
    assert rig.clock.getDelayedCalls() == []
    rig.store.calls.clear()
    session.received(ack(stored))
    # This pass ends; the one that was asked for comes a second later, once.
    assert rig.store.called("fetch_topics") == 0
    rig.clock.advance(1)
    assert rig.store.called("fetch_topics") == 1
    rig.clock.advance(10)
    assert rig.store.called("fetch_topics") == 1
    assert session.wire.sent == []


def test_q18_a_topic_stored_in_the_timestamp_phase_is_seen(rig):
    plain = message(1)
    rig.put(plain)
    session = rig.hello(UAID)
    session.wire.take()
    topic = message(topic="a")
    rig.put(topic)
    rig.node.check(UAID)
    session.received(ack(plain))
    rig.clock.advance(1)
    assert drained(rig, session) == [numbers(topic)]


def test_q18_a_check_during_an_empty_fetch_looks_again_at_once(rig):
    rig.user()
    rig.store.hold("fetch_since")
    session = rig.hello(UAID)
    assert session.state is State.DRAINING_TIMESTAMPED
    topic = message(topic="a")
    rig.put(topic)
    rig.node.check(UAID)
    rig.store.release("fetch_since")
    assert versions(session.wire.sent[1:]) == numbers(topic)


def test_one_fetch_at_a_time(rig):
    rig.user()
    rig.store.hold("fetch_topics")
    rig.hello(UAID)
    for _ in range(3):
        rig.node.check(UAID)
    assert rig.store.called("fetch_topics") == 1


def test_q1_a_check_while_output_is_paused_runs_when_it_resumes(rig):
    session = rig.live()
    session.wire.output_paused = True
    stored = message(1)
    rig.put(stored)
    assert rig.node.check(UAID) is Delivery.BUSY
    rig.clock.advance(50)
    assert rig.store.calls == []
    session.wire.output_paused = False
    session.output_resumed()
    assert versions(session.wire.sent) == numbers(stored)


def test_q2_nothing_happens_at_resume_without_a_reason(rig):
    session = rig.live()
    session.output_resumed()
    assert rig.store.calls == []


def test_9_2_1_a_result_while_output_is_paused_is_fetched_again(rig):
    rig.put(message(1))
    rig.store.hold("fetch_topics")
    rig.store.hold("fetch_since")
    session = rig.hello(UAID)
    rig.store.release("fetch_topics")
    session.wire.output_paused = True
    rig.store.release("fetch_since")
    assert len(session.wire.sent) == 1
    session.wire.output_paused = False
    session.output_resumed()
    assert len(session.wire.sent) == 2


def test_9_1_a_drain_stops_with_the_connection(rig):
    rig.put(message(1))
    rig.store.hold("fetch_topics")
    session = rig.hello(UAID)
    wire = session.wire
    session.closed()
    rig.store.release("fetch_topics")
    assert rig.store.called("fetch_since") == 0
    assert len(wire.sent) == 1


def test_9_2_3_reset_after_draining(rig):
    rig.user(record_version=None)
    stored = message(1)
    rig.put(stored)
    session = rig.hello(UAID)
    assert session.wire.closes == [] and UAID in rig.store.users
    session.received(ack(stored))
    assert session.wire.closes == [None]
    assert UAID not in rig.store.users


def test_9_2_3_a_drop_is_retried_after_the_client_left(rig):
    rig.user(record_version=0)
    rig.store.fail("drop_user", StoreBusy())
    session = rig.hello(UAID)
    session.closed()
    assert UAID in rig.store.users
    rig.clock.advance(0.25)
    assert UAID not in rig.store.users


def test_s14_the_read_position_never_goes_back(rig):
    first = message(10)
    rig.put(first)
    session = rig.hello(UAID)
    rig.store.hold("set_pointer")
    session.received(ack(first))
    rig.store.channels[MONTH, UAID].pointer = 5
    rig.store.release("set_pointer")
    session.wire.take()
    rig.node.check(UAID)
    assert session.wire.sent == []


def test_9_2_two_channels(rig):
    stored = [message(1), message(2, chid=CHID2)]
    rig.put(*stored)
    session = rig.hello(UAID)
    assert drained(rig, session) == [numbers(*stored)]


def test_a_message_with_a_second_row_is_not_sent_again_after_its_acknowledgement(rig):
    """A store may move a row to a later place, so that for a moment there are two."""
    first, other = message(1), message(2)
    rig.user()
    rig.put(first, other)
    session = rig.hello(UAID)
    session.wire.take()
    rig.put(message(3, version=first.version))
    session.received(ack(first, other))
    assert session.wire.take() == []
    assert session.state is State.LIVE
    # The second row stays, as others find their place by it, but the pointer has passed it.
    assert f"02:{START * 1_000_000 + 3}:{CHID}" in rig.rows()
    assert rig.pointer() == START * 1_000_000 + 3


def test_a_message_with_two_rows_is_sent_once(rig):
    first = message(1)
    again = message(2, version=first.version)
    rig.user()
    rig.put(first, again)
    session = rig.hello(UAID)
    assert versions(session.wire.take()[1:]) == [first.version]
    session.received(ack(first))
    assert session.wire.take() == []
    assert rig.pointer() == again.sortkey_timestamp


def test_the_second_row_of_a_message_does_not_move_the_pointer_past_others(rig):
    first, between = message(1), message(2)
    again = message(3, version=first.version)
    rig.user()
    rig.put(first, between, again)
    session = rig.hello(UAID)
    session.received(ack(first))
    assert rig.pointer() is None
    session.received(ack(between))
    assert rig.pointer() == again.sortkey_timestamp


def test_another_connection_gets_what_storage_has(rig):
    rig.user()
    first, second = message(1), message(2)
    rig.put(first, second)
    session = rig.hello(UAID)
    session.received(ack(second))
    session.closed()
    assert versions(rig.hello(UAID).wire.take()[1:]) == [first.version]
