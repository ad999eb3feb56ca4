"""A side of a comparison: any service that speaks the protocol, of one process or of several.

A side is a checkout of autopush (its standalone service is started) or a TOML file that says
what to start::

    name = "autopush-rs"
    websocket = "{port:websocket}"          # where user agents connect
    endpoint = "{port:endpoint}"            # where endpoint URLs lead

    [[process]]                             # in this order, each when the one before it listens
    command = ["redis-server", "--port", "{port:redis}", "--save", ""]
    listens = "{port:redis}"

    [[process]]
    command = ["/usr/local/bin/autoconnect", "--config", "{data}/autoconnect.toml"]
    listens = "{port:websocket}"
    environment = { RUST_LOG = "error" }

``{port:NAME}`` is a free port, the same one wherever the name stands; ``{data}`` a directory that
is removed at the end; ``{here}`` the directory of the file; ``{python}`` the interpreter;
``{env:NAME}`` a variable of the environment. A table ``[files]`` names files of the
directory and their texts, in which the same words are replaced.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from process import START_WITHIN, cpu_of, free_port, settle

UNLIMITED = {
    "MAX_STORED": "0",
    "MAX_STORED_BYTES": "0",
    "RATE_SUBSCRIPTION": "0",
    "RATE_SENDER": "0",
}
"""Limits of ours that would end a benchmark. Through the environment: a release that doesn't know
one of them doesn't look at it."""

STANDALONE: dict[str, Any] = {
    "websocket": "{port:http}",
    "endpoint": "{port:http}",
    "process": [
        {
            "command": [
                "{python}", "-m", "autopush", "--data_dir", "{data}/store", "--port", "{port:http}",
            ],
            "listens": "{port:http}",
            "environment": {"PYTHONPATH": "{here}", **UNLIMITED},
        }
    ],
}  # fmt: skip
"""What a checkout of ours is."""


class SideError(Exception):
    """A side's description is wrong, or what it names doesn't start."""


class Side:
    """The processes of one service, started.

    :param where: a checkout or a TOML file
    :param python: interpreter of a checkout
    :param options: further words for a checkout's command
    :param core: CPU to keep them on; None: any
    :raises SideError: it can't be started
    :ivar address: host and port of the WebSocket
    :ivar endpoint: host and port of the endpoints
    """

    def __init__(
        self, where: Path, python: str = sys.executable, options: list[str] | None = None,
        core: int | None = None,
    ) -> None:  # fmt: skip
        table, here = described(where, options or [])
        self.name = str(table.get("name", where.resolve().name))
        self._ports: dict[str, int] = {}
        self._data = Path(tempfile.mkdtemp(prefix="autopush-bench-"))
        self._words = {"data": str(self._data), "here": str(here), "python": python}
        self._started: list[psutil.Popen] = []
        try:
            for file, text in table.get("files", {}).items():
                (self._data / file).write_text(self._filled(text))
            for process in table["process"]:
                self._start(process, core)
            self.address = self._place(table["websocket"])
            self.endpoint = self._place(table["endpoint"])
        except KeyError as missing:
            self.close()
            raise SideError(f"{where}: {missing} is missing") from missing
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """Origin of the endpoints: the audience of VAPID tokens."""
        return "http://{}:{}".format(*self.endpoint)

    # ---- starting

    def _filled(self, text: str) -> str:
        def word(match: re.Match[str]) -> str:
            name = match[1]
            if name.startswith("port:"):
                if name not in self._ports:
                    self._ports[name] = free_port()
                return str(self._ports[name])
            if name.startswith("env:"):
                return os.environ[name.removeprefix("env:")]
            return self._words[name]

        return re.sub(r"\{((?:port|env):\w+|data|here|python)\}", word, text)

    def _place(self, text: str) -> tuple[str, int]:
        host, _, port = self._filled(text).rpartition(":")
        return host or "127.0.0.1", int(port)

    def _start(self, process: Mapping[str, Any], core: int | None) -> None:
        words = [self._filled(word) for word in process["command"]]
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self._data),
            **{k: self._filled(v) for k, v in process.get("environment", {}).items()},
        }
        log = self._data / f"log{len(self._started)}"
        pinned = ["taskset", "--cpu-list", str(core)] if core is not None else []
        with log.open("wb") as output:
            try:
                started = psutil.Popen(
                    [*pinned, *words],
                    cwd=self._data,
                    env=environment,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            except OSError as error:
                raise SideError(f"{words[0]}: {error.strerror}") from error
        self._started.append(started)
        self._wait(started, self._place(process["listens"]), log)

    def _wait(self, started: psutil.Popen, place: tuple[str, int], log: Path) -> None:
        end = time.monotonic() + START_WITHIN
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(place) == 0:
                    return
            if started.poll() is not None or time.monotonic() > end:
                raise SideError(
                    f"{self.name}: {started.args} did not start:\n"
                    + log.read_text(errors="replace")[-2000:]
                )
            time.sleep(0.05)

    # ---- measuring

    def _processes(self) -> list[psutil.Process]:
        """All of them, those included that they have started."""
        found: list[psutil.Process] = []
        for started in self._started:
            with contextlib.suppress(psutil.NoSuchProcess):
                found += [started, *started.children(recursive=True)]
        return found

    def cpu(self) -> float:
        """Seconds of CPU that all of them have used, user and system."""
        return sum(cpu_of(process) for process in self._processes())

    def memory(self) -> tuple[int, int]:
        """RSS and PSS of all, bytes."""
        full = [process.memory_full_info() for process in self._processes()]
        return sum(one.rss for one in full), sum(one.pss for one in full)

    def num_fds(self) -> int:
        """Open descriptors of all."""
        return sum(process.num_fds() for process in self._processes())

    def settle(self) -> None:
        """Wait until they are idle."""
        settle(self.cpu)

    def connections_gone(self, descriptors: int) -> None:
        """Wait until no more than so many descriptors are open."""
        end = time.monotonic() + START_WITHIN
        while self.num_fds() > descriptors:
            if time.monotonic() > end:
                raise SideError(f"{self.name} keeps closed connections")
            time.sleep(0.05)

    def close(self) -> None:
        """Stop them, the last one first, and remove their files."""
        for started in reversed(self._started):
            with contextlib.suppress(psutil.NoSuchProcess):
                started.send_signal(signal.SIGTERM)
            try:
                started.wait(30)
            except psutil.TimeoutExpired:
                started.kill()
                started.wait()
        shutil.rmtree(self._data, ignore_errors=True)


def described(where: Path, options: list[str]) -> tuple[dict[str, Any], Path]:
    """The table of a side, and the directory its ``{here}`` is.

    :raises SideError: it is neither a checkout nor a file that can be read
    """
    if (where / "autopush" / "__main__.py").is_file():
        process = dict(STANDALONE["process"][0])
        process["command"] = [*process["command"], *options]
        return {**STANDALONE, "process": [process]}, where.resolve()
    try:
        return tomllib.loads(where.read_text()), where.resolve().parent
    except IsADirectoryError as error:
        raise SideError(f"{where} is no checkout of autopush") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SideError(f"{where}: {error}") from error
