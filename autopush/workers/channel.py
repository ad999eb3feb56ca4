"""What supervisor and worker say to each other: lines of JSON over a pair of sockets.

=================================== ===========================================================
``{"tell": what, "value": v}``      nobody answers
``{"ask": what, "number": n}``      answered by one of the next two
``{"answer": v, "number": n}``
``{"failed": text, "number": n}``
=================================== ===========================================================

What may be told and asked stands in the tables that each side gives to its :class:`Channel`. The
end of the other process is the end of the channel.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

ASK_WITHIN = 5.0
"""Seconds the other process gets to answer; it takes milliseconds, unless it hangs."""

MAX_LENGTH = 64 * 1024 * 1024
"""Bytes of a line: the figures of a worker have some 100 KB."""

log = Logger()

Answerer = Callable[[], Any | Awaitable[Any]]
Listener = Callable[[Any], None]


class ChannelError(Exception):
    """There is no answer; the text says why."""


class Channel(LineOnlyReceiver):
    """One end.

    :param clock: IReactorTime
    :param told: called with what the other side tells, by what it is
    :param asked: make the answers to what the other side asks; they may fail
    :param ended: called when the other side has gone
    """

    transport: Any
    delimiter = b"\n"
    MAX_LENGTH = MAX_LENGTH

    def __init__(
        self,
        clock: Any,
        told: Mapping[str, Listener],
        asked: Mapping[str, Answerer],
        ended: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._told = told
        self._asked = asked
        self._ended = ended
        self._waiting: dict[int, Deferred[Any]] = {}
        self._number = 0
        self._open = True

    def tell(self, what: str, value: Any = None) -> None:
        """Tell the other side; if it has gone, nobody."""
        self._send({"tell": what, "value": value})

    def ask(self, what: str, within: float = ASK_WITHIN) -> Deferred[Any]:
        """Ask the other side; fires with the answer.

        :param within: seconds
        :raises ChannelError: (as failure) it can't tell, has gone, or takes too long
        """
        if not self._open:
            return fail(ChannelError("the process has ended"))
        self._number += 1
        number = self._number

        def forget(_: Any) -> None:
            self._waiting.pop(number, None)

        answer: Deferred[Any] = Deferred(forget)
        self._waiting[number] = answer
        self._send({"ask": what, "number": number})
        return answer.addTimeout(within, self._clock, lambda *_: _too_late(within))

    def close(self) -> None:
        """Say nothing more."""
        if self._open and self.transport is not None:
            self.transport.loseConnection()

    # ---- from the other side

    def lineReceived(self, line: bytes) -> None:
        message = orjson.loads(line)
        if "tell" in message:
            self._told[message["tell"]](message["value"])
        elif "ask" in message:
            made = maybeDeferred(self._asked[message["ask"]])
            number = (message["number"],)
            made.addCallbacks(self._answer, self._fail, number, {}, number)
            made.addErrback(lambda failure: log.failure("Unexpected error", failure))
        else:
            waiting = self._waiting.pop(message["number"], None)
            if waiting is None:
                return  # it came too late
            if "failed" in message:
                waiting.errback(ChannelError(message["failed"]))
            else:
                waiting.callback(message["answer"])

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._open = False
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            answer.errback(ChannelError("the process has ended"))
        self._ended()

    # ---- internal

    def _answer(self, value: Any, number: int) -> None:
        self._send({"answer": value, "number": number})

    def _fail(self, failure: Failure, number: int) -> None:
        self._send({"failed": failure.getErrorMessage(), "number": number})

    def _send(self, message: dict[str, Any]) -> None:
        if self._open and self.transport is not None:
            self.sendLine(orjson.dumps(message))


def _too_late(within: float) -> Any:
    raise ChannelError(f"no answer within {within:g} s")


def tell_now(descriptor: int, what: str, value: Any) -> None:
    """Tell the other side from a process whose event loop doesn't run (any more, or yet); if it has
    gone, nobody."""
    line = orjson.dumps({"tell": what, "value": value}) + Channel.delimiter
    with contextlib.suppress(BrokenPipeError):
        while line:
            line = line[os.write(descriptor, line) :]
