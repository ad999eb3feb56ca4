"""The service as a process of its own: its start, its end, and what it leaves."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import threading

import psutil
import pytest

from autopush.testing import NoMessage, Push, PushService, StartFailed
from autopush.testing.service import environment, read_line
from autopush.tests import TREE
from autopush.tests.e2e.harness import eventually


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where temporary files of a service are, and no others."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_start_and_end(temporary):
    service = PushService()
    with service as push:
        assert push.url == service.facts["url"]
        pid = service.facts["pid"]
        (data,) = temporary.iterdir()
        assert str(data) == service.facts["data_dir"]
        push.browser()
    assert not psutil.pid_exists(pid)
    assert not list(temporary.iterdir())


def test_from_outside(push_service):
    """Who has the URL of the control API needs no more."""
    assert Push(push_service.control_url).url == push_service.url


def test_options():
    with PushService(["--max_data", "100"]) as push:
        assert push.url


def test_a_start_that_fails(temporary):
    with pytest.raises(StartFailed, match="unrecognized arguments: --nonsense"):
        PushService(["--nonsense"]).start()
    assert not list(temporary.iterdir())


def test_what_is_meant_for_others_is_not_read(monkeypatch, tmp_path):
    """Variables and files that configure a service of the developer."""
    (tmp_path / ".autopush_standalone.ini").write_text("nonsense = 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CRYPTO_KEY", "nonsense")
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    assert "CRYPTO_KEY" not in environment()
    assert environment()["PYTHONHASHSEED"] == "0"
    with PushService() as push:
        push.browser()


KILLED = """
import os, signal, sys
from autopush.testing import PushService
service = PushService()
push = service.start()
push.browser()
print(service.facts["pid"], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_ends_with_its_parent(temporary):
    """However that ends; and nothing of it stays."""
    env = {**os.environ, "PYTHONPATH": str(TREE)}
    ended = subprocess.run(
        [sys.executable, "-c", KILLED], env=env, stdout=subprocess.PIPE, timeout=120
    )
    assert ended.returncode == -signal.SIGKILL
    pid = int(ended.stdout)
    eventually(lambda: not psutil.pid_exists(pid))
    assert not list(temporary.iterdir())


INTERRUPTED = """
import os, signal
from autopush.testing import PushService
signal.signal(signal.SIGINT, lambda *_: None)
with PushService() as push:
    os.killpg(0, signal.SIGINT)
    push.browser()
    push.reset()
print("cleaned up")
"""


def test_who_interrupts_tests_leaves_them_their_service():
    """A terminal sends SIGINT to all it has started: tests clean up then, and need the service."""
    env = {**os.environ, "PYTHONPATH": str(TREE)}
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        env=env,
        stdout=subprocess.PIPE,
        timeout=120,
        process_group=0,
    )
    assert (ended.returncode, ended.stdout) == (0, b"cleaned up\n")


def test_a_killed_service_leaves_nothing_for_long(temporary):
    """The client removes what it knows of; the next service the rest."""
    service = PushService()
    service.start()
    os.kill(service.facts["pid"], signal.SIGKILL)
    (data,) = temporary.iterdir()
    with PushService():
        assert not data.exists()
    service.close()
    assert not list(temporary.iterdir())


def test_ends_although_somebody_waits():
    """A long poll does not hold the end up."""
    service = PushService()
    push = service.start()
    browser = push.browser()

    def wait():
        with contextlib.suppress(OSError, NoMessage, http.client.HTTPException):
            browser.wait(200)

    waiting = threading.Thread(target=wait)
    waiting.start()
    eventually(lambda: any(t is waiting for t in threading.enumerate()))
    service.close()
    waiting.join(60)
    assert not waiting.is_alive()


def test_a_line_or_nothing():
    ours, theirs = os.pipe()
    os.write(theirs, b"no li")
    assert read_line(ours, 0.01) == b""  # the beginning may have been taken, or not
    os.write(theirs, b"\n")
    read_line(ours, 60)
    os.write(theirs, b"a line\n")
    assert read_line(ours, 60) == b"a line\n"
    os.close(theirs)
    assert read_line(ours, 60) == b""
    os.close(ours)


def test_needs_nothing_of_the_service():
    """Other people's tests start with this: it imports no Twisted."""
    code = "import sys, autopush.testing, autopush.testing.plugin; print(sorted(sys.modules))"
    env = {**os.environ, "PYTHONPATH": str(TREE)}
    text = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, check=True
    ).stdout
    ours = {name for name in eval(text) if name.partition(".")[0] in ("autopush", "twisted")}
    assert {name for name in ours if not name.startswith("autopush.testing")} == {"autopush"}


IMPORT = "import twisted.internet.reactor, autobahn.twisted.websocket, cryptography.x509"

SHARE = 4
"""How many times the CPU time of importing its libraries a start may take: it is some 1.8 (0.75 s
where those take 0.41)."""


ROUNDS = 3
"""How often both are measured: what else a machine does makes them longer, never shorter."""


def cpu_of_imports():
    """Seconds."""
    before = os.times()
    subprocess.run([sys.executable, "-c", IMPORT], check=True)
    after = os.times()
    return sum(after[2:4]) - sum(before[2:4])


def cpu_of_a_start():
    """Seconds."""
    service = PushService()
    with service:
        return sum(psutil.Process(service.facts["pid"]).cpu_times()[:2])


def test_a_start_takes_little_more_than_its_imports():
    """CPU time of both, on the same machine at the same time, so that it is a share."""
    rounds = [(cpu_of_imports(), cpu_of_a_start()) for _ in range(ROUNDS)]
    imports, start = map(min, zip(*rounds, strict=True))
    assert 0 < start < SHARE * imports
