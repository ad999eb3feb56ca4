"""How many channels and stored messages there are, counted a slice at a time.

Counting all at once would hold up writers for as long as that takes: a second for a million
messages. A place between two slices is ``<uaid> <channel>`` while channels are counted, then the
number of a message.
"""

from __future__ import annotations

import sqlite3

from autopush.db.interface import Stock
from autopush.db.sqlite.messages import SIZE

_CHANNELS = (
    "SELECT uaid, chid FROM channels WHERE (uaid, chid) > (?, ?) ORDER BY uaid, chid LIMIT ?"
)

_MESSAGES = (
    "SELECT count(*), ifnull(sum(size), 0), max(id) FROM"
    f" (SELECT id, {SIZE} AS size FROM messages WHERE id > ? ORDER BY id LIMIT ?)"
)


def take_stock(connection: sqlite3.Connection, after: str, limit: int) -> Stock:
    """Count at most ``limit`` channels, or messages once those have come to an end.

    :param after: where the last count ended; empty: begin
    """
    uaid, blank, chid = after.partition(" ")
    if blank or not after:
        rows = connection.execute(_CHANNELS, (uaid, chid, limit)).fetchall()
        return Stock(len(rows), 0, 0, " ".join(rows[-1]) if len(rows) == limit else "0")
    count, size, last = connection.execute(_MESSAGES, (int(after), limit)).fetchone()
    return Stock(0, count, size, str(last) if count == limit else None)
