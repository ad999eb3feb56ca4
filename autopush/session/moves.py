"""Users that have moved to another month a moment ago, or are about to.

Some time later their old month is looked at once more (:mod:`~autopush.session.upkeep`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from autopush.session.timers import Clock

LOOK_BACK = 60.0
"""Seconds after a move until the old month is looked at again: a sender of 1.58.3 waits seconds for
a node and half a minute for the throttled write that follows; ours store a second time instead."""

MAX_MOVES = 50_000
"""Users in the queue for that look, about 50 MB with ten channels each; beyond it the oldest is let
go. They are those of one minute."""


@dataclass(slots=True)
class Move:
    """A user's way from one message table to another."""

    at: float
    """Seconds of the node's clock."""
    uaid: str
    old: str
    new: str | None
    """None: whichever another node moves the user to."""
    known: frozenset[str] | None = None
    """The channels that came along, as far as that is known: later ones are carried over, too."""


class Moves:
    """Those of one node, oldest first.

    :param clock: the node's
    """

    __slots__ = ("_clock", "_moves")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._moves: OrderedDict[tuple[str, str], Move] = OrderedDict()

    def note(self, uaid: str, old: str, new: str | None) -> Move:
        """Note that a user is about to move to another month.

        :param new: None: it will, but may be moved by another node before
        """
        move = Move(self._clock.seconds(), uaid, old, new)
        self._moves[uaid, old] = move
        self._moves.move_to_end((uaid, old))
        if len(self._moves) > MAX_MOVES:
            self._moves.popitem(last=False)
        return move

    def due(self) -> Iterator[Move]:
        """Take those whose old month is to be looked at by now."""
        before = self._clock.seconds() - LOOK_BACK
        while self._moves and next(iter(self._moves.values())).at <= before:
            yield self._moves.popitem(last=False)[1]

    def take_all(self) -> list[Move]:
        """Take all."""
        moves = list(self._moves.values())
        self._moves.clear()
        return moves
