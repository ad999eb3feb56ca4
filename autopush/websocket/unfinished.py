"""What is held of messages that have not arrived completely (RFC 6455 5.4), and how much it may be.

A message is kept until its last byte is here, and whoever sends it decides when that is. One
connection is bounded by the length of a message; all of them together are bounded here. Strangers
and user agents that have said hello have a budget each, so that neither takes the other's. Where a
budget is used up, those who hold most of it are told to try again later: a browser's messages have
a few hundred bytes, and come in one piece.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

STRANGER_MESSAGE = 8192
"""Bytes of a message before hello, all its frames together; close 1009 above, from the header of
the frame with which it would be longer. A hello has a few hundred."""

UNFINISHED = 48 * 1024 * 1024
"""Bytes of incomplete messages from all user agents that have said hello: 48 of the longest, by the
default of ``max_message_size``. Two of the longest are taken whatever that is."""

STRANGERS_UNFINISHED = 16 * 1024 * 1024
"""The same for all connections that have not: 2048 of the longest. Both make 64 MiB a process."""

RELIEF = 16
"""When a budget is used up, this share of it is freed at once (the sixteenth part): who holds most
must not be looked for again with the next byte."""

log = Logger()


class Budget:
    """Bytes that some connections may hold together.

    :param limit: bytes
    :param shed: ends a connection that holds too much; what it held counts no more
    :ivar held: connection → bytes, of those that hold any
    :ivar total: their sum
    """

    def __init__(self, limit: int, shed: Callable[[Any], None]) -> None:
        self.limit = limit
        self.held: dict[Any, int] = {}
        self.total = 0
        self._shed = shed

    def hold(self, connection: Any, size: int) -> None:
        """Note that a connection holds so many bytes now, which may end it, or others."""
        before = self.held.pop(connection, 0)
        if size:
            self.held[connection] = size
        self.total += size - before
        if self.total > self.limit and size > before:
            self._relieve()

    def _relieve(self) -> None:
        goal = self.limit - self.limit // RELIEF
        closed = 0
        for connection in sorted(self.held, key=self.held.__getitem__, reverse=True):
            if self.total <= goal:
                break
            self.hold(connection, 0)
            self._shed(connection)
            closed += 1
        log.warn(
            "Incomplete messages of more than {limit} bytes: {count} connections closed",
            limit=self.limit,
            count=closed,
        )


class Unfinished:
    """The incomplete messages of a process.

    :param shed: ends a connection that holds too much
    :param longest: bytes a message may have
    """

    def __init__(self, shed: Callable[[Any], None], longest: int) -> None:
        self.users = Budget(max(UNFINISHED, 2 * longest), shed)
        self.strangers = Budget(STRANGERS_UNFINISHED, shed)

    def hold(self, connection: Any, size: int, stranger: bool) -> None:
        """Note what a connection holds.

        :param size: bytes, all in all
        :param stranger: whether it has not said hello
        """
        mine, other = self.users, self.strangers
        if stranger:
            mine, other = other, mine
        other.hold(connection, 0)
        mine.hold(connection, size)

    def release(self, connection: Any) -> None:
        """A connection is closed: it holds nothing any more."""
        for budget in (self.users, self.strangers):
            if connection in budget.held:
                budget.hold(connection, 0)
