"""Counting users, channels and messages, and forgetting users, a slice at a time.

Each slice is one short transaction. A place between two slices is ``<uaid> <channel>`` while
channels are counted, then ``m <uaid> <sort key>``.
"""

from __future__ import annotations

from typing import Any

from autopush.constants import MAX_EXPIRY
from autopush.db.interface import Forgotten, Stock, Survey
from autopush.db.postgresql.link import Connection
from autopush.db.postgresql.records import load_record
from autopush.db.postgresql.writer import begin
from autopush.db.sqlite.quota import ROW_OVERHEAD
from autopush.exceptions import StoreError

SURVEY_SLICE = 1000
"""Records counted, and perhaps forgotten, in one transaction: some milliseconds."""

STOCK_SLICE = 1000
"""Channels or messages counted in one statement: the same."""

_SURVEYED = (
    "SELECT u.uaid, u.record::text, EXISTS (SELECT 1 FROM channels c WHERE c.uaid = u.uaid),"
    " (SELECT r.expiry FROM channel_rows r WHERE r.uaid = u.uaid) FROM users u"
)


def survey(connection: Connection, after: str, forgotten: Forgotten | None) -> Survey:
    """Count the next records, and delete those that are to be forgotten.

    :param after: where the last survey ended; empty: begin
    :param forgotten: its UAIDs are keys here
    """
    if forgotten is None:
        counted = connection.execute(
            "SELECT count(*), max(uaid) FROM"
            " (SELECT uaid FROM users WHERE uaid > %s ORDER BY uaid LIMIT %s) AS u",
            (after, SURVEY_SLICE),
        ).fetchone()
        count, last = counted or (0, None)
        return Survey(count, 0, last if count == SURVEY_SLICE else None)
    rows = connection.execute(
        f"{_SURVEYED} WHERE u.uaid > %s ORDER BY u.uaid LIMIT %s", (after, SURVEY_SLICE)
    ).fetchall()
    candidates = [row[0] for row in rows if _is_forgotten(row, forgotten)]
    gone = _forget(connection, candidates, forgotten) if candidates else 0
    return Survey(len(rows) - gone, gone, rows[-1][0] if len(rows) == SURVEY_SLICE else None)


def _forget(connection: Connection, candidates: list[str], forgotten: Forgotten) -> int:
    """Delete those of whom it is still true now that nobody else may write for them."""
    begin(connection, candidates)
    rows = connection.execute(f"{_SURVEYED} WHERE u.uaid = ANY(%s)", (candidates,)).fetchall()
    gone = [row[0] for row in rows if _is_forgotten(row, forgotten)]
    connection.execute("DELETE FROM users WHERE uaid = ANY(%s)", (gone,))
    connection.execute("COMMIT", prepare=False)
    return len(gone)


def _is_forgotten(row: tuple[Any, ...], forgotten: Forgotten) -> bool:
    uaid, text, has_channels, expiry = row
    if has_channels or uaid in forgotten.connected:
        return False
    try:
        record = load_record(text)
        seen = int(record["connected_at"])
    except (StoreError, ValueError, TypeError, KeyError):
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


_CHANNELS = (
    "SELECT uaid, chid FROM channels WHERE (uaid, chid) > (%s, %s) ORDER BY uaid, chid LIMIT %s"
)

_MESSAGES = (
    f"SELECT uaid, sortkey, {ROW_OVERHEAD} + coalesce(octet_length(data), 0)"
    " + coalesce(octet_length(headers), 0) FROM messages WHERE (uaid, sortkey) > (%s, %s)"
    " ORDER BY uaid, sortkey LIMIT %s"
)


def take_stock(connection: Connection, after: str) -> Stock:
    """Count some channels, or messages once those have come to an end.

    :param after: where the last count ended; empty: begin
    """
    if not after.startswith("m "):
        uaid, _, chid = after.partition(" ")
        rows = connection.execute(_CHANNELS, (uaid, chid, STOCK_SLICE)).fetchall()
        more = len(rows) == STOCK_SLICE
        return Stock(len(rows), 0, 0, " ".join(rows[-1]) if more else "m  ")
    _, uaid, sort_key = after.split(" ", 2)
    rows = connection.execute(_MESSAGES, (uaid, sort_key, STOCK_SLICE)).fetchall()
    size = sum(row[2] for row in rows)
    last = f"m {rows[-1][0]} {rows[-1][1]}" if len(rows) == STOCK_SLICE else None
    return Stock(0, len(rows), size, last)
