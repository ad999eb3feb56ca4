"""Metrics for Prometheus, which are an addition, off by default (``--prometheus_port``)."""

from __future__ import annotations

import http.client
import threading
from typing import Any
from unittest import mock

import pytest
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet import reactor as _reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs
from twisted.trial.unittest import TestCase

from autopush.app.process import bind
from autopush.config import AutopushConfig
from autopush.http import PrometheusHTTPFactory
from autopush.metrics import SeveralMetrics, SinkMetrics, prometheus as module
from autopush.metrics.prometheus import HISTOGRAMS, PrometheusMetrics
from autopush.options.parser import parse_connection, parse_endpoint, parse_standalone

reactor: Any = _reactor


def samples(metrics, prefix="autopush_"):
    """What Prometheus reads: values by name and labels."""
    from prometheus_client import generate_latest

    text = generate_latest(metrics.registry).decode()
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith(prefix)
    }


@pytest.fixture
def metrics():
    return PrometheusMetrics()


def test_counter(metrics):
    metrics.increment("ua.command.hello")
    metrics.increment("ua.command.hello", 4)
    assert samples(metrics)[("autopush_ua_command_hello_total",)] == 5


def test_tags_are_labels(metrics):
    metrics.increment("notification.message.error", tags=["code:404", "router:fcm"])
    metrics.increment("notification.message.error", tags=["code:404", "router:fcm"])
    metrics.increment("notification.message.error", tags=["code:503", "router:a:b"])
    found = samples(metrics, "autopush_notification_message_error")
    name = "autopush_notification_message_error_total"
    assert found == {
        (name, ("code", "404"), ("router", "fcm")): 2,
        (name, ("code", "503"), ("router", "a:b")): 1,
    }


def test_one_name_with_different_labels(metrics):
    metrics.increment("ua.command.register")
    metrics.increment("ua.command.register", tags=["host:push.example"])
    found = samples(metrics, "autopush_ua_command_register")
    assert sorted(found.values()) == [1, 1]
    assert len(found) == 2


def test_gauge(metrics):
    metrics.gauge("twisted.threadpool.idleWorkerCount", 3)
    metrics.gauge("twisted.threadpool.idleWorkerCount", 2)
    assert samples(metrics)[("autopush_twisted_threadpool_idleWorkerCount",)] == 2


def test_gauges_are_set_whenever_somebody_comes(metrics):
    figures = iter((7, 8))
    SeveralMetrics(SinkMetrics(), metrics).on_fetch(
        lambda fetched: fetched.gauge("connections", next(figures))
    )
    assert samples(metrics)[("autopush_connections",)] == 7
    assert samples(metrics)[("autopush_connections",)] == 8


def test_gauges_that_cannot_be_set_hinder_nobody(metrics):
    metrics.on_fetch(lambda fetched: 1 / 0)
    metrics.on_fetch(lambda fetched: fetched.gauge("connections", 1))
    with capturedLogs() as events:
        assert samples(metrics)[("autopush_connections",)] == 1
    assert [event["log_failure"].type for event in events] == [ZeroDivisionError]


def test_timing_that_has_no_histogram_is_a_summary_in_seconds(metrics):
    metrics.timing("ua.connection.lifespan", 1.5, tags=["use_webpush:True"])
    metrics.timing("ua.connection.lifespan", 2.5, tags=["use_webpush:True"])
    name, label = "autopush_ua_connection_lifespan_seconds", ("use_webpush", "True")
    found = samples(metrics)
    assert found[(f"{name}_count", label)] == 2
    assert found[(f"{name}_sum", label)] == 4.0


def test_histograms_of_request_time_route_time_and_age(metrics):
    metrics.timing("notification.request_time", 0.003)
    metrics.observe("notification.route_time", 0.3)
    metrics.observe("notification.age", 3600)
    found = samples(metrics)
    for name, bound, below in (
        ("notification_request_time", "0.005", "0.0025"),
        ("notification_route_time", "0.5", "0.25"),
        ("notification_age", "7200.0", "1800.0"),
    ):
        full = f"autopush_{name}_seconds"
        assert found[(f"{full}_count",)] == 1
        assert found[(f"{full}_bucket", ("le", bound))] == 1
        assert found[(f"{full}_bucket", ("le", below))] == 0
    assert set(HISTOGRAMS) == {
        "notification.request_time",
        "notification.route_time",
        "notification.age",
    }


def test_observing_something_unknown_is_ignored(metrics):
    metrics.observe("something.else", 1)
    assert not any("something" in key[0] for key in samples(metrics))


def test_series_of_a_name_are_bounded(metrics, monkeypatch):
    monkeypatch.setattr(module, "MAX_SERIES", 3)
    for number in range(10):
        metrics.increment("x", tags=[f"host:{number}"])
    found = samples(metrics)
    assert len(found) - len(samples(PrometheusMetrics())) == 4
    assert found[("autopush_x_total",)] == 7


def test_o1_never_raises(metrics):
    odd: list[dict[str, Any]] = [
        {"error": 404, "errno": 0},
        {"tags": {"platform": "apns"}},
        {"tags": [["list"]]},
        {"tags": 5},
    ]
    with mock.patch.object(module.log, "observer", lambda event: None):
        for kwargs in odd:
            metrics.increment("x", **kwargs)
    assert samples(metrics)[("autopush_x_total",)] == 1


def test_threads_lose_nothing(metrics):
    def work():
        for _ in range(2000):
            metrics.increment("x", tags=["a:b"])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert samples(metrics)[("autopush_x_total", ("a", "b"))] == 8000


def test_process_is_described(metrics):
    assert samples(metrics, "process_")[("process_resident_memory_bytes",)] > 1e6


@pytest.mark.parametrize("parse", [parse_connection, parse_endpoint, parse_standalone])
def test_option_is_off_by_default_and_on_the_loopback_address(parse):
    ns = parse([], [])
    assert (ns.prometheus_port, ns.prometheus_host) == (None, "127.0.0.1")
    conf = AutopushConfig.from_argparse(
        parse([], ["--prometheus_port", "9100", "--prometheus_host", "::"]), ami_id=None
    )
    assert (conf.prometheus_port, conf.prometheus_host) == (9100, "::")


class TestOverHTTP(TestCase):
    """The listener, as Prometheus sees it."""

    def setUp(self):
        self.metrics = PrometheusMetrics()
        self.metrics.increment("ua.command.hello", 3)
        factory = PrometheusHTTPFactory(AutopushConfig(), self.metrics.registry)
        self.port: Any = bind(reactor, "127.0.0.1", 0, factory)
        self.addCleanup(self.port.stopListening)

    def get(self, path="/metrics", **headers):
        def ask():
            connection = http.client.HTTPConnection(
                "127.0.0.1", self.port.getHost().port, timeout=60
            )
            connection.request("GET", path, headers={"Connection": "close", **headers})
            response = connection.getresponse()
            result = response.status, response.headers["Content-Type"], response.read().decode()
            connection.close()
            return result

        return deferToThread(ask)

    @inlineCallbacks
    def test_text(self):
        status, content_type, body = yield self.get()
        self.assertEqual(status, 200)
        self.assertTrue(content_type.startswith("text/plain; version="), content_type)
        self.assertIn("\nautopush_ua_command_hello_total 3.0\n", body)
        self.assertIn("# TYPE autopush_notification_age_seconds histogram\n", body)

    @inlineCallbacks
    def test_openmetrics_for_those_who_ask_for_it(self):
        accept = "application/openmetrics-text;version=1.0.0"
        status, content_type, body = yield self.get(Accept=accept)
        self.assertEqual(status, 200)
        self.assertTrue(content_type.startswith("application/openmetrics-text"), content_type)
        self.assertTrue(body.endswith("# EOF\n"))

    @inlineCallbacks
    def test_nothing_else_is_there(self):
        for path in "/", "/status", "/metrics/x":
            status, _, _ = yield self.get(path)
            self.assertEqual(status, 404, path)
