"""Which metrics the configuration asks for (spec/observability 7)."""

from __future__ import annotations

import subprocess
import sys
from typing import Any
from unittest import mock

import pytest
from prometheus_client import generate_latest
from twisted.internet.defer import succeed

from autopush import metrics as metrics_package
from autopush.config import AutopushConfig
from autopush.logging import events as logging
from autopush.metrics import (
    IMetrics,
    SeveralMetrics,
    SinkMetrics,
    from_config,
    registry_of,
)


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

    @pytest.mark.parametrize("prometheus_port", [None, 9090])
    def test_gauges_that_a_worker_sends_are_its_own(self, prometheus_port):
        """Counters and timings are summed up where they go to."""
        metrics: Any = from_config(
            config(statsd_host="127.0.0.1", worker=2, prometheus_port=prometheus_port)
        )
        sent: list[Any] = []
        (own, *rest) = metrics.destinations
        sender = own if not rest else own.destinations[0]
        sender.client = mock.Mock(send_metric=lambda *args: sent.append(args))
        metrics.gauge("g", 1)
        metrics.gauge("h", 2, tags=["a:b"])
        metrics.increment("c", 3, tags=["a:b"])
        metrics.timing("t", 0.5)
        assert sent == [
            ("g", "g", 1, ["worker:2"]),
            ("h", "g", 2, ["a:b", "worker:2"]),
            ("c", "c", 3, ["a:b"]),
            ("t", "ms", 500.0, None),
        ]
        if prometheus_port:
            text = generate_latest(registry_of(metrics)).decode()
            assert "autopush_g 1.0" in text and "worker" not in text

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
