"""Rows as 1.58.3 writes them are read, and ours are of exactly its types (spec/storage 2, 3, 4)."""

from __future__ import annotations

import uuid

from twisted.trial.unittest import SynchronousTestCase

from autopush.constants import MAX_EXPIRY
from autopush.db.dynamodb.items import (
    read_message,
    read_record,
    read_value,
    write_message,
    write_value,
)
from autopush.tests.db.dynamodb.rows_support import NOW, RowsCase, n, s
from autopush.tests.db.dynamodb.support import get_item, put_item, raw_call, rows
from autopush.tests.db.store_contract import (
    CHID,
    CHID2,
    NODE,
    TS,
    UAID,
    legacy,
    message,
    topic,
    versions,
)

PAYLOAD = {"encoding": "aesgcm", "encryption": "salt=a", "crypto_key": "dh=b"}


LETTERS = "abcdefab-cdef-4abc-8def-abcdefabcdef"
"""A channel that can be spelt in more than two ways."""

OTHER_SPELLINGS = (
    LETTERS.replace("-", ""),
    LETTERS.upper(),
    LETTERS.replace("-", "").upper(),
    LETTERS[:20] + LETTERS[20:].upper(),
)


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

    async def test_preflight_leaves_nothing_behind(self):
        for table in (self.router, self.month):
            self.assertEqual(raw_call("scan", TableName=table)["Items"], [])


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
