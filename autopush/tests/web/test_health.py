"""Health and status (spec/http-endpoint 10, spec/websocket 20)."""

from __future__ import annotations

import json
import sys
from types import ModuleType
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from autopush import __version__
from autopush.config import AutopushConfig
from autopush.exceptions import StoreError
from autopush.http import EndpointHTTPFactory, InternalRouterHTTPFactory, MemUsageHTTPFactory
from autopush.tests.httpserver.support import Answer, Wire, observe
from autopush.web import health


class FakeStore:
    """A store in the state the test wants."""

    def __init__(self) -> None:
        self.result: Deferred[dict[str, str | None]] = succeed({"router": None, "storage": None})

    def health(self) -> Deferred[dict[str, str | None]]:
        return self.result


class FakeNode:
    clients = {"a": 1, "b": 2}
    users: int | None = None


class HealthTestCase(SynchronousTestCase):
    def setUp(self):
        self.conf = AutopushConfig(hostname="localhost", statsd_host=None, cors=True)
        self.store = FakeStore()
        self.events: list[Any] = []
        observe(self, self.events.append)

    def get(self, path: str, method: str = "GET", **kwargs: Any) -> Answer:
        store: Any = self.store
        app = EndpointHTTPFactory(self.conf, store, {}, clock=Clock(), **kwargs)
        return Wire(app).request(method, path)


class WholeTest(HealthTestCase):
    """A service with several processes: each answers for all."""

    def whole(self, result: Any) -> Answer:
        store: Any = self.store
        app = EndpointHTTPFactory(self.conf, store, {}, clock=Clock())
        app.whole = lambda: maybeDeferred(result)
        return Wire(app).request("GET", "/health")

    def test_all_is_well(self):
        workers = {"1": {"status": "OK", "clients": 3}, "2": {"status": "starting", "error": "x"}}
        answer = self.whole(lambda: {"clients": 3, "users": 7, "workers": dict(workers)})
        body = json.loads(answer.body)
        self.assertEqual((answer.status, body["status"]), (200, "OK"))
        self.assertEqual((body["clients"], body["users"], body["workers"]), (3, 7, workers))

    def test_users_that_nobody_has_counted(self):
        answer = self.whole(lambda: {"clients": 0, "users": None, "workers": {}})
        self.assertNotIn("users", json.loads(answer.body))

    def test_one_that_fails(self):
        workers = {"1": {"status": "OK", "clients": 3}, "2": {"status": "NOT OK", "error": "x"}}
        answer = self.whole(lambda: {"clients": 3, "users": None, "workers": workers})
        self.assertEqual((answer.status, json.loads(answer.body)["status"]), (503, "NOT OK"))

    def test_a_supervisor_that_does_not_answer(self):
        def fails() -> Any:
            raise StoreError("no answer within 8 s")

        answer = self.whole(fails)
        self.assertEqual(answer.status, 503)
        self.assertEqual(json.loads(answer.body)["workers"], {"error": "no answer within 8 s"})


class StatusTest(HealthTestCase):
    def test_get(self):
        for path in ("/status", "/__heartbeat__", "/status?a=b"):
            answer = self.get(path)
            self.assertEqual(answer.status, 200)
            self.assertEqual(json.loads(answer.body), {"status": "OK", "version": __version__})
            self.assertEqual(answer.headers["content-type"], "application/json")
            self.assertIn("etag", answer.headers)

    def test_no_dependency_is_checked(self):
        self.store.result = fail(StoreError())
        self.assertEqual(self.get("/status").status, 200)
        self.store.result.addErrback(lambda failure: None)


class HeaderTest(HealthTestCase):
    """CORS and STS headers on all health routes (section 3.3, spec/configuration C20)."""

    PATHS = ("/status", "/health", "/__heartbeat__", "/__lbheartbeat__", "/v1/err/x")

    def test_cors_and_sts(self):
        for path in self.PATHS:
            headers = self.get(path).headers
            self.assertEqual(headers["access-control-allow-origin"], "*")
            for name in ("allow-methods", "allow-headers", "expose-headers"):
                self.assertEqual(headers[f"access-control-{name}"], "")
            self.assertEqual(
                headers["strict-transport-security"], "max-age=31536000;includeSubDomains"
            )

    def test_off(self):
        self.conf.cors, self.conf.sts_max_age = False, 0
        for path in self.PATHS:
            headers = self.get(path).headers
            self.assertNotIn("access-control-allow-origin", headers)
            self.assertNotIn("strict-transport-security", headers)

    def test_head_and_options_are_empty(self):
        for path in self.PATHS:
            for method in ("HEAD", "OPTIONS"):
                answer = self.get(path, method)
                self.assertEqual((answer.status, answer.body), (200, b""))
                self.assertIn("access-control-allow-origin", answer.headers)

    def test_other_methods(self):
        for path in self.PATHS:
            for method in ("POST", "PUT", "DELETE", "PATCH", "BREW"):
                answer = self.get(path, method)
                self.assertEqual((answer.status, json.loads(answer.body)["code"]), (405, 405))
                self.assertEqual(answer.headers["allow"], "GET, HEAD, OPTIONS")

    def test_no_client_certificate_is_asked_for(self):
        self.conf.client_certs = {"AA": "a"}
        for path in self.PATHS:
            self.assertNotEqual(self.get(path).status, 401)


class HealthTest(HealthTestCase):
    def test_well(self):
        answer = self.get("/health")
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.headers["content-type"], "application/json")
        self.assertEqual(
            json.loads(answer.body),
            {
                "status": "OK",
                "version": __version__,
                "clients": 0,
                "router": {"status": "OK"},
                "storage": {"status": "OK"},
            },
        )

    def test_one_part_is_not_well(self):
        self.store.result = succeed({"router": None, "storage": "Nonexistent table"})
        answer = self.get("/health")
        self.assertEqual(answer.status, 503)
        body = json.loads(answer.body)
        self.assertEqual(body["status"], "NOT OK")
        self.assertEqual(body["router"], {"status": "OK"})
        self.assertEqual(body["storage"], {"status": "NOT OK", "error": "Nonexistent table"})
        self.flushLoggedErrors(StoreError)

    def test_failed_check_is_logged_as_failure(self):
        """Section 10; spec/observability 4.3"""
        self.store.result = succeed({"router": None, "storage": "Nonexistent table"})
        self.get("/health")
        (event,) = self.events
        self.assertEqual(event["log_format"].format(**event), "Nonexistent table")
        self.assertEqual((event["log_level"].name, event["name"]), ("critical", "storage"))
        self.assertEqual(len(self.flushLoggedErrors(StoreError)), 1)

    def test_failed_check_without_a_text(self):
        """O15: spelt as ever."""
        self.store.result = fail(ZeroDivisionError())
        self.get("/health")
        (event,) = self.events
        self.assertEqual(event["log_format"].format(**event), "Heath Exception")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_store_which_fails(self):
        for error in (StoreError("x"), ZeroDivisionError()):
            self.store.result = fail(error)
            answer = self.get("/health")
            self.assertEqual(answer.status, 503)
            self.assertEqual(
                json.loads(answer.body)["storage"],
                {"status": "NOT OK", "error": "Internal error"},
            )
            self.assertEqual(len(self.flushLoggedErrors(type(error))), 1)

    def test_store_which_does_not_answer(self):
        self.store.result = Deferred()
        store: Any = self.store
        clock = Clock()
        wire = Wire(EndpointHTTPFactory(self.conf, store, {}, clock=clock))
        wire.send(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
        clock.advance(health.HEALTH_WITHIN)
        answer = wire.answers()[0]
        self.assertEqual(answer.status, 503)
        self.assertEqual(
            json.loads(answer.body)["storage"],
            {"status": "NOT OK", "error": "No answer within 10 seconds"},
        )
        self.flushLoggedErrors(StoreError)

    def test_clients_of_the_node(self):
        node: Any = FakeNode()
        self.assertEqual(json.loads(self.get("/health", node=node).body)["clients"], 2)

    def test_users_as_far_as_they_are_counted(self):
        node: Any = FakeNode()
        self.assertNotIn("users", json.loads(self.get("/health", node=node).body))
        node.users = 7
        self.assertEqual(json.loads(self.get("/health", node=node).body)["users"], 7)

    def test_clients_of_an_internal_application(self):
        store: Any = self.store
        app = InternalRouterHTTPFactory(self.conf, store, {"a": 1}, clock=Clock())
        self.assertEqual(json.loads(Wire(app).request("GET", "/health").body)["clients"], 1)


class MemUsageTest(HealthTestCase):
    def test_parts_are_chosen_by_arguments(self):
        asked: list[Any] = []

        def memusage(**parts):
            asked.append(parts)
            return "ru_maxrss=1"

        module: Any = ModuleType("autopush.web.memusage")
        module.memusage = memusage
        modules = mock.patch.dict(sys.modules, {"autopush.web.memusage": module})
        modules.start()
        self.addCleanup(modules.stop)
        self.patch(health, "deferToThread", maybeDeferred)
        wire = Wire(MemUsageHTTPFactory(self.conf))
        answer = wire.request("GET", "/_memusage")
        self.assertEqual((answer.status, answer.body), (200, b"ru_maxrss=1"))
        self.assertEqual(answer.headers["content-type"], "text/html; charset=UTF-8")
        wire.request("GET", "/_memusage?objgraph=False&dump_rpy_heap=x")
        self.assertEqual(
            asked,
            [
                {"do_dump_rpy_heap": True, "do_objgraph": True},
                {"do_dump_rpy_heap": True, "do_objgraph": False},
            ],
        )
