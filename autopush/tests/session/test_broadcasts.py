"""Broadcasts (spec/broadcasts 1.2)."""

from __future__ import annotations

import gc
import struct
import tracemalloc
from collections import Counter

import pytest
from hypothesis import given, settings, strategies as st

from autopush.session import broadcasts
from autopush.session.broadcasts import (
    AT_ONCE,
    MAX_KNOWN,
    MAX_SUBSCRIPTIONS,
    NOT_FOUND,
    SPREAD,
    TICK,
    TOO_MANY,
)
from autopush.tests.session.support import MORE_INFO, Rig

NAMES = ("a/b", "a/c", "d")


def listener(rig, **wanted):
    """A connection that has subscribed; what it was told is taken."""
    session = rig.hello(broadcasts=wanted)
    session.wire.take()
    return session


def told(session):
    """The versions that came, one object a message."""
    frames = session.wire.take()
    assert all(frame["messageType"] == "broadcast" for frame in frames)
    return [frame["broadcasts"] for frame in frames]


# ---- what is answered


def test_1_2_hello_tells_what_differs_and_what_there_is_not(rig):
    rig.node.broadcasts.learn({"kinto:123": "ver1", "kinto:789": "v"})
    wanted = {"kinto:123": "ver0", "kinto:456": "ver1", "kinto:789": "v"}
    (answer,) = rig.hello(broadcasts=wanted).wire.sent
    assert answer["broadcasts"] == {"kinto:123": "ver1", "errors": {"kinto:456": NOT_FOUND}}


@pytest.mark.parametrize("wanted", [{}, None, "x", ["a/b"], {"a/b": "1"}])
def test_1_2_hello_has_an_empty_object_where_all_is_current(rig, wanted):
    rig.node.broadcasts.learn({"a/b": "1"})
    (answer,) = rig.hello(broadcasts=wanted).wire.sent
    assert answer["broadcasts"] == {}


def test_1_2_hello_without_the_member_gets_none_and_is_told_nothing(rig):
    session = rig.hello()
    assert "broadcasts" not in session.wire.take()[0]
    rig.node.broadcasts.learn({"a/b": "1"})
    assert told(session) == []


def test_1_2_a_version_in_hello_that_is_no_text_is_another_one(rig):
    rig.node.broadcasts.learn({"a/b": "1"})
    (answer,) = rig.hello(broadcasts={"a/b": None}).wire.sent
    assert answer["broadcasts"] == {"a/b": "1"}


def subscribe(session, broadcasts):
    session.received({"messageType": "broadcast_subscribe", "broadcasts": broadcasts})


def test_1_2_subscribe_adds(rig):
    rig.node.broadcasts.learn({"a": "1", "b": "1"})
    session = listener(rig, a="1")
    subscribe(session, {"b": "0", "c": "0"})
    assert told(session) == [{"b": "1", "errors": {"c": NOT_FOUND}}]
    rig.node.broadcasts.learn({"a": "2", "b": "2"})
    assert told(session) == [{"a": "2", "b": "2"}]


@pytest.mark.parametrize("wanted", [{}, None, "x", [], {"a": "1"}])
def test_1_2_subscribe_is_answered_only_where_there_is_something_to_say(rig, wanted):
    rig.node.broadcasts.learn({"a": "1"})
    session = rig.live()
    subscribe(session, wanted)
    assert (session.wire.sent, session.wire.closes) == ([], [])


def test_1_2_what_was_unknown_and_appears_later_is_not_subscribed_to(rig):
    session = listener(rig, a="1")
    rig.node.broadcasts.learn({"a": "2"})
    assert told(session) == []


@pytest.mark.parametrize("value", [None, 1, ["1"], {"v": "1"}])
def test_1_2_a_version_that_is_no_text_is_not_understood(rig, value):
    rig.node.broadcasts.learn({"a": "1"})
    session = rig.live()
    subscribe(session, {"a": "0", "b": value})
    (answer,) = session.wire.take()
    assert (answer["status"], answer["more_info"]) == (400, MORE_INFO)
    assert session.broadcasts is None
    assert rig.metrics.of("ua.command.unknown") == [(1, None)]


def test_1_2_a_connection_has_a_hundred_at_most(rig):
    rig.node.broadcasts.learn({f"n{i}": "1" for i in range(MAX_SUBSCRIPTIONS + 2)})
    session = listener(rig, **{f"n{i}": "1" for i in range(MAX_SUBSCRIPTIONS - 1)})
    subscribe(session, {f"n{i}": "1" for i in range(MAX_SUBSCRIPTIONS + 2)})
    (found,) = told(session)
    assert found == {"errors": {"n100": TOO_MANY, "n101": TOO_MANY}}
    subscribe(session, {"n5": "0"})
    assert told(session) == [{"n5": "1"}]


# ---- what the source says


def test_1_1_an_id_that_is_gone_keeps_its_last_version(rig):
    known = rig.node.broadcasts
    assert known.learn({"a": "1", "b": "1"}) == ["a", "b"]
    assert known.learn({"b": "1"}) == []
    assert known.learn({"a": "1", "b": "2"}) == ["b"]
    (answer,) = rig.hello(broadcasts={"a": "0"}).wire.sent
    assert answer["broadcasts"] == {"a": "1"}


def test_1_1_the_known_are_bounded(rig):
    known = rig.node.broadcasts
    for number in range(3):
        known.learn({f"{number} {i}": "1" for i in range(MAX_KNOWN // 2)})
    assert len(known.known) == MAX_KNOWN
    assert known.learn({"0 0": "2", "2 0": "2"}) == ["0 0"]


# ---- a change


def test_1_2_a_change_is_told_once_to_those_who_subscribed(rig):
    rig.node.broadcasts.learn({"a": "1", "b": "1"})
    of_a, of_b, of_both = listener(rig, a="1"), listener(rig, b="1"), listener(rig, a="1", b="1")
    rig.node.broadcasts.learn({"a": "2", "b": "1"})
    rig.node.broadcasts.learn({"a": "2", "b": "1"})
    assert (told(of_a), told(of_b), told(of_both)) == ([{"a": "2"}], [], [{"a": "2"}])
    rig.node.broadcasts.learn({"a": "3", "b": "3"})
    assert told(of_both) == [{"a": "3", "b": "3"}]
    assert rig.metrics.of("megaphone.broadcast.sent") == [(2, None), (3, None)]


def test_1_2_who_has_heard_of_it_in_an_answer_is_not_told_again(rig):
    rig.node.broadcasts.learn({"a": "1", "b": "1"})
    crowd = [listener(rig, a="1", b="1") for _ in range(AT_ONCE + 1)]
    rig.node.broadcasts.learn({"a": "2", "b": "1"})
    last = next(session for session in crowd if not session.wire.sent)
    subscribe(last, {"b": "1"})
    rig.clock.pump([TICK] * 100)
    assert told(last) == [{"a": "2"}]


def test_1_2_many_are_told_over_a_while_and_a_newer_version_replaces(rig):
    known = rig.node.broadcasts
    known.learn({"a": "1"})
    crowd = [listener(rig, a="1") for _ in range(AT_ONCE * 3)]
    known.learn({"a": "2"})
    assert 0 < sum(bool(session.wire.sent) for session in crowd) < AT_ONCE
    rig.clock.pump([TICK] * 20)
    early = [session for session in crowd if session.wire.sent]
    late = [session for session in crowd if not session.wire.sent]
    assert early and late
    known.learn({"a": "3"})
    rig.clock.pump([TICK] * 120)
    assert all(told(session) == [{"a": "2"}, {"a": "3"}] for session in early)
    assert all(told(session) == [{"a": "3"}] for session in late)
    assert not rig.clock.getDelayedCalls()


def test_1_2_everybody_is_told_within_the_spread_however_often_it_changes(rig, monkeypatch):
    monkeypatch.setattr(broadcasts, "MIN_RATE", 1)
    known = rig.node.broadcasts
    known.learn({"a": "0"})
    crowd = [listener(rig, a="0") for _ in range(AT_ONCE * 3)]
    last = dict.fromkeys(crowd, 0.0)
    for step in range(int(4 * SPREAD / TICK)):
        if step % int(20 / TICK) == 0:
            known.learn({"a": str(step)})
        rig.clock.advance(TICK)
        now = rig.clock.seconds()
        for session in crowd:
            if session.wire.take():
                last[session] = now
            assert now - last[session] <= SPREAD + 2 * TICK


def test_1_2_a_slice_is_short_however_many_there_are(rig, monkeypatch):
    """20,000 connections: no more than some twenty between two turns of the reactor."""
    monkeypatch.setattr(broadcasts, "MIN_RATE", 10)
    rig.node.broadcasts.learn({"a": "1"})
    crowd = [listener(rig, a="1") for _ in range(1200)]
    before = 0
    rig.node.broadcasts.learn({"a": "2"})
    while any(not session.wire.sent for session in crowd):
        count = sum(bool(session.wire.sent) for session in crowd)
        assert count - before <= 1 + 1200 * TICK / SPREAD
        before = count
        rig.clock.advance(TICK)
    assert rig.clock.seconds() <= SPREAD


def test_1_2_a_paused_connection_is_told_when_it_resumes(rig):
    rig.node.broadcasts.learn({"a": "1"})
    session = listener(rig, a="1")
    session.wire.output_paused = True
    rig.node.broadcasts.learn({"a": "2"})
    rig.node.broadcasts.learn({"a": "3"})
    assert told(session) == []
    session.wire.output_paused = False
    session.output_resumed()
    session.output_resumed()
    assert told(session) == [{"a": "3"}]


def test_1_2_who_has_gone_is_told_nothing(rig):
    rig.node.broadcasts.learn({"a": "1"})
    crowd = [listener(rig, a="1") for _ in range(AT_ONCE * 2)]
    rig.node.broadcasts.learn({"a": "2"})
    late = next(session for session in crowd if not session.wire.sent)
    late.close()
    rig.clock.pump([TICK] * 100)
    assert late.wire.sent == []


def test_nobody_is_told_any_more_when_the_node_stops(rig):
    rig.node.broadcasts.learn({"a": "1"})
    crowd = [listener(rig, a="1") for _ in range(AT_ONCE * 2)]
    rig.node.broadcasts.learn({"a": "2"})
    wires = [session.wire for session in crowd]
    for wire in wires:
        wire.take()
    rig.node.shutdown()
    rig.clock.pump([TICK] * 100)
    assert all(wire.sent == [] for wire in wires)
    assert not rig.clock.getDelayedCalls()


steps = st.one_of(
    st.tuples(st.just("learn"), st.dictionaries(st.sampled_from(NAMES), st.sampled_from("123"))),
    st.tuples(st.just("hello"), st.dictionaries(st.sampled_from(NAMES), st.sampled_from("123"))),
    st.tuples(
        st.just("subscribe"),
        st.integers(0, 5),
        st.dictionaries(st.sampled_from(NAMES), st.sampled_from("123")),
    ),
    st.tuples(st.just("pause"), st.integers(0, 5)),
    st.tuples(st.just("resume"), st.integers(0, 5)),
    st.tuples(st.just("wait"), st.sampled_from([TICK, 10 * TICK, SPREAD])),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(steps, max_size=30))
def test_all_come_to_know_the_last_version_and_nothing_twice(script):
    """Whatever comes in between: what a connection knows of what it subscribed to is, at last, what
    the source says, and no message tells what it knew already, but for a version to which the
    source has come back meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(broadcasts, "AT_ONCE", 1)
        patch.setattr(broadcasts, "MIN_RATE", 1)
        rig = Rig()
        known = rig.node.broadcasts
        crowd = []
        views = {}
        learnt = Counter()  # how often the source has had another version, by name
        seen = {}  # that number when a session was told

        def look():
            for session in crowd:
                for frame in session.wire.take():
                    for name, text in frame.get("broadcasts", {}).items():
                        if name != "errors":
                            back = seen[session, name] != learnt[name]
                            assert views[session].get(name) != text or back
                            views[session][name] = text
                            seen[session, name] = learnt[name]

        for what, *values in script:
            if what == "learn":
                known.learn(*values)
                learnt.update(list(values[0]))
            elif what == "wait":
                rig.clock.pump([TICK] * round(values[0] / TICK))
            elif what == "hello":
                session = rig.hello(broadcasts=values[0])
                crowd.append(session)
                views[session] = dict(values[0])
                seen.update({(session, name): learnt[name] for name in NAMES})
            elif values[0] < len(crowd):
                session = crowd[values[0]]
                if what == "subscribe":
                    look()
                    views[session].update(values[1])
                    seen.update({(session, name): learnt[name] for name in values[1]})
                    subscribe(session, values[1])
                else:
                    session.wire.output_paused = what == "pause"
                    if what == "resume":
                        session.output_resumed()
            look()
        for session in crowd:
            session.wire.output_paused = False
            session.output_resumed()
        rig.clock.pump([TICK] * round(2 * SPREAD / TICK))
        look()
        for session in crowd:
            for name in session.broadcasts or ():
                assert views[session][name] == known.known[name].text


# ---- what it costs


def test_1_2_who_subscribes_to_the_same_shares_it(rig):
    rig.node.broadcasts.learn({"a": "1", "b": "1"})
    one, two = listener(rig, a="1", b="1"), listener(rig, b="1", a="0")
    three = listener(rig, a="1")
    subscribe(three, {"b": "1"})
    assert one.broadcasts is two.broadcasts is three.broadcasts
    for session in (one, two, three):
        session.close()
        session.broadcasts = None
    gc.collect()
    assert not rig.node.broadcasts._sets


def test_1_2_a_subscription_costs_less_than_a_hundred_bytes(rig):
    rig.node.broadcasts.learn({f"remote-settings/{i}": "1" for i in range(10)})
    sessions = [rig.hello() for _ in range(1000)]
    wanted = {f"remote-settings/{i}": "1" for i in range(3)}
    rig.node.broadcasts.answer(rig.live(), wanted)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for session in sessions:
            rig.node.broadcasts.answer(session, dict(wanted))
        gc.collect()
        cost = (tracemalloc.get_traced_memory()[0] - before) / len(sessions)
    finally:
        tracemalloc.stop()
    pointers = 2 * struct.calcsize("P")
    assert cost + pointers <= 100
