"""Time-outs of many connections on one timer.

A reactor timer per connection costs about 0.65 KB and a heap operation each time it moves
(decisions/timers: none per connection). Here every kind of time-out has one fixed length, so its
entries expire in the order in which they were started: a dict, which keeps that order, is the
whole queue, and one timer looks at the queues' heads.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice, takewhile
from typing import Any

from twisted.logger import Logger

log = Logger()

GRANULARITY = 0.2
"""Seconds between two looks at the queues; time-outs are at most this late (spec/websocket 3)."""

BATCH = 1000
"""Entries of one queue handled at a time, so that a node full of connections which all expire
together still answers others in between."""


class Timeouts:
    """The single timer. It runs only while one of its queues has an entry.

    :param clock: an ``IReactorTime``: the reactor, or a ``twisted.internet.task.Clock``
    """

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self._queues: list[TimeoutQueue] = []
        self._wake: Any = None

    def queue(self, seconds: float, expired: Callable[[Any], None]) -> TimeoutQueue:
        """Add a kind of time-out: ``expired(item)`` is called ``seconds`` after its start."""
        queue = TimeoutQueue(self, seconds, expired)
        self._queues.append(queue)
        return queue

    def ensure_running(self) -> None:
        """Start the timer unless it runs."""
        if self._wake is None:
            self._wake = self.clock.callLater(GRANULARITY, self._tick)

    def settle(self) -> None:
        """Stop the timer at once, rather than at its next turn, if no queue has an entry."""
        if self._wake is not None and not any(queue.started for queue in self._queues):
            self._wake.cancel()
            self._wake = None

    def _tick(self) -> None:
        self._wake = None
        now = self.clock.seconds()
        unfinished = False
        for queue in self._queues:
            unfinished |= queue.expire(now)
        if unfinished:
            self._wake = self.clock.callLater(0, self._tick)
        elif any(queue.started for queue in self._queues):
            self.ensure_running()


class TimeoutQueue:
    """Time-outs of one length; at most one per item.

    :ivar seconds: length
    :ivar started: item → time (s) at which it expires, earliest first
    """

    def __init__(self, timer: Timeouts, seconds: float, expired: Callable[[Any], None]) -> None:
        self.seconds = seconds
        self.started: dict[Any, float] = {}
        self._timer = timer
        self._expired = expired

    def start(self, item: Any) -> None:
        """(Re)start the time-out of ``item`` now."""
        self.started.pop(item, None)
        self.started[item] = self._timer.clock.seconds() + self.seconds
        self._timer.ensure_running()

    def cancel(self, item: Any) -> None:
        """Drop the time-out of ``item``, if there is one."""
        self.started.pop(item, None)

    def expire(self, now: float) -> bool:
        """Fire what is due.

        :returns: whether the batch was full, so that more may be due
        """
        overdue = takewhile(lambda entry: entry[1] <= now, self.started.items())
        due = [item for item, _ in islice(overdue, BATCH)]
        for item in due:
            # An earlier one of this batch may have ended or restarted it.
            if self.started.get(item, now + 1) <= now:
                del self.started[item]
                self._fire(item)
        return len(due) == BATCH

    def _fire(self, item: Any) -> None:
        try:
            self._expired(item)
        except Exception:
            # One connection's trouble must not stop the timer of all.
            log.failure("Unexpected error")
