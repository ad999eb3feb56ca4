"""The APNs client against an HTTP/2 server nobody here wrote: hypercorn, with an ASGI app."""

from __future__ import annotations

import asyncio
import json
import ssl
import tempfile
import threading
import uuid
from pathlib import Path
from typing import Any

from hypercorn.asyncio import serve
from hypercorn.config import Config
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from automock.certs import Authority
from autopush.net import http2
from autopush.net.http2 import PING_TIMEOUT, Http2Error
from autopush.router.apns2 import APNSClient, APNSException
from autopush.tests.e2e.harness import free_port
from autopush.tests.router.bridge_support import PATIENT

PAYLOAD = {"aps": {"alert": "hi"}, "body": "x" * 3000}


class App:
    """Answers 200, or the status at the beginning of the device token; notes requests."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await self.lifespan(receive, send)
            return
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.requests.append(
            {
                "version": scope["http_version"],
                "method": scope["method"],
                "path": scope["path"],
                "headers": headers,
                "payload": json.loads(body),
            }
        )
        device = scope["path"].rpartition("/")[2]
        status = int(device[1:]) if device.startswith("s") else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        answer = b"" if status == 200 else json.dumps({"reason": "BadTopic"}).encode()
        await send({"type": "http.response.body", "body": answer})

    async def lifespan(self, receive, send):
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return


class Hypercorn:
    """The server in a thread."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.authority = Authority(directory)
        cert_file, key_file = self.authority.server("hypercorn")
        self.cert_file, self.key_file = map(str, self.authority.client("client"))
        self.app = App()
        self.port = free_port()
        self.config = Config()
        self.config.bind = [f"127.0.0.1:{self.port}"]
        self.config.certfile, self.config.keyfile = str(cert_file), str(key_file)
        self.config.ca_certs = str(self.authority.ca_file)
        self.config.verify_mode = ssl.CERT_REQUIRED
        self.config.alpn_protocols = ["h2"]
        for name, value in settings.items():
            setattr(self.config, name, value)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._started = threading.Event()
        self._loop: Any = None

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        task = asyncio.create_task(serve(self.app, self.config, shutdown_trigger=self._stop.wait))
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                break
        self._started.set()
        await task

    def start(self) -> None:
        self._thread.start()
        assert self._started.wait(PATIENT)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENT)


class HypercornTest(TestCase):
    def setUp(self):
        # A server that has much to do, or no CPU, isn't silent.
        self.patch(http2, "PING_TIMEOUT", PATIENT)

    def serve(self, **settings) -> Hypercorn:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        server = Hypercorn(Path(directory.name), **settings)
        server.start()
        self.addCleanup(server.stop)
        self.client = APNSClient(
            server.cert_file,
            server.key_file,
            "com.mozilla.org.firefox",
            host="127.0.0.1",
            port=server.port,
            ca_file=str(server.authority.ca_file),
            timeout=PATIENT,
        )
        self.addCleanup(self.client.close)
        return server

    def send(self, device="ab" * 32) -> Deferred[None]:
        return self.client.send(device, PAYLOAD, str(uuid.uuid4()), exp=5, push_type="alert")

    async def test_request_and_answer(self):
        server = self.serve()
        await self.send()
        (request,) = server.app.requests
        assert (request["version"], request["method"]) == ("2", "POST")
        assert request["path"] == "/3/device/" + "ab" * 32
        assert request["payload"] == PAYLOAD
        headers = request["headers"]
        assert headers["apns-topic"] == "com.mozilla.org.firefox"
        assert (headers["apns-priority"], headers["apns-expiration"]) == ("10", "5")
        assert headers["host"] == f"127.0.0.1:{server.port}"

    async def test_refusal(self):
        self.serve()
        with self.assertRaises(APNSException) as caught:
            await self.send("s400")
        assert (caught.exception.status, caught.exception.reason) == (400, "BadTopic")

    async def test_many_at_a_time(self):
        """More than its streams and its windows take at once."""
        server = self.serve(h2_max_concurrent_streams=10)
        await gatherResults([self.send() for _ in range(300)])
        assert len(server.app.requests) == 300
        assert 1 <= len(self.client.connections) <= 20

    async def test_connections_the_server_retires(self):
        """It says GOAWAY after some requests, and forgets those it has promised to answer: a PING
        it can't answer tells, and they are sent elsewhere. Nothing gets lost."""
        self.patch(http2, "PING_TIMEOUT", PING_TIMEOUT)
        server = self.serve(keep_alive_max_requests=20)
        for _ in range(2):
            await gatherResults([self.send() for _ in range(15)])
        ids = [request["headers"]["apns-id"] for request in server.app.requests]
        assert len(set(ids)) == 30

    async def test_a_client_certificate_is_sent(self):
        server = self.serve()
        stranger = APNSClient(
            None, None, "t", host="127.0.0.1", port=server.port,
            ca_file=str(server.authority.ca_file),
        )  # fmt: skip
        self.addCleanup(stranger.close)
        with self.assertRaises(Http2Error):
            await stranger.send("ab", PAYLOAD, str(uuid.uuid4()))
        assert server.app.requests == []
