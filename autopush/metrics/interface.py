"""Counters, gauges and timings, and where they go.

Source: spec/observability 7 and 8, spec/python-api 4.2. A metrics call never raises: what is being
measured goes on whatever happens to the figure (quirk O1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, succeed

from autopush.libraries import known

NAMESPACE = "autopush"
"""First part of every name, wherever it is sent to."""


class IMetrics:
    """One destination of metrics.

    Names are without the ``autopush.`` prefix, tags are ``key:value`` texts.
    """

    active = True
    """Whether anything is kept; if not, callers need not prepare tags."""

    histograms = False
    """Whether :meth:`observe` does anything."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take what the destination needs."""

    def start(self) -> None:
        """Start sending, if that takes more than the first metric."""

    def stop(self) -> Deferred[Any]:
        """Send what is left; fires when that is done."""
        return succeed(None)

    def observe(self, name: str, seconds: float) -> None:
        """Report a duration only histograms make sense of; others ignore it.

        Such names are no part of what 1.58.3 sent (spec/observability 8).
        """

    def on_fetch(self, report: Callable[[IMetrics], None]) -> None:
        """Have gauges set at the moment when somebody fetches the figures; destinations which send
        them ignore it.

        :param report: called with the destination that is fetched, on the reactor thread
        """

    def increment(self, name: str, count: int = 1, **kwargs: Any) -> None:
        """Add to a counter.

        :param kwargs: ``tags``
        """
        raise NotImplementedError

    def gauge(self, name: str, count: float, **kwargs: Any) -> None:
        """Set a gauge.

        :param kwargs: ``tags``
        """
        raise NotImplementedError

    def timing(self, name: str, duration: float, **kwargs: Any) -> None:
        """Report how long something took.

        :param duration: seconds
        :param kwargs: ``tags``
        """
        raise NotImplementedError


class SinkMetrics(IMetrics):
    """Keeps nothing."""

    active = False

    def increment(self, name: str, count: int = 1, **kwargs: Any) -> None:
        """Do nothing."""

    def gauge(self, name: str, count: float, **kwargs: Any) -> None:
        """Do nothing."""

    def timing(self, name: str, duration: float, **kwargs: Any) -> None:
        """Do nothing."""


def make_tags(base: Sequence[str] | None = None, **kwargs: Any) -> list[str]:
    """Return the base tags followed by ``key:value`` of each keyword."""
    return [*(base or ()), *(f"{key}:{value}" for key, value in kwargs.items())]


class SeveralMetrics(IMetrics):
    """Several destinations at once."""

    def __init__(self, *destinations: IMetrics) -> None:
        self.destinations = destinations
        self.histograms = any(one.histograms for one in destinations)

    def start(self) -> None:
        """Start all."""
        for one in self.destinations:
            one.start()

    def stop(self) -> Deferred[Any]:
        """Stop all."""
        return gatherResults([one.stop() for one in self.destinations], consumeErrors=True)

    def observe(self, name: str, seconds: float) -> None:
        """Tell all."""
        for one in self.destinations:
            one.observe(name, seconds)

    def on_fetch(self, report: Callable[[IMetrics], None]) -> None:
        """Tell all."""
        for one in self.destinations:
            one.on_fetch(report)

    def increment(self, name: str, count: int = 1, **kwargs: Any) -> None:
        """Tell all."""
        for one in self.destinations:
            one.increment(name, count, **kwargs)

    def gauge(self, name: str, count: float, **kwargs: Any) -> None:
        """Tell all."""
        for one in self.destinations:
            one.gauge(name, count, **kwargs)

    def timing(self, name: str, duration: float, **kwargs: Any) -> None:
        """Tell all."""
        for one in self.destinations:
            one.timing(name, duration, **kwargs)


class OwnGauges(SeveralMetrics):
    """Tells a destination whose gauges they are. Of several processes that send to the same place
    the last one would count.

    :param tags: of this process
    """

    def __init__(self, destination: IMetrics, tags: Sequence[str]) -> None:
        super().__init__(destination)
        self._tags = tuple(tags)

    def gauge(self, name: str, count: float, **kwargs: Any) -> None:
        """Set a gauge of this process."""
        super().gauge(name, count, tags=[*(kwargs.get("tags") or ()), *self._tags])


class PoolFigures(NamedTuple):
    """What the threads of a pool do."""

    idle: int
    busy: int
    waiting: int
    """Calls that wait for one of them."""


def periodic_reporter(
    metrics: IMetrics, prefix: str = "", others: Callable[[], PoolFigures] | None = None
) -> None:
    """Report how busy the worker threads are; to be called every 15 s.

    :param prefix: of the metrics' names, with its dot
    :param others: what the threads beside the reactor's do, which count as well
    """
    if not metrics.active:
        return
    pool = reactor.getThreadPool()
    idle, busy, waiting = others() if others is not None else PoolFigures(0, 0, 0)
    figures = {
        "idleWorkerCount": len(pool.waiters) + idle,
        "busyWorkerCount": len(pool.working) + busy,
    }
    if known("Twisted", twisted.__version__):
        waiting += pool._team.statistics().backloggedWorkCount
        figures["backloggedWorkCount"] = waiting
    for name, figure in figures.items():
        metrics.gauge(f"{prefix}twisted.threadpool.{name}", figure)
