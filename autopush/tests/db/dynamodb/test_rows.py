"""Rows as 1.58.3 writes them are read, and ours are of exactly its types (spec/storage 2, 3, 4)."""

from __future__ import annotations

import uuid
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from autopush.constants import MAX_EXPIRY
from autopush.db.dynamodb.client import ConditionFailed, DynamoError
from autopush.db.dynamodb.items import (
    read_message,
    read_record,
    read_value,
    write_message,
    write_value,
)
from autopush.db.dynamodb.messages import RESTAMPS
from autopush.db.dynamodb.users import Users
from autopush.db.lastconnect import generate_last_connect
from autopush.tests.db.dynamodb.support import get_item, put_item, raw_call, rows, sort_keys
from autopush.tests.db.dynamodb.test_contract import DynamoCase
from autopush.tests.db.store_contract import (
    CHID,
    CHID2,
    NODE,
    START,
    TS,
    UAID,
    legacy,
    message,
    topic,
    versions,
)

NOW = int(START)
PAYLOAD = {"encoding": "aesgcm", "encryption": "salt=a", "crypto_key": "dh=b"}


def s(text: str) -> dict[str, Any]:
    return {"S": text}


def n(number: int | str) -> dict[str, Any]:
    return {"N": str(number)}


LETTERS = "abcdefab-cdef-4abc-8def-abcdefabcdef"
"""A channel that can be spelt in more than two ways."""

OTHER_SPELLINGS = (
    LETTERS.replace("-", ""),
    LETTERS.upper(),
    LETTERS.replace("-", "").upper(),
    LETTERS[:20] + LETTERS[20:].upper(),
)


class RowsCase(DynamoCase):
    async def setUp(self) -> None:
        self.time = START
        self.store = await self.open_store()
        self.month = self.store.months.current
        self.router = self.store.users.table

    def row(self, sort_key: str, **attributes: Any) -> None:
        put_item(self.month, {"uaid": s(UAID), "chidmessageid": s(sort_key), **attributes})


class TestReadingOldRows(RowsCase):
    async def test_webpush_record(self):
        put_item(
            self.router,
            {
                "uaid": s(UAID),
                "router_type": s("webpush"),
                "node_id": s(NODE),
                "connected_at": n(1795459299164),
                "last_connect": n(202611180006),
                "current_month": s(self.month),
                "record_version": n(1),
            },
        )
        self.assertEqual(
            await self.store.get_user(UAID),
            {
                "uaid": UAID,
                "router_type": "webpush",
                "node_id": NODE,
                "connected_at": 1795459299164,
                "last_connect": 202611180006,
                "current_month": self.month,
                "record_version": 1,
            },
        )

    async def test_bridge_record(self):
        data = {
            "token": s("t"),
            "app_id": s("app"),
            "creds": {"M": {"senderID": s("sender"), "auth": s("secret")}},
        }
        put_item(
            self.router,
            {
                "uaid": s(UAID),
                "router_type": s("fcm"),
                "router_data": {"M": data},
                "connected_at": n("1.795459299164E+12"),
                "last_connect": n(202611180006),
                "expiry": n(0),
                "critical_failure": s("Missing SenderID"),
            },
        )
        user = await self.store.get_user(UAID)
        self.assertEqual(
            user["router_data"],
            {"token": "t", "app_id": "app", "creds": {"senderID": "sender", "auth": "secret"}},
        )
        self.assertEqual(
            (user["connected_at"], user["expiry"], user["critical_failure"]),
            (1795459299164, 0, "Missing SenderID"),
        )
        self.assertIs(type(user["connected_at"]), int)

    async def test_record_of_the_preflight_check(self):
        # current_month as a number; a look-up must not take it for a table
        put_item(
            self.router,
            {
                "uaid": s(UAID),
                "router_type": s("webpush"),
                "connected_at": n(0),
                "current_month": n(11),
            },
        )
        found = await self.store.get_subscription(UAID, CHID)
        self.assertEqual((found.user["current_month"], found.subscribed), (11, False))

    async def test_channel_row(self):
        self.row(
            " ",
            chids={"SS": [CHID, CHID2]},
            expiry=n(NOW + 100),
            current_timestamp=n(TS),
        )
        channels = await self.store.list_channels(self.month, UAID)
        self.assertEqual(tuple(channels), (True, {CHID, CHID2}))
        self.assertEqual((await self.store.fetch_topics(self.month, UAID)).timestamp, TS)

    async def test_channels_in_other_spellings(self):
        for text in OTHER_SPELLINGS:
            self.row(" ", chids={"SS": [text, CHID2]}, expiry=n(NOW + 100))
            record = {"uaid": s(UAID), "router_type": s("webpush"), "connected_at": n(0)}
            put_item(self.router, {**record, "current_month": s(self.month)})
            self.assertTrue((await self.store.get_subscription(UAID, LETTERS)).subscribed, text)
            channels = await self.store.list_channels(self.month, UAID)
            self.assertEqual(tuple(channels), (True, {LETTERS, CHID2}))
            self.assertTrue(await self.store.remove_channel(self.month, UAID, LETTERS))
            self.assertFalse((await self.store.get_subscription(UAID, LETTERS)).subscribed)
            self.assertTrue((await self.store.get_subscription(UAID, CHID2)).subscribed)
            self.assertFalse(await self.store.remove_channel(self.month, UAID, LETTERS))

    async def test_channels_of_a_bridge_user_in_other_spellings(self):
        for text in OTHER_SPELLINGS:
            record = {"uaid": s(UAID), "router_type": s("fcm"), "connected_at": n(0)}
            put_item(self.router, {**record, "chids": {"SS": [text, CHID2]}})
            self.assertTrue((await self.store.get_subscription(UAID, LETTERS)).subscribed, text)
            self.assertEqual((await self.store.list_channels(None, UAID)).chids, {LETTERS, CHID2})
            self.assertTrue(await self.store.remove_channel(None, UAID, LETTERS))
            self.assertEqual((await self.store.list_channels(None, UAID)).chids, {CHID2})

    async def test_channel_that_is_no_uuid_is_listed_as_it_is(self):
        self.row(" ", chids={"SS": ["channel", CHID2]}, expiry=n(NOW + 100))
        channels = await self.store.list_channels(self.month, UAID)
        self.assertEqual(channels.chids, {"channel", CHID2})

    async def test_channel_row_whose_set_became_empty(self):
        self.row(" ", expiry=n(NOW + 100))
        self.assertEqual(tuple(await self.store.list_channels(self.month, UAID)), (True, set()))
        self.assertTrue((await self.store.remove_channel(self.month, UAID, CHID)) is False)
        await self.store.add_channel(self.month, UAID, CHID)
        self.assertEqual((await self.store.list_channels(self.month, UAID)).chids, {CHID})

    async def test_message_with_payload(self):
        self.row(
            f"02:{TS}:{CHID}",
            updateid=s("version"),
            data=s("QUJD"),
            headers={"M": {name: s(text) for name, text in PAYLOAD.items()}},
            ttl=n(5184000),
            timestamp=n(NOW),
            expiry=n(NOW + MAX_EXPIRY),
        )
        (stored,) = (await self.store.fetch_since(self.month, UAID, None)).messages
        self.assertEqual(
            stored,
            message(
                TS,
                version="version",
                data="QUJD",
                headers=PAYLOAD,
                ttl=5184000,
                timestamp=NOW,
                source="Stored",
            ),
        )

    async def test_message_without_payload_has_null_headers(self):
        self.row(
            f"01:{CHID}:t",
            updateid=s("version"),
            headers={"NULL": True},
            ttl=n(60),
            timestamp=n(NOW),
            expiry=n(NOW + 60),
        )
        (stored,) = (await self.store.fetch_topics(self.month, UAID)).messages
        self.assertEqual((stored.topic, stored.data, stored.headers), ("t", None, None))

    async def test_null_ttl(self):
        # an un-acked direct message that was sent without TTL
        self.row(
            f"02:{TS}:{CHID}",
            updateid=s("version"),
            headers={"NULL": True},
            ttl={"NULL": True},
            timestamp=n(NOW),
            expiry=n(NOW + 60),
        )
        (stored,) = (await self.store.fetch_since(self.month, UAID, None)).messages
        self.assertEqual(stored.ttl, 0)

    async def test_numbers_in_any_notation(self):
        self.row(
            f"02:{TS}:{CHID}",
            updateid=s("version"),
            headers={"NULL": True},
            ttl=n("60.0"),
            timestamp=n(f"{NOW / 1e9}E+9"),
            expiry=n(NOW + 60),
        )
        (stored,) = (await self.store.fetch_since(self.month, UAID, None)).messages
        self.assertEqual((stored.ttl, stored.timestamp), (60, NOW))

    async def test_null_timestamp_is_unreadable(self):
        # quirks S20, spec/websocket Q15: it made the user's fetch fail for ever
        self.row(
            f"02:{TS}:{CHID}",
            updateid=s("version"),
            headers={"NULL": True},
            ttl=n(60),
            timestamp={"NULL": True},
            expiry=n(NOW + 60),
        )
        self.assertEqual((await self.store.fetch_since(self.month, UAID, None))[:2], (TS, []))
        self.assertEqual(rows(self.month, UAID), [])

    async def test_legacy_sort_keys(self):
        for update_id in ({}, {"updateid": s("other")}):
            self.row(
                f"{CHID}:message-id",
                headers={"NULL": True},
                ttl=n(60),
                timestamp=n(NOW),
                expiry=n(NOW + 60),
                **update_id,
            )
            (stored,) = (await self.store.fetch_since(self.month, UAID, None)).messages
            self.assertEqual((stored.version, stored.legacy), ("message-id", True))
            self.assertTrue(await self.store.delete_message(self.month, stored))

    async def test_legacy_message_is_deleted_by_its_token(self):
        # quirk S7
        self.row(f"{CHID}:m1", headers={"NULL": True}, ttl=n(60), timestamp=n(NOW), expiry=n(NOW))
        known = legacy(CHID, "m1")
        known.update_id = "m1"
        self.assertTrue(await self.store.delete_message(self.month, known))

    async def test_fixed_point_of_the_read_pointer(self):
        # 1.58.3 reads K = 02:<ts>:z: everything of the same microsecond is skipped
        for chid in (CHID, CHID2):
            self.row(
                f"02:{TS}:{chid}",
                updateid=s(chid),
                headers={"NULL": True},
                ttl=n(60),
                timestamp=n(NOW),
                expiry=n(NOW + 60),
            )
        self.assertEqual(versions(await self.store.fetch_since(self.month, UAID, TS)), [])


class TestWritingRows(RowsCase):
    async def test_webpush_record(self):
        await self.store.register_user(
            {
                "uaid": UAID,
                "router_type": "webpush",
                "node_id": NODE,
                "connected_at": 1795459299164,
                "last_connect": 202611180006,
                "record_version": 1,
                "current_month": self.month,
            }
        )
        self.assertEqual(
            get_item(self.router, UAID),
            {
                "uaid": s(UAID),
                "router_type": s("webpush"),
                "node_id": s(NODE),
                "connected_at": n(1795459299164),
                "last_connect": n(202611180006),
                "record_version": n(1),
                "current_month": s(self.month),
            },
        )

    async def test_bridge_record(self):
        await self.store.register_user(
            {
                "uaid": UAID,
                "router_type": "gcm",
                "router_data": {"token": "t", "creds": {"senderID": "s", "auth": "a"}},
                "connected_at": 1,
                "last_connect": 202611180006,
                "expiry": 0,
            }
        )
        self.assertEqual(
            get_item(self.router, UAID),
            {
                "uaid": s(UAID),
                "router_type": s("gcm"),
                "router_data": {
                    "M": {"token": s("t"), "creds": {"M": {"senderID": s("s"), "auth": s("a")}}}
                },
                "connected_at": n(1),
                "last_connect": n(202611180006),
                "expiry": n(0),
            },
        )

    async def test_channel_row(self):
        await self.store.add_channel(self.month, UAID, CHID)
        row = {
            "uaid": s(UAID),
            "chidmessageid": s(" "),
            "chids": {"SS": [CHID]},
            "expiry": n(NOW + MAX_EXPIRY),
        }
        self.assertEqual(get_item(self.month, UAID, " "), row)
        await self.store.set_pointer(self.month, UAID, TS)
        row["current_timestamp"] = n(TS)
        self.assertEqual(get_item(self.month, UAID, " "), row)
        await self.store.remove_channel(self.month, UAID, CHID)
        del row["chids"]  # there is no empty set
        self.assertEqual(get_item(self.month, UAID, " "), row)

    async def test_channel_row_past_its_expiry_counts_until_it_is_removed(self):
        # 10: 1.58.3 never looked at it, and tables without a TTL keep their rows (quirk S19)
        self.row(" ", chids={"SS": [CHID]}, expiry=n(NOW), current_timestamp=n(TS))
        self.assertEqual(tuple(await self.store.list_channels(self.month, UAID)), (True, {CHID}))
        await self.store.set_pointer(self.month, UAID, TS - 9)
        self.assertEqual(
            get_item(self.month, UAID, " "),
            {
                "uaid": s(UAID),
                "chidmessageid": s(" "),
                "chids": {"SS": [CHID]},
                "current_timestamp": n(TS),
                "expiry": n(NOW + MAX_EXPIRY),
            },
        )

    async def test_message_past_its_expiry_counts_until_it_is_too_late(self):
        for expiry in (NOW - 1, NOW):
            self.row(
                f"02:{TS + expiry - NOW}:{CHID}",
                updateid=s("v"),
                headers={"NULL": True},
                ttl=n(60 + expiry - NOW),
                timestamp=n(NOW - 59),
                expiry=n(expiry),
            )
        batch = await self.store.fetch_since(self.month, UAID, None)
        self.assertEqual([found.sortkey_timestamp for found in batch.messages], [TS])

    async def test_message_with_payload(self):
        await self.store.store_message(
            self.month, message(TS, version="v", data="QUJD", headers=PAYLOAD, ttl=5184000)
        )
        (row,) = rows(self.month, UAID)
        self.assertEqual(
            row,
            {
                "uaid": s(UAID),
                "chidmessageid": s(f"02:{TS}:{CHID}"),
                "updateid": s("v"),
                "data": s("QUJD"),
                "headers": {"M": {name: s(text) for name, text in PAYLOAD.items()}},
                "ttl": n(5184000),
                "timestamp": n(NOW),
                "expiry": n(NOW + MAX_EXPIRY),
            },
        )

    async def test_topic_message_without_payload(self):
        await self.store.store_message(self.month, topic("t", "v", ttl=60))
        (row,) = rows(self.month, UAID)
        self.assertEqual(
            row,
            {
                "uaid": s(UAID),
                "chidmessageid": s(f"01:{CHID}:t"),
                "updateid": s("v"),
                "headers": {"NULL": True},
                "ttl": n(60),
                "timestamp": n(NOW),
                "expiry": n(NOW + 60),
            },
        )

    async def test_missing_ttl_and_timestamp(self):
        # quirk S20: 0 and now
        await self.store.store_message(self.month, message(TS, ttl=None, timestamp=None))
        (row,) = rows(self.month, UAID)
        self.assertEqual((row["ttl"], row["timestamp"], row["expiry"]), (n(0), n(NOW), n(NOW)))

    async def test_overtaken_message_takes_the_next_free_timestamp(self):
        # 17.6
        await self.store.store_message(self.month, message(TS + 10, version="first"))
        await self.store.store_message(self.month, message(TS, version="second"))
        self.assertEqual(
            sort_keys(self.month, UAID), [f"02:{TS + 10}:{CHID}", f"02:{TS + 11}:{CHID}"]
        )

    async def test_overtaken_message_that_is_stored_again_keeps_one_row(self):
        await self.store.store_message(self.month, message(TS + 10, version="first"))
        for _ in range(2):
            await self.store.store_message(self.month, message(TS, version="second"))
        self.assertEqual(
            sort_keys(self.month, UAID), [f"02:{TS + 10}:{CHID}", f"02:{TS + 11}:{CHID}"]
        )

    async def test_messages_that_move_at_the_same_time_don_t_replace_each_other(self):
        """The place after the last message may be taken between the look and the write."""
        await self.store.store_message(self.month, message(TS + 10, version="first"))
        store = self.store
        call = store.messages.call

        def rival(operation: str, /, **request: Any) -> dict[str, Any]:
            item = request.get("Item", {})
            if operation == "put_item" and item.get("chidmessageid") == s(f"02:{TS + 11}:{CHID}"):
                store.messages.call = call
                self.row(f"02:{TS + 11}:{CHID}", updateid=s("rival"), headers={"NULL": True})
            return call(operation, **request)

        store.messages.call = rival
        await store.store_message(self.month, message(TS, version="second"))
        found = {row["chidmessageid"]["S"]: row["updateid"]["S"] for row in rows(self.month, UAID)}
        self.assertEqual(
            found,
            {
                f"02:{TS + 10}:{CHID}": "first",
                f"02:{TS + 11}:{CHID}": "rival",
                f"02:{TS + 12}:{CHID}": "second",
            },
        )

    async def test_message_that_is_overtaken_again_and_again_stays_in_the_end(self):
        """Where others are quicker each time, it is read by whoever begins a pass after it."""
        store = self.store
        call = store.messages.call
        own: list[int] = []

        def overtake(operation: str, /, **request: Any) -> dict[str, Any]:
            answer = call(operation, **request)
            if operation == "put_item":
                stamp = int(request["Item"]["chidmessageid"]["S"].split(":")[1])
                own.append(stamp)
                self.row(f"02:{stamp + 1}:{CHID2}", updateid=s("other"), headers={"NULL": True})
            return answer

        store.messages.call = overtake
        await store.store_message(self.month, message(TS, version="own"))
        self.assertEqual(own, [TS + 2 * move for move in range(RESTAMPS + 1)])
        kept = [row for row in rows(self.month, UAID) if row["updateid"] == s("own")]
        self.assertEqual([row["chidmessageid"] for row in kept], [s(f"02:{own[-1]}:{CHID}")])

    async def test_message_whose_place_another_one_has_taken_gets_the_next(self):
        """One that moved may have come to the place of one that was just on its way."""
        self.row(f"02:{TS}:{CHID}", updateid=s("moved"), headers={"NULL": True})
        await self.store.store_message(self.month, message(TS, version="own"))
        found = {row["chidmessageid"]["S"]: row["updateid"]["S"] for row in rows(self.month, UAID)}
        self.assertEqual(found, {f"02:{TS}:{CHID}": "moved", f"02:{TS + 1}:{CHID}": "own"})

    async def test_preflight_leaves_nothing_behind(self):
        for table in (self.router, self.month):
            self.assertEqual(raw_call("scan", TableName=table)["Items"], [])


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


class TestValues(SynchronousTestCase):
    def test_values_come_back(self):
        for value in (
            "",
            "ü",
            0,
            -5,
            10**30,
            1.5,
            None,
            True,
            {"a": {"b": [1, "x"]}},
            {"s"},
            b"\0",
        ):
            self.assertEqual(read_value(write_value(value)), value)

    def test_number_sets_and_binary_sets_are_read(self):
        self.assertEqual(read_value({"NS": ["1", "2"]}), {1, 2})
        self.assertEqual(read_value({"BS": [b"x"]}), {b"x"})

    def test_what_cannot_be_stored(self):
        self.assertRaises(TypeError, write_value, object())

    def test_key_of_a_record_is_the_plain_uaid(self):
        # quirk S1
        self.assertEqual(
            read_record({"uaid": {"S": "f" * 64}, "a": {"N": "1"}}, UAID)["uaid"], UAID
        )

    def test_attribute_of_a_wrong_type_makes_a_row_unreadable(self):
        good = write_message(UAID, message(TS, data="QUJD", headers=PAYLOAD), NOW)
        read_message(uuid.UUID(UAID), good)
        for name in ("chidmessageid", "updateid", "data", "headers", "timestamp"):
            for value in ({"B": b"x"}, {"L": []}):
                with self.assertRaises(ValueError, msg=name):
                    read_message(uuid.UUID(UAID), {**good, name: value})


class TestServersThatTellLess(SynchronousTestCase):
    """Not all know ``ReturnValuesOnConditionCheckFailure``, or do what it asks for."""

    def _users(self, *answers: Any) -> Users:
        self.calls: list[tuple[str, bool]] = []
        left = list(answers)

        def call(operation: str, /, **parameters: Any) -> Any:
            asked = "ReturnValuesOnConditionCheckFailure" in parameters
            self.calls.append((operation, asked))
            answer = left.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return Users(call, "router", str, lambda: NOW)

    def _failed(self, item: Any) -> ConditionFailed:
        failed = ConditionFailed("no")
        failed.item = item
        return failed

    def test_server_that_refuses_the_question(self):
        refusal = DynamoError("unknown parameter")
        refusal.code = "ValidationException"
        old = {"Attributes": {"uaid": s(UAID), "router_type": s("webpush")}}
        users = self._users(refusal, old, old)
        for _ in range(2):
            self.assertTrue(users.reconnect("m", UAID, NODE, 1).written)
        self.assertEqual([asked for _, asked in self.calls], [True, False, False])

    def test_other_refusals_are_passed_on(self):
        refusal = DynamoError("no")
        refusal.code = "AccessDeniedException"
        with self.assertRaises(DynamoError):
            self._users(refusal).reconnect("m", UAID, NODE, 1)

    def test_server_that_does_not_answer_it(self):
        item = {"uaid": s(UAID), "router_type": s("webpush")}
        users = self._users(self._failed(None), {"Item": item}, self._failed(None), {})
        expected = {"uaid": UAID, "router_type": "webpush"}
        self.assertEqual(tuple(users.reconnect("m", UAID, NODE, 1)), (False, expected))
        self.assertEqual(tuple(users.reconnect("m", UAID, NODE, 1)), (False, None))
        self.assertEqual([name for name, _ in self.calls], ["update_item", "get_item"] * 2)

    def test_server_that_does_is_not_asked_about_nobody(self):
        item = {"uaid": s(UAID), "router_type": s("webpush")}
        users = self._users(self._failed(item), self._failed(None))
        self.assertFalse(users.reconnect("m", UAID, NODE, 1).written)
        self.assertEqual(tuple(users.reconnect("m", UAID, NODE, 1)), (False, None))
        self.assertEqual([name for name, _ in self.calls], ["update_item"] * 2)
