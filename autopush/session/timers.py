"""What sessions need of the reactor: its time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Call(Protocol):
    """A call to come (``IDelayedCall``)."""

    def cancel(self) -> None:
        """Let it not happen."""


class Clock(Protocol):
    """The part of ``IReactorTime`` that is used; a ``twisted.internet.task.Clock`` in tests."""

    def seconds(self) -> float:
        """Seconds since some moment."""

    def callLater(self, delay: float, function: Callable[..., Any], /, *args: Any) -> Call:
        """Call ``function(*args)`` in ``delay`` seconds."""
