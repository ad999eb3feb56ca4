"""What happens to a user, here and on other nodes, while it is being moved to another month
(spec/storage 8.5): each step of the move against each write that may come in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from autopush.db.dynamodb.client import Unavailable
from autopush.db.dynamodb.users import SubscriptionRead
from autopush.db.interface import MOVING_FROM, Connection
from autopush.exceptions import StoreBusy, StoreError
from autopush.tests.db.dynamodb.rotation_support import RotationCase, at
from autopush.tests.db.dynamodb.support import new_store, sort_keys
from autopush.tests.db.store_contract import CHID, CHID2, TS, UAID, message, topic, versions

NODE_A, NODE_B = "http://a.example", "http://b.example"
A, B = Connection(NODE_A, 1000), Connection(NODE_B, 2000)


class MoveCase(RotationCase):
    """A user whose connection A is about to move from November to December."""

    async def setUp(self) -> None:
        super().setUp()
        self.store = await self.start("2026-12-01 00:01")
        self.other = await self.start("2026-12-01 00:01")
        self.old, self.new = self.month("2026_11"), self.month("2026_12")
        await self.store.register_user(
            {
                "uaid": UAID,
                "router_type": "webpush",
                "record_version": 1,
                "current_month": self.old,
                **A._asdict(),
            }
        )
        await self.store.add_channel(self.old, UAID, CHID)

    def move(self, connection: Connection = A) -> Deferred[frozenset[str] | None]:
        return self.store.move_month(UAID, self.old, self.new, connection)

    async def take_over(self) -> None:
        """Connection B says hello at the other node."""
        record = {"uaid": UAID, "router_type": "webpush", **B._asdict()}
        self.assertTrue((await self.other.register_user(record)).written)

    async def subscribed(self, chid: str) -> bool:
        """What a sender is told."""
        return (await self.other.get_subscription(UAID, chid)).subscribed

    async def month_in_record(self) -> str:
        user = await self.other.get_user(UAID)
        assert user is not None
        return str(user["current_month"])

    def before_the_record(self, action: Callable[[], Any]) -> None:
        """Do something between the copy of the channels and the change of the record."""
        users: Any = self.store.users
        set_month = users.set_month

        def act_then_set(*args: Any) -> Any:
            users.set_month = set_month
            action()
            return set_month(*args)

        users.set_month = act_then_set


class TestConnection(MoveCase):
    """The move names the connection it belongs to."""

    async def test_its_own(self):
        self.assertEqual(await self.move(), {CHID})
        self.assertEqual(await self.month_in_record(), self.new)
        self.assertTrue(await self.subscribed(CHID))

    async def test_its_own_though_a_sender_found_the_node_gone(self):
        await self.store.clear_node(UAID, *A)
        self.assertEqual(await self.move(), {CHID})

    async def test_request_that_comes_after_the_next_hello(self):
        await self.store.store_message(self.old, topic("a", "unread"))
        await self.take_over()
        self.assertIsNone(await self.move())
        self.assertEqual(await self.month_in_record(), self.old)
        # What the other connection reads is still where it reads.
        self.assertEqual(versions(await self.other.fetch_topics(self.old, UAID)), ["unread"])
        await self.other.add_channel(self.old, UAID, CHID2)
        self.assertTrue(await self.subscribed(CHID2))
        self.assertEqual(await self.other.move_month(UAID, self.old, self.new, B), {CHID, CHID2})
        self.assertTrue(await self.subscribed(CHID2))
        self.assertEqual(versions(await self.other.fetch_topics(self.new, UAID)), ["unread"])

    async def test_answer_is_lost_and_the_next_hello_is_there(self):
        await self.store.store_message(self.old, topic("a", "late"))
        call = self.store.users.call
        lost = [True]

        def lose_answer(operation: str, /, **parameters: Any) -> dict[str, Any]:
            answer = call(operation, **parameters)
            if lost and "current_month" in parameters.get("UpdateExpression", ""):
                lost.clear()
                record = {"uaid": UAID, "router_type": "webpush", **B._asdict()}
                self.other.users.register(record)
                raise Unavailable("lost", maybe_done=True)
            return answer

        self.store.users.call = lose_answer
        self.assertIsNone(await self.move())
        self.assertEqual(await self.month_in_record(), self.new)
        self.assertTrue(await self.subscribed(CHID))
        self.assertEqual(versions(await self.other.fetch_topics(self.new, UAID)), ["late"])


class TestRegistration(MoveCase):
    """A registration that was answered is never lost."""

    async def test_before_the_record(self):
        self.before_the_record(lambda: self.other.channel_sets.add(self.old, UAID, CHID2))
        self.assertEqual(await self.move(), {CHID, CHID2})
        self.assertTrue(await self.subscribed(CHID2))

    async def test_after_the_record(self):
        await self.move()
        await self.other.add_channel(self.old, UAID, CHID2)
        self.assertTrue(await self.subscribed(CHID2))

    async def test_after_a_move_of_1_58_3_which_names_nobody(self):
        await self.take_over()
        self.store.users.set_month(UAID, self.new, 202612010000)
        self.store.messages.add_channels(self.new, UAID, {CHID})
        await self.other.add_channel(self.old, UAID, CHID2)
        self.assertTrue(await self.subscribed(CHID2))

    async def test_after_a_slow_node_moved_the_user_back(self):
        await self.move()
        self.store.users.set_month(UAID, self.old, 202611010000)
        await self.other.add_channel(self.new, UAID, CHID2)
        self.assertTrue(await self.subscribed(CHID2))

    async def test_of_an_old_node_is_found_by_the_later_look(self):
        known = await self.move()
        self.other.messages.add_channels(self.old, UAID, {CHID2})
        self.assertTrue(await self.store.carry_late(UAID, self.old, self.new, known))
        self.assertTrue(await self.subscribed(CHID2))
        self.assertFalse(await self.store.carry_late(UAID, self.old, self.new, known | {CHID2}))

    async def test_no_other_request_while_no_month_changes(self):
        self.times[0] = at("2026-12-15 12:00")
        operations: list[str] = []
        call = self.store.messages.call

        def counting(operation: str, /, **parameters: Any) -> dict[str, Any]:
            operations.append(operation)
            return call(operation, **parameters)

        self.store.users.call = self.store.messages.call = counting
        await self.store.add_channel(self.new, UAID, CHID2)
        await self.store.remove_channel(self.new, UAID, CHID2)
        # The queries look for what waits for the channel that has ended.
        self.assertEqual(operations, ["update_item"] * 2 + ["query"] * 2)

    async def test_sender_whose_look_up_was_interrupted_by_the_move(self):
        read = SubscriptionRead(self.other.users, UAID, CHID, self.new)
        read._found[self.new] = None  # read before the move; the record was left out
        await self.move()
        self.assertTrue(read(self.other.months.accepts).subscribed)


class TestUnregister(MoveCase):
    """A channel that was ended stays so."""

    async def test_before_the_record(self):
        self.before_the_record(lambda: self.other.channel_sets.remove(self.old, UAID, CHID, set()))
        self.assertEqual(await self.move(), frozenset())
        self.assertFalse(await self.subscribed(CHID))

    async def test_after_the_record(self):
        await self.move()
        self.assertTrue(await self.other.remove_channel(self.old, UAID, CHID))
        self.assertFalse(await self.subscribed(CHID))

    async def test_after_a_move_that_came_to_nothing(self):
        self.before_the_record(lambda: 1 / 0)
        with self.assertRaises(ZeroDivisionError):
            await self.move()
        self.assertTrue(await self.store.remove_channel(self.old, UAID, CHID))
        self.assertEqual(await self.move(), frozenset())
        self.assertFalse(await self.subscribed(CHID))

    async def test_later_look_brings_nothing_back(self):
        known = await self.move()
        self.other.messages.take_channel(self.new, UAID, CHID)
        self.assertFalse(await self.store.carry_late(UAID, self.old, self.new, known))
        self.assertFalse(await self.subscribed(CHID))

    async def test_later_look_ends_nothing_that_was_registered_again(self):
        known = await self.move()
        await self.other.remove_channel(self.new, UAID, CHID)
        self.other.messages.add_channels(self.new, UAID, {CHID})
        await self.store.carry_late(UAID, self.old, self.new, known)
        self.assertTrue(await self.subscribed(CHID))

    async def test_channel_that_was_none(self):
        self.assertFalse(await self.store.remove_channel(self.old, UAID, CHID2))


class TestOtherWrites(MoveCase):
    async def test_touch_makes_no_row_in_the_new_month_and_loses_none(self):
        await self.move()
        await self.other.touch_channels(self.old, UAID)
        self.assertTrue(await self.subscribed(CHID))
        self.assertEqual(sort_keys(self.new, UAID), [" "])

    async def test_deletion_that_comes_after_the_message_was_carried(self):
        self.times[:] = [TS / 1e6] * 2
        self.store.messages.store(self.old, message(TS))()
        await self.move()
        self.assertEqual(len(sort_keys(self.new, UAID)), 2)
        self.assertTrue(await self.other.delete_message(self.old, message(TS)))
        self.assertFalse(await self.other.delete_message(self.old, message(TS)))
        self.assertEqual(sort_keys(self.new, UAID), [" "])


class TestNodeThatDies(MoveCase):
    """In the midst of a move: the next hello has the rest done."""

    async def test_nothing_is_left_of_a_whole_move(self):
        await self.move()
        self.assertNotIn(MOVING_FROM, await self.store.get_user(UAID))

    async def test_after_the_record(self):
        self.times[:] = [TS / 1e6] * 2
        self.before_the_record(
            lambda: (
                self.other.messages.add_channels(self.old, UAID, {CHID2}),
                self.other.messages.store(self.old, message(TS, version="late"))(),
            )
        )
        self.store.messages.topics = lambda *_: 1 / 0  # no further
        self.store.users.month_reached = lambda *_: 1 / 0
        with self.assertRaises(ZeroDivisionError):
            await self.move()
        user = await self.other.get_user(UAID)
        self.assertEqual((user["current_month"], user[MOVING_FROM]), (self.new, self.old))
        self.assertTrue(await self.other.finish_move(UAID, self.old, self.new))
        self.assertTrue(await self.subscribed(CHID2))
        self.assertEqual(versions(await self.other.fetch_since(self.new, UAID, None)), ["late"])
        self.assertNotIn(MOVING_FROM, await self.other.get_user(UAID))

    async def test_mark_that_cannot_be_removed_asks_to_come_back(self):
        call = self.store.users.call

        def fail(operation: str, /, **parameters: Any) -> dict[str, Any]:
            if parameters.get("UpdateExpression", "").startswith("REMOVE"):
                raise StoreError("broken")
            return call(operation, **parameters)

        self.store.users.call = fail
        with self.assertRaises(StoreBusy):
            await self.move()
        self.store.users.call = call
        self.assertEqual(await self.move(), {CHID})
        self.assertNotIn(MOVING_FROM, await self.store.get_user(UAID))


class Pool:
    """Takes work and does it when told."""

    def __init__(self) -> None:
        self.work: list[tuple[Callable[..., Any], Callable[..., Any]]] = []

    def callInThreadWithCallback(self, done: Any, function: Any, *args: Any, **kw: Any) -> None:
        self.work.append((done, lambda: function(*args, **kw)))


class TestAccounting(SynchronousTestCase):
    """Every write is counted, waited for, and refused after the end."""

    WRITES: tuple[Callable[[Any], Deferred[Any]], ...] = (
        lambda store: store.store_message("message", message(TS)),
        lambda store: store.store_and_look("message", message(TS)),
        lambda store: store.delete_message("message", message(TS)),
        lambda store: store.add_channel("message", UAID, CHID),
        lambda store: store.remove_channel("message", UAID, CHID),
        lambda store: store.set_pointer("message", UAID, TS),
        lambda store: store.drop_user(UAID),
        lambda store: store.move_month(UAID, "old", "new"),
        lambda store: store.finish_move(UAID, "old", "new"),
        lambda store: store.carry_late(UAID, "old", "new"),
    )

    def make(self) -> tuple[Any, Pool, Clock]:
        clock: Any = Clock()
        pool = Pool()
        clock.callFromThread = lambda function, *args, **kw: function(*args, **kw)
        store = new_store(reactor=clock, threadpool=pool)
        store.users.call = store.messages.call = lambda *_, **__: {}
        return store, pool, clock

    def test_close_waits(self):
        for write in self.WRITES:
            store, pool, clock = self.make()
            write(store).addErrback(lambda _: None)
            closed: list[None] = []
            store.close().addCallback(closed.append)
            clock.advance(1)
            self.assertEqual((closed, len(pool.work)), ([], 1))
            pool.work.pop()[0](True, None)
            clock.advance(1)
            self.assertEqual(closed, [None])

    def test_refused_after_close(self):
        for write in self.WRITES:
            store, pool, _ = self.make()
            store.close()
            self.failureResultOf(write(store), StoreError)
            self.assertEqual(pool.work, [])

    def test_too_many_are_refused(self):
        for write in self.WRITES:
            store, pool, _ = self.make()
            store._running = 5000
            self.failureResultOf(write(store), StoreBusy)
            self.assertEqual(pool.work, [])
