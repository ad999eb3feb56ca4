"""Whether the store in PostgreSQL works: by reading every table, and by writing."""

from __future__ import annotations

from typing import Any

import psycopg
from twisted.internet.defer import CancelledError, Deferred, TimeoutError

from autopush.db.postgresql.link import Connection
from autopush.db.postgresql.reader import GroupReader
from autopush.db.postgresql.records import IDLE
from autopush.db.postgresql.writer import Change, PostgresqlWriter, Step
from autopush.exceptions import StoreError

WITHIN = 3.0
"""Seconds a look may take; under full load it takes a tenth."""

ROOM = 65_536
"""Bytes that are written where a write has failed, many times what a message needs."""

USERS = ("users",)
STORAGE = ("channel_rows", "channels", "messages")
"""Tables of the two parts of a report."""


class Health:
    """Looks whether all is well. For the reactor thread.

    :param reactor: IReactorTime
    :param router_table: what the record table is called in a report
    """

    def __init__(
        self, reactor: Any, reader: GroupReader, writer: PostgresqlWriter, router_table: str
    ) -> None:
        self._reactor = reactor
        self._reader = reader
        self._writer = writer
        self._router_table = router_table

    def check(self) -> Deferred[dict[str, str | None]]:
        """Map of part to what is wrong with it, None if it is well. Answers within seconds."""
        return Deferred.fromCoroutine(self._check())

    async def _check(self) -> dict[str, str | None]:
        reading = self._reader.call(_look)
        # What was wrong with the last write is no answer: nobody else may be writing.
        work = Change(IDLE, {"uaid": ""}) if self._writer.error is None else Step("", _grow)
        writing = self._writer.call(work)
        users, storage = await self._within(reading)
        _, error = await self._within(writing)
        return {self._router_table: users, "storage": storage or error}

    async def _within(self, doing: Deferred[Any]) -> tuple[str | None, str | None]:
        try:
            found = await doing.addTimeout(WITHIN, self._reactor)
        except StoreError as error:
            text: str | None = str(error)
            return text, text
        except (TimeoutError, CancelledError):
            text = self._writer.error or f"the database takes longer than {WITHIN:g} seconds"
            return text, text
        return found or (None, None)


def _look(connection: Connection) -> tuple[str | None, str | None]:
    """What is wrong with reading."""
    users, storage = (_first([_look_at(connection, t) for t in part]) for part in (USERS, STORAGE))
    return users, storage


def _first(errors: list[str | None]) -> str | None:
    return next((error for error in errors if error), None)


def _look_at(connection: Connection, table: str) -> str | None:
    try:
        connection.execute(f"SELECT 1 FROM {table} LIMIT 1")
    except psycopg.errors.UndefinedTable:
        return "Nonexistent table"
    except psycopg.errors.InsufficientPrivilege:
        return f"may not read {table}"
    return None


def _grow(connection: Connection, now: int) -> None:
    """Write more than one message needs, and remove it: on a disk that was full a commit alone
    tells nothing."""
    connection.execute(
        "INSERT INTO messages (uaid, sortkey, data, ttl, timestamp, expiry)"
        " VALUES ('', '', repeat('x', %s), 0, 0, 0) ON CONFLICT DO NOTHING",
        (ROOM,),
    )
    connection.execute("DELETE FROM messages WHERE uaid = ''")
