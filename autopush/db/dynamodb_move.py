"""A drained user's way to another month's table (storage.md 8.5; websocket.md 15). Blocking."""

from __future__ import annotations

from autopush.db.dynamodb_client import TableMissing
from autopush.db.dynamodb_items import number_of
from autopush.db.dynamodb_messages import MessagePut, Messages
from autopush.db.dynamodb_users import Users
from autopush.notification import WebPushNotification


class MonthMove:
    """One user's move; starts anew where it was interrupted, which changes nothing twice.

    The channels come first, so that the record never names a month without them. Senders that
    read the record before it changes store into the old month, so its rows are looked for again
    afterwards. A sender that stores even later reads the record after that, and stores once more
    (:mod:`autopush.router.webpush`).

    :ivar noted: whether the record names the new month
    :ivar carried: whether there were messages
    """

    def __init__(
        self, users: Users, messages: Messages, uaid: str, old: str, new: str, last_connect: int
    ) -> None:
        self._users = users
        self._messages = messages
        self._uaid = uaid
        self._old = old
        self._new = new
        self._last_connect = last_connect
        self.noted = False
        self.carried = False

    def __call__(self) -> None:
        self._carry()
        self.noted = self._users.set_month(self._uaid, self._new, self._last_connect)
        if self.noted:
            self._carry()

    def _carry(self) -> None:
        try:
            if not self.noted:
                self._carry_channels()
            self._carry_messages()
        except TableMissing as error:
            if error.table != self._old:
                raise

    def _carry_channels(self) -> None:
        """Merge the old month's channels into the new one's (quirk Q20)."""
        chids = self._messages.channels(self._old, self._uaid).chids
        if chids:
            self._messages.add_channels(self._new, self._uaid, chids)

    def _carry_messages(self) -> None:
        """Move what the user has not read yet (quirks Q19, S17).

        Each message is written before it is deleted, so none is lost wherever this ends.
        """
        row = self._messages.channel_row(self._old, self._uaid)
        pointer = number_of(row, "current_timestamp") if row else None
        while messages := self._messages.topics(self._old, self._uaid)[1]:
            self._move(messages)
        while messages := self._messages.since(self._old, self._uaid, pointer).messages:
            self._move(messages)

    def _move(self, messages: list[WebPushNotification]) -> None:
        for notification in messages:
            MessagePut(self._messages, self._new, notification, check_pointer=True)()
            self._messages.delete_row(
                self._old,
                self._messages.key(self._uaid),
                notification.sort_key,
                notification.update_id,
                notification.legacy,
            )
            self.carried = True


class LateCarry(MonthMove):
    """A later look at the month a user has left; goes on where it was interrupted."""

    def __init__(self, users: Users, messages: Messages, uaid: str, old: str, new: str) -> None:
        super().__init__(users, messages, uaid, old, new, 0)
        self.noted = True

    def __call__(self) -> None:
        self._carry()
