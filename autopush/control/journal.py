"""What happened, numbered, and who waits for more of it."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred

Entry = TypeVar("Entry")

MAX_ENTRIES = 10_000
"""Messages of a user agent, or requests, that are remembered; the oldest go first. More than
a test looks at, and little enough that a run of many hours does no harm."""


class Journal(Generic[Entry]):
    """Entries in the order in which they came, with numbers from 1 on.

    :param reactor: IReactorTime
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._entries: deque[Entry] = deque(maxlen=MAX_ENTRIES)
        self._waiting: set[Deferred[None]] = set()
        self._closed = False
        self.last = 0
        """Number of the latest entry."""

    def append(self, entry: Entry) -> None:
        """Add an entry; who waits gets it."""
        self.last += 1
        self._entries.append(entry)
        self._wake()

    def clear(self) -> None:
        """Forget all; the numbers go on."""
        self._entries.clear()

    def close(self) -> None:
        """Nobody is to wait any more."""
        self._closed = True
        self._wake()

    def after(self, number: int) -> list[Entry]:
        """Return the entries with higher numbers than this one, as far as they are remembered."""
        first = self.last - len(self._entries)
        return list(self._entries)[max(0, number - first) :]

    async def wait(self, number: int, timeout: float) -> list[Entry]:
        """As :meth:`after`, but wait until there is one.

        :param timeout: seconds of the true time, however the reactor's is moved
        :returns: empty if none came
        """
        end = time.monotonic() + timeout
        while not (found := self.after(number)):
            left = end - time.monotonic()
            if left <= 0 or self._closed:
                break
            await self._more(left)
        return found

    def _more(self, seconds: float) -> Deferred[None]:
        """Fires with the next entry, or after these seconds at the latest."""
        waiting: Deferred[None] = Deferred()
        self._waiting.add(waiting)
        timer = self._reactor.callLater(seconds, self._wake)

        def done(result: None) -> None:
            if timer.active():
                timer.cancel()

        return waiting.addCallback(done)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for deferred in waiting:
            deferred.callback(None)
