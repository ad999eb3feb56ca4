"""Runs the commands of a cluster's nodes as processes, and talks TLS to them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from autopush.tests.e2e.harness import START_WITHIN, STOP_WITHIN, environment, eventually

APPLICATIONS = {
    "autopush": "ConnectionApplication",
    "autoendpoint": "EndpointApplication",
    "autopush_standalone": "StandaloneApplication",
}


class Daemon:
    """One process.

    :param home: where it runs
    :param command: name of the console script
    :param prefix: command that runs the command
    :param before: Python that runs before it, in the same process
    """

    def __init__(
        self,
        home: Path,
        command: str,
        *options: str,
        env: Mapping[str, str] | None = None,
        prefix: tuple[str, ...] = (),
        before: str = "",
    ) -> None:
        main = f"import sys, autopush.main as m; sys.exit(m.{APPLICATIONS[command]}.main())"
        script = f"{before}\n{main}"
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-c", script, *options],
            cwd=home,
            env=environment(home, env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            for raw in stream:
                self.lines.append(raw.decode("utf-8", "replace").rstrip("\n"))

    @property
    def output(self) -> str:
        """Both streams."""
        return "\n".join(self.lines)

    @property
    def events(self) -> list[dict[str, Any]]:
        """Fields of the JSON log lines."""
        return [json.loads(line)["Fields"] for line in self.lines if line.startswith("{")]

    def says(self, text: str, times: int = 1) -> list[str]:
        """Wait for lines with this text; returns them."""

        def found() -> list[str]:
            ended = self.process.poll() is not None
            if ended:
                self._reader.join()  # it may not have come to the last lines yet
            lines = [line for line in self.lines if text in line]
            if len(lines) < times:
                assert not ended, self.output
                return []
            return lines

        return eventually(found)

    def listens(self, port: int) -> Daemon:
        """Wait until a port is open."""
        end = time.monotonic() + START_WITHIN
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                return self
            assert self.process.poll() is None, self.output
            assert time.monotonic() < end, self.output
            time.sleep(0.05)

    def hang_up(self) -> None:
        """Have it reload, and wait until it has."""
        done = len([line for line in self.lines if "Received SIGHUP" in line])
        self.process.send_signal(signal.SIGHUP)
        self.says("Received SIGHUP, reloading.", done + 1)

    def wait(self, within: float = STOP_WITHIN) -> int:
        """Wait for its end; returns the exit status."""
        status = self.process.wait(within)
        self._reader.join()
        return status

    def stop(self) -> int:
        """End it in order; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def close(self) -> None:
        """Make sure that it has gone."""
        if self.process.poll() is None:
            self.process.kill()
            self.wait()


@contextlib.contextmanager
def daemons() -> Iterator[Any]:
    """Makes daemons that end with the context: ``make(home, command, *options)``."""
    with contextlib.ExitStack() as stack:

        def make(*args: Any, **kwargs: Any) -> Daemon:
            daemon = Daemon(*args, **kwargs)
            stack.callback(daemon.close)
            return daemon

        yield make


def s_client(port: int, *options: str, send: str | None = None) -> str:
    """Connect with ``openssl s_client``; returns all it says.

    :param send: lines to type; None: end of input at once
    """
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *options],
        input=send or "",
        capture_output=True,
        text=True,
        timeout=START_WITHIN,
        env={"PATH": os.environ.get("PATH", ""), "LANG": "C"},
    )
    return done.stdout + done.stderr


def negotiated(output: str) -> tuple[str, str] | None:
    """Protocol and suite that ``openssl s_client`` got; None: no connection."""
    match = re.search(r"^New, (\S+), Cipher is (\S+)$", output, re.MULTILINE)
    if match is None or match[2] == "(NONE)":
        return None
    protocol = re.search(r"^\s*Protocol\s*: (\S+)$", output, re.MULTILINE)
    return (protocol[1] if protocol else match[1], match[2])
