"""A running process and those who run it: signals, the service manager, certificates.

======== =====================================================================================
SIGHUP   open the log file again, read the TLS files again (spec/configuration 12, C21); where the
         terminal we were started from has gone, shut down instead
SIGTERM  shut down in order; a second one ends the process at once
SIGINT   as SIGTERM
======== =====================================================================================

The last two are for the reactor and :mod:`autopush.app.process`.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

from autopush.app.process import ignore_signals, raise_file_limit
from autopush.app.systemd import ServiceManager, Watchdog
from autopush.ssl import AutopushSSLContextFactory, TLSFileError

log = Logger()

SPARE_FILES = 200
"""Open files beside the connections of user agents: database, logs, senders, other nodes."""

FEW_FILES = 4096
"""With less than this a few thousand user agents can't connect."""


class Lifecycle:
    """See the module.

    :param reactor: with ``callFromThread`` and ``stop``
    :param reopen_logs: called on SIGHUP; raises OSError
    :param manager: who started us; default: whom the environment names
    """

    def __init__(
        self,
        reactor: Any,
        reopen_logs: Callable[[], Any],
        manager: ServiceManager | None = None,
    ) -> None:
        self.tls: list[AutopushSSLContextFactory] = []
        self.manager = manager or ServiceManager()
        self._reactor = reactor
        self._reopen_logs = reopen_logs
        self._terminal = False
        self._file_limit = 0
        self._status = "Starting"
        self._ready = False

    # ---- start

    def add_tls(self, ssl_cf: AutopushSSLContextFactory | None) -> None:
        """Reload a listener's certificate with all others."""
        if ssl_cf is not None and ssl_cf not in self.tls:
            self.tls.append(ssl_cf)

    def prepare(self) -> None:
        """Before the event loop runs: take SIGHUP, raise the limit of open files."""
        with contextlib.suppress(ValueError):  # not in the main thread: a test
            # One who ignores it (nohup) means to outlive the terminal.
            ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            self._terminal = not ignored and has_terminal()
            signal.signal(signal.SIGHUP, self._on_signal)
        self._file_limit = raise_file_limit()

    def watchdog(self, probe: Callable[[], Deferred[Any]]) -> Watchdog | None:
        """The service that keeps the service manager's watchdog quiet, if there is one."""
        return Watchdog(self.manager, probe) if self.manager.watchdog_period else None

    def started(self, status: str, max_connections: int | None) -> None:
        """Everything listens.

        :param status: one line for the service manager
        :param max_connections: user agents that may connect, as configured; 0 or None: any number
        """
        report_file_limit(self._file_limit, max_connections)
        self._status, self._ready = status, True
        self.manager.ready(status)

    def stopping(self) -> None:
        """The shutdown begins."""
        self._ready = False
        self.manager.stopping()

    # ---- SIGHUP

    def _on_signal(self, number: int, frame: Any) -> None:
        self._reactor.callFromThread(self.hang_up)

    def hang_up(self) -> None:
        """Do what SIGHUP asks for."""
        if self._terminal and not has_terminal():
            log.info("The terminal was closed, shutting down.")
            ignore_signals()
            with contextlib.suppress(ReactorNotRunning):  # a signal was first
                self._reactor.stop()
            return
        self.reload()

    def reload(self) -> None:
        """Open the log file and read the TLS files again; what can't be used is left as it was."""
        if self._ready:
            self.manager.reloading()
        try:
            self._reopen_logs()
        except OSError as exc:
            log.error("Log file not reopened: {error}", error=f"{exc.filename}: {exc.strerror}")
        log.info("Received SIGHUP, reloading.")
        for ssl_cf in self.tls:
            reload_certificate(ssl_cf)
        if self._ready:
            self.manager.ready(self._status)


def reload_certificate(ssl_cf: AutopushSSLContextFactory) -> None:
    """Use a listener's new certificate for new connections; if it is unusable, the old one."""
    file = ssl_cf.certificateFileName
    try:
        ssl_cf.reload()
    except TLSFileError as exc:
        log.error("TLS certificate not reloaded: {error}", error=str(exc), file=file)
        return
    until = ssl_cf.certificate.not_valid_after_utc.isoformat()
    log.info("Reloaded TLS certificate {file}, valid until {until}", file=file, until=until)


def has_terminal() -> bool:
    """Whether the process has a controlling terminal that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def report_file_limit(limit: int, max_connections: int | None) -> None:
    """Log how many files may be open, and whether that is too few."""
    wanted = max_connections + SPARE_FILES if max_connections else FEW_FILES
    if limit < wanted:
        log.warn(
            "Only {limit} files and connections may be open, {wanted} are wanted:"
            " raise the hard limit (ulimit -Hn, LimitNOFILE)",
            limit=limit,
            wanted=wanted,
        )
    else:
        log.info("{limit} files and connections may be open", limit=limit)
