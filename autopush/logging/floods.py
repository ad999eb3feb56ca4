"""How many lines of the log may tell of one kind of thing that others can bring about at will."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import attrs
from twisted.logger import Logger

INTERVAL = 10
"""Seconds after which events of a kind are told one by one again."""

LINES = 10
"""Events of a kind that are told one by one in that time. Who asks why a request was refused finds
the line; whoever sends nonsense, as fast as the network allows, fills no log with it."""

Kind = TypeVar("Kind", int, str)


@attrs.define
class _Interval:
    """The events of a kind since the first that was told.

    :ivar call: tells of those that were not, at the end; None: all were told
    """

    end: float
    told: int = 0
    untold: int = 0
    call: Any = None


class Floods(Generic[Kind]):
    """Counts events by their kind. There have to be few kinds, whatever comes in.

    :param clock: (IReactorTime) measures the intervals; what was not told one by one is told at the
        end of one
    """

    log = Logger()

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._intervals: dict[Kind, _Interval] = {}

    def take(self, kind: Kind) -> bool:
        """Whether an event of now is to be told by itself; else it is counted."""
        now = self._clock.seconds()
        interval = self._intervals.get(kind)
        if interval is None or (now >= interval.end and not interval.untold):
            interval = self._intervals[kind] = _Interval(now + INTERVAL)
        if interval.told < LINES:
            interval.told += 1
            return True
        if interval.call is None:
            interval.call = self._clock.callLater(interval.end - now, self._sum_up, kind)
        interval.untold += 1
        return False

    def stop(self) -> None:
        """Tell what was counted, at the end of the process."""
        for kind, interval in list(self._intervals.items()):
            if interval.call is not None:
                interval.call.cancel()
                self._sum_up(kind)

    def _sum_up(self, kind: Kind) -> None:
        self.tell(kind, self._intervals.pop(kind).untold)

    def tell(self, kind: Kind, count: int) -> None:
        """Log how many there were beside those that were told."""
        self.log.info("{count} more of these: {text}", count=count, text=kind)
