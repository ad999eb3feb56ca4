"""What every storage back end must do: one suite, run on each of them (spec/storage 9, 10, 17).

A back end's test class is ``class TestX(StoreContract, TestCase)`` with the three methods on top.
"""

from __future__ import annotations

import uuid
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from autopush.constants import MAX_EXPIRY
from autopush.db.interface import Connection
from autopush.db.lastconnect import generate_last_connect
from autopush.exceptions import AutopushException
from autopush.message.notification import WebPushNotification
from autopush.message.urgency import NORMAL

UAID = "deadbeef00000000deadbeef00000001"
OTHER = "deadbeef00000000deadbeef00000002"
CHID = "11111111-1111-4111-8111-111111111111"
CHID2 = "22222222-2222-4222-8222-222222222222"
NODE = "http://node.example:8081"
TS = 1_795_459_299_000_000
START = 1_795_459_299.5


def message(ts: int | None = TS, **kwargs: Any) -> WebPushNotification:
    """A timestamped message; with ``topic`` or ``legacy`` another one."""
    version = kwargs.pop("version", f"version-{ts}-{kwargs.get('topic', '')}")
    values: dict[str, Any] = {
        "uaid": uuid.UUID(UAID),
        "channel_id": uuid.UUID(CHID),
        "ttl": 3600,
        "timestamp": int(START),
        "sortkey_timestamp": ts,
        "message_id": version,
        "update_id": version,
    }
    values.update(kwargs)
    return WebPushNotification(**values)


def topic(name: str, version: str, **kwargs: Any) -> WebPushNotification:
    return message(None, topic=name, version=version, **kwargs)


def legacy(chid: str, version: str, **kwargs: Any) -> WebPushNotification:
    return message(
        None, channel_id=uuid.UUID(chid), version=version, update_id=None, legacy=True, **kwargs
    )


def versions(batch: Any) -> list[str | None]:
    return [notification.version for notification in batch.messages]


class StoreContract:
    """The suite."""

    store: Any
    time: float

    # ---- for the back end

    def make_store(self) -> Any:
        """Awaitable of a store that has been set up, whose clock is ``self.time`` (s)."""
        raise NotImplementedError

    def put_raw(self, sort_key: str, **columns: Any) -> Any:
        """Put a row of :data:`UAID` into the table, however wrong. May return an awaitable.

        ``update_id``, ``data``, ``headers`` (text), ``ttl``, ``timestamp``, ``expiry``.
        """
        raise NotImplementedError

    def put_record(self, uaid: str, record: dict[str, Any]) -> Any:
        """Put a router record into the table, however wrong. May return an awaitable."""
        raise NotImplementedError

    def count_rows(self) -> Any:
        """Stored messages of :data:`UAID`, expired or not. May return an awaitable."""
        raise NotImplementedError

    # ---- helpers

    async def setUp(self) -> None:
        self.time = START
        self.store = await self.make_store()
        self.month = self.store.months.current

    async def register(self, **values: Any) -> Any:
        record = {
            "uaid": UAID,
            "router_type": "webpush",
            "connected_at": 1000,
            "node_id": NODE,
            "current_month": self.month,
            **values,
        }
        return await self.store.register_user(record)

    async def put(self, *messages: WebPushNotification) -> None:
        for notification in messages:
            await self.store.store_message(self.month, notification)

    async def topics(self, limit: int = 10) -> Any:
        return await self.store.fetch_topics(self.month, UAID, limit)

    async def since(self, timestamp: int | None = None, limit: int = 10) -> Any:
        return await self.store.fetch_since(self.month, UAID, timestamp, limit)

    # ---- get (9, 17.2)

    async def test_get_user_unknown(self):
        self.assertIsNone(await self.store.get_user(UAID))

    async def test_get_user_returns_record_with_plain_uaid(self):
        await self.register()
        self.assertEqual(
            await self.store.get_user(UAID),
            {
                "uaid": UAID,
                "router_type": "webpush",
                "connected_at": 1000,
                "node_id": NODE,
                "current_month": self.month,
            },
        )

    async def test_get_user_result_is_the_callers_own(self):
        await self.register()
        (await self.store.get_user(UAID))["node_id"] = "changed"
        self.assertEqual((await self.store.get_user(UAID))["node_id"], NODE)

    async def test_get_user_bare_record_counts_as_none_and_is_removed(self):
        await self._await(self.put_record(UAID, {}))
        self.assertIsNone(await self.store.get_user(UAID))
        self.assertFalse(await self.store.drop_user(UAID))

    async def _await(self, result: Any) -> Any:
        return await result if hasattr(result, "__await__") else result

    async def test_record_is_an_open_map(self):
        data = {"token": "t", "nested": {"aps": {"alert": "grüße"}, "list": [1, None, True]}}
        await self.register(router_data=data, something_new="kept", count=12345678901234567)
        user = await self.store.get_user(UAID)
        self.assertEqual(user["router_data"], data)
        self.assertEqual((user["something_new"], user["count"]), ("kept", 12345678901234567))

    # ---- return (spec/websocket 7)

    async def plain(self, **values: Any) -> Any:
        """A record of a user that was here this month; returns it."""
        last = generate_last_connect(self.time)
        await self.register(**{"record_version": 1, "last_connect": last, **values})
        return await self.store.get_user(UAID)

    async def test_return_of_nobody(self):
        self.assertEqual(tuple(await self.store.return_user(UAID, NODE, 2000)), (False, None))
        self.assertIsNone(await self.store.get_user(UAID))

    async def test_return_gives_the_record_as_it_was(self):
        record = await self.plain(something_new="kept")
        written, previous = await self.store.return_user(UAID, "http://other", 2000)
        self.assertEqual(previous, record)
        if written:
            record.update(node_id="http://other", connected_at=2000)
        self.assertEqual(await self.store.get_user(UAID), record)

    async def test_return_leaves_what_is_not_plain(self):
        for odd in (
            {"connected_at": 2000},
            {"connected_at": 2001},
            {"current_month": "message_2026_01"},
            {"record_version": 0},
            {"last_connect": 202610180006},
            {"last_connect": 202612180006},
        ):
            await self.store.drop_user(UAID)
            record = await self.plain(**odd)
            arrival = await self.store.return_user(UAID, "http://other", 2000)
            self.assertEqual(tuple(arrival), (False, record), odd)
            self.assertEqual(await self.store.get_user(UAID), record)
        for missing in ("record_version", "last_connect", "current_month", "connected_at"):
            await self.store.drop_user(UAID)
            record = await self.plain()
            del record[missing], record["uaid"]
            await self.store.drop_user(UAID)
            await self._await(self.put_record(UAID, record))
            arrival = await self.store.return_user(UAID, "http://other", 2000)
            self.assertEqual(tuple(arrival), (False, {**record, "uaid": UAID}), missing)
            self.assertEqual(await self.store.get_user(UAID), {**record, "uaid": UAID})
        await self.store.drop_user(UAID)
        record = await self.plain(router_type="fcm")
        arrival = await self.store.return_user(UAID, "http://other", 2000)
        self.assertEqual(tuple(arrival), (False, record))

    # ---- register (9, 17.2)

    async def test_register_new_user_has_no_previous(self):
        self.assertEqual(tuple(await self.register()), (True, {}))

    async def test_register_returns_record_as_it_was_before(self):
        await self.register()
        written, previous = await self.register(connected_at=2000, node_id="http://other")
        self.assertTrue(written)
        self.assertEqual(
            previous,
            {
                "uaid": UAID,
                "router_type": "webpush",
                "connected_at": 1000,
                "node_id": NODE,
                "current_month": self.month,
            },
        )

    async def test_register_merges_attributes(self):
        await self.register(extra="stays")
        await self.store.register_user(
            {"uaid": UAID, "router_type": "webpush", "connected_at": 2000, "record_version": 1}
        )
        user = await self.store.get_user(UAID)
        self.assertEqual(
            (user["extra"], user["node_id"], user["record_version"], user["connected_at"]),
            ("stays", NODE, 1, 2000),
        )

    async def test_register_does_not_change_its_argument(self):
        record = {"uaid": UAID, "router_type": "webpush", "connected_at": 1}
        await self.store.register_user(record)
        self.assertEqual(record, {"uaid": UAID, "router_type": "webpush", "connected_at": 1})

    async def test_register_refused_for_other_router_type(self):
        await self.register()
        self.assertEqual(
            tuple(await self.register(connected_at=2000, router_type="fcm")), (False, {})
        )
        self.assertEqual((await self.store.get_user(UAID))["router_type"], "webpush")

    async def test_register_allowed_where_no_router_type_is_stored(self):
        await self._await(self.put_record(UAID, {"connected_at": 1}))
        self.assertTrue((await self.register()).written)

    async def test_register_refused_for_older_connection(self):
        await self.register(connected_at=2000)
        self.assertEqual(tuple(await self.register(connected_at=1999)), (False, {}))

    async def test_register_refused_for_equal_connected_at(self):
        # quirk S9: equal milliseconds are refused
        await self.register(connected_at=2000)
        self.assertEqual(tuple(await self.register(connected_at=2000)), (False, {}))

    async def test_register_older_allowed_where_no_node_is_stored(self):
        await self.register(connected_at=2000)
        await self.store.clear_node(UAID, NODE, 2000)
        self.assertTrue((await self.register(connected_at=1)).written)

    async def test_register_allowed_where_node_has_no_connected_at(self):
        # quirk S9: such a record would be refused for ever
        await self._await(self.put_record(UAID, {"router_type": "webpush", "node_id": NODE}))
        self.assertTrue((await self.register()).written)

    async def test_register_without_mandatory_attributes(self):
        for missing in ("router_type", "connected_at"):
            record = {"uaid": UAID, "router_type": "webpush", "connected_at": 1}
            del record[missing]
            with self.assertRaisesRegex(
                AutopushException, "data is missing router_type or connected_at"
            ):
                await self.store.register_user(record)
        self.assertIsNone(await self.store.get_user(UAID))

    async def test_register_connected_at_zero_is_present(self):
        self.assertTrue((await self.register(connected_at=0)).written)

    # ---- drop, clear_node (9, 17.2; S10)

    async def test_drop_user(self):
        await self.register()
        self.assertTrue(await self.store.drop_user(UAID))
        self.assertIsNone(await self.store.get_user(UAID))
        self.assertFalse(await self.store.drop_user(UAID))

    async def test_drop_user_leaves_channels_and_messages(self):
        # quirk S23
        await self.register()
        await self.store.add_channel(self.month, UAID, CHID)
        await self.put(message())
        await self.store.drop_user(UAID)
        self.assertEqual((await self.store.list_channels(self.month, UAID)).chids, {CHID})
        self.assertEqual(len((await self.since()).messages), 1)

    async def test_clear_node_removes_only_node_id(self):
        await self.register(extra=1)
        self.assertTrue(await self.store.clear_node(UAID, NODE, 1000))
        user = await self.store.get_user(UAID)
        self.assertNotIn("node_id", user)
        self.assertEqual((user["connected_at"], user["extra"]), (1000, 1))

    async def test_clear_node_keeps_a_newer_connection(self):
        await self.register()
        self.assertFalse(await self.store.clear_node(UAID, NODE, 999))
        self.assertFalse(await self.store.clear_node(UAID, "http://other", 1000))
        self.assertEqual((await self.store.get_user(UAID))["node_id"], NODE)

    async def test_clear_node_of_unknown_user(self):
        self.assertFalse(await self.store.clear_node(UAID, NODE, 1000))
        self.assertIsNone(await self.store.get_user(UAID))

    # ---- get_subscription

    async def test_get_subscription(self):
        await self.register()
        await self.store.add_channel(self.month, UAID, CHID)
        user, subscribed = await self.store.get_subscription(UAID, CHID)
        self.assertEqual(user, await self.store.get_user(UAID))
        self.assertIs(subscribed, True)
        self.assertIs((await self.store.get_subscription(UAID, CHID2)).subscribed, False)

    async def test_get_subscription_unknown_user(self):
        await self.store.add_channel(self.month, UAID, CHID)
        self.assertEqual(tuple(await self.store.get_subscription(UAID, CHID)), (None, False))

    async def test_get_subscription_of_bridge_user_without_month(self):
        await self.store.register_user({"uaid": UAID, "router_type": "fcm", "connected_at": 1})
        await self.store.add_channel(self.month, UAID, CHID)
        self.assertTrue((await self.store.get_subscription(UAID, CHID)).subscribed)

    async def test_channels_of_a_bridge_user_do_not_expire(self):
        # quirk S4: it registers once, and never connects
        await self.store.register_user({"uaid": UAID, "router_type": "fcm", "connected_at": 1})
        await self.store.add_channel(None, UAID, CHID)
        await self.store.add_channel(None, UAID, CHID2)
        await self.store.remove_channel(None, UAID, CHID2)
        self.time += 100 * MAX_EXPIRY
        self.assertEqual(tuple(await self.store.list_channels(None, UAID)), (True, {CHID}))

    async def test_channels_of_a_bridge_user_go_with_it(self):
        await self.store.register_user({"uaid": UAID, "router_type": "fcm", "connected_at": 1})
        await self.store.add_channel(None, UAID, CHID)
        await self.store.drop_user(UAID)
        self.time += 100 * MAX_EXPIRY
        found = await self.store.list_channels(None, UAID)
        self.assertIs(found.exists, not self.hides_expired_rows)

    async def test_get_subscription_expired_channel_row(self):
        await self.register()
        await self.store.add_channel(self.month, UAID, CHID)
        self.time += MAX_EXPIRY + 1
        found = await self.store.get_subscription(UAID, CHID)
        self.assertIs(found.subscribed, not self.hides_expired_rows)

    # ---- channels (10, 17.3)

    hides_expired_rows = True
    """Whether a row past its expiry is gone at once (17.5), or when somebody removes it."""

    async def test_list_channels_without_row(self):
        self.assertEqual(tuple(await self.store.list_channels(self.month, UAID)), (False, set()))

    async def test_add_channel_is_a_set_insert(self):
        for chid in (CHID, CHID2, CHID):
            await self.store.add_channel(self.month, UAID, chid)
        self.assertEqual(
            tuple(await self.store.list_channels(self.month, UAID)), (True, {CHID, CHID2})
        )
        self.assertFalse((await self.store.list_channels(self.month, OTHER)).exists)

    async def first(self, chid: str = CHID, **values: Any) -> Any:
        record = {
            "uaid": UAID,
            "router_type": "webpush",
            "connected_at": 1000,
            "node_id": NODE,
            "current_month": self.month,
            **values,
        }
        return await self.store.add_first_channel(record, chid)

    async def test_add_first_channel_writes_the_record(self):
        self.assertEqual(await self.first(), self.month)
        found = await self.store.get_subscription(UAID, CHID)
        self.assertTrue(found.subscribed)
        self.assertEqual((found.user["node_id"], found.user["connected_at"]), (NODE, 1000))

    async def test_add_first_channel_may_be_repeated(self):
        for chid in (CHID, CHID2, CHID):
            self.assertEqual(await self.first(chid), self.month)
        row = await self.store.list_channels(self.month, UAID)
        self.assertEqual(row.chids, {CHID, CHID2})

    async def test_add_first_channel_leaves_the_record_of_a_later_connection(self):
        await self.register(connected_at=2000, node_id="http://later:1")
        await self.store.add_channel(self.month, UAID, CHID2)
        self.assertEqual(await self.first(), self.month)
        user = await self.store.get_user(UAID)
        self.assertEqual((user["node_id"], user["connected_at"]), ("http://later:1", 2000))
        row = await self.store.list_channels(self.month, UAID)
        self.assertEqual(row.chids, {CHID, CHID2})

    async def test_remove_channel_tells_whether_it_was_a_member(self):
        await self.store.add_channel(self.month, UAID, CHID)
        self.assertFalse(await self.store.remove_channel(self.month, UAID, CHID2))
        self.assertTrue(await self.store.remove_channel(self.month, UAID, CHID))
        self.assertFalse(await self.store.remove_channel(self.month, UAID, CHID))

    async def test_remove_channel_deletes_what_waits_for_it(self):
        other = uuid.UUID(CHID2)
        await self.store.add_channel(self.month, UAID, CHID)
        await self.put(message(), topic("t", "1"))
        await self.put(message(TS + 1, channel_id=other), topic("t", "3", channel_id=other))
        await self.store.remove_channel(self.month, UAID, CHID)
        self.assertEqual(versions(await self.topics()), ["3"])
        self.assertEqual(versions(await self.since()), [f"version-{TS + 1}-"])
        # What is sent to it when it is there again does come.
        await self.store.add_channel(self.month, UAID, CHID)
        await self.put(message(TS + 2))
        self.assertEqual(versions(await self.since(TS + 1)), [f"version-{TS + 2}-"])

    async def test_remove_channel_leaves_the_messages_of_others(self):
        notification = message(uaid=uuid.UUID(OTHER))
        await self.store.store_message(self.month, notification)
        await self.store.remove_channel(self.month, UAID, CHID)
        found = await self.store.fetch_since(self.month, OTHER, None)
        self.assertEqual(versions(found), [notification.version])
        await self.store.delete_message(self.month, notification)

    async def test_ended_channels(self):
        both = {CHID, CHID2}
        self.assertEqual(await self.store.ended_channels(self.month, UAID, both), set())
        await self.store.add_channel(self.month, UAID, CHID)
        self.assertEqual(await self.store.ended_channels(self.month, UAID, both), {CHID2})
        await self.store.remove_channel(self.month, UAID, CHID)
        self.assertEqual(await self.store.ended_channels(self.month, UAID, both), both)

    async def test_row_exists_when_its_set_became_empty(self):
        await self.store.add_channel(self.month, UAID, CHID)
        await self.store.remove_channel(self.month, UAID, CHID)
        self.assertEqual(tuple(await self.store.list_channels(self.month, UAID)), (True, set()))

    async def test_remove_channel_creates_the_row(self):
        await self.store.remove_channel(self.month, UAID, CHID)
        self.assertTrue((await self.store.list_channels(self.month, UAID)).exists)

    async def test_channel_row_expires_after_30_days(self):
        await self.store.add_channel(self.month, UAID, CHID)
        self.time += MAX_EXPIRY - 1
        self.assertTrue((await self.store.list_channels(self.month, UAID)).exists)
        self.time += 1
        found = await self.store.list_channels(self.month, UAID)
        self.assertEqual(found.exists, not self.hides_expired_rows)

    async def test_channel_row_is_refreshed_by_every_write(self):
        writes = [
            lambda: self.store.add_channel(self.month, UAID, CHID2),
            lambda: self.store.remove_channel(self.month, UAID, CHID2),
            lambda: self.store.set_pointer(self.month, UAID, TS),
            lambda: self.store.touch_channels(self.month, UAID),
        ]
        await self.store.add_channel(self.month, UAID, CHID)
        for write in writes:
            self.time += MAX_EXPIRY - 10
            await write()
        self.time += MAX_EXPIRY - 10
        self.assertIn(CHID, (await self.store.list_channels(self.month, UAID)).chids)

    async def test_touch_channels_does_not_create_a_row(self):
        await self.store.touch_channels(self.month, UAID)
        self.assertFalse((await self.store.list_channels(self.month, UAID)).exists)

    async def test_expired_channels_come_back_only_where_they_were_never_gone(self):
        await self.store.add_channel(self.month, UAID, CHID)
        await self.store.set_pointer(self.month, UAID, TS)
        self.time += MAX_EXPIRY
        await self.store.touch_channels(self.month, UAID)
        found = await self.store.list_channels(self.month, UAID)
        self.assertEqual(found.exists, not self.hides_expired_rows)
        await self.store.add_channel(self.month, UAID, CHID2)
        left = {CHID2} if self.hides_expired_rows else {CHID, CHID2}
        self.assertEqual((await self.store.list_channels(self.month, UAID)).chids, left)
        pointer = None if self.hides_expired_rows else TS
        self.assertEqual((await self.topics()).timestamp, pointer)

    # ---- store and fetch: contents (3.2)

    async def test_message_comes_back_as_it_was(self):
        headers = {"encoding": "aes128gcm", "crypto_key": "p256ecdsa=é"}
        await self.put(message(data="QUJD", headers=headers, ttl=60))
        (stored,) = (await self.since()).messages
        self.assertEqual(stored, message(data="QUJD", headers=headers, ttl=60, source="Stored"))

    async def test_message_without_payload(self):
        await self.put(message(data=None, headers=None))
        (stored,) = (await self.since()).messages
        self.assertIsNone(stored.data)
        self.assertNotIn("headers", stored.websocket_format())

    async def test_message_without_ttl_and_timestamp(self):
        # quirk S20: they count as 0 and now
        await self.put(topic("a", "v", ttl=100), message(ttl=None, timestamp=None))
        self.assertEqual(versions(await self.topics()), ["v"])
        self.assertEqual(versions(await self.since()), [])

    async def test_messages_of_another_user_are_not_read(self):
        await self.put(message(uaid=uuid.UUID(OTHER)))
        self.assertEqual(versions(await self.since()), [])

    # ---- replacing (10: an equal key is replaced)

    async def test_topic_message_replaces_the_older_one(self):
        await self.put(topic("a", "old"), topic("b", "other"), topic("a", "new"))
        self.assertEqual(versions(await self.topics()), ["new", "other"])

    async def test_same_topic_on_another_channel_is_kept(self):
        await self.put(topic("a", "one"), topic("a", "two", channel_id=uuid.UUID(CHID2)))
        self.assertEqual(versions(await self.topics()), ["one", "two"])

    async def test_storing_the_same_message_again_keeps_one_row(self):
        await self.put(message(), message(TS + 1), message(), message(TS + 1))
        self.assertEqual(len((await self.since()).messages), 2)

    async def test_replacement_has_its_own_expiry(self):
        await self.put(topic("a", "old", ttl=10), topic("a", "new", ttl=1000))
        self.time += 500
        self.assertEqual(versions(await self.topics()), ["new"])

    # ---- delete (10; S7)

    async def restore(self, *messages: WebPushNotification) -> list[str]:
        """Store late; the versions that are there then."""
        for notification in messages:
            await self.store.restore_message(self.month, notification)
        return versions(await self.topics()) + versions(await self.since())  # type: ignore[return-value]

    async def test_store_and_look_tells_the_record_as_it_is_afterwards(self):
        await self.register()
        stored = await self.store.store_and_look(self.month, message())
        self.assertEqual(stored, (await self.store.get_user(UAID), True))
        self.assertEqual(stored.user["node_id"], NODE)
        self.assertEqual(versions(await self.since()), [f"version-{TS}-"])

    async def test_store_and_look_without_a_user(self):
        stored = await self.store.store_and_look(self.month, topic("t", "1"))
        self.assertEqual(stored, (None, True))
        self.assertEqual(versions(await self.topics()), ["1"])

    async def test_restore_is_store_where_nothing_is_in_the_way(self):
        self.assertEqual(await self.restore(topic("t", "1"), message()), ["1", f"version-{TS}-"])

    async def test_restore_replaces_what_is_older_or_the_same(self):
        await self.put(topic("t", "1", timestamp=int(START) - 1))
        self.assertEqual(await self.restore(topic("t", "2"), topic("t", "2")), ["2"])

    async def test_restore_leaves_what_has_replaced_it(self):
        await self.put(topic("t", "2", timestamp=int(START) + 1))
        self.assertEqual(await self.restore(topic("t", "1")), ["2"])

    async def test_restore_keeps_both_of_one_second(self):
        await self.put(topic("t", "2"))
        self.assertEqual(await self.restore(topic("t", "1")), ["2", "1"])

    async def test_delete_message(self):
        await self.put(message(), message(TS + 1))
        self.assertTrue(await self.store.delete_message(self.month, message()))
        self.assertEqual(versions(await self.since()), [f"version-{TS + 1}-"])
        self.assertFalse(await self.store.delete_message(self.month, message()))

    async def test_delete_message_only_with_its_update_id(self):
        await self.put(topic("a", "old"), topic("a", "new"))
        self.assertFalse(await self.store.delete_message(self.month, topic("a", "old")))
        self.assertEqual(versions(await self.topics()), ["new"])

    async def test_delete_message_without_update_id_is_unconditional(self):
        await self.put(topic("a", "v"))
        gone = await self.store.delete_message(self.month, topic("a", "x", update_id=None))
        self.assertTrue(gone)
        self.assertEqual(versions(await self.topics()), [])

    async def test_delete_message_by_update_id_when_the_sort_key_differs(self):
        # quirk S7: un-acked direct messages were stored under a new timestamp
        await self.put(message(TS + 5, version="token"), message(TS + 6, version="other"))
        self.assertTrue(await self.store.delete_message(self.month, message(TS, version="token")))
        self.assertEqual(versions(await self.since()), ["other"])

    async def test_delete_messages(self):
        await self.put(message(), message(TS + 1), message(TS + 2), topic("a", "1"))
        gone = [message(), topic("a", "1"), message(TS + 2), message(TS + 9)]
        self.assertIsNone(await self.store.delete_messages(self.month, gone))
        self.assertEqual(versions(await self.since()), [f"version-{TS + 1}-"])
        self.assertEqual(versions(await self.topics()), [])
        self.assertIsNone(await self.store.delete_messages(self.month, []))

    async def test_delete_message_of_another_user(self):
        await self.put(message())
        mine = message(uaid=uuid.UUID(OTHER))
        self.assertFalse(await self.store.delete_message(self.month, mine))
        self.assertEqual(len((await self.since()).messages), 1)

    async def test_delete_legacy_message(self):
        await self.put(legacy(CHID, "m1"))
        (stored,) = (await self.since()).messages
        self.assertTrue(await self.store.delete_message(self.month, stored))
        self.assertEqual(versions(await self.since()), [])

    # ---- writes that overlap

    async def test_delete_while_the_store_is_under_way(self):
        stored = self.store.store_message(self.month, message())
        deleted = self.store.delete_message(self.month, message())
        self.assertIsNone(await stored)
        self.assertTrue(await deleted)
        self.assertEqual(versions(await self.since()), [])

    async def test_delete_by_update_id_while_the_store_is_under_way(self):
        stored = self.store.store_message(self.month, message(TS + 9, version="token"))
        deleted = self.store.delete_message(self.month, message(TS, version="token"))
        await stored
        self.assertTrue(await deleted)
        self.assertEqual(versions(await self.since()), [])

    async def test_delete_of_a_topic_under_way_removes_what_it_replaced(self):
        await self.put(topic("a", "v1"))
        stored = [self.store.store_message(self.month, topic("a", v)) for v in ("v2", "v3")]
        deleted = self.store.delete_message(self.month, topic("a", "v3"))
        for write in stored:
            self.assertIsNone(await write)
        self.assertTrue(await deleted)
        self.assertEqual(versions(await self.topics()), [])

    async def test_delete_of_a_replaced_topic_keeps_the_one_under_way(self):
        await self.put(topic("a", "v1"))
        stored = self.store.store_message(self.month, topic("a", "v2"))
        deleted = self.store.delete_message(self.month, topic("a", "v1"))
        await stored
        await deleted
        self.assertEqual(versions(await self.topics()), ["v2"])

    async def test_delete_of_a_message_stored_twice_under_way(self):
        stored = [self.store.store_message(self.month, message()) for _ in range(2)]
        deleted = self.store.delete_message(self.month, message())
        for write in stored:
            await write
        self.assertTrue(await deleted)
        self.assertEqual(versions(await self.since()), [])

    async def test_store_again_after_delete_under_way(self):
        writes: list[Deferred[Any]] = [
            self.store.store_message(self.month, message()),
            self.store.delete_message(self.month, message()),
            self.store.store_message(self.month, message()),
        ]
        for write in writes:
            await write
        self.assertEqual(len((await self.since()).messages), 1)

    async def test_many_writes_at_once(self):
        writes: list[Deferred[Any]] = [
            self.store.store_message(self.month, message(TS + number)) for number in range(150)
        ]
        for write in writes:
            await write
        deletes = [
            self.store.delete_message(self.month, message(TS + number)) for number in range(1, 200)
        ]
        results = [await delete for delete in deletes]
        self.assertEqual(results, [True] * 149 + [False] * 50)
        self.assertEqual(versions(await self.since()), [f"version-{TS}-"])

    async def test_user_and_channel_writes_keep_their_order(self):
        writes: list[Deferred[Any]] = [
            self.store.add_channel(self.month, UAID, CHID),
            self.store.remove_channel(self.month, UAID, CHID),
            self.store.add_channel(self.month, UAID, CHID2),
        ]
        for write in writes:
            await write
        self.assertEqual((await self.store.list_channels(self.month, UAID)).chids, {CHID2})

    # ---- topic fetch (10, 17.3; Q11)

    async def test_fetch_topics_of_nobody(self):
        self.assertEqual((await self.topics())[:2], (None, []))

    async def test_fetch_topics_returns_the_stored_pointer(self):
        await self.store.set_pointer(self.month, UAID, TS)
        self.assertEqual((await self.topics()).timestamp, TS)

    async def test_fetch_topics_limit_counts_the_channel_row(self):
        await self.put(*[topic(f"t{number:02}", f"v{number:02}") for number in range(12)])
        expected = [f"v{number:02}" for number in range(9)]
        # Q11: whether that row exists or not
        self.assertEqual(versions(await self.topics()), expected)
        await self.store.add_channel(self.month, UAID, CHID2)
        self.assertEqual(versions(await self.topics()), expected)
        self.assertEqual(versions(await self.topics(limit=3)), expected[:2])

    async def test_fetch_topics_leaves_out_timestamped_rows(self):
        await self.put(message(), topic("a", "v"))
        self.assertEqual(versions(await self.topics()), ["v"])

    # ---- timestamp fetch (10, 17.3)

    async def test_fetch_since_of_nobody(self):
        self.assertEqual((await self.since())[:2], (None, []))
        self.assertEqual((await self.since(TS))[:2], (None, []))

    async def test_fetch_since_is_ascending_and_limited(self):
        await self.put(*[message(TS + number) for number in range(13)])
        first = await self.since()
        self.assertEqual(versions(first), [f"version-{TS + number}-" for number in range(10)])
        self.assertEqual(first.timestamp, TS + 9)
        second = await self.since(first.timestamp)
        self.assertEqual(versions(second), [f"version-{TS + number}-" for number in range(10, 13)])
        self.assertEqual(second.timestamp, TS + 12)
        self.assertEqual((await self.since(second.timestamp))[:2], (None, []))

    async def test_fetch_since_sets_the_sort_key_timestamp(self):
        await self.put(message())
        self.assertEqual((await self.since()).messages[0].sortkey_timestamp, TS)

    async def test_fetch_since_zero_is_no_pointer(self):
        await self.put(message(), legacy("02222222-2222-4222-8222-222222222222", "low"))
        self.assertEqual(versions(await self.since(0)), ["low", f"version-{TS}-"])

    async def test_order_of_all_kinds_of_rows(self):
        # spec/websocket 24: order of delivery; K hides legacy rows below 02: behind a pointer
        kinds = [
            legacy("00000000-0000-4000-8000-000000000000", "00"),
            legacy("01234000-0000-4000-8000-000000000000", "01234"),
            topic("t", "topic"),
            legacy("01a00000-0000-4000-8000-000000000000", "01a"),
            legacy("02000000-0000-4000-8000-000000000000", "020"),
            message(version="timestamped"),
            legacy("02a00000-0000-4000-8000-000000000000", "02a"),
            legacy("f0000000-0000-4000-8000-000000000000", "f0"),
        ]
        await self.put(*reversed(kinds))
        self.assertEqual(versions(await self.topics()), ["00", "01234", "topic", "01a"])
        batch = await self.since()
        self.assertEqual(versions(batch), ["01a", "020", "timestamped", "02a", "f0"])
        self.assertEqual(batch.timestamp, TS)
        self.assertEqual(versions(await self.since(TS)), ["02a", "f0"])

    async def test_only_legacy_rows_give_no_timestamp(self):
        await self.put(legacy("f0000000-0000-4000-8000-000000000000", "f0"))
        self.assertIsNone((await self.since()).timestamp)

    # ---- pointer (10; S14)

    async def test_pointer_never_moves_backwards(self):
        await self.store.set_pointer(self.month, UAID, TS)
        await self.store.set_pointer(self.month, UAID, TS - 1)
        self.assertEqual((await self.topics()).timestamp, TS)
        await self.store.set_pointer(self.month, UAID, TS + 1)
        self.assertEqual((await self.topics()).timestamp, TS + 1)

    async def test_pointer_is_lost_with_the_expired_channel_row(self):
        await self.store.set_pointer(self.month, UAID, TS)
        self.time += MAX_EXPIRY
        pointer = None if self.hides_expired_rows else TS
        self.assertEqual((await self.topics()).timestamp, pointer)

    async def test_set_pointer_creates_the_channel_row(self):
        await self.store.set_pointer(self.month, UAID, TS)
        self.assertEqual(tuple(await self.store.list_channels(self.month, UAID)), (True, set()))

    # ---- expiry of messages (17.5)

    async def test_message_expires_after_its_ttl(self):
        await self.put(topic("a", "topic", ttl=60), message(ttl=60), message(TS + 1, ttl=61))
        self.time += 60
        self.assertEqual(versions(await self.topics()), [])
        self.assertEqual(versions(await self.since()), [f"version-{TS + 1}-"])

    async def test_message_expires_after_30_days_at_most(self):
        await self.put(message(ttl=5_184_000))
        self.time += MAX_EXPIRY - 1
        self.assertEqual(len((await self.since()).messages), 1)
        self.time += 1
        left = 0 if self.hides_expired_rows else 1
        self.assertEqual(len((await self.since()).messages), left)

    async def test_what_is_no_backlog_stays_marked(self):
        # spec/websocket 9.4: accepted while its user agent was connected
        await self.put(message(live=True), message(TS + 1), topic("t", "v", live=True))
        await self.put(message(live=True))
        found = (await self.topics()).messages + (await self.since()).messages
        marks = {notification.version: notification.live for notification in found}
        wanted = {"v": True, message().version: True, message(TS + 1).version: False}
        self.assertEqual(marks, wanted)

    async def test_urgency_stays_with_a_message(self):
        # spec/broadcasts 2
        stamped = [message(TS + level, urgency=level, version=f"s{level}") for level in range(4)]
        topics = [topic(f"t{level}", f"t{level}", urgency=level) for level in range(4)]
        await self.put(*stamped, *topics)
        await self.put(stamped[3], attrs.evolve(topics[0], urgency=3))
        found = (await self.topics()).messages + (await self.since()).messages
        levels = {notification.version: notification.urgency for notification in found}
        wanted = {f"{kind}{level}": level for kind in "st" for level in range(4)}
        self.assertEqual(levels, {**wanted, "t0": 3})

    async def test_urgency_of_a_restored_message(self):
        for one in (message(urgency=0, version="s"), topic("t", "t", urgency=1)):
            await self.store.restore_message(self.month, one)
        found = (await self.topics()).messages + (await self.since()).messages
        levels = {notification.version: notification.urgency for notification in found}
        self.assertEqual(levels, {"s": 0, "t": 1})

    async def test_rows_without_urgency_are_normal(self):
        # as nodes of 1.58.3 write them
        await self._await(self.put_raw(f"02:{TS}:{CHID}", update_id="old"))
        (found,) = (await self.since()).messages
        self.assertEqual(found.urgency, NORMAL)

    async def test_set_urgency(self):
        # the minimum of a user, of the connection that says so only
        ours = Connection(NODE, 1000)
        self.assertFalse(await self.store.set_urgency(UAID, "high", ours))
        self.assertIsNone(await self.store.get_user(UAID))
        await self.register()
        self.assertTrue(await self.store.set_urgency(UAID, "high", ours))
        before = await self.store.get_user(UAID)
        self.assertEqual(before["urgency"], "high")
        for other in (Connection("http://other.example:8081", 1000), Connection(NODE, 999)):
            self.assertFalse(await self.store.set_urgency(UAID, "low", other))
        self.assertEqual(await self.store.get_user(UAID), before)
        registration = await self.register(connected_at=2000)
        self.assertEqual(registration.previous["urgency"], "high")
        self.assertEqual((await self.store.get_user(UAID))["urgency"], "high")

    async def test_the_minimum_comes_along_with_a_subscription(self):
        await self.register()
        await self.store.add_channel(self.month, UAID, CHID)
        self.assertTrue((await self.store.get_subscription(UAID, CHID)).subscribed)
        await self.store.set_urgency(UAID, "normal", Connection(NODE, 1000))
        found = await self.store.get_subscription(UAID, CHID)
        self.assertEqual(found.user["urgency"], "normal")

    async def test_topics_behind_a_sort_key(self):
        await self.store.add_channel(self.month, UAID, CHID)
        topics = [topic(f"t{number:02}", f"v{number:02}") for number in range(12)]
        await self.put(*topics, message())
        read = await self.store.fetch_topics(self.month, UAID, 5)
        self.assertEqual(versions(read), ["v00", "v01", "v02", "v03"])
        after = read.messages[-1].sort_key
        read = await self.store.fetch_topics(self.month, UAID, 5, after)
        self.assertEqual(versions(read), ["v04", "v05", "v06", "v07"])
        await self.store.delete_message(self.month, topics[7])
        after = topics[7].sort_key
        read = await self.store.fetch_topics(self.month, UAID, 10, after)
        self.assertEqual(versions(read), ["v08", "v09", "v10", "v11"])

    async def test_an_empty_header_map_is_kept(self):
        # spec/websocket 5.6: `headers` is there with every payload
        await self.put(message(data="QUJD", headers={}))
        (found,) = (await self.since()).messages
        self.assertEqual((found.data, found.headers), ("QUJD", {}))

    # ---- unreadable rows (Q15)

    async def test_unreadable_rows_are_skipped_and_deleted(self):
        wrong: dict[str, dict[str, Any]] = {
            "01:no-uuid:t": {},
            f"01:{CHID}:a:b": {},
            f"01:{CHID}:noupdate": {"update_id": None},
            f"01:{CHID}:noheaders": {"data": "QUJD"},
            f"02:12x:{CHID}": {},
            f"02:{TS}": {},
            f"02:{TS}:{CHID}": {"timestamp": "soon"},
            f"02:{TS + 1}:{CHID}": {"headers": "[1]"},
            f"02:{TS + 2}:{CHID}": {"headers": "{broken"},
            "f000": {},
        }
        for sort_key, columns in wrong.items():
            await self._await(self.put_raw(sort_key, **columns))
        await self._await(self.put_raw(f"01:{CHID}:z", update_id="topic"))
        await self._await(self.put_raw(f"02:{TS + 3}:{CHID}", update_id="timestamped"))
        self.assertEqual(versions(await self.topics(limit=3)), ["topic"])
        self.assertEqual(versions(await self.since(limit=2)), ["timestamped"])
        await self.store.drop_user(UAID)  # by now the rows are gone
        self.assertEqual(await self._await(self.count_rows()), 2)

    # ---- ordering (17.6)

    async def test_message_behind_the_pointer_is_still_read(self):
        await self.store.set_pointer(self.month, UAID, TS)
        await self.put(message(TS - 5, version="late"))
        batch = await self.since(TS)
        self.assertEqual(versions(batch), ["late"])
        self.assertEqual(batch.timestamp, TS + 1)

    async def test_message_at_the_pointer_is_still_read(self):
        await self.store.set_pointer(self.month, UAID, TS)
        await self.put(message(TS, version="late"))
        self.assertEqual(versions(await self.since(TS)), ["late"])

    async def test_messages_behind_the_pointer_do_not_replace_each_other(self):
        await self.store.set_pointer(self.month, UAID, TS)
        late = [message(TS - number, version=f"late{number}") for number in range(5)]
        writes = [self.store.store_message(self.month, notification) for notification in late]
        for write in writes:
            await write
        self.assertEqual(sorted(versions(await self.since(TS))), [f"late{n}" for n in range(5)])

    async def test_message_behind_one_that_was_read_is_still_read(self):
        # The pointer isn't written before the acks, but the reader is past TS + 10 already.
        await self.put(message(TS + 10, version="read"))
        passed = (await self.since()).timestamp
        await self.put(message(TS, version="late"))
        await self.store.set_pointer(self.month, UAID, passed)
        self.assertEqual(versions(await self.since(passed)), ["late"])

    async def test_message_with_a_timestamp_of_another_channel_is_still_read(self):
        # A reader skips all that has the timestamp it stopped at.
        await self.put(message(TS, version="one"))
        await self.put(message(TS, version="two", channel_id=uuid.UUID(CHID2)))
        passed = (await self.since(limit=1)).timestamp
        self.assertEqual(versions(await self.since(passed)), ["two"])

    async def test_equal_timestamps_at_once_are_told_apart(self):
        same = [
            message(TS, version=f"v{number}", channel_id=uuid.UUID(int=number))
            for number in range(4)
        ]
        writes = [self.store.store_message(self.month, notification) for notification in same]
        for write in writes:
            await write
        seen = []
        pointer: int | None = None
        while (batch := await self.since(pointer, limit=1)).messages:
            seen += versions(batch)
            pointer = batch.timestamp
        self.assertEqual(sorted(seen), ["v0", "v1", "v2", "v3"])

    async def test_late_message_can_be_deleted_as_its_sender_knows_it(self):
        await self.store.set_pointer(self.month, UAID, TS)
        await self.put(message(TS - 5, version="late"))
        known = message(TS - 5, version="late")
        self.assertTrue(await self.store.delete_message(self.month, known))
        self.assertEqual(versions(await self.since()), [])

    async def test_topic_messages_are_not_moved_by_the_pointer(self):
        await self.store.set_pointer(self.month, UAID, TS)
        await self.put(topic("a", "v"))
        self.assertEqual(versions(await self.topics()), ["v"])

    # ---- month (8, 17.3, 17.4; S15, S17)

    async def test_current_month_is_accepted(self):
        self.assertTrue(self.store.months.accepts(self.month))

    async def test_no_month_is_not_accepted(self):
        self.assertFalse(self.store.months.accepts(None))
        self.assertFalse(self.store.months.accepts(""))

    async def test_move_month_updates_the_record(self):
        await self.register(extra=1)
        await self.store.move_month(UAID, self.month, "message_2099_01")
        user = await self.store.get_user(UAID)
        self.assertEqual(user["current_month"], "message_2099_01")
        self.assertRegex(str(user["last_connect"]), r"^202611\d{2}00(0\d|10)$")
        self.assertEqual((user["extra"], user["node_id"]), (1, NODE))

    async def test_move_month_of_a_connection(self):
        await self.register()
        record = await self.store.get_user(UAID)
        for node_id, connected_at in (("http://other", record["connected_at"]), (NODE, 1)):
            other = Connection(node_id, connected_at)
            new = "message_2099_01"
            self.assertIsNone(await self.store.move_month(UAID, self.month, new, other))
        self.assertEqual(await self.store.get_user(UAID), record)
        own = Connection(NODE, record["connected_at"])
        await self.store.clear_node(UAID, *own)  # found gone by a sender
        self.assertIsNotNone(await self.store.move_month(UAID, self.month, new, own))
        self.assertEqual((await self.store.get_user(UAID))["current_month"], new)

    async def test_move_month_of_unknown_user_creates_nothing(self):
        await self.store.move_month(UAID, self.month, "message_2099_01")
        self.assertIsNone(await self.store.get_user(UAID))

    async def test_move_month_takes_channels_and_late_messages_along(self):
        new = "message_2099_01"
        await self.register()
        await self.store.add_channel(self.month, UAID, CHID)
        await self.store.add_channel(new, UAID, CHID2)
        await self.put(topic("a", "topic"), message(version="late"))
        await self.store.move_month(UAID, self.month, new)
        self.assertEqual((await self.store.list_channels(new, UAID)).chids, {CHID, CHID2})
        self.assertEqual(versions(await self.store.fetch_topics(new, UAID)), ["topic"])
        self.assertEqual(versions(await self.store.fetch_since(new, UAID, None)), ["late"])
        self.assertTrue((await self.store.get_subscription(UAID, CHID)).subscribed)

    async def test_carry_late_takes_messages_only(self):
        new = "message_2099_01"
        await self.register()
        await self.store.move_month(UAID, self.month, new)
        await self.store.add_channel(self.month, UAID, CHID)
        await self.put(topic("a", "topic"), message(version="late"))
        await self.store.carry_late(UAID, self.month, new)
        self.assertEqual(versions(await self.store.fetch_topics(new, UAID)), ["topic"])
        self.assertEqual(versions(await self.store.fetch_since(new, UAID, None)), ["late"])
        self.assertEqual((await self.store.get_user(UAID))["current_month"], new)
        self.assertFalse(await self.store.carry_late(UAID, self.month, new))

    # ---- health

    async def test_health_of_a_well_store(self):
        self.assertEqual(await self.store.health(), {"router": None, "storage": None})
