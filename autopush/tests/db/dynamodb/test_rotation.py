"""Monthly rotation under an injected clock (spec/storage 8; S3 to S6, S13, S17 to S19)."""

from __future__ import annotations

import uuid
from typing import Any
from unittest import mock

from twisted.application.internet import TimerService
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread

from autopush.app.process import surviving
from autopush.constants import MAX_EXPIRY
from autopush.db.dynamodb import tables
from autopush.db.dynamodb.client import DynamoError, Throttled
from autopush.db.dynamodb.store import DynamoStore
from autopush.db.months import (
    LatestMonths,
    message_tables,
)
from autopush.exceptions import StoreBusy, StoreError
from autopush.tests.db.dynamodb.rotation_support import (
    DAY,
    MINUTE,
    RotationCase,
    at,
    needs_ttl,
    status,
    ttl_of,
)
from autopush.tests.db.dynamodb.support import (
    get_item,
    new_store,
    raw_call,
    sort_keys,
)
from autopush.tests.db.store_contract import CHID, CHID2, TS, UAID, message, topic, versions


class TestStart(RotationCase):
    """8.2"""

    async def test_last_and_this_month_are_made(self):
        store = await self.start("2026-11-15 12:00")
        self.exists("2026_10", "2026_11")
        self.assertEqual(store.months.current, self.month("2026_11"))

    async def test_next_month_is_made_on_the_last_day(self):
        store = await self.start("2026-11-30 12:00")
        self.exists("2026_10", "2026_11", "2026_12")
        self.assertEqual(store.months.current, self.month("2026_11"))

    async def test_last_month_over_the_year_end(self):
        await self.start("2027-01-01 00:00")
        self.exists("2026_12", "2027_01")

    async def test_ttl_is_enabled(self):
        needs_ttl()
        await self.start("2026-11-15 12:00")
        self.assertEqual(ttl_of(self.month("2026_10")), "ENABLED")
        self.assertEqual(ttl_of(self.month("2026_11")), "ENABLED")
        self.assertEqual(ttl_of(self.router), "DISABLED")

    async def test_ttl_is_enabled_on_a_table_made_by_others(self):
        needs_ttl()
        # quirk S19
        table = self.month("2026_11")
        raw_call(
            "create_table",
            TableName=table,
            KeySchema=[
                {"AttributeName": "uaid", "KeyType": "HASH"},
                {"AttributeName": "chidmessageid", "KeyType": "RANGE"},
            ],
            AttributeDefinitions=[
                {"AttributeName": "uaid", "AttributeType": "S"},
                {"AttributeName": "chidmessageid", "AttributeType": "S"},
            ],
            ProvisionedThroughput={"ReadCapacityUnits": 7, "WriteCapacityUnits": 8},
        )
        await self.start("2026-11-15 12:00")
        self.assertEqual(ttl_of(table), "ENABLED")
        units = raw_call("describe_table", TableName=table)["Table"]["ProvisionedThroughput"]
        self.assertEqual((units["ReadCapacityUnits"], units["WriteCapacityUnits"]), (7, 8))

    async def test_configured_units_are_used(self):
        # quirk S11
        from autopush.config import DDBTableConfig
        from autopush.tests.db.dynamodb.support import client

        store = DynamoStore(
            client(),
            new_store()._reactor,
            DDBTableConfig(self.router, 3, 4),
            DDBTableConfig(self.prefix, 5, 6),
        )
        self.addCleanup(store.close)
        await store.setup()
        for table, expected in ((self.router, (3, 4)), (store.months.current, (5, 6))):
            units = raw_call("describe_table", TableName=table)["Table"]["ProvisionedThroughput"]
            self.assertEqual((units["ReadCapacityUnits"], units["WriteCapacityUnits"]), expected)

    async def test_second_start_changes_nothing(self):
        await self.start("2026-11-15 12:00")
        await self.start("2026-11-15 12:01")
        self.exists("2026_10", "2026_11")


class TestMonthEnd(RotationCase):
    """8.3, 8.5"""

    async def test_ttl_of_the_next_month_is_enabled(self):
        needs_ttl()
        store = await self.start("2026-11-29 23:59")
        self.times[0] = at("2026-11-30 00:00")
        self.assertFalse(await store.rotate())
        self.assertEqual(ttl_of(self.month("2026_12")), "ENABLED")

    async def test_whole_month_end(self):
        store = await self.start("2026-11-29 23:59")
        self.assertFalse(await store.rotate())
        self.exists("2026_10", "2026_11")
        self.times[0] = at("2026-11-30 00:00")
        self.assertFalse(await store.rotate())
        self.exists("2026_10", "2026_11", "2026_12")
        self.assertEqual(store.months.current, self.month("2026_11"))
        self.times[0] = at("2026-12-01 00:00")
        self.assertTrue(await store.rotate())
        self.assertEqual(store.months.current, self.month("2026_12"))
        self.assertFalse(await store.rotate())
        self.assertEqual(await store.health(), {self.router: None, "storage": None})

    async def test_tables_are_looked_at_once_a_month_not_every_minute(self):
        store = await self.start("2026-11-30 00:00")
        store._tables_call = mock.Mock(side_effect=AssertionError("no request"))
        for minute in range(24 * 60):
            self.times[0] = at("2026-11-30 00:00") + minute * MINUTE
            await store.rotate()
        self.times[0] = at("2026-12-01 00:01")
        self.assertTrue(await store.rotate())

    async def test_node_that_did_not_run_on_the_last_day(self):
        first = await self.start("2026-11-15 12:00")
        await self.hello(first)
        later = await self.start("2026-12-02 12:00")
        self.exists("2026_10", "2026_11", "2026_12")
        self.assertEqual(
            (await self.hello(later, connected_at=2000))["current_month"], self.month("2026_11")
        )

    async def test_failure_on_the_last_day_is_made_good_at_the_change(self):
        store = await self.start("2026-11-29 12:00")
        working = store._tables_call
        store._tables_call = mock.Mock(side_effect=Throttled("busy"))
        self.times[0] = at("2026-11-30 12:00")
        with self.assertRaises(StoreBusy):
            await store.rotate()
        self.times[0] = at("2026-12-01 00:00")
        with self.assertRaises(StoreBusy):
            await store.rotate()
        # Until the new table exists, new users get the old one, and it is accepted.
        self.assertEqual(store.months.current, self.month("2026_11"))
        self.assertTrue(store.months.accepts(self.month("2026_11")))
        store._tables_call = working
        self.assertTrue(await store.rotate())
        self.assertEqual(store.months.current, self.month("2026_12"))
        self.exists("2026_10", "2026_11", "2026_12")

    async def test_table_of_the_new_month_is_made_at_the_change_at_the_latest(self):
        store = await self.start("2026-11-29 12:00")
        self.times[0] = at("2026-12-01 00:00")
        self.assertTrue(await store.rotate())
        self.exists("2026_10", "2026_11", "2026_12")

    async def test_look_ups_go_on_during_the_change(self):
        store = await self.start("2026-11-30 12:00")
        await self.hello(store)
        await store.add_channel(self.month("2026_11"), UAID, CHID)
        self.times[0] = at("2026-12-01 00:00")
        rotating = store.rotate()
        self.assertTrue((await store.get_subscription(UAID, CHID)).subscribed)
        await rotating
        self.assertTrue((await store.get_subscription(UAID, CHID)).subscribed)
        user = await self.hello(store, connected_at=2000)
        self.assertEqual(user["current_month"], self.month("2026_11"))

    async def test_only_one_look_at_a_time(self):
        store = await self.start("2026-11-29 12:00")
        self.times[0] = at("2026-12-01 00:00")
        first = store.rotate()
        self.assertFalse(await store.rotate())
        self.assertTrue(await first)


class TestTimer(RotationCase):
    async def test_timer_survives_exceptions(self):
        # quirk S5
        store = await self.start("2026-11-30 12:00")
        working, clock = store._tables_call, Clock()
        store._sure -= {self.month("2026_12")}
        store._tables_call = mock.Mock(side_effect=ValueError("unexpected"))
        service = TimerService(60, surviving(store.rotate))
        service.clock = clock
        service.startService()
        self.addCleanup(service.stopService)
        while store._rotating is not None:
            await deferToThread(int)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        store._tables_call = working
        self.times[0] = at("2026-12-01 00:00")
        clock.advance(60)
        while store._rotating is not None:
            await deferToThread(int)
        self.assertEqual(store.months.current, self.month("2026_12"))


class TestThreeMonthsUp(RotationCase):
    async def test_node_up_for_three_months(self):
        store = await self.start("2026-09-15 00:00")
        self.times[0] = at("2026-09-15 00:00")
        changes = []
        while self.times[0] < at("2026-12-15 00:00"):
            self.times[0] += DAY / 2
            if await store.rotate():
                changes.append(store.months.current)
        self.assertEqual(changes, [self.month(m) for m in ("2026_10", "2026_11", "2026_12")])
        self.exists("2026_08", "2026_09", "2026_10", "2026_11", "2026_12")
        # It takes exactly the users a node takes that has just been started.
        fresh = await self.start("2026-12-15 00:00")
        for month in ("2026_09", "2026_10", "2026_11", "2026_12", "2027_01"):
            name = self.month(month)
            self.assertEqual(store.months.accepts(name), fresh.months.accepts(name), month)
        self.assertFalse(store.months.accepts(self.month("2026_10")))
        # And gives new users, and everything without a month, the present table.
        user = await self.hello(store)
        self.assertEqual(user["current_month"], self.month("2026_12"))


class TestTwoNodes(RotationCase):
    """Two nodes a minute apart."""

    async def test_user_moves_between_nodes_a_minute_apart(self):
        ahead = await self.start("2026-11-30 23:59")
        behind = await self.start("2026-11-30 23:58")
        self.times[:] = [at("2026-12-01 00:00"), at("2026-11-30 23:59")]
        await ahead.rotate()
        await behind.rotate()
        self.assertNotEqual(ahead.months.current, behind.months.current)
        # A user that is new on the node ahead, at the node behind
        await self.hello(ahead)
        await ahead.add_channel(self.month("2026_12"), UAID, CHID)
        self.assertTrue((await behind.get_subscription(UAID, CHID)).subscribed)
        user = await self.hello(behind, connected_at=2000)
        self.assertEqual(user["current_month"], self.month("2026_12"))
        await behind.store_message(user["current_month"], message())
        # and one that is new on the node behind, at the node ahead
        other = "c0" * 16
        await self.hello(behind, other)
        await behind.add_channel(self.month("2026_11"), other, CHID)
        self.assertTrue((await ahead.get_subscription(other, CHID)).subscribed)
        user = await self.hello(ahead, other, connected_at=2000)
        self.assertEqual(user["current_month"], self.month("2026_11"))

    async def test_nodes_in_different_time_zones_with_the_original(self):
        # A node of 1.58.3 whose local month is ahead (or behind) writes that month's name.
        store = await self.start("2026-11-30 13:00")
        for month in ("2026_10", "2026_12"):
            self.assertTrue(store.months.accepts(self.month(month)))

    async def test_both_make_the_same_table(self):
        # quirk S13
        first = await self.start("2026-11-29 12:00")
        second = await self.start("2026-11-29 12:00")
        self.times[:] = [at("2026-11-30 00:00")] * 2
        rotations = [first.rotate(), second.rotate()]
        for rotation in rotations:
            self.assertFalse(await rotation)
        self.exists("2026_10", "2026_11", "2026_12")


class TestAwayForTwoMonths(RotationCase):
    async def _user_of(self, month: str) -> None:
        record = {"uaid": UAID, "router_type": "webpush", "connected_at": 1}
        store = await self.start("2026-12-15 12:00")
        await store.register_user({**record, "current_month": self.month(month)})
        self.store = store

    async def test_away_for_one_month(self):
        await self._user_of("2026_11")
        self.assertIsNotNone(await self.hello(self.store, connected_at=2000))

    async def test_away_for_two_months(self):
        # Codes 105 and 103 of spec/storage 11: its channels have expired, whoever has them.
        await self._user_of("2026_10")
        self.assertIsNone(await self.hello(self.store, connected_at=2000))
        found = await self.store.get_subscription(UAID, CHID)
        self.assertFalse(found.subscribed)
        self.assertFalse(self.store.months.accepts(found.user["current_month"]))

    async def test_table_that_does_not_exist_any_more_is_not_asked(self):
        await self._user_of("2026_01")
        self.assertIsNone(status(self.month("2026_01")))
        self.assertFalse((await self.store.get_subscription(UAID, CHID)).subscribed)


class TestMovingMonth(RotationCase):
    """8.5; spec/websocket Q19, Q20, S17: no message is lost in the switch, none comes twice."""

    async def setUp(self) -> None:
        super().setUp()
        self.store = await self.start("2026-12-01 00:01")
        self.old, self.new = self.month("2026_11"), self.month("2026_12")
        await self.store.register_user(
            {"uaid": UAID, "router_type": "webpush", "connected_at": 1, "current_month": self.old}
        )

    async def move(self) -> None:
        await self.store.move_month(UAID, self.old, self.new)

    async def unread(self, month: str) -> list[str | None]:
        topics = await self.store.fetch_topics(month, UAID)
        return versions(topics) + versions(
            await self.store.fetch_since(month, UAID, topics.timestamp)
        )

    async def test_channels_are_merged(self):
        await self.store.add_channel(self.old, UAID, CHID)
        await self.store.add_channel(self.new, UAID, CHID2)
        await self.move()
        self.assertEqual((await self.store.list_channels(self.new, UAID)).chids, {CHID, CHID2})

    async def test_channels_get_30_days_again(self):
        await self.store.add_channel(self.old, UAID, CHID)
        self.times[0] += 20 * DAY
        await self.move()
        expiry = get_item(self.new, UAID, " ")["expiry"]["N"]
        self.assertEqual(int(expiry), int(self.times[0]) + MAX_EXPIRY)

    async def test_what_was_read_is_not_carried_over(self):
        self.times[0] = TS / 1e6 + 10
        await self.store.store_message(self.old, message(TS, version="read"))
        await self.store.store_message(self.old, message(TS + 1, version="unread"))
        await self.store.set_pointer(self.old, UAID, TS)
        await self.move()
        self.assertEqual(await self.unread(self.new), ["unread"])
        self.assertEqual(await self.unread(self.old), [])

    async def test_many_rows_are_carried_over(self):
        self.times[0] = TS / 1e6 + 10
        for number in range(12):
            await self.store.store_message(self.old, topic(f"t{number:02}", f"topic{number}"))
            await self.store.store_message(self.old, message(TS + number))
        await self.move()
        self.assertEqual(len(sort_keys(self.new, UAID)), 24)
        self.assertEqual(sort_keys(self.old, UAID), [])

    async def test_rows_do_not_hide_behind_a_pointer_of_the_new_month(self):
        self.times[0] = TS / 1e6
        await self.store.store_message(self.old, message(TS, version="late"))
        await self.store.set_pointer(self.new, UAID, TS + 100)
        await self.move()
        self.assertEqual(await self.unread(self.new), ["late"])

    async def test_message_stored_between_the_last_look_and_the_record(self):
        # spec/websocket Q19, S17
        self.times[0] = TS / 1e6
        set_month = self.store.users.set_month

        def store_then_set(*args: Any) -> bool:
            self.store.messages.store(self.old, message(TS, version="late"))()
            return set_month(*args)

        self.store.users.set_month = store_then_set
        await self.move()
        self.assertEqual(await self.unread(self.new), ["late"])

    async def test_move_that_fails_half_way_is_done_again(self):
        self.times[0] = TS / 1e6
        await self.store.add_channel(self.old, UAID, CHID)
        await self.store.store_message(self.old, message(TS, version="late"))
        set_month = self.store.users.set_month
        self.store.users.set_month = mock.Mock(side_effect=DynamoError("broken"))
        with self.assertRaises(StoreError):
            await self.move()
        self.assertEqual((await self.store.get_user(UAID))["current_month"], self.old)
        self.store.users.set_month = set_month
        await self.move()
        self.assertEqual(await self.unread(self.new), ["late"])
        self.assertEqual((await self.store.get_user(UAID))["current_month"], self.new)

    async def test_failure_after_the_record_asks_to_come_back(self):
        carried = mock.Mock(side_effect=[None, DynamoError("broken")])
        with (
            mock.patch("autopush.db.dynamodb.move.MonthMove._carry", carried),
            self.assertRaises(StoreBusy),
        ):
            await self.move()
        await self.move()

    async def test_what_comes_even_later_is_carried_over_by_a_later_look(self):
        # quirk S17: a node of 1.58.3 that took its time
        self.times[0] = TS / 1e6
        await self.store.add_channel(self.old, UAID, CHID)
        await self.move()
        await self.store.remove_channel(self.new, UAID, CHID)
        await self.store.set_pointer(self.new, UAID, TS + 100)
        self.store.messages.store(self.old, message(TS, version="late"))()
        self.assertTrue(await self.store.carry_late(UAID, self.old, self.new))
        self.assertEqual(await self.unread(self.new), ["late"])
        self.assertEqual(sort_keys(self.old, UAID), [" "])
        self.assertEqual((await self.store.list_channels(self.new, UAID)).chids, set())
        self.assertFalse(await self.store.carry_late(UAID, self.old, self.new))

    async def test_later_look_at_a_table_that_is_gone(self):
        await self.move()
        raw_call("delete_table", TableName=self.old)
        self.assertFalse(await self.store.carry_late(UAID, self.old, self.new))

    async def test_old_table_that_is_gone(self):
        raw_call("delete_table", TableName=self.old)
        await self.move()
        self.assertEqual((await self.store.get_user(UAID))["current_month"], self.new)

    async def test_dropped_record_does_not_come_back(self):
        # quirk S15
        await self.store.add_channel(self.old, UAID, CHID)
        await self.store.drop_user(UAID)
        await self.move()
        self.assertIsNone(await self.store.get_user(UAID))

    async def test_last_connect_is_renewed(self):
        await self.move()
        user = await self.store.get_user(UAID)
        self.assertRegex(str(user["last_connect"]), r"^20261200\d{4}$")


class TestWithoutRotation(RotationCase):
    """8.4"""

    def test_no_table(self):
        months = LatestMonths("message", ["router"])
        self.assertEqual(months.current, "message")
        self.assertTrue(months.accepts("message"))

    def test_latest_three_are_accepted(self):
        # quirk S6
        names = [f"message_2026_{month:02}" for month in (8, 9, 10, 11)]
        months = LatestMonths("message", [*names, "message", "messages_2026_12"])
        self.assertEqual(months.current, "message_2026_11")
        self.assertEqual([months.accepts(name) for name in names], [False, True, True, True])

    async def test_ttl_of_a_table_named_like_the_prefix_is_enabled(self):
        needs_ttl()
        await self.start("2026-11-30 12:00", rotation=False)
        self.assertEqual(ttl_of(self.prefix), "ENABLED")

    async def test_fresh_system_gets_a_table_named_like_the_prefix(self):
        store = await self.start("2026-11-30 12:00", rotation=False)
        self.exists_exactly([self.prefix])
        self.times[0] = at("2026-12-01 00:00")
        self.assertFalse(await store.rotate())
        self.exists_exactly([self.prefix])
        self.assertEqual(store.months.current, self.prefix)

    def exists_exactly(self, names: list[str]) -> None:
        self.assertEqual(message_tables(self.prefix, tables.names(raw_call)), names)

    async def test_switching_it_on_keeps_everybody(self):
        rotating = await self.start("2026-11-15 12:00")
        await self.hello(rotating)
        store = await self.start("2026-12-15 12:00", rotation=False)
        self.assertEqual(store.months.current, self.month("2026_11"))
        self.assertIsNotNone(await self.hello(store, connected_at=2000))
        self.assertTrue(store.months.accepts(self.month("2026_10")))

    async def test_all_pages_of_the_list_are_read(self):
        pages = [
            {"TableNames": ["message_2026_10"], "LastEvaluatedTableName": "message_2026_10"},
            {"TableNames": ["message_2026_11"]},
        ]
        call = mock.Mock(side_effect=pages)
        self.assertEqual(list(tables.names(call)), ["message_2026_10", "message_2026_11"])
        self.assertEqual(call.call_args.kwargs, {"ExclusiveStartTableName": "message_2026_10"})


class TestLateSender(RotationCase):
    """A sender that read the record before the move, and stores after it (8.5)."""

    async def test_message_is_carried_to_where_the_user_is(self):
        from autopush.tests.web.support import AES128GCM
        from autopush.tests.web.test_on_sqlite import LateEndpoint

        store = await self.start("2026-12-01 00:01")
        old, new = self.month("2026_11"), self.month("2026_12")
        uaid = uuid.uuid4().hex
        await store.register_user(
            {"uaid": uaid, "router_type": "webpush", "connected_at": 1, "current_month": old}
        )
        await store.add_channel(old, uaid, CHID)
        endpoint = LateEndpoint(store)
        put = store.store_and_look

        async def moved_before(month: str, notification: Any) -> Any:
            store.store_and_look = put
            await store.move_month(uaid, old, new)
            return await put(month, notification)

        store.store_and_look = moved_before
        path = endpoint.endpoint(uaid=uaid, chid=CHID)
        answer = await endpoint.ask("POST", path, b"x", ttl="60", **AES128GCM)
        self.assertEqual(answer.status, 201)
        self.assertEqual(len((await store.fetch_since(new, uaid, None)).messages), 1)
        self.assertEqual(sort_keys(old, uaid), [" "])  # no copy that a later look would find
