"""Metrics over Datadog's HTTP API (spec/observability 7.2).

The package adds the points up and sends them every few seconds, from a thread of its own. Unlike
statsd's, timings are in seconds (quirk O2).
"""

from __future__ import annotations

import logging
import threading
import time
from importlib.metadata import version
from typing import Any

import datadog
from datadog.threadstats import ThreadStats
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from autopush.libraries import known
from autopush.metrics.interface import NAMESPACE, IMetrics

reactor: Any = _reactor

TIMEOUT = 5
"""Seconds one request to Datadog may take."""

COMPLAIN_EVERY = 300.0
"""Seconds between two log lines about requests that fail."""

log = Logger(namespace="autopush.metrics.DatadogMetrics")


class Complaints(logging.Handler):
    """Tells in our log that Datadog doesn't take the metrics.

    The package only writes to Python's ``logging``, and would do so with every request.
    """

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._next = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Log one of many records."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + COMPLAIN_EVERY
            log.warn("Metrics can't be sent to Datadog: {error}", error=record.getMessage()[:500])


complaints = Complaints()


class DatadogMetrics(IMetrics):
    """Sends to Datadog.

    :param hostname: the host of all points
    :param flush_interval: seconds between requests, and what one point stands for
    :param namespace: first part of all names
    """

    def __init__(
        self,
        api_key: str,
        app_key: str | None,
        hostname: str,
        flush_interval: int = 10,
        namespace: str = NAMESPACE,
    ) -> None:
        datadog.initialize(
            api_key=api_key,
            app_key=app_key,
            host_name=hostname,
            hostname_from_config=False,
            timeout=TIMEOUT,
            max_retries=0,
        )
        for name in ("datadog.api", "datadog.threadstats"):
            logging.getLogger(name).addHandler(complaints)
        self._client = ThreadStats()
        self._started = self._ended = False
        self._host = hostname
        self._flush_interval = flush_interval
        self._namespace = namespace

    def start(self) -> None:
        """Start the thread."""
        self._started = True
        self._client.start(
            flush_interval=self._flush_interval, roll_up_interval=self._flush_interval
        )

    def stop(self) -> Deferred[Any]:
        """Send the rest, in a thread that keeps nobody from leaving."""
        client = self._client
        if self._ended or not self._started:
            return succeed(None)
        self._ended = True
        client.stop()
        done: Deferred[Any] = Deferred()

        def flush() -> None:
            client.flush(float("inf"))
            if known("datadog", version("datadog")):
                # The package would try again when the interpreter exits.
                client._disabled = True
            reactor.callFromThread(done.callback, None)

        threading.Thread(target=flush, name="datadog", daemon=True).start()
        return done

    def increment(self, name: str, count: int = 1, **kwargs: Any) -> None:
        """Add to a counter."""
        self._call(self._client.increment, name, count, kwargs)

    def gauge(self, name: str, count: float, **kwargs: Any) -> None:
        """Set a gauge."""
        self._call(self._client.gauge, name, count, kwargs)

    def timing(self, name: str, duration: float, **kwargs: Any) -> None:
        """Report a duration, in seconds."""
        self._call(self._client.timing, name, duration, kwargs)

    def _call(self, method: Any, name: str, value: float, kwargs: dict[str, Any]) -> None:
        if self._ended:
            return
        try:
            method(
                f"{self._namespace}.{name}", value=value, host=self._host, tags=kwargs.get("tags")
            )
        except Exception as exc:
            # O1: a mistake in a tag must not cost a message.
            log.warn("Metric {name} not sent: {error}", name=name, error=repr(exc))
