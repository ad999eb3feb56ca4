"""The store in one SQLite file, shared by the processes of one machine (spec/storage 17).

* **Reads** are point reads and short ranges by primary key, on a connection of the reactor
  thread: a few µs each, less than handing them to a thread would cost.
* **Writes** go to one thread per process that commits them in groups
  (:mod:`autopush.db.groupwriter`).
* **Months**: there is one table of messages that never ends, so any month a record names means
  this table (spec/websocket Q13), and expiry alone removes rows.
* **Acknowledged** messages are deleted, one row each, all of a moment in one transaction. The read
  pointer of files from before that still counts.
* **Order**: a timestamped message that comes in after a later one was stored or read gets the
  next free timestamp, so that no read pointer passes it unseen (17.6).
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed

from autopush.constants import MAX_EXPIRY
from autopush.db.groupwriter import COMMIT_DELAY
from autopush.db.interface import (
    Batch,
    Channels,
    Connection,
    Forgotten,
    Registration,
    Stock,
    Subscription,
    Survey,
    User,
)
from autopush.db.lastconnect import generate_last_connect
from autopush.db.onetable import Page, name_previous
from autopush.db.rows import (
    FIRST,
    LAST,
    TIMESTAMPED,
    TOPICS_AND_LOW_LEGACY_END,
    TOPICS_END,
    MessageRow,
    channel_ids,
    load_json,
    without_topic,
)
from autopush.db.sqlite import (
    messages as sqlite_messages,
    records as sqlite_records,
)
from autopush.db.sqlite.file import SqliteFile
from autopush.db.sqlite.quota import SAMPLE, StoredQuota, Usage, usage
from autopush.db.sqlite.stock import take_stock
from autopush.db.writes import Put
from autopush.exceptions import AutopushException, StoreError, UserFull
from autopush.message.notification import WebPushNotification

T = TypeVar("T")

SWEEP_INTERVAL = 60
"""Seconds between two looks for expired rows."""

SWEEP_PAUSE = 0.1
"""Seconds between two slices of a long sweep, for other writers."""

SWEEP_SLICE = 250
"""Expired rows removed in one transaction, about 5 ms of work."""

SURVEY_SLICE = 250
"""Records counted, and forgotten perhaps, in one transaction: 2 ms of work, 5 if all go."""

STOCK_SLICE = 250
"""Channels or messages counted in one transaction: 2 ms of work, for messages of 4 KB."""

TOUCH_GRANULARITY = 86_400
"""Seconds by which a channel row's expiry may lag behind: saves a write at most hellos."""


class SqliteStore(SqliteFile):
    """See the module; the other parameters are those of :class:`SqliteFile`.

    :param max_stored: messages that may wait for a user; 0: any number
    :param max_stored_bytes: bytes they may have; 0: any number
    :param share: percent of both for each channel
    """

    def __init__(
        self,
        path: str,
        reactor: Any,
        month: str = "message",
        router_table: str = "router",
        key_hash: str = "",
        now: Callable[[], float] | None = None,
        commit_delay: float = COMMIT_DELAY,
        max_stored: int = 0,
        max_stored_bytes: int = 0,
        share: int = 100,
        shared: bool = False,
    ) -> None:
        super().__init__(path, reactor, month, router_table, key_hash, now, commit_delay, shared)
        self._sweep_timer: Any = None  # IDelayedCall
        self._quota = StoredQuota(
            self._count_messages, self._stored_size, self._now, max_stored, max_stored_bytes, share
        )

    def setup(self) -> Deferred[None]:
        """Open the file and begin to sweep, see :meth:`SqliteFile.setup`."""
        return super().setup().addCallback(self._begin_to_sweep)

    def _begin_to_sweep(self, _: None) -> None:
        self._sweep_timer = self._reactor.callLater(SWEEP_INTERVAL, self._sweep_in_background)

    def close(self) -> Deferred[None]:
        """Finish the writes already accepted, then let go of all resources."""
        if self._sweep_timer is not None and self._sweep_timer.active():
            self._sweep_timer.cancel()
        self._sweep_timer = None
        return super().close()

    # ---- users

    def get_user(self, uaid: str) -> Deferred[User | None]:
        """The record; a record holding only its key is removed and counts as none."""
        key = self._key(uaid)
        cache = self._cache
        text = cache.records.get(key) if cache.is_current() else None
        try:
            if text is None:
                row = self._row(sqlite_records.GET_USER, (key,))
                if row is None:
                    return succeed(None)
                text = row[0]
                cache.remember(key, text)
            return succeed(self._user(uaid, key, text))
        except StoreError as error:
            return fail(error)

    def _user(self, uaid: str, key: str, text: str) -> User | None:
        try:
            record: User = load_json(text)
        except ValueError:
            raise StoreError("unreadable router record") from None
        if not record:
            self._writer.call(lambda c: sqlite_records.drop_bare(c, key)).addErrback(
                self._note, "Bare router record not removed"
            )
            return None
        record["uaid"] = uaid
        return record

    def get_subscription(self, uaid: str, chid: str) -> Deferred[Subscription]:
        """Record and channel membership in one consistent read."""
        key = self._key(uaid)
        cache = self._cache
        expiry = cache.channels.get((key, chid)) if cache.is_current() else None
        text = cache.records.get(key) if expiry is not None else None
        try:
            if text is None:
                row = self._row(sqlite_records.GET_SUBSCRIPTION, (key, chid))
                if row is None:
                    return succeed(Subscription(None, False))
                text = row[0]
                if row[1] is None:
                    row = self._row(sqlite_records.GET_OTHER_SPELLING, (key, chid))
                expiry = row[-1] if row else 0
                cache.remember(key, text, chid, expiry)
            user = self._user(uaid, key, text)
        except StoreError as error:
            return fail(error)
        return succeed(Subscription(user, user is not None and (expiry or 0) > self._now()))

    def register_user(self, user: User) -> Deferred[Registration]:
        """Merge these attributes into the record under the condition of spec/storage 9."""
        uaid = user["uaid"]
        new = {name: value for name, value in user.items() if name != "uaid"}
        if not new.get("router_type") or new.get("connected_at") is None:
            return fail(AutopushException("data is missing router_type or connected_at"))
        key = self._key(uaid)

        written: Deferred[Registration] = self._writer.call(
            lambda c: sqlite_records.register(c, key, new)
        )
        return written.addCallback(name_previous, uaid)

    def drop_user(self, uaid: str) -> Deferred[bool]:
        """Delete the record; whether it existed."""
        key = self._key(uaid)
        return self._writer.call(lambda c: sqlite_records.drop(c, key))

    def clear_node(self, uaid: str, node_id: str, connected_at: int) -> Deferred[bool]:
        """Remove ``node_id`` if it and ``connected_at`` are still these; whether it was done."""
        key = self._key(uaid)
        return self._writer.call(lambda c: sqlite_records.clear_node(c, key, node_id, connected_at))

    def set_urgency(self, uaid: str, urgency: str, connection: Connection) -> Deferred[bool]:
        """Note the least urgency that the user wants to be sent at once."""
        key, values = self._key(uaid), {"urgency": urgency}
        return self._writer.call(lambda c: sqlite_records.update(c, key, values, connection))

    def survey(self, after: str, forgotten: Forgotten | None) -> Deferred[Survey | None]:
        """Look at the next ``SURVEY_SLICE`` records in one transaction."""
        if forgotten is not None:
            connected = frozenset(map(self._key, forgotten.connected))
            forgotten = forgotten._replace(connected=connected)
        return self._writer.call(lambda c: sqlite_records.survey(c, after, SURVEY_SLICE, forgotten))

    def take_stock(self, after: str) -> Deferred[Stock | None]:
        """Count the next ``STOCK_SLICE`` channels or messages in one transaction."""
        return self._writer.call(lambda c: take_stock(c, after, STOCK_SLICE))

    # ---- channels

    def _times(self, bridge: bool = False) -> tuple[int, int]:
        now = int(self._now())
        return now, sqlite_records.NEVER if bridge else now + MAX_EXPIRY

    def add_channel(self, month: str | None, uaid: str, chid: str) -> Deferred[None]:
        """Add to the channel set, refreshing the row's expiry.

        Fails with a ``ChannelLimit`` for a user with
        :data:`~autopush.db.sqlite.records.MAX_CHANNELS` channels.
        """
        key, times = self._key(uaid), self._times(bridge=month is None)
        return self._writer.call(lambda c: sqlite_records.add_channel(c, key, chid, *times))

    def add_first_channel(self, user: User, chid: str) -> Deferred[str]:
        """Write the record of a new user and its first channel in one transaction."""
        new = {name: value for name, value in user.items() if name != "uaid"}
        key, times = self._key(user["uaid"]), self._times()

        def run(connection: sqlite3.Connection) -> StoreError | None:
            sqlite_records.register(connection, key, new)
            return sqlite_records.add_channel(connection, key, chid, *times)

        month: str = user["current_month"]
        return self._writer.call(run).addCallback(lambda _: month)

    def remove_channel(self, month: str | None, uaid: str, chid: str) -> Deferred[bool]:
        """Remove from the channel set, refreshing the row's expiry; whether it was a member.

        What is stored for it goes in the same transaction.
        """
        key, times = self._key(uaid), self._times(bridge=month is None)
        return self._writer.call(lambda c: sqlite_records.remove_channel(c, key, chid, *times))

    def list_channels(self, month: str | None, uaid: str) -> Deferred[Channels]:
        """The channel row."""
        values = (self._key(uaid), int(self._now()))
        try:
            rows = self._reader.execute(  # type: ignore[union-attr]
                sqlite_records.LIST_CHANNELS, values
            ).fetchall()
        except Exception as error:
            return fail(self._read_error(error))
        chids = channel_ids(row[0] for row in rows if row[0] is not None)
        return succeed(Channels(bool(rows), chids))

    def ended_channels(self, month: str, uaid: str, chids: set[str]) -> Deferred[set[str]]:
        """Those of these channels that are not registered: a look-up for each, as there are few."""
        key, now = self._key(uaid), int(self._now())
        try:
            ended = {c for c in chids if self._row(sqlite_records.IS_ENDED, (key, now, c))}
        except StoreError as error:
            return fail(error)
        return succeed(ended)

    def touch_channels(self, month: str, uaid: str) -> Deferred[None]:
        """Refresh the channel row's expiry if it exists.

        Nothing is written if that was done less than a day ago.
        """
        key = self._key(uaid)
        now, expiry = self._times()
        try:
            row = self._row(sqlite_records.GET_CHANNELS_EXPIRY, (key,))
        except StoreError as error:
            return fail(error)
        if row is None or row[0] <= now or row[0] > expiry - TOUCH_GRANULARITY:
            return succeed(None)
        return self._writer.call(lambda c: sqlite_records.touch_channels(c, key, now, expiry))

    # ---- messages

    def store_message(self, month: str, notification: WebPushNotification) -> Deferred[None]:
        """Insert, or replace the row with the same sort key."""
        key = self._key(notification.uaid.hex)
        self._quota.stored(key, notification)
        return self._writer.put(key, notification, int(self._now()))

    def restore_message(self, month: str, notification: WebPushNotification) -> Deferred[None]:
        """Store what was accepted earlier; what has replaced it since stays (interface)."""
        if not notification.topic:
            return self.store_message(month, notification)
        key, now = self._key(notification.uaid.hex), int(self._now())
        self._quota.stored(key, notification)
        op, beside = (Put(key, n, now) for n in (notification, without_topic(notification)))
        return self._writer.call(lambda c: sqlite_messages.restore(c, op, beside))

    def refusal(self, notification: WebPushNotification) -> UserFull | None:
        """Why a message may not wait for its user, if so."""
        return self._quota.refusal(self._key(notification.uaid.hex), notification)

    def _count_messages(self, key: str, chid: str) -> Usage:
        pointer = self._row(sqlite_records.GET_POINTER, (key, int(self._now())))
        values = (key, chid, sqlite_messages.last_read(pointer[0] if pointer else None))
        rows, its = self._row(sqlite_messages.USAGE, values)
        sql = sqlite_messages.SIZES if rows <= SAMPLE else sqlite_messages.SAMPLED_SIZES
        try:
            sizes = self._reader.execute(sql, (*values, SAMPLE))  # type: ignore[union-attr]
            return usage(rows, its, sizes)
        except Exception as error:
            raise self._read_error(error) from error

    def _stored_size(self, key: str, sort_key: str) -> int | None:
        row = self._row(sqlite_messages.STORED_SIZE, (key, sort_key))
        return None if row is None else row[0]

    def fetch_topics(
        self, month: str, uaid: str, limit: int = 10, after: str = ""
    ) -> Deferred[Batch]:
        """Topic and low-sorting legacy rows, at most ``limit`` - 1; and the pointer."""
        key = self._key(uaid)
        try:
            pointer = self._row(sqlite_records.GET_POINTER, (key, int(self._now())))
            page = self._read(uaid, key, after or FIRST, TOPICS_END, limit - 1)
        except StoreError as error:
            return fail(error)
        return succeed(Batch(pointer[0] if pointer else None, page.messages))

    def fetch_since(
        self, month: str, uaid: str, timestamp: int | None, limit: int = 10
    ) -> Deferred[Batch]:
        """At most ``limit`` rows with sort keys above the timestamp's."""
        above = f"{TIMESTAMPED}{timestamp}:z" if timestamp else TOPICS_AND_LOW_LEGACY_END
        try:
            page = self._read(uaid, self._key(uaid), above, LAST, limit)
        except StoreError as error:
            return fail(error)
        return succeed(Batch(page.last, page.messages))

    def _read(self, uaid: str, key: str, above: str, below: str, limit: int) -> Page[int]:
        """Read messages of a range; rows that can't be read are deleted."""
        page = Page[int](uuid.UUID(uaid), above)
        while (wanted := limit - len(page.messages)) > 0:
            rows = self._rows(key, page.above, below, wanted)
            for row_id, *columns in rows:
                page.add(row_id, MessageRow(*columns))
            if len(rows) < wanted:
                break
        if page.unreadable:
            self._delete_poison(page.unreadable)
        return page

    def _delete_poison(self, ids: list[int]) -> None:
        self.log.error("Deleting {count} unreadable stored messages", count=len(ids))
        self._writer.call(lambda c: sqlite_messages.delete_ids(c, ids)).addErrback(
            self._note, "Unreadable messages not deleted"
        )

    def set_pointer(self, month: str, uaid: str, timestamp: int) -> Deferred[None]:
        """Remember that everything up to ``timestamp`` was read. Never moves backwards."""
        key, times = self._key(uaid), self._times()
        return self._writer.call(lambda c: sqlite_records.set_pointer(c, key, timestamp, *times))

    def move_month(
        self, uaid: str, old: str, new: str, connection: Connection | None = None
    ) -> Deferred[frozenset[str] | None]:
        """Note the month in the record; there is only one table, so nothing moves."""
        key = self._key(uaid)
        values = {"current_month": new, "last_connect": generate_last_connect(self._now())}
        noted: Deferred[bool] = self._writer.call(
            lambda c: sqlite_records.update(c, key, values, connection)
        )
        return noted.addCallback(lambda done: frozenset[str]() if done else None)

    # ---- expiry

    def sweep(self) -> Deferred[bool]:
        """Remove some expired rows; whether there may be more."""
        now = int(self._now())

        def run(connection: sqlite3.Connection) -> bool:
            messages = sqlite_messages.sweep(connection, now, SWEEP_SLICE)
            channels = sqlite_records.sweep_channels(connection, now, SWEEP_SLICE)
            return SWEEP_SLICE in (messages, channels)

        return self._writer.call(run)

    def _sweep_in_background(self) -> None:
        def again(more: bool | None) -> None:
            if self._reader is not None:
                pause = SWEEP_PAUSE if more else SWEEP_INTERVAL
                self._sweep_timer = self._reactor.callLater(pause, self._sweep_in_background)

        swept = maybeDeferred(self.sweep)
        swept.addErrback(self._note, "Expired rows not removed").addCallback(again)
