"""Callers get an answer in time, however long what they asked for has to wait for its turn.

The time counts from an operation's arrival, not from the moment a thread takes it up: behind
hundreds of requests that hang, one that is new would otherwise wait for all of them. What is late
when its turn comes is not begun, so that nothing is left to be worked off for callers who went
away long ago, and the store is there for the next one as soon as it works again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from autopush.exceptions import StoreBusy, StoreError

T = TypeVar("T")


class TooLate(StoreBusy):
    """The time was over before the turn came; nothing was done."""

    def __init__(self, text: str = "the database doesn't answer in time; nothing was done") -> None:
        super().__init__(text)


class Unknown(StoreError):
    """The time was over amid the operation, which may be carried out to its end nevertheless."""

    def __init__(self, text: str = "the database doesn't answer in time") -> None:
        super().__init__(text)


class Due:
    """An operation and when it is due. May be looked at in any thread.

    :param seconds: the clock
    :ivar end: when its caller is told, by that clock
    :ivar begun: whether something of it may have been done
    """

    __slots__ = ("_seconds", "answer", "begun", "end")

    def __init__(self, seconds: Callable[[], float], end: float) -> None:
        self._seconds = seconds
        self.end = end
        self.begun = False
        self.answer: Deferred[Any] | None = None

    def check(self) -> None:
        """:raises TooLate: nobody waits for it any more"""
        if self._seconds() >= self.end:
            raise TooLate

    def run(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """One attempt, unless it is too late for that.

        :raises TooLate: nothing was done
        """
        begun, self.begun = self.begun, True  # before the look at the clock: see Deadlines._look
        try:
            self.check()
        except TooLate:
            self.begun = begun
            raise
        return function(*args, **kwargs)


class Deadlines:
    """Tells callers whose time is over. For the reactor thread.

    :param reactor: IReactorTime
    :param length: seconds each operation has from its arrival
    """

    def __init__(self, reactor: Any, length: float) -> None:
        self._reactor = reactor
        self._length = length
        self._waiting: dict[Due, None] = {}
        """Those whose callers wait, in the order of their ends: all have the same time."""
        self._timer: Any = None  # IDelayedCall

    def arrive(self) -> Due:
        """An operation that somebody asks for now."""
        seconds = self._reactor.seconds
        return Due(seconds, seconds() + self._length)

    def answer(self, due: Due, done: Deferred[T]) -> Deferred[T]:
        """What the caller waits for: fires as ``done`` does, or fails when the time is over.

        What ``done`` brings after that is dropped.
        """

        def cancelled(_: Deferred[T]) -> None:
            self._forget(due)

        answer: Deferred[T] = Deferred(cancelled)
        due.answer = answer
        self._waiting[due] = None
        if self._timer is None:
            self._timer = self._reactor.callLater(self._length, self._look)
        done.addBoth(self._done, due, answer)
        return answer

    def _done(self, result: Any, due: Due, answer: Deferred[Any]) -> None:
        if self._forget(due):
            answer.callback(result)

    def _forget(self, due: Due) -> bool:
        """Whether its caller was still waiting."""
        waited = self._waiting.pop(due, False) is None
        if not self._waiting and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return waited

    def _look(self) -> None:
        self._timer = None
        now = self._reactor.seconds()
        while self._waiting and (due := next(iter(self._waiting))).end <= now:
            del self._waiting[due]
            assert due.answer is not None
            # Either a thread has noted that it begins, or it will find that it is too late.
            due.answer.errback(Unknown() if due.begun else TooLate())
        if self._waiting and self._timer is None:
            first = next(iter(self._waiting))
            self._timer = self._reactor.callLater(first.end - now, self._look)
