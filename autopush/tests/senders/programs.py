"""The programs beside this file: how they are built, once, and how they are spoken to.

Each sends Web Push messages with the library its language has for that. It takes a line of JSON for
each message::

    {"subscription": {"endpoint": ..., "keys": {...}},          as a page gives it to its server
     "vapid": {"public": ..., "private": ..., "subject": ...},  keys in URL-safe base64
     "text": ..., "ttl": seconds}

and answers with a line of what the library says, as much of it as that makes known::

    {"said": "ok" or what went wrong, "status": ..., "headers": {lower-case names}, "body": text}

Versions are pinned by the lock file that each language has. What is built lies in the user's cache
folder, under the hash of its sources.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

HERE = Path(__file__).parent

FETCH_WITHIN = 600
"""Seconds to fetch packages."""

BUILD_WITHIN = 900
"""Seconds to compile them: the crates take one or two minutes of two cores."""

ANSWER_WITHIN = 120
"""Seconds for an answer, the start of the program included."""

USUAL_PLACES = ("/usr/local/go/bin", "~/.cargo/bin")
"""Where the installers of Go and Rust put them, without changing ``PATH`` for everybody."""


@attrs.frozen
class Program:
    """One language's.

    :ivar name: also the folder of its sources
    :ivar tools: commands it needs
    :ivar fetch: command that gets the packages: where it fails, the test is skipped
    :ivar build: commands that make of them what is run
    :ivar run: the command that is run
    :ivar https_only: the library speaks to https URLs only
    :ivar home: where the folder of its sources is
    """

    name: str
    run: str
    tools: tuple[str, ...] = ()
    fetch: str = ""
    build: tuple[str, ...] = ()
    https_only: bool = False
    home: Path = HERE

    def __str__(self) -> str:
        return self.name


PROGRAMS = (
    Program(
        "node",
        "node sender.js",
        ("node", "npm"),
        "npm ci --ignore-scripts --no-audit --no-fund",
        https_only=True,
    ),
    Program("go", "./sender", ("go",), "go mod download", ("go build -mod=readonly -o sender .",)),
    Program(
        "rust",
        "./sender",
        ("cargo", "cc", "pkg-config"),
        "python fetch.py",
        (
            "cargo build --quiet --locked --offline",
            "mv target/debug/sender sender",
            "rm -r target",
        ),
    ),
    Program(
        "java",
        "java -XX:TieredStopAtLevel=1 -cp lib/*:classes Sender",
        ("javac", "mvn"),
        "mvn --batch-mode --quiet dependency:copy-dependencies -DoutputDirectory=lib",
        ("javac -cp lib/* -d classes Sender.java",),
    ),
    Program(
        "webpush",
        "python sender.py",
        fetch="python -m pip --disable-pip-version-check --quiet install --no-deps"
        " --require-hashes --target lib -r requirements.txt",
    ),
    Program("pywebpush", "python sender.py"),
)


def environment() -> dict[str, str]:
    """The environment of the programs and of what builds them: ours, and the usual places."""
    places = (os.path.expanduser(place) for place in USUAL_PLACES)
    return {**os.environ, "PATH": os.pathsep.join([os.environ.get("PATH", ""), *places])}


# -------------------------------------------------------------------------------------- building


def cache_folder() -> Path:
    """Where built programs stay."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "autopush-senders"


def fingerprint(program: Program) -> str:
    """What a built program is known by: its sources, how it is made of them, and where it runs."""
    parts = [platform.machine(), sys.version, program.fetch, *program.build]
    for path in sorted((program.home / program.name).rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            parts += [str(path.relative_to(program.home)), path.read_text("utf-8")]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def built(program: Program) -> Path:
    """Return the folder with a program, which is built if it isn't there yet.

    Skips the test where a tool is missing or packages can't be fetched.
    """
    path = environment()["PATH"]
    for tool in program.tools:
        if shutil.which(tool, path=path) is None:
            pytest.skip(f"no {tool} on this machine")
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"{program.name}-{fingerprint(program)}"
    with _locked(cache / f"{program.name}.lock"):
        if not folder.exists():
            _build(program, folder)
    return folder


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Wait until nobody else builds it: the workers of a run share the folder."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(program: Program, folder: Path) -> None:
    """Build in a draft, so that what is there is complete; older ones make room."""
    for old in folder.parent.glob(f"{program.name}-*"):
        shutil.rmtree(old)
    draft = folder.with_name(f"{program.name}-draft")
    shutil.copytree(
        program.home / program.name, draft, ignore=shutil.ignore_patterns("__pycache__")
    )
    if program.fetch:
        trouble = _trouble(program.fetch, draft)
        if trouble:
            pytest.skip(f"can't fetch the packages of {program.name}: {trouble}")
    for command in program.build:
        done = _run(command, draft, BUILD_WITHIN)
        assert done.returncode == 0, done.stdout
    draft.rename(folder)


def _words(command: str) -> list[str]:
    """The words of a command; ``python`` is the one that runs the tests."""
    first, *others = command.split()
    return [sys.executable if first == "python" else first, *others]


def _run(command: str, folder: Path, within: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _words(command),
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=within,
    )


def _trouble(command: str, folder: Path) -> str:
    """Run a command; what was wrong, if anything."""
    try:
        done = _run(command, folder, FETCH_WITHIN)
    except subprocess.TimeoutExpired:
        return f"not within {FETCH_WITHIN} s"
    if done.returncode == 0:
        return ""
    return (done.stdout.strip().splitlines() or [f"status {done.returncode}"])[-1]


# --------------------------------------------------------------------------------------- running


class Sender:
    """A running program.

    :param extra: further variables of its environment
    """

    def __init__(self, program: Program, extra: Mapping[str, str]) -> None:
        folder = built(program)
        self.name = program.name
        self._process = subprocess.Popen(
            _words(program.run),
            cwd=folder,
            # The packages in lib are those of the program; a proxy has no business on loopback.
            env={**environment(), "PYTHONPATH": "lib", "NO_PROXY": "*", "no_proxy": "*", **extra},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def send(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Have a message sent; what the library says."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        timer = threading.Timer(ANSWER_WITHIN, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        assert line, f"{self.name} ended"
        report: dict[str, Any] = json.loads(line)
        return report

    def close(self) -> None:
        """End it."""
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(ANSWER_WITHIN) == 0
