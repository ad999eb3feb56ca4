"""Connections to PostgreSQL: how one is made, kept by a thread, and made again.

Each thread has one connection for itself. It is not taken from a pool: there are three of them in a
process, so a pool would only hand the same ones around, and after an outage its pauses between two
attempts grow, while the threads here look again every quarter of a second.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
from psycopg import conninfo
from psycopg.rows import TupleRow

from autopush.db.postgresql.errors import is_broken, may_work_again, store_error
from autopush.db.rows import dump_json
from autopush.exceptions import StoreClosed

T = TypeVar("T")
Connection = psycopg.Connection[TupleRow]

PATIENCE = 4.0
"""Seconds for which an operation is tried again; so long a restart of the server may take without
anybody noticing more than a delay. It is counted from the beginning of an outage, too: who comes
later is told at once. Well below the deadline of an operation."""

PAUSE = 0.25
"""Seconds between two attempts."""

CONNECT_TIMEOUT = 4
"""Seconds to connect to a host."""

PARAMETERS = {
    "application_name": "autopush",
    "client_encoding": "utf8",
    "connect_timeout": str(CONNECT_TIMEOUT),
    # A host that has vanished is noticed in time for another attempt.
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "2",
    "tcp_user_timeout": "6000",
    # A standby would accept reads, and answer what was true some time ago.
    "target_session_attrs": "read-write",
}
"""Of libpq, where the DSN doesn't say otherwise."""

SETTINGS = {
    "default_transaction_isolation": "read committed",
    # Times are ms. Nobody waits for longer than the deadline; and what one process leaves locked
    # when it stops in the midst, without its connection ending, must not stop the others.
    "lock_timeout": "3000",
    "statement_timeout": "6000",
    "idle_in_transaction_session_timeout": "5000",
    # All that is asked for is found by its key. Plans from when a table was small must not stay.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
}
"""Of the session."""

# What was acknowledged is on the disk, whatever the server's default is.
_SETTLE = (
    "SELECT set_config(name, value, false) FROM json_each_text(%s::json) AS s(name, value)"
    " UNION ALL SELECT set_config('synchronous_commit', 'on', false)"
    " WHERE current_setting('synchronous_commit') = 'off'"
)


def parameters(dsn: str) -> str:
    """What libpq is to be told.

    :raises psycopg.ProgrammingError: the DSN is none
    """
    given: dict[str, Any] = {**PARAMETERS, **conninfo.conninfo_to_dict(dsn)}
    return conninfo.make_conninfo(**given)


def connect(parameters: str) -> Connection:
    """A connection on which every statement is a transaction, unless it is in one.

    :raises psycopg.Error: there is none to be had
    """
    connection = psycopg.connect(parameters, autocommit=True, prepare_threshold=0)
    try:
        connection.execute(_SETTLE, (dump_json(SETTINGS),), prepare=False)
    except BaseException:
        connection.close()
        raise
    return connection


class Link:
    """One thread's connection.

    :param parameters: of libpq
    :param stop: set when nobody needs an answer any more
    """

    def __init__(self, parameters: str, stop: threading.Event) -> None:
        self._parameters = parameters
        self._stop = stop
        self._connection: Connection | None = None
        self._lock = threading.Lock()
        """Guards the connection's end: its number must not be another file's when it is aborted."""
        self._failed_at: float | None = None
        """When the outage began, by the monotonic clock."""

    def get(self) -> Connection:
        """The connection; a new one if need be.

        :raises psycopg.Error: there is none to be had
        """
        connection = self._connection
        if connection is None:
            connection = connect(self._parameters)
            with self._lock:
                self._connection = connection
        return connection

    def drop(self) -> None:
        """Let go of the connection; the next one may be to another server."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def abort(self) -> None:
        """Let whatever is under way on it fail. To be called from another thread."""
        with self._lock, contextlib.suppress(OSError, psycopg.Error):
            if self._connection is not None:
                copy = socket.socket(fileno=os.dup(self._connection.fileno()))
                with copy:
                    copy.shutdown(socket.SHUT_RDWR)

    def run(self, function: Callable[[Connection], T], patience: float | None = None) -> T:
        """Have something done, by further attempts if the first ones fail for reasons that pass.

        :param function: may be called several times. What it has begun on the connection is rolled
            back when it raises
        :raises StoreError: it has failed; also StoreBusy
        """
        begin = time.monotonic()
        patience = PATIENCE if patience is None else patience
        while True:
            try:
                result = function(self.get())
            except Exception as error:
                self._clear(error)
                if not may_work_again(error) or not self._wait(begin, patience):
                    failed = store_error(error)
                    raise failed from failed.__cause__
            else:
                self._failed_at = None
                return result

    def _clear(self, error: Exception) -> None:
        """Leave no transaction open, and no connection that can't be used."""
        connection = self._connection
        if connection is None:
            self._failed_at = self._failed_at or time.monotonic()
            return
        if not (is_broken(error) or connection.broken):
            try:
                if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                    connection.execute("ROLLBACK", prepare=False)
                return
            except psycopg.Error:
                pass
        self._failed_at = self._failed_at or time.monotonic()
        self.drop()

    def _wait(self, begin: float, patience: float) -> bool:
        """Pause before another attempt, unless it is too late for one."""
        if self._failed_at is not None:
            begin = min(begin, self._failed_at)
        if time.monotonic() + PAUSE > begin + patience:
            return False
        if self._stop.wait(PAUSE):
            raise StoreClosed("the store is closed")
        return True
