"""What connections have acknowledged a moment ago.

A back end may hold a message twice for a short while: when a node's answer got lost and the sender
stored what had arrived, or when a row moves to a later place (spec/storage 17.6). The connection
that has acknowledged one of them must not get the other.
"""

from __future__ import annotations

from collections import OrderedDict

REMEMBERED = 20_000
"""Acknowledgements remembered by a node, about 4 MB: those of the last seconds."""


class Recent:
    """The latest acknowledgements of all connections of a node, oldest first."""

    __slots__ = ("_connections", "_size")

    def __init__(self, size: int = REMEMBERED) -> None:
        self._size = size
        self._connections: OrderedDict[str, int] = OrderedDict()

    def add(self, version: str, connected_at: int) -> None:
        """Remember that this connection has acknowledged this message."""
        connections = self._connections
        connections[version] = connected_at
        if len(connections) > self._size:
            connections.popitem(last=False)

    def has(self, version: str | None, connected_at: int) -> bool:
        """Whether this connection has acknowledged this message."""
        return version is not None and self._connections.get(version) == connected_at
