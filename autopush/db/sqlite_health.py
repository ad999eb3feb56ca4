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

from autopush.db.sqlite_writer import GroupWriter
from autopush.exceptions import StoreError

USERS = ("users",)
STORAGE = ("channel_rows", "channels", "messages")
"""Tables of the two parts of a health report."""

WRITE_WITHIN = 3.0
"""Seconds a write may take; under full load it takes a tenth."""

FRESH = 1.0
"""Seconds the outcome of a write is good for: asking often must not keep the disk busy."""

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
        self._file: tuple[int, int] | None = None
        self._written_at: float | None = None

    def opened(self) -> None:
        """The file is open: from now on it must be the one under that name."""
        self._file = _identity(self._path)

    def check(self) -> Deferred[Report]:
        """Read, and write unless that was done just now."""
        users, storage = self._read(USERS), self._read(STORAGE)
        known = self._writer.error
        written: Deferred[str | None]
        if known is None and not self._is_fresh():
            written = self._write()
        else:
            written = succeed(known)
            if known is not None and self._writer.is_running:
                # Nobody else may be writing, and then nobody would notice that it works again.
                self._write()
        return written.addCallback(lambda error: (users, error or storage))

    # ---- internal

    def _read(self, tables: tuple[str, ...]) -> str | None:
        if self._file is not None and _identity(self._path) != self._file:
            return "The storage file was moved away or replaced"
        for table in tables:
            try:
                self._query(f"SELECT 1 FROM {table} LIMIT 1")
            except StoreError as error:
                text = str(error)
                return "Nonexistent table" if "no such table" in text else text
        return None

    def _is_fresh(self) -> bool:
        return self._written_at is not None and self._reactor.seconds() - self._written_at < FRESH

    def _write(self) -> Deferred[str | None]:
        written = self._writer.call(_touch).addTimeout(WRITE_WITHIN, self._reactor)
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


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
