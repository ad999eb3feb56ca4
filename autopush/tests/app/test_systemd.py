"""Telling a service manager (sd_notify(3), sd_watchdog_enabled(3))."""

from __future__ import annotations

import os
import socket

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from autopush.app.systemd import ServiceManager, Watchdog, notify_address


@pytest.fixture
def listening(tmp_path):
    """A service manager's socket and its name."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.settimeout(60)
        yield sock, path


def received(listening):
    return listening[0].recv(4096).decode().split("\n")


def nothing_more(listening):
    listening[0].setblocking(False)
    with pytest.raises(BlockingIOError):
        listening[0].recv(1)


def test_messages(listening):
    manager = ServiceManager({"NOTIFY_SOCKET": listening[1]})
    manager.ready("Serving")
    assert received(listening) == ["READY=1", "STATUS=Serving"]
    manager.stopping()
    assert received(listening)[0] == "STOPPING=1"
    manager.alive()
    assert received(listening) == ["WATCHDOG=1"]
    manager.reloading()
    first, second = received(listening)
    assert first == "RELOADING=1"
    assert second.startswith("MONOTONIC_USEC=") and int(second.partition("=")[2]) > 0
    nothing_more(listening)


def test_an_abstract_socket():
    name = f"@autopush-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{name[1:]}")
        sock.settimeout(60)
        ServiceManager({"NOTIFY_SOCKET": name}).alive()
        assert sock.recv(100) == b"WATCHDOG=1"


@pytest.mark.parametrize("text", ["", "@", "vsock:2:1234", "relative"])
def test_without_an_address_of_a_known_kind_nothing_is_sent(text):
    assert notify_address(text) is None
    manager = ServiceManager({"NOTIFY_SOCKET": text, "WATCHDOG_USEC": "3000000"})
    assert manager.watchdog_period is None
    manager.ready("x")  # no error


def test_a_socket_that_has_gone_is_no_error(tmp_path):
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready("x")


def test_a_manager_that_does_not_read_is_not_waited_for(listening):
    manager = ServiceManager({"NOTIFY_SOCKET": listening[1]})
    for _ in range(5000):  # more than any queue holds
        manager.alive()


@pytest.mark.parametrize(
    ("environ", "period"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_watchdog_period(environ, period):
    assert ServiceManager({"NOTIFY_SOCKET": "/x", **environ}).watchdog_period == period


# ------------------------------------------------------------------------------------ watchdog


class Manager:
    """Counts signs of life."""

    watchdog_period = 30.0

    def __init__(self):
        self.signs = 0

    def alive(self):
        self.signs += 1


class Probe:
    """A store: ``answers`` is what the next probes fire with; None: they don't."""

    def __init__(self):
        self.answers = True
        self.waiting = []

    def __call__(self):
        if self.answers is None:
            self.waiting.append(Deferred())
            return self.waiting[-1]
        return fail(self.answers) if isinstance(self.answers, Exception) else succeed(None)


@pytest.fixture
def dog():
    clock, manager, probe = Clock(), Manager(), Probe()
    service = Watchdog(manager, probe)
    service.clock = clock
    service.startService()
    yield clock, manager, probe, service
    if service.running:
        service.stopService()


def test_there_are_several_signs_of_life_in_a_period(dog):
    clock, manager, _, _ = dog
    clock.pump([1.0] * 60)
    assert manager.signs in (6, 7)


def test_none_while_the_store_does_not_answer(dog):
    clock, manager, probe, _ = dog
    probe.answers, before = None, manager.signs
    clock.pump([1.0] * 60)
    assert manager.signs == before
    assert len(probe.waiting) == 1  # it is asked once, not again and again
    probe.answers = True
    probe.waiting[0].callback(None)
    clock.pump([1.0] * 30)
    assert manager.signs >= before + 3


def test_an_outage_of_its_database_is_an_answer(dog):
    clock, manager, probe, _ = dog
    probe.answers = OSError("no route")
    clock.pump([1.0] * 30)
    assert manager.signs >= 3


def test_none_after_the_end(dog):
    clock, manager, _, service = dog
    service.stopService()
    before = manager.signs
    clock.pump([1.0] * 60)
    assert manager.signs == before
