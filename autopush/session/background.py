"""Writes that must happen although nobody waits for them.

The original ran them again at once and without end after every failure (spec/websocket Q16);
here each attempt waits longer than the one before, there is a last one, and the number of
operations waiting for another attempt is limited. They go on when the client has left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from autopush.exceptions import StoreBusy, StoreClosed
from autopush.session.events import log
from autopush.session.timers import Call, Clock
from autopush.waiters import Waiters

DELAYS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds before each further attempt: a minute in all, after which a store that still fails
has lost more than these writes."""

GIVEN_UP = object()
"""Outcome of an operation that never succeeded."""

MAX_WAITING = 10_000
"""Operations waiting for another attempt at a time; each holds about 1 KB and a message."""


class Background:
    """Runs store operations until they succeed or are given up.

    :param clock: where the waiting happens
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._running = 0
        self._waiters: Waiters[None] | None = None
        self._calls: dict[Deferred[None], Call] = {}
        self._stopping = False
        self._hurrying = False

    def persist(self, operation: Callable[..., Deferred[Any]], *args: Any) -> Deferred[Any]:
        """Run a store operation, again where it fails.

        :returns: fires with its result, or :data:`GIVEN_UP`; never fails.
        """
        self._running += 1
        try:
            done = operation(*args)
        except Exception:
            done = fail()
        done.addCallbacks(self._succeeded, self._failed, errbackArgs=(operation, args))
        return done

    def watch(self, work: Deferred[Any]) -> None:
        """Let :meth:`idle` wait for this too; a failure of it is logged."""
        self._running += 1

        def ended(result: Any) -> None:
            if isinstance(result, Failure):
                log.failure("Unexpected error", failure=result)
            self._ended()

        work.addBoth(ended)

    def pause(self, delay: float) -> Deferred[None]:
        """Fires after ``delay`` seconds, or before that when the node stops."""
        if self._stopping:
            return succeed(None)
        if self._hurrying:
            delay = min(delay, DELAYS[0])
        over: Deferred[None] = Deferred()

        def wake() -> None:
            del self._calls[over]
            over.callback(None)

        self._calls[over] = self.clock.callLater(delay, wake)
        return over

    def idle(self) -> Deferred[None]:
        """Fires when nothing is running, or waiting to run, here."""
        if not self._running:
            return succeed(None)
        if self._waiters is None:
            self._waiters = Waiters()
        return self._waiters.wait()

    def hurry(self) -> None:
        """The node stops: try again now what waits, and go on after the shortest pause until
        :meth:`stop`."""
        self._hurrying = True
        self._wake_all()

    def _delays(self) -> Iterator[float]:
        yield from DELAYS
        while self._hurrying:
            yield DELAYS[0]

    def stop(self) -> None:
        """Try nothing again from now on; what waits is given up."""
        self._stopping = True
        self._wake_all()

    def _wake_all(self) -> None:
        calls, self._calls = self._calls, {}
        for over, call in calls.items():
            call.cancel()
            over.callback(None)

    def _succeeded(self, result: Any) -> Any:
        self._ended()
        return result

    def _failed(
        self, failure: Failure, operation: Callable[..., Deferred[Any]], args: tuple[Any, ...]
    ) -> Deferred[Any]:
        return Deferred.fromCoroutine(self._repeat(failure, operation, args))

    async def _repeat(
        self, failure: Failure, operation: Callable[..., Deferred[Any]], args: tuple[Any, ...]
    ) -> Any:
        try:
            for delay in self._delays():
                if not failure.check(StoreBusy):
                    log.failure("Unexpected error", failure=failure)
                if self._stopping or len(self._calls) >= MAX_WAITING:
                    break
                if failure.check(StoreClosed):
                    break
                await self.pause(delay)
                if self._stopping:
                    break
                try:
                    return await operation(*args)
                except Exception:
                    failure = Failure()
            log.failure("Unexpected error", failure=failure, extra="Given up")
            return GIVEN_UP
        finally:
            self._ended()

    def _ended(self) -> None:
        self._running -= 1
        if not self._running and self._waiters is not None:
            waiters, self._waiters = self._waiters, None
            waiters.fire(None)
