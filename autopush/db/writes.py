"""Writes that wait for the writer thread (:mod:`autopush.db.groupwriter`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from autopush.db.rows import write_message
from autopush.exceptions import StoreError
from autopush.message.notification import WebPushNotification


@attrs.define(eq=False)
class Call:
    """Any write.

    :ivar function: what is to be done in the batch's transaction, in the back end's own form
    :ivar result: what the Deferred will get; an exception: as its failure
    """

    function: Any
    deferred: Deferred[Any] = attrs.field(factory=Deferred, init=False)
    result: Any = attrs.field(default=None, init=False)


class Put:
    """A message to store. Most direct ones are acknowledged before they are written, so the row is
    made when it is needed.

    :param uaid: the key its user has in the file
    :param now: seconds since the epoch
    :ivar timestamp: sort-key timestamp (µs), None for topic and legacy messages
    """

    __slots__ = ("_columns", "deferred", "notification", "now", "result", "timestamp", "uaid")

    def __init__(self, uaid: str, notification: WebPushNotification, now: int) -> None:
        self.uaid = uaid
        self.notification = notification
        self.now = now
        timestamped = not (notification.topic or notification.legacy)
        self.timestamp = (
            (notification.sortkey_timestamp or notification.order()) if timestamped else None
        )
        self._columns: tuple[Any, ...] | None = None
        self.deferred: Deferred[Any] = Deferred()
        self.result: Any = None

    @property
    def columns(self) -> tuple[Any, ...]:
        """The row, in the order of the table."""
        if self._columns is None:
            self._columns = (self.uaid, *write_message(self.notification, self.now))
        return self._columns


class Together:
    """Stands in several operations for their Deferreds.

    :param count: how many there are
    :ivar deferred: fires when all of them have been answered; with the first failure, if any
    """

    __slots__ = ("_failure", "_left", "deferred")

    def __init__(self, count: int) -> None:
        self._left = count
        self._failure: Failure | None = None
        self.deferred: Deferred[None] = Deferred()
        if not count:
            self.deferred.callback(None)

    def callback(self, result: object) -> None:
        """One is done."""
        self._left -= 1
        if self._left:
            return
        if self._failure is None:
            self.deferred.callback(None)
        else:
            self.deferred.errback(self._failure)

    def errback(self, failure: Failure) -> None:
        """One has failed."""
        self._failure = self._failure or failure
        self.callback(None)


@attrs.define(eq=False)
class Delete:
    """A message to delete.

    :ivar update_id: delete only the row with this one; None: whatever is there
    :ivar puts: those it took out of its own batch. They are answered with it: until it is written,
        the row which they were to replace is still there
    """

    uaid: str
    sort_key: str
    update_id: str | None
    deferred: Deferred[Any] | Together = attrs.field(factory=Deferred, kw_only=True)
    puts: list[Put] = attrs.field(factory=list, init=False)
    result: Any = attrs.field(default=None, init=False)


Operation = Call | Put | Delete


def answer(op: Operation) -> None:
    """Tell its caller the result."""
    if isinstance(op, Delete):
        failed = op.result if isinstance(op.result, Exception) else None
        for put in op.puts:
            put.result = failed
            answer(put)
    if isinstance(op.result, Exception):
        op.deferred.errback(Failure(op.result))
    else:
        op.deferred.callback(op.result)


@attrs.define(eq=False)
class WriteBatch:
    """Writes that will share one transaction.

    They are run as: calls, deletes, puts. That keeps what callers may rely on: calls stay in
    order among themselves, and of messages they touch only those of a channel that ends, or of a
    session that has ended; a pointer that moves while a message waits is known when the message
    is stored; and a delete of a message that still waits here takes the message out
    (:meth:`delete`), so none meets a put that came before it.

    :ivar error: why nothing of it could be written
    :ivar since: when the first of it came in, once it is ripe; seconds of the reactor's clock
    :ivar told: whether its callers have been answered, before its end
    """

    calls: list[Call] = attrs.field(factory=list, init=False)
    deletes: list[Delete] = attrs.field(factory=list, init=False)
    puts: dict[Put, None] = attrs.field(factory=dict, init=False)
    error: StoreError | None = attrs.field(default=None, init=False)
    since: float = attrs.field(default=0.0, init=False)
    told: bool = attrs.field(default=False, init=False)
    _waiting: dict[str, dict[Put, None]] = attrs.field(factory=dict, init=False)
    """Puts by user."""
    _by_id: dict[str, Put | None] = attrs.field(factory=dict, init=False)
    """Timestamped puts by update id; None: there are several with this one."""

    def __len__(self) -> int:
        return len(self.calls) + len(self.deletes) + len(self.puts)

    def __iter__(self) -> Iterator[Operation]:
        yield from self.calls
        yield from self.deletes
        yield from self.puts

    def fail(self, error: StoreError) -> None:
        """Let all of it fail with this error."""
        self.error = error
        for op in self:
            op.result = type(error)(*error.args)
            op.result.__cause__ = error.__cause__

    def answer_messages(self) -> None:
        """Tell the results to all but those who wait for calls."""
        ops: list[Operation] = [*self.deletes, *self.puts]
        for op in ops:
            answer(op)

    def put(self, op: Put) -> None:
        """Add a message to store."""
        self.puts[op] = None
        waiting = self._waiting.get(op.uaid)
        if waiting is None:
            waiting = self._waiting[op.uaid] = {}
        waiting[op] = None
        update_id = op.notification.update_id
        if update_id and op.timestamp is not None:
            self._by_id[update_id] = None if update_id in self._by_id else op

    def take_back(self, uaid: str, update_id: str) -> Put | None:
        """Take a timestamped message out again; None if it is not (or not only once) here."""
        put = self._by_id.get(update_id)
        if put is None or put.uaid != uaid or put not in self.puts:
            return None
        self._remove(put)
        return put

    def _remove(self, put: Put) -> None:
        del self.puts[put]
        waiting = self._waiting[put.uaid]
        del waiting[put]
        if not waiting:
            del self._waiting[put.uaid]
        update_id = put.notification.update_id
        if update_id and self._by_id.get(update_id) is put:
            del self._by_id[update_id]

    def holds(self, op: Delete) -> bool:
        """Whether the message to delete is among those to store."""
        waiting = self._waiting.get(op.uaid)
        return waiting is not None and _last_match(waiting, op) is not None

    def delete(self, op: Delete) -> list[Put] | None:
        """Add a message to delete, or take it out if it is among those to store.

        :returns: the puts taken out, None if there are none. After taking out puts of a topic
            the delete still is part of the batch, for the stored row they would have replaced
        """
        waiting = self._waiting.get(op.uaid)
        match = _last_match(waiting, op) if waiting else None
        if waiting is None or match is None:
            self.deletes.append(op)
            return None
        sort_key, update_id = match.notification.sort_key, match.notification.update_id
        # Also what came before it and is the same message (timestamped) or was replaced (topic).
        out = [
            put
            for put in waiting
            if put.notification.sort_key == sort_key
            and (match.timestamp is None or put.notification.update_id == update_id)
        ]
        if match.timestamp is None:
            op.update_id = None
            op.puts = out
            self.deletes.append(op)
        for put in out:
            self._remove(put)
        return out


def _last_match(waiting: dict[Put, None], op: Delete) -> Put | None:
    """The waiting message that the delete means."""
    for put in reversed(waiting):
        sort_key, update_id = put.notification.sort_key, put.notification.update_id
        if sort_key == op.sort_key:
            if op.update_id is None or update_id == op.update_id:
                return put
            # A newer message of the topic: whatever the delete meant is gone by then.
            if put.timestamp is None:
                return None
        elif op.update_id is not None and update_id == op.update_id:
            return put
    return None
