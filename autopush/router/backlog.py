"""What an endpoint knows of the backlogs of user agents that are away (spec/websocket 9.4).

A user agent that returns to more than ``msg_limit`` messages is reset: it loses them and its
subscriptions. So no more are accepted than that, as far as it can be told without a request to the
store: a process counts what it has stored itself since a user agent was last connected, which is in
the record that is read for each message. It does not know what was left unread by then, nor what
other endpoint nodes store.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from autopush.message.urgency import least_of

if TYPE_CHECKING:
    from autopush.db.interface import User
    from autopush.message.notification import WebPushNotification

MAX_COUNTED = 100_000
"""Messages remembered as part of a backlog, 180 bytes each, so 18 MB at most; the user agents that
were sent to longest ago are forgotten first."""

OF_A_USER = 2
"""Messages that take as much memory as what is remembered of a user agent beside its messages."""


class Absence:
    """What was stored since a user agent was last connected.

    :ivar since: ``connected_at`` of that connection
    :ivar messages: when each expires (s), by sort key
    """

    __slots__ = ("messages", "since")

    def __init__(self, since: Any) -> None:
        self.since = since
        self.messages: dict[str, int] = {}


class Backlogs:
    """Counts what waits for user agents that are away.

    :param limit: ``msg_limit``; 0: nothing is counted
    :param now: seconds since the epoch
    """

    def __init__(self, limit: int, now: Callable[[], float]) -> None:
        self.limit = limit
        self._now = now
        self._absences: OrderedDict[str, Absence] = OrderedDict()
        self._counted = 0

    def take(self, notification: WebPushNotification, user: User) -> bool:
        """Count a message that is about to be stored, unless it is one too many; whether it isn't.

        One that replaces another of its topic never is, nor one for a user agent that may be
        connected: it may have read what was stored before, unless that was less urgent than what it
        wants.
        """
        if not self.limit:
            return True
        if (notification.live or user.get("node_id")) and notification.urgency >= least_of(user):
            return True
        absence = self._absence(user)
        messages = absence.messages
        if len(messages) >= self.limit and notification.sort_key not in messages:
            self._drop_expired(absence)
            if len(messages) >= self.limit:
                return False
        before = len(messages)
        messages[notification.sort_key] = notification.timestamp + (notification.ttl or 0)
        self._counted += len(messages) - before
        while self._counted > MAX_COUNTED:
            _, oldest = self._absences.popitem(last=False)
            self._counted -= OF_A_USER + len(oldest.messages)
        return True

    def forget(self, notification: WebPushNotification) -> None:
        """Note that a message was not stored, or was taken back by its sender."""
        uaid = notification.uaid.hex
        absence = self._absences.get(uaid)
        if absence is None or absence.messages.pop(notification.sort_key, None) is None:
            return
        self._counted -= 1
        if not absence.messages:
            del self._absences[uaid]
            self._counted -= OF_A_USER

    def _absence(self, user: User) -> Absence:
        uaid, since = user["uaid"], user.get("connected_at")
        absence = self._absences.get(uaid)
        if absence is None or absence.since != since:
            self._counted += OF_A_USER if absence is None else -len(absence.messages)
            absence = self._absences[uaid] = Absence(since)
        self._absences.move_to_end(uaid)
        return absence

    def _drop_expired(self, absence: Absence) -> None:
        now = self._now()
        gone = [key for key, expiry in absence.messages.items() if expiry <= now]
        for key in gone:
            del absence.messages[key]
        self._counted -= len(gone)
