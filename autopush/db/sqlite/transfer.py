"""A file of the SQLite store, or any store with its tables, as one side of a copy."""

from __future__ import annotations

import json
import os
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any, Protocol, TypeVar

from autopush.db.interface import StoreUnusable
from autopush.db.rows import MessageRow, dump_json, load_json
from autopush.db.sqlite import schema
from autopush.db.transfer import Mark, Page, Portable, Transfer, portable
from autopush.exceptions import StoreError

T = TypeVar("T")

COLUMNS = dict(
    zip(
        ("sortkey", "updateid", "data", "headers", "ttl", "timestamp", "expiry", "live", "urgency"),
        MessageRow._fields,
        strict=True,
    )
)
"""Columns of the table of messages, and what they are called in :class:`MessageRow`."""

MARKS = "data_copy"
"""Table of how far a copy to here is; made by the first one."""


class Run(Protocol):
    """Runs a statement, whose values are ``?``, and returns its rows."""

    def __call__(self, sql: str, *values: Any) -> list[Any]: ...


class SqlTransfer(Transfer, ABC):
    """What the tables of all SQL stores have in common (spec/storage 17.7).

    :param month: name of the month that users get
    :param now: seconds since the epoch; what has expired by then isn't there
    """

    among = "IN (SELECT value FROM json_each(?))"
    """Condition: it is a member of a list, see :meth:`list_of`."""

    def __init__(self, described: str, month: str, now: int) -> None:
        self.described = described
        self._month = month
        self._now = now

    # ---- what differs

    @abstractmethod
    def together(self, function: Callable[[Run], T], write: bool = False) -> T:
        """Have a function run statements in one transaction; it may be called several times."""

    @abstractmethod
    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement for many rows; within :meth:`together`."""

    @abstractmethod
    def columns(self, run: Run, table: str) -> set[str]:
        """Return the columns of a table; none: there is no such table."""

    def list_of(self, keys: Sequence[str]) -> Any:
        """Return the value for :attr:`among`."""
        return json.dumps(list(keys))

    def dump(self, record: dict[str, Any]) -> str:
        """Return what the column of a record is to be."""
        return dump_json(record)

    def read(self, text: str) -> dict[str, Any]:
        """Return the record in such a column.

        :raises StoreError: it isn't one of ours
        """
        try:
            record = load_json(text)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise StoreError("unreadable router record")
        return record

    # ---- reading

    def page(self, after: str, limit: int) -> Page:
        sql = "SELECT uaid FROM users WHERE uaid > ? ORDER BY uaid LIMIT ?"

        def read(run: Run) -> Page:
            keys = [key for (key,) in run(sql, after, limit)]
            unreadable: list[str] = []
            found = self._load(run, keys, unreadable)
            users = [found[key] for key in keys if key in found]
            left = len(keys) - len(users) - len(unreadable)
            place = keys[-1] if len(keys) == limit else None
            return Page(users, place, left, tuple(sorted(unreadable)))

        return self.together(read)

    def load(self, keys: Sequence[str]) -> dict[str, Portable]:
        return self.together(lambda run: self._load(run, keys, [])) if keys else {}

    def present(self, keys: Sequence[str]) -> set[str]:
        sql = f"SELECT uaid FROM users WHERE uaid {self.among} AND CAST(record AS text) <> '{{}}'"
        return {key for (key,) in self.together(lambda run: run(sql, self.list_of(keys)))}

    def _load(self, run: Run, keys: Sequence[str], unreadable: list[str]) -> dict[str, Portable]:
        """Return those that there are; the keys of the unreadable ones are added to a list."""
        listed = self.list_of(keys)
        records = run(
            f"SELECT uaid, CAST(record AS text) FROM users WHERE uaid {self.among}", listed
        )
        rows = run(
            f"SELECT uaid, pointer, expiry FROM channel_rows WHERE uaid {self.among}"
            " AND expiry > ?",
            *(listed, self._now),
        )
        row_of = {key: (pointer, expiry) for key, pointer, expiry in rows}
        channels: dict[str, list[str]] = {key: [] for key in row_of}
        for key, chid in run(f"SELECT uaid, chid FROM channels WHERE uaid {self.among}", listed):
            if key in channels:
                channels[key].append(chid)
        messages = self._messages(run, listed)
        found = {}
        for key, text in records:
            try:
                record = self.read(text)
            except StoreError:
                unreadable.append(key)
                continue
            if not record:
                continue  # nothing is known of it but its key
            pointer, expiry = row_of.get(key, (None, 0))
            found[key] = portable(
                key, record, channels.get(key), pointer=pointer, expiry=expiry,
                messages=messages.get(key, ()), now=self._now,
            )  # fmt: skip
        return found

    def _messages(self, run: Run, listed: Any) -> dict[str, list[MessageRow]]:
        names = self._columns(run)
        found: dict[str, list[MessageRow]] = {}
        rows = run(
            f"SELECT uaid, {', '.join(names)} FROM messages WHERE uaid {self.among} AND expiry > ?",
            *(listed, self._now),
        )
        for key, *values in rows:
            row = MessageRow(**dict(zip((COLUMNS[name] for name in names), values, strict=True)))
            found.setdefault(key, []).append(row)
        return found

    def _columns(self, run: Run) -> list[str]:
        there = self.columns(run, "messages")
        return [name for name in COLUMNS if name in there]

    # ---- writing

    def replace(self, users: Sequence[Portable], there: Mapping[str, Portable]) -> None:
        def write(run: Run) -> None:
            self._forget(run, [user.key for user in users])
            self._put(run, users)

        self.together(write, write=True)

    def remove(self, keys: Sequence[str]) -> None:
        self.together(lambda run: self._forget(run, keys), write=True)

    def _forget(self, run: Run, keys: Sequence[str]) -> None:
        for table in ("messages", "channels", "channel_rows", "users"):
            run(f"DELETE FROM {table} WHERE uaid {self.among}", self.list_of(keys))

    def _put(self, run: Run, users: Sequence[Portable]) -> None:
        names = self._columns(run)
        with_row = [user for user in users if user.channels is not None]
        self._insert(
            "users (uaid, record)",
            [(user.key, self.dump(user.record_in(self._month))) for user in users],
        )
        self._insert(
            "channel_rows (uaid, pointer, expiry)",
            [(user.key, user.pointer, user.expiry) for user in with_row],
        )
        self._insert(
            "channels (uaid, chid)",
            [(user.key, chid) for user in with_row for chid in sorted(user.channels or ())],
        )
        self._insert(
            f"messages (uaid, {', '.join(names)})",
            [
                (user.key, *(getattr(row, COLUMNS[name]) for name in names))
                for user in users
                for row in user.messages
            ],
        )

    def _insert(self, into: str, rows: list[tuple[Any, ...]]) -> None:
        if rows:
            self.many(f"INSERT INTO {into} VALUES ({', '.join('?' * len(rows[0]))})", rows)

    # ---- how far it is

    def get_mark(self) -> Mark | None:
        def read(run: Run) -> Mark | None:
            if not self.columns(run, MARKS):
                return None
            rows = run(f"SELECT source, phase, place FROM {MARKS}")
            return Mark(*rows[0]) if rows else None

        return self.together(read)

    def set_mark(self, mark: Mark) -> None:
        def write(run: Run) -> None:
            run(
                f"CREATE TABLE IF NOT EXISTS {MARKS}"
                " (source text NOT NULL, phase text NOT NULL, place text NOT NULL)"
            )
            run(f"DELETE FROM {MARKS}")
            self._insert(f"{MARKS} (source, phase, place)", [tuple(mark)])

        self.together(write, write=True)


class SqliteTransfer(SqlTransfer):
    """A file of :mod:`autopush.db.sqlite.store`, which may be in use when it is only read."""

    def __init__(self, path: str, month: str, now: int) -> None:
        self._path = os.path.abspath(path)
        super().__init__(f"sqlite://{self._path}", month, now)
        self._connection: sqlite3.Connection | None = None

    def exists(self) -> bool:
        return os.path.isfile(self._path)

    def prepare(self) -> None:
        schema.prepare(self._path)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            if not self.exists():
                raise StoreUnusable(f"storage file {self._path} doesn't exist: name one that does")
            self._connection = schema.open_writer(self._path)
            newest = len(schema.schema_steps())
            if schema.check(self._path, self._connection, newest) != newest:
                raise StoreUnusable(
                    f"storage file {self._path} is of an older release: start the service of this"
                    " one on it once"
                )
        return self._connection

    def together(self, function: Callable[[Run], T], write: bool = False) -> T:
        try:
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                result = function(self._run)
                connection.execute("COMMIT")
                return result
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise schema.unusable(self._path, error) from error

    def _run(self, sql: str, *values: Any) -> list[Any]:
        return self._open().execute(sql, values).fetchall()

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        with closing(self._open().cursor()) as cursor:
            cursor.executemany(sql, rows)

    def columns(self, run: Run, table: str) -> set[str]:
        return {name for (name,) in run("SELECT name FROM pragma_table_info(?)", table)}

    def count(self) -> int | None:
        return int(self.together(lambda run: run("SELECT count(*) FROM users"))[0][0])

    def served(self) -> bool:
        sql = "SELECT 1 FROM users WHERE json_extract(record, '$.node_id') IS NOT NULL LIMIT 1"
        return bool(self.together(lambda run: run(sql)))
