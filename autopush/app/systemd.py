"""What a service manager is told: ready, reloading, stopping, alive.

The protocol of ``sd_notify(3)`` is one datagram of ``NAME=value`` lines to the socket named by
``NOTIFY_SOCKET``. Without that variable nobody listens, and nothing is sent.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from autopush.app.process import Timer

log = Logger()

PINGS_PER_PERIOD = 3
"""How often per watchdog period we say that we live; ``sd_watchdog_enabled(3)`` advises two, one
more leaves room for one that is late."""


class ServiceManager:
    """Whoever started us, if it wants to know.

    :param environ: where ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` are
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self.address = notify_address(environ.get("NOTIFY_SOCKET", ""))
        self.watchdog_period = _watchdog_period(environ) if self.address else None
        """Seconds within which it wants to hear that we live; None: it doesn't."""

    def ready(self, status: str) -> None:
        """Everything listens, or is reloaded.

        :param status: one line for ``systemctl status``
        """
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload begins (``Type=notify-reload`` wants the time as well)."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={microseconds}")

    def stopping(self) -> None:
        """The orderly shutdown begins."""
        self._send("STOPPING=1", "STATUS=Shutting down")

    def alive(self) -> None:
        """Put the watchdog off for another period."""
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if self.address is None:
            return
        # Never worth an error, nor waiting: it only tells what also happens untold.
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
        ):
            sock.setblocking(False)
            sock.sendto("\n".join(lines).encode(), self.address)


def notify_address(text: str) -> str | None:
    """Return the address that ``NOTIFY_SOCKET`` means: a path, or ``@name`` (abstract).

    Other kinds (``vsock:``) are for guests of virtual machines.
    """
    if text.startswith("@") and len(text) > 1:
        return f"\0{text[1:]}"
    return text if text.startswith("/") else None


def _watchdog_period(environ: Mapping[str, str]) -> float | None:
    microseconds, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not microseconds.isdecimal() or not int(microseconds):
        return None
    # The variables are inherited: a parent's watchdog is not ours to calm.
    return int(microseconds) / 1e6 if pid in ("", str(os.getpid())) else None


class Watchdog(Timer):
    """Says that we live, as long as event loop and store do.

    The timer proves the loop. Before each ping the store must have done something; how it went
    doesn't matter, since no restart cures an outage of its database.

    :param manager: has a ``watchdog_period``
    :param probe: fires when the store has done something; failures count as well
    """

    def __init__(self, manager: ServiceManager, probe: Callable[[], Deferred[Any]]) -> None:
        assert manager.watchdog_period is not None
        self._manager = manager
        self._probe = probe
        self._waiting = False
        super().__init__(manager.watchdog_period / PINGS_PER_PERIOD, self.check)

    def check(self) -> None:
        """Ask the store, unless it still owes the last answer."""
        if self._waiting:
            log.warn("The store doesn't answer: no sign of life for the service manager")
            return
        self._waiting = True
        try:
            asked = self._probe()
        except Exception:
            self._waiting = False
            log.failure("Error in timer")
            return
        asked.addBoth(self._answered)

    def _answered(self, result: Any) -> None:
        self._waiting = False
        self._manager.alive()
