"""Counters, gauges and timings, and where they go (spec/observability 7 and 8)."""

from importlib import import_module
from typing import Any

from autopush.metrics.destinations import BACK_ENDS, from_config, registry_of
from autopush.metrics.interface import (
    NAMESPACE,
    IMetrics,
    SeveralMetrics,
    SinkMetrics,
    make_tags,
    periodic_reporter,
)

__all__ = [
    "NAMESPACE",
    "IMetrics",
    "SeveralMetrics",
    "SinkMetrics",
    "from_config",
    "make_tags",
    "periodic_reporter",
    "registry_of",
]


def __getattr__(name: str) -> Any:
    if name in BACK_ENDS:
        return getattr(import_module(BACK_ENDS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
