"""Long work shows itself: a line that is written over on a terminal, now and then a line elsewhere.

What is said goes to standard error, so that the result on standard output can be read by a program.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

LIVE_EVERY = 0.1
"""Seconds between two changes of the line on a terminal: nobody reads faster."""

PLAIN_EVERY = 10.0
"""Seconds between two lines elsewhere: short work leaves none, and long work fills no log."""


class Progress:
    """How far a job is.

    :param doing: what is done, such as ``Copying``
    :param unit: of what is counted, such as ``users``
    :param total: how many there are; None: nobody knows
    :param scale: how many counted ones make a unit: ``MB`` are counted in bytes, 1e6
    :param stream: where to; default: standard error
    :param now: seconds, monotonic
    :ivar live: whether somebody sits at a terminal
    """

    def __init__(
        self,
        doing: str,
        unit: str,
        total: float | None = None,
        *,
        scale: float = 1,
        stream: TextIO | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total = total
        self._doing, self._unit, self._scale = doing, unit, scale
        self._stream = sys.stderr if stream is None else stream
        self._now = now
        self.live = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._began = now()
        self._shown = self._began - (PLAIN_EVERY if self.live else 0)

    def update(self, done: float) -> None:
        """So many are done; shown if it is time."""
        now = self._now()
        if now - self._shown < (LIVE_EVERY if self.live else PLAIN_EVERY):
            return
        self._shown = now
        text = self.text(done)
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            text = f"\r{text[:width]}\x1b[K"
        else:
            text += "\n"
        self._write(text)

    def finish(self) -> float:
        """Take the line off the terminal; returns the seconds it took."""
        if self.live:
            self._write("\r\x1b[K")
        return self._now() - self._began

    def text(self, done: float) -> str:
        """Return the line for so many."""
        total = self.total
        count = self._number(done)
        spent = self._now() - self._began
        pace = f", {self._number(done / spent)} a second" if spent >= 1 else ""
        if not total:
            return f"{self._doing}: {count} {self._unit}{pace}"
        share = min(done / total, 1.0)
        line = f"{self._doing}: {count} of {self._number(total)} {self._unit} ({share:.0%}){pace}"
        return f"{line}, {spent / share - spent:.0f} s left" if share and pace else line

    def _number(self, count: float) -> str:
        return f"{count / self._scale:,.{0 if self._scale == 1 else 1}f}"

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def rate(count: float, seconds: float, unit: str) -> str:
    """Return what a total ends with: how long it took, and how fast that was."""
    return f"in {seconds:.1f} s ({count / max(seconds, 0.001):,.0f} {unit} a second)"
