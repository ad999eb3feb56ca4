"""The store in DynamoDB, or anything that speaks its API, shared by a cluster (spec/storage).

* **Requests** are made by boto3's low-level client in threads (:mod:`~autopush.db.threads`), one
  hop an operation; what an operation does is in :mod:`~autopush.db.dynamodb.users` and
  :mod:`~autopush.db.dynamodb.messages`.
* **Errors** that pass (throttling, server errors, time-outs, resets) are met with further attempts
  after growing pauses. No thread waits in a pause. A condition that fails after an attempt whose
  outcome is unknown is checked against what that attempt would have left.
* **Time**: an operation has eight seconds from its arrival, waiting for its turn included
  (:mod:`~autopush.db.deadlines`). Its caller is told then; one that was begun goes on, and what it
  writes is kept: a sender that was told 503 may find its message delivered, and once more when it
  has sent it again.
* **Order**: writes of this process to the same row are carried out in the order of the calls.
* **Months** rotate (:mod:`~autopush.db.months`) when :meth:`DynamoStore.rotate` is called.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast
from uuid import uuid4

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from autopush import clock
from autopush.constants import THREAD_POOL_SIZE
from autopush.db.deadlines import Deadlines, Due, TooLate
from autopush.db.dynamodb import reading, tables
from autopush.db.dynamodb.channels import ChannelSets
from autopush.db.dynamodb.client import (
    DEADLINE,
    TRY_AGAIN,
    Call,
    TableMissing,
    Unavailable,
    caller,
    delays,
    patient,
)
from autopush.db.dynamodb.end import ChannelEnd
from autopush.db.dynamodb.inorder import InOrder
from autopush.db.dynamodb.look import Look, PutAndLook
from autopush.db.dynamodb.messages import Messages
from autopush.db.dynamodb.move import FinishMove, LateCarry, MonthMove, Way, delete_message
from autopush.db.dynamodb.preflight import preflight
from autopush.db.dynamodb.users import SubscriptionRead, Users
from autopush.db.interface import (
    Arrival,
    Batch,
    Channels,
    Connection,
    Months,
    Registration,
    Store,
    Stored,
    StoreUnusable,
    Subscription,
    User,
    unread,
)
from autopush.db.lastconnect import generate_last_connect
from autopush.db.months import LatestMonths, RotatingMonths
from autopush.db.rows import TIMESTAMPED
from autopush.db.threads import Threads
from autopush.exceptions import StoreBusy, StoreClosed, StoreError
from autopush.ids import hash_uaid
from autopush.message.notification import WebPushNotification
from autopush.metrics.interface import PoolFigures
from autopush.waiters import Waiters

T = TypeVar("T")

MAX_RUNNING = 5_000
"""Operations under way at a time, waiting for a thread or a pause included: about what fifty
threads finish in the time an operation has. Beyond that callers are told at once to come back."""

WRONG_GUESSES = 8
"""Look-ups in the wrong month, more than in the right one, after which the guess changes."""


class DynamoStore(Store):
    """See the module.

    :param client: a boto3 DynamoDB client
    :param reactor: for threads and pauses
    :param router_table: name and provisioned capacity (``DDBTableConfig``)
    :param message_table: the same; its name is the prefix of the months' tables
    :param rotation: whether there is a table a month; else the latest one is used
    :param key_hash: UAIDs are stored as their HMAC with this key, unless it is empty
    :param now: seconds since the epoch
    :param threadpool: where requests are made; None: in threads of its own
    :param preflight_uaid: user agent for the test at start-up; None: one nobody has
    :param deadline: seconds an operation has from its arrival
    """

    def __init__(
        self,
        client: Any,
        reactor: Any,
        router_table: Any,
        message_table: Any,
        rotation: bool = True,
        key_hash: str = "",
        now: Callable[[], float] | None = None,
        threadpool: Any = None,
        preflight_uaid: str | None = None,
        deadline: float = DEADLINE,
    ) -> None:
        self.log = Logger()
        self._reactor = reactor
        self._threads = Threads(reactor, THREAD_POOL_SIZE, threadpool)
        self._router_table = router_table
        self._message_table = message_table
        now = self._now = now or clock.now
        self._preflight_uaid = preflight_uaid or f"deadbeef00000000deadbeef{uuid4().hex[:8]}"
        self._stop = threading.Event()
        self._call: Call = caller(client)
        self._tables_call = patient(self._call, self._stop.wait)
        key = partial(hash_uaid, key_hash)
        self.users = Users(self._call, router_table.tablename, key, lambda: int(now()))
        self.messages = Messages(self._call, key, now)
        self.months: Months = RotatingMonths(message_table.tablename, now)
        self.channel_sets = ChannelSets(
            self.users, self.messages, self._accepted_tables, lambda: self.months.current
        )
        self._rotation = rotation
        self._rotating: Deferred[bool] | None = None
        self._sure: frozenset[str] = frozenset()
        self._in_doubt = False
        self._order = InOrder()
        self._deadlines = Deadlines(reactor, deadline)
        self._running = 0
        self._idle: Waiters[None] = Waiters()
        self._touches: dict[tuple[str | None, str], Deferred[None]] = {}
        self._guess = self.months.current
        self._wrong_guesses = 0

    # ---- life cycle

    def setup(self) -> Deferred[None]:
        """Create what is missing, wait until it can be used, write and read a user and a message.

        :raises StoreUnusable: as the Deferred's failure
        """
        return self._in_thread(self._set_up).addCallbacks(self._opened, self._unusable)

    def _opened(self, found: tuple[Months, list[str]]) -> None:
        self.months, names = found
        self._sure = frozenset(names)
        self._guess = self.months.current

    def _unusable(self, failure: Failure) -> Failure:
        if isinstance(failure.value, StoreUnusable):
            return failure
        failure.trap(StoreError)
        return Failure(StoreUnusable(f"DynamoDB can't be used: {failure.value}"))

    def _set_up(self) -> tuple[Months, list[str]]:
        """Runs in a thread."""
        self._ensure(self._router_table.tablename, tables.ROUTER_KEYS, self._router_table)
        months, needed = self._initial_months()
        for name in needed:
            self._ensure_messages(name)
        self._preflight(months.current)
        return months, needed

    def _initial_months(self) -> tuple[Months, list[str]]:
        prefix = self._message_table.tablename
        if not self._rotation:
            latest = LatestMonths(prefix, tables.names(self._tables_call))
            return latest, [latest.current]
        rotating = RotatingMonths(prefix, self._now)
        return rotating, rotating.needed_at_start()

    def _ensure_messages(self, name: str) -> None:
        self._ensure(name, tables.MESSAGE_KEYS, self._message_table)

    def _ensure(self, name: str, keys: tuple[str, ...], conf: Any) -> None:
        units = (conf.read_throughput, conf.write_throughput)
        tables.ensure(self._tables_call, name, keys, units, self._sleep)

    def _sleep(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise StoreClosed("the store is closed")

    def _preflight(self, month: str) -> None:
        call, key = self._tables_call, self.users.key
        users = Users(call, self.users.table, key, self.users.now)
        preflight(users, Messages(call, key, self._now), month, self._preflight_uaid)

    def close(self) -> Deferred[None]:
        """Finish the writes already accepted; there are no further attempts."""
        self._stop.set()
        idle = self._idle.wait() if self._running else succeed(None)
        return idle.addCallback(lambda _: self._threads.close())

    def pool_figures(self) -> PoolFigures:
        """What the threads do in which requests are made."""
        return self._threads.figures()

    def health(self) -> Deferred[dict[str, str | None]]:
        """Whether the router table and the current message table exist."""

        def look() -> dict[str, str | None]:
            return {
                self._router_table.tablename: self._health_of(self._router_table.tablename),
                "storage": self._health_of(self.months.current),
            }

        return self._in_thread(look)

    def alive(self) -> Deferred[Any]:
        """Fires when a thread was free to do something."""
        return self._in_thread(bool)

    def _health_of(self, table: str) -> str | None:
        try:
            state = tables.status(self._call, table)
        except Unavailable as error:
            return "Server error" if error.answered else "Internal error"
        except StoreError:
            return "Internal error"
        return None if state in tables.EXISTS else "Nonexistent table"

    # ---- months

    def rotate(self) -> Deferred[bool]:
        """Look at the calendar, to be called once a minute; whether the month has changed.

        Makes sure of next month's table on the last day, of this month's before it is used, and
        of one that has disappeared. A failure leaves everything as it was, for the next call.
        """
        if self._rotating is not None or self._stop.is_set():
            return succeed(False)
        rotating = self._rotating = Deferred.fromCoroutine(self._rotate())

        def over(result: bool | Failure) -> bool | Failure:
            self._rotating = None
            return result

        return rotating.addBoth(over)

    async def _rotate(self) -> bool:
        months = self.months
        if not isinstance(months, RotatingMonths):
            await self._make_sure([months.current])
            return False
        this, *following = months.needed()
        await self._make_sure([this])
        changed = months.adopt(this)
        if changed:
            self.log.info("Message table is {name} from now on", name=this)
        await self._make_sure(months.needed_at_start() if self._in_doubt else following)
        self._in_doubt = False
        return changed

    async def _make_sure(self, names: list[str]) -> None:
        for name in names:
            if self._in_doubt or name not in self._sure:
                await self._in_thread(self._ensure_messages, name)
                self._sure |= {name}

    def _accepted_tables(self) -> list[str]:
        """Those that exist, oldest first."""
        return sorted(name for name in self._sure if self.months.accepts(name))

    def _missed(self, failure: Failure) -> Failure:
        """Look after all tables again at the next :meth:`rotate` when one has disappeared."""
        if failure.check(TableMissing) and not self._in_doubt:
            self.log.error("A table is missing: {error}", error=str(failure.value))
            self._in_doubt = True
        return failure

    # ---- attempts

    def _read(self, function: Callable[..., T], *args: Any) -> Deferred[T]:
        """Carry out an operation at once."""
        refusal = self._accept()
        if refusal is not None:
            return fail(refusal)
        due = self._deadlines.arrive()
        return self._deadlines.answer(due, self._run(due, function, *args).addBoth(self._ended))

    def _write(self, keys: tuple[Any, ...], function: Callable[..., T], *args: Any) -> Deferred[T]:
        """Carry out an operation after the earlier ones with one of its keys."""
        refusal = self._accept()
        if refusal is not None:
            return fail(refusal)
        due = self._deadlines.arrive()
        done = self._order.run(keys, lambda: self._run(due, function, *args))
        return self._deadlines.answer(due, done.addBoth(self._ended))

    def _go_on(self, failure: Failure, function: Callable[..., T], *args: Any) -> Deferred[T]:
        """Carry out an operation whose first attempt has just failed."""
        refusal = self._accept()
        if refusal is not None:
            return fail(refusal)
        due = self._deadlines.arrive()
        done = fail(failure).addErrback(self._failed, due, function, args).addErrback(self._missed)
        return self._deadlines.answer(due, done.addBoth(self._ended))

    def _accept(self) -> StoreError | None:
        """Count an operation, or say why there can't be one more."""
        if self._stop.is_set():
            return StoreClosed("the store is closed")
        if self._running >= MAX_RUNNING:
            return StoreBusy("too many storage operations are waiting")
        self._running += 1
        return None

    def _ended(self, result: T) -> T:
        self._running -= 1
        if not self._running and self._idle:
            self._reactor.callLater(0, self._idle.fire, None)
        return result

    def _in_thread(self, function: Callable[..., T], *args: Any) -> Deferred[T]:
        """One attempt."""
        return self._threads.call(function, *args)

    def _run(self, due: Due, function: Callable[..., T], *args: Any) -> Deferred[T]:
        """As many attempts as it takes, within reason."""
        try:
            due.check()
        except TooLate:
            return fail()
        done: Deferred[T] = self._in_thread(due.run, function, *args)
        return done.addErrback(self._failed, due, function, args).addErrback(self._missed)

    def _failed(self, failure: Failure, due: Due, function: Callable[..., T], args: Any) -> Any:
        if not failure.check(*TRY_AGAIN):
            return failure
        return Deferred.fromCoroutine(self._again(failure, due, function, args))

    async def _again(self, failure: Failure, due: Due, function: Callable[..., T], args: Any) -> T:
        attempt, error = function, cast("Any", failure.value)
        for delay in delays():
            if error.maybe_done and getattr(function, "unsure_aware", False):
                attempt = partial(function, unsure=True)
            if self._stop.is_set() or self._reactor.seconds() + delay > due.end:
                break
            await self._pause(delay)
            try:
                return await self._in_thread(due.run, attempt, *args)
            except TRY_AGAIN as again:
                error = again
            except TooLate:
                break
        raise error

    def _pause(self, delay: float) -> Deferred[None]:
        over: Deferred[None] = Deferred()
        self._reactor.callLater(delay, over.callback, None)
        return over

    # ---- users

    def _user_write(self, uaid: str, function: Callable[..., T], *args: Any) -> Deferred[T]:
        return self._write(((uaid, "user"),), function, *args)

    def get_user(self, uaid: str) -> Deferred[User | None]:
        """The record; a record holding only its key is removed and counts as none."""
        return self._read(self.users.get, uaid)

    def get_subscription(self, uaid: str, chid: str) -> Deferred[Subscription]:
        """Record and channel membership, in one request for most users."""
        read = SubscriptionRead(self.users, uaid, chid, self._guess)
        found = self._read(read, self.months.accepts)
        return found.addCallback(self._note_guess, read)

    def _note_guess(self, found: Subscription, read: SubscriptionRead) -> Subscription:
        """In the first days of a month most users are still in the one before."""
        month = read.month
        if month == self._guess:
            self._wrong_guesses = max(self._wrong_guesses - 1, 0)
        elif month is not None and month in self._sure and self.months.accepts(month):
            self._wrong_guesses += 1
            if self._wrong_guesses > WRONG_GUESSES:
                self._guess, self._wrong_guesses = month, 0
        return found

    def register_user(self, user: User) -> Deferred[Registration]:
        """Merge these attributes into the record under the condition of spec/storage 9."""
        return self._user_write(user["uaid"], self.users.register, dict(user))

    def return_user(self, uaid: str, node_id: str, connected_at: int) -> Deferred[Arrival]:
        """Enter a connection in a plain record, in one request; read any other record."""
        month = self.months.current
        return self._user_write(uaid, self.users.reconnect, month, uaid, node_id, connected_at)

    def drop_user(self, uaid: str) -> Deferred[bool]:
        """Delete the record; whether it existed."""
        return self._user_write(uaid, self.users.drop, uaid)

    def clear_node(self, uaid: str, node_id: str, connected_at: int) -> Deferred[bool]:
        """Remove ``node_id`` if it and ``connected_at`` are still these; whether it was done."""
        return self._user_write(uaid, self.users.clear_node, uaid, node_id, connected_at)

    def set_urgency(self, uaid: str, urgency: str, connection: Connection) -> Deferred[bool]:
        """Note the least urgency that the user wants to be sent at once."""
        return self._user_write(uaid, self.users.set_urgency, uaid, urgency, connection)

    # ---- channels

    def _channel_write(self, uaid: str, function: Callable[..., T], *args: Any) -> Deferred[T]:
        return self._write(((uaid, "channels"),), function, *args)

    def add_channel(self, month: str | None, uaid: str, chid: str) -> Deferred[None]:
        """Add to the channel set, refreshing the row's expiry."""
        if month is None:
            return self._channel_write(uaid, self.channel_sets.add_bridge, uaid, chid)
        if not self.months.settled(month):
            return self._channel_write(uaid, self.channel_sets.add, month, uaid, chid)
        return self._channel_write(uaid, self.messages.add_channels, month, uaid, {chid})

    def add_first_channel(self, user: User, chid: str) -> Deferred[str]:
        """Write the record of a new user and its first channel in one turn of a thread."""
        keys = (user["uaid"], "user"), (user["uaid"], "channels")
        settled = self.months.settled(user["current_month"])
        return self._write(keys, self.channel_sets.begin, dict(user), chid, settled)

    def remove_channel(self, month: str | None, uaid: str, chid: str) -> Deferred[bool]:
        """Remove from the channel set, refreshing the row's expiry; whether it was a member."""
        sets = self.channel_sets
        if month is None:
            return self._channel_write(uaid, sets.remove_bridge, uaid, chid, set[str]())
        if not self.months.settled(month):
            return self._channel_write(uaid, sets.remove, month, uaid, chid, set[str]())
        return self._channel_write(uaid, ChannelEnd(self.messages, month, uaid, chid))

    def list_channels(self, month: str | None, uaid: str) -> Deferred[Channels]:
        """The channel row."""
        if month is None:
            return self._channel_write(uaid, self.channel_sets.list_bridge, uaid)
        return self._read(self.messages.channels, month, uaid)

    def touch_channels(self, month: str, uaid: str) -> Deferred[None]:
        """Refresh the channel row's expiry if it exists (quirk S2).

        A fetch of topics in the same reactor turn, as at a hello, sees the row anyway: it then
        does so, and only if that was not done within the last day.
        """
        touch: Deferred[None] = self._touches.setdefault((month, uaid), Deferred())
        mine: Deferred[None] = Deferred()
        touch.addBoth(_pass_on, mine)
        self._reactor.callLater(0, self._touch_alone, month, uaid)
        return mine

    def _touch_alone(self, month: str, uaid: str) -> None:
        touch = self._touches.pop((month, uaid), None)
        if touch is not None:
            self._channel_write(uaid, self.messages.touch, month, uaid).chainDeferred(touch)

    # ---- messages

    def store_message(self, month: str, notification: WebPushNotification) -> Deferred[None]:
        """Insert, or replace the row with the same sort key."""
        put = self.messages.store(month, notification)
        return self._write(_keys_to_store(notification), put)

    def store_and_look(self, month: str, notification: WebPushNotification) -> Deferred[Stored]:
        """Both in one turn of a thread, if the first attempts succeed."""
        uaid, keys = notification.uaid.hex, _keys_to_store(notification)
        is_waited_for = partial(self._order.is_waited_for, keys)
        both = PutAndLook(self.messages.store(month, notification), self.users, uaid, is_waited_for)

        def looked(look: Look) -> Stored | Deferred[Stored]:
            if look.put_off:
                return self.get_user(uaid).addCallbacks(Stored, unread)
            if look.error is None:
                return Stored(look.user)
            again = self._go_on(Failure(look.error), self.users.get, uaid)
            return again.addCallbacks(Stored, unread)

        def not_looked(failure: Failure) -> Failure | Deferred[Stored]:
            # Its time was over after the message had been stored: a look has a time of its own.
            if not both.stored:
                return failure
            return self.get_user(uaid).addCallbacks(Stored, unread)

        return self._write(keys, both).addCallbacks(looked, not_looked)

    def restore_message(self, month: str, notification: WebPushNotification) -> Deferred[None]:
        """Store what was accepted earlier; what has replaced it since stays (interface)."""
        if not notification.topic:
            return self.store_message(month, notification)
        keys = ((notification.uaid.hex, notification.sort_key),)
        return self._write(keys, self.messages.restore, month, notification)

    def delete_message(self, month: str, notification: WebPushNotification) -> Deferred[bool]:
        """Delete the row, only if its update id is the notification's when that has one."""
        uaid = notification.uaid.hex
        keys = ((uaid, notification.sort_key), (uaid, notification.update_id))
        if self.months.settled(month):
            return self._write(keys, self.messages.delete, month, notification)
        return self._write(keys, delete_message, self.users, self.messages, month, notification)

    def fetch_topics(
        self, month: str, uaid: str, limit: int = 10, after: str = ""
    ) -> Deferred[Batch]:
        """Topic and low-sorting legacy rows, at most ``limit`` - 1; and the pointer."""
        touch = self._touches.pop((month, uaid), None)
        is_first = touch is not None
        read = self._read(reading.topics, self.messages, month, uaid, limit, is_first, after)
        if touch is not None:
            read.addBoth(_tell, touch)
        return read

    def fetch_since(
        self, month: str, uaid: str, timestamp: int | None, limit: int = 10
    ) -> Deferred[Batch]:
        """At most ``limit`` rows with sort keys above the timestamp's."""
        return self._read(reading.since, self.messages, month, uaid, timestamp, limit)

    def set_pointer(self, month: str, uaid: str, timestamp: int) -> Deferred[None]:
        """Remember that everything up to ``timestamp`` was read. Never moves backwards."""
        return self._channel_write(uaid, self.messages.set_pointer, month, uaid, timestamp)

    def move_month(
        self, uaid: str, old: str, new: str, connection: Connection | None = None
    ) -> Deferred[frozenset[str] | None]:
        """Carry a drained user over."""
        last_connect = generate_last_connect(self._now())
        way = Way(uaid, old, new)
        move = MonthMove(self.users, self.messages, way, last_connect, connection)

        def failed(failure: Failure) -> Failure:
            # Nobody reads the old month any more: the caller must come back.
            if move.noted and failure.check(StoreError):
                return Failure(StoreBusy(str(failure.value)))
            return failure

        return self._channel_write(uaid, move).addErrback(failed)

    def finish_move(self, uaid: str, old: str, new: str) -> Deferred[bool]:
        """Do what is left of a move in whose midst a node has died; whether there was something."""
        move = FinishMove(self.users, self.messages, Way(uaid, old, new))
        return self._channel_write(uaid, move).addCallback(lambda _: move.carried)

    def carry_late(
        self, uaid: str, old: str, new: str, known: frozenset[str] | None = None
    ) -> Deferred[bool]:
        """Carry over what came to the old month after the move; whether there was something."""
        carry = LateCarry(self.users, self.messages, Way(uaid, old, new), known)
        return self._channel_write(uaid, carry).addCallback(lambda _: carry.carried)


def _keys_to_store(notification: WebPushNotification) -> tuple[tuple[str, str | None], ...]:
    """What must not be written at the same time as a message."""
    uaid, sort_key = notification.uaid.hex, notification.sort_key
    keys = (uaid, sort_key), (uaid, notification.update_id)
    return (*keys, (uaid, TIMESTAMPED)) if sort_key.startswith(TIMESTAMPED) else keys


def _pass_on(result: Any, other: Deferred[Any]) -> None:
    other.callback(result)


def _tell(result: Any, other: Deferred[None]) -> Any:
    """Fire another Deferred with the outcome, but not the value, of this one."""
    other.callback(result if isinstance(result, Failure) else None)
    return result
