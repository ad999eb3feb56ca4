"""SQL on stored messages.

Writes come in lists, in the caller's transaction. Whoever writes for a user has the user's lock,
see
:mod:`autopush.db.postgresql.writer`: what is stored or read for it doesn't change meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from autopush.db.postgresql.link import Connection
from autopush.db.postgresql.statements import Kind, any_row, nothing, over
from autopush.db.rows import AFTER_TIMESTAMPED, TIMESTAMPED
from autopush.db.writes import Delete, Put

_NAMES = (
    *("uaid", "sortkey", "updateid", "data", "headers", "ttl", "timestamp", "expiry", "live"),
    "urgency",
)
_COLUMNS = ", ".join(_NAMES)
_TYPED = (
    "uaid text, sortkey text, updateid text, data text, headers text, ttl bigint,"
    " timestamp bigint, expiry bigint, live smallint, urgency text"
)
_VALUES = ", ".join(f"v.{name}" for name in _NAMES)
_REPLACE = " ON CONFLICT (uaid, sortkey) DO UPDATE SET " + ", ".join(
    f"{name} = excluded.{name}" for name in _NAMES[2:]
)

_LAST_KEY = (
    "(SELECT m.sortkey FROM messages m WHERE m.uaid = v.uaid"
    f" AND m.sortkey >= '{TIMESTAMPED}' AND m.sortkey < '{AFTER_TIMESTAMPED}'"
    " ORDER BY m.sortkey DESC LIMIT 1)"
)
_POINTER = "(SELECT r.pointer FROM channel_rows r WHERE r.uaid = v.uaid)"
_PASSED = (
    f"greatest(coalesce({_POINTER}, 0), coalesce((SELECT"
    " max(substring(m.sortkey from '^02:([0-9]{1,17}):')::bigint) FROM messages m"
    f" WHERE m.uaid = v.uaid AND m.sortkey >= '{TIMESTAMPED}'"
    f" AND m.sortkey < '{AFTER_TIMESTAMPED}'), 0))"
)
"""The latest timestamp that is stored or read, as a number."""

PAGE = Kind(
    (
        over("uaid text, above text, below text, wanted int")
        + "SELECT v.n, r.pointer, m.sortkey, m.updateid, m.data, m.headers, m.ttl, m.timestamp,"
        " m.expiry, m.live, m.urgency FROM v"
        " LEFT JOIN channel_rows r ON r.uaid = v.uaid AND r.expiry > %(now)s"
        " LEFT JOIN LATERAL (SELECT * FROM messages m WHERE m.uaid = v.uaid"
        " AND m.sortkey > v.above AND m.sortkey < v.below AND m.expiry > %(now)s"
        " ORDER BY m.sortkey LIMIT v.wanted) m ON true ORDER BY v.n, m.sortkey",
    ),
    lambda rows: (rows[0][0], [row[1:] for row in rows if row[1] is not None]),
)
"""The read pointer, and the messages of a range in their order."""

_STORE = Kind(
    (over(_TYPED) + f"INSERT INTO messages ({_COLUMNS}) SELECT {_VALUES} FROM v{_REPLACE}",),
    nothing,
)

_APPEND = Kind(
    (
        over(
            f"{_TYPED}, place bigint",
            f"done AS (INSERT INTO messages ({_COLUMNS}) SELECT {_VALUES} FROM v"
            f" WHERE '{TIMESTAMPED}' || v.place || ':' > coalesce({_LAST_KEY}, '')"
            f" AND v.place > coalesce({_POINTER}, 0)"
            " ON CONFLICT DO NOTHING RETURNING uaid, sortkey)",
        )
        + "SELECT v.n FROM v JOIN done d ON d.uaid = v.uaid AND d.sortkey = v.sortkey",
    ),
    any_row,
)
"""Insert those that come after all the user has, be it stored or read."""

_STORE_LATE = Kind(
    (
        over(
            f"{_TYPED}, place bigint",
            "replaced AS (UPDATE messages m SET data = v.data, headers = v.headers, ttl = v.ttl,"
            " timestamp = v.timestamp, expiry = v.expiry, live = v.live, urgency = v.urgency FROM v"
            " WHERE m.uaid = v.uaid AND m.updateid = v.updateid"
            f" AND m.sortkey >= '{TIMESTAMPED}' AND m.sortkey < '{AFTER_TIMESTAMPED}' RETURNING 1)",
            f"passed AS (SELECT v.*, {_PASSED} AS passed FROM v"
            " WHERE NOT EXISTS (SELECT 1 FROM replaced))",
        )
        + f"INSERT INTO messages ({_COLUMNS}) SELECT uaid, CASE WHEN place > passed THEN sortkey"
        f" ELSE '{TIMESTAMPED}' || passed + 1 || substring(sortkey from ':[^:]*$') END,"
        " updateid, data, headers, ttl, timestamp, expiry, live, urgency FROM passed" + _REPLACE,
    ),
    nothing,
)
"""For one message, see :func:`put`."""

_DELETE = Kind(
    (
        over("uaid text, sortkey text, updateid text")
        + "DELETE FROM messages m USING v WHERE m.uaid = v.uaid AND m.sortkey = v.sortkey"
        " AND (v.updateid IS NULL OR m.updateid = v.updateid) RETURNING v.n",
    ),
    any_row,
)

_DELETE_BY_UPDATE_ID = Kind(
    (
        over("uaid text, updateid text")
        + "DELETE FROM messages m USING v WHERE m.uaid = v.uaid AND m.updateid = v.updateid"
        " RETURNING v.n",
    ),
    any_row,
)
"""For a message that was stored under another sort key than its own (quirk S7)."""

_SAME_TOPIC = Kind(
    (
        over("uaid text, sortkey text") + "SELECT v.n, m.updateid, m.timestamp FROM v"
        " JOIN messages m ON m.uaid = v.uaid AND m.sortkey = v.sortkey",
    ),
    lambda rows: rows[0] if rows else None,
)

DELETE_UNREADABLE = Kind(
    (
        over("uaid text, sortkeys json") + "DELETE FROM messages m USING v WHERE m.uaid = v.uaid"
        " AND m.sortkey IN (SELECT json_array_elements_text(v.sortkeys))",
    ),
    nothing,
)


def _row(op: Put) -> dict[str, Any]:
    return dict(zip(_NAMES, op.columns, strict=True))


def put(connection: Connection, puts: Iterable[Put], now: int) -> None:
    """Insert or replace the rows (spec/storage 17.3, 17.6).

    A reader who is past a message's timestamp would never see it, so one that may lie behind what
    the user has gets the next timestamp that is free; unless it is stored already, then that row is
    replaced.
    """
    replacing: dict[tuple[str, str], Put] = {}
    first: dict[tuple[str, int], Put] = {}
    late: list[Put] = []
    for op in puts:
        if op.timestamp is None:
            replacing[op.uaid, op.notification.sort_key] = op  # the last one of a topic counts
        elif (place := (op.uaid, op.timestamp)) in first:
            late.append(op)
        else:
            first[place] = op
    if replacing:
        _STORE.run(connection, [_row(op) for op in replacing.values()], now)
    if first:
        ops = list(first.values())
        rows = [{**_row(op), "place": op.timestamp} for op in ops]
        done = _APPEND.run(connection, rows, now)
        late[:0] = [op for op, appended in zip(ops, done, strict=True) if not appended]
    for op in late:
        _STORE_LATE.run(connection, [{**_row(op), "place": op.timestamp}], now)


def delete(connection: Connection, deletes: Sequence[Delete], now: int) -> None:
    """Delete the rows, noting in each operation's ``result`` whether there was one."""
    # Of several deletes of one row, one did it.
    first: dict[tuple[str, str, str | None], Delete] = {}
    for op in deletes:
        op.result = bool(op.puts)
        first.setdefault((op.uaid, op.sort_key, op.update_id), op)
    ops = list(first.values())
    rows = [{"uaid": o.uaid, "sortkey": o.sort_key, "updateid": o.update_id} for o in ops]
    found = _DELETE.run(connection, rows, now)
    again = [op for op, there in zip(ops, found, strict=True) if op.update_id and not there]
    if again:
        rows = [{"uaid": op.uaid, "updateid": op.update_id} for op in again]
        found_again = dict(
            zip(map(id, again), _DELETE_BY_UPDATE_ID.run(connection, rows, now), strict=True)
        )
    else:
        found_again = {}
    for op, there in zip(ops, found, strict=True):
        op.result = op.result or there or found_again.get(id(op), False)


def restore(connection: Connection, op: Put, beside: Put, now: int) -> None:
    """Store a message of a topic, accepted earlier, unless it was replaced since.

    :param beside: the same without a topic, for when nobody can tell which of two is newer
    """
    row = _row(op)
    key = {"uaid": row["uaid"], "sortkey": row["sortkey"]}
    (other,) = _SAME_TOPIC.run(connection, [key], now)
    if other is None or other[0] == row["updateid"] or other[1] < row["timestamp"]:
        put(connection, [op], now)
    elif other[1] == row["timestamp"]:
        put(connection, [beside], now)
