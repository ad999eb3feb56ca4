"""Refused requests: their metric, and how many lines of the log tell of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from twisted.logger import Logger

if TYPE_CHECKING:
    from autopush.metrics.interface import IMetrics

INTERVAL = 10
"""Seconds after which refusals of an errno are told one by one again."""

LINES = 10
"""Refusals of an errno that are told one by one in that time. Who asks why a sender was refused
finds the line; whoever sends nonsense, as fast as the network allows, fills no log with it."""


@attrs.define
class _Interval:
    """The refusals of an errno since the first that was told."""

    end: float
    told: int = 0
    untold: int = 0


class Refusals:
    """Counts them by errno, of which there are as many as :ref:`error-table` has rows.

    :param clock: (IReactorTime) measures the intervals; what was not told one by one is told at the
        end of one
    """

    log = Logger()

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._intervals: dict[int, _Interval] = {}

    def take(self, errno: int) -> bool:
        """Whether a request that is refused now is to be told by itself; else it is counted."""
        now = self._clock.seconds()
        interval = self._intervals.get(errno)
        if interval is None or (now >= interval.end and not interval.untold):
            interval = self._intervals[errno] = _Interval(now + INTERVAL)
        if interval.told < LINES:
            interval.told += 1
            return True
        if not interval.untold:
            self._clock.callLater(interval.end - now, self._sum_up, errno)
        interval.untold += 1
        return False

    def _sum_up(self, errno: int) -> None:
        interval = self._intervals.pop(errno)
        self.log.info("Refused {count} more with errno {errno}", count=interval.untold, errno=errno)


def count_refused(application: Any, status_code: int, errno: int | None) -> None:
    """Count a request that was answered with an error of the public documentation.

    :param application: ``metrics``, and the counter ``refused``
    """
    application.refused[status_code, errno or 0] += 1
    tell_refused(application.metrics, status_code, errno)


def tell_refused(metrics: IMetrics, status_code: int, errno: int | None) -> None:
    """Tell the metrics of such a request."""
    if metrics.active:
        metrics.increment("requests.refused", tags=[f"errno:{errno or 0}", f"code:{status_code}"])
