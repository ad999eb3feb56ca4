"""What supervisor and worker say to each other."""

from __future__ import annotations

import os
import socket
from functools import partial
from typing import Any

import pytest
from hypothesis import given, strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from autopush.workers.channel import ASK_WITHIN, Channel, ChannelError, tell_now

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


class Pair:
    """Both ends, and what is said in between."""

    def __init__(self, **asked: Any) -> None:
        self.clock = Clock()
        self.told: list[Any] = []
        self.ended: list[str] = []
        self.ends = [
            Channel(
                self.clock,
                {"fact": self.told.append},
                {name: partial(_same, answer) for name, answer in asked.items()},
                lambda: self.ended.append("ended"),
            )
            for _ in range(2)
        ]
        self.wires = [StringTransport() for _ in range(2)]
        for end, wire in zip(self.ends, self.wires, strict=True):
            end.makeConnection(wire)

    def deliver(self) -> None:
        """Carry what was said to the other side, in pieces."""
        while any(wire.value() for wire in self.wires):
            for wire, other in zip(self.wires, reversed(self.ends), strict=True):
                data = wire.value()
                wire.clear()
                for at in range(0, len(data), 7):
                    other.dataReceived(data[at : at + 7])


def _same(answer: Any) -> Any:
    return answer


def outcome(deferred: Deferred[Any]) -> list[Any]:
    results: list[Any] = []
    deferred.addBoth(results.append)
    return results


@given(st.lists(VALUES))
def test_what_is_told_arrives_in_order(values: list[Any]) -> None:
    pair = Pair()
    for value in values:
        pair.ends[0].tell("fact", value)
    pair.deliver()
    assert pair.told == values


@given(VALUES)
def test_what_is_asked_is_answered(value: Any) -> None:
    pair = Pair(question=succeed(value))
    results = outcome(pair.ends[1].ask("question"))
    assert results == []
    pair.deliver()
    assert results == [value]


def test_a_late_answer_is_the_right_one() -> None:
    first: Deferred[Any] = Deferred()
    pair = Pair(slow=first, quick=2)
    slow, quick = (outcome(pair.ends[0].ask(name)) for name in ("slow", "quick"))
    pair.deliver()
    assert (slow, quick) == ([], [2])
    first.callback(1)
    pair.deliver()
    assert slow == [1]


def test_who_can_not_tell_says_why() -> None:
    pair = Pair(question=fail(ValueError("no idea")))
    results = outcome(pair.ends[0].ask("question"))
    pair.deliver()
    assert results[0].check(ChannelError)
    assert results[0].getErrorMessage() == "no idea"


def test_nobody_waits_for_ever() -> None:
    never: Deferred[Any] = Deferred()
    pair = Pair(question=never)
    results = outcome(pair.ends[0].ask("question"))
    pair.deliver()
    pair.clock.advance(ASK_WITHIN)
    assert "no answer within 5 s" in results[0].getErrorMessage()
    never.callback("too late")
    pair.deliver()
    assert len(results) == 1


def test_the_end_of_the_other_process() -> None:
    pair = Pair(question=Deferred())
    waiting = outcome(pair.ends[0].ask("question"))
    pair.ends[0].connectionLost()
    assert pair.ended == ["ended"]
    assert "has ended" in waiting[0].getErrorMessage()
    after = outcome(pair.ends[0].ask("question"))
    assert "has ended" in after[0].getErrorMessage()
    pair.ends[0].tell("fact", 1)
    pair.clock.advance(ASK_WITHIN)
    assert len(waiting) == len(after) == 1


@pytest.mark.parametrize("value", ["why", "x" * 40_000])
def test_a_process_whose_loop_does_not_run_can_tell(value: str) -> None:
    pair = Pair()
    ours, its = os.pipe()
    tell_now(its, "fact", value)
    os.close(its)
    with open(ours, "rb") as stream:
        pair.ends[0].dataReceived(stream.read())
    assert pair.told == [value]


def test_it_tells_nobody_if_the_other_has_gone() -> None:
    ours, its = socket.socketpair()
    ours.close()
    with its:
        tell_now(its.fileno(), "failed", "why")
