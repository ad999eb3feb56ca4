"""The end of a channel, and of what is stored for it (spec/storage 10). Blocking."""

from __future__ import annotations

from autopush.db.dynamodb.items import Item, number_of
from autopush.db.dynamodb.messages import Messages
from autopush.db.rows import AFTER_TIMESTAMPED, TIMESTAMPED, TOPIC


class ChannelEnd:
    """Ends a channel; goes on where it was interrupted.

    Senders are refused as soon as the channel has left the set, so what waits for it then is all
    there is. What the read pointer has passed stays: late messages find their place by it (17.6).
    """

    unsure_aware = True

    def __init__(self, table: Messages, month: str, uaid: str, chid: str) -> None:
        self._table = table
        self._month = month
        self._uaid = uaid
        self._chid = chid
        self._row: Item | None = None
        self._was_member = False

    def __call__(self, unsure: bool = False) -> bool:
        """Run it; whether it was a member.

        :param unsure: an earlier attempt may have removed it
        """
        if self._row is None:
            self._row, was = self._table.take_channel(self._month, self._uaid, self._chid)
            self._was_member = unsure or was
        pointer = number_of(self._row, "current_timestamp")
        above = f"{TIMESTAMPED}{pointer}:z" if pointer else TIMESTAMPED
        topic = f"{TOPIC}{self._chid}:"
        self._delete(topic, topic[:-1] + ";")
        self._delete(above, AFTER_TIMESTAMPED)
        return self._was_member

    def _delete(self, low: str, high: str) -> None:
        """Delete the channel's rows in a range of sort keys."""
        table, user = self._table, self._table.key(self._uaid)
        for item in table.keys(self._month, user, low, high):
            key = item["chidmessageid"]["S"]
            if self._chid in key:
                table.delete_row(self._month, user, key, item.get("updateid", {}).get("S"))
