"""The time an operation has counts from its arrival (deadlines.py)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from autopush.db.deadlines import Deadlines, TooLate, Unknown
from autopush.exceptions import StoreBusy

LENGTH = 8.0


class Caller:
    """One operation, its turn, and what its caller hears."""

    def __init__(self, deadlines: Deadlines) -> None:
        self.due = deadlines.arrive()
        self.done: Deferred[Any] = Deferred()
        self.answer = deadlines.answer(self.due, self.done)
        self.heard: list[Any] = []
        self.answer.addBoth(self.heard.append)

    @property
    def error(self) -> Any:
        (failure,) = self.heard
        assert isinstance(failure, Failure)
        return failure.value


def make() -> tuple[Clock, Deadlines]:
    clock = Clock()
    return clock, Deadlines(clock, LENGTH)


def test_what_is_done_in_time_is_heard():
    clock, deadlines = make()
    caller = Caller(deadlines)
    assert caller.due.run(lambda value: value + 1, 1) == 2
    clock.advance(LENGTH - 0.1)
    caller.done.callback("done")
    assert caller.heard == ["done"]
    assert not clock.getDelayedCalls()


def test_what_fails_in_time_is_heard():
    clock, deadlines = make()
    caller = Caller(deadlines)
    caller.done.errback(ValueError("x"))
    assert isinstance(caller.error, ValueError)
    assert not clock.getDelayedCalls()


def test_what_is_late_is_not_begun():
    clock, deadlines = make()
    caller = Caller(deadlines)
    clock.advance(LENGTH)
    assert isinstance(caller.error, StoreBusy)  # nothing was done: come back
    ran: list[int] = []
    with pytest.raises(TooLate):
        caller.due.run(ran.append, 1)
    assert not ran
    assert not caller.due.begun


def test_what_was_begun_may_have_been_done():
    clock, deadlines = make()
    caller = Caller(deadlines)
    caller.due.run(lambda: None)
    clock.advance(LENGTH)
    assert isinstance(caller.error, Unknown)
    with pytest.raises(TooLate):
        caller.due.run(lambda: None)  # another attempt
    assert caller.due.begun


@pytest.mark.parametrize("late", ["value", ValueError("x")])
def test_what_comes_after_the_answer_is_dropped(late):
    clock, deadlines = make()
    caller = Caller(deadlines)
    clock.advance(LENGTH)
    (caller.done.errback if isinstance(late, Exception) else caller.done.callback)(late)
    assert len(caller.heard) == 1


def test_a_caller_may_go_away():
    clock, deadlines = make()
    caller = Caller(deadlines)
    caller.answer.cancel()
    assert isinstance(caller.error, CancelledError)
    assert not clock.getDelayedCalls()
    caller.done.callback(None)
    clock.advance(LENGTH)
    assert len(caller.heard) == 1


@given(
    st.lists(
        st.tuples(
            st.floats(0, 5),  # seconds after the one before
            st.none() | st.floats(0, 2 * LENGTH),  # seconds until its turn; None: for ever
        ),
        max_size=30,
    )
)
def test_everybody_hears_within_the_time_since_arrival(arrivals):
    clock, deadlines = make()
    heard: dict[int, tuple[float, Any]] = {}
    began: dict[int, float] = {}

    def turn(number: int, due: Any, done: Deferred[Any]) -> None:
        try:
            due.run(lambda: began.__setitem__(number, clock.seconds()))
        except TooLate as error:
            done.errback(error)
        else:
            done.callback(number)

    arrived = []
    for number, (pause, wait) in enumerate(arrivals):
        clock.pump([pause / 50] * 50)
        due, done = deadlines.arrive(), Deferred()
        arrived.append(clock.seconds())
        deadlines.answer(due, done).addBoth(
            lambda result, number=number: heard.setdefault(number, (clock.seconds(), result))
        )
        if wait is not None:
            clock.callLater(wait, turn, number, due, done)
    clock.pump([0.1] * 200)
    for number, (_, wait) in enumerate(arrivals):
        at, result = heard[number]
        assert at <= arrived[number] + LENGTH + 0.11
        assert (result == number) is (number in began)
        if wait is not None and wait < LENGTH - 0.11:
            assert result == number
        if number in began:
            assert began[number] < arrived[number] + LENGTH
    assert not clock.getDelayedCalls()
