"""SQL on stored messages.

Writes come in lists, one statement per list: each statement Python runs gives up and takes back
the interpreter lock, which under load costs more than the work itself. Callers provide the
transaction.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Sequence
from typing import TypeVar

from autopush.db.rows import AFTER_TIMESTAMPED, TIMESTAMPED, TOPIC
from autopush.db.sqlite.quota import ROW_OVERHEAD
from autopush.db.writes import Delete, Put

T = TypeVar("T")

_CHUNKS = (32, 16, 8, 4, 2, 1)
"""Rows per statement; few sizes, so that the statements stay in the connection's cache."""

_COLUMNS = "uaid, sortkey, updateid, data, headers, ttl, timestamp, expiry, live, urgency"

_LAST_KEY = (
    "(SELECT max(sortkey) FROM messages"
    f" WHERE uaid = {{uaid}} AND sortkey >= '{TIMESTAMPED}' AND sortkey < '{AFTER_TIMESTAMPED}')"
)
_POINTER = "(SELECT pointer FROM channel_rows WHERE uaid = {uaid})"

_PASSED = (
    f"SELECT max(ifnull({_POINTER.format(uaid='?1')}, 0),"
    " ifnull((SELECT max(CAST(substr(sortkey, 4) AS INTEGER)) FROM messages"
    f" WHERE uaid = ?1 AND sortkey >= '{TIMESTAMPED}' AND sortkey < '{AFTER_TIMESTAMPED}'), 0))"
)
"""The latest timestamp that is stored or read, as a number."""

FETCH = (
    "SELECT id, sortkey, updateid, data, headers, ttl, timestamp, expiry, live, urgency"
    " FROM messages"
    " WHERE uaid = ? AND sortkey > ? AND sortkey < ? AND expiry > ? ORDER BY sortkey LIMIT ?"
)

SIZE = f"{ROW_OVERHEAD} + ifnull(length(data), 0) + ifnull(length(headers), 0)"
"""Bytes a row takes, as :func:`autopush.db.sqlite.quota.size_of`."""

_WAITING = f"uaid = ?1 AND (sortkey < '{TIMESTAMPED}' OR sortkey > ?3)"
"""Those that were read, up to :func:`last_read`, don't wait. Found in the index alone."""

USAGE = f"SELECT count(*), ifnull(sum(instr(sortkey, ?2) > 0), 0) FROM messages WHERE {_WAITING}"
"""Messages that wait for a user, and those of one channel among them."""

_SAMPLE = (
    f"SELECT instr(sortkey, ?2) > 0, {SIZE} FROM messages WHERE id IN"
    f" (SELECT id FROM messages WHERE {_WAITING} {{order}} LIMIT ?4)"
)
SIZES = _SAMPLE.format(order="")
SAMPLED_SIZES = _SAMPLE.format(order="ORDER BY random()")
"""Whether they are of the channel, and bytes, of as many messages as asked for."""

STORED_SIZE = f"SELECT {SIZE} FROM messages WHERE uaid = ? AND sortkey = ?"


def _chunks(items: Sequence[T]) -> list[Sequence[T]]:
    chunks: list[Sequence[T]] = []
    start = 0
    for size in _CHUNKS:
        while len(items) - start >= size:
            chunks.append(items[start : start + size])
            start += size
    return chunks


def last_read(pointer: int | None) -> str:
    """Sort key up to which a user has read its timestamped messages."""
    return f"{TIMESTAMPED}{pointer or 0};"


@functools.cache
def _values(rows: int, columns: int) -> str:
    row = "(" + ", ".join("?" * columns) + ")"
    return "VALUES " + ", ".join([row] * rows)


@functools.cache
def _replace_sql(rows: int) -> str:
    return f"INSERT OR REPLACE INTO messages ({_COLUMNS}) {_values(rows, 10)}"


@functools.cache
def _append_sql(rows: int) -> str:
    """Insert those rows that come after all the user has, be it stored or read."""
    columns = ", ".join(f"column{number}" for number in range(1, 11))
    return (
        f"INSERT INTO messages ({_COLUMNS}) SELECT {columns} FROM ({_values(rows, 11)})"
        f" WHERE '{TIMESTAMPED}' || column11 || ':'"
        f" > ifnull({_LAST_KEY.format(uaid='column1')}, '')"
        f" AND column11 > ifnull({_POINTER.format(uaid='column1')}, 0)"
    )


@functools.cache
def _find_sql(rows: int) -> str:
    return (
        "SELECT group_concat(v.column1), group_concat(m.id)"
        f" FROM ({_values(rows, 4)}) v CROSS JOIN messages m"
        " ON m.uaid = v.column2 AND m.sortkey = v.column3"
        " WHERE v.column4 IS NULL OR v.column4 = m.updateid"
    )


def put(connection: sqlite3.Connection, puts: Sequence[Put]) -> None:
    """Insert or replace the rows (spec/storage 17.3, 17.6)."""
    replacing, appended, careful = _apart(puts)
    for chunk in _chunks(replacing) if replacing else ():
        connection.execute(
            _replace_sql(len(chunk)), [value for op in chunk for value in op.columns]
        )
    for chunk in _chunks(appended):
        values: list[object] = []
        for op in chunk:
            values += op.columns
            values.append(op.timestamp)
        stored = connection.execute(_append_sql(len(chunk)), values).rowcount
        if stored != len(chunk):
            careful += [op for op in chunk if not _is_stored(connection, op)]
    for op in careful:
        _put_late(connection, op)


def _apart(puts: Sequence[Put]) -> tuple[list[Put], list[Put], list[Put]]:
    """Those without a timestamp, those no two of which have the same place, and the others."""
    places: set[tuple[str, int]] = set()
    replacing: list[Put] = []
    first: list[Put] = []
    others: list[Put] = []
    for op in puts:
        if op.timestamp is None:
            replacing.append(op)
            continue
        place = (op.uaid, op.timestamp)
        (others if place in places else first).append(op)
        places.add(place)
    return replacing, first, others


def _is_stored(connection: sqlite3.Connection, op: Put) -> bool:
    uaid, sort_key, update_id = op.columns[:3]
    return (
        connection.execute(
            "SELECT 1 FROM messages WHERE uaid = ? AND sortkey = ? AND updateid IS ?",
            (uaid, sort_key, update_id),
        ).fetchone()
        is not None
    )


def _put_late(connection: sqlite3.Connection, op: Put) -> None:
    """Store a timestamped message that may lie behind what the user has.

    A reader who is past its timestamp would never see it, so it gets the next one that is free;
    unless it is stored already, then that row is replaced.
    """
    uaid, sort_key, update_id, *content = op.columns
    replaced = connection.execute(
        "UPDATE messages SET data = ?, headers = ?, ttl = ?, timestamp = ?, expiry = ?, live = ?,"
        " urgency = ?"
        f" WHERE uaid = ? AND updateid = ? AND sortkey >= '{TIMESTAMPED}'"
        f" AND sortkey < '{AFTER_TIMESTAMPED}'",
        (*content, uaid, update_id),
    ).rowcount
    if replaced:
        return
    passed = connection.execute(_PASSED, (uaid,)).fetchone()[0]
    if op.timestamp is not None and op.timestamp <= passed:
        sort_key = f"{TIMESTAMPED}{passed + 1}:{str(sort_key).split(':', 2)[2]}"
    connection.execute(_replace_sql(1), (uaid, sort_key, *op.columns[2:]))


def delete(connection: sqlite3.Connection, deletes: Sequence[Delete]) -> None:
    """Delete the rows, noting in each operation's ``result`` whether there was one."""
    for chunk in _chunks(deletes):
        values: list[object] = []
        for number, op in enumerate(chunk):
            values += (number, op.uaid, op.sort_key, op.update_id)
        numbers, ids = connection.execute(_find_sql(len(chunk)), values).fetchone()
        found: set[int] = set()
        if ids:
            # Of several deletes of one row, one did it.
            rows = dict(zip(ids.split(","), numbers.split(","), strict=True))
            found = set(map(int, rows.values()))
            connection.execute(
                "DELETE FROM messages WHERE id IN (SELECT value FROM json_each(?))", (f"[{ids}]",)
            )
        for number, op in enumerate(chunk):
            op.result = bool(op.puts) or number in found or _delete_by_update_id(connection, op)


def _delete_by_update_id(connection: sqlite3.Connection, op: Delete) -> bool:
    """For a message that was stored under another sort key than its own (quirk S7)."""
    if not op.update_id:
        return False
    return (
        connection.execute(
            "DELETE FROM messages WHERE uaid = ? AND updateid = ?", (op.uaid, op.update_id)
        ).rowcount
        > 0
    )


def restore(connection: sqlite3.Connection, op: Put, beside: Put) -> None:
    """Store a message of a topic, accepted earlier, unless it was replaced since.

    :param beside: the same without a topic, for when nobody can tell which of two is newer
    """
    uaid, sort_key, update_id, *_, timestamp, _expiry, _live, _urgency = op.columns
    other = connection.execute(
        "SELECT updateid, timestamp FROM messages WHERE uaid = ? AND sortkey = ?", (uaid, sort_key)
    ).fetchone()
    if other is None or other[0] == update_id or other[1] < timestamp:
        put(connection, [op])
    elif other[1] == timestamp:
        put(connection, [beside])


def delete_channel(connection: sqlite3.Connection, uaid: str, chid: str) -> None:
    """Delete what is stored for a channel."""
    connection.execute(
        "DELETE FROM messages WHERE uaid = ?1 AND (sortkey BETWEEN ?3 || ?2 || ':' AND ?3 || ?2"
        " || ';' OR sortkey BETWEEN ?2 || ':' AND ?2 || ';' OR (sortkey BETWEEN ?4 AND ?5"
        " AND substr(sortkey, -36) = ?2))",
        (uaid, chid, TOPIC, TIMESTAMPED, AFTER_TIMESTAMPED),
    )


def delete_ids(connection: sqlite3.Connection, ids: list[int]) -> None:
    """Delete rows found unreadable."""
    connection.executemany("DELETE FROM messages WHERE id = ?", [(id_,) for id_ in ids])


def sweep(connection: sqlite3.Connection, now: int, limit: int) -> int:
    """Delete at most ``limit`` messages past their expiry; how many."""
    return connection.execute(
        "DELETE FROM messages WHERE id IN"
        " (SELECT id FROM messages WHERE expiry <= ? ORDER BY expiry LIMIT ?)",
        (now, limit),
    ).rowcount
