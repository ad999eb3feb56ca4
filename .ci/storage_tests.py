"""Runs the storage tests on a DynamoDB that a process of its own serves on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

TREE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TREE / "bench"))
from process import free_port as free_port  # noqa: E402

sys.path.pop(0)
TESTS = "autopush/tests/db/dynamodb"
URL = "AUTOPUSH_TEST_DYNAMODB"
"""Environment variable with the URL of a server that is running (dynamodb_support.py)."""

START_WITHIN = 180


def run_tests(url: str, arguments: Sequence[str]) -> int:
    """Run pytest; returns its exit status."""
    command = [sys.executable, "-m", "pytest", TESTS, *arguments]
    return subprocess.run(command, cwd=TREE, env={**os.environ, URL: url}, check=False).returncode


def run_on(command: Sequence[str], port: int, arguments: Sequence[str]) -> int:
    """Start a server, run the tests on it, end it; returns pytest's exit status.

    :param command: the server's; it must listen on ``port``
    """
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        _wait(server, port, command)
        return run_tests(f"http://127.0.0.1:{port}", arguments)
    finally:
        server.terminate()
        server.wait()


def _wait(server: subprocess.Popen[bytes], port: int, command: Sequence[str]) -> None:
    end = time.monotonic() + START_WITHIN
    while time.monotonic() < end and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.2)
    sys.exit(f"did not start: {' '.join(command)}")
