"""How DynamoDB counts what a request costs: read units (RCU) and write units (WCU).

=========== ====================================================================================
read        each item of GetItem and BatchGetItem, or all that a Query has looked at together, in
            4 KB begun; half of that if the read need not be consistent; what isn't there costs one
write       the larger of the item before and afterwards, or the one that is deleted, in KB begun; a
            condition that fails costs the same, what isn't there costs one
=========== ====================================================================================

An index would cost a write more, a transaction twice as much; autopush has neither.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

Item = dict[str, dict[str, Any]]

READ, WRITE = 4096, 1024
"""Bytes of a unit."""

ROUTER, MESSAGES = "router", "messages"
KINDS = (ROUTER, MESSAGES)
"""Of tables."""


def size_of(item: Item | None) -> int:
    """Bytes of an item, as Amazon describes them: names, and values without their types."""
    return sum(len(name.encode()) + _size(value) for name, value in (item or {}).items())


def _size(value: dict[str, Any]) -> int:
    ((kind, content),) = value.items()
    if kind == "S":
        return len(content.encode())
    if kind == "N":
        # Two digits a byte, and one; zeros at both ends don't count.
        digits = content.lstrip("-").replace(".", "").strip("0") or "0"
        return 1 + math.ceil(len(digits) / 2) + content.startswith("-")
    if kind == "SS":
        return sum(len(text.encode()) for text in content)
    if kind == "M":
        return 3 + len(content) + size_of(content)
    if kind == "L":
        return 3 + len(content) + sum(map(_size, content))
    if kind in ("NULL", "BOOL"):
        return 1
    raise ValueError(f"nothing is known of {kind}")


class Units(NamedTuple):
    """Units of each kind of table, read and written."""

    router_read: float = 0
    router_write: float = 0
    messages_read: float = 0
    messages_write: float = 0

    def minus(self, other: Units) -> Units:
        """What came since the other."""
        return Units(*(mine - its for mine, its in zip(self, other, strict=True)))

    @property
    def read(self) -> float:
        """Of both."""
        return self.router_read + self.messages_read

    @property
    def written(self) -> float:
        """Of both."""
        return self.router_write + self.messages_write

    def each(self, count: int) -> Units:
        """The share of each of so many operations."""
        return Units(*(units / count for units in self))


class Meter:
    """Adds up what requests cost, once it is ``on``: that takes longer than the requests."""

    on = False

    def __init__(self) -> None:
        self._read: dict[str, float] = defaultdict(float)
        self._written: dict[str, float] = defaultdict(float)

    def read(self, kind: str, items: Iterable[Item | None], consistent: bool) -> None:
        """Count an item that was read, or those of a query."""
        if self.on:
            units = max(1, math.ceil(sum(map(size_of, items)) / READ))
            self._read[kind] += units if consistent else units / 2

    def write(self, kind: str, items: Iterable[Item | None]) -> None:
        """Count an item that was written.

        :param items: what it was and what it is
        """
        if self.on:
            self._written[kind] += max(1, math.ceil(max(map(size_of, items)) / WRITE))

    def total(self) -> Units:
        """All so far."""
        read, written = self._read, self._written
        return Units(read[ROUTER], written[ROUTER], read[MESSAGES], written[MESSAGES])
