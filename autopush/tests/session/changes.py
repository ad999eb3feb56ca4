"""Watches every change of state in the whole test-suite, and refuses those no table knows.

What a session raises it also catches, so a change that was refused is remembered, too: ``conftest``
asks for :func:`faults` after each test.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from typing import Any

from autopush.session.outstanding import ROW_TRANSITIONS, Direct
from autopush.session.session import BaseSession
from autopush.session.states import TRANSITIONS

taken: defaultdict[type, set[tuple[Any, Any]]] = defaultdict(set)
"""The changes so far, as pairs, by the kind of state (numbers of different kinds are equal)."""

_faults: list[str] = []


class Watched:
    """Stands for the slot of an attribute that holds a state.

    :param slot: the attribute's own descriptor
    :param table: the states that may follow on each
    """

    def __init__(self, slot: Any, table: dict[Any, frozenset[Any]]) -> None:
        self.slot = slot
        self.table = table

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else self.slot.__get__(instance, owner)

    def __set__(self, instance: Any, state: Any) -> None:
        try:
            before = self.slot.__get__(instance)
        except AttributeError:
            self.slot.__set__(instance, state)  # the first one
            return
        if state not in self.table[before]:
            _faults.append(f"{before!r} -> {state!r}")
            raise AssertionError(_faults[-1])
        taken[type(state)].add((before, state))
        self.slot.__set__(instance, state)


WATCHED: tuple[tuple[type, str, dict[Any, frozenset[Any]]], ...] = (
    (BaseSession, "state", TRANSITIONS),
    (Direct, "row", ROW_TRANSITIONS),
)


def install() -> None:
    """Watch from now on."""
    for owner, name, table in WATCHED:
        slot = vars(owner)[name]
        if not isinstance(slot, Watched):
            setattr(owner, name, Watched(slot, table))


def faults() -> list[str]:
    """Take the changes that were refused since this was asked for last."""
    found = _faults.copy()
    _faults.clear()
    return found


def shown_in(picture: str) -> set[tuple[str, str]]:
    """The changes that a picture shows, ``STATE ──reason──▶ STATE``, as pairs of names.

    ``any`` is each state of the lines above.
    """
    above: set[str] = set()
    shown: set[tuple[str, str]] = set()
    for line in re.findall(r"^    (.+▶.+)$", picture, re.MULTILINE):
        chain = re.split(r" ─+[^─▶]+─+▶ ", line)
        for state, after in itertools.pairwise(chain):
            shown |= {(one, after) for one in (above if state == "any" else {state})}
        above |= set(chain)
    return shown


def edges(table: dict[Any, frozenset[Any]]) -> set[tuple[Any, Any]]:
    """A table as pairs."""
    return {(state, after) for state, followers in table.items() for after in followers}
