"""A service that another program started."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys

import pytest
from twisted.internet.task import Clock

from autopush.app import supervised
from autopush.app.supervised import LOOK_INTERVAL, end_with, runs, write_ready
from autopush.tests.e2e.harness import START_WITHIN, environment

FACTS = {"url": "http://127.0.0.1:1"}


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "ready.json"
    path.write_text("an older one")
    write_ready(str(path), FACTS)
    assert json.loads(path.read_text()) == FACTS
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["ready.json"]


def test_a_pipe(tmp_path):
    ours, theirs = os.pipe()
    write_ready(f"/dev/fd/{theirs}", FACTS)
    os.close(theirs)
    with os.fdopen(ours) as file:
        assert json.loads(file.readline()) == FACTS


def test_a_place_that_is_none(tmp_path):
    with pytest.raises(OSError):
        write_ready(str(tmp_path / "no/such/place"), FACTS)


class Reactor(Clock):
    """What is asked of it."""

    running = False
    stopped = 0

    def __init__(self):
        super().__init__()
        self.readers = []
        self.at_start = []

    def addReader(self, reader):
        self.readers.append(reader)

    def removeReader(self, reader):
        self.readers.remove(reader)

    def callWhenRunning(self, function, *args):
        self.at_start.append((function, args))

    def stop(self):
        self.stopped += 1

    def start(self):
        self.running = True
        for function, args in self.at_start:
            function(*args)


@pytest.fixture
def reactor():
    return Reactor()


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.communicate()


def end(process):
    process.communicate()


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="no pidfd on this system")
def test_the_kernel_tells(reactor, sleeper):
    end_with(reactor, sleeper.pid)
    reactor.start()
    (reader,) = reactor.readers
    assert reader.logPrefix()
    end(sleeper)
    reader.doRead()
    assert reactor.stopped == 1
    assert not reactor.readers
    assert reader.fileno() == -1


def test_without_the_kernel(reactor, sleeper, monkeypatch):
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    end_with(reactor, sleeper.pid)
    reactor.start()
    reactor.advance(LOOK_INTERVAL)
    assert not reactor.stopped
    end(sleeper)
    reactor.advance(LOOK_INTERVAL)
    assert reactor.stopped == 1


def test_where_it_may_not_be_asked(reactor, sleeper, monkeypatch):
    def refused(pid):
        raise PermissionError

    monkeypatch.setattr(os, "pidfd_open", refused, raising=False)
    end_with(reactor, sleeper.pid)
    reactor.start()
    end(sleeper)
    reactor.advance(LOOK_INTERVAL)
    assert reactor.stopped == 1


def test_gone_before(reactor, sleeper):
    end(sleeper)
    end_with(reactor, sleeper.pid)
    assert not reactor.stopped
    reactor.start()
    assert reactor.stopped == 1


def test_who_runs(sleeper, monkeypatch):
    assert runs(sleeper.pid)
    end(sleeper)
    assert not runs(sleeper.pid)

    def refused(pid, number):
        raise PermissionError

    monkeypatch.setattr(supervised.os, "kill", refused)
    assert runs(sleeper.pid)  # it is somebody else's


def test_pieces_for_those_who_start_it_themselves(tmp_path, sleeper):
    """Without control API: a service with other data, which tells where it is and ends in order."""
    ready = tmp_path / "ready.json"
    words = ["--ephemeral", "--port", "0", "--ready_file", str(ready), "--parent", str(sleeper.pid)]
    service = subprocess.Popen(
        [sys.executable, "-m", "autopush", *words],
        cwd=tmp_path,
        env=environment(tmp_path, {"TMPDIR": str(tmp_path)}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert service.stderr is not None
    while not service.stderr.readline().startswith("autopush is ready"):
        assert service.poll() is None
    end(sleeper)
    service.communicate(timeout=START_WITHIN)
    assert service.returncode == 0
    facts = json.loads(ready.read_text())
    assert facts["url"].startswith("http://127.0.0.1:") and "control_url" not in facts
    assert facts["websocket_url"].startswith("ws://127.0.0.1:")
    assert not os.path.exists(facts["data_dir"])
