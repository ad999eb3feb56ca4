"""Waiting for a moment that several may wait for, each with a Deferred of its own."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")


class Waiters(Generic[T]):
    """Those who wait; falsy while there are none."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[Deferred[T]] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def wait(self) -> Deferred[T]:
        """Fires with the next :meth:`fire`; may be cancelled."""
        waiter: Deferred[T] = Deferred(self._gave_up)
        self._waiting.append(waiter)
        return waiter

    def fire(self, result: Any) -> None:
        """Tell all who wait now, in their order. Who begins to wait meanwhile is not among them.

        :param result: what their Deferreds fire with; they fail with a Failure
        """
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.called:  # else one before it has cancelled it
                waiter.callback(result)

    def _gave_up(self, waiter: Deferred[T]) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)


def follow(deferred: Deferred[Any]) -> Deferred[None]:
    """Return a Deferred of its own that fires when another does, which must not fail."""
    follower: Deferred[None] = Deferred()

    def fire(result: Any) -> Any:
        follower.callback(None)
        return result

    deferred.addCallback(fire)
    return follower
