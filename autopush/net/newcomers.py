"""Connections that are new wait for those that are not.

After a restart, or when a network comes back, all user agents connect at once. Each is a TCP
connection to accept, a handshake and a hello, and Twisted does all that is ready in one turn of the
event loop: hundreds of these, while an application server that sends a message, and the user agent
that acknowledges it, wait for three turns. Here a turn does a few things for newcomers and all that
is ready on connections that are known; and nobody is accepted while others still wait to be read
from. Nobody is refused: who is not accepted yet waits in the queue of the listening socket.

::

    accept ──► first reads: TLS, handshake, hello ──► known
      │ nothing left        │ nothing left
      ▼                     ▼
    the kernel's queue    ours, in the order in which they came

What is counted is what we do, not who is there: a client that is slow to send takes nobody's place.
The figures are in bench/README.md (storm.py).
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol
from weakref import WeakKeyDictionary

A_TURN = 32
"""Accepts and reads for newcomers in a turn of the event loop: 2 ms of work. With a handful the
turns themselves cost as much as what is done in them."""

PER_SECOND = 1000
"""The same for each second of the last turn, where that is more: a quarter of the time at most, but
newcomers get their share, too, while a flood of messages makes turns long."""

ACCEPTS = 8
"""Connections accepted in a turn at most: each is read from twice or more, soon."""


class Newcomer(Protocol):
    """A connection that was put off."""

    def admit(self) -> None:
        """It is your turn now."""


class Newcomers:
    """What the turn of the event loop may still do for newcomers.

    :param reactor: IReactorTime
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._left = A_TURN
        self._began: float | None = None
        """When this turn began, seconds; None: nobody new has come in it."""
        self._waiting: deque[Newcomer] = deque()

    def take(self, count: int = 1) -> int:
        """Take so much of what is left; returns how much there was."""
        if self._began is None:
            self._began = self._reactor.seconds()
            self._reactor.callLater(0, self._next_turn)
        taken = min(count, self._left)
        self._left -= taken
        return taken

    def accepts(self) -> int:
        """How many connections may be accepted now."""
        return 0 if self._waiting else self.take(ACCEPTS)

    def put_off(self, newcomer: Newcomer) -> None:
        """Have it wait for its turn."""
        self._waiting.append(newcomer)

    def _next_turn(self) -> None:
        began, self._began = self._began, None
        self._left = A_TURN
        if self._waiting:
            assert began is not None
            now = self._reactor.seconds()
            self._left = max(A_TURN, int((now - began) * PER_SECOND))
            self._began = now
            self._reactor.callLater(0, self._next_turn)
        for _ in range(self.take(len(self._waiting)) if self._waiting else 0):
            self._waiting.popleft().admit()


_of: WeakKeyDictionary[Any, Newcomers] = WeakKeyDictionary()


def newcomers(reactor: Any) -> Newcomers:
    """Return those of an event loop: they share its turns, whatever port they come to."""
    if reactor not in _of:
        _of[reactor] = Newcomers(reactor)
    return _of[reactor]
