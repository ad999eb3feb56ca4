"""Metrics over Datadog's HTTP API (spec/observability 7.2)."""

from __future__ import annotations

import json
import logging
import threading
import zlib
from http.server import BaseHTTPRequestHandler, HTTPServer
from unittest import mock

import datadog
import pytest
from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import TestCase

from autopush.metrics import datadog as module
from autopush.metrics.datadog import DatadogMetrics


class Datadog(BaseHTTPRequestHandler):
    """Takes series and remembers them; refuses a key that is not ours."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "deflate":
            body = zlib.decompress(body)
        self.server.requests.append((self.path, dict(self.headers), json.loads(body)))
        known = self.headers["DD-API-KEY"] == "key"
        answer = b'{"status": "ok"}' if known else b'{"errors": ["Forbidden"]}'
        self.send_response(202 if known else 403)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args):
        pass


@pytest.fixture
def recorded():
    """Metrics whose client only notes its calls."""
    metrics = DatadogMetrics("key", "app", "push.example")
    metrics._client = mock.Mock()
    return metrics


def test_names_have_the_name_space_and_points_the_host(recorded):
    recorded.increment("ua.command.hello")
    recorded.increment("ua.message_data", 99, tags=["source:Direct"])
    recorded.gauge("idle", 3, tags=None)
    assert recorded._client.mock_calls == [
        mock.call.increment("autopush.ua.command.hello", value=1, host="push.example", tags=None),
        mock.call.increment(
            "autopush.ua.message_data", value=99, host="push.example", tags=["source:Direct"]
        ),
        mock.call.gauge("autopush.idle", value=3, host="push.example", tags=None),
    ]


def test_o2_timings_are_in_seconds(recorded):
    recorded.timing("notification.request_time", 0.058)
    assert recorded._client.mock_calls == [
        mock.call.timing(
            "autopush.notification.request_time", value=0.058, host="push.example", tags=None
        )
    ]


def test_o1_never_raises(recorded):
    recorded.increment("x", tags={}, error=404, errno=0)
    recorded._client.increment.side_effect = TypeError("odd")
    events: list[dict] = []
    with mock.patch.object(module.log, "observer", events.append):
        recorded.increment("x", tags=5)
    assert len(events) == 1


def test_interval_is_also_the_roll_up(recorded):
    recorded._flush_interval = 7
    recorded.start()
    assert recorded._client.mock_calls == [mock.call.start(flush_interval=7, roll_up_interval=7)]


def test_constant_tags_of_the_environment(monkeypatch):
    monkeypatch.setenv("DATADOG_TAGS", "a:b,c:d")
    assert DatadogMetrics("key", "app", "h")._client.constant_tags == ["a:b", "c:d"]


def test_failures_are_logged_now_and_then():
    events: list[dict] = []
    handler = module.Complaints()
    record = logging.LogRecord("datadog.api", logging.ERROR, "", 0, "Can't %s", ("connect",), None)
    with mock.patch.object(module.log, "observer", events.append):
        for _ in range(3):
            handler.handle(record)
    assert [event["error"] for event in events] == ["Can't connect"]


class TestOverHTTP(TestCase):
    def setUp(self):
        self.server = HTTPServer(("127.0.0.1", 0), Datadog)
        self.server.requests = []
        thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        self.patch(module, "TIMEOUT", 600)
        self.patch(datadog.api, "_api_host", f"http://127.0.0.1:{self.server.server_port}")
        for name in ("_api_key", "_application_key"):
            self.patch(datadog.api, name, None)

    def metrics(self, key="key"):
        metrics = DatadogMetrics(key, "app", "push.example", flush_interval=3600)
        metrics.start()
        return metrics

    @inlineCallbacks
    def test_rest_is_sent_at_the_end(self):
        metrics = self.metrics()
        metrics.increment("ua.command.hello", 7200)
        metrics.increment("ua.command.hello", 3600)
        metrics.timing("notification.request_time", 0.25, tags=["a:b"])
        yield metrics.stop()
        ((path, headers, body),) = self.server.requests
        self.assertTrue(path.startswith("/api/v1/series"), path)
        self.assertEqual(headers["DD-API-KEY"], "key")
        self.assertNotIn("key=key", path)
        series = {row["metric"]: row for row in body["series"]}
        hello = series["autopush.ua.command.hello"]
        self.assertEqual((hello["type"], hello["interval"]), ("rate", 3600))
        self.assertEqual(hello["points"][0][1], 3.0)
        self.assertEqual(hello["host"], "push.example")
        average = series["autopush.notification.request_time.avg"]
        self.assertEqual((average["points"][0][1], average["tags"]), (0.25, ["a:b"]))

    @inlineCallbacks
    def test_nothing_follows_the_end(self):
        metrics = self.metrics()
        yield metrics.stop()
        metrics.increment("late")
        yield metrics.stop()
        metrics._client.flush(float("inf"))
        self.assertEqual(self.server.requests, [])

    def test_nothing_follows_the_end_with_another_version(self):
        self.patch(module, "version", lambda name: "0.57.0")
        return self.test_nothing_follows_the_end()

    @inlineCallbacks
    def test_refusal_is_logged(self):
        events: list[dict] = []
        self.patch(module.log, "observer", events.append)
        self.patch(module.complaints, "_next", 0.0)
        metrics = self.metrics(key="wrong")
        metrics.increment("x")
        yield metrics.stop()
        self.assertEqual([event["error"] for event in events], ["Forbidden"])
