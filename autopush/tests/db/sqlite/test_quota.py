"""How much may wait for a user in the embedded store (decisions/quotas)."""

from __future__ import annotations

import uuid
from typing import Any

from hypothesis import given, settings, strategies as st
from twisted.trial.unittest import SynchronousTestCase

from autopush.db.sqlite import quota as sqlite_quota, store as sqlite_module
from autopush.db.sqlite.quota import ROW_OVERHEAD, StoredQuota, Usage, size_of
from autopush.db.sqlite.store import SqliteStore
from autopush.exceptions import StoreError
from autopush.tests.db.sqlite.support import SqliteCase
from autopush.tests.db.store_contract import CHID, CHID2, TS, UAID, message, topic

OTHER_CHANNEL = {"channel_id": uuid.UUID(CHID2)}
BIG = {"data": "x" * 5462, "headers": {"encoding": "aes128gcm"}}


class TestSqlite(SqliteCase):
    """On a real file."""

    number = 0

    async def post(self, store: SqliteStore, **kwargs: Any) -> str | None:
        """As an endpoint does: ask, then store; the refusal."""
        self.number += 1
        notification = message(TS + self.number, **kwargs)
        if kwargs.get("topic"):
            notification = topic(kwargs.pop("topic"), f"v{self.number}", **kwargs)
        refusal = store.refusal(notification)
        if refusal is not None:
            return str(refusal)
        await store.store_message("m", notification)
        return None

    async def test_messages_of_a_user(self):
        store = await self.open_store(max_stored=5)
        self.assertEqual([await self.post(store) for _ in range(5)], [None] * 5)
        for _ in range(3):
            text = "5 messages are waiting for this user agent already"
            self.assertEqual(await self.post(store), text)
        self.assertIsNone(await self.post(store, uaid=uuid.uuid4()))
        await store.delete_message("m", message(TS + 1))
        self.time += 1
        self.assertIsNone(await self.post(store))
        self.assertIsNotNone(await self.post(store))

    async def test_one_channel_cannot_take_the_room_of_others(self):
        store = await self.open_store(max_stored=8, share=25)
        text = "2 messages are waiting for this subscription already"
        self.assertEqual([await self.post(store) for _ in range(4)], [None, None, text, text])
        found = [await self.post(store, **OTHER_CHANNEL) for _ in range(3)]
        self.assertEqual(found, [None, None, text])

    async def test_bytes_of_a_user_and_of_a_channel(self):
        size = size_of(message(**BIG))
        store = await self.open_store(max_stored_bytes=4 * size, share=50)
        half = f"{2 * size} bytes are waiting for this subscription already"
        whole = f"{4 * size} bytes are waiting for this user agent already"
        self.assertEqual([await self.post(store, **BIG) for _ in range(3)], [None, None, half])
        for _ in range(2):
            self.assertIsNone(await self.post(store, **BIG, **OTHER_CHANNEL))
        third = {"channel_id": uuid.uuid4()}
        self.assertEqual(await self.post(store, **BIG, **third), whole)
        self.assertEqual(await self.post(store, **third), whole)

    async def test_what_replaces_its_topic_needs_no_room(self):
        store = await self.open_store(max_stored=2)
        self.assertEqual([await self.post(store, topic="t") for _ in range(9)], [None] * 9)
        self.assertIsNone(await self.post(store))
        self.assertIsNotNone(await self.post(store))
        self.assertIsNone(await self.post(store, topic="t", **BIG))
        self.assertIsNotNone(await self.post(store, topic="u"))

    async def test_a_replacement_has_the_bytes_of_what_it_replaces(self):
        store = await self.open_store(max_stored_bytes=size_of(message(**BIG)))
        self.assertIsNone(await self.post(store, topic="t", **BIG))
        self.assertIsNone(await self.post(store, topic="t", **BIG))
        self.assertIsNotNone(await self.post(store, topic="t", **{**BIG, "data": "x" * 5463}))
        self.assertIsNone(await self.post(store, topic="t"))

    async def test_what_expired_or_was_read_is_not_waiting(self):
        store = await self.open_store(max_stored=2)
        self.assertIsNone(await self.post(store, ttl=10))
        self.assertIsNone(await self.post(store))
        self.assertIsNotNone(await self.post(store))
        self.time += 10
        await store.sweep()
        self.assertIsNone(await self.post(store))
        self.assertIsNotNone(await self.post(store))
        await store.set_pointer("m", UAID, TS + self.number)
        self.time += 1
        self.assertIsNone(await self.post(store))

    async def test_what_was_accepted_is_stored_in_any_case(self):
        """A session that ends saves what it has sent."""
        store = await self.open_store(max_stored=2)
        for number in range(5):
            await store.store_message("m", message(TS + number))
        self.assertEqual(self.sql("SELECT count(*) FROM messages"), [(5,)])
        self.assertIsNotNone(store.refusal(message(TS + 5)))

    async def test_what_another_process_stored_counts(self):
        store, other = await self.open_store(max_stored=4), await self.open_store(max_stored=4)
        for number in range(3):
            await other.store_message("m", message(TS + number))
        self.number = 3
        self.assertIsNone(await self.post(store))  # a hundredth is one, for each process
        self.assertIsNotNone(await self.post(store))

    async def test_0_is_no_limit(self):
        store = await self.open_store()
        for _ in range(300):
            self.assertIsNone(await self.post(store))

    async def test_a_count_that_fails_is_the_answer(self):
        store = await self.open_store(max_stored=1)
        await self.post(store)
        await store.close()
        with self.assertRaises(StoreError):
            store.refusal(message(TS + 9))

    async def test_bytes_are_counted_as_they_are_foreseen(self):
        store = await self.open_store()
        headers = {"encoding": "aesgcm", "encryption": "salt=a", "crypto_key": "dh=b"}
        sent = [
            message(TS, **BIG),
            message(TS + 1),
            message(TS + 2, data="abc", headers=headers, **OTHER_CHANNEL),
            topic("t", "v", data="x", headers={}),
        ]
        for notification in sent:
            await store.store_message("m", notification)
        size = sum(map(size_of, sent))
        self.assertEqual(store._count_messages(UAID, CHID2), (4, size, 1, size_of(sent[2])))
        self.assertEqual(store._count_messages("f" * 32, CHID2), (0, 0, 0, 0))

    async def test_bytes_of_many_are_estimated(self):
        """Of each channel for itself."""
        self.patch(sqlite_module, "SAMPLE", 20)
        store = await self.open_store()
        for number in range(100):
            mine = {**BIG, **OTHER_CHANNEL} if number % 2 else {}
            await store.store_message("m", message(TS + number, **mine))
        small, big = 50 * size_of(message()), 50 * size_of(message(**BIG))
        self.assertEqual(store._count_messages(UAID, CHID2), (100, small + big, 50, big))

    async def test_the_size_of_a_row_is_the_true_one(self):
        """A message takes what is said of it, give or take a fifth."""
        store = await self.open_store()
        version = {"message_id": "v" * 228, "update_id": "v" * 228}
        before = self.sql("PRAGMA page_count")[0][0]
        for number in range(500):
            version["update_id"] = f"{number:0228}"
            store.store_message("m", message(TS + number, **BIG, **version))
        await store.alive()
        pages = self.sql("PRAGMA page_count")[0][0] - before
        ratio = pages * 4096 / (500 * size_of(message(**BIG)))
        self.assertTrue(0.8 < ratio < 1.2, ratio)


class World:
    """A user's rows as they are, and a quota that has to count them."""

    def __init__(self, rows: int, size: int = 0, share: int = 100) -> None:
        self.rows: list[tuple[str, int]] = []
        self.counts = 0
        self.time = 0.0
        self.quota = StoredQuota(
            self.count, lambda key, sort_key: None, lambda: self.time, rows, size, share
        )

    def count(self, key: str, chid: str) -> Usage:
        self.counts += 1
        its = [size for owner, size in self.rows if owner == chid]
        return Usage(len(self.rows), sum(size for _, size in self.rows), len(its), sum(its))

    def post(self, chid: str = CHID, key: str = "user", size: int = 0) -> bool:
        notification = message(channel_id=uuid.UUID(chid), data="x" * size or None)
        if self.quota.refusal(key, notification) is not None:
            return False
        self.quota.stored(key, notification)
        if key == "user":
            self.rows.append((chid, size_of(notification)))
        return True


class TestQuota(SynchronousTestCase):
    """How often it counts, and how exact it is."""

    def test_counting_is_rare(self):
        world = World(10_000)
        self.assertEqual(sum(world.post() for _ in range(12_000)), 10_000)
        self.assertLess(world.counts, 60)

    def test_a_user_who_reads_is_counted_as_rarely(self):
        world = World(10_000, share=25)
        for _ in range(10_000):
            self.assertTrue(world.post())
            world.rows.clear()
        self.assertLess(world.counts, 60)

    def test_refusals_cost_no_count(self):
        """But one in the time a hundred counts take."""
        world = World(1000)
        while world.post():
            pass
        counts = world.counts
        for _ in range(1000):
            world.time += 0.001
            self.assertFalse(world.post())
        self.assertLessEqual(world.counts - counts, 11)

    def test_a_full_channel_does_not_stop_others(self):
        world = World(1000, share=10)
        while world.post():
            pass
        self.assertEqual(len(world.rows), 100)
        self.assertTrue(all(world.post(CHID2) for _ in range(100)))
        self.assertFalse(world.post(CHID2))

    @settings(deadline=None)
    @given(st.integers(1, 600), st.integers(1, 100), st.integers(1, 8))
    def test_no_limit_is_exceeded_by_more_than_a_hundredth_for_each_process(
        self, limit: int, share: int, processes: int
    ) -> None:
        world = World(limit, share=share)
        quotas = [world.quota] + [
            StoredQuota(world.count, lambda *_: None, lambda: 0.0, limit, 0, share)
            for _ in range(processes - 1)
        ]
        accepted = 1
        while accepted:
            accepted = 0
            for quota in quotas:
                world.quota = quota
                accepted += world.post()
        channel = -(-limit * share // 100)
        self.assertGreaterEqual(len(world.rows), channel)
        self.assertLessEqual(len(world.rows), channel + processes * max(1, channel // 100))

    @settings(deadline=None)
    @given(st.lists(st.integers(0, 9000), max_size=60), st.integers(1, 200_000))
    def test_bytes_in_one_process_are_exact(self, sizes: list[int], limit: int) -> None:
        world = World(0, limit)
        for size in sizes:
            used = sum(stored for _, stored in world.rows)
            fits = used + ROW_OVERHEAD + size <= limit
            first = len(world.rows) == 0
            self.assertTrue(world.post(size=size) == fits or (first and world.counts == 0))

    def test_what_it_remembers_is_bounded(self):
        self.patch(sqlite_quota, "MAX_TRACKED", 10)
        world = World(100)
        for number in range(100):
            world.post(str(uuid.UUID(int=number)), key=str(number // 3))
            kept = sum(1 + len(left.channels or ()) for left in world.quota._left.values())
            self.assertLessEqual(kept, 10)
            self.assertEqual(kept, world.quota._tracked)
