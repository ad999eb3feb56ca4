"""Starts the real command as a process and looks at it from outside."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from autopush.tests import TREE

"""Where the package is: the processes run elsewhere, so that they find no configuration files."""

READY = "autopush is ready"
START_WITHIN = 180
"""Seconds; a start takes one, unless the machine is busy."""

STOP_WITHIN = 60
"""Seconds after which a test gives up on an exit. What the service promises is tested apart."""

UNEXPECTED = ("Traceback", "Unexpected error", "Unhandled")
"""In a line of a log: something happened that nobody had thought of."""

PORTS = range(15_000, 32_000)
"""Below the ports which the kernel gives to outgoing connections, so nobody takes a free one
between our look and the start of the server."""


def _my_ports() -> Iterator[int]:
    """Those of this worker, in any order, each once before any comes again. They are neighbours:
    some services take the ports that follow, too."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    share = len(PORTS) // workers
    mine = list(PORTS[worker * share : (worker + 1) * share])
    random.SystemRandom().shuffle(mine)
    return itertools.cycle(mine)


_ports = _my_ports()


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port nobody listens on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        port = next(_ports)
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((host, port))
                return port


def environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a process that shall see no options but those of its command line."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": str(TREE),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        **(extra or {}),
    }


class StartFailed(Exception):
    """The process ended instead of getting ready; the text is what it printed."""


class Server:
    """One ``python -m autopush`` with a data directory and ports that survive restarts.

    :param home: an empty directory: the process runs there, and ``data`` in it is its data
        directory
    :param options: further options of the command
    :param separate: give the HTTP API its own port
    :param router: open the internal API
    :param host: address to listen on; also ``unix:<path>``
    :param tls: key file and certificate file
    :param prefix: command that runs the command
    """

    def __init__(
        self,
        home: Path,
        *options: str,
        separate: bool = False,
        router: bool = False,
        host: str = "127.0.0.1",
        tls: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        data_dir: Path | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        self.home = home
        self.data_dir = data_dir or home / "data"
        self.options = list(options)
        self.host = host
        self.tls = tls
        self.env = env
        self.prefix = prefix
        unix = host.startswith("unix:")
        probe = "127.0.0.1" if unix else host
        self.port = 0 if unix else free_port(probe)
        self.endpoint_port = free_port(probe) if separate else None
        self.router_port = free_port(probe) if router else None
        self.process: subprocess.Popen[bytes] | None = None
        self.lines: list[str] = []
        self._ready = threading.Event()
        self._reader: threading.Thread | None = None

    # ---- addresses

    @property
    def endpoint_url(self) -> str:
        """Origin of the HTTP API, as the server composes it."""
        scheme = "https" if self.tls else "http"
        return f"{scheme}://{self._netloc(self.endpoint_port or self.port)}"

    @property
    def ws_url(self) -> str:
        """Where user agents connect."""
        return f"{'wss' if self.tls else 'ws'}://{self._netloc(self.port)}/"

    @property
    def router_url(self) -> str:
        """Origin of the internal API."""
        return f"http://{self._netloc(self.router_port or 0)}"

    def _netloc(self, port: int) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{port}"

    # ---- the process

    @property
    def command(self) -> list[str]:
        """The command line."""
        words = [*self.prefix, sys.executable, "-m", "autopush", "--data_dir", str(self.data_dir)]
        words += ["--host", self.host, "--port", str(self.port)]
        if self.endpoint_port is not None:
            words += ["--endpoint_port", str(self.endpoint_port)]
        if self.router_port is not None:
            words += ["--router_port", str(self.router_port)]
        if self.tls is not None:
            words += ["--ssl_key", self.tls[0], "--ssl_cert", self.tls[1]]
        return words + self.options

    def spawn(self) -> None:
        """Start the process without waiting for it."""
        assert self.process is None, "it runs"
        self._ready = threading.Event()
        self.process = subprocess.Popen(
            self.command,
            cwd=self.home,
            env=environment(self.home, self.env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._reader = threading.Thread(
            target=self._read, args=(self.process, self._ready), daemon=True
        )
        self._reader.start()

    def _read(self, process: subprocess.Popen[bytes], ready: threading.Event) -> None:
        assert process.stdout is not None
        with process.stdout as stream:
            for raw in stream:
                line = raw.decode("utf-8", "replace").rstrip("\n")
                self.lines.append(line)
                if line.startswith(READY):
                    ready.set()
        ready.set()

    def start(self) -> Server:
        """Start the process and wait until it serves.

        :raises StartFailed: it ended, or took too long
        """
        self.spawn()
        in_time = self._ready.wait(START_WITHIN)
        assert self.process is not None
        if not in_time:
            self.kill()
            raise StartFailed(f"not ready after {START_WITHIN} s\n{self.output}")
        if not any(line.startswith(READY) for line in self.lines):
            status = self.wait()
            raise StartFailed(f"exit status {status}\n{self.output}")
        return self

    def wait(self, timeout: float = STOP_WITHIN) -> int:
        """Wait for the end of the process; returns its status (minus the signal's number)."""
        assert self.process is not None and self._reader is not None
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        self._reader.join()
        self.process = None
        return status

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask the process to end; returns its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.wait()

    def kill(self) -> None:
        """End the process without giving it a chance to save anything."""
        assert self.process is not None
        self.process.kill()
        self.wait()

    def restart(self) -> Server:
        """Stop in order and start again: same directory, same ports."""
        assert self.stop() == 0, self.output
        self.lines.clear()
        return self.start()

    def close(self) -> None:
        """Make sure that the process has gone."""
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.stop()

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    # ---- looking at it

    @property
    def output(self) -> str:
        """All it printed since the last start, both streams."""
        return "\n".join(self.lines)

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None

    @property
    def rss(self) -> int:
        """Resident memory, bytes."""
        assert self.process is not None
        return psutil.Process(self.process.pid).memory_info().rss

    @property
    def descriptors(self) -> int:
        """Open file descriptors."""
        assert self.process is not None
        return psutil.Process(self.process.pid).num_fds()

    @property
    def secrets(self) -> Iterator[str]:
        """Key material in the data directory."""
        for name in ("crypto_key", "auth_key", "log_key"):
            for line in (self.data_dir / name).read_text().splitlines():
                if line and not line.startswith("#"):
                    yield re.sub(r'^CRYPTO_KEY=|"', "", line)


def run(*args: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run the command with these options to its end."""
    return subprocess.run(
        [sys.executable, "-m", "autopush", *args],
        cwd=home,
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=START_WITHIN,
    )


def eventually(check: Callable[[], Any], timeout: float = 60, every: float = 0.05) -> Any:
    """Poll ``check`` until it returns something true, and return that.

    :raises AssertionError: it never did
    """
    end = time.monotonic() + timeout
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < end, f"still {value!r} after {timeout} s"
        time.sleep(every)
