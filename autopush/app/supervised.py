"""A service that another program started: tells it where it is, and ends with it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from autopush.types import JSONDict

log = Logger()

LOOK_INTERVAL = 0.5
"""Seconds between two looks at the parent, where the kernel doesn't tell of its end."""


class Readiness(NamedTuple):
    """What there is to say when the service is ready.

    :ivar text: for a log or a pipe
    :ivar private: the same with the access key, for a terminal: no log keeps it
    :ivar facts: for the program that started it
    """

    text: str
    private: str
    facts: JSONDict


def say_ready(readiness: Readiness, path: str | None) -> None:
    """Say that the service is ready, to the program that waits for it at ``path`` first: who sees
    the lines finds the file.

    :raises OSError: it can't be written
    """
    if path is not None:
        write_ready(path, readiness.facts)
    if sys.stdout.isatty():
        print(readiness.private, flush=True)
    else:
        # A pipe or a file gets the log lines and nothing else.
        stream = sys.stderr
        print(readiness.private if stream.isatty() else readiness.text, file=stream, flush=True)


def write_ready(path: str, facts: JSONDict) -> None:
    """Say that the service is ready: one line of JSON.

    A file appears when it is complete; a pipe or another thing that exists is written to.

    :raises OSError: it can't be written
    """
    target = Path(path)
    text = json.dumps(facts) + "\n"
    if target.exists() and not target.is_file():
        target.write_text(text, "utf-8")
        return
    draft = target.with_name(f"{target.name}.new")
    # It may hold the token of the control API.
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    draft.replace(target)


class ProcessEnd:
    """Waits for the end of a process.

    :param fd: pidfd of it
    """

    def __init__(self, reactor: Any, fd: int) -> None:
        self._reactor = reactor
        self._fd = fd

    def fileno(self) -> int:
        """For the reactor."""
        return self._fd

    def logPrefix(self) -> str:
        """For the reactor's log."""
        return "parent"

    def doRead(self) -> None:
        """It has ended."""
        self._reactor.removeReader(self)
        self.connectionLost(None)
        parent_gone(self._reactor)

    def connectionLost(self, reason: object) -> None:
        """Nobody waits any more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def end_with(reactor: Any, pid: int) -> None:
    """Stop the reactor when this process ends, however it does.

    :param pid: to be called before the reactor runs; if there is none, it stops at once
    """
    if hasattr(os, "pidfd_open"):
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            reactor.callWhenRunning(parent_gone, reactor)
            return
        except OSError:  # not in this kernel, or sandbox
            pass
        else:
            reactor.addReader(ProcessEnd(reactor, fd))
            return
    watch = LoopingCall(_look, reactor, pid)
    watch.clock = reactor
    reactor.callWhenRunning(watch.start, LOOK_INTERVAL)


def _look(reactor: Any, pid: int) -> None:
    if not runs(pid):
        parent_gone(reactor)


def runs(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def parent_gone(reactor: Any) -> None:
    """End the service."""
    log.info("The process that this one belongs to has ended, shutting down.")
    if reactor.running:
        reactor.stop()
