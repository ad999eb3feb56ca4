"""The route that makes the service log an error (spec/http-endpoint 10)."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from autopush.config import AutopushConfig
from autopush.exceptions import LogCheckError
from autopush.http import EndpointHTTPFactory
from autopush.tests.httpserver.support import Wire, observe

MORE_INFO = "http://autopush.readthedocs.io/en/latest/http.html#error-codes"


class LogCheckTest(SynchronousTestCase):
    def setUp(self):
        conf = AutopushConfig(hostname="localhost", statsd_host=None)
        self.wire = Wire(EndpointHTTPFactory(conf, None, {}, clock=Clock()))
        self.events: list[dict[str, Any]] = []
        observe(self, self.events.append)

    def event(self, text: str) -> dict[str, Any]:
        (event,) = (e for e in self.events if e["log_format"] == text)
        self.assertEqual((event["status_code"], event["errno"]), (418, 0))
        self.assertEqual(event["client_info"]["remote_ip"], "192.0.2.7")
        return event

    def test_error(self):
        for path in ("/v1/err", "/v1/err/error", "/v1/err/ERRORx", "/v1/err/crit-error"):
            self.events.clear()
            answer = self.wire.request("GET", path)
            self.assertEqual((answer.status, answer.reason), (418, "Test Error"))
            self.assertEqual(
                json.loads(answer.body),
                {
                    "code": 418,
                    "errno": 999,
                    "error": "Test Error",
                    "message": "ERROR:Success",
                    "more_info": MORE_INFO,
                },
            )
            event = self.event("Test Error Message")
            self.assertEqual(event["log_level"].name, "error")

    def test_critical(self):
        for path in ("/v1/err/crit", "/v1/err/CRITICAL"):
            self.events.clear()
            answer = self.wire.request("GET", path)
            self.assertEqual((answer.status, answer.reason), (418, "Test Failure"))
            body = json.loads(answer.body)
            self.assertEqual((body["errno"], body["message"]), (999, "FAILURE:Success"))
            self.assertEqual(body["error"], "Test Failure")
            event = self.event("Test Critical Message")
            self.assertEqual(event["log_level"].name, "critical")
            self.assertIsInstance(event["log_failure"].value, LogCheckError)
        self.assertEqual(len(self.flushLoggedErrors(LogCheckError)), 2)

    def test_others(self):
        answer = self.wire.request("GET", "/v1/err/foo")
        self.assertEqual((answer.status, answer.reason), (404, "Not Found"))
        self.assertEqual(
            json.loads(answer.body),
            {
                "code": 404,
                "errno": 0,
                "error": "Not Found",
                "more_info": MORE_INFO,
                "message": "Unknown kind of error",
            },
        )
