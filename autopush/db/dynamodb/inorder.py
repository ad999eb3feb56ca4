"""Keeps operations that concern the same thing in the order in which they were started."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList

from autopush.waiters import follow

T = TypeVar("T")


class InOrder:
    """Starts an operation when all earlier ones with one of its keys are over, well or not."""

    def __init__(self) -> None:
        self._last: dict[Hashable, Deferred[None]] = {}
        self._count: Counter[Hashable] = Counter()
        """How many operations with a key are not over."""

    def run(self, keys: tuple[Hashable, ...], start: Callable[[], Deferred[T]]) -> Deferred[T]:
        """Start now or later; fires as the operation does."""
        earlier = {id(self._last[key]): self._last[key] for key in keys if key in self._last}
        over: Deferred[None] = Deferred()
        for key in keys:
            self._last[key] = over
            self._count[key] += 1
        if not earlier:
            done = start()
        else:
            ready: Deferred[Any] = DeferredList([follow(other) for other in earlier.values()])
            done = ready.addCallback(lambda _: start())
        return done.addBoth(self._over, keys, over)

    def is_waited_for(self, keys: tuple[Hashable, ...]) -> bool:
        """Whether others wait for the operation with these keys that is under way.

        May be asked in any thread.
        """
        return any(self._count[key] > 1 for key in keys)

    def _over(self, result: T, keys: tuple[Hashable, ...], over: Deferred[None]) -> T:
        for key in keys:
            self._count[key] -= 1
            if self._last.get(key) is over:
                del self._last[key], self._count[key]
        over.callback(None)
        return result
