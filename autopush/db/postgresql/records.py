"""SQL on router records and channels, for many users at once."""

from __future__ import annotations

from typing import Any

from autopush.db.interface import Arrival, Registration, User
from autopush.db.postgresql.statements import Kind, Row, any_row, nothing, over
from autopush.db.rows import AFTER_TIMESTAMPED, TIMESTAMPED, TOPIC, dump_json, load_json
from autopush.exceptions import ChannelLimit, StoreError

MAX_CHANNELS = 10_000
"""Channels of one user: as many as fit into a row of DynamoDB (spec/storage 3)."""

NEVER = 253_402_300_799
"""Expiry of the channel rows of bridge users, who never connect (quirk S4): the year 9999."""

WRAPPED = "\x7fjson"
"""A value of a record that ``jsonb`` does not take is an object with this one key, and its text."""


def dump_record(record: dict[str, Any]) -> str:
    """The JSON text of attributes.

    PostgreSQL has no text with NUL or half a surrogate pair in it; clients of bridges may send
    such.
    """
    text = dump_json(record)
    if not (_is_odd(text) or WRAPPED in text or "\\u007fjson" in text):
        return text
    wrapped = {}
    for name, value in record.items():
        text = dump_json(value)
        odd = _is_odd(text) or (isinstance(value, dict) and WRAPPED in value)
        wrapped[name] = {WRAPPED: text} if odd else value
    return dump_json(wrapped)


def _is_odd(text: str) -> bool:
    return "\\u0000" in text or "\\ud" in text or "\\uD" in text


def load_record(text: str) -> User:
    """The attributes in a JSON text.

    :raises StoreError: it isn't one of ours
    """
    try:
        record: User = load_json(text)
    except ValueError:
        raise StoreError("unreadable router record") from None
    if not isinstance(record, dict):
        raise StoreError("unreadable router record")
    if WRAPPED in text or "\\u007fjson" in text:
        for name, value in record.items():
            if isinstance(value, dict) and WRAPPED in value:
                record[name] = load_json(value[WRAPPED])
    return record


# ---- reading

GET_USER = Kind(
    (over("uaid text") + "SELECT v.n, u.record::text FROM v JOIN users u ON u.uaid = v.uaid",),
    lambda rows: rows[0][0] if rows else None,
)
"""A record's text, None if there is none."""

GET_SUBSCRIPTION = Kind(
    (
        over("uaid text, chid text") + "SELECT v.n, u.record::text, r.expiry > %(now)s"
        " FROM v JOIN users u ON u.uaid = v.uaid"
        " LEFT JOIN channels c ON c.uaid = v.uaid AND c.chid = v.chid"
        " LEFT JOIN channel_rows r ON r.uaid = c.uaid",
    ),
    lambda rows: rows[0] if rows else None,
)
"""A record's text and whether it has the channel; None if there is no record."""

LIST_CHANNELS = Kind(
    (
        over("uaid text") + "SELECT v.n, c.chid FROM v"
        " JOIN channel_rows r ON r.uaid = v.uaid AND r.expiry > %(now)s"
        " LEFT JOIN channels c ON c.uaid = v.uaid",
    ),
    lambda rows: (bool(rows), {chid for (chid,) in rows if chid is not None}),
)

ENDED_CHANNELS = Kind(
    (
        over("uaid text, chids json") + "SELECT v.n, asked.chid FROM v"
        " JOIN channel_rows r ON r.uaid = v.uaid AND r.expiry > %(now)s"
        " CROSS JOIN LATERAL json_array_elements_text(v.chids) AS asked(chid)"
        " WHERE NOT EXISTS"
        " (SELECT 1 FROM channels c WHERE c.uaid = v.uaid AND c.chid = asked.chid)",
    ),
    lambda rows: {chid for (chid,) in rows},
)

GET_EXPIRY = Kind(
    (
        over("uaid text") + "SELECT v.n, r.expiry FROM v"
        " JOIN channel_rows r ON r.uaid = v.uaid AND r.expiry > %(now)s",
    ),
    lambda rows: rows[0][0] if rows else None,
)
"""Of the channel row; None if there is none."""


# ---- writing records

_IS_FREE = (
    "(u.record->>'router_type' IS NULL OR u.record->'router_type' = {type})"
    " AND (u.record->>'node_id' IS NULL OR u.record->>'connected_at' IS NULL"
    " OR u.record->'connected_at' < {at})"
)
"""The condition of a registration (spec/storage 9; quirk S9: no ``connected_at`` allows it)."""


def _registered(rows: list[Row]) -> Registration:
    ((done, old),) = rows
    return Registration(done, load_record(old) if done and old else {})


REGISTER = Kind(
    (
        over(
            "uaid text, record text",
            "old AS (SELECT u.uaid, u.record FROM v JOIN users u ON u.uaid = v.uaid)",
            "done AS (INSERT INTO users AS u (uaid, record) SELECT v.uaid, v.record::jsonb FROM v"
            " ON CONFLICT (uaid) DO UPDATE SET record = u.record || excluded.record WHERE "
            + _IS_FREE.format(
                type="excluded.record->'router_type'", at="excluded.record->'connected_at'"
            )
            + " RETURNING uaid)",
        )
        + "SELECT v.n, d.uaid IS NOT NULL, old.record::text FROM v"
        " LEFT JOIN old ON old.uaid = v.uaid LEFT JOIN done d ON d.uaid = v.uaid",
    ),
    _registered,
)
"""``record``: text of the attributes to set."""


def _arrived(rows: list[Row]) -> Arrival:
    if not rows:
        return Arrival(False, None)
    ((done, old),) = rows
    return Arrival(done, load_record(old) or None)


ARRIVE = Kind(
    (
        over(
            "uaid text, node text, at bigint, month text, version int, first bigint, last bigint",
            "old AS (SELECT v.n, u.uaid, u.record FROM v JOIN users u ON u.uaid = v.uaid)",
            "done AS (UPDATE users u SET"
            " record = u.record || jsonb_build_object('node_id', v.node, 'connected_at', v.at)"
            " FROM v WHERE u.uaid = v.uaid AND u.record->>'router_type' = 'webpush'"
            " AND u.record->>'current_month' = v.month"
            " AND u.record->'record_version' >= to_jsonb(v.version)"
            " AND jsonb_typeof(u.record->'record_version') = 'number'"
            " AND u.record->'last_connect' BETWEEN to_jsonb(v.first) AND to_jsonb(v.last)"
            " AND u.record->'connected_at' < to_jsonb(v.at)"
            " AND jsonb_typeof(u.record->'connected_at') = 'number' RETURNING u.uaid)",
        )
        + "SELECT old.n, d.uaid IS NOT NULL, old.record::text FROM old"
        " LEFT JOIN done d ON d.uaid = old.uaid",
    ),
    _arrived,
)
"""See :meth:`autopush.db.interface.Store.return_user`."""

DROP = Kind(
    (
        over(
            "uaid text",
            "ended AS (UPDATE channel_rows r SET expiry = 0 FROM v WHERE r.uaid = v.uaid"
            f" AND r.expiry = {NEVER})",
        )
        + "DELETE FROM users u USING v WHERE u.uaid = v.uaid RETURNING v.n",
    ),
    any_row,
)

DROP_BARE = Kind(
    (
        over("uaid text") + "DELETE FROM users u USING v WHERE u.uaid = v.uaid"
        " AND u.record = '{}'::jsonb",
    ),
    nothing,
)

CLEAR_NODE = Kind(
    (
        over("uaid text, node text, at bigint")
        + "UPDATE users u SET record = u.record - 'node_id' FROM v WHERE u.uaid = v.uaid"
        " AND u.record->>'node_id' = v.node AND u.record->'connected_at' = to_jsonb(v.at)"
        " RETURNING v.n",
    ),
    any_row,
)

UPDATE = Kind(
    (
        over("uaid text, record text, node text, at bigint")
        + "UPDATE users u SET record = u.record || v.record::jsonb FROM v WHERE u.uaid = v.uaid"
        " AND u.record <> '{}'::jsonb AND (v.node IS NULL"
        " OR (u.record->'connected_at' = to_jsonb(v.at)"
        " AND coalesce(u.record->>'node_id', v.node) = v.node)) RETURNING v.n",
    ),
    any_row,
)
"""Set attributes of a record that exists and is about a connection, or any without ``node``."""


# ---- writing channels

_OPEN_ROW = (
    over(
        "uaid text, expiry bigint",
        "gone AS (DELETE FROM channels c USING v, channel_rows r WHERE r.uaid = v.uaid"
        " AND r.expiry <= %(now)s AND c.uaid = v.uaid)",
    )
    + "INSERT INTO channel_rows AS r (uaid, expiry) SELECT v.uaid, v.expiry FROM v"
    " ON CONFLICT (uaid) DO UPDATE SET expiry = excluded.expiry,"
    " pointer = CASE WHEN r.expiry > %(now)s THEN r.pointer END"
)
"""Create users' channel rows or refresh them; an expired one starts anew."""

_OF_CHANNEL = (
    "(starts_with(m.sortkey, '{topic}' || {chid} || ':') OR starts_with(m.sortkey, {chid} || ':')"
    " OR (m.sortkey >= '{first}' AND m.sortkey < '{end}' AND right(m.sortkey, 36) = {chid}))"
)


def _of_channel(chid: str) -> str:
    return _OF_CHANNEL.format(chid=chid, topic=TOPIC, first=TIMESTAMPED, end=AFTER_TIMESTAMPED)


def _added(rows: list[Row]) -> StoreError | None:
    return None if rows else ChannelLimit(f"{MAX_CHANNELS} channels")


ADD_CHANNEL = Kind(
    (
        _OPEN_ROW,
        over(
            "uaid text, chid text",
            "there AS (SELECT v.n FROM v JOIN channels c ON c.uaid = v.uaid AND c.chid = v.chid)",
            "added AS (INSERT INTO channels (uaid, chid) SELECT v.uaid, v.chid FROM v"
            " WHERE NOT EXISTS (SELECT 1 FROM channels c WHERE c.uaid = v.uaid"
            f" OFFSET {MAX_CHANNELS - 1}) ON CONFLICT DO NOTHING RETURNING uaid, chid)",
            "gone AS (DELETE FROM messages m USING added a WHERE m.uaid = a.uaid"
            f" AND {_of_channel('a.chid')})",
        )
        + "SELECT n FROM there UNION ALL"
        " SELECT v.n FROM v JOIN added a ON a.uaid = v.uaid",
    ),
    _added,
)
"""What is stored for a channel that was none was meant for one of the same id that has ended."""

ADD_FIRST_CHANNEL = Kind((*REGISTER.statements, *ADD_CHANNEL.statements), _added)
"""Of a new user, whose record comes along."""

REMOVE_CHANNEL = Kind(
    (
        _OPEN_ROW,
        over(
            "uaid text, chid text",
            "gone AS (DELETE FROM messages m USING v WHERE m.uaid = v.uaid"
            f" AND {_of_channel('v.chid')})",
        )
        + "DELETE FROM channels c USING v WHERE c.uaid = v.uaid AND c.chid = v.chid RETURNING v.n",
    ),
    any_row,
)

TOUCH = Kind(
    (
        over("uaid text, expiry bigint")
        + "UPDATE channel_rows r SET expiry = v.expiry FROM v WHERE r.uaid = v.uaid"
        " AND r.expiry > %(now)s",
    ),
    nothing,
)

SET_POINTER = Kind(
    (
        _OPEN_ROW,
        over("uaid text, timestamp bigint") + "UPDATE channel_rows r"
        " SET pointer = greatest(coalesce(r.pointer, 0), v.timestamp) FROM v WHERE r.uaid = v.uaid",
    ),
    nothing,
)

IDLE = Kind((over("uaid text") + "SELECT n FROM v",), nothing)
"""Nothing, in a transaction of its own."""
