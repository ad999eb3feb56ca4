"""The metrics for Prometheus, which comes and fetches them (``--prometheus_port``).

Names are those of spec/observability 8 with ``autopush_`` before and ``_`` for the dots; counters
end in ``_total``, durations in ``_seconds``. A metric may have more labels in one place than in
another, so they are kept here as they come, and only put into words by the package.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any

from prometheus_client import CollectorRegistry, GCCollector, Histogram, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from twisted.logger import Logger

from autopush.metrics.interface import NAMESPACE, IMetrics

MAX_SERIES = 1000
"""Distinct label sets of one name; what comes after is counted without labels. The tag ``host``
is what clients say it is."""

FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
MINUTE, HOUR, DAY = 60, 3600, 86400
LONG = (1, 5, 15, MINUTE, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 8 * HOUR, DAY, 3 * DAY, 7 * DAY,
        14 * DAY, 30 * DAY)  # fmt: skip

HISTOGRAMS: dict[str, tuple[str, tuple[float, ...]]] = {
    "notification.request_time": ("from the request to the router's answer", FAST),
    "notification.route_time": ("what the router took of that", FAST),
    "notification.age": ("from acceptance to the frame for the user agent", LONG),
}
"""Durations whose distribution is kept: help text and upper bounds (s)."""

BAD_CHARACTER = re.compile(r"\W", re.ASCII)

log = Logger(namespace="autopush.metrics.PrometheusMetrics")

Labels = tuple[str, ...]
Series = dict[Labels, list[float]]
"""By tags: the value, or count and sum."""


class PrometheusMetrics(IMetrics):
    """Keeps the figures until they are asked for."""

    histograms = True

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._lock = Lock()
        self._reports: list[Callable[[IMetrics], None]] = []
        self._families: dict[str, dict[str, Series]] = {"counter": {}, "gauge": {}, "summary": {}}
        self._histograms = {
            name: Histogram(
                metric_name(name) + "_seconds", text, buckets=bounds, registry=self.registry
            )
            for name, (text, bounds) in HISTOGRAMS.items()
        }
        self.registry.register(_Collector(self))
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def increment(self, name: str, count: int = 1, **kwargs: Any) -> None:
        """Add to a counter."""
        self._add("counter", name, kwargs.get("tags"), count)

    def gauge(self, name: str, count: float, **kwargs: Any) -> None:
        """Set a gauge."""
        self._add("gauge", name, kwargs.get("tags"), count)

    def timing(self, name: str, duration: float, **kwargs: Any) -> None:
        """Report a duration, in seconds."""
        if name in self._histograms:
            self._histograms[name].observe(duration)
        else:
            self._add("summary", name, kwargs.get("tags"), duration)

    def observe(self, name: str, seconds: float) -> None:
        """Report a duration that is one of :data:`HISTOGRAMS`."""
        histogram = self._histograms.get(name)
        if histogram is not None:
            histogram.observe(seconds)

    def on_fetch(self, report: Callable[[IMetrics], None]) -> None:
        """Have gauges set whenever Prometheus comes."""
        self._reports.append(report)

    def bring_up_to_date(self) -> None:
        """Set the gauges of :meth:`on_fetch`; what fails leaves the others as they are."""
        for report in self._reports:
            try:
                report(self)
            except Exception:
                log.failure("Error while figures were gathered")

    def _add(self, kind: str, name: str, tags: Iterable[str] | None, value: float) -> None:
        try:
            labels = tuple(tags) if tags else ()
            # Some callers are in threads.
            with self._lock:
                family = self._families[kind].setdefault(name, {})
                figures = family.get(labels)
                if figures is None:
                    if len(family) >= MAX_SERIES:
                        labels = ()
                    figures = family.setdefault(labels, [0, 0.0])
                if kind == "gauge":
                    figures[0] = value
                elif kind == "counter":
                    figures[0] += value
                else:
                    figures[0] += 1
                    figures[1] += value
        except Exception as exc:
            # O1: a mistake in a tag must not cost a message.
            log.warn("Metric {name} not counted: {error}", name=name, error=repr(exc))

    def snapshot(self, kind: str) -> list[tuple[str, list[tuple[Labels, list[float]]]]]:
        """Return a copy of all figures of ``counter``, ``gauge`` or ``summary``."""
        with self._lock:
            return [
                (name, [(labels, list(figures)) for labels, figures in family.items()])
                for name, family in self._families[kind].items()
            ]


class _Collector:
    """Puts the figures into the package's words."""

    def __init__(self, metrics: PrometheusMetrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        """Yield all metrics; called by the registry."""
        self._metrics.bring_up_to_date()
        for name, series in self._metrics.snapshot("counter"):
            family: Metric = CounterMetricFamily(metric_name(name), name)
            for labels, figures in series:
                family.add_sample(f"{family.name}_total", as_labels(labels), figures[0])
            yield family
        for name, series in self._metrics.snapshot("gauge"):
            family = GaugeMetricFamily(metric_name(name), name)
            for labels, figures in series:
                family.add_sample(family.name, as_labels(labels), figures[0])
            yield family
        for name, series in self._metrics.snapshot("summary"):
            family = SummaryMetricFamily(f"{metric_name(name)}_seconds", name)
            for labels, figures in series:
                family.add_sample(f"{family.name}_count", as_labels(labels), figures[0])
                family.add_sample(f"{family.name}_sum", as_labels(labels), figures[1])
            yield family


def metric_name(name: str) -> str:
    """Return a name as Prometheus spells it, without a suffix."""
    return f"{NAMESPACE}_{BAD_CHARACTER.sub('_', name)}"


def as_labels(tags: Labels) -> dict[str, str]:
    """Turn ``key:value`` texts into labels."""
    split = (tag.partition(":") for tag in tags)
    return {BAD_CHARACTER.sub("_", key): value for key, _, value in split}
