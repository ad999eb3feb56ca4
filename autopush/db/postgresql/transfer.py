"""A PostgreSQL database as one side of a copy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from autopush.addresses import without_password
from autopush.db.postgresql import schema
from autopush.db.postgresql.link import Connection, Link
from autopush.db.postgresql.records import dump_record, load_record
from autopush.db.sqlite.transfer import Run, SqlTransfer

T = TypeVar("T")


class PostgresqlTransfer(SqlTransfer):
    """A database of :mod:`autopush.db.postgresql.store`, which may be in use when it is only read.

    :param dsn: as operators give it
    :param parameters: of libpq
    """

    among = "= ANY(?)"

    def __init__(self, dsn: str, parameters: str, month: str, now: int) -> None:
        super().__init__(without_password(dsn), month, now)
        self._parameters = parameters
        self._link = Link(parameters, threading.Event())

    def exists(self) -> bool:
        return bool(self._link.run(schema.version))

    def prepare(self) -> None:
        schema.prepare(self._parameters, self.described)

    def close(self) -> None:
        self._link.drop()

    def together(self, function: Callable[[Run], T], write: bool = False) -> T:
        def attempt(connection: Connection) -> T:
            def run(sql: str, *values: Any) -> list[Any]:
                cursor = connection.execute(_spelled(sql), values or None)
                return cursor.fetchall() if cursor.description else []

            with connection.transaction():
                if not write:
                    connection.execute(b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                return function(run)

        return self._link.run(attempt)

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        with self._link.get().cursor() as cursor:
            cursor.executemany(_spelled(sql), rows)

    def columns(self, run: Run, table: str) -> set[str]:
        sql = (
            "SELECT column_name FROM information_schema.columns"
            " WHERE table_schema = current_schema() AND table_name = ?"
        )
        return {name for (name,) in run(sql, table)}

    def list_of(self, keys: Sequence[str]) -> Any:
        return list(keys)

    def dump(self, record: dict[str, Any]) -> str:
        return dump_record(record)

    def read(self, text: str) -> dict[str, Any]:
        return dict(load_record(text))

    def count(self) -> int | None:
        """Return what the server estimates: counting takes long."""
        sql = "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass('users')"
        rows = self.together(lambda run: run(sql))
        return int(rows[0][0]) if rows and rows[0][0] > 0 else None

    def served(self) -> bool:
        def look(run: Run) -> bool:
            run("SET LOCAL statement_timeout = 0")
            run("SET LOCAL enable_seqscan = on")
            return bool(run("SELECT 1 FROM users WHERE record->>'node_id' IS NOT NULL LIMIT 1"))

        return self.together(look)


def _spelled(sql: str) -> bytes:
    """A statement as psycopg wants it."""
    return sql.replace("?", "%s").encode()
