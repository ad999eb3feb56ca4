"""Records read lately, for as long as nobody has written to the file.

A read costs a transaction, which drags half of SQLite through the CPU's caches; and most messages
are for users who got one a moment ago. The file's WAL index (``<file>-shm``) is memory shared by
all processes that have the file open, and its header changes with every transaction any of them
commits (https://sqlite.org/walformat.html#the_wal_index_header). While it is what it was before
something was read, reading again would bring the same.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import ClassVar

HEADER = 48
"""Bytes of the header; a copy of it and locks follow."""

MAX_ENTRIES = 10_000
"""Records, and channels, remembered; then all are forgotten. About 7 MB."""

MAX_LENGTH = 2048
"""Characters of a record; longer ones, of bridge users, are read every time."""


class WalIndex:
    """The header of a file's WAL index.

    Closing any descriptor of a file lets go of all locks the process has on it (POSIX), and those
    SQLite has on this one keep the database whole. So it is opened once per process, and closed
    only when all connections to the database are.

    :param path: of the database, to which there must be a connection
    :raises OSError: there is no such file
    :raises ValueError: it has no header
    """

    _mapped: ClassVar[dict[str, tuple[int, mmap.mmap, int]]] = {}
    """Descriptor, mapping, and how many use them, by path."""

    def __init__(self, path: str) -> None:
        self._path = path
        if path in self._mapped:
            fd, mapping, users = self._mapped[path]
        else:
            fd = os.open(path + "-shm", os.O_RDONLY | os.O_CLOEXEC)
            mapping, users = mmap.mmap(fd, HEADER, access=mmap.ACCESS_READ), 0
        self._mapped[path] = (fd, mapping, users + 1)
        self._mapping = mapping

    def header(self) -> bytes:
        """What every transaction changes."""
        return self._mapping[:HEADER]

    def close(self) -> None:
        """Let go of it; see the class for when."""
        fd, mapping, users = self._mapped.pop(self._path)
        if users > 1:
            self._mapped[self._path] = (fd, mapping, users - 1)
        else:
            mapping.close()
            os.close(fd)


_count = struct.Struct("=8xI").unpack_from
"""Returns how many transactions a header counts (32 bits), as the only one of a tuple."""


def _is_next(before: bytes, after: bytes) -> bool:
    """Whether one transaction leads from one header to the other."""
    following: bool = _count(after)[0] == (_count(before)[0] + 1) & 0xFFFF_FFFF
    return following


class ReadCache:
    """Router records and channels as they were read.

    :ivar records: JSON text by the user's key
    :ivar channels: expiry of the channel row (s), 0 where the channel isn't in it, by the user's
        key and channel id
    """

    def __init__(self) -> None:
        self.records: dict[str, str] = {}
        self.channels: dict[tuple[str, str], int] = {}
        self._index: WalIndex | None = None
        self._header = b""
        """For which what is remembered is good."""
        self._before: bytes | None = None
        """The header before the transaction that the writer thread is committing."""

    def open(self, path: str) -> None:
        """Begin; without a WAL index nothing is remembered.

        :param path: of the database, to which there must be a connection
        """
        try:
            self._index = WalIndex(path)
        except (OSError, ValueError):
            self._index = None

    def close(self) -> WalIndex | None:
        """Forget everything, and remember nothing any more.

        :returns: what is to be closed when all connections are
        """
        index, self._index = self._index, None
        self._forget()
        return index

    def resume(self, index: WalIndex | None) -> None:
        """Begin again after :meth:`close`, with what it returned."""
        self._index = index

    def is_current(self) -> bool:
        """Whether what is remembered still is what the file says; if not, it is forgotten.

        To be asked before each read whose result is to be remembered.
        """
        if self._index is None:
            return False
        header = self._index.header()
        if header == self._header:
            return True
        before = self._before
        if before is not None and before == self._header and _is_next(before, header):
            # Our own transaction; the writer thread has not come to say so yet.
            self._header = header
            return True
        self._forget()
        self._header = header
        return False

    def remember(self, key: str, record: str, chid: str | None = None, expiry: int = 0) -> None:
        """Keep what was read."""
        if self._index is None or len(record) > MAX_LENGTH:
            return
        if len(self.records) >= MAX_ENTRIES or len(self.channels) >= MAX_ENTRIES:
            self._forget()
        self.records[key] = record
        if chid is not None:
            self.channels[key, chid] = expiry

    # ---- for the writer thread

    def committing(self) -> None:
        """We are about to commit something, but neither records nor channels.

        The transaction is open, so nobody else commits before that is done.
        """
        index = self._index
        self._before = None if index is None else index.header()

    def committed(self) -> None:
        """It is done. If nobody else has committed since, what is remembered stays good."""
        before, self._before = self._before, None
        index = self._index
        if index is not None and before is not None and before == self._header:
            after = index.header()
            if _is_next(before, after):
                self._header = after

    def not_committed(self) -> None:
        """It went wrong, who knows how far."""
        self._before = None
        self._header = b""

    def _forget(self) -> None:
        self.records.clear()
        self.channels.clear()
