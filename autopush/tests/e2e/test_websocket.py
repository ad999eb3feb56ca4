"""A whole connection node on loopback, spoken to with the ``websockets`` client."""

# mypy: disable-error-code="arg-type,union-attr,var-annotated"

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import tempfile
import time
import urllib.request
import uuid
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from websockets.asyncio.client import connect as async_connect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from autopush.config import AutopushConfig
from autopush.http import InternalRouterHTTPFactory, WebSocketHTTPFactory
from autopush.message.notification import WebPushNotification
from autopush.metrics import SinkMetrics
from autopush.net.proxyprotocol import HAProxyServerEndpoint
from autopush.session import Delivery, Node
from autopush.ssl import AutopushSSLContextFactory
from autopush.tests.db.memory_store import MemoryStore
from autopush.tests.tlsfiles import make_certificate
from autopush.tests.websocket.support import TEXT, frame, request
from autopush.websocket import PushServerFactory

CHID = "0a1b2c3d-1eb1-4f92-80a5-7fdf8d462b5c"
WAIT = 60
"""Seconds after which a client gives up; nothing here takes a tenth of that."""


def notification(uaid: str, **changes) -> WebPushNotification:
    values = {
        "uaid": uuid.UUID(uaid),
        "channel_id": uuid.UUID(CHID),
        "ttl": 60,
        "data": "YWJj",
        "headers": {"encoding": "aes128gcm"},
        "message_id": "version-1",
        "update_id": "version-1",
    }
    return WebPushNotification(**{**values, **changes})


def say(client: ClientConnection, message) -> None:
    client.send(message if isinstance(message, str) else json.dumps(message))


def hear(client: ClientConnection):
    return json.loads(client.recv(timeout=WAIT))


def ended(client: ClientConnection) -> int | None:
    """Wait for the end; returns the code of the close frame (None: there was none)."""
    try:
        client.recv(timeout=WAIT)
    except ConnectionClosed as exc:
        return exc.rcvd.code if exc.rcvd else None
    raise AssertionError("heard something")


class NodeTestCase(TestCase):
    """Both listeners of a connection node; subclasses talk to them from a thread."""

    options: dict = {}
    direct_listener = False

    def setUp(self):
        conf = AutopushConfig(hostname="localhost", statsd_host=None, **self.options)
        self.store = MemoryStore()
        self.node = Node(conf, self.store, SinkMetrics(), reactor)
        self.factory = PushServerFactory(conf, self.node, reactor)
        public = WebSocketHTTPFactory(conf, self.factory, metrics=SinkMetrics())
        internal = InternalRouterHTTPFactory(conf, self.store, self.node.clients, node=self.node)
        self.ports = [
            self.listen(self.factory if self.direct_listener else public),
            reactor.listenTCP(0, internal, interface="127.0.0.1"),
        ]
        self.url = f"ws://127.0.0.1:{self.ports[0].getHost().port}/any/path?query"
        self.internal = f"http://127.0.0.1:{self.ports[1].getHost().port}"
        self.address = ("127.0.0.1", self.ports[0].getHost().port)

    def listen(self, factory):
        return reactor.listenTCP(0, factory, interface="127.0.0.1")

    async def stop(self):
        for port in self.ports:
            await port.stopListening()
        await self.factory.shutdown()
        await self.node.shutdown()
        await self.node.idle()

    def tearDown(self):
        return Deferred.fromCoroutine(self.stop())

    def connect(self, **kwargs) -> ClientConnection:
        opening = connect(self.url, open_timeout=WAIT, close_timeout=WAIT, proxy=None, **kwargs)
        return opening.__enter__()

    def hello(self, **fields) -> tuple[ClientConnection, str]:
        client = self.connect(subprotocols=["push-notification"])
        say(client, {"messageType": "hello", "use_webpush": True, **fields})
        reply = hear(client)
        assert reply["status"] == 200
        return client, reply["uaid"]

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, str]:
        asked = urllib.request.Request(self.internal + path, body or None, method=method)
        try:
            with urllib.request.urlopen(asked, timeout=WAIT) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


class ConversationTest(NodeTestCase):
    """spec/websocket 24."""

    def test_register_receive_acknowledge_and_ping(self):
        def talk():
            client, uaid = self.hello()
            assert client.subprotocol is None
            assert client.response.headers["Server"].startswith("AutobahnPython/")
            assert "Sec-WebSocket-Extensions" not in client.response.headers
            say(client, {"messageType": "register", "channelID": CHID})
            reply = hear(client)
            assert (reply["status"], reply["channelID"]) == (200, CHID)
            assert "/wpush/v1/" in reply["pushEndpoint"]
            pushed = notification(uaid).serialize()
            answer = self.ask("PUT", f"/push/{uaid}", json.dumps(pushed).encode())
            assert answer == (200, "Client accepted for delivery")
            assert hear(client) == notification(uaid).websocket_format()
            ack = {"channelID": CHID, "version": "version-1", "code": 100}
            say(client, {"messageType": "ack", "updates": [ack]})
            say(client, "{}")
            assert hear(client) == {}
            say(client, "{}")
            assert ended(client) == 4774
            return uaid

        def check(uaid):
            assert not self.store.messages

        return deferToThread(talk).addCallback(check)

    def test_an_unacknowledged_message_is_delivered_by_the_next_connection(self):
        def talk():
            client, uaid = self.hello()
            say(client, {"messageType": "register", "channelID": CHID})
            hear(client)
            pushed = notification(uaid).serialize()
            assert self.ask("PUT", f"/push/{uaid}", json.dumps(pushed).encode())[0] == 200
            hear(client)
            client.close()
            again, same = self.hello(uaid=uaid)
            assert same == uaid
            assert hear(again)["version"] == "version-1"
            again.close()

        return deferToThread(talk)

    def test_a_newer_connection_closes_the_older(self):
        def talk():
            old, uaid = self.hello()
            say(old, {"messageType": "register", "channelID": CHID})
            hear(old)
            new, same = self.hello(uaid=uaid)
            assert same == uaid
            assert ended(old) == 1005
            assert self.ask("DELETE", f"/notif/{uaid}/1") == (200, "")
            new.close()

        return deferToThread(talk)

    def test_a_large_message_in_both_directions(self):
        def talk():
            client, _ = self.hello()
            echo = {"messageType": "unregister", "channelID": CHID, "x": "ä" * 100_000}
            say(client, echo)
            assert hear(client) == {**echo, "status": 200}
            client.close()

        return deferToThread(talk)

    def test_as_many_acks_as_fit_in_one_message(self):
        def talk():
            client, _ = self.hello()
            update = {"channelID": CHID, "version": "v"}
            start = time.process_time()
            say(client, {"messageType": "ack", "updates": [update] * 14_000})
            say(client, "{}")
            assert hear(client) == {}
            taken = time.process_time() - start
            say(client, {"messageType": "ack", "updates": [update] * 100_000})
            assert ended(client) == 1009
            return taken

        return deferToThread(talk).addCallback(lambda taken: self.assertLess(taken, 2))

    def test_messages_behind_the_handshake_are_answered(self):
        def talk():
            with socket.create_connection(self.address, WAIT) as sock:
                hello = b'{"messageType":"hello","use_webpush":true}'
                sock.sendall(request() + frame(TEXT, hello) + frame(TEXT, b"{}"))
                received = b""
                while not received.endswith(b"\x81\x02{}"):
                    received += sock.recv(65536)
                assert received.startswith(b"HTTP/1.1 101 ")
                assert b'"status":200' in received

        return deferToThread(talk)


class EndTest(NodeTestCase):
    """spec/websocket 3: how connections end."""

    options = {"max_message_size": 10_000}

    def test_the_node_ends_tcp_without_waiting_for_the_answer(self):
        def talk():
            with socket.create_connection(self.address, WAIT) as sock:
                sock.sendall(request() + frame(TEXT, b"[]"))
                received = b""
                while data := sock.recv(65536):
                    received += data
                return received

        got = deferToThread(talk)
        return got.addCallback(lambda data: self.assertEqual(data[-2:], b"\x88\x00"))

    def test_a_huge_frame_is_refused_with_1009(self):
        def talk():
            client, _ = self.hello()
            try:
                client.send("x" * 50_000_000)
            except ConnectionClosed:
                pass
            return ended(client)

        return deferToThread(talk).addCallback(self.assertEqual, 1009)

    def test_invalid_utf8_is_a_reset(self):
        def talk():
            with socket.create_connection(self.address, WAIT) as sock:
                sock.sendall(request())
                sock.recv(65536)
                sock.sendall(frame(TEXT, b"\xff"))
                self.assertRaises(ConnectionResetError, sock.recv, 1)

        return deferToThread(talk)

    def test_the_close_of_a_user_agent_is_answered_1000(self):
        def talk():
            client, _ = self.hello()
            client.close(code=1001, reason="leaving")
            return client.protocol.close_rcvd.code

        return deferToThread(talk).addCallback(self.assertEqual, 1000)

    def test_shutdown_says_1001(self):
        waiting = deferToThread(self.hello)

        def hello_done(result):
            client, uaid = result
            gone = self.factory.shutdown()
            assert uaid not in self.node.clients
            heard = deferToThread(ended, client)
            heard.addCallback(self.assertEqual, 1001)
            return heard.addCallback(lambda _: gone)

        return waiting.addCallback(hello_done)

    def test_status_is_not_a_websocket(self):
        def talk():
            url = self.url.replace("ws:", "http:").split("/any")[0] + "/status"
            with urllib.request.urlopen(url, timeout=WAIT) as answer:
                return json.load(answer)["status"]

        return deferToThread(talk).addCallback(self.assertEqual, "OK")


class ProxyProtocolTest(NodeTestCase):
    """Behind a PROXY protocol listener."""

    def listen(self, factory):
        return HAProxyServerEndpoint(reactor, 0, interface="127.0.0.1").bind(factory)

    def test_the_close_is_the_same_and_the_output_limit_too(self):
        def talk():
            with socket.create_connection(self.address, WAIT) as sock:
                sock.sendall(b"PROXY TCP4 192.0.2.9 192.0.2.1 4321 80\r\n" + request())
                received = sock.recv(65536)
                (protocol,) = self.factory.protocols
                assert protocol.peer == "tcp4:192.0.2.9:4321"
                assert protocol.transport.transport.bufferSize == 2048
                sock.sendall(frame(TEXT, b"[]"))
                while data := sock.recv(65536):
                    received += data
                return received

        got = deferToThread(talk)
        return got.addCallback(lambda data: self.assertEqual(data[-2:], b"\x88\x00"))


class TLSTest(NodeTestCase):
    """With a TLS listener of our own."""

    def listen(self, factory):
        key, certificate, _ = make_certificate(Path(self.mktemp_dir()))
        self.client_context = ssl.create_default_context(cafile=certificate)
        context = AutopushSSLContextFactory(key, certificate)
        return reactor.listenSSL(0, factory, context, interface="127.0.0.1")

    def mktemp_dir(self) -> str:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        return directory.name

    def secure(self) -> ssl.SSLSocket:
        sock = socket.create_connection(self.address, WAIT)
        return self.client_context.wrap_socket(sock, server_hostname="localhost")

    def test_a_close_by_the_node_and_the_output_limit(self):
        def talk():
            with self.secure() as sock:
                sock.sendall(request())
                received = sock.recv(65536)
                (protocol,) = self.factory.protocols
                assert protocol.transport.bufferSize == 65536
                sock.sendall(frame(TEXT, b"[]"))
                while data := sock.recv(65536):
                    received += data
                return received

        got = deferToThread(talk)
        return got.addCallback(lambda data: self.assertEqual(data[-2:], b"\x88\x00"))

    def test_hello_and_a_close_by_the_user_agent(self):
        url = f"wss://localhost:{self.address[1]}/"

        # Not the threaded client: it reads and writes one SSL object in two threads at a time,
        # which Python before 3.13 does not survive every time.
        async def talk():
            async with async_connect(url, ssl=self.client_context, proxy=None) as client:
                await client.send('{"messageType":"hello","use_webpush":true}')
                reply = json.loads(await client.recv())
            return reply["status"], client.protocol.close_rcvd.code

        return deferToThread(asyncio.run, talk()).addCallback(self.assertEqual, (200, 1000))


class DirectListenerTest(NodeTestCase):
    """The factory listens itself, without an HTTP server in front."""

    direct_listener = True

    def test_hello(self):
        def talk():
            client, uaid = self.hello()
            client.close()
            return uaid

        return deferToThread(talk).addCallback(lambda uaid: self.assertEqual(len(uaid), 32))

    def test_a_slow_reader_makes_output_pause_and_resume(self):
        """spec/websocket 12, with a real kernel buffer."""

        def talk():
            sock = socket.create_connection(self.address, WAIT)
            sock.sendall(request() + frame(TEXT, b'{"messageType":"hello","use_webpush":true}'))
            received = b""
            while b'"status":200' not in received:
                received += sock.recv(65536)
            return sock

        def fill(sock):
            (uaid, session), *_ = self.node.clients.items()
            wire = session.wire
            while not wire.output_paused:
                wire.send({"data": "x" * 2_000_000})
            busy = self.deliver(uaid).addCallback(self.assertEqual, Delivery.BUSY)
            return busy.addCallback(lambda _: (sock, wire))

        def read(pair):
            sock, wire = pair
            resumed = Deferred()
            session = self.node.clients[next(iter(self.node.clients))]
            self.patch(type(session), "output_resumed", lambda _: resumed.callback(None))
            reading = deferToThread(self.read_all, sock, resumed)
            return resumed.addCallback(lambda _: self.assertFalse(wire.output_paused)).addCallback(
                lambda _: reading
            )

        return deferToThread(talk).addCallback(fill).addCallback(read)

    def deliver(self, uaid: str) -> Deferred:
        return Deferred.fromCoroutine(self.node.deliver(uaid, notification(uaid)))

    @staticmethod
    def read_all(sock: socket.socket, resumed: Deferred) -> None:
        sock.settimeout(0.1)
        with sock:
            while not resumed.called:
                try:
                    sock.recv(1 << 20)
                except TimeoutError:
                    pass
