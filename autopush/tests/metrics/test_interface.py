"""Metrics (spec/observability 7, spec/python-api 4.2)."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from twisted.internet.defer import succeed

from autopush import metrics as metrics_package
from autopush.config import AutopushConfig
from autopush.logging import events as logging
from autopush.metrics import (
    IMetrics,
    SeveralMetrics,
    SinkMetrics,
    from_config,
    interface as module,
    make_tags,
    periodic_reporter,
    registry_of,
)


class Recorder(IMetrics):
    def __init__(self):
        self.gauges = []

    def gauge(self, name, count, **kwargs):
        self.gauges.append((name, count, kwargs))


@pytest.fixture
def busy_pool(monkeypatch):
    """A thread pool with 1 idle thread, 2 busy ones and 3 calls waiting."""
    statistics = SimpleNamespace(backloggedWorkCount=3)
    pool = SimpleNamespace(
        waiters=[None], working=[None] * 2, _team=SimpleNamespace(statistics=lambda: statistics)
    )
    monkeypatch.setattr(module, "reactor", SimpleNamespace(getThreadPool=lambda: pool))


def test_interface():
    metrics: Any = IMetrics("any", argument=1)
    assert metrics.active
    assert metrics.start() is None
    for call in metrics.increment, metrics.gauge, metrics.timing:
        with pytest.raises(NotImplementedError):
            call("name", 1)


def test_sink_keeps_nothing():
    metrics: Any = SinkMetrics()
    assert not metrics.active
    assert metrics.start() is None
    assert metrics.increment("name") is None
    assert metrics.increment("name", 5, tags=["a:b"]) is None
    assert metrics.gauge("name", 5, tags=["a:b"]) is None
    assert metrics.timing("name", duration=0.5, tags=None) is None


def test_o1_sink_takes_any_keyword():
    SinkMetrics().increment("name", tags={}, error=404, errno=0)


def test_make_tags():
    assert make_tags() == []
    assert make_tags(a=1, b="x") == ["a:1", "b:x"]
    base = ["c:d"]
    assert make_tags(base, a=None) == ["c:d", "a:None"]
    assert base == ["c:d"]
    assert make_tags(("c:d",)) == ["c:d"]


def config(**options):
    given = {"statsd_host": None, "datadog_api_key": None, "ami_id": None, **options}
    return AutopushConfig(**given)


class TestSelection:
    """spec/observability 7: the first that is configured."""

    def test_none(self):
        for host in None, "":
            metrics = from_config(config(statsd_host=host))
            assert isinstance(metrics, SinkMetrics)

    def test_statsd_is_the_default(self):
        metrics: Any = from_config(AutopushConfig())
        assert isinstance(metrics, metrics_package.TwistedMetrics)
        assert (metrics.host, metrics.port) == ("localhost", 8125)
        metrics = from_config(config(statsd_host="stats.example", statsd_port=99))
        assert (metrics.host, metrics.port) == ("stats.example", 99)

    def test_datadog_wins(self):
        metrics: Any = from_config(
            config(
                datadog_api_key="key",
                datadog_app_key="app",
                datadog_flush_interval=3,
                hostname="push.example",
                statsd_host="localhost",
            )
        )
        assert isinstance(metrics, metrics_package.DatadogMetrics)
        assert (metrics._host, metrics._flush_interval) == ("push.example", 3)

    def test_datadog_host_is_the_instance_when_ec2_is_asked(self, monkeypatch):
        monkeypatch.setattr(logging, "instance_id_or_hostname", "i-0123")
        metrics: Any = from_config(
            config(datadog_api_key="key", ami_id="Unknown", hostname="push.example")
        )
        assert metrics._host == "i-0123"

    def test_prometheus_comes_in_addition(self):
        alone: Any = from_config(config(prometheus_port=9))
        assert isinstance(alone, metrics_package.PrometheusMetrics)
        both: Any = from_config(config(prometheus_port=9, statsd_host="localhost"))
        assert [type(one).__name__ for one in both.destinations] == [
            "TwistedMetrics",
            "PrometheusMetrics",
        ]
        assert registry_of(both) is both.destinations[1].registry
        assert registry_of(alone) is alone.registry
        with pytest.raises(ValueError):
            registry_of(SinkMetrics())

    def test_libraries_are_imported_only_for_those_who_use_them(self):
        code = (
            "import sys, autopush.main, autopush.metrics\n"
            "from autopush.config import AutopushConfig\n"
            "autopush.metrics.from_config(AutopushConfig(statsd_host=None))\n"
            "found = {'datadog', 'prometheus_client', 'raven', 'boto3'} & set(sys.modules)\n"
            "print(sorted(found))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ("[]\n", "")


def test_several_destinations_are_all_told():
    first, second = mock.Mock(IMetrics, histograms=False), mock.Mock(IMetrics, histograms=True)
    for one in first, second:
        one.stop.return_value = succeed(None)
    several = SeveralMetrics(first, second)
    assert several.active and several.histograms
    several.start()
    several.increment("a", 2, tags=["x:y"])
    several.gauge("b", 3)
    several.timing("c", 0.5, tags=None)
    several.observe("d", 0.25)
    assert several.stop().called
    for one in first, second:
        assert one.mock_calls == [
            mock.call.start(),
            mock.call.increment("a", 2, tags=["x:y"]),
            mock.call.gauge("b", 3),
            mock.call.timing("c", 0.5, tags=None),
            mock.call.observe("d", 0.25),
            mock.call.stop(),
        ]


def test_documented_names_are_here():
    for name in "TwistedMetrics", "DatadogMetrics", "PrometheusMetrics":
        assert getattr(metrics_package, name).__name__ == name
    with pytest.raises(AttributeError):
        metrics_package.TaggedMetrics  # noqa: B018


@pytest.mark.parametrize("prefix", ["", "autoendpoint."])
def test_periodic_reporter_sets_three_gauges_in_order(busy_pool, prefix):
    metrics = Recorder()
    periodic_reporter(metrics, prefix)
    assert metrics.gauges == [
        (f"{prefix}twisted.threadpool.idleWorkerCount", 1, {}),
        (f"{prefix}twisted.threadpool.busyWorkerCount", 2, {}),
        (f"{prefix}twisted.threadpool.backloggedWorkCount", 3, {}),
    ]


def test_another_twisted_has_no_figure_of_waiting_calls(busy_pool, monkeypatch):
    monkeypatch.setattr(module.twisted, "__version__", "27.1.1")
    metrics = Recorder()
    periodic_reporter(metrics)
    assert metrics.gauges == [
        ("twisted.threadpool.idleWorkerCount", 1, {}),
        ("twisted.threadpool.busyWorkerCount", 2, {}),
    ]


def test_periodic_reporter_reads_the_real_pool():
    metrics = Recorder()
    periodic_reporter(metrics)
    assert [count for _, count, _ in metrics.gauges] == [0, 0, 0]


def test_periodic_reporter_costs_nothing_without_listener(monkeypatch):
    monkeypatch.setattr(module, "reactor", None)
    periodic_reporter(SinkMetrics())
