"""What a session asks of the connection it serves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from autopush.types import JSONDict


class Wire(Protocol):
    """One WebSocket, as the session sees it. Nothing here may raise or block."""

    @property
    def output_paused(self) -> bool:
        """Whether more is waiting to be written than the limit allows (spec/websocket 12)."""

    def send(self, message: JSONDict) -> None:
        """Send one JSON object as a text frame; dropped in silence when closing."""

    def send_all(self, messages: Sequence[JSONDict]) -> None:
        """As :meth:`send` of each, in as few pieces as possible."""

    def close(self, code: int | None = None) -> None:
        """Send a close frame (empty body without ``code``), flush and end TCP."""

    def pause_reading(self) -> None:
        """Stop reading from the user agent."""

    def resume_reading(self) -> None:
        """Read from the user agent again."""


class NoWire:
    """The wire of a session whose connection has ended: everything sent to it is lost."""

    __slots__ = ()

    output_paused = True

    def send(self, message: JSONDict) -> None:
        """Drop the message."""

    def send_all(self, messages: Sequence[JSONDict]) -> None:
        """Drop the messages."""

    def close(self, code: int | None = None) -> None:
        """Nothing is open."""

    def pause_reading(self) -> None:
        """Nothing is read."""

    def resume_reading(self) -> None:
        """Nothing can be read."""


NO_WIRE = NoWire()
