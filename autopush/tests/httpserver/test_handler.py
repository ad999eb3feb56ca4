"""The base handler (spec/http-endpoint 1.1, 2, 9, 13; spec/python-api 5.1)."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

from cryptography import x509
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.python import log as legacy_log
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides, providedBy

from autopush.config import AutopushConfig
from autopush.http import BaseHTTPFactory
from autopush.httpserver.handler import BaseHandler, HTTPError, PageNotFoundHandler
from autopush.tests.httpserver.support import Answer, Wire, observe
from autopush.tests.tlsfiles import make_certificate


class EchoHandler(BaseHandler):
    """Does what the test says: ``EchoHandler.action(handler)``."""

    action: Any = staticmethod(lambda handler: None)
    closed: list[Any] = []
    finished: list[Any] = []

    def get(self, *args):
        return type(self).action(self)

    post = put = head = get

    def on_connection_close(self):
        self.closed.append(self)

    def on_finish(self):
        self.finished.append(self)


class HandlerTestCase(SynchronousTestCase):
    handler: Any = EchoHandler

    def setUp(self):
        EchoHandler.closed, EchoHandler.finished = [], []
        self.conf = AutopushConfig(hostname="localhost", statsd_host=None)
        self.app = BaseHTTPFactory(self.conf, None, handlers=[("/.*", self.handler)], clock=Clock())
        self.wire = Wire(self.app)
        self.events: list[dict[str, Any]] = []
        observe(self, self.events.append)

    def call(self, action: Any, method: str = "GET", **headers: Any) -> Answer:
        EchoHandler.action = staticmethod(action)
        return self.wire.request(method, "/x", **headers)

    def errors(self) -> list[dict[str, Any]]:
        return [e for e in self.events if e["log_level"].name in ("error", "critical")]


class AnswerTest(HandlerTestCase):
    def test_defaults(self):
        answer = self.call(lambda h: h.write("hi"))
        self.assertEqual((answer.status, answer.reason, answer.body), (200, "OK", b"hi"))
        self.assertEqual(answer.headers["content-type"], "text/html; charset=UTF-8")
        self.assertEqual(answer.headers["content-length"], "2")
        self.assertEqual(answer.headers["server"], "cyclone/1.2")
        self.assertRegex(answer.headers["date"], r"GMT$")
        self.assertNotIn("transfer-encoding", answer.headers)
        self.assertNotIn("connection", answer.headers)

    def test_status_line_has_the_version_of_the_request(self):
        EchoHandler.action = staticmethod(lambda h: h.set_status(201))
        self.wire.send(b"GET / HTTP/1.0\r\n\r\n")
        self.assertTrue(self.wire.transport.value().startswith(b"HTTP/1.0 201 Created\r\n"))

    def test_http_1_0_keep_alive(self):
        EchoHandler.action = staticmethod(lambda h: None)
        self.wire.send(b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
        self.assertIn(b"\r\nConnection: Keep-Alive\r\n", self.wire.transport.value())
        self.assertTrue(self.wire.open)

    def test_close_is_announced(self):
        answer = self.call(lambda h: None, connection="close")
        self.assertEqual(answer.headers["connection"], "close")

    def test_json(self):
        answer = self.call(lambda h: h.write({"a": ["</x>"]}))
        self.assertEqual(answer.body, b'{"a": ["<\\/x>"]}')
        self.assertEqual(answer.headers["content-type"], "application/json")

    def test_bytes_and_text(self):
        def action(handler):
            handler.write(b"a")
            handler.write("\xe9")
            handler.finish("c")

        self.assertEqual(self.call(action).body, b"a\xc3\xa9c")

    def test_reason(self):
        answer = self.call(lambda h: h.set_status(404, "Page not found"))
        self.assertEqual((answer.status, answer.reason), (404, "Page not found"))

    def test_phrases_do_not_depend_on_the_python_version(self):
        answer = self.call(lambda h: h.set_status(413))
        self.assertEqual(answer.reason, "Request Entity Too Large")

    def test_unsafe_values_are_refused(self):
        for action in (
            lambda h: h.set_header("A", "b\r\nC: d"),
            lambda h: h.set_header("A", "b\x00"),
            lambda h: h.set_header("A", "b" * 4001),
            lambda h: h.set_status(200, "OK\r\nA: b"),
            lambda h: h.set_status(799),
        ):
            self.assertEqual(self.call(action).status, 500)
            self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_other_header_values(self):
        def action(handler):
            handler.set_header("A", 5)
            handler.set_header("B", b"c")
            handler.add_header("D", "e")

        headers = self.call(action).headers
        self.assertEqual((headers["a"], headers["b"], headers["d"]), ("5", "c", "e"))

    def test_204_has_no_length(self):
        answer = self.call(lambda h: h.set_status(204), "POST")
        self.assertEqual((answer.status, answer.body), (204, b""))
        self.assertNotIn("content-length", answer.headers)

    def test_etag_and_304(self):
        etag = f'"{hashlib.sha1(b"hi").hexdigest()}"'
        answer = self.call(lambda h: h.write("hi"))
        self.assertEqual(answer.headers["etag"], etag)
        answer = self.call(lambda h: h.write("hi"), if_none_match=f'"x", {etag}')
        self.assertEqual((answer.status, answer.reason, answer.body), (304, "Not Modified", b""))
        self.assertNotIn("content-type", answer.headers)
        self.assertNotIn("content-length", answer.headers)

    def test_etag_only_for_get_and_head_200(self):
        self.assertNotIn("etag", self.call(lambda h: h.write("hi"), "POST").headers)
        self.assertNotIn("etag", self.call(lambda h: h.set_status(404)).headers)
        own = self.call(lambda h: h.set_header("Etag", '"a"'))
        self.assertEqual(own.headers["etag"], '"a"')

    def test_head_has_no_body(self):
        EchoHandler.action = staticmethod(lambda h: h.write("hi"))
        self.wire.send(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
        data = self.wire.transport.value()
        self.assertIn(b"\r\nContent-Length: 2\r\n", data)
        self.assertTrue(data.endswith(b"\r\n\r\n"))

    def test_empty_head_has_the_etag_of_nothing(self):
        answer = self.call(lambda h: None, "HEAD")
        self.assertEqual(answer.headers["etag"], '"da39a3ee5e6b4b0d3255bfef95601890afd80709"')

    def test_flush_sends_chunks(self):
        def action(handler):
            handler.write("a")
            handler.flush()
            handler.write("bc")
            handler.flush()
            handler.flush()
            handler.finish("d")

        answer = self.call(action)
        self.assertEqual(answer.body, b"abcd")
        self.assertEqual(answer.headers["transfer-encoding"], "chunked")
        self.assertEqual(self.call(lambda h: None).status, 200)

    def test_flush_without_chunks_closes(self):
        def action(handler):
            handler.write("a")
            handler.flush()
            handler.finish("b")

        EchoHandler.action = staticmethod(action)
        self.wire.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        self.assertTrue(self.wire.transport.value().endswith(b"\r\n\r\nab"))
        self.assertTrue(self.wire.transport.disconnecting)

    def test_second_finish_is_an_error_without_effect(self):
        def action(handler):
            handler.finish("a")
            handler.finish("b")

        self.assertEqual(self.call(action).body, b"a")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.wire.transport.value(), b"")
        self.assertTrue(self.wire.open)

    def test_write_after_finish_is_an_error_without_effect(self):
        def action(handler):
            handler.finish("a")
            handler.write("b")

        self.assertEqual(self.call(action).body, b"a")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_arguments(self):
        EchoHandler.action = staticmethod(lambda h: h.write(h.get_argument("a", "-")))
        self.assertEqual(self.wire.request("GET", "/?a=%C3%A9").body, b"\xc3\xa9")
        self.assertEqual(self.wire.request("GET", "/?a=%FF").body, b"\xef\xbf\xbd")
        self.assertEqual(self.wire.request("GET", "/").body, b"-")

    def test_log_function(self):
        seen: list[Any] = []
        self.app = BaseHTTPFactory(
            self.conf, None, [("/", EchoHandler)], log_function=seen.append, clock=Clock()
        )
        EchoHandler.action = staticmethod(lambda h: None)
        Wire(self.app).request("GET", "/")
        self.assertEqual([h.get_status() for h in seen], [200])


class RunningTest(HandlerTestCase):
    def test_coroutine(self):
        waiting: Deferred[str] = Deferred()

        async def action(handler):
            handler.write(await waiting)

        EchoHandler.action = staticmethod(action)
        self.wire.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        self.assertEqual(self.wire.transport.value(), b"")
        waiting.callback("later")
        self.assertEqual(self.wire.answers()[0].body, b"later")

    def test_coroutine_which_never_waits(self):
        async def action(handler):
            handler.finish("now")

        self.assertEqual(self.call(action).body, b"now")

    def test_other_results(self):
        self.assertEqual(self.call(lambda h: succeed(None)).status, 200)
        self.assertEqual(self.call(lambda h: "ignored").body, b"")

        class Awaitable:
            def __await__(self):
                yield from ()

        self.assertEqual(self.call(lambda h: Awaitable()).status, 200)

    def test_failures(self):
        async def coroutine(handler):
            raise ZeroDivisionError

        def plain(handler):
            raise ZeroDivisionError

        for action in (coroutine, plain, lambda h: fail(ZeroDivisionError())):
            self.events.clear()
            answer = self.call(action)
            self.assertEqual((answer.status, answer.body), (500, b""))
            self.assertEqual(answer.headers["content-type"], "text/html; charset=UTF-8")
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
            (event,) = self.errors()
            self.assertEqual(event["log_format"].format(**event), "Error in handler: 500")
            self.assertIsInstance(event["log_failure"].value, ZeroDivisionError)
            self.assertIn("request_id", event["client_info"])

    def test_what_was_written_before_a_failure_is_dropped(self):
        def action(handler):
            handler.set_header("X-A", "b")
            handler.write("half")
            raise HTTPError(503)

        answer = self.call(action)
        self.assertEqual((answer.status, answer.body), (503, b""))
        self.assertNotIn("x-a", answer.headers)

    def test_reason_of_an_http_error(self):
        def action(handler):
            raise HTTPError(418, reason="Test Error")

        answer = self.call(action)
        self.assertEqual((answer.status, answer.reason), (418, "Test Error"))

    def test_unknown_status_of_an_http_error(self):
        def action(handler):
            raise HTTPError(799)

        self.assertEqual(self.call(action).status, 500)

    def test_failure_after_a_part_was_sent_breaks_the_connection(self):
        def action(handler):
            handler.write("half")
            handler.flush()
            raise ZeroDivisionError

        EchoHandler.action = staticmethod(action)
        self.wire.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        self.assertTrue(self.wire.transport.disconnected)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_failure_in_prepare(self):
        class Handler(EchoHandler):
            def prepare(self):
                raise ZeroDivisionError

        self.assertEqual(self.serve(Handler).status, 500)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def serve(self, handler: Any) -> Answer:
        app = BaseHTTPFactory(self.conf, None, [("/", handler)], clock=Clock())
        EchoHandler.action = staticmethod(lambda h: h.write("body"))
        return Wire(app).request("GET", "/")

    def test_prepare_may_wait_or_answer(self):
        class Waits(EchoHandler):
            async def prepare(self):
                self.set_header("X-Prepared", "yes")

        class Answers(EchoHandler):
            def prepare(self):
                self.finish("prepared")

        waited = self.serve(Waits)
        self.assertEqual((waited.body, waited.headers["x-prepared"]), (b"body", "yes"))
        self.assertEqual(self.serve(Answers).body, b"prepared")

    def test_failure_in_write_error(self):
        class Handler(EchoHandler):
            def prepare(self):
                raise HTTPError(400)

            def write_error(self, code, **kwargs):
                raise ZeroDivisionError

        self.assertEqual(self.serve(Handler).status, 400)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class ClientGoneTest(HandlerTestCase):
    def start(self) -> tuple[Deferred[None], list[str]]:
        waiting: Deferred[None] = Deferred()
        done: list[str] = []

        async def action(handler):
            handler.notifyFinish().addCallback(notified.append)
            await waiting
            done.append("done")
            handler.write("body")

        notified: list[Any] = []
        self.notified = notified
        EchoHandler.action = staticmethod(action)
        self.wire.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        return waiting, done

    def test_handler_runs_on_and_nothing_is_written(self):
        waiting, done = self.start()
        self.wire.reset()
        self.assertEqual(len(EchoHandler.closed), 1)
        self.assertEqual(len(self.notified), 1)
        self.assertIsInstance(self.notified[0], str)
        waiting.callback(None)
        self.assertEqual(done, ["done"])
        self.assertEqual(self.wire.transport.value(), b"")
        self.assertEqual(self.errors(), [])

    def test_normal_end_is_no_close(self):
        waiting, _ = self.start()
        waiting.callback(None)
        self.wire.lose()
        self.assertEqual(EchoHandler.closed, [])
        self.assertEqual(len(EchoHandler.finished), 1)
        self.assertEqual(self.notified, [None])

    def test_failure_of_the_handler_is_logged_all_the_same(self):
        waiting, _ = self.start()
        self.wire.lose()
        waiting.errback(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.wire.transport.value(), b"")

    def test_failure_of_on_connection_close(self):
        self.start()
        EchoHandler.closed = None
        self.wire.lose()
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)


class MethodTest(HandlerTestCase):
    def test_405_names_what_is_allowed(self):
        for method in ("PATCH", "DELETE", "OPTIONS", "BREW", "get"):
            self.events.clear()
            answer = self.call(lambda h: None, method)
            self.assertEqual((answer.status, answer.reason), (405, "Method Not Allowed"))
            self.assertEqual(answer.body, b"")
            self.assertEqual(answer.headers["content-type"], "text/html; charset=UTF-8")
            self.assertEqual(answer.headers["allow"], "GET, HEAD, POST, PUT")
            self.assertEqual(self.errors(), [])
            (event,) = self.events
            self.assertEqual(event["log_format"].format(**event), "Request refused: 405")
            self.assertEqual(event["log_level"], LogLevel.info)
            self.assertNotIn("log_failure", event)

    def test_headers_of_prepare_are_reset(self):
        class Handler(BaseHandler):
            def prepare(self):
                self.set_header("Access-Control-Allow-Origin", "*")

        app = BaseHTTPFactory(self.conf, None, [("/", Handler)], clock=Clock())
        answer = Wire(app).request("GET", "/")
        self.assertEqual(answer.status, 405)
        self.assertNotIn("access-control-allow-origin", answer.headers)

    def test_page_not_found(self):
        app = BaseHTTPFactory(self.conf, None, [("/", PageNotFoundHandler)], clock=Clock())
        answer = Wire(app).request("POST", "/")
        self.assertEqual(
            (answer.status, answer.body),
            (404, b"<html><title>404: Not Found</title><body>404: Not Found</body></html>"),
        )
        self.assertEqual(Wire(app).request("BREW", "/").status, 405)


class ClientInfoTest(HandlerTestCase):
    def info(self, **headers: str) -> dict[str, Any]:
        seen: list[Any] = []
        self.call(lambda h: seen.append((h._client_info, h._client_info)), **headers)
        self.assertIs(*seen[0])
        return seen[0][0]

    def test_fields(self):
        self.conf.ami_id = "ami-1"
        info = self.info(user_agent="UA", ttl="5")
        self.assertRegex(info.pop("request_id"), r"^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$")
        self.assertIn(".", info.pop("python_version"))
        self.assertEqual(
            info,
            {
                "ami_id": "ami-1",
                "user_agent": "UA",
                "remote_ip": "192.0.2.7",
                "authorization": "",
                "message_ttl": "5",
                "uri": "/x",
            },
        )

    def test_defaults(self):
        info = self.info()
        self.assertEqual((info["user_agent"], info["message_ttl"]), ("", None))

    def test_forwarded_address_is_taken_as_it_is(self):
        self.assertEqual(self.info(x_forwarded_for="a, b")["remote_ip"], "a, b")

    def test_secrets_are_redacted(self):
        seen: list[Any] = []
        EchoHandler.action = staticmethod(lambda h: seen.append(h._client_info))
        self.wire.request("GET", "/wpush/v1/SECRET", authorization="vapid t=SECRET")
        self.assertNotIn("SECRET", repr(seen[0]["uri"]))
        self.assertNotIn("SECRET", repr(seen[0]["authorization"]))

    def test_made_only_when_asked_for(self):
        self.patch(BaseHandler, "_init_info", lambda self: 1 / 0)
        self.assertEqual(self.call(lambda h: None).status, 200)


class FakeHandle:
    """What a TLS transport knows of the client's certificate."""

    def __init__(self, certificate: Any) -> None:
        self.certificate = certificate

    def get_peer_certificate(self, as_cryptography: bool) -> Any:
        assert as_cryptography
        if isinstance(self.certificate, Exception):
            raise self.certificate
        return self.certificate


class TLSAuthTest(HandlerTestCase):
    """spec/http-endpoint 9."""

    class Handler(EchoHandler):
        def prepare(self):
            if self.authenticate_peer_cert():
                self.set_header("X-Passed", "yes")

    handler = Handler

    def ask(self, certificate: Any, known: Any) -> tuple[Answer, dict[str, Any]]:
        self.conf.client_certs = known
        transport: Any = self.wire.transport
        directlyProvides(transport, ISSLTransport, providedBy(transport))
        transport.getHandle = lambda: FakeHandle(certificate)
        info: dict[str, Any] = {}
        answer = self.call(lambda h: info.update(h._client_info))
        for event in self.events:
            if event.get("log_format") == "Failed TLS auth":
                self.assertEqual(event["log_level"].name, "warn")
                info.update(event["client_info"])
        return answer, info

    def setUp(self):
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        _, cert_file, self.fingerprint = make_certificate(Path(directory.name), "client")
        self.certificate = x509.load_pem_x509_certificate(Path(cert_file).read_bytes())

    def test_known(self):
        answer, info = self.ask(self.certificate, {self.fingerprint: "partner"})
        self.assertEqual((answer.status, answer.headers["x-passed"]), (200, "yes"))
        self.assertEqual(info["tls_auth"], "partner")
        self.assertEqual(
            (info["tls_auth_sha256"], info["tls_auth_cn"]), (self.fingerprint, "client")
        )

    def refused(self, answer: Answer) -> None:
        self.assertEqual((answer.status, answer.body), (401, b""))
        self.assertEqual(
            answer.headers["www-authenticate"], 'Transport mode="tls-client-certificate"'
        )
        self.assertNotIn("x-passed", answer.headers)

    def test_unknown(self):
        answer, info = self.ask(self.certificate, {"AA:BB": "partner"})
        self.refused(answer)
        self.assertEqual(
            (info["tls_failed_sha256"], info["tls_failed_cn"]), (self.fingerprint, "client")
        )

    def test_unreadable(self):
        answer, info = self.ask(ValueError("strange certificate"), {"AA:BB": "partner"})
        self.refused(answer)
        self.assertEqual(info["tls_failed_sha256"], "unreadable")

    def test_none(self):
        answer, info = self.ask(None, {"AA:BB": "partner"})
        self.refused(answer)
        self.assertNotIn("tls_failed_sha256", info)

    def test_without_tls(self):
        self.conf.client_certs = {"AA:BB": "partner"}
        self.refused(self.call(lambda h: None))

    def test_off(self):
        answer, _ = self.ask(None, None)
        self.assertEqual(answer.headers["x-passed"], "yes")


class ImportTest(SynchronousTestCase):
    def test_log_observer_is_not_cyclones(self):
        self.assertEqual(legacy_log.FileLogObserver.emit.__module__, "twisted.python.log")
