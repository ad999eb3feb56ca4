"""Connections: order, limits, time-outs, hand-over (spec/http-endpoint 1, spec/websocket 2)."""

from __future__ import annotations

import gc
import socket
import ssl
import tempfile
import weakref
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, ServerFactory
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase

from autopush.httpserver.connection import (
    BODY_TIMEOUT,
    HEAD_TIMEOUT,
    IDLE_TIMEOUT,
    LINGER_BYTES,
    LINGER_TIMEOUT,
    PIPELINE_BYTES,
    RETRY_AFTER,
    WRITE_TIMEOUT,
    HTTPConnection,
    HTTPServer,
    http_date,
)
from autopush.httpserver.parser import BODY_LIMIT, HEAD_LIMIT, URI_LIMIT
from autopush.httpserver.request import Request
from autopush.logging.floods import LINES
from autopush.net.proxyprotocol import HAProxyServerEndpoint
from autopush.ssl import AutopushSSLContextFactory
from autopush.tests.httpserver.support import Wire, advance, observe
from autopush.tests.tlsfiles import make_certificate

reactor: Any = _reactor
GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Handler:
    """The handler object of the test application."""

    def __init__(self) -> None:
        self.lost: Any = None

    def connection_lost(self, reason):
        self.lost = reason


class App(HTTPServer, ServerFactory):
    """Answers with the request's body; ``/later`` only when told."""

    def __init__(self, clock: Any = None) -> None:
        super().__init__(clock or Clock())
        self.requests: list[Request] = []
        self.handlers: list[Handler] = []

    def __call__(self, request: Request) -> Handler:
        self.requests.append(request)
        self.handlers.append(Handler())
        if request.path == "/bug":
            raise ZeroDivisionError("on purpose")
        if request.path != "/later":
            self.answer(request)
        return self.handlers[-1]

    def answer(self, request: Request, body: bytes | None = None) -> None:
        body = request.body if body is None else body
        head = b"HTTP/1.1 200 OK\r\nX-Path: %b\r\nContent-Length: %d\r\n\r\n"
        request.write(head % (request.path.encode(), len(body)) + body)
        request.finish()

    def wants_upgrade(self, method, path, headers):
        return path == "/ws"


class ConnectionTestCase(SynchronousTestCase):
    def setUp(self):
        self.app = App()
        self.app.doStart()
        self.addCleanup(self.app.doStop)
        self.wire = Wire(self.app)
        self.events: list[Any] = []
        observe(self, self.events.append)

    def paths(self) -> list[str]:
        return [answer.headers["x-path"] for answer in self.wire.answers()]

    def logged(self) -> list[str]:
        return [e["log_format"].format(**e) for e in self.events if e.get("log_format")]


class RequestsTest(ConnectionTestCase):
    def test_one_request(self):
        answer = self.wire.request("POST", "/x", b"hello")
        self.assertEqual((answer.status, answer.body), (200, b"hello"))
        self.assertTrue(self.wire.open)
        self.assertTrue(self.wire.transport.no_delay)

    def test_peer_and_scheme(self):
        self.wire.send(GET)
        (request,) = self.app.requests
        self.assertEqual((request.remote_ip, request.protocol), ("192.0.2.7", "http"))
        self.assertEqual(request.full_url(), "http://h/")

    def test_pipelined_requests_are_answered_in_order(self):
        self.wire.send(GET.replace(b"/ ", b"/later ") + GET.replace(b"/ ", b"/b ") + GET[:9])
        self.assertEqual(self.wire.answers(), [])
        self.assertEqual(len(self.app.requests), 1)
        self.app.answer(self.app.requests[0])
        self.assertEqual(self.paths(), ["/later", "/b"])
        self.wire.send(GET[9:])
        self.assertEqual(self.paths(), ["/"])

    def test_reading_stops_while_too_much_waits(self):
        self.wire.send(GET.replace(b"/ ", b"/later "))
        for _ in range(PIPELINE_BYTES // len(GET)):
            self.wire.send(GET)
        self.assertEqual(self.wire.transport.producerState, "producing")
        self.wire.send(GET)
        self.assertEqual(self.wire.transport.producerState, "paused")
        self.app.answer(self.app.requests[0])
        self.assertEqual(len(self.paths()), PIPELINE_BYTES // len(GET) + 2)
        self.assertEqual(self.wire.transport.producerState, "producing")

    def test_reading_stops_each_time_and_is_asked_for_once(self):
        asked: list[str] = []
        transport: Any = self.wire.transport
        transport.pauseProducing = lambda: asked.append("pause")
        transport.resumeProducing = lambda: asked.append("resume")
        for _ in range(3):
            self.wire.send(GET.replace(b"/ ", b"/later "))
            for _ in range(PIPELINE_BYTES // len(GET) + 3):
                self.wire.send(GET)
            self.assertEqual(asked, ["pause"])
            self.app.answer(self.app.requests[-1])
            self.wire.send(GET)
            self.assertEqual(asked, ["pause", "resume"])
            asked.clear()

    def test_nothing_is_answered_while_the_client_does_not_read(self):
        self.wire.connection.pauseProducing()
        self.wire.send(GET)
        self.assertEqual(self.wire.answers(), [])
        self.assertEqual(self.wire.transport.producerState, "paused")
        self.wire.connection.resumeProducing()
        self.assertEqual(self.paths(), ["/"])
        self.assertEqual(self.wire.transport.producerState, "producing")

    def test_answers_stop_when_the_output_is_full(self):
        transport: Any = self.wire.transport
        write = transport.write

        def write_and_fill(data):
            write(data)
            if len(transport.value()) > 300:
                self.wire.connection.pauseProducing()

        transport.write = write_and_fill
        self.wire.send(GET * 50)
        self.assertLess(len(self.app.requests), 10)
        transport.clear()
        self.wire.connection.resumeProducing()
        self.assertGreater(len(self.app.requests), 5)

    def test_close_is_honoured(self):
        self.wire.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        self.assertEqual(self.paths(), ["/"])
        self.assertTrue(self.wire.transport.disconnecting)
        self.assertIsNone(self.wire.transport.producer)

    def test_what_follows_a_last_request_is_discarded_before_closing(self):
        self.wire.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + GET)
        self.assertEqual(self.paths(), ["/"])
        self.assertTrue(self.wire.transport.half_closed)
        self.assertFalse(self.wire.transport.disconnecting)

    def test_http_1_0_closes(self):
        self.wire.send(b"GET / HTTP/1.0\r\n\r\n")
        self.assertEqual(self.paths(), ["/"])
        self.assertTrue(self.wire.transport.disconnecting)

    def test_handler_may_end_the_connection(self):
        self.wire.send(GET.replace(b"/ ", b"/later "))
        self.wire.connection.no_keep_alive = True
        self.app.answer(self.app.requests[0])
        self.assertTrue(self.wire.transport.disconnecting)

    def test_continue(self):
        head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        self.wire.send(head)
        self.assertEqual(self.wire.transport.value(), b"HTTP/1.1 100 (Continue)\r\n\r\n")
        (answer,) = self.wire.answers()
        self.assertEqual(answer.status, 100)
        self.wire.send(b"h")
        self.assertEqual(self.wire.answers(), [])
        self.wire.send(b"i")
        self.assertEqual(self.wire.answers()[0].body, b"hi")

    def test_no_continue_for_a_body_which_will_be_refused(self):
        head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n"
        self.wire.send(head % 10**9)
        self.assertEqual([a.status for a in self.wire.answers()], [413])

    def test_continue_waits_for_earlier_answers(self):
        head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        self.wire.send(GET.replace(b"/ ", b"/later ") + head)
        self.assertEqual(self.wire.answers(), [])
        self.app.answer(self.app.requests[0])
        self.assertEqual([a.status for a in self.wire.answers()], [200, 100])

    def test_client_which_left_gets_nothing(self):
        self.wire.send(GET.replace(b"/ ", b"/later ") + GET)
        self.wire.reset()
        self.assertIsNotNone(self.app.handlers[0].lost)
        self.app.answer(self.app.requests[0])
        self.assertEqual(self.wire.transport.value(), b"")
        self.assertEqual(len(self.app.requests), 1)
        self.assertEqual(self.app.connections, set())

    def test_client_which_left_after_its_answer_is_no_event(self):
        self.wire.send(GET)
        self.wire.lose()
        self.assertIsNone(self.app.handlers[0].lost)

    def test_error_in_the_dispatch(self):
        self.wire.send(GET.replace(b"/ ", b"/bug "))
        self.assertEqual([a.status for a in self.wire.answers()], [500])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_lost_connection_is_garbage(self):
        self.wire.send(GET)
        gone = weakref.ref(self.wire.connection)
        gc.disable()
        self.addCleanup(gc.enable)
        self.app.requests.clear()
        self.wire.lose()
        self.wire.transport.protocol = self.wire.connection = None  # as sockets do
        self.assertIsNone(gone())


class RefusalTest(ConnectionTestCase):
    def refused(self, data: bytes) -> int:
        self.wire = Wire(self.app)
        self.wire.send(data)
        (answer,) = self.wire.answers()
        self.assertEqual(answer.headers["connection"], "close")
        self.assertEqual(answer.headers["server"], "cyclone/1.2")
        self.assertEqual(answer.headers["content-type"], "text/html; charset=UTF-8")
        self.assertIn("date", answer.headers)
        self.assertTrue(self.wire.transport.half_closed)
        self.assertFalse(self.wire.transport.disconnecting)
        return answer.status

    def test_statuses(self):
        self.assertEqual(self.refused(b"{}"), 400)
        self.assertEqual(self.refused(b"GET / HTTP/3.0\r\n\r\n"), 505)
        self.assertEqual(self.refused(b"GET /" + b"a" * URI_LIMIT), 414)
        self.assertEqual(self.refused(b"GET / HTTP/1.1\r\nA: " + b"a" * HEAD_LIMIT), 431)
        head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n"
        self.assertEqual(self.refused(head % (BODY_LIMIT + 1)), 413)
        self.assertEqual(self.app.requests, [])

    def test_log(self):
        self.refused(b"{}")
        self.refused(b"GET / HTTP/1.1\r\nA: " + b"a" * HEAD_LIMIT)
        self.refused(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999\r\n\r\n")
        self.assertEqual(
            self.logged(),
            [
                "Malformed HTTP request from 192.0.2.7: malformed request line",
                "Too many headers sent, terminating connection",
                "Too much data sent, terminating connection",
            ],
        )

    def test_a_flood_fills_no_log(self):
        much = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999\r\n\r\n"
        for data in (b"{}", b"GET / HTTP/1.1\r\nA: " + b"a" * HEAD_LIMIT, much):
            for _ in range(LINES + 2):
                self.refused(data)
        self.assertEqual(len(self.logged()), 3 * LINES)
        with capturedLogs() as events:
            self.app.tell_counted()
        self.assertEqual(
            [(event["text"], event["count"]) for event in events],
            [
                ("Malformed HTTP request", 2),
                ("Too many headers sent", 2),
                ("Too much data sent", 2),
            ],
        )

    def test_refusal_comes_after_the_answers_before_it(self):
        self.wire.send(GET.replace(b"/ ", b"/later ") + b"{}")
        self.assertEqual(self.wire.answers(), [])
        self.app.answer(self.app.requests[0])
        self.assertEqual([a.status for a in self.wire.answers()], [200, 400])

    def test_input_after_a_refusal_is_discarded(self):
        self.wire.send(b"{}")
        self.wire.answers()
        self.wire.send(GET, GET)
        self.assertEqual((self.wire.answers(), self.app.requests), ([], []))
        self.assertFalse(self.wire.transport.disconnecting)

    def test_discarding_ends_after_many_bytes(self):
        self.wire.send(b"{}")
        piece = b"x" * (LINGER_BYTES // 4)
        self.wire.send(piece, piece, piece, piece)
        self.assertFalse(self.wire.transport.disconnecting)
        self.wire.send(b"x")
        self.assertTrue(self.wire.transport.disconnecting)

    def test_discarding_ends_after_a_while(self):
        self.wire.send(b"{}")
        advance(self.app, LINGER_TIMEOUT)
        self.assertFalse(self.wire.transport.disconnecting)
        advance(self.app, 1)
        self.assertTrue(self.wire.transport.disconnecting)
        self.assertFalse(self.wire.transport.disconnected)
        advance(self.app, WRITE_TIMEOUT + 1)
        self.assertTrue(self.wire.transport.disconnected)

    def test_paused_input_is_read_again(self):
        self.wire.send(GET.replace(b"/ ", b"/later ") + b"{" * (PIPELINE_BYTES + 1))
        self.wire.send(b"{")
        self.assertEqual(self.wire.transport.producerState, "paused")
        self.app.answer(self.app.requests[0])
        self.assertEqual([a.status for a in self.wire.answers()], [200, 400])
        self.assertEqual(self.wire.transport.producerState, "producing")

    def test_connection_limit(self):
        self.app.max_http_connections = 2
        second, third = Wire(self.app), Wire(self.app)
        self.assertEqual(second.transport.value(), b"")
        (refusal,) = third.answers()
        self.assertEqual((refusal.status, refusal.headers["retry-after"]), (503, str(RETRY_AFTER)))
        third.lose()
        self.wire.lose()
        self.assertTrue(Wire(self.app).open)
        advance(self.app, 3)
        self.assertEqual(self.logged(), ["1 HTTP connections refused: 2 are open"])


class TimeoutTest(ConnectionTestCase):
    def test_idle_connections_are_closed_quietly(self):
        self.wire.send(GET)
        self.wire.answers()
        advance(self.app, IDLE_TIMEOUT)
        self.assertTrue(self.wire.open)
        advance(self.app, 1)
        self.assertTrue(self.wire.transport.disconnecting)
        self.assertEqual(self.wire.transport.value(), b"")

    def test_connections_without_a_byte_are_closed_quietly(self):
        advance(self.app, IDLE_TIMEOUT + 1)
        self.assertTrue(self.wire.transport.disconnecting)
        self.assertEqual(self.wire.transport.value(), b"")

    def test_dripping_head(self):
        for byte in b"GET / HTTP/1.1\r\nA: bcdefghijklmnopqrstuvwxyz"[: HEAD_TIMEOUT + 1]:
            self.assertTrue(self.wire.open)
            self.wire.send(bytes([byte]))
            advance(self.app, 1)
        self.assertEqual([a.status for a in self.wire.answers()], [408])
        self.assertTrue(self.wire.transport.half_closed)

    def test_dripping_handshake(self):
        """Where a WebSocket's first words have their time, the request counts, too."""
        self.app.upgrade_factory = TakerFactory(head_within=10)
        for byte in UPGRADE[:11]:
            self.assertTrue(self.wire.open)
            self.wire.send(bytes([byte]))
            advance(self.app, 1)
        self.assertEqual([a.status for a in self.wire.answers()], [408])

    def test_what_is_no_handshake_has_its_own_time_also_there(self):
        self.app.upgrade_factory = TakerFactory(head_within=10)
        for byte in b"POST / HTTP/1.1\r\nA: bcdefghijklmnopqrstuvwxyz"[: HEAD_TIMEOUT + 1]:
            self.assertTrue(self.wire.open)
            self.wire.send(bytes([byte]))
            advance(self.app, 1)
        self.assertEqual([a.status for a in self.wire.answers()], [408])

    def test_idle_connections_and_bodies_have_it_too(self):
        self.app.upgrade_factory = TakerFactory(head_within=10)
        self.wire.send(GET)
        self.wire.answers()
        advance(self.app, IDLE_TIMEOUT)
        self.assertTrue(self.wire.open)
        self.wire.send(GET.replace(b"\r\n\r\n", b"\r\nContent-Length: 9\r\n\r\nGET "))
        advance(self.app, BODY_TIMEOUT)
        self.assertTrue(self.wire.open)

    def test_dripping_empty_lines(self):
        for _ in range(HEAD_TIMEOUT + 1):
            self.assertTrue(self.wire.open)
            self.wire.send(b"\r\n")
            advance(self.app, 1)
        self.assertTrue(self.wire.transport.disconnecting)
        self.assertEqual(self.wire.transport.value(), b"")

    def test_dripping_body(self):
        advance(self.app, 5)
        self.wire.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(BODY_TIMEOUT + 1):
            self.assertTrue(self.wire.open)
            self.wire.send(b"x")
            advance(self.app, 1)
        self.assertEqual([a.status for a in self.wire.answers()], [408])

    def test_dripping_chunks(self):
        self.wire.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(BODY_TIMEOUT + 1):
            self.assertTrue(self.wire.open)
            self.wire.send(b"1\r\nx\r\n")
            advance(self.app, 1)
        self.assertEqual([a.status for a in self.wire.answers()], [408])

    def test_handlers_have_time(self):
        self.wire.send(GET.replace(b"/ ", b"/later "))
        advance(self.app, 1000)
        self.assertTrue(self.wire.open)
        self.app.answer(self.app.requests[0])
        self.assertEqual(self.paths(), ["/later"])

    def test_what_was_begun_behind_another_request_has_its_time_from_the_answer_on(self):
        self.wire.send(GET.replace(b"/ ", b"/later ") + GET[:9])
        advance(self.app, 1000)
        self.app.answer(self.app.requests[0])
        advance(self.app, HEAD_TIMEOUT)
        self.assertTrue(self.wire.open)
        advance(self.app, 1)
        self.assertEqual([a.status for a in self.wire.answers()], [200, 408])

    def test_client_which_reads_nothing_after_its_last_answer_is_cut(self):
        self.wire.send(
            GET.replace(b"/ ", b"/later ").replace(b"h\r\n", b"h\r\nConnection: close\r\n")
        )
        advance(self.app, 1000)
        self.app.answer(self.app.requests[0])
        self.assertTrue(self.wire.transport.disconnecting)
        advance(self.app, WRITE_TIMEOUT)
        self.assertFalse(self.wire.transport.disconnected)
        advance(self.app, 1)
        self.assertTrue(self.wire.transport.disconnected)

    def test_each_request_has_its_own_time(self):
        for _ in range(10):
            self.wire.send(GET[:5])
            advance(self.app, HEAD_TIMEOUT - 1)
            self.wire.send(GET[5:])
            self.assertEqual(self.paths(), ["/"])
            advance(self.app, IDLE_TIMEOUT - 1)

    def test_client_which_does_not_read_is_cut(self):
        self.wire.send(GET.replace(b"/ ", b"/later "))
        self.wire.connection.pauseProducing()
        advance(self.app, WRITE_TIMEOUT)
        self.assertFalse(self.wire.transport.disconnected)
        advance(self.app, 1)
        self.assertTrue(self.wire.transport.disconnected)

    def test_client_which_reads_again_is_not_cut(self):
        self.wire.send(GET.replace(b"/ ", b"/later "))
        self.wire.connection.pauseProducing()
        advance(self.app, WRITE_TIMEOUT - 1)
        self.wire.connection.resumeProducing()
        advance(self.app, WRITE_TIMEOUT)
        self.assertTrue(self.wire.open)

    def test_client_which_reads_again_has_time_for_its_next_request(self):
        self.wire.send(GET)
        self.wire.connection.pauseProducing()
        advance(self.app, WRITE_TIMEOUT - 1)
        self.wire.connection.resumeProducing()
        advance(self.app, HEAD_TIMEOUT)
        self.assertTrue(self.wire.open)
        advance(self.app, 1)
        self.assertTrue(self.wire.transport.disconnecting)

    def test_sweep_survives_an_error(self):
        broken, self.wire.connection.expire = Wire(self.app), lambda: 1 / 0
        advance(self.app, IDLE_TIMEOUT + 2)
        self.assertTrue(broken.transport.disconnecting)
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))
        later = Wire(self.app)
        advance(self.app, IDLE_TIMEOUT + 1)
        self.assertTrue(later.transport.disconnecting)
        self.flushLoggedErrors(ZeroDivisionError)


class DrainTest(ConnectionTestCase):
    def test_idle_ones_at_once_others_after_their_answer(self):
        busy = Wire(self.app).send(GET.replace(b"/ ", b"/later "))
        started = Wire(self.app).send(GET[:9])
        blank = Wire(self.app).send(b"\r\n")
        drained = self.app.drain()
        self.assertTrue(self.wire.transport.disconnecting)
        self.assertTrue(blank.transport.disconnecting)
        self.assertTrue(busy.open and started.open)
        self.app.answer(self.app.requests[0])
        started.send(GET[9:])
        self.assertTrue(busy.transport.disconnecting and started.transport.disconnecting)
        for wire in (self.wire, busy, started, blank):
            self.assertNoResult(drained)
            wire.lose()
        self.successResultOf(drained)

    def test_without_connections(self):
        self.wire.lose()
        self.successResultOf(self.app.drain())

    def test_sweep_goes_on_until_the_last_connection_is_gone(self):
        self.app.doStop()
        advance(self.app, IDLE_TIMEOUT + 1)
        self.assertTrue(self.wire.transport.disconnecting)
        self.wire.lose()
        self.assertEqual(self.app.clock.getDelayedCalls(), [])
        self.app.doStart()


class Taker(Protocol):
    """Stands for Autobahn's protocol."""

    transport: Any

    def __init__(self) -> None:
        self.received = b""
        self.lost = False
        self.spent: Any = None
        self.address: Any = None

    def dataReceived(self, data):
        self.received += data
        if data.endswith(b"frame"):
            self.transport.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + data[-5:])

    def connectionLost(self, reason=None):
        self.lost = True


class TakerFactory(Factory):
    def __init__(self, head_within: int = 0) -> None:
        self.head_within = head_within
        self.taken: list[Taker] = []

    def buildProtocol(self, addr):
        self.taken.append(Taker())
        self.taken[-1].address = addr
        return self.taken[-1]


class HandOverTest(ConnectionTestCase):
    def setUp(self):
        super().setUp()
        self.app.upgrade_factory = self.takers = TakerFactory()
        self.wire = Wire(self.app)

    def test_the_protocol_that_takes_over_knows_what_was_spent(self):
        advance(self.app, 30)  # without a request: nothing is counted
        self.wire.send(UPGRADE[:20])
        advance(self.app, 7)
        self.wire.send(UPGRADE[20:])
        self.assertEqual([taker.spent for taker in self.takers.taken], [7])

    def test_head_and_frames_glued_to_it_are_passed_on(self):
        connection = weakref.ref(self.wire.connection)
        self.wire.connection = None
        self.wire.send(UPGRADE[:40], UPGRADE[40:] + b"frame")
        (taker,) = self.takers.taken
        self.assertEqual(taker.received, UPGRADE + b"frame")
        self.assertEqual(taker.address.host, "192.0.2.7")
        self.assertIs(self.wire.transport.protocol, taker)
        self.assertIs(taker.transport, self.wire.transport)
        self.assertIsNone(self.wire.transport.producer)
        self.assertEqual(self.wire.transport.producerState, "producing")
        gc.collect()
        self.assertIsNone(connection())
        self.assertEqual(self.app.requests, [])
        self.wire.send(b"more")
        self.assertTrue(taker.received.endswith(b"more"))
        self.wire.lose()
        self.assertTrue(taker.lost)

    def test_after_other_requests(self):
        self.wire.send(GET.replace(b"/ ", b"/later ") + UPGRADE)
        self.assertEqual(self.takers.taken, [])
        self.app.answer(self.app.requests[0])
        self.assertEqual(self.takers.taken[0].received, UPGRADE)
        self.assertEqual(self.paths(), ["/later"])

    def test_a_handler_that_has_answered_still_knows_who_asked(self):
        """It may write its log when the connection is a WebSocket already."""
        self.wire.send(GET.replace(b"/ ", b"/later ") + UPGRADE)
        (request,) = self.app.requests
        self.app.answer(request)
        self.assertEqual(len(self.takers.taken), 1)
        self.assertEqual(request.remote_ip, "192.0.2.7")

    def test_handed_over_connections_are_not_counted_nor_timed(self):
        before = len(self.app.connections)
        self.wire.send(UPGRADE)
        self.assertEqual(len(self.app.connections), before - 1)
        advance(self.app, 1000)
        self.assertTrue(self.wire.open)

    def test_factory_which_refuses(self):
        self.patch(TakerFactory, "buildProtocol", lambda factory, addr: None)
        self.wire.send(UPGRADE)
        self.assertTrue(self.wire.transport.disconnected)

    def test_other_requests_stay(self):
        self.wire.send(GET)
        self.assertEqual((self.paths(), self.takers.taken), (["/"], []))

    def test_malformed_heads_are_refused(self):
        self.wire.send(b"GET /ws HTTP/1.1\r\n bad\r\n\r\n")
        self.assertEqual([a.status for a in self.wire.answers()], [400])
        self.assertEqual(self.takers.taken, [])


class InputEndsTest(ConnectionTestCase):
    """A client may end its side as soon as it has asked."""

    def setUp(self):
        super().setUp()
        self.app.upgrade_factory = self.takers = TakerFactory()

    def end(self):
        self.wire.transport.protocol.readConnectionLost()

    def test_answers_under_way_are_sent(self):
        later, last = GET.replace(b"/ ", b"/later "), GET.replace(b"/ ", b"/last ")
        self.wire.send(later + later + last)
        self.end()
        for number in (0, 1):
            self.assertTrue(self.wire.open)
            self.app.answer(self.app.requests[number])
        self.assertEqual(self.paths(), ["/later", "/later", "/last"])
        self.assertTrue(self.wire.transport.disconnecting)

    def test_nothing_is_left_to_answer(self):
        for sent in (
            b"",
            GET,
            GET[:9],
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nx",
        ):
            self.wire = Wire(self.app)
            self.wire.send(sent)
            self.end()
            self.assertTrue(self.wire.transport.disconnecting, sent)

    def test_incomplete_request_behind_the_last(self):
        self.wire.send(GET.replace(b"/ ", b"/later ") + GET[:9])
        self.end()
        self.app.answer(self.app.requests[0])
        self.assertEqual(self.paths(), ["/later"])
        self.assertTrue(self.wire.transport.disconnecting)

    def test_much_was_sent_ahead(self):
        count = PIPELINE_BYTES // len(GET) + 2
        self.wire.send(GET.replace(b"/ ", b"/later "), GET * count)
        self.end()
        self.app.answer(self.app.requests[0])
        self.assertEqual(len(self.paths()), count + 1)
        self.assertTrue(self.wire.transport.disconnecting)

    def test_answers_are_read_slowly(self):
        self.wire.connection.pauseProducing()
        self.wire.send(GET)
        self.end()
        self.assertTrue(self.wire.open)
        self.wire.connection.resumeProducing()
        self.assertEqual(self.paths(), ["/"])
        self.assertTrue(self.wire.transport.disconnecting)

    def test_refused_request(self):
        self.wire.send(b"{")
        self.end()
        self.assertEqual([answer.status for answer in self.wire.answers()], [400])
        self.assertTrue(self.wire.transport.disconnecting)

    def test_nobody_is_left_to_upgrade_for(self):
        self.wire.send(GET.replace(b"/ ", b"/later ") + UPGRADE)
        self.end()
        self.app.answer(self.app.requests[0])
        self.assertFalse(self.wire.open)
        self.assertEqual(self.takers.taken, [])


class DateTest(SynchronousTestCase):
    def test_format(self):
        self.assertRegex(http_date(), r"^\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT$")


class SocketTest(TestCase):
    """With real sockets: what must reach the client does."""

    def setUp(self):
        self.app: Any = App(reactor)
        self.app.upgrade_factory = TakerFactory()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def listen(self, port):
        async def stop():
            await port.stopListening()
            await self.app.drain()

        self.addCleanup(stop)
        address = port.getHost()
        return getattr(address, "port", None)

    def tcp(self):
        return self.listen(reactor.listenTCP(0, self.app, interface="127.0.0.1"))

    def tls_factory(self):
        key, certificate, _ = make_certificate(self.directory)
        return AutopushSSLContextFactory(key, certificate)

    @staticmethod
    def exchange(connection: socket.socket, data: bytes, end: bool = False) -> bytes:
        """Send everything, end our side if wanted, then read everything; closes the connection."""
        connection.settimeout(60)
        with connection:
            connection.sendall(data)
            if end:
                connection.shutdown(socket.SHUT_WR)
            answer = b""
            while not answer.endswith(b"frame") and (piece := connection.recv(65536)):
                answer += piece
            return answer

    def tls(self, port: int, data: bytes) -> bytes:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        plain = socket.create_connection(("127.0.0.1", port))
        return self.exchange(context.wrap_socket(plain), data)

    def plain(self, port: int, data: bytes) -> bytes:
        return self.exchange(socket.create_connection(("127.0.0.1", port)), data)

    async def test_answer_reaches_a_client_which_sends_on(self):
        body = b"x" * 4_000_000
        for head, status in (
            (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4000000\r\n\r\n", b"413"),
            (b"GET / HTTP/1.1\r\nA: ", b"431"),
            (b"GET /", b"414"),
            (b"{", b"400"),
        ):
            answer = await deferToThread(self.plain, self.tcp(), head + body)
            self.assertTrue(answer.startswith(b"HTTP/1.1 " + status), answer)
        self.flushLoggedErrors()

    async def test_answer_reaches_a_tls_client_which_sends_on(self):
        port = self.listen(
            reactor.listenSSL(0, self.app, self.tls_factory(), interface="127.0.0.1")
        )
        data = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000

        def client():
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            plain = socket.create_connection(("127.0.0.1", port))
            with context.wrap_socket(plain) as connection:
                connection.settimeout(60)
                connection.sendall(data)
                return connection.recv(65536)

        self.assertTrue((await deferToThread(client)).startswith(b"HTTP/1.1 413"))

    async def test_hand_over(self):
        answer = await deferToThread(self.plain, self.tcp(), UPGRADE + b"frame")
        self.assertTrue(answer.startswith(b"HTTP/1.1 101"))
        self.assertEqual(self.app.connections, set())

    async def test_hand_over_tls(self):
        port = self.listen(
            reactor.listenSSL(0, self.app, self.tls_factory(), interface="127.0.0.1")
        )
        answer = await deferToThread(self.tls, port, UPGRADE + b"frame")
        self.assertTrue(answer.startswith(b"HTTP/1.1 101"))

    async def test_hand_over_behind_a_proxy_header(self):
        endpoint = HAProxyServerEndpoint(reactor, 0, interface="127.0.0.1")
        port = self.listen(await endpoint.listen(self.app))
        proxy = b"PROXY TCP4 203.0.113.9 127.0.0.1 1 2\r\n"
        answer = await deferToThread(self.plain, port, proxy + UPGRADE + b"frame")
        self.assertTrue(answer.startswith(b"HTTP/1.1 101"))
        self.assertEqual(self.app.upgrade_factory.taken[0].address.host, "203.0.113.9")

    async def test_proxy_header_gives_the_peer(self):
        endpoint = HAProxyServerEndpoint(reactor, 0, interface="127.0.0.1")
        port = self.listen(await endpoint.listen(self.app))
        proxy = b"PROXY TCP4 203.0.113.9 127.0.0.1 1 2\r\n"
        await deferToThread(self.plain, port, proxy + b"GET / HTTP/1.0\r\n\r\n")
        self.assertEqual(self.app.requests[0].remote_ip, "203.0.113.9")

    def half_closing(self, port: int, data: bytes) -> bytes:
        return self.exchange(socket.create_connection(("127.0.0.1", port)), data, end=True)

    async def answered_later(self, port: int, head: bytes = b"") -> None:
        """The answer is made when the end of the client's side is known."""
        ended: Deferred[None] = Deferred()
        plain = HTTPConnection.readConnectionLost

        def note(connection):
            plain(connection)
            ended.callback(None)

        self.patch(HTTPConnection, "readConnectionLost", note)
        request = head + GET.replace(b"/ ", b"/later ")
        answer = deferToThread(self.half_closing, port, request)
        await ended
        self.app.answer(self.app.requests[0])
        self.assertIn(b"X-Path: /later", await answer)

    async def test_half_closed(self):
        await self.answered_later(self.tcp())

    async def test_half_closed_behind_a_proxy_header(self):
        endpoint = HAProxyServerEndpoint(reactor, 0, interface="127.0.0.1")
        port = self.listen(await endpoint.listen(self.app))
        await self.answered_later(port, b"PROXY TCP4 203.0.113.9 127.0.0.1 1 2\r\n")

    async def test_input_of_others_ends_behind_a_proxy_header(self):
        endpoint = HAProxyServerEndpoint(reactor, 0, interface="127.0.0.1")
        port = self.listen(await endpoint.listen(self.app))
        proxy = b"PROXY TCP4 203.0.113.9 127.0.0.1 1 2\r\n"
        for data in (b"", proxy[:9], proxy + UPGRADE):
            await deferToThread(self.half_closing, port, data)

    async def test_unix_socket(self):
        path = str(self.directory / "socket")
        self.listen(reactor.listenUNIX(path, self.app))

        def client():
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(path)
            return self.exchange(connection, b"GET /u HTTP/1.0\r\n\r\n")

        self.assertIn(b"X-Path: /u", await deferToThread(client))
        self.assertEqual(self.app.requests[0].remote_ip, "unix:")

    async def test_https_scheme(self):
        port = self.listen(
            reactor.listenSSL(0, self.app, self.tls_factory(), interface="127.0.0.1")
        )
        await deferToThread(self.tls, port, b"GET / HTTP/1.0\r\n\r\n")
        self.assertEqual(self.app.requests[0].protocol, "https")
