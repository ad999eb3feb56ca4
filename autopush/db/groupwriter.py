"""The one thread of a process that writes to its database.

Group commit: what has been asked for while the last transaction was being written shares the
next one, with one fsync, and all callers are answered by one call into the reactor thread. A batch
also waits a moment before the thread gets it: a
direct message that the user agent acknowledges within that time never touches the disk
(:meth:`GroupWriter.take_back`)::

    put, delete, call ──► growing ──COMMIT_DELAY──► ripe ──one turn──► thread ──► answers
                             │                       │
                             └─────take_back─────────┴───────────────────────────► answer

Whoever asked is answered :data:`DEADLINE` seconds later at the latest, also if the thread hangs:
what waits for it then is not begun any more, what it is at may still be written.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from autopush.db.deadlines import TooLate, Unknown
from autopush.db.writes import Call, Delete, Operation, Put, Together, WriteBatch, answer
from autopush.exceptions import StoreBusy, StoreClosed, StoreError
from autopush.message.notification import WebPushNotification
from autopush.waiters import Waiters

log = Logger()

COMMIT_DELAY = 0.002
"""Seconds from the first write of a batch until it is ripe, about what an ack takes on a LAN. Then
follows one more turn of the event loop, so that under load the acks which have come meanwhile are
seen before; what is to be written in that turn belongs to the next batch."""

MAX_WAITING = 20_000
"""Writes that may wait for their batch (some 40 MB of messages), while as many may be on their way
to the disk; further ones are refused as busy."""

DEADLINE = 8.0
"""Seconds from its arrival after which a write that isn't done is answered, as in DynamoDB. A lock
of another process is waited for five seconds; other transactions take milliseconds."""

ANSWERS = 16
"""Callers other than those of messages that are answered in one turn of the event loop, 2 ms of
work. What follows on an answer is done at once: after a restart a batch has hundreds of hellos, and
who sends a message, or has acknowledged one, would wait for all of them."""

STUCK_AFTER = 30
"""Seconds after which a transaction that doesn't end is reported by :attr:`GroupWriter.error`."""


class Turns(Protocol):
    """Whose turn it is to write, of several processes. For the thread that writes."""

    def take(self) -> bool:
        """Wait for our turn; whether it is, or others may write at the same time."""

    def give_back(self) -> None:
        """Our turn is over."""

    def close(self) -> None:
        """There will be none any more."""


class GroupWriter(ABC):
    """See the module. All methods are for the reactor thread.

    :param reactor: IReactorTime and IReactorFromThreads
    :param name: of the thread
    :param commit_delay: seconds
    :param turns: of the processes that write to the same place; None: each writes when it wants
    """

    def __init__(
        self,
        reactor: Any,
        name: str,
        commit_delay: float = COMMIT_DELAY,
        turns: Turns | None = None,
    ) -> None:
        self._reactor = reactor
        self._turns = turns
        self._commit_delay = commit_delay
        self._lock = threading.Lock()
        """Guards _growing, _ripe and what is in them, and _closing."""
        self._gate = threading.Lock()
        """Held while there is nothing to do; the thread waits for it."""
        self._gate.acquire()
        self._gate_open = False
        self._timer: Any = None
        """Whatever happens next with the batches: one becomes ripe, or is started."""
        self._growing = WriteBatch()
        self._since: float | None = None
        """Since when there is something in it, seconds of the reactor's clock."""
        self._ripe: WriteBatch | None = None
        self._taken: dict[WriteBatch, None] = {}
        """Those the thread has and whose end the reactor thread hasn't heard of."""
        self._running = False
        self._closing = False
        self._away: str | None = None
        self._closed: Waiters[None] = Waiters()
        self._taken_out: list[Operation] = []
        self._unanswered: deque[Call] = deque()
        """What is done, in this order."""
        self._started: float | None = None
        self._failing: str | None = None
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)

    # ---- for the back end, all in the thread

    @abstractmethod
    def _write(self, batch: WriteBatch) -> None:
        """Write the batch, noting each operation's result, or why all of them failed."""

    @abstractmethod
    def _store_error(self, error: BaseException) -> StoreError:
        """What an error means to callers."""

    @abstractmethod
    def _disconnect(self) -> None:
        """There is nothing more to write."""

    # ---- for the store

    def start(self) -> None:
        """Start the thread."""
        self._running = True
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether there is a thread that writes."""
        return self._thread.is_alive()

    def refuse(self, reason: str | None) -> None:
        """Refuse all that comes from now on, for this reason; None: take it again."""
        self._away = reason

    def tell_late(self) -> None:
        """Answer those who have waited too long. To be called about once a second."""
        limit = self._reactor.seconds() - DEADLINE
        unbegun: list[Operation] = []
        with self._lock:
            unknown = [batch for batch in self._taken if not batch.told and batch.since <= limit]
            if self._ripe is not None and self._ripe.since <= limit:
                unbegun += self._ripe
                self._ripe = WriteBatch()  # for the thread to find, which has been called
            if self._since is not None and self._since <= limit:
                unbegun += self._growing
                self._growing, self._since = WriteBatch(), None
        for op in unbegun:
            _fail(op, TooLate)
        for batch in unknown:
            batch.told = True
            for op in batch:
                _fail(op, Unknown)

    @property
    def waiting(self) -> int:
        """Writes that were taken and are not done."""
        with self._lock:
            batches = [self._growing, *self._taken]
            if self._ripe is not None:
                batches.append(self._ripe)
            return sum(map(len, batches))

    @property
    def error(self) -> str | None:
        """What is wrong with writing, or None."""
        if not self._thread.is_alive():
            return "the writer thread is not running"
        return "a transaction doesn't end" if self.is_stuck else self._failing

    @property
    def is_late(self) -> bool:
        """Whether the thread is at what nobody waits for any more."""
        with self._lock:
            return any(batch.told for batch in self._taken)

    @property
    def is_stuck(self) -> bool:
        """Whether the thread has been at the same transaction for too long."""
        started = self._started
        return started is not None and time.monotonic() - started > STUCK_AFTER

    def call(self, function: Any) -> Deferred[Any]:
        """Have this done in the next transaction, see :class:`Call`; its result."""
        op = Call(function)
        with self._lock:
            if self._accepts(op):
                self._growing.calls.append(op)
        return op.deferred

    def put(self, uaid: str, notification: WebPushNotification, now: int) -> Deferred[None]:
        """Store a message; see :class:`Put`."""
        op = Put(uaid, notification, now)
        with self._lock:
            if self._accepts(op):
                self._growing.put(op)
        return op.deferred

    def delete(self, uaid: str, sort_key: str, update_id: str | None) -> Deferred[bool]:
        """Delete a message; whether there was one."""
        deferred: Deferred[bool] = Deferred()
        self._delete(Delete(uaid, sort_key, update_id, deferred=deferred))
        return deferred

    def delete_all(self, messages: Sequence[tuple[str, str, str | None]]) -> Deferred[None]:
        """Delete messages, each named as for :meth:`delete`; fires when none is left."""
        together = Together(len(messages))
        for names in messages:
            self._delete(Delete(*names, deferred=together))
        return together.deferred

    def _delete(self, op: Delete) -> None:
        with self._lock:
            out = self._batch_of(op).delete(op) if self._accepts(op) else None
        if out and not op.puts:
            op.result = True
            self._fire_soon(op)
            for put in out:
                self._fire_soon(put)

    def take_back(self, uaid: str, update_id: str) -> bool:
        """Don't store this message after all; whether it was still time for that."""
        with self._lock:
            put = self._growing.take_back(uaid, update_id)
            if put is None and self._ripe is not None:
                put = self._ripe.take_back(uaid, update_id)
        if put is None:
            return False
        self._fire_soon(put)
        return True

    def close(self) -> Deferred[None]:
        """Write what was accepted, refuse everything else, end the thread."""
        closed = self._closed.wait()
        with self._lock:
            self._closing = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._gate_open:
            self._open_gate()
        if not self._thread.is_alive():
            self._finish_closing()
        return closed

    # ---- reactor thread

    def _accepts(self, op: Operation) -> bool:
        if self._closing:
            refused: StoreError = StoreClosed("the store is closed")
        elif not self._running:
            refused = StoreError("the writer thread is not running")
        elif self._away is not None:
            refused = StoreBusy(self._away)
        elif self._since is not None and len(self._growing) >= MAX_WAITING:
            refused = StoreBusy("too many writes are waiting")
        else:
            if self._since is None:
                self._since = self._reactor.seconds()
                self._ripen_when_due()
            return True
        op.result = refused
        self._fire_soon(op)
        return False

    def _batch_of(self, op: Delete) -> WriteBatch:
        """Where the message is that this deletes, if it waits."""
        if self._ripe is not None and self._ripe.holds(op) and not self._growing.holds(op):
            return self._ripe
        return self._growing

    def _ripen_when_due(self) -> None:
        """Let the growing batch follow the one before."""
        if self._since is None or self._ripe is not None or self._timer is not None:
            return
        if not self._closing:
            age = self._reactor.seconds() - self._since
            self._timer = self._reactor.callLater(max(0, self._commit_delay - age), self._ripen)

    def _ripen(self) -> None:
        with self._lock:
            if self._since is None:
                self._timer = None
                return  # all of it was late
            self._ripe, self._growing = self._growing, WriteBatch()
            self._ripe.since, self._since = self._since, None
        self._timer = self._reactor.callLater(0, self._start_batch)

    def _start_batch(self) -> None:
        """Let the thread have the ripe batch, unless nothing is left of it."""
        self._timer = None
        ripe = self._ripe
        if ripe is not None and (ripe.puts or ripe.deletes or ripe.calls):
            self._open_gate()
        else:
            self._ripe = None
            self._ripen_when_due()

    def _open_gate(self) -> None:
        self._gate_open = True
        self._gate.release()

    def _fire_soon(self, op: Operation) -> None:
        """Answer in the next turn of the loop: the caller is amid something else now."""
        self._taken_out.append(op)
        if len(self._taken_out) == 1:
            self._reactor.callLater(0, self._fire_taken_out)

    def _fire_taken_out(self) -> None:
        ops, self._taken_out = self._taken_out, []
        for op in ops:
            answer(op)

    def _finish(self, batch: WriteBatch) -> None:
        failing = None if batch.error is None else str(batch.error)
        if failing is not None and failing != self._failing:
            log.error("Storage can't be written: {error}", error=failing)
        self._failing = failing
        with self._lock:
            self._taken.pop(batch, None)
        self._ripen_when_due()
        if not batch.told:
            batch.answer_messages()
            answering = bool(self._unanswered)
            self._unanswered += batch.calls
            if self._unanswered and not answering:
                self._answer_calls()

    def _answer_calls(self) -> None:
        """Some in this turn, the others in the next ones."""
        calls = self._unanswered
        for _ in range(len(calls) if self._closing else min(ANSWERS, len(calls))):
            answer(calls.popleft())
        if calls:
            self._reactor.callLater(0, self._answer_calls)

    def _finish_closing(self) -> None:
        if self._thread.ident is not None:
            self._thread.join()
        self._answer_calls()
        self._closed.fire(None)

    # ---- writer thread

    def _loop(self) -> None:
        turns, closing = self._turns, False
        while not closing:
            self._gate.acquire()
            if turns is not None:
                turns.take()  # until then more may be taken back from the batch
            with self._lock:
                self._gate_open = False
                batch, self._ripe = self._ripe, None
                closing = self._closing
                if batch is not None:
                    self._taken[batch] = None
            if batch is not None:
                self._process(batch)
            if turns is not None:
                turns.give_back()
        with self._lock:
            rest, self._growing = self._growing, WriteBatch()
        self._process(rest)
        self._running = False
        if turns is not None:
            turns.close()
        self._disconnect()
        self._reactor.callFromThread(self._finish_closing)

    def _process(self, batch: WriteBatch) -> None:
        self._started = time.monotonic()
        try:
            if batch.puts or batch.deletes or batch.calls:
                self._write(batch)
        except BaseException as error:
            # Whatever it is, callers must hear of it and the thread must live.
            batch.fail(self._store_error(error))
        self._started = None
        # Also of one from which everything was taken back: the next one waits for this.
        self._reactor.callFromThread(self._finish, batch)


def _fail(op: Operation, error: type[TooLate | Unknown]) -> None:
    """Answer before there is a result; the thread may be about to note one."""
    for put in op.puts if isinstance(op, Delete) else ():
        _fail(put, error)
    op.deferred.errback(Failure(error()))
