"""The thread that writes for a back end, here one that keeps lists (db/groupwriter.py)."""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.trial.unittest import TestCase

from autopush.db import groupwriter
from autopush.db.deadlines import TooLate, Unknown
from autopush.db.groupwriter import GroupWriter
from autopush.db.writes import WriteBatch
from autopush.exceptions import StoreBusy, StoreClosed, StoreError
from autopush.tests.db.store_contract import TS, UAID, message


class ListWriter(GroupWriter):
    """Notes batches; ``gate`` is waited for, ``error`` raised."""

    def __init__(self, commit_delay: float = 0.0) -> None:
        super().__init__(reactor, "list-writer", commit_delay)
        self.batches: list[list[Any]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()
        self.fault: Exception | None = None
        self.disconnected = False

    def _write(self, batch: WriteBatch) -> None:
        self.begun.set()
        assert self.gate.wait(60)
        if self.fault:
            raise self.fault
        self.batches.append(list(batch))
        for call in batch.calls:
            call.result = call.function

    def _store_error(self, error: BaseException) -> StoreError:
        return StoreError(str(error))

    def _disconnect(self) -> None:
        self.disconnected = True


class TestGroupWriter(TestCase):
    def make(self, commit_delay: float = 0.0) -> ListWriter:
        writer = ListWriter(commit_delay)
        writer.start()

        def end() -> Any:
            writer.gate.set()
            return writer.close()

        self.addCleanup(end)
        return writer

    async def test_what_comes_while_the_thread_is_at_work_shares_the_next_batch(self):
        writer = self.make()
        writer.gate.clear()
        first = writer.call(1)
        self.addCleanup(writer.gate.set)
        while not writer.begun.is_set():
            await self.turn()
        rest = [writer.call(number) for number in range(2, 9)]
        writer.gate.set()
        self.assertEqual(await gatherResults([first, *rest]), list(range(1, 9)))
        self.assertEqual([len(batch) for batch in writer.batches], [1, 7])

    async def turn(self) -> None:
        from twisted.internet.task import deferLater

        await deferLater(reactor, 0, lambda: None)

    async def test_a_few_callers_are_answered_in_a_turn_and_those_of_messages_first(self):
        """Of a thousand hellos in a batch, whose answers have consequences, none delays these."""
        writer = self.make()
        self.patch(groupwriter, "ANSWERS", 3)
        writer.gate.clear()
        first = writer.call(0)
        while not writer.begun.is_set():
            await self.turn()
        order: list[Any] = []
        calls = [writer.call(number).addCallback(order.append) for number in range(8)]
        put = writer.put(UAID, message(), 0).addCallback(lambda _: order.append("put"))
        writer.gate.set()
        await first
        await put
        seen = [len(order)]
        while len(order) < 9:
            await self.turn()
            if len(order) != seen[-1]:
                seen.append(len(order))
        self.assertEqual(order, ["put", *range(8)])
        self.assertEqual(seen[0], 1)
        self.assertTrue(all(later - sooner <= 3 for sooner, later in pairwise(seen)), seen)
        await gatherResults(calls)

    async def test_close_answers_all(self):
        writer = self.make(commit_delay=60)
        self.patch(groupwriter, "ANSWERS", 1)
        answered: list[Any] = []
        for number in range(20):
            writer.call(number).addCallback(answered.append)
        await writer.close().addCallback(lambda _: self.assertEqual(answered, list(range(20))))

    async def test_what_is_taken_back_or_deleted_in_time_is_not_written(self):
        writer = self.make(commit_delay=0.05)
        taken = writer.put(UAID, message(), 0)
        deleted = writer.put(UAID, message(TS + 1), 0)
        self.assertTrue(writer.take_back(UAID, str(message().update_id)))
        done = writer.delete(UAID, message(TS + 1).sort_key, message(TS + 1).update_id)
        self.assertEqual(await gatherResults([taken, deleted, done]), [None, None, True])
        self.assertEqual(writer.batches, [])

    async def test_a_batch_that_fails_is_known_until_one_works(self):
        writer = self.make()
        writer.fault = OSError("gone")
        await self.assertFailure(writer.call(1), StoreError)
        self.assertEqual(writer.error, "gone")
        writer.fault = None
        self.assertEqual(await writer.call(2), 2)
        self.assertIsNone(writer.error)

    async def test_who_waits_too_long_is_told(self):
        writer = self.make()
        self.patch(groupwriter, "DEADLINE", 0)
        writer.gate.clear()
        begun = writer.call(1)
        while not writer.begun.is_set():
            await self.turn()
        waiting = writer.call(2)
        writer.tell_late()
        await self.assertFailure(begun, Unknown)
        await self.assertFailure(waiting, TooLate)

    async def test_more_than_may_wait_is_refused(self):
        writer = self.make(commit_delay=60)
        self.patch(groupwriter, "MAX_WAITING", 2)
        accepted = [writer.call(number) for number in range(2)]
        await self.assertFailure(writer.call(2), StoreBusy)
        await writer.close()
        self.assertEqual(await gatherResults(accepted), [0, 1])

    async def test_close_writes_what_was_accepted_and_refuses_the_rest(self):
        writer = self.make(commit_delay=60)
        accepted = writer.call(1)
        closed = writer.close()
        await self.assertFailure(writer.call(2), StoreClosed)
        await closed
        self.assertEqual(await accepted, 1)
        self.assertTrue(writer.disconnected)
