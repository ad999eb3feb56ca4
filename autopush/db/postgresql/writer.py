"""Writing to PostgreSQL, a batch a transaction (:mod:`autopush.db.groupwriter`).

**Locks.** A transaction begins with advisory locks for all users it writes for, in one order. So of
all processes one at a time writes for a user, and none waits for another that waits for it. What a
statement sees of a user doesn't change until the commit, which is what the order of messages needs
(spec/storage 17.6): else one with an earlier timestamp could be committed after a later one was
read.

**Commits of which nobody knows** whether they came to pass, since the connection broke amid: the
transaction's number is known by then, and the server is asked what has become of it. So nothing is
done twice, and nobody is told that something failed which has not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import psycopg
from twisted.logger import Logger

from autopush.db.deadlines import Unknown
from autopush.db.groupwriter import COMMIT_DELAY, GroupWriter
from autopush.db.postgresql import link, messages
from autopush.db.postgresql.errors import concerns_one, is_broken, store_error
from autopush.db.postgresql.link import Connection, Link
from autopush.db.postgresql.statements import Kind
from autopush.db.writes import Call, Delete, Operation, Put, WriteBatch
from autopush.exceptions import StoreError

log = Logger()

AT_ONCE = 256
"""Operations in a transaction, and so users who are locked by one. PostgreSQL's table has room for
64 locks times ``max_connections``."""


class Change(NamedTuple):
    """What a :class:`~autopush.db.writes.Call` is here: an operation of a kind, about one user."""

    kind: Kind
    values: dict[str, Any]

    @property
    def uaid(self) -> str:
        """The user's key."""
        key: str = self.values["uaid"]
        return key


class Step(NamedTuple):
    """Another one: what needs several statements."""

    uaid: str
    run: Callable[[Connection, int], Any]
    """Takes the connection, and seconds since the epoch."""


class Unsure(Exception):
    """A commit was not answered.

    :ivar number: of the transaction
    """

    def __init__(self, number: str) -> None:
        super().__init__("a commit was not answered")
        self.number = number


def lock_number(uaid: str) -> int:
    """The number of a user's lock, 60 bits of its key."""
    return int(uaid[-15:] or "0", 16)


def key_of(op: Operation) -> str:
    """The user an operation is about."""
    if isinstance(op, Call):
        uaid: str = op.function.uaid
        return uaid
    return op.uaid


def begin(connection: Connection, uaids: Iterable[str]) -> str:
    """Begin a transaction, with the locks of these users; returns its number."""
    numbers = ",".join(map(str, sorted(set(map(lock_number, uaids)))))
    cursor = connection.execute(
        "BEGIN; SELECT pg_current_xact_id()::text, count(pg_advisory_xact_lock(number))"
        f" FROM unnest('{{{numbers}}}'::bigint[]) AS number",
        prepare=False,
    )
    cursor.nextset()
    row = cursor.fetchone()
    assert row is not None
    return str(row[0])


def commit(connection: Connection, number: str) -> None:
    """End it.

    :raises Unsure: nobody knows whether that was done
    """
    try:
        done = connection.execute("COMMIT", prepare=False).statusmessage
    except psycopg.Error as error:
        if is_broken(error):
            raise Unsure(number) from error
        raise
    if done != "COMMIT":
        raise psycopg.errors.InFailedSqlTransaction("nothing was committed")


def run(connection: Connection, ops: Iterable[Operation], now: int) -> None:
    """Carry operations out, noting their results: calls, deletes, puts, as in
    :class:`WriteBatch`."""
    calls: list[Call] = []
    deletes: list[Delete] = []
    puts: list[Put] = []
    for op in ops:
        op.result = None
        if isinstance(op, Call):
            calls.append(op)
        elif isinstance(op, Delete):
            deletes.append(op)
        else:
            puts.append(op)
    for wave in _waves(calls):
        _run_calls(connection, wave, now)
    if deletes:
        messages.delete(connection, deletes, now)
    if puts:
        messages.put(connection, puts, now)


def _waves(calls: list[Call]) -> Iterator[list[Call]]:
    """The calls in an order in which those about one user keep theirs: first everybody's first."""
    while calls:
        seen: set[str] = set()
        wave: list[Call] = []
        later: list[Call] = []
        for call in calls:
            uaid = key_of(call)
            (later if uaid in seen else wave).append(call)
            seen.add(uaid)
        yield wave
        calls = later


def _run_calls(connection: Connection, calls: list[Call], now: int) -> None:
    """Those of one kind at once."""
    kinds: dict[int, list[Call]] = {}
    for call in calls:
        work = call.function
        if isinstance(work, Step):
            call.result = work.run(connection, now)
        else:
            kinds.setdefault(id(work.kind), []).append(call)
    for same in kinds.values():
        kind: Kind = same[0].function.kind
        results = kind.run(connection, [call.function.values for call in same], now)
        for call, result in zip(same, results, strict=True):
            call.result = result


class PostgresqlWriter(GroupWriter):
    """The thread that writes.

    :param reactor: IReactorTime and IReactorFromThreads
    :param parameters: of libpq
    :param now: seconds since the epoch
    :param commit_delay: seconds
    """

    def __init__(
        self,
        reactor: Any,
        parameters: str,
        now: Callable[[], float],
        commit_delay: float = COMMIT_DELAY,
    ) -> None:
        super().__init__(reactor, "postgresql-writer", commit_delay)
        self._now = now
        self._stop = threading.Event()
        self._link = Link(parameters, self._stop)

    def tell_late(self) -> None:
        """Answer those who have waited too long, and end a transaction that doesn't."""
        super().tell_late()
        if self.is_late:
            self._link.abort()

    def _store_error(self, error: BaseException) -> StoreError:
        return store_error(error)

    def _disconnect(self) -> None:
        self._link.drop()

    def _write(self, batch: WriteBatch) -> None:
        ops = iter(batch)
        while not batch.told and (part := list(islice(ops, AT_ONCE))):
            try:
                self._write_part(part)
            except StoreError as error:
                if not concerns_one(error.__cause__ or error):
                    _fail(batch, [*part, *ops], error)
                    return
                for op in part:
                    self._write_alone(op)

    def _write_alone(self, op: Operation) -> None:
        """After an operation, perhaps this one, has failed for reasons of its own."""
        try:
            self._write_part([op])
        except StoreError as error:
            op.result = error
            log.error("Storage operation failed: {error}", error=str(error))

    def _write_part(self, ops: list[Operation]) -> None:
        """One transaction.

        :raises StoreError: it was not carried out; or Unknown
        """
        begun = time.monotonic()

        def attempt(connection: Connection) -> None:
            now = int(self._now())
            number = begin(connection, map(key_of, ops))
            run(connection, ops, now)
            commit(connection, number)

        committed = False
        while not committed:
            try:
                self._link.run(attempt, begun + link.PATIENCE - time.monotonic())
                committed = True
            except StoreError as error:
                unsure = error.__cause__
                if not isinstance(unsure, Unsure):
                    raise
                committed = self._was_committed(unsure.number)

    def _was_committed(self, number: str) -> bool:
        """What has become of a transaction.

        :raises Unknown: nobody can tell
        """
        for _ in range(int(link.PATIENCE / link.PAUSE)):
            try:
                state = self._link.run(lambda c: _state(c, number))
            except StoreError as error:
                raise Unknown from error
            if state != "in progress":
                return state == "committed"
            self._stop.wait(link.PAUSE)
        raise Unknown


def _state(connection: Connection, number: str) -> str | None:
    row = connection.execute("SELECT pg_xact_status(%s::text::xid8)", (number,)).fetchone()
    return row[0] if row else None


def _fail(batch: WriteBatch, ops: Iterable[Operation], error: StoreError) -> None:
    """Let these fail, and the batch be known as one that did."""
    batch.error = error
    for op in ops:
        op.result = type(error)(*error.args)
        op.result.__cause__ = error.__cause__
