"""The figures of several processes as those of one service.

Each process dumps what its registry holds as plain data (:func:`dump`); :class:`Merged` is a
collector that adds them up. Counters, histograms and summaries are sums, and what a process had
counted before it ended stays in them, so that no sum ever goes back. Gauges are sums of those that
run, but for :data:`LEAST` and :data:`MOST`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

LEAST = frozenset(
    {"autopush_store_up", "autopush_certificate_days_left", "process_start_time_seconds"}
)
"""Gauges of which the least is that of the service."""

MOST = frozenset({"autopush_build_info", "process_max_fds", "python_info"})
"""Gauges which all processes have in common."""

CREATED = "_created"
"""Samples that tell since when there is a counter."""

Family = list[Any]
"""Name, kind, help text, and samples: name, labels as a list of pairs, value."""

Key = tuple[str, tuple[tuple[str, str], ...]]


def dump(registry: CollectorRegistry) -> list[Family]:
    """Return what a registry holds as lists, texts and numbers."""
    return [
        [
            metric.name,
            metric.type,
            metric.documentation,
            [[s.name, sorted(s.labels.items()), s.value] for s in metric.samples],
        ]
        for metric in registry.collect()
    ]


class Merged:
    """The sum of the figures of some processes, for a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self._running: dict[int, list[Family]] = {}
        self._ended: dict[str, Family] = {}

    def update(self, parts: Mapping[int, list[Family] | None]) -> None:
        """Take the figures of now.

        :param parts: by the number of the process; None: it doesn't answer, what it had counted
            when it last did is all that is known of it
        """
        for number, families in parts.items():
            if families is not None:
                self._running[number] = families
            elif number in self._running:
                self._running[number] = [f for f in self._running[number] if f[1] != "gauge"]

    def ended(self, number: int) -> None:
        """A process has ended; what it had counted stays."""
        counted = [f for f in self._running.pop(number, ()) if f[1] != "gauge"]
        self._ended = _merge([list(self._ended.values()), counted])

    def collect(self) -> Iterable[Metric]:
        """Yield the sums; called by the registry."""
        for name, kind, text, samples in _merge(
            [list(self._ended.values()), *self._running.values()]
        ).values():
            metric = Metric(name, text, kind)
            for sample, labels, value in samples:
                metric.add_sample(sample, dict(labels), value)
            yield metric

    def describe(self) -> Iterable[Metric]:
        """Nothing: what there is depends on the processes."""
        return ()


def _merge(parts: Iterable[Iterable[Family]]) -> dict[str, Family]:
    heads: dict[str, tuple[str, str]] = {}
    sums: dict[str, dict[Key, float]] = {}
    for part in parts:
        for name, kind, text, samples in part:
            heads.setdefault(name, (kind, text))
            family = sums.setdefault(name, {})
            for sample, labels, value in samples:
                key = (sample, tuple(map(tuple, labels)))
                family[key] = _both(sample, family[key], value) if key in family else value
    return {
        name: [name, *heads[name], [[sample, labels, v] for (sample, labels), v in family.items()]]
        for name, family in sums.items()
    }


def _both(name: str, one: float, other: float) -> float:
    if name in LEAST or name.endswith(CREATED):
        return min(one, other)
    return max(one, other) if name in MOST else one + other
