"""What operations cost (spec/storage 16; each request costs most of a millisecond)."""

from __future__ import annotations

import uuid
from typing import Any

from autopush.constants import MAX_EXPIRY
from autopush.db.lastconnect import generate_last_connect
from autopush.tests.db.dynamodb.rows_support import RowsCase, n
from autopush.tests.db.dynamodb.support import get_item, sort_keys
from autopush.tests.db.store_contract import (
    CHID,
    CHID2,
    NODE,
    START,
    TS,
    UAID,
    message,
    topic,
)


class TestRequests(RowsCase):
    """How many requests an operation takes (spec/storage 16; each costs most of a millisecond)."""

    async def setUp(self) -> None:
        await super().setUp()
        self.operations: list[str] = []
        call = self.store.users.call

        def counting(operation: str, /, **parameters: Any) -> dict[str, Any]:
            self.operations.append(operation)
            return call(operation, **parameters)

        self.store.users.call = self.store.messages.call = counting
        await self.store.register_user(
            {
                "uaid": UAID,
                "router_type": "webpush",
                "connected_at": 1,
                "current_month": self.month,
            }
        )
        await self.store.add_channel(self.month, UAID, CHID)
        self.operations.clear()

    async def test_subscription_is_one_request(self):
        self.assertTrue((await self.store.get_subscription(UAID, CHID)).subscribed)
        self.assertEqual(self.operations, ["batch_get_item"])

    async def test_subscription_in_another_month_is_two(self):
        old = self.store.months.neighbours()[0]
        await self.store.add_channel(old, UAID, CHID2)
        await self.store.register_user(
            {"uaid": UAID, "router_type": "webpush", "connected_at": 2, "current_month": old}
        )
        self.operations.clear()
        self.assertTrue((await self.store.get_subscription(UAID, CHID2)).subscribed)
        self.assertFalse((await self.store.get_subscription(UAID, CHID)).subscribed)
        self.assertEqual(self.operations, ["batch_get_item", "get_item"] * 2)
        for _ in range(10):
            await self.store.get_subscription(UAID, CHID2)
        self.operations.clear()  # by now it is known where most users are
        self.assertTrue((await self.store.get_subscription(UAID, CHID2)).subscribed)
        self.assertEqual(self.operations, ["batch_get_item"])

    async def test_hello_touches_only_once_a_day(self):
        for _ in range(2):
            touched = self.store.touch_channels(self.month, UAID)
            await self.store.fetch_topics(self.month, UAID)
            await touched
        self.assertEqual(self.operations, ["query", "query"])
        self.time += 86_400
        touched = self.store.touch_channels(self.month, UAID)
        await self.store.fetch_topics(self.month, UAID)
        await touched
        self.assertEqual(self.operations[2:], ["query", "update_item"])
        expiry = get_item(self.month, UAID, " ")["expiry"]
        self.assertEqual(expiry, n(int(self.time) + MAX_EXPIRY))

    async def test_hello_of_a_user_without_channels_touches_nothing(self):
        nobody = uuid.uuid4().hex
        touched = self.store.touch_channels(self.month, nobody)
        await self.store.fetch_topics(self.month, nobody)
        await touched
        self.assertEqual(self.operations, ["query"])

    async def test_return_of_a_plain_user_is_one_request(self):
        record = {
            "uaid": UAID,
            "router_type": "webpush",
            "connected_at": 9000,
            "node_id": NODE,
            "current_month": self.month,
            "record_version": 1,
            "last_connect": generate_last_connect(self.time),
        }
        await self.store.register_user(record)
        self.operations.clear()
        arrival = await self.store.return_user(UAID, "http://new", 9001)
        self.assertEqual(tuple(arrival), (True, record))
        self.assertEqual(self.operations, ["update_item"])
        # Whoever isn't costs no more than before, where the server tells why.
        self.operations.clear()
        arrival = await self.store.return_user(UAID, "http://late", 9001)
        record.update(node_id="http://new", connected_at=9001)
        self.assertEqual(tuple(arrival), (False, record))
        self.assertIn(self.operations, [["update_item"], ["update_item", "get_item"]])

    async def test_touch_alone(self):
        await self.store.touch_channels(self.month, UAID)
        self.assertEqual(self.operations, ["update_item"])

    async def test_stored_message_is_two_requests_and_a_topic_message_one(self):
        self.time = START - 0.4  # its timestamp is fresh
        await self.store.store_message(self.month, message(TS))
        self.assertEqual(self.operations, ["put_item", "query"])
        await self.store.store_message(self.month, topic("t", "v"))
        self.assertEqual(self.operations[2:], ["put_item"])

    async def test_everything_else_is_one_request(self):
        store, month = self.store, self.month
        await store.get_user(UAID)
        await store.register_user({"uaid": UAID, "router_type": "webpush", "connected_at": 2})
        await store.fetch_topics(month, UAID)
        await store.fetch_since(month, UAID, None)
        await store.set_pointer(month, UAID, TS)
        await store.list_channels(month, UAID)
        await store.add_channel(month, UAID, CHID2)
        await store.delete_message(month, topic("t", "v"))
        await store.clear_node(UAID, NODE, 2)
        await store.drop_user(UAID)
        self.assertEqual(len(self.operations), 10)

    async def test_the_end_of_a_channel(self):
        store, month = self.store, self.month
        await store.add_channel(month, UAID, CHID2)
        read, waiting = (
            message(TS, channel_id=uuid.UUID(CHID2)),
            message(TS + 1, channel_id=uuid.UUID(CHID2)),
        )
        await store.store_message(month, read)
        await store.store_message(month, waiting)
        await store.set_pointer(month, UAID, TS)
        self.operations.clear()
        await store.remove_channel(month, UAID, CHID2)
        self.assertEqual(self.operations, ["update_item", "query", "query", "delete_item"])
        # What was read stays, as late senders find their place by it.
        self.assertEqual(sort_keys(month, UAID), [" ", read.sort_key])
