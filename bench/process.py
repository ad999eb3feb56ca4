"""The server as a process: start it, and read what it costs off /proc."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

TREE = Path(__file__).resolve().parents[1]
START_WITHIN = 180
"""Seconds."""

_kept: list[socket.socket] = []
"""Of the ports that were given out."""


def free_port() -> int:
    """A TCP port for a server of ours, and for nobody else while this process lives.

    The kernel gives a port that is bound to no other program, as the source of a connection or
    when asked for any. A server may bind it, too, and listen: both say ``SO_REUSEADDR``.
    """
    probe = socket.socket()
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.bind(("127.0.0.1", 0))
    _kept.append(probe)
    port: int = probe.getsockname()[1]
    return port


def cpu_of(process: psutil.Process) -> float:
    """Seconds of CPU a process has used, all threads, user and system. From the scheduler, in ns,
    where Linux says so (``cpu_times`` counts in ticks of 10 ms)."""
    total = 0
    try:
        for task in Path(f"/proc/{process.pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    except OSError:
        times = process.cpu_times()
        return float(times.user + times.system)
    return total / 1e9


def settle(cpu: Callable[[], float]) -> None:
    """Wait until what has used so many seconds of CPU uses no more."""
    last, quiet = cpu(), 0
    while quiet < 3:
        time.sleep(0.1)
        now = cpu()
        quiet = quiet + 1 if now - last < 0.005 else 0
        last = now


class MeasuredProcess:
    """A Python program as a process.

    :param python: interpreter
    :param words: what follows it on the command line
    :param ready: text it prints when it is ready; None: :attr:`address` accepts connections then
    :param port: where it will listen
    :param core: CPU to keep it on
    :param profile: file for a cProfile of its whole life
    :param env: more environment
    :param tree: checkout whose package it runs
    """

    def __init__(
        self,
        python: str,
        words: list[str],
        ready: bytes | None,
        port: int,
        core: int | None = None,
        profile: str | None = None,
        env: dict[str, str] | None = None,
        tree: str | Path = TREE,
    ) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="autopush-bench-"))
        self.address: tuple[str, int] = ("127.0.0.1", port)
        self._ready = ready
        before = ["-m", "cProfile", "-o", os.path.abspath(profile)] if profile else []
        self.command = [python, *before, *words]
        self._log = (self.home / "log").open("wb")
        self._core = core
        base = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.path.abspath(tree),
            "HOME": str(self.home),
        }
        self._env = {**base, **(env or {})}
        # A benchmark that is told to end does so as after Ctrl-C, and ends what it has started.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        self._start()

    def _start(self) -> None:
        self._popen = self.popen(
            self.command,
            cwd=self.home,
            env=self._env,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self.process = psutil.Process(self._popen.pid)
        self._wait()
        if self._core is not None:
            # Threads of the pool that exist already, too.
            for task in Path(f"/proc/{self.process.pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), [self._core])

    def restart(self) -> None:
        """Stop it, and start it again with what it has on disk."""
        self._popen.send_signal(signal.SIGTERM)
        self._popen.wait(60)
        self._log.truncate(0)
        self._start()

    def popen(self, command: list[str], **kwargs: Any) -> subprocess.Popen[bytes]:
        """Start it."""
        return subprocess.Popen(command, **kwargs)

    def _is_ready(self) -> bool:
        if self._ready is not None:
            return self._ready in self.log
        with socket.socket() as probe:
            return probe.connect_ex(self.address) == 0

    def _wait(self) -> None:
        end = time.monotonic() + START_WITHIN
        while not self._is_ready():
            if self._popen.poll() is not None or time.monotonic() > end:
                sys.exit(f"the server did not start:\n{self.log.decode()}")
            time.sleep(0.05)

    @property
    def log(self) -> bytes:
        """What it printed."""
        return (self.home / "log").read_bytes()

    @property
    def url(self) -> str:
        """Origin of the HTTP API."""
        return "http://{}:{}".format(*self.address)

    def cpu(self) -> float:
        """Seconds of CPU it has used."""
        return cpu_of(self.process)

    def num_fds(self) -> int:
        """Open descriptors."""
        return int(self.process.num_fds())

    @property
    def endpoint(self) -> tuple[str, int]:
        """Where endpoint URLs lead."""
        return self.address

    def settle(self) -> None:
        """Wait until it is idle."""
        settle(self.cpu)

    def memory(self) -> tuple[int, int]:
        """RSS and PSS, bytes."""
        full = self.process.memory_full_info()
        return full.rss, full.pss

    def connections_gone(self, descriptors: int) -> None:
        """Wait until no more than so many descriptors are open."""
        end = time.monotonic() + START_WITHIN
        while self.num_fds() > descriptors:
            if time.monotonic() > end:
                sys.exit("the server keeps closed connections")
            time.sleep(0.05)

    def close(self) -> None:
        """Stop it and remove its files."""
        self._popen.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(60)
        self._popen.kill()
        self._log.close()
        shutil.rmtree(self.home, ignore_errors=True)


class ServerProcess(MeasuredProcess):
    """``python -m autopush`` on a free port with a data directory of its own.

    :param python: interpreter
    :param options: further options of the command
    :param core: CPU to keep it on
    :param profile: file for a cProfile of its whole life
    :param tree: checkout whose package it runs
    """

    def __init__(
        self,
        python: str,
        options: list[str],
        core: int | None,
        profile: str | None,
        tree: str | Path = TREE,
    ) -> None:
        port = free_port()
        data = tempfile.mkdtemp(prefix="autopush-bench-")
        self._data = data
        words = ["-m", "autopush", "--data_dir", data, "--port", str(port)]
        words += [
            "--max_stored",
            "0",
            "--max_stored_bytes",
            "0",
            "--rate_subscription",
            "0",
            "--rate_sender",
            "0",
            *options,
        ]
        super().__init__(python, words, b"autopush is ready", port, core, profile, tree=tree)

    def close(self) -> None:
        super().close()
        shutil.rmtree(self._data, ignore_errors=True)
