"""The client of the node-to-node hop (spec/configuration 11, spec/websocket 19)."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, strategies as st
from OpenSSL import crypto
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from autopush.net.nodeclient import (
    BODY_LIMIT,
    CONNECTIONS_PER_NODE,
    GONE,
    IDLE_TIMEOUT,
    WAITING_PER_NODE,
    Address,
    NodeBusy,
    NodeClient,
    NodeGone,
    parse_url,
)
from autopush.ssl import AutopushSSLContextFactory
from autopush.tests.httpserver.support import Transport
from autopush.tests.httpserver.test_connection import App
from autopush.tests.tlsfiles import make_certificate

reactor: Any = _reactor
PATIENCE = 60
"""Seconds a node has to answer, however busy the machine is."""

URL = "http://node.example:8081/push/abc"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Endpoint:
    """Connects when the test says so."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.attempts: list[tuple[Deferred[Any], Factory]] = []
        self.cancelled = 0

    def connect(self, factory):
        attempt: Deferred[Any] = Deferred(self.cancel)
        self.attempts.append((attempt, factory))
        return attempt

    def cancel(self, attempt):
        self.cancelled += 1

    def accept(self) -> Server:
        attempt, factory = self.attempts.pop(0)
        server = Server(factory.buildProtocol(self.address))  # type: ignore[arg-type]
        attempt.callback(server.client)
        return server

    def refuse(self) -> None:
        self.attempts.pop(0)[0].errback(ConnectionRefusedError())


class Server:
    """A node's end of one connection."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.transport = Transport()
        client.makeConnection(self.transport)

    def received(self) -> bytes:
        data = self.transport.value()
        self.transport.clear()
        return data

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.client.dataReceived(piece)

    def lose(self) -> None:
        self.client.connectionLost(Failure(ConnectionDone()))


class FakeNetwork(NodeClient):
    """A client whose connections are in the hands of the test."""

    def __init__(self, **kwargs: Any) -> None:
        self.clock = Clock()
        self.endpoints: dict[Address, Endpoint] = {}
        super().__init__(self.clock, **kwargs)

    def endpoint(self, address):
        return self.endpoints.setdefault(address, Endpoint(address))

    @property
    def node(self) -> Endpoint:
        (endpoint,) = self.endpoints.values()
        return endpoint


class ClientTestCase(SynchronousTestCase):
    def setUp(self):
        self.client = FakeNetwork(connect_timeout=1, response_timeout=3)

    def gone(self, result: Deferred[int], kind: type[Exception] = NodeGone) -> None:
        self.assertIs(type(self.failureResultOf(result).value), kind)


class ExchangeTest(ClientTestCase):
    def test_request(self):
        result = self.client.request("PUT", URL + "?a", b'{"a": 1}')
        server = self.client.node.accept()
        self.assertEqual(self.client.node.address, Address(False, "node.example", 8081))
        self.assertEqual(
            server.received(),
            b"PUT /push/abc?a HTTP/1.1\r\nHost: node.example:8081\r\n"
            b'Content-Length: 8\r\n\r\n{"a": 1}',
        )
        self.assertTrue(server.transport.no_delay)
        server.send(OK[:20], OK[20:-1])
        self.assertNoResult(result)
        server.send(OK[-1:])
        self.assertEqual(self.successResultOf(result), 200)

    def test_connection_is_used_again(self):
        self.client.request("PUT", URL)
        server = self.client.node.accept()
        for status in (200, 404, 503):
            server.send(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)
            server.received()
            result = self.client.request("DELETE", URL)
            self.assertEqual(self.client.node.attempts, [])
            self.assertTrue(server.received().startswith(b"DELETE "))
        server.send(OK)
        self.assertEqual(self.successResultOf(result), 200)

    def test_404_of_a_node_that_is_sure(self):
        """Only such a 404, and only of the answer that says so."""
        sure = b"x-not-connected: sure\r\nContent-Length: 0\r\n\r\n"
        result = self.client.request("PUT", URL)
        server = self.client.node.accept()
        for head, status in (
            (b"HTTP/1.1 404 Not Found\r\n" + sure, GONE),
            (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 404),
            (b"HTTP/1.1 503 Service Unavailable\r\n" + sure, 503),
            (b"HTTP/1.1 404 Not Found\r\n" + sure.title(), GONE),
        ):
            server.send(head)
            self.assertEqual(self.successResultOf(result), status)
            result = self.client.request("PUT", URL)
        server.send(OK)
        self.assertEqual(self.successResultOf(result), 200)

    def test_forms_of_answers(self):
        for answer, status in (
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200),
            (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200),
            (b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        ):
            client = self.client = FakeNetwork()
            result = client.request("PUT", URL)
            client.node.accept().send(answer)
            self.assertEqual(self.successResultOf(result), status)

    def test_close_is_honoured(self):
        result = self.client.request("PUT", URL)
        server = self.client.node.accept()
        server.send(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        self.assertEqual(self.successResultOf(result), 200)
        self.assertTrue(server.transport.disconnecting)
        self.client.request("PUT", URL)
        self.assertEqual(len(self.client.node.attempts), 1)

    def test_body_up_to_the_end_of_the_connection(self):
        result = self.client.request("PUT", URL)
        server = self.client.node.accept()
        server.send(b"HTTP/1.0 202 Accepted\r\n\r\nhello")
        self.assertNoResult(result)
        server.lose()
        self.assertEqual(self.successResultOf(result), 202)


class FailureTest(ClientTestCase):
    def test_no_connection(self):
        result = self.client.request("PUT", URL)
        self.client.node.refuse()
        self.gone(result)

    def test_connection_lost_before_or_within_the_answer(self):
        for received in (b"", OK[:10], OK[:-1], b"HTTP/1.1 100 Continue\r\n\r\n"):
            client = FakeNetwork()
            result = client.request("PUT", URL)
            server = client.node.accept()
            server.send(*[received] * bool(received))
            server.lose()
            self.gone(result)
            self.assertEqual(client.node.attempts, [])

    def test_malformed_answers(self):
        for answer in (b"nonsense\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", OK + OK):
            client = FakeNetwork()
            result = client.request("PUT", URL)
            server = client.node.accept()
            server.send(answer)
            self.gone(result)
            self.assertTrue(server.transport.disconnected)

    def test_endless_answer(self):
        result = self.client.request("PUT", URL)
        server = self.client.node.accept()
        server.send(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * BODY_LIMIT)
        self.assertNoResult(result)
        server.send(b"x")
        self.gone(result)
        self.assertTrue(server.transport.disconnected)

    def test_answer_nobody_asked_for(self):
        self.client.request("PUT", URL)
        server = self.client.node.accept()
        server.send(OK)
        server.send(OK)
        self.assertTrue(server.transport.disconnected)

    def test_malformed_urls(self):
        for url in (
            *("", "node", "ftp://node/", "http://", "http:///a", "http://user@node/"),
            *("http://node:0/", "http://node:65536/", "http://node:x/", "http://no de/"),
            *("http://node/a b", "http://node/a\r\nX: y", "http://node\n", "http://-node/"),
            *("http://[::1", "http://[v1.x]/", "http://node/\xe9", "http://n/#\x00", "HTTP://n/"),
        ):
            self.gone(self.client.request("PUT", url))
        self.assertEqual(self.client.endpoints, {})

    def test_malformed_method(self):
        self.failureResultOf(self.client.request("PU T", URL), ValueError)

    def test_no_connection_again_and_again(self):
        for _ in range(2):
            result = self.client.request("PUT", URL)
            self.client.node.refuse()
            self.gone(result)


class StaleConnectionTest(ClientTestCase):
    """A kept connection the node closed at the very moment we used it."""

    def setUp(self):
        super().setUp()
        self.client.request("PUT", URL)
        self.server = self.client.node.accept()
        self.server.send(OK)

    def test_is_retried_once(self):
        result = self.client.request("PUT", URL, b"body")
        self.server.lose()
        self.assertNoResult(result)
        server = self.client.node.accept()
        self.assertTrue(server.received().endswith(b"body"))
        server.send(OK)
        self.assertEqual(self.successResultOf(result), 200)

    def test_is_not_retried_twice(self):
        other = self.client.request("PUT", URL)  # keeps the first connection busy
        self.client.request("PUT", URL)
        second = self.client.node.accept()
        second.send(OK)
        self.server.send(OK)
        self.successResultOf(other)
        result = self.client.request("PUT", URL)
        first, then = (
            (self.server, second)
            if self.server.client.request is not None
            else (second, self.server)
        )
        first.lose()
        then.lose()
        self.gone(result)

    def test_is_not_retried_after_a_byte(self):
        result = self.client.request("PUT", URL)
        self.server.send(b"H")
        self.server.lose()
        self.gone(result)

    def test_closed_while_idle(self):
        self.server.lose()
        result = self.client.request("PUT", URL)
        self.client.node.accept().send(OK)
        self.assertEqual(self.successResultOf(result), 200)


class QueueTest(ClientTestCase):
    def setUp(self):
        super().setUp()
        self.results = [self.client.request("PUT", URL) for _ in range(CONNECTIONS_PER_NODE)]

    def test_connections_are_bounded_and_waiting_ones_served_in_order(self):
        waiting = [self.client.request("PUT", f"{URL}{n}") for n in range(3)]
        self.assertEqual(len(self.client.node.attempts), CONNECTIONS_PER_NODE)
        server = self.client.node.accept()
        for number, result in enumerate(waiting):
            server.received()
            server.send(OK)
            self.assertIn(b"/push/abc%d " % number, server.received())
            self.assertNoResult(result)
        server.send(OK)
        self.assertEqual([self.successResultOf(r) for r in waiting], [200] * 3)

    def test_other_nodes_do_not_wait(self):
        self.client.request("PUT", "http://other/")
        self.assertEqual(len(self.client.endpoints), 2)

    def test_waiting_ones_get_a_connection_when_others_fail(self):
        waiting = self.client.request("PUT", URL)
        self.client.node.refuse()
        self.gone(self.results[0])
        self.assertEqual(len(self.client.node.attempts), CONNECTIONS_PER_NODE)
        server = self.client.node.accept()
        server.lose()
        self.gone(self.results[1])
        for _ in range(CONNECTIONS_PER_NODE - 1):
            self.client.node.accept().send(OK)
        self.assertEqual(self.successResultOf(waiting), 200)

    def test_too_many_waiting(self):
        waiting = [self.client.request("PUT", URL) for _ in range(WAITING_PER_NODE)]
        self.gone(self.client.request("PUT", URL), NodeBusy)
        self.assertNoResult(waiting[-1])

    def test_waiting_too_long(self):
        waiting = [self.client.request("PUT", URL) for _ in range(3)]
        self.client.clock.pump([1, 1])
        late = self.client.request("PUT", URL)
        self.client.clock.pump([1] * 3)
        for result in self.results:
            self.gone(result)
        for result in waiting:
            self.gone(result, NodeBusy)
        self.assertEqual(self.client.node.cancelled, CONNECTIONS_PER_NODE)
        self.client.node.attempts = self.client.node.attempts[CONNECTIONS_PER_NODE:]
        self.client.node.accept().send(OK)
        self.assertEqual(self.successResultOf(late), 200)


class TimeTest(ClientTestCase):
    def test_no_answer(self):
        result = self.client.request("PUT", URL)
        server = self.client.node.accept()
        self.client.clock.pump([1] * 4)
        self.assertNoResult(result)
        self.client.clock.pump([1])
        self.gone(result)
        self.assertTrue(server.transport.disconnected)

    def test_dripping_answer(self):
        result = self.client.request("PUT", URL)
        server = self.client.node.accept()
        for byte in OK[:5]:
            server.send(bytes([byte]))
            self.client.clock.pump([1])
        self.gone(result)

    def test_no_connection_in_time(self):
        result = self.client.request("PUT", URL)
        self.client.clock.pump([1] * 5)
        self.assertEqual(self.client.node.cancelled, 1)
        self.gone(result)

    def test_idle_connections_are_closed(self):
        self.client.request("PUT", URL)
        server = self.client.node.accept()
        server.send(OK)
        self.client.clock.pump([1] * IDLE_TIMEOUT)
        self.assertFalse(server.transport.disconnecting)
        self.client.clock.pump([1] * 2)
        self.assertTrue(server.transport.disconnecting)
        self.client.request("PUT", URL)
        self.assertEqual(len(self.client.node.attempts), 1)

    def test_no_timer_without_connections(self):
        refused = self.client.request("PUT", URL)
        self.client.node.refuse()
        self.gone(refused)
        self.client.clock.pump([1] * 2)
        self.assertEqual(self.client.clock.getDelayedCalls(), [])
        result = self.client.request("PUT", URL)
        self.client.clock.pump([1] * 6)
        self.gone(result)

    def test_sweep_survives_an_error(self):
        result = self.client.request("PUT", URL)
        server = self.client.node.accept()
        expire, server.client.expire = server.client.expire, lambda: 1 / 0
        self.client.clock.pump([1] * 6)
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))
        server.client.expire = expire
        self.client.clock.pump([1])
        self.gone(result)


class CloseTest(ClientTestCase):
    def test_close(self):
        connecting = self.client.request("PUT", "http://other/")
        self.client.request("PUT", URL)
        idle = self.client.endpoints[Address(False, "node.example", 8081)].accept()
        idle.send(OK)
        busy_result = self.client.request("PUT", URL)
        closed = self.client.close()
        self.gone(connecting)
        self.assertTrue(idle.transport.disconnected)
        self.assertNoResult(closed)
        idle.lose()
        self.gone(busy_result)
        self.successResultOf(closed)
        self.assertEqual(self.client.clock.getDelayedCalls(), [])
        self.gone(self.client.request("PUT", URL))

    def test_close_unused(self):
        self.successResultOf(self.client.close())


class URLTest(SynchronousTestCase):
    def test_shapes(self):
        for url, expected in (
            ("http://node/a", (Address(False, "node", 80), "node", "/a")),
            ("https://node/", (Address(True, "node", 443), "node", "/")),
            ("https://n.example:8081", (Address(True, "n.example", 8081), "n.example:8081", "/")),
            ("http://10.0.0.1:1/x?y", (Address(False, "10.0.0.1", 1), "10.0.0.1:1", "/x?y")),
            ("http://[::1]:8081/x", (Address(False, "::1", 8081), "[::1]:8081", "/x")),
            ("http://a_b-c:81/", (Address(False, "a_b-c", 81), "a_b-c:81", "/")),
        ):
            self.assertEqual(parse_url(url), expected)

    @staticmethod
    @given(st.text())
    def test_any_text(text):
        for url in (text, "http://" + text, "http://node/" + text):
            try:
                _, authority, path = parse_url(url)
            except NodeGone:
                continue
            line = (authority + path).encode("ascii")
            assert not any(byte <= 32 or byte == 127 for byte in line)


class SocketTest(TestCase):
    """Over real sockets."""

    def setUp(self):
        self.app = App(reactor)
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def listen(self, port: Any) -> int:
        async def stop():
            await port.stopListening()
            await self.app.drain()

        self.addCleanup(stop)
        return port.getHost().port

    def client(self, **kwargs: Any) -> NodeClient:
        client = NodeClient(reactor, PATIENCE, PATIENCE, **kwargs)
        self.addCleanup(client.close)
        return client

    async def fails(self, result: Deferred[int]) -> str:
        try:
            await result
        except NodeGone as error:
            return str(error)
        return self.fail("no NodeGone")

    async def test_plain(self):
        port = self.listen(reactor.listenTCP(0, self.app, interface="127.0.0.1"))
        client = self.client()
        for _ in range(3):
            self.assertEqual(
                await client.request("PUT", f"http://localhost:{port}/push/a", b"x" * 5000), 200
            )
        self.assertEqual(len(self.app.connections), 1)
        self.assertEqual([r.body for r in self.app.requests], [b"x" * 5000] * 3)

    async def test_refused(self):
        with socket.socket() as taken:  # so that nobody else listens there
            taken.bind(("127.0.0.1", 0))
            number = taken.getsockname()[1]
            await self.fails(self.client().request("PUT", f"http://127.0.0.1:{number}/"))

    async def test_unknown_name(self):
        await self.fails(self.client().request("PUT", "http://nowhere.invalid:1/"))

    def tls(self, name: str = "localhost") -> tuple[int, Any]:
        key, file, _ = make_certificate(self.directory, name)
        port = self.listen(
            reactor.listenSSL(
                0, self.app, AutopushSSLContextFactory(key, file), interface="127.0.0.1"
            )
        )
        certificate = Certificate.loadPEM(Path(file).read_bytes())
        self.assertIsInstance(certificate.original, crypto.X509)
        return port, trustRootFromCertificates([certificate])

    async def test_https(self):
        port, trust = self.tls()
        client = self.client(trust_root=trust)
        for _ in range(2):
            self.assertEqual(await client.request("PUT", f"https://localhost:{port}/"), 200)
        self.assertEqual(await client.request("PUT", f"https://127.0.0.1:{port}/"), 200)
        self.assertEqual({r.protocol for r in self.app.requests}, {"https"})

    async def test_https_of_an_unknown_authority(self):
        port, _ = self.tls()
        await self.fails(self.client().request("PUT", f"https://localhost:{port}/"))
        self.assertEqual(self.app.requests, [])

    async def test_https_with_another_name(self):
        port, trust = self.tls("other.example")
        client = self.client(trust_root=trust)
        await self.fails(client.request("PUT", f"https://localhost:{port}/"))
        self.assertEqual(self.app.requests, [])
