"""Whether the embedded store works: by reading every table, and by writing.

A read that works says nothing about the disk being full, the file being locked or the writer
thread; so a page is written as well, and what is reported is how that went.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed

from autopush.db.groupwriter import GroupWriter
from autopush.exceptions import StoreError

USERS = ("users",)
STORAGE = ("channel_rows", "channels", "messages")
"""Tables of the two parts of a health report."""

WRITE_WITHIN = 3.0
"""Seconds a write may take; under full load it takes a tenth."""

ROOM = 65_536
"""Bytes that are written where a write has failed, many times what a message needs."""

FRESH = 1.0
"""Seconds the outcome of a write is good for: asking often must not keep the disk busy."""

PARTS = ("", "-wal", "-shm")
"""The files of a database that is open: itself, its log, and the log's index. SQLite goes on with
one that was moved, deleted or replaced; the next start would not find what was written to it."""

Report = tuple[str | None, str | None]
"""What is wrong with users, and with channels and messages; None: nothing."""


class HealthCheck:
    """See the module. For the reactor thread.

    :param path: the database file
    :param reactor: IReactorTime
    :param query: reads one row; raises StoreError
    """

    def __init__(
        self, path: str, reactor: Any, writer: GroupWriter, query: Callable[[str], Any]
    ) -> None:
        self._path = path
        self._reactor = reactor
        self._writer = writer
        self._query = query
        self._files: dict[str, tuple[int, int] | None] = {}
        self._written_at: float | None = None

    def opened(self) -> None:
        """The files are open: from now on they must be the ones under their names."""
        self._files = {part: _identity(self._path + part) for part in PARTS}

    def away(self) -> str | None:
        """Which file isn't the one that is open any more, None if all are. Costs three ``stat``."""
        for part, opened in self._files.items():
            if _identity(self._path + part) != opened:
                return f"The storage file{part} was moved away or replaced"
        return None

    def check(self) -> Deferred[Report]:
        """Read, and write unless that was done just now.

        What was wrong with the last write is no answer: nobody else may be writing, and then nobody
        would notice that it works again.
        """
        away = self.away()
        if away is not None:
            return succeed((away, away))
        users, storage = self._read(USERS), self._read(STORAGE)
        known = self._writer.error
        written: Deferred[str | None]
        if self._writer.is_stuck or not self._writer.is_running:
            written = succeed(known)
        elif known is None and self._is_fresh():
            written = succeed(None)
        else:
            written = self._write(_touch if known is None else _grow)
        return written.addCallback(lambda error: (users, error or storage))

    # ---- internal

    def _read(self, tables: tuple[str, ...]) -> str | None:
        for table in tables:
            try:
                self._query(f"SELECT 1 FROM {table} LIMIT 1")
            except StoreError as error:
                text = str(error)
                return "Nonexistent table" if "no such table" in text else text
        return None

    def _is_fresh(self) -> bool:
        return self._written_at is not None and self._reactor.seconds() - self._written_at < FRESH

    def _write(self, function: Callable[[sqlite3.Connection], None]) -> Deferred[str | None]:
        written = self._writer.call(function).addTimeout(WRITE_WITHIN, self._reactor)
        if function is _grow:
            written.addCallback(lambda _: self._writer.call(_shrink))
        return written.addCallbacks(self._worked, self._failed)

    def _worked(self, _result: Any) -> None:
        self._written_at = self._reactor.seconds()

    def _failed(self, failure: Any) -> str:
        self._written_at = None
        if failure.check(TimeoutError, CancelledError):
            return self._writer.error or f"a write takes longer than {WRITE_WITHIN:g} seconds"
        return str(failure.value)


def _touch(connection: sqlite3.Connection) -> None:
    """Write the file's first page as it is."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute(f"PRAGMA user_version = {version}")


def _grow(connection: sqlite3.Connection) -> None:
    """Write more than one message needs, for :func:`_shrink` to remove, or else the next sweep.

    On a disk that was full a page that is there already may be written, and a message not.
    """
    connection.execute(
        "INSERT OR REPLACE INTO messages (uaid, sortkey, data, ttl, timestamp, expiry)"
        " VALUES ('', '', zeroblob(?), 0, 0, 0)",
        (ROOM,),
    )


def _shrink(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM messages WHERE uaid = ''")


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
