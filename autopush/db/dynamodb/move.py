"""A drained user's way to another month's table (spec/storage 8.5; spec/websocket 15). Blocking."""

from __future__ import annotations

from typing import NamedTuple

from autopush.db.dynamodb import reading
from autopush.db.dynamodb.client import TableMissing, checks_unsure
from autopush.db.dynamodb.end import ChannelEnd
from autopush.db.dynamodb.items import number_of
from autopush.db.dynamodb.messages import MessagePut, Messages, channel_set
from autopush.db.dynamodb.users import Users
from autopush.db.interface import Connection
from autopush.message.notification import WebPushNotification


@checks_unsure
def delete_message(
    users: Users,
    messages: Messages,
    month: str,
    notification: WebPushNotification,
    unsure: bool = False,
) -> bool:
    """Delete a message, also where it has just been carried to; whether it was there."""
    if messages.delete(month, notification, unsure=unsure):
        return True
    there = (users.get(notification.uaid.hex) or {}).get("current_month")
    if not isinstance(there, str) or there == month:
        return False
    return messages.delete(there, notification, unsure=unsure)


class Way(NamedTuple):
    """Who moves, and from which month's table to which."""

    uaid: str
    old: str
    new: str


class MonthMove:
    """One user's move; starts anew where it was interrupted, which changes nothing twice.

    1. The channels come first, so that the record never names a month without them.
    2. The record is changed only as long as it is about the connection that moves: a request that
       was stuck on its way would else take the month from under the hands of the next one, which
       goes on in the old month.
    3. What came to the old month until then, messages and changes of the channels, is carried over.
       Who comes even later reads the record after its write, and sees to it itself
       (:mod:`autopush.router.webpush`, :mod:`autopush.db.dynamodb.channels`).
    4. The record no longer says that the user is being moved. Where this node dies before, the next
       hello has the rest done (:class:`FinishMove`).

    :param connection: whose move it is; None: of whoever holds the record
    :ivar noted: whether the record names the new month
    :ivar known: the channels of the old month as they were carried over last
    :ivar carried: whether there were messages, or channels of which ``known`` did not tell
    """

    noted = False
    known: frozenset[str] | None = frozenset()
    ends = True
    """Whether a channel that is gone from the old month has been ended. Later on, it may have been
    registered in the new month since."""

    def __init__(
        self,
        users: Users,
        messages: Messages,
        way: Way,
        last_connect: int = 0,
        connection: Connection | None = None,
    ) -> None:
        self._users = users
        self._messages = messages
        self._uaid, self._old, self._new = way
        self._last_connect = last_connect
        self._connection = connection
        self.carried = False
        self._arrived = self.noted

    def __call__(self) -> frozenset[str] | None:
        """:returns: the channels that came along; None if the record wasn't ours to change."""
        if not self.noted:
            self._carry()
            self.noted = self._users.set_month(
                self._uaid, self._new, self._last_connect, self._connection, self._old
            )
        self._arrived = self.noted or self._is_there()
        if not self._arrived:
            return None
        self._carry()
        self._users.month_reached(self._uaid, self._old)
        return self.known if self.noted else None

    def _is_there(self) -> bool:
        """Whether the record names the new month, though it isn't ours any more.

        That may be the doing of an attempt whose answer was lost.
        """
        record = self._users.get(self._uaid)
        return record is not None and record.get("current_month") == self._new

    def _carry(self) -> None:
        self._carry_channels()
        if self._arrived:
            # Not before: whoever has the user may be reading them in the old month.
            self._carry_messages()

    def _carry_channels(self) -> None:
        """Do in the new month what was done in the old one since the last look (quirk Q20)."""
        known = self.known
        if known is None:
            return
        try:
            row = self._messages.channel_row(self._old, self._uaid)
        except TableMissing as error:
            self._expect(error)
            return
        chids = frozenset(channel_set(row)) if row else frozenset[str]()
        if chids - known:
            self._messages.add_channels(self._new, self._uaid, set(chids - known))
            self.carried = self.carried or self.noted
        for chid in known - chids if row and self.ends else ():
            ChannelEnd(self._messages, self._new, self._uaid, chid)()
        self.known = chids

    def _expect(self, error: TableMissing) -> None:
        """The old month may be gone, the new one not."""
        if error.table != self._old:
            raise error

    def _carry_messages(self) -> None:
        """Move what the user has not read yet (quirks Q19, S17).

        Each message is written before it is deleted, so none is lost wherever this ends.
        """
        try:
            row = self._messages.channel_row(self._old, self._uaid)
            pointer = number_of(row, "current_timestamp") if row else None
            while messages := reading.topics(self._messages, self._old, self._uaid).messages:
                self._move(messages)
            while messages := reading.since(
                self._messages, self._old, self._uaid, pointer
            ).messages:
                self._move(messages)
        except TableMissing as error:
            self._expect(error)

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


class FinishMove(MonthMove):
    """The rest of a move in whose midst a node has died. Nobody has used the new month yet, so
    whatever channel is in the old one comes along."""

    noted = True
    ends = False


class LateCarry(MonthMove):
    """A later look at the month a user has left; goes on where it was interrupted.

    :param known: the channels that came along with the move: one that is missing from the new month
        was ended there. None: no channel is carried over.
    """

    noted = True
    ends = False

    def __init__(
        self, users: Users, messages: Messages, way: Way, known: frozenset[str] | None = None
    ) -> None:
        super().__init__(users, messages, way)
        self.known = known

    def __call__(self) -> frozenset[str] | None:
        self._carry()
        return self.known
