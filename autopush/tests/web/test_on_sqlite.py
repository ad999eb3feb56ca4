"""The endpoint's handlers on a store that answers later: one life of a subscription."""

import json
import shutil
import tempfile
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from autopush.db.sqlite.store import SqliteStore
from autopush.tests.db.sqlite.support import be_patient
from autopush.tests.httpserver.support import Transport, Wire
from autopush.tests.web.support import AES128GCM, ORIGIN, Endpoint


class NotifyingTransport(Transport):
    """Fires a Deferred when an answer is written."""

    written: Deferred[None]

    def write(self, data):
        super().write(data)
        self.written.callback(None)


class LateEndpoint(Endpoint):
    def __init__(self, store, **conf):
        super().__init__(store, **conf)
        self.wire = Wire(self.app, NotifyingTransport())

    async def ask(self, method, path, body=b"", **headers):
        self.wire.transport.written = Deferred()
        lines = [f"{method} {path} HTTP/1.1", "Host: h", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.wire.send("\r\n".join([*lines, "", ""]).encode() + body)
        await self.wire.transport.written
        return self.wire.answers(method)[0]


class TestOnSqlite(TestCase):
    key_hash = ""

    async def make_endpoint(self):
        be_patient(self)
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        path = str(Path(directory) / "autopush.sqlite")
        store = SqliteStore(path, reactor, key_hash=self.key_hash)
        self.addCleanup(store.close)
        await store.setup()
        return LateEndpoint(store, key_hash=self.key_hash, bear_hash_key=["key"])

    async def test_life_of_a_subscription(self):
        endpoint = await self.make_endpoint()
        answer = await endpoint.ask("POST", "/v1/webpush/app/registration", b"{}")
        user = json.loads(answer.body)
        base = f"/v1/webpush/app/registration/{user['uaid']}"
        auth = {"authorization": f"webpush {user['secret']}"}

        answer = await endpoint.ask("POST", f"{base}/subscription", b"{}", **auth)
        channel = json.loads(answer.body)
        path = channel["endpoint"].removeprefix(ORIGIN)

        answer = await endpoint.ask("POST", path, b"body", ttl="60", **AES128GCM)
        self.assertEqual((answer.status, answer.headers["ttl"]), (201, "60"))
        location = answer.headers["location"].removeprefix(ORIGIN)
        stored = await endpoint.store.fetch_since(endpoint.month, user["uaid"], None)
        self.assertEqual([f"/m/{n.message_id}" for n in stored.messages], [location])

        self.assertEqual((await endpoint.ask("DELETE", location)).status, 204)
        stored = await endpoint.store.fetch_since(endpoint.month, user["uaid"], None)
        self.assertEqual(stored.messages, [])

        answer = await endpoint.ask("GET", base, **auth)
        self.assertEqual(len(json.loads(answer.body)["channelIDs"]), 2)
        answer = await endpoint.ask("DELETE", f"{base}/subscription/{channel['channelID']}", **auth)
        self.assertEqual((answer.status, answer.body), (200, b"{}"))
        answer = await endpoint.ask("POST", path, ttl="60")
        self.assertEqual((answer.status, json.loads(answer.body)["errno"]), (410, 106))

        answer = await endpoint.ask("PUT", base, b"{}", **auth)
        self.assertEqual((answer.status, answer.body), (200, b"{}"))
        answer = await endpoint.ask("DELETE", base, **auth)
        self.assertEqual((answer.status, answer.body), (200, b"{}"))
        answer = await endpoint.ask("POST", path, ttl="60")
        self.assertEqual((answer.status, json.loads(answer.body)["errno"]), (410, 103))


class TestOnHashedSqlite(TestOnSqlite):
    """spec/http-endpoint Q19: the UAID of the token is used throughout."""

    key_hash = "SuperSikkret"
