"""How much may wait for one user in the embedded store (decisions/quotas).

Whoever knows an endpoint can send 4 KB at a time to be kept for 30 days. The disk is shared by all
users, and what a user may have of it by all who send to it. So messages and bytes are limited, for
each user and, to a part of that, for each of its channels.

Counting costs as much as storing does, so it is done now and then: a count grants a number of
messages and bytes, which are taken without another look. An eighth of what is free is granted, or a
hundredth of the limit if that is more. That is how exact the limits are: each other process that
stores messages of the user may have granted as much at the same time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple
from uuid import UUID

from autopush.exceptions import UserFull
from autopush.message.notification import WebPushNotification

ROW_OVERHEAD = 600
"""Bytes of a stored message besides body and headers, its index entries included."""

MAX_TRACKED = 10_000
"""Users and channels remembered between two counts, about 300 bytes each."""

GRANTED = 8
"""A count grants this part (an eighth) of what is free: up to eight processes together can't exceed
a limit by more than their hundredths."""

EXACTNESS = 100
"""The least a count grants, as a part (a hundredth) of the limit; so much also a user has that was
not counted yet."""

PAUSE_PER_ROW = 0.0001
"""Seconds for each message a count has seen, during which a user found full is not counted again: a
hundred times what counting takes: a second for 10,000 messages."""

SAMPLE = 50
"""Messages whose bytes a count looks at: those of a user who has more are estimated from so many,
picked at random, which is right to a tenth or so. Unlike keys they are spread all over the file."""

UNLIMITED = 1 << 62


class Usage(NamedTuple):
    """What waits for a user, and what of that is for one channel."""

    rows: int
    size: int
    channel_rows: int
    channel_size: int


def usage(rows: int, channel_rows: int, sample: Iterable[tuple[int, int]]) -> Usage:
    """What waits for a user, its bytes estimated from some of its messages.

    :param sample: whether it is one of the channel, and bytes, of each message looked at
    """
    looked, sizes = [0, 0], [0, 0]
    for own, size in sample:
        looked[own] += 1
        sizes[own] += size

    def estimate(own: int, count: int) -> int:
        if not looked[own]:
            own = 1 - own  # none of these was among those looked at
        return -(-count * sizes[own] // looked[own]) if looked[own] else 0

    channel_size = estimate(1, channel_rows)
    return Usage(rows, channel_size + estimate(0, rows - channel_rows), channel_rows, channel_size)


class Left:
    """What may be stored before the next count, of a user or of a channel.

    :ivar again: seconds since the epoch before which it is not counted again
    """

    __slots__ = ("again", "channels", "rows", "size")

    def __init__(self, rows: int, size: int) -> None:
        self.rows = rows
        self.size = size
        self.again = 0.0
        self.channels: dict[str, Left] | None = None

    def has(self, rows: int, size: int) -> bool:
        """Whether there is room for so much more."""
        return (self.rows >= rows or not rows) and (self.size >= size or size <= 0)


class Limit(NamedTuple):
    """Messages and bytes that may wait, 0: any number.

    :ivar whom: whose limit it is, for the sender
    """

    whom: str
    rows: int
    size: int

    def first(self) -> Left:
        """What is granted before the first count."""
        return Left(_hundredth(self.rows), _hundredth(self.size))

    def grant(self, left: Left, rows: int, size: int, wanted: int, again: float) -> None:
        """Grant what may be stored beside the rows and bytes that are there.

        :param wanted: bytes of the message this is about
        """
        free_rows, free_size = _free(self.rows, rows), _free(self.size, size)
        least_rows, least_size = _hundredth(self.rows), _hundredth(self.size)
        left.rows = max(free_rows // GRANTED, min(free_rows, least_rows))
        left.size = max(free_size // GRANTED, min(free_size, max(least_size, wanted)))
        left.again = again if free_rows < least_rows or free_size < least_size else 0.0

    def refusal(self, left: Left, rows: int) -> UserFull:
        """Why there is no room for this many messages."""
        if left.rows < rows:
            return UserFull(f"{self.rows} messages are waiting for this {self.whom} already")
        return UserFull(f"{self.size} bytes are waiting for this {self.whom} already")


def _hundredth(limit: int) -> int:
    return max(1, limit // EXACTNESS) if limit else UNLIMITED


def _free(limit: int, used: int) -> int:
    return max(0, limit - used) if limit else UNLIMITED


def size_of(notification: WebPushNotification) -> int:
    """Bytes a message takes."""
    size = ROW_OVERHEAD + len(notification.data or "")
    headers = notification.headers
    if headers is not None:
        # As JSON.
        size += 1 + 6 * len(headers) if headers else 2
        for name, value in headers.items():
            size += len(name) + len(value)
    return size


class StoredQuota:
    """Tells for which users and channels no more may be stored.

    :param count: returns what waits for a user (key in the file) and a channel of it
    :param stored_size: returns the bytes of the row with a user's sort key, None if there is none
    :param now: seconds since the epoch
    :param rows: messages for each user; 0: any number
    :param size: bytes for each user; 0: any number
    :param share: percent of that for each of its channels
    """

    def __init__(
        self,
        count: Callable[[str, str], Usage],
        stored_size: Callable[[str, str], int | None],
        now: Callable[[], float],
        rows: int,
        size: int,
        share: int,
    ) -> None:
        self._count = count
        self._stored_size = stored_size
        self._now = now
        self._user = Limit("user agent", rows, size)
        self._channel = Limit("subscription", -(-rows * share // 100), -(-size * share // 100))
        self._left: OrderedDict[str, Left] = OrderedDict()
        self._tracked = 0
        self._asked: tuple[WebPushNotification, Left, Left, int] | None = None
        """The last message asked about: it is the next to be stored."""

    def refusal(self, key: str, notification: WebPushNotification) -> UserFull | None:
        """Why a message may not be stored, if so; counts what is there if need be.

        One that replaces another of its topic needs no more than the room of that.

        :raises StoreError: what is there can't be counted
        """
        user, channel = self._find(key, notification.channel_id.hex)
        rows, size = 1, size_of(notification)
        self._asked = notification, user, channel, size
        if user.has(rows, size) and channel.has(rows, size):
            return None
        if notification.topic:
            replaced = self._stored_size(key, notification.sort_key)
            if replaced is not None:
                rows, size = 0, size - replaced
        levels = (self._user, user), (self._channel, channel)
        now = self._now()
        for limit, left in levels:
            if now < left.again and not left.has(rows, size):
                return limit.refusal(left, rows)
        self._look(key, notification.channel_id, size, now)
        for limit, left in levels:
            if not left.has(rows, size):
                return limit.refusal(left, rows)
        return None

    def stored(self, key: str, notification: WebPushNotification) -> None:
        """Note that a message is being stored, whoever has accepted it."""
        asked, user, channel, size = self._asked or (None, None, None, 0)
        if asked is not notification or user is None or channel is None:
            user, channel = self._find(key, notification.channel_id.hex)
            size = size_of(notification)
        self._asked = None
        user.rows -= 1
        user.size -= size
        channel.rows -= 1
        channel.size -= size

    def _look(self, key: str, chid: UUID, wanted: int, now: float) -> None:
        user, channel = self._find(key, chid.hex)
        usage = self._count(key, str(chid))
        again = now + usage.rows * PAUSE_PER_ROW
        self._user.grant(user, usage.rows, usage.size, wanted, again)
        self._channel.grant(channel, usage.channel_rows, usage.channel_size, wanted, again)

    def _find(self, key: str, chid: str) -> tuple[Left, Left]:
        """What is left of a user and of a channel of it."""
        user = self._left.get(key)
        if user is None:
            user = self._left[key] = self._user.first()
            user.channels = {}
            self._tracked += 1
        channels = user.channels
        assert channels is not None
        channel = channels.get(chid)
        if channel is None:
            channel = channels[chid] = self._channel.first()
            self._tracked += 1
            self._left.move_to_end(key)
            while self._tracked > MAX_TRACKED and len(self._left) > 1:
                _, oldest = self._left.popitem(last=False)
                self._tracked -= 1 + len(oldest.channels or ())
        return user, channel
