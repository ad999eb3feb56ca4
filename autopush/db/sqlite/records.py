"""SQL on router records and channels. The caller provides the transaction of a write."""

from __future__ import annotations

import sqlite3
from typing import Any

from autopush.constants import MAX_EXPIRY
from autopush.db.interface import Connection, Forgotten, Registration, Survey, User
from autopush.db.rows import dump_json, load_json
from autopush.db.sqlite.messages import delete_channel
from autopush.exceptions import ChannelLimit, StoreError

MAX_CHANNELS = 10_000
"""Channels of one user: as many as fit into a row of DynamoDB (spec/storage 3)."""

NEVER = 253_402_300_799
"""Expiry of the channel rows of bridge users, who never connect (quirk S4): the year 9999."""

GET_USER = "SELECT record FROM users WHERE uaid = ?"

GET_SUBSCRIPTION = (
    "SELECT record, (SELECT r.expiry FROM channels c JOIN channel_rows r ON r.uaid = c.uaid"
    " WHERE c.uaid = ?1 AND c.chid = ?2) FROM users WHERE uaid = ?1"
)

_SAME = "lower(replace(chid, '-', '')) = replace(?2, '-', '')"
"""However the channel id is spelt, by whatever program stored it."""

GET_OTHER_SPELLING = (
    "SELECT r.expiry FROM channels c JOIN channel_rows r ON r.uaid = c.uaid"
    f" WHERE c.uaid = ?1 AND {_SAME} LIMIT 1"
)
"""For a channel that is not there as we write it."""

LIST_CHANNELS = (
    "SELECT c.chid FROM channel_rows r LEFT JOIN channels c ON c.uaid = r.uaid"
    " WHERE r.uaid = ? AND r.expiry > ?"
)

IS_ENDED = (
    "SELECT 1 FROM channel_rows r WHERE r.uaid = ?1 AND r.expiry > ?2"
    " AND NOT EXISTS (SELECT 1 FROM channels c WHERE c.uaid = ?1 AND c.chid = ?3)"
)

GET_POINTER = "SELECT pointer FROM channel_rows WHERE uaid = ? AND expiry > ?"

GET_CHANNELS_EXPIRY = "SELECT expiry FROM channel_rows WHERE uaid = ?"

_BARE = "{}"


# ---- router records


def _read(connection: sqlite3.Connection, uaid: str) -> User | None:
    row = connection.execute(GET_USER, (uaid,)).fetchone()
    return load_json(row[0]) if row else None


def _update(connection: sqlite3.Connection, uaid: str, record: User) -> None:
    connection.execute("UPDATE users SET record = ? WHERE uaid = ?", (dump_json(record), uaid))


def register(connection: sqlite3.Connection, uaid: str, new: User) -> Registration:
    """Merge ``new`` into the record if :func:`may_register`."""
    old = _read(connection, uaid)
    if old is not None and not may_register(old, new):
        return Registration(False, {})
    connection.execute(
        "INSERT INTO users (uaid, record) VALUES (?, ?)"
        " ON CONFLICT (uaid) DO UPDATE SET record = excluded.record",
        (uaid, dump_json({**(old or {}), **new})),
    )
    return Registration(True, old or {})


def may_register(old: User, new: User) -> bool:
    """The condition of a registration (spec/storage 9; quirk S9: no ``connected_at`` allows it)."""
    if old.get("router_type") not in (None, new["router_type"]):
        return False
    connected_at = old.get("connected_at")
    return old.get("node_id") is None or connected_at is None or connected_at < new["connected_at"]


def drop(connection: sqlite3.Connection, uaid: str) -> bool:
    """Delete the record; whether there was one."""
    connection.execute(
        "UPDATE channel_rows SET expiry = 0 WHERE uaid = ? AND expiry = ?", (uaid, NEVER)
    )
    return connection.execute("DELETE FROM users WHERE uaid = ?", (uaid,)).rowcount > 0


def drop_bare(connection: sqlite3.Connection, uaid: str) -> None:
    """Delete the record if it holds nothing."""
    connection.execute("DELETE FROM users WHERE uaid = ? AND record = ?", (uaid, _BARE))


_SURVEYED = (
    "SELECT u.uaid, u.record, EXISTS (SELECT 1 FROM channels c WHERE c.uaid = u.uaid),"
    " (SELECT r.expiry FROM channel_rows r WHERE r.uaid = u.uaid)"
    " FROM users u WHERE u.uaid > ? ORDER BY u.uaid LIMIT ?"
)


def survey(
    connection: sqlite3.Connection, after: str, limit: int, forgotten: Forgotten | None
) -> Survey:
    """Count at most ``limit`` records after a key, and delete those that are to be forgotten.

    :param forgotten: its UAIDs are keys here
    """
    rows = connection.execute(_SURVEYED, (after, limit)).fetchall()
    gone = [
        (uaid,)
        for uaid, record, has_channels, expiry in rows
        if forgotten is not None
        and not has_channels
        and _is_forgotten(uaid, record, expiry, forgotten)
    ]
    connection.executemany("DELETE FROM users WHERE uaid = ?", gone)
    last = rows[-1][0] if len(rows) == limit else None
    return Survey(len(rows) - len(gone), len(gone), last)


def _is_forgotten(uaid: str, text: str, expiry: int | None, forgotten: Forgotten) -> bool:
    if uaid in forgotten.connected:
        return False
    try:
        record = load_json(text)
        seen = int(record["connected_at"])
    except (ValueError, TypeError, KeyError):
        return False  # a hello will say what is wrong with it
    if expiry is not None:
        # Of a row that stayed when its last channel went: a hello refreshes it, and a connection
        # that stays does so once a day.
        seen = max(seen, (expiry - MAX_EXPIRY) * 1000)
    return (
        record.get("router_type") == "webpush"
        and record.get("node_id") in (None, forgotten.node_id)
        and seen < forgotten.before
    )


def clear_node(connection: sqlite3.Connection, uaid: str, node_id: str, connected_at: int) -> bool:
    """Remove ``node_id`` if both are still these; whether it was done."""
    record = _read(connection, uaid)
    if not record or record.get("node_id") != node_id or record.get("connected_at") != connected_at:
        return False
    del record["node_id"]
    _update(connection, uaid, record)
    return True


def update(
    connection: sqlite3.Connection, uaid: str, values: dict[str, Any], of: Connection | None
) -> bool:
    """Set attributes of a record that exists; whether it was done.

    :param of: the connection the record must be about; None: any
    """
    record = _read(connection, uaid)
    if not record or not (of is None or is_about(record, of)):
        return False
    _update(connection, uaid, {**record, **values})
    return True


def is_about(record: User, connection: Connection) -> bool:
    """Whether no other connection has the user, though its node may have been found gone."""
    return (
        record.get("connected_at") == connection.connected_at
        and record.get("node_id", connection.node_id) == connection.node_id
    )


# ---- channels


def _open_row(connection: sqlite3.Connection, uaid: str, now: int, expiry: int) -> None:
    """Create the user's channel row or refresh it; an expired one starts anew."""
    expired = connection.execute(
        "DELETE FROM channel_rows WHERE uaid = ? AND expiry <= ?", (uaid, now)
    ).rowcount
    if expired:
        connection.execute("DELETE FROM channels WHERE uaid = ?", (uaid,))
    connection.execute(
        "INSERT INTO channel_rows (uaid, expiry) VALUES (?, ?)"
        " ON CONFLICT (uaid) DO UPDATE SET expiry = excluded.expiry",
        (uaid, expiry),
    )


def add_channel(
    connection: sqlite3.Connection, uaid: str, chid: str, now: int, expiry: int
) -> StoreError | None:
    """Add a member to the user's set; returns the refusal if that is full.

    What is stored for a channel that was none was meant for one of the same id that has ended.
    """
    _open_row(connection, uaid, now, expiry)
    added = connection.execute(
        "INSERT OR IGNORE INTO channels (uaid, chid) VALUES (?, ?)", (uaid, chid)
    ).rowcount
    if added and _has_too_many(connection, uaid):
        connection.execute("DELETE FROM channels WHERE uaid = ? AND chid = ?", (uaid, chid))
        return ChannelLimit(f"{MAX_CHANNELS} channels")
    if added:
        delete_channel(connection, uaid, chid)
    return None


def _has_too_many(connection: sqlite3.Connection, uaid: str) -> bool:
    beyond = connection.execute(
        "SELECT 1 FROM channels WHERE uaid = ? LIMIT 1 OFFSET ?", (uaid, MAX_CHANNELS)
    )
    return beyond.fetchone() is not None


def remove_channel(
    connection: sqlite3.Connection, uaid: str, chid: str, now: int, expiry: int
) -> bool:
    """Remove a member, however it is spelt, and what is stored for it; whether it was one."""
    _open_row(connection, uaid, now, expiry)
    delete_channel(connection, uaid, chid)
    done = connection.execute(f"DELETE FROM channels WHERE uaid = ?1 AND {_SAME}", (uaid, chid))
    return done.rowcount > 0


def touch_channels(connection: sqlite3.Connection, uaid: str, now: int, expiry: int) -> None:
    """Refresh the row if there is one."""
    connection.execute(
        "UPDATE channel_rows SET expiry = ? WHERE uaid = ? AND expiry > ?", (expiry, uaid, now)
    )


def set_pointer(
    connection: sqlite3.Connection, uaid: str, timestamp: int, now: int, expiry: int
) -> None:
    """Move the pointer forwards."""
    _open_row(connection, uaid, now, expiry)
    connection.execute(
        "UPDATE channel_rows SET pointer = max(ifnull(pointer, 0), ?) WHERE uaid = ?",
        (timestamp, uaid),
    )


def sweep_channels(connection: sqlite3.Connection, now: int, limit: int) -> int:
    """Delete at most ``limit`` channel rows past their expiry; how many."""
    rows = connection.execute(
        "SELECT uaid FROM channel_rows WHERE expiry <= ? ORDER BY expiry LIMIT ?", (now, limit)
    ).fetchall()
    connection.executemany("DELETE FROM channels WHERE uaid = ?", rows)
    connection.executemany("DELETE FROM channel_rows WHERE uaid = ?", rows)
    return len(rows)
