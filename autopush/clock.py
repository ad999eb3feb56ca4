"""The clocks: what time it is, and times that identify things, and so must not repeat within the
process.

Every module asks this one, as ``clock.now()``: a name of the module, which :class:`Shift` replaces
where time is to be moved.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import Any

MS_MULT = 10**3
"""Milliseconds in a second."""

NS_MULT = 10**6
"""Microseconds in a second; see :data:`ns_time` for the name."""

now: Callable[[], float] = time.time
"""Seconds since the epoch. Not to be imported by itself: the name may change its meaning."""

now_ns: Callable[[], int] = time.time_ns
"""Nanoseconds since the epoch; as :data:`now`."""


class UniqueClock:
    """Unix time in whole units, larger at every reading.

    When it is read more often than once per unit, or the machine's clock is set back, it runs
    ahead of the wall clock until that has caught up.

    :param unit_ns: length of the unit in nanoseconds
    """

    def __init__(self, unit_ns: int) -> None:
        self._unit_ns = unit_ns
        self._last = 0
        self._lock = Lock()

    def __call__(self) -> int:
        with self._lock:
            units = now_ns() // self._unit_ns
            if units <= self._last:
                units = self._last + 1
            self._last = units
            return units

    def forget(self) -> None:
        """Begin anew: what the times so far identified is gone."""
        with self._lock:
            self._last = 0


ms_time = UniqueClock(1_000_000)
"""Milliseconds since the epoch: ``connected_at`` of a connection."""

ns_time = UniqueClock(1_000)
"""**Microseconds** since the epoch, whatever the name says: sort-key timestamps (quirk P4)."""


class Shift:
    """Moves the time of the whole process, which nothing but a test may want.

    To be made before anything reads the clock or sets a timer. The wall clock can be set back to
    the true time; the one of the timers, which is monotonic, only goes on.

    :param reactor: whose timers follow
    """

    def __init__(self, reactor: Any) -> None:
        self._wall = 0.0
        self._timers = 0.0
        reactor.seconds = self._seconds
        global now, now_ns
        now, now_ns = self._now, self._now_ns

    @property
    def seconds(self) -> float:
        """How far the wall clock is ahead of the true time."""
        return self._wall

    def advance(self, seconds: float) -> None:
        """Let time pass. What becomes due happens in the reactor's next turn, in its order and
        once, as on a machine that was asleep.

        :param seconds: not negative
        """
        self._wall += seconds
        self._timers += seconds

    def reset(self) -> None:
        """Go back to the true time. Nothing that was stored until then should be left."""
        self._wall = 0.0
        ms_time.forget()
        ns_time.forget()

    def _seconds(self) -> float:
        return time.monotonic() + self._timers

    def _now(self) -> float:
        return time.time() + self._wall

    def _now_ns(self) -> int:
        return time.time_ns() + round(self._wall * 1e9)
