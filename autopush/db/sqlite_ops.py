"""Writes that wait for the writer thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import Deferred

from autopush.exceptions import StoreError


class Call:
    """Any write: ``function(connection)`` inside the batch's transaction.

    :ivar result: what the Deferred will get; an exception: as its failure
    """

    __slots__ = ("deferred", "function", "result")

    def __init__(self, function: Callable[[sqlite3.Connection], Any]) -> None:
        self.function = function
        self.deferred: Deferred[Any] = Deferred()
        self.result: Any = None


class Put:
    """A message to store.

    :ivar columns: the row, in the order of the table
    :ivar timestamp: sort-key timestamp (µs), None for topic and legacy messages
    :ivar careful: another message of the same batch may have the same timestamp
    """

    __slots__ = ("careful", "columns", "deferred", "result", "timestamp")

    def __init__(self, columns: tuple[Any, ...], timestamp: int | None) -> None:
        self.columns = columns
        self.timestamp = timestamp
        self.careful = False
        self.deferred: Deferred[Any] = Deferred()
        self.result: Any = None


class Delete:
    """A message to delete.

    :ivar update_id: delete only the row with this one; None: whatever is there
    :ivar puts: those it took out of its own batch. They are answered with it: until it is written,
        the row which they were to replace is still there
    """

    __slots__ = ("deferred", "puts", "result", "sort_key", "uaid", "update_id")

    def __init__(self, uaid: str, sort_key: str, update_id: str | None) -> None:
        self.uaid = uaid
        self.sort_key = sort_key
        self.update_id = update_id
        self.puts: list[Put] = []
        self.deferred: Deferred[Any] = Deferred()
        self.result: Any = None


Operation = Call | Put | Delete


class WriteBatch:
    """Writes that will share one transaction.

    They are run as: calls, deletes, puts. That keeps what callers may rely on: calls stay in
    order among themselves and touch no messages; a pointer that moves while a message waits is
    known when the message is stored; and a delete of a message that still waits here takes the
    message out (:meth:`delete`), so none meets a put that came before it.
    """

    __slots__ = ("_places", "_waiting", "announced", "calls", "deletes", "error", "puts")

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.deletes: list[Delete] = []
        self.puts: dict[Put, None] = {}
        self._waiting: dict[str, list[Put]] = {}
        self._places: set[tuple[str, int]] = set()
        self.announced = False
        """Whether the writer thread knows that there is something to do."""
        self.error: StoreError | None = None
        """Why nothing of it could be written."""

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

    def put(self, op: Put) -> None:
        """Add a message to store."""
        self.puts[op] = None
        uaid = op.columns[0]
        self._waiting.setdefault(uaid, []).append(op)
        if op.timestamp is not None:
            place = (uaid, op.timestamp)
            op.careful = place in self._places
            self._places.add(place)

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
        _uaid, sort_key, update_id = match.columns[:3]
        # Also what came before it and is the same message (timestamped) or was replaced (topic).
        out = [
            put
            for put in waiting
            if put.columns[1] == sort_key
            and (match.timestamp is None or put.columns[2] == update_id)
        ]
        if match.timestamp is None:
            op.update_id = None
            op.puts = out
            self.deletes.append(op)
        for put in out:
            waiting.remove(put)
            del self.puts[put]
        return out


def _last_match(waiting: list[Put], op: Delete) -> Put | None:
    """The waiting message that the delete means."""
    for put in reversed(waiting):
        _uaid, sort_key, update_id = put.columns[:3]
        if sort_key == op.sort_key:
            if op.update_id is None or update_id == op.update_id:
                return put
            # A newer message of the topic: whatever the delete meant is gone by then.
            if put.timestamp is None:
                return None
        elif op.update_id is not None and update_id == op.update_id:
            return put
    return None
