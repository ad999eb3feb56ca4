"""The store in PostgreSQL, shared by a cluster (spec/storage 17).

* **Writes** go to one thread per process that commits them in groups
  (:mod:`autopush.db.postgresql.writer`).
* **Reads** are gathered, too, and go to two threads (:mod:`autopush.db.postgresql.reader`). So a
  process has three connections, however many users it has.
* **Months**: there is one table of messages that never ends, so any month a record names means
  this table (spec/websocket Q13), and expiry alone removes rows.
* **Acknowledged** messages are deleted, one row each, all of a moment in one statement.
* **Order**: a timestamped message that comes in after a later one was stored or read gets the
  next free timestamp, so that no reader passes it unseen (17.6).
* **Expired** rows are removed by one process at a time (:mod:`autopush.db.postgresql.sweep`).
* **Outages** of some seconds, as of a restart or a failover, are waited out; what is asked for
  during a longer one fails at once, and works as soon as the server does
  (:mod:`autopush.db.postgresql.link`).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from autopush import clock
from autopush.addresses import without_password
from autopush.constants import MAX_EXPIRY, RECORD_VERSION
from autopush.db.groupwriter import COMMIT_DELAY
from autopush.db.interface import (
    Arrival,
    Batch,
    Channels,
    Connection,
    Forgotten,
    Registration,
    Stock,
    StoreUnusable,
    Subscription,
    Survey,
    User,
)
from autopush.db.lastconnect import generate_last_connect, last_connects_of_month
from autopush.db.months import OneMonth
from autopush.db.onetable import OneTableStore, Page, name_previous, unless_late
from autopush.db.postgresql import census, messages, records, schema
from autopush.db.postgresql.health import Health
from autopush.db.postgresql.link import parameters
from autopush.db.postgresql.reader import GroupReader
from autopush.db.postgresql.statements import Kind
from autopush.db.postgresql.sweep import Sweeper
from autopush.db.postgresql.writer import Change, PostgresqlWriter, Step
from autopush.db.rows import (
    FIRST,
    LAST,
    TIMESTAMPED,
    TOPICS_AND_LOW_LEGACY_END,
    TOPICS_END,
    MessageRow,
    key_maker,
    without_topic,
)
from autopush.db.writes import Put
from autopush.exceptions import AutopushException, StoreError
from autopush.message.notification import WebPushNotification

TOUCH_GRANULARITY = 86_400
"""Seconds by which a channel row's expiry may lag behind: saves a write at most hellos."""

WATCH_INTERVAL = 1
"""Seconds between two looks for callers who have waited too long."""


class PostgresqlStore(OneTableStore):
    """See the module.

    :param dsn: ``postgresql://user@host:port/database?parameter=value``, as libpq takes it
    :param reactor: for threads and timers
    :param month: ``months.current``
    :param router_table: name of the record table in :meth:`health`
    :param key_hash: UAIDs are stored as their HMAC with this key, unless it is empty
    :param now: seconds since the epoch
    :param commit_delay: seconds a write waits for others to share its transaction
    """

    def __init__(
        self,
        dsn: str,
        reactor: Any,
        month: str = "message",
        router_table: str = "router",
        key_hash: str = "",
        now: Callable[[], float] | None = None,
        commit_delay: float = COMMIT_DELAY,
    ) -> None:
        self.log = Logger()
        self.months = OneMonth(month)
        self._described = without_password(dsn)
        self._parameters = parameters(dsn)
        self._reactor = reactor
        self._key = key_maker(key_hash)
        self._now = now or clock.now
        self._watch_timer: Any = None  # IDelayedCall
        self._writer = PostgresqlWriter(reactor, self._parameters, self._now, commit_delay)
        self._reader = GroupReader(reactor, self._parameters, self._now)
        self._health = Health(reactor, self._reader, self._writer, router_table)
        self.sweeper = Sweeper(reactor, self._reader, self._now)

    # ---- life cycle

    def setup(self) -> Deferred[None]:
        """Create what is missing, write and read a user and a message.

        :raises StoreUnusable: as the Deferred's failure
        """
        return Deferred.fromCoroutine(self._set_up())

    async def _set_up(self) -> None:
        pool = self._reactor.getThreadPool()
        await deferToThreadPool(
            self._reactor, pool, schema.prepare, self._parameters, self._described
        )
        self._writer.start()
        self._reader.start()
        self._watch_timer = self._reactor.callLater(WATCH_INTERVAL, self._watch)
        try:
            await self._preflight()
        except StoreUnusable:
            raise
        except StoreError as error:
            raise schema.unusable(self._described, error) from error
        self.sweeper.start()

    async def _preflight(self) -> None:
        """Write, read and delete a user and a message (spec/storage 6)."""
        user = {
            "uaid": uuid.uuid4().hex,
            "router_type": "webpush",
            "connected_at": 0,
            "node_id": "mynode:2020",
        }
        uaid, month = str(user["uaid"]), self.months.current
        notification = WebPushNotification(
            uuid.UUID(uaid), uuid.uuid4(), 60, sortkey_timestamp=1, update_id="preflight"
        )
        await self.register_user(user)
        await self.store_message(month, notification)
        found = await self.get_user(uaid)
        batch = await self.fetch_since(month, uaid, None)
        deleted = await self.delete_message(month, notification)
        dropped = await self.drop_user(uaid)
        if not (found == user and len(batch.messages) == 1 and deleted and dropped):
            raise StoreUnusable(f"{self._described} doesn't keep what is written")

    def _watch(self) -> None:
        self._watch_timer = self._reactor.callLater(WATCH_INTERVAL, self._watch)
        self._writer.tell_late()
        self._reader.tell_late()

    def close(self) -> Deferred[None]:
        """Finish the writes already accepted, then let go of all resources."""
        self.sweeper.stop()
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        closed = self._reader.close()
        await self._writer.close()
        await closed
        if self._watch_timer is not None and self._watch_timer.active():
            self._watch_timer.cancel()
        self._watch_timer = None

    def health(self) -> Deferred[dict[str, str | None]]:
        """Whether every table can be read, and something be written."""
        return self._health.check()

    def alive(self) -> Deferred[Any]:
        """Fires when the writer thread has done something, however it went."""
        return self._change(records.IDLE, uaid="").addErrback(unless_late)

    # ---- helpers

    def _change(self, kind: Kind, **values: Any) -> Deferred[Any]:
        return self._writer.call(Change(kind, values))

    def _expiry(self, bridge: bool = False) -> int:
        return records.NEVER if bridge else int(self._now()) + MAX_EXPIRY

    def _user(self, uaid: str, text: str) -> User | None:
        record = records.load_record(text)
        if not record:
            self._change(records.DROP_BARE, uaid=self._key(uaid)).addErrback(
                self._note, "Bare router record not removed"
            )
            return None
        record["uaid"] = uaid
        return record

    # ---- users

    def get_user(self, uaid: str) -> Deferred[User | None]:
        """The record; a record holding only its key is removed and counts as none."""
        found = self._reader.read(records.GET_USER, uaid=self._key(uaid))
        return found.addCallback(lambda text: None if text is None else self._user(uaid, text))

    def get_subscription(self, uaid: str, chid: str) -> Deferred[Subscription]:
        """Record and channel membership in one consistent read."""

        def made(found: tuple[str, bool | None] | None) -> Subscription:
            user = None if found is None else self._user(uaid, found[0])
            return Subscription(user, user is not None and bool(found and found[1]))

        found = self._reader.read(records.GET_SUBSCRIPTION, uaid=self._key(uaid), chid=chid)
        return found.addCallback(made)

    def register_user(self, user: User) -> Deferred[Registration]:
        """Merge these attributes into the record under the condition of spec/storage 9."""
        uaid = user["uaid"]
        new = {name: value for name, value in user.items() if name != "uaid"}
        if not new.get("router_type") or new.get("connected_at") is None:
            return fail(AutopushException("data is missing router_type or connected_at"))

        text = records.dump_record(new)
        registered = self._change(records.REGISTER, uaid=self._key(uaid), record=text)
        return registered.addCallback(name_previous, uaid)

    def return_user(self, uaid: str, node_id: str, connected_at: int) -> Deferred[Arrival]:
        """Enter a connection in a plain record, in one statement; read any other record."""

        def plain(arrival: Arrival) -> Arrival:
            if arrival.previous is not None:
                arrival.previous["uaid"] = uaid
            return arrival

        first, last = last_connects_of_month(self._now())
        arrived = self._change(
            records.ARRIVE,
            uaid=self._key(uaid),
            node=node_id,
            at=connected_at,
            month=self.months.current,
            version=RECORD_VERSION,
            first=first,
            last=last,
        )
        return arrived.addCallback(plain)

    def drop_user(self, uaid: str) -> Deferred[bool]:
        """Delete the record; whether it existed."""
        return self._change(records.DROP, uaid=self._key(uaid))

    def clear_node(self, uaid: str, node_id: str, connected_at: int) -> Deferred[bool]:
        """Remove ``node_id`` if it and ``connected_at`` are still these; whether it was done."""
        return self._change(records.CLEAR_NODE, uaid=self._key(uaid), node=node_id, at=connected_at)

    def set_urgency(self, uaid: str, urgency: str, connection: Connection) -> Deferred[bool]:
        """Note the least urgency that the user wants to be sent at once."""
        text = records.dump_record({"urgency": urgency})
        node, at = connection
        return self._change(records.UPDATE, uaid=self._key(uaid), record=text, node=node, at=at)

    def survey(self, after: str, forgotten: Forgotten | None) -> Deferred[Survey | None]:
        """Look at the next records in one transaction."""
        if forgotten is not None:
            connected = frozenset(map(self._key, forgotten.connected))
            forgotten = forgotten._replace(connected=connected)
        return self._reader.call(lambda c: census.survey(c, after, forgotten))

    def take_stock(self, after: str) -> Deferred[Stock | None]:
        """Count the next channels or messages in one statement."""
        return self._reader.call(lambda c: census.take_stock(c, after))

    # ---- channels

    def add_channel(self, month: str | None, uaid: str, chid: str) -> Deferred[None]:
        """Add to the channel set, refreshing the row's expiry.

        Fails with a ``ChannelLimit`` for a user with
        :data:`~autopush.db.postgresql.records.MAX_CHANNELS` channels.
        """
        expiry = self._expiry(bridge=month is None)
        return self._change(records.ADD_CHANNEL, uaid=self._key(uaid), chid=chid, expiry=expiry)

    def add_first_channel(self, user: User, chid: str) -> Deferred[str]:
        """Write the record of a new user and its first channel in one transaction."""
        new = {name: value for name, value in user.items() if name != "uaid"}
        added = self._change(
            records.ADD_FIRST_CHANNEL,
            uaid=self._key(user["uaid"]),
            record=records.dump_record(new),
            chid=chid,
            expiry=self._expiry(),
        )
        month: str = user["current_month"]
        return added.addCallback(lambda _: month)

    def remove_channel(self, month: str | None, uaid: str, chid: str) -> Deferred[bool]:
        """Remove from the channel set, refreshing the row's expiry; whether it was a member.

        What is stored for it goes in the same transaction.
        """
        expiry = self._expiry(bridge=month is None)
        return self._change(records.REMOVE_CHANNEL, uaid=self._key(uaid), chid=chid, expiry=expiry)

    def list_channels(self, month: str | None, uaid: str) -> Deferred[Channels]:
        """The channel row."""
        found = self._reader.read(records.LIST_CHANNELS, uaid=self._key(uaid))
        return found.addCallback(lambda row: Channels(*row))

    def ended_channels(self, month: str, uaid: str, chids: set[str]) -> Deferred[set[str]]:
        """Those of these channels that are not registered: a look-up for each, as there are few."""
        return self._reader.read(records.ENDED_CHANNELS, uaid=self._key(uaid), chids=sorted(chids))

    def touch_channels(self, month: str, uaid: str) -> Deferred[None]:
        """Refresh the channel row's expiry if it exists.

        Nothing is written if that was done less than a day ago.
        """
        key, expiry = self._key(uaid), self._expiry()

        def touch(found: int | None) -> Deferred[None] | None:
            if found is None or found > expiry - TOUCH_GRANULARITY:
                return None
            return self._change(records.TOUCH, uaid=key, expiry=expiry)

        return self._reader.read(records.GET_EXPIRY, uaid=key).addCallback(touch)

    # ---- messages

    def store_message(self, month: str, notification: WebPushNotification) -> Deferred[None]:
        """Insert, or replace the row with the same sort key."""
        key = self._key(notification.uaid.hex)
        return self._writer.put(key, notification, int(self._now()))

    def restore_message(self, month: str, notification: WebPushNotification) -> Deferred[None]:
        """Store what was accepted earlier; what has replaced it since stays (interface)."""
        if not notification.topic:
            return self.store_message(month, notification)
        key, now = self._key(notification.uaid.hex), int(self._now())
        op, beside = (Put(key, n, now) for n in (notification, without_topic(notification)))
        return self._writer.call(Step(key, lambda c, at: messages.restore(c, op, beside, at)))

    def fetch_topics(
        self, month: str, uaid: str, limit: int = 10, after: str = ""
    ) -> Deferred[Batch]:
        """Topic and low-sorting legacy rows, at most ``limit`` - 1; and the pointer."""
        fetched = Deferred.fromCoroutine(self._fetch(uaid, after or FIRST, TOPICS_END, limit - 1))
        return fetched.addCallback(lambda found: Batch(found[0], found[1].messages))

    def fetch_since(
        self, month: str, uaid: str, timestamp: int | None, limit: int = 10
    ) -> Deferred[Batch]:
        """At most ``limit`` rows with sort keys above the timestamp's."""
        above = f"{TIMESTAMPED}{timestamp}:z" if timestamp else TOPICS_AND_LOW_LEGACY_END
        fetched = Deferred.fromCoroutine(self._fetch(uaid, above, LAST, limit))
        return fetched.addCallback(lambda found: Batch(found[1].last, found[1].messages))

    async def _fetch(
        self, uaid: str, above: str, below: str, limit: int
    ) -> tuple[int | None, Page[str]]:
        """Read the read pointer, and messages of a range; rows that can't be read are deleted."""
        key, page = self._key(uaid), Page[str](uuid.UUID(uaid), above)
        while True:
            wanted = limit - len(page.messages)
            pointer, rows = await self._reader.read(
                messages.PAGE, uaid=key, above=page.above, below=below, wanted=wanted
            )
            for columns in rows:
                row = MessageRow(*columns)
                page.add(row.sort_key, row)
            if len(rows) < wanted or len(page.messages) == limit:
                break
        if page.unreadable:
            self._delete_poison(key, page.unreadable)
        return pointer, page

    def _delete_poison(self, key: str, sort_keys: list[str]) -> None:
        self.log.error("Deleting {count} unreadable stored messages", count=len(sort_keys))
        self._change(messages.DELETE_UNREADABLE, uaid=key, sortkeys=sort_keys).addErrback(
            self._note, "Unreadable messages not deleted"
        )

    def set_pointer(self, month: str, uaid: str, timestamp: int) -> Deferred[None]:
        """Remember that everything up to ``timestamp`` was read. Never moves backwards."""
        return self._change(
            records.SET_POINTER, uaid=self._key(uaid), timestamp=timestamp, expiry=self._expiry()
        )

    def move_month(
        self, uaid: str, old: str, new: str, connection: Connection | None = None
    ) -> Deferred[frozenset[str] | None]:
        """Note the month in the record; there is only one table, so nothing moves."""
        text = records.dump_record(
            {"current_month": new, "last_connect": generate_last_connect(self._now())}
        )
        node, at = connection or (None, None)
        noted = self._change(records.UPDATE, uaid=self._key(uaid), record=text, node=node, at=at)
        return noted.addCallback(lambda done: frozenset[str]() if done else None)
