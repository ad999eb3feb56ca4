"""Calls that block, in threads of a store's own, and what comes of them in the reactor.

The reactor's pool does the same, at twice the CPU (bench/README.md). So a store that makes requests
for each operation has threads of its own, which count in the gauges of the reactor's. What comes
of several calls while the reactor is at something else wakes it once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from autopush.exceptions import StoreClosed
from autopush.metrics.interface import PoolFigures

T = TypeVar("T")


class Threads:
    """See the module. All methods are for the reactor thread.

    :param reactor: IReactorFromThreads
    :param size: how many threads there may be. They are started as they are needed, and stay
    :param pool: makes the calls instead, as a ``twisted.python.threadpool.ThreadPool`` does
    """

    def __init__(self, reactor: Any, size: int, pool: Any = None) -> None:
        self._reactor = reactor
        self._size = size
        self._pool = pool
        self._started: deque[None] = deque()
        """As many as there are threads. What several do at once must not get lost, as in a sum."""
        self._executor = ThreadPoolExecutor(size, "store", self._started.append, (None,))
        self._closed = False
        self._calls = 0
        self._results: deque[tuple[Deferred[Any], Any]] = deque()
        self._called = False
        """Whether the reactor is about to look at the results. Set by whoever finds that it isn't;
        where two do at once, it is called twice."""

    def call(self, function: Callable[..., T], *args: Any) -> Deferred[T]:
        """Call a function in a thread; fires or fails with what comes of it.

        :raises StoreClosed: as the Deferred's failure: there are no threads any more
        """
        if self._closed:
            return fail(StoreClosed("the store is closed"))
        deferred: Deferred[T] = Deferred()
        self._calls += 1
        if self._pool is None:
            self._executor.submit(self._work, deferred, function, args)
        else:
            self._pool.callInThreadWithCallback(
                lambda _, result: self._done(deferred, result), function, *args
            )
        return deferred

    def figures(self) -> PoolFigures:
        """What the threads do at this moment."""
        under_way = self._calls - len(self._results)
        busy = min(under_way, self._size)
        return PoolFigures(max(len(self._started) - busy, 0), busy, under_way - busy)

    def close(self) -> None:
        """Take no more calls. The threads end when they have done what was asked for."""
        self._closed = True
        self._executor.shutdown(wait=False)

    # ---- in a thread

    def _work(self, deferred: Deferred[T], function: Callable[..., T], args: Any) -> None:
        result: T | Failure
        try:
            result = function(*args)
        except BaseException:
            result = Failure()
        self._done(deferred, result)

    def _done(self, deferred: Deferred[Any], result: Any) -> None:
        self._results.append((deferred, result))
        if not self._called:
            self._called = True
            self._reactor.callFromThread(self._tell)

    # ---- in the reactor

    def _tell(self) -> None:
        self._called = False  # before the look: what comes after it calls again
        results = self._results
        for _ in range(len(results)):
            deferred, result = results.popleft()
            self._calls -= 1
            deferred.callback(result)
