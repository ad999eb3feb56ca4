"""What stores with one table of messages have in common: one thread that writes, one way to read.

(spec/storage 17)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar
from uuid import UUID

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from autopush.db.deadlines import TooLate, Unknown
from autopush.db.groupwriter import GroupWriter
from autopush.db.interface import Registration, Store
from autopush.db.rows import MessageRow, key_timestamp, read_message
from autopush.message.notification import WebPushNotification

Name = TypeVar("Name")


class OneTableStore(Store):
    """A store whose writes are committed in groups (:mod:`autopush.db.groupwriter`).

    Subclasses make the attributes.
    """

    deletes_read = True
    log: Logger
    _key: Callable[[str], str]
    """Returns the key of a user in the tables."""
    _writer: GroupWriter

    def writes_waiting(self) -> int:
        """Writes that were taken and are not done."""
        return self._writer.waiting

    def take_back(self, month: str, notification: WebPushNotification) -> bool:
        """Don't write the message if that has not begun."""
        update_id = notification.update_id
        return update_id is not None and self._writer.take_back(
            self._key(notification.uaid.hex), update_id
        )

    def delete_message(self, month: str, notification: WebPushNotification) -> Deferred[bool]:
        """Delete the row, or spare the write if it is not written yet."""
        return self._writer.delete(
            self._key(notification.uaid.hex),
            notification.sort_key,
            notification.update_id or None,
        )

    def delete_messages(
        self, month: str, notifications: Sequence[WebPushNotification]
    ) -> Deferred[None]:
        """Delete the rows, or spare the writes."""
        return self._writer.delete_all(
            [
                (self._key(one.uaid.hex), one.sort_key, one.update_id or None)
                for one in notifications
            ]
        )

    def _note(self, failure: Failure, what: str) -> None:
        # The writer reports what is wrong with the store; this is about what wasn't done.
        self.log.warn("{what}: {error}", what=what, error=str(failure.value))


class Page(Generic[Name]):
    """The messages of some rows, in the order of their sort keys.

    :ivar last: the last timestamp in a sort key
    :ivar above: the last sort key, also of what can't be read
    :ivar unreadable: names of rows that don't count and are to be deleted (spec/websocket Q15)
    """

    __slots__ = ("_user", "above", "last", "messages", "unreadable")

    def __init__(self, user: UUID, above: str) -> None:
        self._user = user
        self.above = above
        self.messages: list[WebPushNotification] = []
        self.last: int | None = None
        self.unreadable: list[Name] = []

    def add(self, name: Name, row: MessageRow) -> None:
        """Read the next row."""
        try:
            self.messages.append(read_message(self._user, row))
        except ValueError:
            self.unreadable.append(name)
        timestamp = key_timestamp(row.sort_key)
        if timestamp is not None:
            self.last = timestamp
        self.above = row.sort_key


def name_previous(registration: Registration, uaid: str) -> Registration:
    """Put the UAID into the record there was before, whose key may be a hash of it."""
    if registration.previous:
        registration.previous["uaid"] = uaid
    return registration


def unless_late(failure: Failure) -> Failure | Deferred[Any]:
    """For :meth:`Store.alive`: a thread that has done nothing in time is no sign of life."""
    return Deferred() if failure.check(TooLate, Unknown) else failure
