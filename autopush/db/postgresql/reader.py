"""Reading from PostgreSQL: what is asked for at the same time goes there together.

A request for one row costs a thread hop, a round trip and a statement, which is more than all the
rest of what a message needs. So what is asked for in one turn of the reactor, and while all threads
are at work, becomes a batch, in which everything of a kind is one statement::

    read ──► growing ──end of the turn, and a thread is free──► thread ──► answers

What is read was true after it was asked for. Whoever asked is answered
:data:`~autopush.db.groupwriter.DEADLINE` seconds later at the latest.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from autopush.db import groupwriter
from autopush.db.deadlines import TooLate
from autopush.db.postgresql.errors import concerns_one, store_error
from autopush.db.postgresql.link import Connection, Link
from autopush.db.postgresql.statements import Kind
from autopush.exceptions import StoreBusy, StoreClosed, StoreError
from autopush.waiters import Waiters

THREADS = 2
"""One reads, the other one is there for when that takes long."""

SLOW = 0.005
"""Seconds after which a read is not waited for any more, before the next one begins."""

AT_ONCE = 128
"""Reads in a batch: others shall not wait long for a thread that has very many."""

MAX_WAITING = 20_000
"""Reads that may wait; further ones are refused as busy."""

Task = Callable[[Connection], Any]


class Read:
    """Something to be read, of a kind or by a function of its own."""

    __slots__ = ("deferred", "result", "since", "task", "told", "values")

    def __init__(self, task: Kind | Task, values: dict[str, Any], since: float) -> None:
        self.task = task
        self.values = values
        self.since = since
        self.told = False
        self.deferred: Deferred[Any] = Deferred()
        self.result: Any = None


class _Thread:
    """One of the threads, and what it is at."""

    def __init__(self, number: int, loop: Callable[[_Thread], None], link: Link) -> None:
        self.link = link
        self.batches: queue.SimpleQueue[list[Read] | None] = queue.SimpleQueue()
        self.batch: list[Read] = []
        name = f"postgresql-reader-{number}"
        self.thread = threading.Thread(target=loop, args=(self,), name=name, daemon=True)


class GroupReader:
    """See the module. All methods are for the reactor thread.

    :param reactor: IReactorTime and IReactorFromThreads
    :param parameters: of libpq
    :param now: seconds since the epoch
    """

    def __init__(self, reactor: Any, parameters: str, now: Callable[[], float]) -> None:
        self._reactor = reactor
        self._now = now
        self._stop = threading.Event()
        self._threads = [
            _Thread(number, self._loop, Link(parameters, self._stop)) for number in range(THREADS)
        ]
        self._idle = list(self._threads)
        self._growing: list[Read] = []
        self._timer: Any = None  # IDelayedCall
        self._started = self._closing = False
        self._closed: Waiters[None] = Waiters()

    # ---- for the store

    def start(self) -> None:
        """Start the threads."""
        self._started = True
        for one in self._threads:
            one.thread.start()

    def read(self, kind: Kind, **values: Any) -> Deferred[Any]:
        """Carry out an operation; its result."""
        return self._add(kind, values)

    def call(self, task: Task) -> Deferred[Any]:
        """Run ``task(connection)`` by itself; it may begin a transaction and has to commit it."""
        return self._add(task, {})

    def tell_late(self) -> None:
        """Answer those who have waited too long. To be called about once a second."""
        limit = self._reactor.seconds() - groupwriter.DEADLINE
        late = 0
        for op in self._growing:
            if op.since > limit:
                break
            late += 1
            op.deferred.errback(Failure(TooLate()))
        del self._growing[:late]
        for one in self._threads:
            told = [op for op in one.batch if op.since <= limit and not op.told]
            for op in told:
                op.told = True
                op.deferred.errback(Failure(StoreBusy("the database doesn't answer in time")))
            if told:
                one.link.abort()

    def close(self) -> Deferred[None]:
        """Finish what was begun, refuse everything else, end the threads."""
        closed = self._closed.wait()
        self._closing = True
        self._stop.set()
        waiting, self._growing = self._growing, []
        for op in waiting:
            op.deferred.errback(Failure(StoreClosed("the store is closed")))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for one in self._idle:
            one.batches.put(None)
        if not self._started or len(self._idle) == len(self._threads):
            self._finish_closing()
        return closed

    # ---- reactor thread

    def _add(self, task: Kind | Task, values: dict[str, Any]) -> Deferred[Any]:
        op = Read(task, values, self._reactor.seconds())
        if self._closing or not self._started:
            op.deferred.errback(Failure(StoreClosed("the store is closed")))
        elif len(self._growing) >= MAX_WAITING:
            op.deferred.errback(Failure(StoreBusy("too many reads are waiting")))
        else:
            self._growing.append(op)
            self._start_soon()
        return op.deferred

    def _start_soon(self) -> None:
        """Let an idle thread have what comes in this turn, or, if another one will be back at any
        moment, what comes until then."""
        if self._timer is None and self._idle and self._growing:
            delay = 0.0 if len(self._idle) == THREADS else SLOW
            self._timer = self._reactor.callLater(delay, self._start_batch)

    def _start_batch(self) -> None:
        self._timer = None
        if not self._growing:
            return
        one = self._idle.pop()
        one.batch = self._growing[:AT_ONCE]
        del self._growing[:AT_ONCE]
        one.batches.put(one.batch)
        self._start_soon()

    def _finish(self, one: _Thread) -> None:
        batch, one.batch = one.batch, []
        self._idle.append(one)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._closing:
            one.batches.put(None)
        else:
            self._start_batch()
        for op in batch:
            if op.told:
                continue
            if isinstance(op.result, Exception):
                op.deferred.errback(Failure(op.result))
            else:
                op.deferred.callback(op.result)
        if self._closing and len(self._idle) == len(self._threads):
            self._finish_closing()

    def _finish_closing(self) -> None:
        for one in self._threads:
            if one.thread.ident is not None:
                one.thread.join()
        self._closed.fire(None)

    # ---- the threads

    def _loop(self, one: _Thread) -> None:
        while (batch := one.batches.get()) is not None:
            try:
                self._carry_out(one.link, batch)
            except BaseException as error:
                # Whatever it is, callers must hear of it and the thread must live.
                for op in batch:
                    op.result = store_error(error)
            self._reactor.callFromThread(self._finish, one)
        one.link.drop()

    def _carry_out(self, link: Link, batch: list[Read]) -> None:
        kinds: dict[int, list[Read]] = {}
        for op in batch:
            if isinstance(op.task, Kind):
                kinds.setdefault(id(op.task), []).append(op)
            else:
                try:
                    op.result = link.run(op.task)
                except StoreError as error:
                    op.result = error
        for ops in kinds.values():
            self._run(link, ops)

    def _run(self, link: Link, ops: list[Read]) -> None:
        """Those of one kind."""
        kind = ops[0].task
        assert isinstance(kind, Kind)
        values, now = [op.values for op in ops], int(self._now())
        try:
            results: list[Any] = link.run(lambda c: kind.run(c, values, now))
        except StoreError as error:
            if len(ops) > 1 and concerns_one(error.__cause__ or error):
                for op in ops:
                    self._run(link, [op])
                return
            results = [error] * len(ops)
        for op, result in zip(ops, results, strict=True):
            op.result = result
