"""A device registered with 1.58.3 keeps working, on both stores (spec/http-endpoint 8.5)."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from automock.running import Background
from autopush.config import check_router_conf, router_conf_from_options
from autopush.db.dynamodb.items import write_value
from autopush.db.sqlite.store import SqliteStore
from autopush.ids import generate_hash
from autopush.tests.bridges.support import BRIDGES
from autopush.tests.db.dynamodb.support import new_store, put_item
from autopush.tests.web.support import AES128GCM, CHID, UAID
from autopush.tests.web.test_on_sqlite import LateEndpoint

VENDORS_WITHIN = 60
"""Seconds; ours share a busy machine with the node."""

KEY = "an-auth-key"
AUTH = {"authorization": f"webpush {generate_hash(KEY, UAID)}"}


def old_data(name: str) -> dict[str, Any]:
    """``router_data`` as 1.58.3 wrote it."""
    token = BRIDGES[name].token("a")
    data: dict[str, dict[str, Any]] = {
        "gcm": {"token": token, "creds": {"senderID": "12345", "auth": "key-in-the-record"}},
        "fcm": {"token": token, "app_id": "fcmapp"},
        "adm": {"token": token, "creds": {"profile": "admprofile"}},
        "apns": {"token": token, "rel_channel": "firefox", "aps": {"alert": {"title": "x"}}},
    }
    return data[name]


class TestOldUsersOnSqlite(TestCase):
    """All routers, and a store with a record from the past."""

    mock: ClassVar[Background]

    @classmethod
    def setUpClass(cls) -> None:
        cls.mock = Background("apns", "gcm", "fcm", "adm").__enter__()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.mock.__exit__(None, None, None)

    async def make_store(self) -> Any:
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        store = SqliteStore(str(Path(directory) / "autopush.sqlite"), reactor)
        await store.setup()
        return store

    async def put_old_user(self, record: dict[str, Any]) -> None:
        await self.store.register_user(record)
        await self.store.add_channel(None, UAID, CHID)

    async def start(self, name: str) -> LateEndpoint:
        options = {
            "gcm_ttl": 60,
            "gcm_dryrun": False,
            "gcm_collapsekey": "simplepush",
            "fcm_ttl": 60,
            "fcm_dryrun": False,
            "fcm_collapsekey": "simplepush",
            "max_data": 4096,
            **self.mock.automock.options(),
            "fcm_version": 1,
        }
        conf = router_conf_from_options(SimpleNamespace(**options))
        check_router_conf(conf)
        conf["gcm"]["timeout"] = conf["fcm"]["timeout"] = VENDORS_WITHIN
        for creds in (*conf["adm"].values(), *conf["apns"].values()):
            creds["timeout"] = VENDORS_WITHIN
        self.store = await self.make_store()
        self.addCleanup(self.store.close)
        endpoint = LateEndpoint(self.store, router_conf=conf, bear_hash_key=[KEY])
        self.addCleanup(self._close, endpoint)
        await self.put_old_user(
            {
                "uaid": UAID,
                "router_type": name,
                "router_data": old_data(name),
                "connected_at": 1_600_000_000_000,
                "last_connect": 202009120005,
                "expiry": 0,
            }
        )
        return endpoint

    async def _close(self, endpoint: LateEndpoint) -> None:
        for router in endpoint.routers.values():
            closing = router.close()
            if closing is not None:
                await closing
        await deferLater(reactor, 0.05)

    async def check(self, name: str) -> None:
        """One life, from the next message on."""
        bridge, stand_in = BRIDGES[name], self.mock[name]
        stand_in.reset()
        endpoint = await self.start(name)
        path = endpoint.endpoint()
        answer = await endpoint.ask("POST", path, b"x", ttl="60", **AES128GCM)
        self.assertEqual(answer.status, 201, answer)
        requests = list(stand_in.script.requests)
        self.assertEqual(bridge.device(requests[-1]), bridge.token("a"))
        self.assertEqual(bridge.data(requests[-1])["chid"], CHID.replace("-", ""))

        base = f"/v1/{bridge.router_type}/{bridge.app_id}/registration/{UAID}"
        answer = await endpoint.ask("GET", base, **AUTH)
        self.assertEqual(json.loads(answer.body), {"uaid": UAID, "channelIDs": [CHID]})

        answer = await endpoint.ask("POST", f"{base}/subscription", b"{}", **AUTH)
        self.assertEqual(answer.status, 200, answer)
        answer = await endpoint.ask("GET", base, **AUTH)
        self.assertEqual(len(json.loads(answer.body)["channelIDs"]), 2)
        answer = await endpoint.ask("DELETE", f"{base}/subscription/{CHID}", **AUTH)
        self.assertEqual((answer.status, answer.body), (200, b"{}"))

        body = json.dumps({"token": bridge.token("b")}).encode()
        answer = await endpoint.ask("PUT", base, body, **AUTH)
        self.assertEqual((answer.status, answer.body), (200, b"{}"))
        answer = await endpoint.ask("POST", path, b"x", ttl="60", **AES128GCM)
        self.assertEqual(answer.status, 201, answer)
        requests = list(stand_in.script.requests)
        self.assertEqual(bridge.device(requests[-1]), bridge.token("b"))
        if bridge.moved is not None:
            stand_in.script.add(bridge.moved[0](bridge.token("c")))
            answer = await endpoint.ask("POST", path, b"x", ttl="60", **AES128GCM)
            self.assertEqual(answer.status, bridge.moved[1])
            record = await self.store.get_user(UAID)
            self.assertEqual(record["router_data"]["token"], bridge.token("c"))

        stand_in.script.add(bridge.gone[0])
        answer = await endpoint.ask("POST", path, b"x", ttl="60", **AES128GCM)
        self.assertEqual(answer.status, bridge.gone[1])
        self.assertIsNone(await self.store.get_user(UAID))
        answer = await endpoint.ask("GET", base, **AUTH)
        self.assertEqual((answer.status, json.loads(answer.body)["errno"]), (410, 103))

    async def test_fcm(self):
        await self.check("fcm")

    async def test_gcm(self):
        await self.check("gcm")

    async def test_adm(self):
        await self.check("adm")

    async def test_apns(self):
        await self.check("apns")


class TestOldUsersOnDynamoDB(TestOldUsersOnSqlite):
    """The rows are written past the store, as 1.58.3 did (spec/storage 2, 3.1)."""

    async def make_store(self) -> Any:
        store = new_store()
        await store.setup()
        return store

    async def put_old_user(self, record: dict[str, Any]) -> None:
        item = {name: write_value(value) for name, value in record.items()}
        put_item(self.store.users.table, item)
        put_item(
            self.store.months.current,
            {
                "uaid": {"S": UAID},
                "chidmessageid": {"S": " "},
                "chids": {"SS": [CHID]},
                "expiry": {"N": str(int(time.time()) + 2_592_000)},
            },
        )
