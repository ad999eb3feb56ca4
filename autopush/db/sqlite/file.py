"""The file of the SQLite store: opened, checked, watched, read and closed (spec/storage 17.1)."""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger

from autopush import clock
from autopush.db.groupwriter import COMMIT_DELAY
from autopush.db.interface import StoreUnusable
from autopush.db.months import OneMonth
from autopush.db.onetable import OneTableStore, unless_late
from autopush.db.rows import FIRST, LAST, key_maker, load_json
from autopush.db.sqlite import (
    messages as sqlite_messages,
    records as sqlite_records,
    schema as sqlite_schema,
    writer as sqlite_writer,
)
from autopush.db.sqlite.cache import ReadCache, WalIndex
from autopush.db.sqlite.errors import store_error
from autopush.db.sqlite.health import HealthCheck
from autopush.db.sqlite.turns import Turns
from autopush.db.writes import Call, Delete, Put, WriteBatch
from autopush.exceptions import StoreBusy, StoreClosed, StoreError
from autopush.message.notification import WebPushNotification

WATCH_INTERVAL = 1
"""Seconds between two looks at the file's names, and for callers who have waited too long."""

ADVICE = (
    "nothing is stored or looked up until the same file is back. Put it back, with its -wal and"
    " -shm beside it; or stop the service, put the file to use there, without the -wal of another"
    " one, and start again"
)


class Away:
    """Reads from a database file that isn't there any more: what it says counts no longer."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def execute(self, *args: Any) -> Any:
        """:raises StoreBusy: always"""
        raise StoreBusy(self._reason)


class SqliteFile(OneTableStore):
    """A store's file, and the thread that writes to it.

    :param path: the file; created with mode 0600 if it doesn't exist
    :param reactor: for timers and calls from the writer thread
    :param month: ``months.current``
    :param router_table: name of the record table in :meth:`health`
    :param key_hash: UAIDs are stored as their HMAC with this key, unless it is empty
    :param now: seconds since the epoch
    :param commit_delay: seconds a write waits for others to share its transaction
    :param shared: other processes write to the file as much, and take turns
    """

    def __init__(
        self,
        path: str,
        reactor: Any,
        month: str = "message",
        router_table: str = "router",
        key_hash: str = "",
        now: Callable[[], float] | None = None,
        commit_delay: float = COMMIT_DELAY,
        shared: bool = False,
    ) -> None:
        self.log = Logger()
        self.path = os.path.abspath(path)
        self.months = OneMonth(month)
        self._reactor = reactor
        self._router_table = router_table
        self._key = key_maker(key_hash)
        self._now = now or clock.now
        self._connection: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | Away | None = None
        """The connection, while the file is there."""
        self._away: str | None = None
        self._watch_timer: Any = None  # IDelayedCall
        self._index: WalIndex | None = None
        """The cache's, while the file is away."""
        self._cache = ReadCache()
        self._writer = sqlite_writer.SqliteWriter(
            reactor,
            lambda: sqlite_schema.open_writer(self.path),
            self._cache,
            commit_delay,
            Turns(self.path) if shared else None,
        )
        self._health = HealthCheck(self.path, reactor, self._writer, lambda sql: self._row(sql, ()))

    # ---- life cycle

    def setup(self) -> Deferred[None]:
        """Open the file, check that it can be written and read, start the thread.

        Done when it returns (start-up may block); needs no running reactor.

        :raises StoreUnusable: as the Deferred's failure
        """
        try:
            sqlite_schema.prepare(self.path)
            self._connection = self._reader = sqlite_schema.open_reader(self.path)
            self._preflight(self._connection)
            self._health.opened()
            self._cache.open(self.path)
        except sqlite3.Error as error:
            return fail(sqlite_schema.unusable(self.path, error))
        except StoreError as error:
            return fail(error)
        self._writer.start()
        self._watch_timer = self._reactor.callLater(WATCH_INTERVAL, self._watch)
        return succeed(None)

    def _watch(self) -> None:
        self._watch_timer = self._reactor.callLater(WATCH_INTERVAL, self._watch)
        self._writer.tell_late()
        self._look_for_file()

    def _look_for_file(self) -> None:
        """Refuse everything while another file, or none, is where ours was."""
        away = None if self._connection is None else self._health.away()
        if away == self._away:
            return
        self._away = away
        self._writer.refuse(away)
        if away is None:
            self.log.info("The storage file {path} is back", path=self.path)
            self._reader = self._connection
            self._cache.resume(self._index)
            self._index = None
        else:
            self.log.error("{away} ({path}): {advice}", away=away, path=self.path, advice=ADVICE)
            self._reader = Away(away)
            self._index = self._index or self._cache.close()

    def _preflight(self, reader: sqlite3.Connection) -> None:
        """Write, read and delete a user and a message (spec/storage 6)."""
        uaid, node = uuid.uuid4().hex, "mynode:2020"
        notification = WebPushNotification(
            uuid.UUID(uaid), uuid.uuid4(), 60, sortkey_timestamp=1, update_id="preflight"
        )
        record = {"router_type": "webpush", "connected_at": 0, "node_id": node}
        put = Put(uaid, notification, int(self._now()))

        def run(*ops: Call | Put | Delete) -> None:
            batch = WriteBatch()
            for op in ops:
                if isinstance(op, Put):
                    batch.put(op)
                elif isinstance(op, Delete):
                    batch.delete(op)
                else:
                    batch.calls.append(op)
            sqlite_writer.write(connection, batch, self._cache)
            if batch.error is not None:
                raise sqlite_schema.unusable(self.path, batch.error.__cause__ or batch.error)

        connection = sqlite_schema.open_writer(self.path)
        try:
            run(Call(lambda c: sqlite_records.register(c, uaid, record)), put)
            user = reader.execute(sqlite_records.GET_USER, (uaid,)).fetchone()
            message = self._rows(uaid, FIRST, LAST, 1)
            delete = Delete(uaid, notification.sort_key, "preflight")
            drop = Call(lambda c: sqlite_records.drop(c, uaid))
            run(drop, delete)
        finally:
            connection.close()
        if not (user and load_json(user[0]) == record and message and delete.result is True):
            raise StoreUnusable(
                f"storage file {self.path} doesn't keep what is written: check its disk"
            )

    def close(self) -> Deferred[None]:
        """Finish the writes already accepted, then let go of all resources."""
        if self._watch_timer is not None and self._watch_timer.active():
            self._watch_timer.cancel()
        self._watch_timer = None
        index, self._index = self._cache.close() or self._index, None
        if self._connection is not None:
            # First, so that the last connection, which tidies up the file, is the writer's.
            self._connection.close()
        self._connection = self._reader = None
        closed = self._writer.close()
        return closed if index is None else closed.addCallback(lambda _: index.close())

    def health(self) -> Deferred[dict[str, str | None]]:
        """Whether every table can be read, and a page be written.

        Answers within seconds, also when the writer thread doesn't.
        """
        self._look_for_file()
        return self._health.check().addCallback(
            lambda report: {self._router_table: report[0], "storage": report[1]}
        )

    def alive(self) -> Deferred[Any]:
        """Fires when the writer thread has done something, however it went."""
        return self._writer.call(lambda connection: None).addErrback(unless_late)

    # ---- helpers

    def _row(self, sql: str, values: tuple[object, ...]) -> Any:
        """One row or None.

        :raises StoreError: also StoreBusy
        """
        try:
            # Closed: AttributeError. The cursor must not outlive the statement, it would keep
            # the log from being checkpointed.
            return self._reader.execute(sql, values).fetchone()  # type: ignore[union-attr]
        except Exception as error:
            raise self._read_error(error) from error

    def _read_error(self, error: Exception) -> StoreError:
        return store_error(error) if self._reader else StoreClosed("the store is closed")

    def _rows(self, key: str, above: str, below: str, limit: int) -> list[tuple[Any, ...]]:
        values = (key, above, below, int(self._now()), limit)
        try:
            return self._reader.execute(  # type: ignore[union-attr]
                sqlite_messages.FETCH, values
            ).fetchall()
        except Exception as error:
            raise self._read_error(error) from error
