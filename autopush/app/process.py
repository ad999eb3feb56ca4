"""What the applications need from the process and the event loop around them."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.application.internet import TimerService
from twisted.application.service import Service
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    FirstError,
    TimeoutError,
    maybeDeferred,
    succeed,
)
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory

from autopush.config import UNIX, bracketed
from autopush.net.eager import listen_tcp, listen_unix

BACKLOG = 1024
"""Connections the kernel keeps for us until they are accepted: after a restart all user agents
come back at once."""

GC_THRESHOLDS = (10_000, 20, 20)
"""For ``gc.set_threshold``. Python's own 700 new objects are made by some ten notifications."""

END_SIGNALS = (signal.SIGTERM, signal.SIGINT)

log = Logger()


class Listener(Service):
    """One listening port.

    :param bind: starts to listen; raises CannotListenError
    :param option: names the port
    """

    def __init__(self, bind: Callable[[], IListeningPort], option: str = "port") -> None:
        self._bind = bind
        self._option = option
        self.port: Any = None

    def startService(self) -> None:
        """Bind the port.

        :raises CannotListenError: it is in use or not ours to use
        """
        super().startService()
        self.port = self._bind()
        log.info("Listening on {address} ({option})", address=self.address, option=self._option)

    def stopService(self) -> Deferred[None]:
        """Accept nothing more; fires when the port is closed."""
        super().stopService()
        port, self.port = self.port, None
        return succeed(None) if port is None else maybeDeferred(port.stopListening)

    @property
    def number(self) -> int | None:
        """The port's number; None for a Unix socket or before the start."""
        return getattr(self.port.getHost(), "port", None) if self.port is not None else None

    @property
    def address(self) -> str | None:
        """``address:port`` or ``unix:<path>``; None before the start."""
        if self.port is None:
            return None
        bound = self.port.getHost()
        if hasattr(bound, "port"):
            return f"{bracketed(bound.host)}:{bound.port}"
        return f"{UNIX}{os.fsdecode(bound.name)}"


class Timer(TimerService):
    """A timer that can be stopped although it was never started, as after a start that failed."""

    def stopService(self) -> Deferred[None] | None:
        """Call no more; fires when the call under way is over."""
        return super().stopService() if self.running else None


def bind(reactor: Any, host: str, port: int, factory: Any, ssl_cf: Any = None) -> IListeningPort:
    """Listen with or without TLS.

    :param host: address, or ``unix:<path>`` (then ``port`` means nothing)
    :raises CannotListenError: in use or not ours to use
    """
    if host.startswith(UNIX):
        path = host.removeprefix(UNIX)
        if ssl_cf is not None:
            factory = TLSMemoryBIOFactory(ssl_cf, False, factory)
        listening: IListeningPort = listen_unix(reactor, path, factory, BACKLOG)
    else:
        listening = listen_tcp(reactor, port, factory, BACKLOG, host, ssl_cf)
    return listening


def own_port(port: int | None, worker: int) -> int | None:
    """Return a worker's number of a port that each needs for itself: they follow one another.

    :param port: of the first; None and 0 stay what they are
    :param worker: its number, from 1
    """
    return port + worker - 1 if port else port


def surviving(
    function: Callable[..., Any], *args: Any, **kwargs: Any
) -> Callable[[], Deferred[Any]]:
    """Return a call of ``function`` as a periodic job whose failures are logged and forgotten.

    A timer that sees an exception would stop for ever (spec/configuration C16).
    """

    def job() -> Deferred[Any]:
        done = maybeDeferred(function, *args, **kwargs)
        return done.addErrback(lambda failure: log.failure("Error in timer", failure=failure))

    return job


async def within(seconds: float, reactor: Any, work: Awaitable[Any], what: str) -> None:
    """Wait for one step of the shutdown, but not longer than this; failures are logged."""
    done = work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)  # type: ignore[arg-type]
    try:
        await done.addTimeout(max(seconds, 0.01), reactor)
    except (TimeoutError, CancelledError):
        log.warn("Shutdown goes on without waiting for: {what}", what=what)
    except FirstError as error:
        # What gatherResults makes of the time-out's cancellation.
        if error.subFailure.check(CancelledError):
            log.warn("Shutdown goes on without waiting for: {what}", what=what)
        else:
            log.failure("Error while shutting down", failure=error.subFailure)
    except Exception:
        log.failure("Error while shutting down")


def use_monotonic_clock(reactor: Any) -> None:
    """Let delays be measured by a clock that nobody sets. Twisted uses the wall clock: when that
    is set back, all timers stand still, and when it is set forth, all time-outs strike.

    To be called before the first timer is set.
    """
    reactor.seconds = time.monotonic


def raise_file_limit() -> int:
    """Allow as many open files, and so connections, as we may allow ourselves.

    :returns: how many that is
    """
    with contextlib.suppress(ValueError, OSError):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def freeze_garbage() -> None:
    """Exempt everything that exists now from garbage collection: it stays until the end.

    What comes later rarely is part of a cycle, so it need not be searched for them that often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def one_signal_is_enough() -> None:
    """From now on, while the event loop runs, the first signal to end is heard, and no further one
    until the shutdown begins: Twisted would log an error."""
    for number in END_SIGNALS:
        stop = signal.getsignal(number)
        if not callable(stop):
            continue  # ignored, as by a shell that has put us into the background

        def heard(number: int, frame: Any, stop: Callable[..., Any] = stop) -> None:
            ignore_signals()
            stop(number, frame)

        with contextlib.suppress(ValueError):  # not in the main thread: a test
            signal.signal(number, heard)


def ignore_signals() -> None:
    """The shutdown begins in a moment: what asks for it says nothing new."""

    def nothing(number: int, frame: Any) -> None:
        """Not SIG_IGN: Python tells of signals that came before they were ignored."""

    for number in END_SIGNALS:
        with contextlib.suppress(ValueError):
            signal.signal(number, nothing)


def second_signal_exits() -> None:
    """From now on, while shutting down, a signal ends the process at once."""

    def leave(number: int, frame: Any) -> None:
        os._exit(1)

    for number in END_SIGNALS:
        with contextlib.suppress(ValueError):  # not in the main thread: a test
            signal.signal(number, leave)
