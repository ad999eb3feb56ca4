"""Metrics (spec/observability 7, spec/python-api 4.2)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from autopush import metrics as metrics_package
from autopush.metrics import (
    IMetrics,
    SinkMetrics,
    interface as module,
    make_tags,
    periodic_reporter,
)
from autopush.metrics.interface import PoolFigures


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


def test_who_sends_by_itself_is_not_fetched():
    IMetrics().on_fetch(pytest.fail)


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


def test_threads_beside_the_reactors_count(busy_pool):
    metrics = Recorder()
    periodic_reporter(metrics, others=lambda: PoolFigures(10, 20, 30))
    assert [count for _, count, _ in metrics.gauges] == [11, 22, 33]


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
