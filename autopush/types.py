"""Types shared by the package."""

from typing import Any, Protocol

JSONDict = dict[str, Any]


class Counter(Protocol):
    """Where to count: the part of :class:`autopush.metrics.IMetrics` that is asked for."""

    def increment(self, name: str, count: int = 1, **kwargs: Any) -> None:
        """Add to a counter."""
