"""Metrics as statsd datagrams, with the tags of DogStatsD (spec/observability 7.1).

::

    autopush.<name>:<value>|<type>[|#<tag>,<tag>...]

One datagram per call, at once: nothing is buffered, aggregated or sampled. The package's own
serialiser would end the line with a newline, replace the blanks in ``Mac OS X``, and add tags from
the environment; all that is left to it is the socket.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from typing import Any

from datadog.dogstatsd import DogStatsd
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

from autopush.metrics.interface import NAMESPACE, IMetrics

reactor: Any = _reactor

MAX_WAITING = 1000
"""Datagrams kept until the host's address is known."""

MAX_CACHED = 4096
"""Distinct names with tags whose text is remembered: ten times what the service has."""

UNSAFE_NAME = re.compile(r"[^\w.-]", re.ASCII)
UNSAFE_TAG = re.compile(r"[,|\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""What would end a tag, the list of tags, or the line."""

log = Logger(namespace="autopush.metrics.TwistedMetrics")


class StatsdClient(DogStatsd):
    """The package's socket, and the lines of 1.58.3.

    :param address: numeric; a name would be resolved in the first caller's turn
    """

    def __init__(self, address: str, port: int) -> None:
        super().__init__(
            host=address,
            port=port,
            disable_telemetry=True,
            disable_buffering=True,
            disable_aggregation=True,
            origin_detection_enabled=False,
            track_instance=False,
        )
        self.waiting: list[bytes] | None = []
        """What is sent as soon as there is a socket; None: there is one, or never will be."""
        self._texts: dict[tuple[str, str, tuple[str, ...]], tuple[bytes, bytes]] = {}

    def open(self) -> None:
        """Make the socket and send what has been waiting.

        :raises OSError: there is no way to the address
        """
        sock: Any = self.get_socket()
        waiting, self.waiting = self.waiting or [], None
        for line in waiting:
            with contextlib.suppress(OSError):
                sock.send(line)

    def give_up(self) -> None:
        """Drop what is waiting and all that follows."""
        self.waiting = None

    def send_metric(self, name: str, kind: str, value: float, tags: Any) -> None:
        """Send one metric.

        :param kind: ``c``, ``g`` or ``ms``
        """
        key = (name, kind, tuple(tags) if tags else ())
        texts = self._texts.get(key)
        if texts is None:
            texts = self._remember(key)
        if value.__class__ is int:
            line = b"%b%d%b" % (texts[0], value, texts[1])
        else:
            line = b"%b%b%b" % (texts[0], format(value, ".12g").encode(), texts[1])
        sock = self.socket
        if sock is not None:
            try:
                sock.send(line)
            except OSError:
                # Nobody listens, or the buffers are full: metrics get lost, that is all.
                pass
        elif self.waiting is not None and len(self.waiting) < MAX_WAITING:
            self.waiting.append(line)

    def _remember(self, key: tuple[str, str, tuple[str, ...]]) -> tuple[bytes, bytes]:
        name, kind, tags = key
        before = f"{NAMESPACE}.{UNSAFE_NAME.sub('_', name)}:"
        after = f"|{kind}"
        if tags:
            after += "|#" + ",".join(UNSAFE_TAG.sub("_", tag) for tag in tags)
        if len(self._texts) >= MAX_CACHED:
            self._texts.clear()
        texts = self._texts[key] = before.encode(), after.encode("utf-8", "replace")
        return texts


class TwistedMetrics(IMetrics):
    """Sends to statsd.

    :param statsd_host: name or address; resolved once, by :meth:`start`
    """

    def __init__(self, statsd_host: str = "localhost", statsd_port: int = 8125) -> None:
        self.host = statsd_host
        self.port = statsd_port
        self.client = StatsdClient(statsd_host, statsd_port)
        self._metric = self.client

    def start(self) -> None:
        """Find out where to send to, without waiting for it; up to :data:`MAX_WAITING` metrics
        are kept meanwhile."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            self.resolve().addCallbacks(self._found, self._lost)
        else:
            self._found(self.host)

    def stop(self) -> Deferred[Any]:
        """Close the socket."""
        self.client.give_up()
        self.client.close_socket()
        return succeed(None)

    def resolve(self) -> Deferred[str]:
        """Look the host up in a thread; fires with an address, IPv4 where there is a choice."""
        return deferToThread(first_address, self.host, self.port)

    def _found(self, address: str) -> None:
        if self.client.waiting is None:
            return  # stopped meanwhile
        self.client.host = address
        try:
            self.client.open()
        except (OSError, ValueError):
            self._lost(Failure())

    def _lost(self, failure: Failure) -> None:
        self.client.give_up()
        log.error(
            "No metrics are sent: can't reach {host}: {error}",
            host=self.host,
            error=str(failure.value),
        )

    def increment(self, name: str, count: int = 1, **kwargs: Any) -> None:
        """Add to a counter."""
        try:
            self.client.send_metric(name, "c", count, kwargs.get("tags"))
        except Exception as exc:
            self._refused(name, exc)

    def gauge(self, name: str, count: float, **kwargs: Any) -> None:
        """Set a gauge."""
        try:
            self.client.send_metric(name, "g", count, kwargs.get("tags"))
        except Exception as exc:
            self._refused(name, exc)

    def timing(self, name: str, duration: float, **kwargs: Any) -> None:
        """Report a duration in seconds; milliseconds are sent."""
        try:
            self.client.send_metric(name, "ms", duration * 1000, kwargs.get("tags"))
        except Exception as exc:
            self._refused(name, exc)

    def _refused(self, name: str, exc: Exception) -> None:
        # O1: a mistake in a tag must not cost a message.
        log.warn("Metric {name} not sent: {error}", name=name, error=repr(exc))


def first_address(host: str, port: int) -> str:
    """Resolve a name; blocks.

    :raises OSError: unknown, or no answer
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    found.sort(key=lambda info: info[0] != socket.AF_INET)
    return str(found[0][4][0])
