"""What connections have acknowledged a moment ago.

A back end may hold a message twice for a short while: when a node's answer got lost and the sender
stored what had arrived, or when a row moves to a later place (spec/storage 17.6). The connection
that has acknowledged one of them must not get the other.
"""

from __future__ import annotations

REMEMBERED = 20_000
"""Acknowledgements remembered by a node at most, and half as many at least, about 2 MB: those of
the last seconds."""


class Recent:
    """The latest acknowledgements of all connections of a node.

    Two generations instead of an ordered map: nothing has to be done for what is forgotten. Of a
    version, which has some 200 characters, its hash is kept: 64 bits whose key only this process
    has, and which count for one connection only, so no two versions are taken for each other.

    :param size: acknowledgements kept at most
    """

    __slots__ = ("_generation", "_old", "_young")

    def __init__(self, size: int = REMEMBERED) -> None:
        self._generation = size // 2
        self._young: dict[int, int] = {}
        self._old: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def add(self, version: str, connected_at: int) -> None:
        """Remember that this connection has acknowledged this message."""
        young = self._young
        if len(young) >= self._generation:
            self._old, self._young = young, {}
            young = self._young
        young[hash(version)] = connected_at

    def has(self, version: str | None, connected_at: int) -> bool:
        """Whether this connection has acknowledged this message."""
        if version is None:
            return False
        key = hash(version)
        return self._young.get(key, self._old.get(key)) == connected_at
