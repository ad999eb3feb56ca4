"""The destinations the configuration asks for (spec/observability 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopush.metrics.interface import IMetrics, OwnGauges, SeveralMetrics, SinkMetrics

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from autopush.config import AutopushConfig

BACK_ENDS = {
    "TwistedMetrics": "autopush.metrics.statsd",
    "DatadogMetrics": "autopush.metrics.datadog",
    "PrometheusMetrics": "autopush.metrics.prometheus",
}
"""Documented names that are fetched when they are asked for: their libraries take 7 MB, which a
process that sends no metrics can do without."""


def from_config(conf: AutopushConfig) -> IMetrics:
    """Return the destination the configuration asks for (spec/observability 7): Datadog, else
    statsd, else none. Prometheus comes in addition. Gauges that a worker sends have its number.
    """
    wanted: list[IMetrics] = []
    if conf.datadog_api_key:
        from autopush.logging import find_host_name
        from autopush.metrics.datadog import DatadogMetrics

        # No AMI id at all means that nothing is to be asked of EC2.
        host = find_host_name() if conf.ami_id is not None else str(conf.hostname)
        wanted.append(
            DatadogMetrics(
                api_key=conf.datadog_api_key,
                app_key=conf.datadog_app_key,
                hostname=host,
                flush_interval=conf.datadog_flush_interval or 10,
            )
        )
    elif conf.statsd_host:
        from autopush.metrics.statsd import TwistedMetrics

        wanted.append(TwistedMetrics(conf.statsd_host, conf.statsd_port))
    if conf.worker is not None:
        wanted = [OwnGauges(one, [f"worker:{conf.worker}"]) for one in wanted]
    if conf.prometheus_port:
        from autopush.metrics.prometheus import PrometheusMetrics

        wanted.append(PrometheusMetrics())
    if len(wanted) > 1:
        return SeveralMetrics(*wanted)
    return wanted[0] if wanted else SinkMetrics()


def registry_of(metrics: IMetrics) -> CollectorRegistry:
    """Return what Prometheus is shown.

    :raises ValueError: the metrics are not kept for it
    """
    for one in getattr(metrics, "destinations", (metrics,)):
        registry: CollectorRegistry | None = getattr(one, "registry", None)
        if registry is not None:
            return registry
    raise ValueError("no metrics for Prometheus")
