"""Messages that wait while their user agent wants only more urgent ones (spec/broadcasts 2)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st
from twisted.internet.defer import Deferred

from autopush.config import AutopushConfig
from autopush.exceptions import RouterException, StoreBusy
from autopush.message.urgency import HIGH, LOW, NAMES, NORMAL, VERY_LOW
from autopush.router.webpush import WebPushRouter
from autopush.session import Delivery
from autopush.session.urgency import INVALID
from autopush.tests.session.support import (
    CHID,
    CHID2,
    START,
    UAID,
    Rig,
    ack,
    message,
    numbers,
    outcome,
    versions,
)

DONE = {"messageType": "urgency", "status": 200}


def ask(session, least):
    session.received({"messageType": "urgency", "min": least})


def arrived(session):
    """Versions of the notifications that came."""
    return versions(f for f in session.wire.take() if f["messageType"] == "notification")


def leave(rig, session):
    session.closed()
    rig.clock.advance(1)


# ---- what a user agent says


@pytest.mark.parametrize("least", NAMES)
def test_2_the_minimum_is_in_the_record_when_it_is_answered(rig, least):
    session = rig.live()
    rig.store.hold("set_urgency")
    ask(session, least)
    assert session.wire.sent == [] and not session.wire.reading
    rig.store.release("set_urgency")
    assert session.wire.take() == [DONE] and session.wire.reading
    assert rig.store.users[UAID]["urgency"] == least


@pytest.mark.parametrize("least", [None, "", "urgent", "HIGH", 3, ["low"], {}])
def test_2_a_wrong_value_changes_nothing(rig, least):
    session = rig.live()
    ask(session, "low")
    session.wire.take()
    ask(session, least)
    (refusal,) = session.wire.take()
    assert (refusal["messageType"], refusal["status"]) == ("urgency", 400)
    assert refusal == INVALID
    assert (session.least, rig.store.users[UAID]["urgency"]) == (LOW, "low")
    assert session.wire.closes == []


def test_2_a_store_that_fails_changes_nothing(rig):
    session = rig.live()
    rig.store.fail("set_urgency", StoreBusy(), ValueError())
    ask(session, "high")
    ask(session, "high")
    assert [answer["status"] for answer in session.wire.take()] == [503, 500]
    assert (session.least, session.wire.reading, session.wire.closes) == (VERY_LOW, True, [])


def test_2_it_lasts_over_reconnects_until_hello_says_another(rig):
    ask(rig.hello(UAID), "high")
    assert rig.hello(UAID).least == HIGH
    assert rig.hello(UAID, urgency="low").least == LOW
    assert rig.store.users[UAID]["urgency"] == "low"
    assert rig.hello(UAID).least == LOW


@pytest.mark.parametrize("value", [None, "", "urgent", 3, []])
def test_2_a_wrong_value_in_hello_is_ignored(rig, value):
    ask(rig.hello(UAID), "high")
    session = rig.hello(UAID, urgency=value)
    assert session.wire.sent[0]["status"] == 200
    assert (session.least, rig.store.users[UAID]["urgency"]) == (HIGH, "high")


def test_2_a_new_user_agent_may_ask_at_once(rig):
    """It is written with its record, which comes with the first channel."""
    session, other = rig.hello(urgency="normal"), rig.hello()
    assert session.least == NORMAL
    for each in (session, other):
        each.received({"messageType": "register", "channelID": CHID})
    assert rig.store.users[session.uaid]["urgency"] == "normal"
    assert "urgency" not in rig.store.users[other.uaid]


def test_2_what_is_asked_before_the_first_channel_is_written_with_it(rig):
    session = rig.hello()
    ask(session, "high")
    assert rig.store.called("set_urgency") == 0
    session.received({"messageType": "register", "channelID": CHID})
    assert rig.store.users[session.uaid]["urgency"] == "high"
    ask(session, "low")
    assert rig.store.users[session.uaid]["urgency"] == "low"


def test_2_who_says_the_same_again_costs_no_write(rig):
    ask(rig.hello(UAID), "high")
    rig.store.calls.clear()
    rig.hello(UAID, urgency="high")
    assert rig.store.called("set_urgency") == 0


# ---- what comes, and what waits


def test_2_what_is_below_is_busy_and_frames_do_not_carry_it(rig):
    session = rig.live()
    ask(session, "normal")
    session.wire.take()
    below, equal, above = (message(urgency=level) for level in (LOW, NORMAL, HIGH))
    assert rig.deliver(below) is Delivery.BUSY
    assert rig.deliver(equal) is Delivery.DELIVERED
    assert rig.deliver(above) is Delivery.DELIVERED
    frames = session.wire.take()
    assert versions(frames) == numbers(equal, above)
    assert all("urgency" not in frame for frame in frames)


def test_2_what_waits_comes_in_order_when_the_minimum_is_lowered(rig):
    session = rig.live()
    ask(session, "high")
    stored = [message(i, urgency=(LOW, NORMAL, HIGH, VERY_LOW)[i % 4]) for i in range(1, 13)]
    topics = [message(topic=f"t{i}", urgency=i % 4) for i in range(4)]
    rig.put(*stored, *topics)
    rig.node.check(UAID)
    session.wire.take()
    assert set(session.stored) == {(CHID, topics[3].version)}
    session.received(ack(topics[3]))
    urgent = [one for one in stored if one.urgency == HIGH]
    assert arrived(session) == numbers(*urgent)
    session.received(ack(*urgent))
    ask(session, "normal")
    assert arrived(session) == numbers(topics[2])
    session.received(ack(topics[2]))
    normal = [one for one in stored if one.urgency == NORMAL]
    assert arrived(session) == numbers(*normal)
    session.received(ack(*normal))
    ask(session, "very-low")
    assert arrived(session) == numbers(*topics[:2])
    session.received(ack(*topics[:2]))
    rest = [one for one in stored if one.urgency < NORMAL]
    assert arrived(session) == numbers(*rest)


@pytest.mark.parametrize("deletes", [False, True])
def test_2_no_pointer_passes_what_waits(rig, deletes):
    rig.store.deletes_read = deletes
    session = rig.live()
    ask(session, "normal")
    first, waiting, last = message(1), message(2, urgency=LOW), message(3)
    rig.put(first, waiting, last)
    rig.node.check(UAID)
    session.received(ack(first, last))
    if not deletes:
        assert rig.pointer() == START * 1_000_000 + 1
    leave(rig, session)
    again = rig.hello(UAID)
    assert arrived(again) == []
    leave(rig, again)
    free = rig.hello(UAID, urgency="very-low")
    assert arrived(free) == numbers(waiting)
    free.received(ack(waiting))
    leave(rig, free)
    assert arrived(rig.hello(UAID)) == []


def test_2_many_topics_that_wait_hide_no_others(rig):
    """They are no page that is read for ever, however many there are."""
    ask(rig.hello(UAID), "high")
    low = [message(topic=f"a{i:03}", urgency=LOW) for i in range(50)]
    high = [message(topic=f"b{i}", urgency=HIGH) for i in range(12)]
    mixed = [message(topic=f"a{i:03}x", urgency=HIGH) for i in range(0, 50, 10)]
    stamped = message(1, urgency=HIGH)
    rig.put(*low, *high, *mixed, stamped)
    session = rig.hello(UAID)
    rows = {one.version: one for one in (*high, *mixed, stamped)}
    got = []
    while frames := arrived(session):
        got += frames
        session.received(ack(*(rows[version] for version in frames)))
    assert sorted(got) == sorted(rows)
    assert rig.store.called("fetch_topics") < 40
    assert len(rig.rows()) == len(low) + 1  # that one the pointer has passed


def test_2_what_has_expired_meanwhile_does_not_come(rig):
    session = rig.live()
    ask(session, "high")
    rig.put(message(1, ttl=5, urgency=LOW), message(topic="t", ttl=5, urgency=LOW))
    rig.node.check(UAID)
    rig.clock.advance(6)
    ask(session, "low")
    assert arrived(session) == []


# ---- with senders


class Sender:
    def __init__(self, rig):
        conf = AutopushConfig(hostname="push.example", endpoint_port=8082)
        self.rig = rig
        self.router = WebPushRouter(conf, None, rig.store, None, rig.node, now=rig.now)

    def send(self, notification):
        """The status of the answer."""
        record = outcome(self.rig.store.get_user(UAID))
        routed = Deferred.fromCoroutine(self.router.route(notification, record))
        try:
            return outcome(routed).status_code
        except RouterException as refusal:
            return refusal.status_code


def test_2_a_ttl_of_0_is_dropped_and_the_sender_told_201(rig):
    session = rig.live()
    ask(session, "normal")
    session.wire.take()
    assert Sender(rig).send(message(ttl=0, urgency=LOW)) == 201
    assert (rig.rows(), session.wire.sent) == ([], [])


@pytest.mark.parametrize("known", [False, True])
def test_2_what_waits_is_looked_for_in_vain_only_by_who_can_not_know(rig, known):
    session = rig.live()
    ask(session, "normal")
    if not known:
        del rig.store.users[UAID]["urgency"]  # the endpoint node has read the record before
    rig.store.calls.clear()
    assert Sender(rig).send(message(urgency=LOW)) == 201
    assert (rig.store.called("fetch_topics") == 0) is known
    assert arrived(session) == []
    assert len(rig.rows()) == 1


steps = st.one_of(
    st.tuples(st.just("send"), st.integers(0, 3), st.sampled_from([None, None, "a", "b"])),
    st.tuples(st.just("ask"), st.integers(0, 3)),
    st.tuples(st.just("ack"), st.integers(0, 20)),
    st.tuples(st.just("reconnect"), st.none() | st.integers(0, 3)),
    st.tuples(st.just("wait")),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=25), st.booleans())
def test_nothing_comes_that_is_not_wanted_and_nothing_is_lost(script, deletes):
    """Whatever a user agent asks for and does meanwhile, and however the store forgets."""
    rig = Rig()
    rig.store.deletes_read = deletes
    rig.store.add_channel(rig.store.months.current, UAID, CHID)
    rig.store.add_channel(rig.store.months.current, UAID, CHID2)
    sender = Sender(rig)
    session = rig.hello(UAID)
    sent, due, held, acked = {}, {}, {}, set()

    def look():
        for frame in session.wire.take():
            if frame["messageType"] != "notification":
                continue
            notification = sent[frame["version"]]
            assert notification.urgency >= session.least
            assert notification.version not in acked
            held[notification.version] = notification

    def acknowledge(number):
        for version in list(held)[:number]:
            acked.add(version)
            due.pop(version, None)
            session.received(ack(held.pop(version)))

    for what, *values in script:
        rig.clock.advance(1)
        look()
        if what == "send":
            level, topic = values
            chid = CHID2 if topic else CHID
            stamp = None if topic else len(sent) + 1
            one = message(stamp, chid=chid, urgency=level, topic=topic, ttl=10_000)
            sent[one.version] = one
            assert sender.send(one) == 201
            for version in [v for v in due if topic and due[v].topic == topic]:
                del due[version]
            due[one.version] = one
        elif what == "ask":
            ask(session, NAMES[values[0]])
        elif what == "ack":
            acknowledge(values[0])
        elif what == "reconnect":
            leave(rig, session)
            held.clear()
            extra = {} if values[0] is None else {"urgency": NAMES[values[0]]}
            session = rig.hello(UAID, **extra)
        else:
            rig.clock.advance(5)
        look()
    ask(session, "very-low")
    for _ in range(2 * len(sent) + 5):
        rig.clock.advance(2)
        look()
        acknowledge(len(held))
    assert not due
