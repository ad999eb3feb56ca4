"""Channels of users whose channel row alone doesn't tell the whole story. Blocking.

* **While months change** (spec/storage 8.5) a move copies a user's channels, writes the record and
  then looks for what was changed meanwhile (:mod:`~autopush.db.dynamodb.move`). Who adds a channel
  reads the record after that: either the move comes later and sees the channel, or the record names
  the month where it must be, too. Who removes one does so in both months.
* **Bridge users** (quirk S4) have their channels in the router record, which knows no month and
  doesn't expire. Nodes of 1.58.3 keep them in the channel row of the month in which they were
  started: such rows are read, too, and written along, as long as there may be such nodes. The row
  also tells which channels were written along, so one that is missing was removed by such a node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from autopush.db.dynamodb.client import TableMissing, checks_unsure
from autopush.db.dynamodb.end import ChannelEnd
from autopush.db.dynamodb.items import Item
from autopush.db.dynamodb.messages import KEPT, Messages, channel_set
from autopush.db.dynamodb.users import Users
from autopush.db.interface import Channels, User
from autopush.db.rows import channel_ids

IN_ROW, ENDED = "in a row", "ended"


class ChannelSets:
    """See the module.

    :param tables: the message tables that exist and are accepted, oldest first
    :param current: the one that new users get
    """

    def __init__(
        self,
        users: Users,
        messages: Messages,
        tables: Callable[[], list[str]],
        current: Callable[[], str],
    ) -> None:
        self._users = users
        self._messages = messages
        self._tables = tables
        self._current = current

    def begin(self, user: User, chid: str, settled: bool) -> str:
        """See :meth:`Store.add_first_channel`.

        :param settled: whether nobody is moving users of this month
        """
        uaid, month = user["uaid"], user["current_month"]
        registered = self._users.register(user)
        if registered.written and settled:
            self._messages.add_channels(month, uaid, {chid})
            return str(month)
        there = (self._users.get(uaid) or {}).get("current_month")
        month = there if there in self._tables() else month
        self.add(month, uaid, chid)
        return str(month)

    # ---- while months change

    def add(self, month: str, uaid: str, chid: str) -> None:
        """Add to the channel set of a month, and of the one to which the user has moved."""
        self._messages.add_channels(month, uaid, {chid})
        there = (self._users.get(uaid) or {}).get("current_month")
        if there != month and there in self._tables():
            self._messages.add_channels(there, uaid, {chid})

    @checks_unsure
    def remove(
        self, month: str, uaid: str, chid: str, found: set[str], unsure: bool = False
    ) -> bool:
        """Remove from the channel sets of all months; whether it was in one.

        Oldest first, so that a move that has read a month before copies nothing that stays.

        :param found: empty; what an attempt that gets stuck half-way leaves to the next one
        """
        for table in sorted({month, *self._tables()}):
            if table != month and chid not in self._set_of(table, uaid):
                continue
            if ChannelEnd(self._messages, table, uaid, chid)(unsure):
                found.add(table)
        return bool(found)

    def _set_of(self, table: str, uaid: str) -> set[str]:
        try:
            return self._messages.channels(table, uaid).chids
        except TableMissing:
            return set()

    # ---- bridge users

    def _rows(self, uaid: str) -> Iterator[tuple[str, Item]]:
        for month in self._tables():
            row = self._messages.channel_row(month, uaid)
            if row is not None:
                yield month, row

    def add_bridge(self, uaid: str, chid: str) -> None:
        """Add a channel. The rows come first: one that is in the record is missed in a row."""
        current = self._current()
        self._messages.keep_channels(current, uaid, {chid})
        for month, row in self._rows(uaid):
            if month != current and chid in ended_channels(row):
                self._messages.keep_channels(month, uaid, {chid})
        self._users.add_bridge_channels(uaid, {chid})

    @checks_unsure
    def remove_bridge(self, uaid: str, chid: str, found: set[str], unsure: bool = False) -> bool:
        """Remove a channel; whether there was such a one.

        :param found: empty; what an attempt that gets stuck half-way leaves to the next one
        """
        for month, row in self._rows(uaid):
            if chid in channel_set(row):
                found.add(IN_ROW)
            elif chid in ended_channels(row):
                found.add(ENDED)
            else:
                continue
            self._messages.drop_kept_channel(month, uaid, chid)
        known = self._users.remove_bridge_channel(uaid, chid)
        if IN_ROW in found:
            return True
        return (known or unsure) and ENDED not in found

    def list_bridge(self, uaid: str) -> Channels:
        """All channels, but for those that a node of 1.58.3 has removed from its row."""
        known = self._users.bridge_channels(uaid)
        rows = dict(self._rows(uaid))
        ended = set[str]().union(*(ended_channels(row) for row in rows.values()))
        chids = (known or set()).union(*(channel_set(row) for row in rows.values())) - ended
        for chid in ended:
            self._end(uaid, chid, rows)
        if known is not None and chids - known:
            self._users.add_bridge_channels(uaid, chids - known)
        return Channels(bool(known) or bool(rows), chids)

    def _end(self, uaid: str, chid: str, rows: dict[str, Item]) -> None:
        """Remove everywhere what was removed from one row; from that one last."""
        self._users.remove_bridge_channel(uaid, chid)
        for month in sorted(rows, key=lambda month: chid in ended_channels(rows[month])):
            self._messages.drop_kept_channel(month, uaid, chid)


def ended_channels(row: Item) -> set[str]:
    """The channels that we have written to a row and somebody else has removed."""
    return channel_ids(row.get(KEPT, {}).get("SS", ())) - channel_set(row)
