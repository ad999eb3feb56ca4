"""The documented blocking surface of ``autopush.db`` (spec/python-api 3)."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any
from unittest import mock

import boto3
from botocore.exceptions import ClientError
from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase, TestCase

import autopush.db
from autopush import clock, db
from autopush.config import AutopushConfig, DDBTableConfig
from autopush.db import SqliteStore, store_from_dsn
from autopush.db.dynamodb import client
from autopush.db.dynamodb.store import DynamoStore
from autopush.exceptions import AutopushException, InvalidConfig, ItemNotFound
from autopush.metrics import SinkMetrics
from autopush.tests.db.dynamodb.support import PATIENCE, dynamodb_url, get_item, table_names
from autopush.tests.db.store_contract import CHID, TS, UAID, message, topic


def settle(case: SynchronousTestCase) -> None:
    """Nobody gives up because the machine is busy, and no month begins amid a test."""
    case.patch(client, "READ_TIMEOUT", PATIENCE)
    now = clock.now()
    case.patch(clock, "now", lambda: now)


class BlockingCase(SynchronousTestCase):
    def setUp(self) -> None:
        settle(self)
        self.resource = db.DynamoDBResource(endpoint_url=dynamodb_url())
        self.router, self.prefix = table_names()


class TestTables(BlockingCase):
    def test_create_router_table(self):
        table = db.create_router_table(self.router, 2, 3, self.resource)
        self.assertEqual(table.table_status, "ACTIVE")
        units = table.provisioned_throughput
        self.assertEqual((units["ReadCapacityUnits"], units["WriteCapacityUnits"]), (2, 3))
        self.assertEqual([key["AttributeName"] for key in table.key_schema], ["uaid"])
        self.assertEqual(
            db.get_router_table(self.router, boto_resource=self.resource).name, self.router
        )

    def test_create_message_table(self):
        for _ in range(2):
            table = db.create_message_table(self.prefix, boto_resource=self.resource)
        keys = [key["AttributeName"] for key in table.key_schema]
        self.assertEqual(keys, ["uaid", "chidmessageid"])

    def test_table_exists(self):
        self.assertFalse(db.table_exists(self.prefix, self.resource))
        db.create_message_table(self.prefix, boto_resource=self.resource)
        self.assertTrue(db.table_exists(self.prefix, self.resource))
        db._drop_table(self.prefix, self.resource)
        db._drop_table(self.prefix, self.resource)
        self.assertFalse(db.table_exists(self.prefix, self.resource))

    def test_rotating_tables(self):
        november = datetime.date(2026, 11, 18)
        name = db.get_rotating_message_tablename(
            self.prefix, date=november, boto_resource=self.resource
        )
        self.assertEqual(name, f"{self.prefix}_2026_11")
        table = db.create_rotating_message_table(
            self.prefix, date=november, boto_resource=self.resource
        )
        self.assertEqual(table.name, name)
        self.assertEqual(self.resource.get_latest_message_tablename(self.prefix), name)

    def test_no_message_tables(self):
        self.assertEqual(self.resource.get_latest_message_tablenames(self.prefix, 3), [self.prefix])

    def test_no_resource(self):
        with self.assertRaisesRegex(
            AutopushException, "No boto3 resource provided for _make_table"
        ):
            db.get_router_table(self.router)

    def test_month_names(self):
        with mock.patch("autopush.clock.now", lambda: 1_795_459_299.0):
            self.assertEqual(db.make_rotating_tablename("message"), "message_2026_11")
            self.assertEqual(db.make_rotating_tablename("message", delta=2), "message_2027_01")
            self.assertEqual(db.get_month(-1).month, 10)

    def test_resource_delegates(self):
        self.assertEqual(self.resource.Table("t").name, "t")
        self.assertRaises(AttributeError, getattr, self.resource, "nothing")


class TestMessage(BlockingCase):
    def setUp(self) -> None:
        super().setUp()
        db.create_message_table(self.prefix, boto_resource=self.resource)
        self.message = db.Message(self.prefix, self.resource)
        self.uaid = uuid.UUID(UAID)

    def test_channels(self):
        self.assertEqual(self.message.all_channels(UAID), (False, set()))
        self.assertTrue(self.message.register_channel(UAID, CHID.upper()))
        self.assertEqual(self.message.all_channels(str(self.uaid)), (True, {CHID}))
        self.assertTrue(self.message.unregister_channel(UAID, CHID))
        self.assertFalse(self.message.unregister_channel(UAID, CHID))
        self.message.save_channels(UAID, {CHID})
        self.assertEqual(self.message.all_channels(self.uaid), (True, {CHID}))

    def test_messages(self):
        self.message.store_message(topic("t", "topic"))
        self.message.store_message(message(TS, ttl=10**7))
        self.assertTrue(self.message.update_last_message_read(self.uaid, TS - 1))
        pointer, topics = self.message.fetch_messages(self.uaid)
        self.assertEqual((pointer, [n.version for n in topics]), (TS - 1, ["topic"]))
        last, found = self.message.fetch_timestamp_messages(self.uaid, TS - 1)
        self.assertEqual((last, len(found)), (TS, 1))
        self.assertFalse(self.message.delete_message(topic("t", "other")))
        self.assertTrue(self.message.delete_message(topic("t", "topic")))
        self.assertTrue(self.message.delete_message(message(TS, update_id=None)))

    def test_status(self):
        self.assertEqual(self.message.table_status(), "ACTIVE")
        self.assertEqual(self.message.table.name, self.prefix)

    def test_botocore_errors_propagate(self):
        missing = db.Message("nowhere", self.resource)
        with self.assertRaises(ClientError):
            missing.all_channels(UAID)
        self.assertIsNone(missing.table_status())

    def test_calls_are_tracked_on_request(self):
        self.message.all_channels(UAID)
        with (
            mock.patch("autopush.db.TRACK_DB_CALLS", True),
            mock.patch("autopush.db.DB_CALLS", []) as calls,
        ):
            self.message.all_channels(UAID)
            self.assertEqual(calls, ["all_channels"])
        self.assertEqual(autopush.db.DB_CALLS, [])


class TestRouter(BlockingCase):
    def setUp(self) -> None:
        super().setUp()
        self.table = db.Router(DDBTableConfig(self.router), SinkMetrics(), self.resource)

    def record(self, **more: Any) -> dict[str, Any]:
        return {"uaid": UAID, "router_type": "webpush", "connected_at": 1000, **more}

    def test_life_of_a_record(self):
        with self.assertRaisesRegex(ItemNotFound, "uaid not found"):
            self.table.get_uaid(UAID)
        data = self.record(node_id="http://n")
        self.assertEqual(self.table.register_user(data), (True, {}))
        self.assertNotIn("uaid", data)
        self.assertEqual(self.table.register_user(self.record()), (False, {}))
        self.assertTrue(self.table.update_message_month(UAID, "m"))
        record = self.table.get_uaid(UAID)
        self.assertEqual((record["node_id"], record["current_month"]), ("http://n", "m"))
        self.assertTrue(self.table.clear_node(record))
        self.assertNotIn("node_id", record)
        self.assertFalse(self.table.clear_node({**record, "node_id": "http://n"}))
        self.assertTrue(self.table.drop_user(UAID))
        self.assertFalse(self.table.drop_user(UAID))

    def test_missing_attributes(self):
        with self.assertRaises(AutopushException):
            self.table.register_user({"uaid": UAID, "router_type": "webpush"})

    def test_key_hash(self):
        # quirk S1
        with mock.patch("autopush.db.key_hash", "SuperSikkret"):
            self.table.register_user(self.record())
            self.assertIsNotNone(get_item(self.router, db.hasher(UAID)))
            self.assertEqual(self.table.get_uaid(UAID)["uaid"], UAID)

    def test_status(self):
        self.assertEqual(self.table.table_status(), "ACTIVE")


class TestDatabaseManager(BlockingCase):
    def manager(self, **kwargs: Any) -> Any:
        conf = AutopushConfig(
            hostname="h",
            router_table=DDBTableConfig(self.router),
            message_table=DDBTableConfig(self.prefix),
            **kwargs,
        )
        return db.DatabaseManager.from_config(conf, resource=self.resource)

    def test_setup(self):
        manager = self.manager()
        manager.setup(UAID)
        self.assertEqual(manager.current_month, db.get_month().month)
        self.assertIn(manager.current_msg_month, manager.message_tables)
        self.assertIn(db.make_rotating_tablename(self.prefix, delta=-1), manager.message_tables)
        self.assertEqual(manager.message.tablename, manager.current_msg_month)
        self.assertRaises(ItemNotFound, manager.router.get_uaid, UAID)
        table = manager.message_table(manager.message_tables[0])
        self.assertEqual(table.table_status(), "ACTIVE")

    def test_month_change_replaces_the_message_table(self):
        # quirks S3, S4
        manager = self.manager()
        manager.setup_tables()
        with mock.patch("autopush.db.dynamodb.blocking.today", lambda: datetime.date(2030, 1, 1)):
            manager._tomorrow = lambda: datetime.date(2030, 1, 2)
            self.assertTrue(manager._update())
            self.assertFalse(manager._update())
        self.assertEqual(manager.message.tablename, f"{self.prefix}_2030_01")
        self.assertEqual(manager.message_tables.count(f"{self.prefix}_2030_01"), 1)

    def test_without_rotation(self):
        manager = self.manager(allow_table_rotation=False)
        manager.setup(UAID)
        self.assertEqual(manager.message_tables, [self.prefix])
        self.assertIs(self.successResultOf(manager.update_rotating_tables()), False)

    def test_preflight_check_waits_for_the_tables(self):
        manager = self.manager()
        manager.setup_tables()
        states = iter(["CREATING", "ACTIVE"])
        manager.message.table_status = lambda: next(states)
        with mock.patch("time.sleep") as sleep:
            db.preflight_check(manager.message, manager.router)
        sleep.assert_called_once_with(1)


class TestUpdate(TestCase):
    async def test_update_rotating_tables_runs_in_a_thread(self):
        settle(self)
        router, prefix = table_names()
        resource = db.DynamoDBResource(endpoint_url=dynamodb_url())
        manager = db.DatabaseManager(
            DDBTableConfig(router), DDBTableConfig(prefix), SinkMetrics(), resource
        )
        manager.setup_tables()
        self.assertIs(await manager.update_rotating_tables(), False)


class TestConnection(SynchronousTestCase):
    """spec/storage 1; S12, spec/configuration C3"""

    def setUp(self) -> None:
        names = ("AWS_LOCAL_DYNAMODB", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_ACCESS_KEY_ID")
        clean = {name: value for name, value in os.environ.items() if name not in names}
        patcher = mock.patch.dict("os.environ", clean, clear=True)
        patcher.start()
        self.addCleanup(patcher.stop)

    def client(self, **conf: Any) -> Any:
        store = store_from_dsn(AutopushConfig(hostname="h", **conf), reactor)
        assert isinstance(store, DynamoStore)
        (cell,) = [
            cell.cell_contents
            for cell in store._call.__closure__  # type: ignore[attr-defined]
            if hasattr(cell.cell_contents, "meta")
        ]
        return cell

    def test_aws_is_the_default(self):
        client = self.client()
        self.assertEqual(client.meta.endpoint_url, "https://dynamodb.us-east-1.amazonaws.com")

    def test_region(self):
        with mock.patch.dict("os.environ", AWS_DEFAULT_REGION="eu-west-1"):
            client = self.client()
        self.assertEqual(client.meta.endpoint_url, "https://dynamodb.eu-west-1.amazonaws.com")

    def test_endpoint_of_the_environment(self):
        with mock.patch.dict("os.environ", AWS_LOCAL_DYNAMODB="http://127.0.0.1:1"):
            client = self.client()
        self.assertEqual(client.meta.endpoint_url, "http://127.0.0.1:1")
        self.assertEqual(client._request_signer._credentials.access_key, "Bogus")

    def test_endpoint_option(self):
        client = self.client(aws_ddb_endpoint="http://127.0.0.1:2")
        self.assertEqual(client.meta.endpoint_url, "http://127.0.0.1:2")
        self.assertEqual(client._request_signer._credentials.secret_key, "Bogus")

    def test_calls_cannot_hang(self):
        config = self.client(aws_ddb_endpoint="http://127.0.0.1:2").meta.config
        self.assertLessEqual(config.connect_timeout + config.read_timeout, 10)
        self.assertEqual(config.retries["total_max_attempts"], 1)
        self.assertEqual(config.max_pool_connections, 50)

    def test_resource_can_be_given(self):
        ours = db.DynamoDBResource(endpoint_url="http://127.0.0.1:3")
        theirs = boto3.resource(
            "dynamodb",
            endpoint_url="http://127.0.0.1:4",
            region_name="eu-west-1",
            aws_access_key_id="a",
            aws_secret_access_key="b",
        )
        conf = AutopushConfig(hostname="h")
        for resource in (ours, theirs):
            self.assertIsInstance(store_from_dsn(conf, reactor, resource), DynamoStore)

    def test_dsn(self):
        self.assertRaises(InvalidConfig, self.client, db_dsn="dynamodb:http://host")
        conf = AutopushConfig(hostname="h", db_dsn="sqlite:file")
        self.assertIsInstance(store_from_dsn(conf, reactor), SqliteStore)

    def test_boto3_is_not_loaded_for_a_file(self):
        program = (
            "import sys; from autopush.config import AutopushConfig;"
            "from autopush.db import store_from_dsn;"
            "store_from_dsn(AutopushConfig(hostname='h', db_dsn='sqlite:file'), None);"
            "sys.exit('botocore' in sys.modules)"
        )
        tree = str(Path(autopush.db.__file__).parents[2])
        subprocess.run(
            [sys.executable, "-c", program], check=True, env={**os.environ, "PYTHONPATH": tree}
        )

    def test_unknown_name(self):
        self.assertRaises(AttributeError, getattr, autopush.db, "nothing")

    def test_every_blocking_name_exists(self):
        for name in autopush.db.BLOCKING:
            self.assertIsNotNone(getattr(autopush.db, name))
