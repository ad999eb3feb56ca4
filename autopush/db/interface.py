"""What the service remembers, as one interface with several back ends (spec/storage 17).

Back ends: :mod:`autopush.db.sqlite.store` (one file), PostgreSQL and DynamoDB. Nothing above
``autopush/db`` may know which one it talks to.

Conventions:

* Every method starts its work at once and returns a :class:`~twisted.internet.defer.Deferred`;
  a caller that doesn't care for the result may drop it (after adding an errback).
* When a write's Deferred fires, the write is durable and seen by every reader.
* Failures: :class:`~autopush.exceptions.StoreBusy` (try later) or
  :class:`~autopush.exceptions.StoreError`.
* UAIDs are 32 lower-case hex digits, channel ids are dashed lower-case UUIDs; both ``str``.
  Back ends hash UAIDs themselves where ``key_hash`` is set (spec/storage 5, quirk S1); records
  they return carry the plain UAID.
* A *month* is the name of a message table, as in a record's ``current_month``.
* Times are whole seconds, ``timestamp`` of a :class:`Batch` and pointers are sort-key
  timestamps in microseconds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.python.failure import Failure

from autopush.exceptions import StoreError, UserFull
from autopush.message.notification import WebPushNotification
from autopush.metrics.interface import PoolFigures


class StoreUnusable(StoreError):
    """The store can't be used as it is; ``str()`` is one line that tells what to do about it."""


User = dict[str, Any]
"""A router record (spec/storage 2): an open map. Always has ``uaid``; unknown keys are kept."""


class Registration(NamedTuple):
    """Outcome of :meth:`Store.register_user`."""

    written: bool
    """False when the condition failed: a newer connection or another router type owns it."""
    previous: User
    """The record before the write; empty if there was none or nothing was written."""


class Arrival(NamedTuple):
    """Outcome of :meth:`Store.return_user`."""

    written: bool
    """Whether the connection is in the record now."""
    previous: User | None
    """The record before that, or as it is; None if there is none."""


class Connection(NamedTuple):
    """What tells a connection from all others of its user."""

    node_id: str
    connected_at: int


MOVING_FROM = "moving_from"
"""Attribute of a record: the month from which a node is moving the user at this moment, or was when
it died. Nodes of 1.58.3 keep what they don't know."""


class Subscription(NamedTuple):
    """A user and whether one of its channels is registered."""

    user: User | None
    subscribed: bool
    """Whether the channel is in the channel set of the user's ``current_month``."""


class Stored(NamedTuple):
    """Outcome of :meth:`Store.store_and_look`."""

    user: User | None
    """The record, read after the message was stored; None if there is none, or it wasn't read."""
    was_read: bool = True
    """Whether the record could be read."""


class Forgotten(NamedTuple):
    """Which records are forgotten: those of user agents without a channel that were not seen."""

    before: int
    """Since when not, milliseconds since the epoch."""
    node_id: str
    """Of the only node whose connections are known: who may be connected to another one stays."""
    connected: frozenset[str]
    """UAIDs that are connected although their record is older than that."""


class Survey(NamedTuple):
    """Some records, in the order of their keys."""

    users: int
    """How many there are now."""
    forgotten: int
    """How many there were beside those."""
    last: str | None
    """Where to go on; None: these were the last."""


class Stock(NamedTuple):
    """Some of all channels and stored messages."""

    channels: int
    messages: int
    """What has expired may count for another minute."""
    size: int
    """Bytes the messages take, as the quota has them."""
    last: str | None
    """Where to go on; None: these were the last."""


class Channels(NamedTuple):
    """A user's channel row."""

    exists: bool
    """True also for a row whose last channel was removed."""
    chids: set[str]


class Batch(NamedTuple):
    """Stored messages in sort-key order."""

    timestamp: int | None
    """Topic fetch: the stored pointer. Timestamp fetch: sort-key timestamp of the last
    timestamped row read, delivered or not. None if there is none."""
    messages: list[WebPushNotification]
    channels: Channels | None = None
    """Topic fetch: the channel row, where it comes along anyway."""
    is_all: bool = False
    """Topic fetch: whether it is known that a timestamp fetch would find nothing, from the pointer
    or any later one."""


class Months(ABC):
    """Which message tables this process uses (spec/storage 8)."""

    @property
    @abstractmethod
    def current(self) -> str:
        """Name of the table new users get."""

    @abstractmethod
    def accepts(self, month: object) -> bool:
        """Whether a record whose ``current_month`` is this may be used here."""

    def settled(self, month: str) -> bool:
        """Whether no node is moving users of this month to another one at this time."""
        return month == self.current


class Store(ABC):
    """One storage back end. See the module's conventions."""

    months: Months

    deletes_read = False
    """Whether a stored timestamped message that was acknowledged is best deleted, like any other;
    else :meth:`set_pointer` is moved past as many as were acknowledged without a gap."""

    # ---- life cycle

    @abstractmethod
    def setup(self) -> Deferred[None]:
        """Open or create everything and check that reading and writing works."""

    @abstractmethod
    def close(self) -> Deferred[None]:
        """Finish the writes already accepted, then let go of all resources."""

    @abstractmethod
    def health(self) -> Deferred[dict[str, str | None]]:
        """Map of part name (router table's name, ``storage``) to an error text, or None if well."""

    def alive(self) -> Deferred[Any]:
        """Fires when the store's own threads have done something, however it went.

        For a watchdog: a store that never answers needs a restart, an outage of its database
        doesn't.
        """
        return self.health()

    def pool_figures(self) -> PoolFigures:
        """What the store's threads do, where it has one for each operation under way."""
        return PoolFigures(0, 0, 0)

    def rotate(self) -> Deferred[bool]:
        """Follow the calendar; to be called once a minute. Whether the month has changed."""
        return succeed(False)

    # ---- users (spec/storage 17.2)

    @abstractmethod
    def get_user(self, uaid: str) -> Deferred[User | None]:
        """The record; a record holding only its key is removed and counts as none."""

    @abstractmethod
    def get_subscription(self, uaid: str, chid: str) -> Deferred[Subscription]:
        """Record and channel membership in one consistent read, for the message hot path."""

    @abstractmethod
    def register_user(self, user: User) -> Deferred[Registration]:
        """Merge these attributes into the record, creating it if absent.

        Applied only if (no stored ``router_type`` or an equal one) and (no stored ``node_id``,
        or no stored ``connected_at``, or stored ``connected_at`` < the new one). ``user`` is not
        changed.

        :raises AutopushException: ``router_type`` or ``connected_at`` is missing.
        """

    def return_user(self, uaid: str, node_id: str, connected_at: int) -> Deferred[Arrival]:
        """Read the record of a user that is back, and enter its connection where that is plain.

        Plain is a record of an older connection that :meth:`register_user` would accept, of
        ``router_type`` webpush, the current month in ``current_month`` and ``last_connect``, and
        the current ``record_version``. A back end need not write anything.
        """
        return self.get_user(uaid).addCallback(lambda record: Arrival(False, record))

    @abstractmethod
    def drop_user(self, uaid: str) -> Deferred[bool]:
        """Delete the record; whether it existed."""

    @abstractmethod
    def clear_node(self, uaid: str, node_id: str, connected_at: int) -> Deferred[bool]:
        """Remove ``node_id`` if it and ``connected_at`` are still these; whether it was done."""

    @abstractmethod
    def set_urgency(self, uaid: str, urgency: str, connection: Connection) -> Deferred[bool]:
        """Note in a record, as the attribute ``urgency``, which messages its user wants at once.

        :param urgency: the name of the least level, see :mod:`autopush.message.urgency`
        :param connection: the one the record must be about
        :returns: whether it was done: there is a record, and of this connection
        """

    def survey(self, after: str, forgotten: Forgotten | None) -> Deferred[Survey | None]:
        """Look at a bounded number of records, and delete those that are to be forgotten.

        Whether one is, is decided in the moment it is deleted: a user agent that says hello or
        subscribes before that keeps its record, one that comes later finds none.

        :param after: where the last survey ended; empty: begin
        :param forgotten: None: only count
        :returns: None where counting would cost a request for each; nothing is deleted then
        """
        return succeed(None)

    def take_stock(self, after: str) -> Deferred[Stock | None]:
        """Count a bounded number of channels and stored messages.

        :param after: where the last count ended; empty: begin
        :returns: None where counting would cost a request for each
        """
        return succeed(None)

    def writes_waiting(self) -> int | None:
        """Writes that were taken and are not done; None where there is no queue of them."""
        return None

    # ---- channels (spec/storage 17.3)
    #
    # ``month`` is None for bridge users, whose channels are kept apart from months (quirk S4).

    @abstractmethod
    def add_channel(self, month: str | None, uaid: str, chid: str) -> Deferred[None]:
        """Add to the channel set, refreshing the row's expiry."""

    def add_first_channel(self, user: User, chid: str) -> Deferred[str]:
        """Write the record of a new user, and add its first channel.

        Where there is a record already (an attempt before this one got through after all, or a
        connection that came later has the user), :meth:`register_user`'s condition decides what is
        written into it, and the channel is added in any case. A back end need not do both at once;
        the record comes first then.

        :param user: what :meth:`register_user` takes, with ``current_month``
        :returns: the month where the channel is
        """
        return Deferred.fromCoroutine(self._add_first_channel(user, chid))

    async def _add_first_channel(self, user: User, chid: str) -> str:
        month: str = user["current_month"]
        if not (await self.register_user(user)).written:
            month = (await self.get_user(user["uaid"]) or {}).get("current_month") or month
        await self.add_channel(month, user["uaid"], chid)
        return month

    @abstractmethod
    def remove_channel(self, month: str | None, uaid: str, chid: str) -> Deferred[bool]:
        """Remove from the channel set, refreshing the row's expiry; whether it was a member.

        What is stored for the channel and was not read is deleted, too. Nothing that is stored
        later is, so the channel may be added again.
        """

    @abstractmethod
    def list_channels(self, month: str | None, uaid: str) -> Deferred[Channels]:
        """The channel row."""

    def ended_channels(self, month: str, uaid: str, chids: set[str]) -> Deferred[set[str]]:
        """Those of these channels that are not registered (any more).

        None of them where the user has no channel row: that says nothing about them.
        """

        def ended(row: Channels) -> set[str]:
            known = {_digits(chid) for chid in row.chids}
            return {chid for chid in chids if row.exists and _digits(chid) not in known}

        return self.list_channels(month, uaid).addCallback(ended)

    @abstractmethod
    def touch_channels(self, month: str, uaid: str) -> Deferred[None]:
        """Refresh the channel row's expiry if it exists (at hello; quirk S2)."""

    # ---- messages (spec/storage 17.3)

    @abstractmethod
    def store_message(self, month: str, notification: WebPushNotification) -> Deferred[None]:
        """Insert, or replace the row with the same sort key (that is how topics are replaced).

        Row expiry is now + min(ttl or 0, 30 days). A back end may store a timestamped message
        under a later timestamp than its own, so that no reader which has passed that timestamp
        already misses it (spec/storage 17.6); storing the same message again replaces its row.
        """

    def store_and_look(self, month: str, notification: WebPushNotification) -> Deferred[Stored]:
        """:meth:`store_message`, then :meth:`get_user`: who stores looks whether the user has come
        meanwhile.

        :raises StoreError: as the Deferred's failure: the message could not be stored
        """

        def look(_: None) -> Deferred[Stored]:
            return self.get_user(notification.uaid.hex).addCallbacks(Stored, unread)

        return self.store_message(month, notification).addCallback(look)

    @abstractmethod
    def restore_message(self, month: str, notification: WebPushNotification) -> Deferred[None]:
        """Store what was accepted earlier and not stored then.

        As :meth:`store_message`, but a message of the same topic that was accepted later stays
        where it is, and this one is gone: it would have been replaced. One of the same second
        stays, too, and this one is stored beside it as if it had no topic.
        """

    def refusal(self, notification: WebPushNotification) -> UserFull | None:
        """Why a message may not wait for its user, None if it may: ask before one is accepted.

        What is accepted is stored by :meth:`store_message` in any case. A back end that would
        need a request to know refuses nothing.

        :raises StoreError: it can't be told
        """
        return None

    def take_back(self, month: str, notification: WebPushNotification) -> bool:
        """Don't write a message that :meth:`store_message` has taken, if that has not begun.

        Its Deferred then fires as if it had been written, soon.

        :returns: whether it will never be written
        """
        return False

    @abstractmethod
    def delete_message(self, month: str, notification: WebPushNotification) -> Deferred[bool]:
        """Delete the row, only if its update id is the notification's when that has one.

        Falls back to searching the user's rows for the update id (quirk S7). Whether a row was
        deleted.
        """

    def delete_messages(
        self, month: str, notifications: Sequence[WebPushNotification]
    ) -> Deferred[None]:
        """:meth:`delete_message` of each; fires when all are deleted, fails if one can't be."""
        deletes = [self.delete_message(month, notification) for notification in notifications]
        return Deferred.fromCoroutine(_all_of(deletes))

    @abstractmethod
    def fetch_topics(
        self, month: str, uaid: str, limit: int = 10, after: str = ""
    ) -> Deferred[Batch]:
        """Topic and low-sorting legacy rows (sort key < ``02``), at most ``limit`` - 1 messages.

        :param after: sort key behind which to begin; the pointer and the channels need not come
            along then. Empty: at the first

        The channel row counts as one, whether it exists or not (spec/websocket Q11). Unreadable
        rows are logged, deleted and skipped (spec/websocket Q15).
        """

    @abstractmethod
    def fetch_since(
        self, month: str, uaid: str, timestamp: int | None, limit: int = 10
    ) -> Deferred[Batch]:
        """At most ``limit`` rows with sort keys above ``02:<timestamp>:z`` (or above ``01;``)."""

    @abstractmethod
    def set_pointer(self, month: str, uaid: str, timestamp: int) -> Deferred[None]:
        """Remember that everything up to ``timestamp`` was read. Never moves backwards.

        Creates the channel row if there is none and refreshes its expiry.
        """

    @abstractmethod
    def move_month(
        self, uaid: str, old: str, new: str, connection: Connection | None = None
    ) -> Deferred[frozenset[str] | None]:
        """Carry a drained user over: channels (merged), the record's ``current_month`` and
        ``last_connect``, late messages and channels.

        :param connection: whose user; the record is only written as long as it is about this one.
            None: whoever has the user
        :returns: the channels that came along; None if the record was not written: there is none
            (any more), or another connection has the user
        """

    def finish_move(self, uaid: str, old: str, new: str) -> Deferred[bool]:
        """Do what is left of a move in whose midst a node has died, see :data:`MOVING_FROM`.

        Whether there was something.
        """
        return succeed(False)

    def carry_late(
        self, uaid: str, old: str, new: str, known: frozenset[str] | None = None
    ) -> Deferred[bool]:
        """Carry over what came to the old month after the user had moved (quirk S17).

        The record stays as it is. Whether there was something.

        :param known: the channels that came along with the move; others of the old month are
            carried over now. None: only messages are
        """
        return succeed(False)


def unread(failure: Failure) -> Stored:
    """A message was stored, and its user could not be looked at."""
    failure.trap(StoreError)
    return Stored(None, was_read=False)


async def _all_of(deletes: Sequence[Deferred[bool]]) -> None:
    results: list[tuple[bool, Any]] = await DeferredList(deletes, consumeErrors=True)
    for succeeded, result in results:
        if not succeeded:
            result.raiseException()


def _digits(chid: str) -> str:
    """A channel id in whatever spelling, for comparison."""
    return chid.replace("-", "").lower()
