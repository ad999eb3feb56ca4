"""The service as a process of its own."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import autopush
from autopush.testing.client import Push

START_WITHIN = 60.0
"""Seconds; it takes one, unless the machine is busy."""

STOP_WITHIN = 10.0
"""Seconds after which a service that doesn't end is killed."""

KEPT = (
    "PATH",
    "HOME",
    "TMPDIR",
    "LANG",
    "LC_.*",
    "TZ",
    "PYTHON.*",
    "VIRTUAL_ENV",
    "LD_.*",
    "DYLD_.*",
)
"""Variables the service gets of this process' environment. Others may be meant for another service,
as ``PORT`` or ``CRYPTO_KEY``; so may configuration files, of which none is read."""

PROGRAM = "import sys; from autopush.__main__ import bare; sys.exit(bare())"


class StartFailed(Exception):
    """The service ended instead of getting ready; the text is what it printed."""


class PushService:
    """A push service of one's own, as a context manager or from :meth:`start` to :meth:`close`::

        with PushService() as push:
            browser = push.browser()

    Its data are gone afterwards. It ends with this process, whatever happens.

    :param options: further options of ``autopush_standalone``
    :param tls: whether endpoints are https, which some libraries insist on; ``certificate`` of
        :attr:`facts` is the file to trust
    :ivar facts: what it says of itself: ``url``, ``websocket_url``, ``control_url``, ``pid``,
        ``firefox_preferences``, ``certificate``
    """

    def __init__(self, options: Sequence[str] = (), tls: bool = False) -> None:
        self.options = [*options, *(["--self_signed"] if tls else [])]
        self.facts: dict[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None

    def start(self) -> Push:
        """Start the service; returns it as soon as it serves.

        :raises StartFailed: it doesn't
        """
        ours, theirs = os.pipe()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - has no name, closed with the service
        try:
            self._process = subprocess.Popen(
                self._command(theirs),
                cwd="/",
                env=environment(),
                pass_fds=[theirs],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                process_group=0,  # Ctrl-C is for the tests: they still need it to clean up
            )
            os.close(theirs)
            said = read_line(ours, START_WITHIN)
        finally:
            os.close(ours)
        if not said:
            raise StartFailed(self._failure())
        self.facts = json.loads(said)
        return Push(self.facts["control_url"])

    def _command(self, ready: int) -> list[str]:
        return [
            *(sys.executable, "-c", PROGRAM),
            *("--ephemeral", "--control", "--port", "0", "--ready_file", f"/dev/fd/{ready}"),
            *("--parent", str(os.getpid())),
            *self.options,
        ]

    def _failure(self) -> str:
        output = self.output
        self.close()
        return output or f"not ready after {START_WITHIN:g} s"

    @property
    def output(self) -> str:
        """All it printed so far."""
        if self._output is None:
            return ""
        self._output.seek(0)
        return self._output.read().decode("utf-8", "replace")

    def close(self) -> None:
        """End the service."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_WITHIN)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if "data_dir" in self.facts:
            shutil.rmtree(self.facts["data_dir"], ignore_errors=True)
        if self._output is not None:
            self._output.close()
            self._output = None

    def __enter__(self) -> Push:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def environment() -> dict[str, str]:
    """The environment of the service, without what would be an option of it."""
    known = re.compile("|".join(KEPT))
    env = {name: value for name, value in os.environ.items() if known.fullmatch(name)}
    package = str(Path(autopush.__file__).parent.parent)
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [package, env.get("PYTHONPATH")]))
    return env


def read_line(fd: int, timeout: float) -> bytes:
    """Read a line from a pipe.

    :returns: empty if there comes none within these seconds, or the other end is closed before
    """
    end = time.monotonic() + timeout
    text = b""
    while not text.endswith(b"\n"):
        left = end - time.monotonic()
        if left <= 0 or not select.select([fd], [], [], left)[0]:
            return b""
        part = os.read(fd, 65_536)
        if not part:
            return b""
        text += part
    return text
