"""Channels of users and where they are kept (spec/storage 8, 9; quirk S4)."""

from __future__ import annotations

from autopush.db.dynamodb.store import DynamoStore
from autopush.tests.db.dynamodb.rotation_support import RotationCase, at
from autopush.tests.db.dynamodb.support import (
    get_item,
    put_item,
)
from autopush.tests.db.store_contract import CHID, CHID2, UAID


class TestFirstChannels(RotationCase):
    """The month changes while the first channel of a new user is written."""

    async def begin(self, store: DynamoStore, month: str, chid: str = CHID) -> str:
        record = {
            "uaid": UAID,
            "router_type": "webpush",
            "connected_at": 1,
            "node_id": "http://node:1",
            "current_month": month,
        }
        return await store.add_first_channel(record, chid)

    async def test_record_of_an_attempt_before_names_the_month(self):
        store = await self.start("2026-11-30 23:59")
        old = store.months.current
        self.assertEqual(await self.begin(store, old), old)
        self.times[0] = at("2026-12-01 00:00")
        await store.rotate()
        new = store.months.current
        self.assertNotEqual(new, old)
        self.assertEqual(await self.begin(store, new, CHID2), old)
        self.assertTrue((await store.get_subscription(UAID, CHID2)).subscribed)

    async def test_month_that_is_not_settled(self):
        store = await self.start("2026-11-30 23:59")
        old = store.months.current
        self.times[0] = at("2026-12-01 00:00")
        await store.rotate()
        self.assertEqual(await self.begin(store, old), old)
        self.assertTrue((await store.get_subscription(UAID, CHID)).subscribed)


class TestBridgeUsers(RotationCase):
    """Quirk S4: their channels don't depend on the month, nor on when a node was started."""

    async def _bridge_user(self, store: DynamoStore) -> None:
        record = {"uaid": UAID, "router_type": "fcm", "connected_at": 1, "router_data": {}}
        await store.register_user(record)

    async def channels(self, store: DynamoStore) -> set[str]:
        return (await store.list_channels(None, UAID)).chids

    async def test_channels_stay_over_months(self):
        store = await self.start("2026-11-15 12:00")
        await self._bridge_user(store)
        await store.add_channel(None, UAID, CHID)
        await store.add_channel(None, UAID, CHID2)
        self.times[0] = at("2027-05-15 12:00")
        await store.rotate()
        self.assertEqual(await self.channels(store), {CHID, CHID2})
        self.assertTrue((await store.get_subscription(UAID, CHID)).subscribed)
        self.assertTrue(await store.remove_channel(None, UAID, CHID))
        self.assertFalse(await store.remove_channel(None, UAID, CHID))
        restarted = await self.start("2027-08-15 12:00")
        self.assertEqual(await self.channels(restarted), {CHID2})

    async def test_channels_are_no_part_of_the_record(self):
        store = await self.start("2026-11-15 12:00")
        await self._bridge_user(store)
        await store.add_channel(None, UAID, CHID)
        self.assertNotIn("chids", await store.get_user(UAID))

    async def test_channels_of_a_user_that_is_gone(self):
        store = await self.start("2026-11-15 12:00")
        await store.add_channel(None, UAID, CHID)
        self.assertIsNone(await store.get_user(UAID))  # no half record is made (quirk S15)

    async def test_channels_registered_at_an_old_node_are_seen_and_kept(self):
        store = await self.start("2026-11-15 12:00")
        await self._bridge_user(store)
        old = self.month("2026_10")  # an old node that was started last month
        row = {"chids": {"SS": [CHID]}, "expiry": {"N": str(int(self.times[0]) + 1000)}}
        put_item(old, {"uaid": {"S": UAID}, "chidmessageid": {"S": " "}, **row})
        self.assertEqual(await self.channels(store), {CHID})
        self.times[0] = at("2027-03-01 00:00")
        await store.rotate()
        self.assertEqual(await self.channels(store), {CHID})

    async def test_channels_registered_here_are_seen_by_an_old_node(self):
        store = await self.start("2026-11-15 12:00")
        await self._bridge_user(store)
        await store.add_channel(None, UAID, CHID)
        row = get_item(self.month("2026_11"), UAID, " ")
        self.assertEqual(row["chids"], {"SS": [CHID]})
        await store.remove_channel(None, UAID, CHID)
        self.assertNotIn("chids", get_item(self.month("2026_11"), UAID, " "))

    async def test_channel_that_an_old_node_removed_is_gone(self):
        store = await self.start("2026-11-15 12:00")
        await self._bridge_user(store)
        await store.add_channel(None, UAID, CHID)
        await store.add_channel(None, UAID, CHID2)
        store.messages.take_channel(self.month("2026_11"), UAID, CHID)  # as 1.58.3 does
        self.assertEqual(await self.channels(store), {CHID2})
        self.assertEqual(get_item(self.router, UAID)["chids"], {"SS": [CHID2]})
        self.assertFalse(await store.remove_channel(None, UAID, CHID))

    async def test_channel_that_an_old_node_removed_months_later_is_gone(self):
        store = await self.start("2026-11-30 12:00")
        await self._bridge_user(store)
        await store.add_channel(None, UAID, CHID)
        self.times[0] = at("2026-12-15 12:00")
        await store.rotate()
        await store.add_channel(None, UAID, CHID2)
        # It was started in November, so that is where it keeps them.
        store.messages.take_channel(self.month("2026_11"), UAID, CHID)
        self.assertEqual(await self.channels(store), {CHID2})

    async def test_row_that_an_old_node_began_tells_nothing_of_other_channels(self):
        store = await self.start("2026-11-30 12:00")
        await self._bridge_user(store)
        await store.add_channel(None, UAID, CHID)
        self.times[0] = at("2027-01-15 12:00")
        await store.rotate()
        store.messages.add_channels(self.month("2027_01"), UAID, {CHID2})  # as 1.58.3 does
        self.assertEqual(await self.channels(store), {CHID, CHID2})

    async def test_channel_that_is_registered_again(self):
        store = await self.start("2026-11-30 12:00")
        await self._bridge_user(store)
        await store.add_channel(None, UAID, CHID)
        self.times[0] = at("2026-12-15 12:00")
        await store.rotate()
        store.messages.take_channel(self.month("2026_11"), UAID, CHID)
        await store.add_channel(None, UAID, CHID)
        self.assertEqual(await self.channels(store), {CHID})
        self.assertTrue(await store.remove_channel(None, UAID, CHID))
        self.assertEqual(await self.channels(store), set())

    async def test_old_node_finds_removed_what_it_must_not_bring_back(self):
        store = await self.start("2026-11-15 12:00")
        await self._bridge_user(store)
        await store.add_channel(None, UAID, CHID)
        store.messages.take_channel(self.month("2026_11"), UAID, CHID)
        self.assertFalse(await store.remove_channel(None, UAID, CHID))
        self.assertEqual(await self.channels(store), set())
        row = get_item(self.month("2026_11"), UAID, " ")
        self.assertEqual(set(row), {"uaid", "chidmessageid", "expiry"})

    async def test_dropped_user_leaves_no_channels(self):
        store = await self.start("2026-11-15 12:00")
        await self._bridge_user(store)
        await store.add_channel(None, UAID, CHID)
        await store.drop_user(UAID)
        self.assertIsNone(get_item(self.router, UAID))
