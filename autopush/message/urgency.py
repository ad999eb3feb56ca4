"""How urgent a message is (RFC 8030 5.3; spec/broadcasts 2)."""

from __future__ import annotations

from typing import Any

VERY_LOW, LOW, NORMAL, HIGH = range(4)
"""Levels, in their order."""

NAMES = ("very-low", "low", "normal", "high")
"""What the levels are called, in headers, rows and records."""

LEVELS = {name: level for level, name in enumerate(NAMES)}


def level_of(value: Any) -> int | None:
    """Return the level that a name stands for; None if it is no such name."""
    return LEVELS.get(value) if isinstance(value, str) else None


def stored(value: Any) -> int:
    """Return the level in a row, or in a message from another node: normal where there is none.

    So say nodes that know of no levels, and what is none must not keep a message from its user.
    """
    level = level_of(value)
    return NORMAL if level is None else level


def to_store(level: int) -> str | None:
    """Return what a row has for a level; None, nothing, for normal ones."""
    return None if level == NORMAL else NAMES[level]


def least_of(record: dict[str, Any]) -> int:
    """Return the least level that a user wants to be sent at once, by its record: all, by default.

    :param record: with or without the attribute ``urgency``
    """
    return level_of(record.get("urgency")) or VERY_LOW
