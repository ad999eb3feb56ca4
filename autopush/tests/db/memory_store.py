"""A store in a dictionary, with real months: for tests of what sits on top of a store.

Results are there at once, unless a test asks otherwise with :meth:`MemoryStore.fail` or
:meth:`MemoryStore.hold`.
"""

from __future__ import annotations

import functools
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Concatenate, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from autopush.constants import MAX_EXPIRY
from autopush.db.interface import (
    MOVING_FROM,
    Batch,
    Channels,
    Connection,
    Months,
    Registration,
    Store,
    Subscription,
    User,
)
from autopush.db.lastconnect import generate_last_connect
from autopush.db.rows import (
    AFTER_TIMESTAMPED,
    TIMESTAMPED,
    TOPICS_AND_LOW_LEGACY_END,
    TOPICS_END,
    MessageRow,
    key_timestamp,
    read_message,
    without_topic,
    write_message,
)
from autopush.db.sqlite.records import is_about
from autopush.exceptions import AutopushException
from autopush.message.notification import WebPushNotification

P = ParamSpec("P")
T = TypeVar("T")


class MemoryMonths(Months):
    """Months a test sets: ``months.current = ...``, ``months.accepted.add(...)``."""

    def __init__(self, current: str = "message_2026_11") -> None:
        self._current = current
        self.accepted = {current}

    @property
    def current(self) -> str:
        return self._current

    @current.setter
    def current(self, month: str) -> None:
        self._current = month
        self.accepted.add(month)

    def accepts(self, month: object) -> bool:
        return month in self.accepted


@dataclass
class ChannelRow:
    """The channel row of one user in one month."""

    chids: set[str] = field(default_factory=set)
    pointer: int | None = None
    expiry: int = 0


def operation(
    function: Callable[Concatenate[MemoryStore, P], T],
) -> Callable[Concatenate[MemoryStore, P], Deferred[T]]:
    """Turn a plain method into a store operation that can be recorded, failed and held."""

    @functools.wraps(function)
    def call(self: MemoryStore, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        name = function.__name__
        self.calls.append((name, args))
        result: Any
        try:
            if self._failures.get(name):
                raise self._failures[name].pop(0)
            result = function(self, *args, **kwargs)
        except Exception:
            result = Failure()
        answer: Deferred[T] = Deferred()
        if name in self._held:
            self._held[name].append((answer, result))
        else:
            answer.callback(result)
        return answer

    return call


class MemoryStore(Store):
    """See the module.

    :param now: seconds since the epoch
    :ivar calls: names and arguments of the operations so far
    :ivar users: records by UAID, without ``uaid``
    :ivar channels: channel rows by month and UAID
    :ivar messages: rows by month and UAID, then by sort key
    """

    months: MemoryMonths

    def __init__(
        self, months: MemoryMonths | None = None, now: Callable[[], float] = time.time
    ) -> None:
        self.months = months or MemoryMonths()
        self.now = now
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.users: dict[str, User] = {}
        self.channels: dict[tuple[str | None, str], ChannelRow] = {}
        self.messages: dict[tuple[str, str], dict[str, MessageRow]] = {}
        self._failures: dict[str, list[Exception]] = {}
        self._held: dict[str, list[tuple[Deferred[Any], Any]]] = {}

    # ---- what tests ask for

    def fail(self, name: str, *errors: Exception) -> None:
        """Let the next calls of this operation fail with these errors, without doing anything."""
        self._failures.setdefault(name, []).extend(errors)

    def hold(self, name: str) -> None:
        """Keep back the results of this operation (its work is done at once)."""
        self._held.setdefault(name, [])

    def release(self, name: str) -> None:
        """Deliver the results kept back and stop keeping them."""
        for answer, result in self._held.pop(name):
            answer.callback(result)

    def called(self, name: str) -> int:
        """How often this operation was called."""
        return sum(1 for call, _args in self.calls if call == name)

    # ---- life cycle

    @operation
    def setup(self) -> None:
        pass

    @operation
    def close(self) -> None:
        pass

    @operation
    def health(self) -> dict[str, str | None]:
        return {"router": None, "storage": None}

    # ---- users

    @operation
    def get_user(self, uaid: str) -> User | None:
        return self._user(uaid)

    def _user(self, uaid: str) -> User | None:
        record = self.users.get(uaid)
        if not record:
            self.users.pop(uaid, None)
            return None
        return {**record, "uaid": uaid}

    @operation
    def get_subscription(self, uaid: str, chid: str) -> Subscription:
        user = self._user(uaid)
        if user is None:
            return Subscription(None, False)
        row = self._channels(user.get("current_month") or self.months.current, uaid)
        return Subscription(user, row is not None and chid in row.chids)

    @operation
    def register_user(self, user: User) -> Registration:
        new = {key: value for key, value in user.items() if key != "uaid"}
        if not new.get("router_type") or new.get("connected_at") is None:
            raise AutopushException("data is missing router_type or connected_at")
        old = self._user(user["uaid"]) or {}
        other_type = old.get("router_type") not in (None, new["router_type"])
        connected_at = old.get("connected_at")
        newer_connection = (
            old.get("node_id") is not None
            and connected_at is not None
            and connected_at >= new["connected_at"]
        )
        if other_type or newer_connection:
            return Registration(False, {})
        self.users[user["uaid"]] = {k: v for k, v in {**old, **new}.items() if k != "uaid"}
        return Registration(True, old)

    @operation
    def drop_user(self, uaid: str) -> bool:
        self.channels.pop((None, uaid), None)
        return self.users.pop(uaid, None) is not None

    @operation
    def clear_node(self, uaid: str, node_id: str, connected_at: int) -> bool:
        record = self.users.get(uaid, {})
        if (record.get("node_id"), record.get("connected_at")) != (node_id, connected_at):
            return False
        del record["node_id"]
        return True

    @operation
    def set_urgency(self, uaid: str, urgency: str, connection: Connection) -> bool:
        record = self.users.get(uaid)
        if not record or not is_about(record, connection):
            return False
        record["urgency"] = urgency
        return True

    # ---- channels

    def _channels(self, month: str | None, uaid: str) -> ChannelRow | None:
        row = self.channels.get((month, uaid))
        return row if row is not None and row.expiry > self.now() else None

    def _fresh_channels(self, month: str | None, uaid: str) -> ChannelRow:
        row = self._channels(month, uaid) or ChannelRow()
        row.expiry = int(self.now()) + (MAX_EXPIRY if month is not None else 1 << 40)
        self.channels[month, uaid] = row
        return row

    @operation
    def add_channel(self, month: str | None, uaid: str, chid: str) -> None:
        self._fresh_channels(month, uaid).chids.add(chid)

    @operation
    def remove_channel(self, month: str | None, uaid: str, chid: str) -> bool:
        row = self._fresh_channels(month, uaid)
        was_member = chid in row.chids
        row.chids.discard(chid)
        if month is not None:
            stored = self.messages.get((month, uaid), {})
            for key in [key for key in stored if chid in key]:
                if (key_timestamp(key) or (row.pointer or 0) + 1) > (row.pointer or 0):
                    del stored[key]
        return was_member

    @operation
    def list_channels(self, month: str | None, uaid: str) -> Channels:
        row = self._channels(month, uaid)
        return Channels(row is not None, set(row.chids) if row else set())

    @operation
    def touch_channels(self, month: str, uaid: str) -> None:
        if self._channels(month, uaid):
            self._fresh_channels(month, uaid)

    # ---- messages

    @operation
    def store_message(self, month: str, notification: WebPushNotification) -> None:
        self._store(month, notification)

    def _store(self, month: str, notification: WebPushNotification) -> None:
        row = write_message(notification, int(self.now()))
        uaid = notification.uaid.hex
        rows = self.messages.setdefault((month, uaid), {})
        timestamp = key_timestamp(row.sort_key)
        if timestamp is not None:
            key = self._free_key(month, uaid, row, timestamp, notification)
            row = row._replace(sort_key=key)
        rows[row.sort_key] = row

    def _free_key(
        self,
        month: str,
        uaid: str,
        row: MessageRow,
        timestamp: int,
        notification: WebPushNotification,
    ) -> str:
        timestamped = {
            key: other.update_id
            for key, other in self.messages[month, uaid].items()
            if TIMESTAMPED <= key < AFTER_TIMESTAMPED
        }
        channels = self._channels(month, uaid)
        passed = max(
            (channels.pointer if channels else None) or 0,
            key_timestamp(max(timestamped, default="")) or 0,
        )
        if timestamp > passed:
            return row.sort_key
        for key, update_id in timestamped.items():
            if update_id == row.update_id:
                return key
        return f"{TIMESTAMPED}{passed + 1}:{notification.channel_id}"

    def restore_message(self, month: str, notification: WebPushNotification) -> Deferred[None]:
        if notification.topic:
            return self.restore_topic(month, notification)
        return self.store_message(month, notification)

    @operation
    def restore_topic(self, month: str, notification: WebPushNotification) -> None:
        other = self.messages.get((month, notification.uaid.hex), {}).get(notification.sort_key)
        if other is not None and other.update_id != notification.update_id:
            if other.timestamp > notification.timestamp:
                return
            if other.timestamp == notification.timestamp:
                notification = without_topic(notification)
        self._store(month, notification)

    @operation
    def delete_message(self, month: str, notification: WebPushNotification) -> bool:
        rows = self.messages.get((month, notification.uaid.hex), {})
        key, update_id = notification.sort_key, notification.update_id
        if update_id and (key not in rows or rows[key].update_id != update_id):
            key = next((k for k, row in rows.items() if row.update_id == update_id), "")
        return rows.pop(key, None) is not None

    def _range(self, month: str, uaid: str, above: str, below: str, limit: int) -> list[MessageRow]:
        rows = self.messages.get((month, uaid), {})
        found = [
            rows[key]
            for key in sorted(rows, key=str.encode)
            if above < key < below and rows[key].expiry > self.now()
        ]
        return found[:limit]

    def _read(
        self, month: str, uaid: str, rows: list[MessageRow]
    ) -> tuple[list[WebPushNotification], bool]:
        messages = []
        clean = True
        for row in rows:
            try:
                messages.append(read_message(uuid.UUID(uaid), row))
            except ValueError:
                clean = False
                del self.messages[month, uaid][row.sort_key]
        return messages, clean

    @operation
    def fetch_topics(self, month: str, uaid: str, limit: int = 10, after: str = "") -> Batch:
        row = self._channels(month, uaid)
        messages: list[WebPushNotification] = []
        clean = False
        while not clean:
            rows = self._range(month, uaid, after, TOPICS_END, limit - 1)
            messages, clean = self._read(month, uaid, rows)
        channels = Channels(row is not None, set(row.chids) if row else set())
        return Batch(row.pointer if row else None, messages, channels)

    @operation
    def fetch_since(self, month: str, uaid: str, timestamp: int | None, limit: int = 10) -> Batch:
        above = f"{TIMESTAMPED}{timestamp}:z" if timestamp else TOPICS_AND_LOW_LEGACY_END
        messages: list[WebPushNotification] = []
        clean = False
        while not clean:
            rows = self._range(month, uaid, above, "\U0010ffff", limit)
            messages, clean = self._read(month, uaid, rows)
        stamps = [key_timestamp(row.sort_key) for row in rows]
        return Batch(
            next((stamp for stamp in reversed(stamps) if stamp is not None), None), messages
        )

    @operation
    def set_pointer(self, month: str, uaid: str, timestamp: int) -> None:
        row = self._fresh_channels(month, uaid)
        row.pointer = max(row.pointer or 0, timestamp)

    @operation
    def move_month(
        self, uaid: str, old: str, new: str, connection: Connection | None = None
    ) -> frozenset[str] | None:
        record = self.users.get(uaid)
        if record is None or not (connection is None or is_about(record, connection)):
            return None
        known = self._channels(old, uaid)
        if old != new:
            source = self._channels(old, uaid)
            if source is not None:
                self._fresh_channels(new, uaid).chids |= source.chids
            self._carry(uaid, old, new)
        self.users[uaid]["current_month"] = new
        self.users[uaid]["last_connect"] = generate_last_connect(self.now())
        return frozenset(known.chids if known else ())

    def _carry(self, uaid: str, old: str, new: str) -> bool:
        source = self._channels(old, uaid)
        pointer = (source.pointer if source else None) or 0
        rows = self.messages.get((old, uaid), {})
        late = [key for key in rows if (key_timestamp(key) or pointer + 1) > pointer]
        target = self.messages.setdefault((new, uaid), {})
        for key in late:
            target[key] = rows.pop(key)
        return bool(late)

    @operation
    def finish_move(self, uaid: str, old: str, new: str) -> bool:
        left = self._channels(old, uaid)
        if left is not None:
            self._fresh_channels(new, uaid).chids |= left.chids
        self.users[uaid].pop(MOVING_FROM, None)
        return self._carry(uaid, old, new)

    @operation
    def carry_late(
        self, uaid: str, old: str, new: str, known: frozenset[str] | None = None
    ) -> bool:
        left = self._channels(old, uaid)
        late = left.chids - known if left is not None and known is not None else set()
        if late:
            self._fresh_channels(new, uaid).chids |= late
        return self._carry(uaid, old, new) or bool(late)
