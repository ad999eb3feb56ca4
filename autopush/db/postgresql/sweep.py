"""Removes what has expired: one process at a time, some rows at a time.

All processes of a cluster have the same rows before them. Who finds the lock taken leaves the work
to who has it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from autopush.db.postgresql.link import Connection
from autopush.db.postgresql.reader import GroupReader
from autopush.db.postgresql.schema import LOCK, SWEEP

SWEEP_INTERVAL = 60
"""Seconds between two looks for expired rows, half of it or once more: not all at the same time."""

SWEEP_PAUSE = 0.1
"""Seconds between two slices of a long sweep, for others."""

SWEEP_SLICE = 500
"""Expired rows of a kind removed in one transaction, some 5 ms of work."""

# What a writer has locked is not waited for: it is about to be refreshed, or to go.
_MESSAGES = (
    "DELETE FROM messages WHERE ctid = ANY (ARRAY(SELECT ctid FROM messages WHERE expiry <= %s"
    " ORDER BY expiry LIMIT %s FOR UPDATE SKIP LOCKED))"
)
_CHANNEL_ROWS = (
    "WITH gone AS (DELETE FROM channel_rows WHERE ctid = ANY (ARRAY(SELECT ctid FROM channel_rows"
    " WHERE expiry <= %s ORDER BY expiry LIMIT %s FOR UPDATE SKIP LOCKED)) RETURNING uaid),"
    " channels_gone AS (DELETE FROM channels c USING gone g WHERE c.uaid = g.uaid)"
    " SELECT count(*) FROM gone"
)


def sweep(connection: Connection, now: int) -> bool:
    """Remove some expired rows, unless another process is at it; whether there may be more.

    :param now: seconds since the epoch
    """
    with connection.transaction():
        row = connection.execute("SELECT pg_try_advisory_xact_lock(%s, %s)", (LOCK, SWEEP))
        if row.fetchone() == (False,):
            return False
        messages = connection.execute(_MESSAGES, (now, SWEEP_SLICE)).rowcount
        rows = connection.execute(_CHANNEL_ROWS, (now, SWEEP_SLICE)).fetchone()
        return SWEEP_SLICE in (messages, rows and rows[0])


class Sweeper:
    """Sweeps now and then, as long as the store is open.

    :param reactor: IReactorTime
    :param now: seconds since the epoch
    """

    log = Logger()

    def __init__(self, reactor: Any, reader: GroupReader, now: Callable[[], float]) -> None:
        self._reactor = reactor
        self._reader = reader
        self._now = now
        self._timer: Any = None  # IDelayedCall
        self._open = False

    def start(self) -> None:
        """Begin."""
        self._open = True
        self._again(False)

    def stop(self) -> None:
        """There is nothing more to do."""
        self._open = False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def sweep(self) -> Deferred[bool]:
        """Remove some expired rows; whether there may be more."""
        return self._reader.call(lambda connection: sweep(connection, int(self._now())))

    def _run(self) -> None:
        self.sweep().addErrback(self._note).addCallback(self._again)

    def _again(self, more: bool) -> None:
        if self._open:
            interval = SWEEP_INTERVAL * random.uniform(0.5, 1.5)
            self._timer = self._reactor.callLater(SWEEP_PAUSE if more else interval, self._run)

    def _note(self, failure: Failure) -> bool:
        self.log.warn("{what}: {error}", what="Expired rows not removed", error=str(failure.value))
        return False
