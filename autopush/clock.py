"""Wall clock times that identify things, and so must not repeat within the process."""

from __future__ import annotations

import time
from threading import Lock

MS_MULT = 10**3
"""Milliseconds in a second."""

NS_MULT = 10**6
"""Microseconds in a second; see :data:`ns_time` for the name."""


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
            now = time.time_ns() // self._unit_ns
            if now <= self._last:
                now = self._last + 1
            self._last = now
            return now


ms_time = UniqueClock(1_000_000)
"""Milliseconds since the epoch: ``connected_at`` of a connection."""

ns_time = UniqueClock(1_000)
"""**Microseconds** since the epoch, whatever the name says: sort-key timestamps (quirk P4)."""
