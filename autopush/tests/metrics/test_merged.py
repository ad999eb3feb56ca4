"""The figures of several processes as those of one service."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given, strategies as st
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from autopush.metrics.merged import Merged, dump
from autopush.metrics.prometheus import PrometheusMetrics

NAMES = st.sampled_from(["notification.auth", "ua.command.hello"])
TAGS = st.sampled_from([None, ["a:1"], ["a:2"]])
COUNTS = st.lists(st.tuples(st.integers(0, 2), NAMES, TAGS, st.integers(1, 5)))
"""Of which process which counter goes up by how much."""


def figures(merged: Merged) -> dict[Any, float]:
    """What Prometheus reads, but for the processes' own."""
    text = generate_latest(merged.registry).decode()
    return {
        (s.name, *sorted(s.labels.items())): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
        if s.name.startswith("autopush_") and not s.name.endswith("_created")
    }


def parts(processes: list[PrometheusMetrics]) -> dict[int, Any]:
    """As they arrive."""
    return {n: orjson.loads(orjson.dumps(dump(one.registry))) for n, one in enumerate(processes)}


def count(processes: list[PrometheusMetrics], counts: Any) -> None:
    for number, name, tags, by in counts:
        processes[number].increment(name, by, tags=tags)
        processes[number].timing("notification.request_time", by / 10)
        processes[number].timing("ua.connection.lifespan", by, tags=tags)


@given(COUNTS, COUNTS, st.integers(0, 2))
def test_counters_are_those_of_one_process_that_does_all(
    first: Any, second: Any, ends: int
) -> None:
    processes, one = [PrometheusMetrics() for _ in range(3)], PrometheusMetrics()
    merged, alone = Merged(), Merged()
    count(processes, first)
    count([one] * 3, first)
    merged.update(parts(processes))
    merged.ended(ends)
    processes[ends] = PrometheusMetrics()
    count(processes, second)
    count([one] * 3, second)
    merged.update(parts(processes))
    alone.update({0: dump(one.registry)})
    got, expected = figures(merged), figures(alone)
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert abs(got[name] - value) < 1e-6, name


def test_gauges_are_sums_but_for_some() -> None:
    processes = [PrometheusMetrics() for _ in range(3)]
    for number, one in enumerate(processes):
        one.gauge("connections", 10 * number)
        one.gauge("store.up", int(number != 1))
        one.gauge("certificate.days_left", 30 + number)
        one.gauge("build_info", 1, tags=["version:1"])
        one.gauge("worker.connections", number, tags=[f"worker:{number}"])
    merged = Merged()
    merged.update(parts(processes))
    got = figures(merged)
    assert got["autopush_connections",] == 30
    assert got["autopush_store_up",] == 0
    assert got["autopush_certificate_days_left",] == 30
    assert got["autopush_build_info", ("version", "1")] == 1
    assert got["autopush_worker_connections", ("worker", "2")] == 2


def test_gauges_of_one_that_is_away_are_not_known() -> None:
    processes = [PrometheusMetrics() for _ in range(2)]
    for one in processes:
        one.gauge("connections", 10)
        one.increment("ua.command.hello")
    merged = Merged()
    merged.update(parts(processes))
    merged.update({1: None, 7: None})
    assert figures(merged)["autopush_connections",] == 10
    assert figures(merged)["autopush_ua_command_hello_total",] == 2
    merged.ended(1)
    merged.ended(7)
    assert figures(merged)["autopush_connections",] == 10
    assert figures(merged)["autopush_ua_command_hello_total",] == 2


def test_what_prometheus_knows_of_a_process_is_there() -> None:
    merged = Merged()
    merged.update(parts([PrometheusMetrics() for _ in range(2)]))
    text = generate_latest(merged.registry).decode()
    assert "# TYPE python_gc_collections_total counter" in text
    assert "# TYPE autopush_notification_request_time_seconds histogram" in text
