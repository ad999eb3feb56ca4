"""A wall clock of their own for processes, by libfaketime where it is installed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

LIBRARIES = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib/faketime/libfaketimeMT.so.1")
"""Where Debian's package libfaketime and others put it."""

KNOWN_AFTER = 1
"""Seconds within which the processes look at the file again."""


def find() -> Path | None:
    """The library, or None."""
    found = [path for name in LIBRARIES for path in Path("/").glob(name.lstrip("/"))]
    return found[0] if found else None


class FakeClock:
    """The wall clock, not the monotonic one, of all processes with :attr:`env`.

    :param library: see :func:`find`
    :param file: what they read the shift from
    """

    def __init__(self, library: Path, file: Path) -> None:
        self.library = library
        self.file = file
        self._shift = timedelta()
        self.shift(timedelta())

    @property
    def env(self) -> Mapping[str, str]:
        """What a process needs in its environment."""
        return {
            "LD_PRELOAD": str(self.library),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_CACHE_DURATION": str(KNOWN_AFTER),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "TZ": "UTC",
        }

    def shift(self, by: timedelta) -> None:
        """Set it forth from where it is."""
        self._shift += by
        draft = self.file.with_suffix(".new")
        draft.write_text(f"{round(self._shift.total_seconds()):+d}s\n")
        draft.replace(self.file)

    @property
    def now(self) -> datetime:
        """What the processes see."""
        return datetime.now(UTC) + self._shift

    def before_next_month(self, seconds: float) -> None:
        """Set it forth to shortly before the end of the month."""
        first = (self.now.replace(day=1) + timedelta(days=32)).replace(
            day=1, hour=0, minute=0, second=0, microsecond=0
        )
        self.shift(first - timedelta(seconds=seconds) - self.now)
