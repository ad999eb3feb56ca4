"""The applications: routes, refusals, upgrades (spec/http-endpoint 1, 2; spec/websocket 2, 20)."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from autopush.config import AutopushConfig, SSLConfig
from autopush.http import (
    BaseHTTPFactory,
    EndpointHTTPFactory,
    InternalRouterHTTPFactory,
    MemUsageHTTPFactory,
    WebSocketHTTPFactory,
)
from autopush.httpserver.handler import BaseHandler
from autopush.httpserver.request import Headers
from autopush.metrics import SinkMetrics
from autopush.tests.httpserver.support import Wire, observe
from autopush.web.health import StatusHandler

V1 = "/v1/fcm/app/registration"
UAID = "0123456789abcdef0123456789abcdef"


class Recorder(BaseHandler):
    """Answers every method with its arguments."""

    def get(self, *args, **kwargs):
        self.write({"args": args, "kwargs": kwargs})

    post = put = delete = get


def recorder(name: str) -> Any:
    return type(name, (Recorder,), {})


class AppTestCase(SynchronousTestCase):
    def setUp(self):
        self.conf = AutopushConfig(hostname="localhost", statsd_host=None, cors=True)

    def endpoint(self, **kwargs) -> EndpointHTTPFactory:
        return EndpointHTTPFactory(self.conf, None, {}, clock=Clock(), **kwargs)


class RoutingTest(AppTestCase):
    """Which handler gets which path, and with which arguments (section 2)."""

    def setUp(self):
        super().setUp()
        self.app = EndpointHTTPFactory(self.conf, None, {}, clock=Clock())

    def route(self, path: str) -> tuple[str, dict[str, Any]]:
        """Name of the handler for a path, and its arguments."""
        found: list[Any] = []

        def execute(handler, transforms, *args, **kwargs):
            self.assertEqual(args, ())
            found.append((type(handler).__name__, kwargs))
            handler.finish()

        self.patch(BaseHandler, "_execute", execute)
        Wire(self.app).request("GET", path)
        return found[0]

    def test_public_api(self):
        base = {"type": "fcm", "app_id": "app"}
        for path, name, arguments in (
            ("/wpush/v1/tok", "WebPushHandler", {"api_ver": "v1", "token": "tok"}),
            ("/wpush/v23/tok", "WebPushHandler", {"api_ver": "v23", "token": "tok"}),
            ("/wpush/tok", "WebPushHandler", {"api_ver": None, "token": "tok"}),
            ("/wpush/v1", "WebPushHandler", {"api_ver": None, "token": "v1"}),
            ("/m/id", "MessageHandler", {"message_id": "id"}),
            (V1, "NewRegistrationHandler", base),
            (f"{V1}/{UAID}", "UaidRegistrationHandler", {**base, "uaid": UAID}),
            (f"{V1}/{UAID}/subscription", "SubRegistrationHandler", {**base, "uaid": UAID}),
            (
                f"{V1}/{UAID}/subscription/c",
                "ChannelRegistrationHandler",
                {**base, "uaid": UAID, "chid": "c"},
            ),
            ("/v1/err", "LogCheckHandler", {"err_type": None}),
            ("/v1/err/crit", "LogCheckHandler", {"err_type": "crit"}),
        ):
            self.assertEqual(self.route(path), (name, arguments), path)
            self.assertEqual(self.route(path + "?a=b/c"), (name, arguments), path)

    def test_health_routes(self):
        for path, name in (
            ("/status", "StatusHandler"),
            ("/__heartbeat__", "StatusHandler"),
            ("/health", "HealthHandler"),
            ("/__version__", "VersionHandler"),
            ("/__lbheartbeat__", "LBHeartbeatHandler"),
        ):
            self.assertEqual(self.route(path), (name, {}))

    def test_everything_else_is_not_found(self):
        for path in (
            *("/", "/status/", "/statusx", "/status/x", "/v1/err/", "/v1/err/a/b", "/m/", "/m"),
            *("/wpush", "/wpush/", "/wpush/v1/", "/wpush/v1/a/", "/wpush/x/y", "/wpush/v1/a/b"),
            *(V1 + "/", f"{V1}s", "/v1/fcm//registration", f"{V1}/{UAID}//", "//wpush/v1/a"),
            *(f"{V1}/{UAID}/subscription/", f"{V1}/{UAID}/subscriptions", "/WPUSH/v1/a", "*"),
            *("/%77push/v1/a", "/v2/fcm/app/registration", "/favicon.ico", "/wpush%2Fv1%2Fa"),
        ):
            self.assertEqual(self.route(path), ("NotFoundHandler", {}), path)

    def test_groups_are_decoded(self):
        for token, decoded in (
            ("a%3Db", "a=b"),
            ("a%2Fb", "a/b"),
            ("a+b", "a b"),
            ("a%2Bb", "a+b"),
            ("caf%C3%A9", "caf\xe9"),
            ("%zz%", "%zz%"),
        ):
            self.assertEqual(self.route(f"/wpush/v1/{token}")[1]["token"], decoded)

    def test_groups_which_are_not_utf8_are_not_found(self):
        for path in ("/wpush/v1/a%FFb", "/m/%C3", "/v1/%80/app/registration"):
            self.assertEqual(self.route(path), ("NotFoundHandler", {}), path)

    def test_absolute_uri(self):
        self.assertEqual(self.route("http://other/wpush/v1/tok")[0], "WebPushHandler")

    def test_any_host(self):
        self.patch(BaseHandler, "_execute", lambda handler, t, *a, **k: handler.finish("ok"))
        (answer,) = Wire(self.app).send(b"GET /status HTTP/1.1\r\nHost: evil\r\n\r\n").answers()
        self.assertEqual(answer.body, b"ok")


class PathTest(AppTestCase):
    """A public URL with a path: a proxy takes it off, or doesn't."""

    def setUp(self):
        super().setUp()
        self.conf = AutopushConfig(
            hostname="localhost", statsd_host=None, public_url="https://example.org/a/push"
        )
        self.seen: list[tuple[str, str, Any]] = []

        def execute(handler, transforms, *args, **kwargs):
            self.seen.append((type(handler).__name__, handler.request.uri, kwargs))
            handler.finish()

        self.patch(BaseHandler, "_execute", execute)

    def test_routes_are_found_with_it_and_without(self):
        wire = Wire(self.endpoint())
        for path in ("/wpush/v1/tok?x=/a/push/", V1, f"{V1}/{UAID}", "/m/id", "/status", "/none"):
            wire.request("GET", path)
            wire.request("GET", "/a/push" + path)
            self.assertEqual(self.seen[-1], self.seen[-2])
            self.assertEqual(self.seen[-1][1], path)

    def test_it_is_taken_off_once(self):
        Wire(self.endpoint()).request("GET", "/a/push/a/push/status")
        self.assertEqual(self.seen[-1][0], "NotFoundHandler")

    def test_others_are_not_taken_for_it(self):
        wire = Wire(self.endpoint())
        for path in ("/a/pushstatus", "/a/pus/status", "/A/push/status", "/b/a/push/status"):
            wire.request("GET", path)
            self.assertEqual(self.seen[-1][0], "NotFoundHandler", path)

    def test_an_access_key_comes_behind_it(self):
        self.conf.access_keys = ["k" * 22]
        wire = Wire(self.endpoint())
        for path in (f"/{'k' * 22}{V1}", f"/a/push/{'k' * 22}{V1}"):
            wire.request("POST", path)
            self.assertEqual(self.seen[-1][:2], ("NewRegistrationHandler", V1))
        wire.request("POST", "/a/push" + V1)
        self.assertEqual(self.seen[-1][0], "NoAccessHandler")


class NotFoundTest(AppTestCase):
    def test_page(self):
        wire = Wire(self.endpoint())
        for method in ("GET", "POST", "PUT", "DELETE"):
            answer = wire.request(method, "/nope")
            self.assertEqual((answer.status, answer.reason), (404, "Page not found"))
            body = json.loads(answer.body)
            self.assertEqual((body["code"], body["error"]), (404, "Page not found"))
            self.assertLess({"errno", "message", "more_info"}, set(body))
            self.assertEqual(answer.headers["content-type"], "application/json")
            self.assertEqual(answer.headers["strict-transport-security"], "max-age=31536000")
            self.assertNotIn("access-control-allow-origin", answer.headers)

    def test_other_methods(self):
        wire = Wire(self.endpoint())
        for method in ("HEAD", "OPTIONS", "PATCH", "BREW", "CONNECT"):
            answer = wire.request(method, "/nope")
            self.assertEqual(answer.status, 405)
            self.assertEqual(json.loads(answer.body or b'{"code": 405}')["code"], 405)
            self.assertEqual(answer.headers["allow"], "GET, POST, DELETE, PUT")

    def test_unmatched_path_of_an_internal_application(self):
        wire = Wire(InternalRouterHTTPFactory(self.conf, None, {}, clock=Clock()))
        for path in ("/", "/notif/x/abc", "/v1/err", "/wpush/v1/a", "/push/", "/push/%FF"):
            answer = wire.request("PUT", path)
            self.assertEqual(answer.status, 404, path)
            self.assertEqual(
                answer.body,
                b"<html><title>404: Not Found</title><body>404: Not Found</body></html>",
            )


class InternalRoutingTest(AppTestCase):
    def test_routes(self):
        app = InternalRouterHTTPFactory(self.conf, None, {"a": 1}, clock=Clock(), node="node")
        self.assertEqual((app.clients, app.node), ({"a": 1}, "node"))
        found: list[Any] = []

        def execute(handler, transforms, *args, **kwargs):
            found.append((type(handler).__name__, *args))
            handler.finish()

        self.patch(BaseHandler, "_execute", execute)
        wire = Wire(app)
        for path in ("/push/u", "/notif/u", "/notif/u/12", "/health"):
            wire.request("PUT", path)
        self.assertEqual(
            found,
            [
                ("RouterHandler", "u"),
                ("NotificationHandler", "u", None),
                ("NotificationHandler", "u", "12"),
                ("HealthHandler",),
            ],
        )


class ForHandlerTest(AppTestCase):
    def test_only_its_route(self):
        app = EndpointHTTPFactory.for_handler(StatusHandler, self.conf, clock=Clock())
        wire = Wire(app)
        self.assertEqual(wire.request("GET", "/status").status, 200)
        self.assertEqual(wire.request("GET", "/health").status, 404)

    def test_unknown_handler(self):
        self.assertRaises(ValueError, EndpointHTTPFactory.for_handler, Recorder, self.conf)

    def test_arguments_are_passed_on(self):
        db: Any = "db"
        app: Any = EndpointHTTPFactory.for_handler(
            StatusHandler, self.conf, db, routers={"a": 1}, clock=Clock()
        )
        self.assertEqual((app.db, app.routers), (db, {"a": 1}))


class ApplicationTest(AppTestCase):
    def test_route_order(self):
        first, second, rest = recorder("First"), recorder("Second"), recorder("Rest")
        app = BaseHTTPFactory(
            self.conf,
            None,
            [("/a/(b.*)", first), (".*", rest), ("/a/.*", second), ("/c", second)],
            clock=Clock(),
        )
        wire = Wire(app)
        self.assertEqual(json.loads(wire.request("GET", "/a/bc").body)["args"], ["bc"])
        for path in ("/a/x", "/c", "/"):
            self.assertEqual(json.loads(wire.request("GET", path).body)["args"], [])

    def test_patterns_match_whole_paths(self):
        app = BaseHTTPFactory(self.conf, None, [("^/a|/b", recorder("A"))], clock=Clock())
        wire = Wire(app)
        statuses = [wire.request("GET", p).status for p in ("/a", "/b", "/ax", "/bx", "/x/a")]
        self.assertEqual(statuses, [200, 200, 404, 404, 404])

    def test_metrics(self):
        self.assertIsInstance(self.endpoint().metrics, SinkMetrics)
        own: Any = object()
        self.assertIs(self.endpoint(metrics=own).metrics, own)

    def test_body_limit_leaves_room_above_max_data(self):
        self.assertEqual(self.endpoint().body_limit, 65536)
        self.conf.max_data = 10_000
        self.assertEqual(self.endpoint().body_limit, 160_000)

    def test_a_node_takes_every_message_an_endpoint_takes(self):
        # base64, and what is around it
        internal = InternalRouterHTTPFactory(self.conf, None, {}, clock=Clock())
        self.assertGreater(internal.body_limit, 2 * self.conf.max_data)
        self.conf.max_data = 1_000_000
        internal = InternalRouterHTTPFactory(self.conf, None, {}, clock=Clock())
        self.assertGreater(internal.body_limit, 2 * self.conf.max_data)

    def test_without_certificates_there_is_no_context(self):
        self.assertIsNone(self.endpoint().ssl_cf())
        internal = InternalRouterHTTPFactory(self.conf, None, {}, clock=Clock())
        self.assertIsNone(internal.ssl_cf())
        self.assertIsNone(WebSocketHTTPFactory(self.conf, None, clock=Clock()).ssl_cf())

    def test_client_certificates_are_asked_for(self):
        made: list[Any] = []
        self.patch(SSLConfig, "cf", lambda config, **kwargs: made.append(kwargs))
        self.endpoint().ssl_cf()
        self.conf.client_certs = {"AA": "a"}
        self.endpoint().ssl_cf()
        self.assertEqual(made, [{"require_peer_certs": False}, {"require_peer_certs": True}])


class RefusalTest(AppTestCase):
    def test_body_over_the_limit_gets_the_json_error(self):
        wire = Wire(self.endpoint())
        wire.send(b"POST /wpush/v1/a HTTP/1.1\r\nHost: h\r\nContent-Length: 65537\r\n\r\n")
        (answer,) = wire.answers()
        self.assertEqual((answer.status, answer.reason), (413, "Request Entity Too Large"))
        self.assertEqual(answer.headers["content-type"], "application/json")
        self.assertEqual(
            json.loads(answer.body),
            {
                "code": 413,
                "errno": 104,
                "error": "Payload Too Large",
                "message": "Request did not validate Data payload must be smaller than 4096",
                "more_info": "http://autopush.readthedocs.io/en/latest/http.html#error-codes",
            },
        )

    def test_pages_of_other_origins_may_read_it(self):
        request = b"POST /wpush/v1/a HTTP/1.1\r\nHost: h\r\nContent-Length: 65537\r\n\r\n"
        for cors in (True, False):
            self.conf.cors = cors
            wire = Wire(self.endpoint())
            wire.send(request)
            (answer,) = wire.answers()
            self.assertEqual("access-control-allow-origin" in answer.headers, cors)
            self.assertEqual("access-control-expose-headers" in answer.headers, cors)

    def test_all_are_errors_of_the_api(self):
        for data, status, text in (
            (b"{}", 400, "malformed request line"),
            (b"GET / HTTP/1.1\r\n\r\n", 400, "Host is missing"),
            (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "more than one Host"),
            (b"GET /" + b"a" * 20_000, 414, "request target too long"),
            (b"GET / HTTP/1.1\r\nA: " + b"a" * 40_000, 431, "head too long"),
            (b"GET / HTTP/3.0\r\n\r\n", 505, "HTTP version not supported"),
        ):
            (answer,) = Wire(self.endpoint()).send(data).answers()
            body = json.loads(answer.body)
            self.assertEqual((answer.status, body["code"], body["errno"]), (status, status, 999))
            self.assertEqual(body["message"], text)
            self.assertEqual(body["error"], answer.reason)
            self.assertEqual(answer.headers["content-type"], "application/json")

    def test_nothing_is_logged_as_an_error(self):
        events: list[Any] = []
        observe(self, events.append)
        Wire(self.endpoint()).send(b"{}")
        self.assertEqual([e["log_level"].name for e in events], ["info"])


class Taker(Protocol):
    data = b""

    def dataReceived(self, data):
        self.data += data


class UpgradeTest(AppTestCase):
    """Who answers on a port that serves WebSocket, too (spec/websocket 2.1, 2.2)."""

    def setUp(self):
        super().setUp()
        self.websocket = Factory.forProtocol(Taker)

    def taken(self, app: Any, head: str) -> bool:
        wire = Wire(app).send(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        return isinstance(wire.transport.protocol, Taker)

    def test_shared_port(self):
        app = self.endpoint()
        app.upgrade_factory = self.websocket
        for head in (
            "GET / HTTP/1.1\nHost: h\nUpgrade: websocket",
            "GET /status HTTP/1.1\nHost: h\nUpgrade: h2c, WebSocket",
            "GET /any HTTP/1.1\nHost: h\nUpgrade: h2c\nSec-WebSocket-Key: x",
            "GET /any HTTP/1.1\nHost: h\nSec-WebSocket-Version: 13",
            "POST /any HTTP/1.1\nHost: h\nSEC-WEBSOCKET-PROTOCOL: x",
            "GET / HTTP/1.0\nSec-WebSocket-Key1: x",
        ):
            self.assertTrue(self.taken(app, head), head)
        for head in (
            "GET /status HTTP/1.1\nHost: h",
            "GET / HTTP/1.1\nHost: h\nUpgrade: h2c\nConnection: Upgrade",
            "GET / HTTP/1.1\nHost: h\nX-Sec-WebSocket-Key: x",
            "POST /wpush/v1/a HTTP/1.1\nHost: h\nContent-Length: 5",
        ):
            self.assertFalse(self.taken(app, head), head)

    def test_without_upgrade_factory_it_is_plain_http(self):
        self.assertFalse(self.taken(self.endpoint(), "GET / HTTP/1.0\nUpgrade: websocket"))

    def test_websocket_port(self):
        app = WebSocketHTTPFactory(self.conf, self.websocket, clock=Clock())
        for head in (
            "GET / HTTP/1.1\nHost: h",
            "GET /health HTTP/1.1\nHost: h",
            "POST /x HTTP/1.1\nHost: h\nContent-Length: 5",
            "GET /statusx HTTP/1.1\nHost: h\nUpgrade: websocket",
            "GET /a/status HTTP/1.1\nHost: h",
            "BREW / HTTP/1.0",
        ):
            self.assertTrue(self.taken(app, head), head)
        for path in ("/status", "/status?a", "/status/", "/status/a/b"):
            for method in ("GET", "POST", "DELETE", "BREW"):
                answer = Wire(app).request(method, path, upgrade="websocket")
                self.assertEqual((answer.status, answer.reason), (200, "OK"))
                self.assertEqual(json.loads(answer.body)["status"], "OK")
                self.assertEqual(answer.headers["content-type"], "application/json")
        self.assertEqual(Wire(app).request("HEAD", "/status").body, b"")

    def test_malformed_head_on_the_websocket_port(self):
        app = WebSocketHTTPFactory(self.conf, self.websocket, clock=Clock())
        wire = Wire(app).send(b"GET / HTTP/1.1\r\nnonsense\r\n\r\n")
        self.assertEqual([a.status for a in wire.answers()], [400])

    def test_wants_upgrade_takes_plain_values(self):
        self.assertTrue(
            self.endpoint().wants_upgrade("GET", "/", Headers({"upgrade": "websocket"}))
        )


class MemUsageTest(AppTestCase):
    def test_only_its_route(self):
        app = MemUsageHTTPFactory(self.conf)
        self.assertEqual(Wire(app).request("GET", "/status").status, 404)
        self.assertEqual(Wire(app).request("POST", "/_memusage").status, 405)
