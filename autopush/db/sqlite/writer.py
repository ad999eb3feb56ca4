"""Writing to the embedded store, a batch a transaction (:mod:`autopush.db.groupwriter`).

One fsync for all of a batch makes ``synchronous = FULL`` affordable.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from autopush.db.groupwriter import COMMIT_DELAY, GroupWriter
from autopush.db.sqlite import messages as sqlite_messages
from autopush.db.sqlite.cache import ReadCache
from autopush.db.sqlite.errors import concerns_whole_database, store_error
from autopush.db.sqlite.turns import Turns
from autopush.db.writes import Delete, Operation, Put, WriteBatch
from autopush.exceptions import StoreError

log = Logger()


def write(connection: sqlite3.Connection, batch: WriteBatch, cache: ReadCache) -> None:
    """Run and commit the batch, noting each operation's result. Never raises.

    An operation that fails for its own reasons doesn't hurt the others.

    :param cache: told of transactions that leave it valid
    """
    try:
        try:
            _write_together(connection, batch, cache)
        except Exception as error:
            cache.not_committed()
            _roll_back(connection)
            if concerns_whole_database(error):
                raise
            _write_apart(connection, batch)
    except BaseException as error:
        batch.fail(store_error(error))
        _roll_back(connection)


def _write_together(connection: sqlite3.Connection, batch: WriteBatch, cache: ReadCache) -> None:
    changed = connection.total_changes
    connection.execute("BEGIN IMMEDIATE")
    for call in batch.calls:
        call.result = call.function(connection)
    if batch.deletes:
        sqlite_messages.delete(connection, batch.deletes)
    if batch.puts:
        sqlite_messages.put(connection, list(batch.puts))
    only_messages = not batch.calls and connection.total_changes != changed
    if only_messages:
        cache.committing()
    connection.execute("COMMIT")
    if only_messages:
        cache.committed()


def _write_apart(connection: sqlite3.Connection, batch: WriteBatch) -> None:
    """After an operation has failed: again, in one transaction, but each for itself."""
    connection.execute("BEGIN IMMEDIATE")
    for op in batch:
        connection.execute("SAVEPOINT operation")
        try:
            _run(connection, op)
        except Exception as error:
            if concerns_whole_database(error):
                raise
            op.result = store_error(error)
            log.failure("Storage operation failed")
            connection.execute("ROLLBACK TO operation")
        connection.execute("RELEASE operation")
    connection.execute("COMMIT")


def _run(connection: sqlite3.Connection, op: Operation) -> None:
    op.result = None
    if isinstance(op, Put):
        sqlite_messages.put(connection, [op])
    elif isinstance(op, Delete):
        sqlite_messages.delete(connection, [op])
    else:
        op.result = op.function(connection)


def _roll_back(connection: sqlite3.Connection) -> None:
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except sqlite3.Error:
        # The next batch starts with a new connection (GroupWriter._write).
        pass


class SqliteWriter(GroupWriter):
    """The thread that writes to the file.

    :param reactor: IReactorTime and IReactorFromThreads
    :param open_connection: called in the writer thread
    :param cache: told of transactions that leave it valid
    :param commit_delay: seconds
    :param turns: of the processes that write to the file; None: there is one
    """

    def __init__(
        self,
        reactor: Any,
        open_connection: Callable[[], sqlite3.Connection],
        cache: ReadCache,
        commit_delay: float = COMMIT_DELAY,
        turns: Turns | None = None,
    ) -> None:
        super().__init__(reactor, "sqlite-writer", commit_delay, turns)
        self._open_connection = open_connection
        self._cache = cache
        self._connection: sqlite3.Connection | None = None

    def _store_error(self, error: BaseException) -> StoreError:
        return store_error(error)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _write(self, batch: WriteBatch) -> None:
        if self._connection is None:
            self._connection = self._open_connection()
        write(self._connection, batch, self._cache)
        if self._connection.in_transaction:
            # It couldn't even be rolled back: start afresh.
            connection, self._connection = self._connection, None
            connection.close()
