"""One timer for the time-outs of all connections."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from autopush.websocket import timeouts as slimtimers
from autopush.websocket.timeouts import GRANULARITY, Timeouts


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def fired():
    return []


def test_an_item_expires_once_after_its_time(clock, fired):
    queue = Timeouts(clock).queue(5, fired.append)
    queue.start("a")
    clock.pump([0.1] * 49)
    assert fired == []
    clock.advance(GRANULARITY)
    assert fired == ["a"]
    clock.pump([1] * 20)
    assert fired == ["a"]


def test_a_restart_counts_from_anew(clock, fired):
    queue = Timeouts(clock).queue(5, fired.append)
    queue.start("a")
    clock.advance(4)
    queue.start("a")
    clock.advance(4)
    assert fired == []
    clock.advance(1.2)
    assert fired == ["a"]


def test_a_cancelled_item_does_not_expire(clock, fired):
    queue = Timeouts(clock).queue(5, fired.append)
    queue.start("a")
    queue.start("b")
    queue.cancel("a")
    queue.cancel("unknown")
    clock.advance(6)
    assert fired == ["b"]


def test_queues_have_lengths_of_their_own(clock, fired):
    timeouts = Timeouts(clock)
    timeouts.queue(9, fired.append).start("long")
    timeouts.queue(2, fired.append).start("short")
    clock.pump([GRANULARITY] * 12)
    assert fired == ["short"]
    clock.pump([GRANULARITY] * 40)
    assert fired == ["short", "long"]


def test_there_is_one_timer_and_only_while_it_is_needed(clock, fired):
    timeouts = Timeouts(clock)
    queue = timeouts.queue(5, fired.append)
    assert clock.getDelayedCalls() == []
    for item in range(100):
        queue.start(item)
    assert len(clock.getDelayedCalls()) == 1
    clock.advance(6)
    clock.advance(GRANULARITY)
    assert clock.getDelayedCalls() == []
    queue.start("again")
    clock.advance(6)
    assert fired == [*range(100), "again"]


def test_settle_stops_the_timer_unless_it_is_needed(clock, fired):
    timeouts = Timeouts(clock)
    queue = timeouts.queue(5, fired.append)
    timeouts.settle()
    queue.start("a")
    timeouts.settle()
    assert len(clock.getDelayedCalls()) == 1
    queue.cancel("a")
    timeouts.settle()
    assert clock.getDelayedCalls() == []
    queue.start("b")
    clock.advance(6)
    assert fired == ["b"]


def test_an_expiring_item_may_cancel_or_restart_another(clock, fired):
    def expired(item):
        fired.append(item)
        if item == "a":
            queue.cancel("b")
            queue.start("c")

    queue = Timeouts(clock).queue(5, expired)
    for item in "abcd":
        queue.start(item)
    clock.advance(6)
    assert fired == ["a", "d"]
    clock.advance(6)
    assert fired == ["a", "d", "c"]


def test_an_error_does_not_stop_the_timer(clock, fired, monkeypatch):
    failures: list[str] = []
    monkeypatch.setattr(slimtimers.log, "failure", failures.append)

    def expired(item):
        fired.append(item)
        raise RuntimeError(item)

    queue = Timeouts(clock).queue(5, expired)
    queue.start("a")
    queue.start("b")
    clock.advance(6)
    queue.start("c")
    clock.advance(6)
    assert fired == ["a", "b", "c"]
    assert failures == ["Unexpected error"] * 3


def test_many_at_once_are_taken_in_batches(clock, fired, monkeypatch):
    monkeypatch.setattr(slimtimers, "BATCH", 10)
    queue = Timeouts(clock).queue(5, fired.append)
    for item in range(25):
        queue.start(item)
    assert queue.expire(5.0) is True
    assert fired == list(range(10))
    clock.advance(6)
    assert fired == list(range(25))
