"""A worker: what is different from a service of one process. As processes: test_supervisor.py."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography.fernet import Fernet

from autopush.options.commands import STANDALONE
from autopush.tests.e2e.harness import START_WITHIN, environment
from autopush.workers.application import Superior
from autopush.workers.begin import BOOT, CHANNEL, Begin

SECOND = 2


class Lonely:
    """A worker whose supervisor is the test.

    :param home: an empty directory
    """

    def __init__(self, home: Path, **more: str) -> None:
        options = ["--workers", "2", "--port", "0", "--data_dir", str(home), "--auth_key", "k" * 32]
        for name, value in {"crypto_key": Fernet.generate_key().decode(), **more}.items():
            options += [f"--{name}", value]
        ns = STANDALONE.parse((), options)
        ns.human_logs = False
        ours, its = socket.socketpair()
        public = socket.create_server(("127.0.0.1", 0))
        public.setblocking(False)
        self.address = public.getsockname()
        descriptors = {CHANNEL: its.fileno(), "port": public.fileno()}
        sockets = [str(home / f"{n}.sock") for n in (1, 2)]
        begin = Begin(sys.path, SECOND, vars(ns), "log key", descriptors, sockets, None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", BOOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=list(descriptors.values()),
            env=environment(home),
        )
        assert self.process.stdin is not None
        self.process.stdin.write(begin.dump())
        self.process.stdin.close()
        for one in (its, public):
            one.close()
        ours.settimeout(START_WITHIN)
        self.stream = ours.makefile("rwb")
        ours.close()

    def hears(self) -> Any:
        """The next thing it says, but for signs of life."""
        while True:
            line = self.stream.readline()
            if not line:
                return None
            message = orjson.loads(line)
            if message.get("tell") != "alive":
                return message

    def ask(self, what: str) -> Any:
        self.stream.write(orjson.dumps({"ask": what, "number": 1}) + b"\n")
        self.stream.flush()
        return self.hears()["answer"]

    def wait(self) -> int:
        assert self.process.stdout is not None
        with self.process.stdout:
            return self.process.wait(START_WITHIN)


@pytest.fixture
def worker(tmp_path: Path) -> Any:
    lonely = Lonely(tmp_path)
    yield lonely
    lonely.stream.close()
    if lonely.process.poll() is None:
        lonely.process.kill()
        lonely.wait()


def test_it_says_when_it_is_ready_and_answers(worker: Any) -> None:
    ready = worker.hears()
    assert ready["tell"] == "ready"
    assert f"ws://127.0.0.1:{worker.address[1]}/" in ready["value"][0]
    assert worker.ask("health") == {"clients": 0, "users": None, "errors": []}
    assert worker.ask("figures") == []  # nobody wants any


def test_it_ends_in_order_when_the_supervisor_has_gone(worker: Any) -> None:
    worker.hears()
    worker.stream.close()
    assert worker.wait() == 0


def test_it_ends_in_order_however_often_it_is_asked(worker: Any) -> None:
    worker.hears()
    with socket.create_connection(worker.address):
        for _ in range(3):
            worker.process.send_signal(signal.SIGINT)
            worker.process.send_signal(signal.SIGTERM)
        assert worker.wait() == 0


def test_it_says_why_it_can_not_start(tmp_path: Path) -> None:
    (tmp_path / "autopush.sqlite3").write_bytes(os.urandom(20_000))
    worker = Lonely(tmp_path)
    message = worker.hears()
    assert message["tell"] == "failed"
    assert "is not an SQLite database" in message["value"]
    assert worker.wait() == 1
    worker.stream.close()


def test_it_says_why_its_options_can_not_be_used(tmp_path: Path) -> None:
    worker = Lonely(tmp_path, ssl_key="/none", ssl_cert="/none")
    message = worker.hears()
    assert message["tell"] == "failed" and "/none" in message["value"]
    assert worker.wait() == 1
    worker.stream.close()


def test_before_there_is_a_channel_nothing_is_said() -> None:
    superior = Superior(1)
    superior.ready("")
    superior.alive()
    superior.stopping()
