"""The clocks, and times that identify things (spec/python-api 2.8, P4)."""

from __future__ import annotations

import ast
import threading
import time
from types import SimpleNamespace

import pytest
from twisted.internet.base import ReactorBase

from autopush import clock
from autopush.clock import Shift, UniqueClock, ms_time, ns_time
from autopush.tests import TREE


@pytest.fixture
def wall(monkeypatch):
    """A wall clock in nanoseconds that only moves when told to."""
    now = [1_700_000_000_123_456_789]
    monkeypatch.setattr(clock, "now_ns", lambda: now[0])
    return now


def test_units_are_milliseconds_and_microseconds():
    assert abs(ms_time() / 1e3 - time.time()) < 60
    assert abs(ns_time() / 1e6 - time.time()) < 60
    assert isinstance(ms_time(), int)
    assert isinstance(ns_time(), int)


def test_reads_the_wall_clock(wall):
    assert UniqueClock(1_000_000)() == 1_700_000_000_123
    assert UniqueClock(1_000)() == 1_700_000_000_123_456


def test_never_repeats_within_a_unit(wall):
    read = UniqueClock(1_000_000)
    assert [read() for _ in range(3)] == [1_700_000_000_123 + i for i in range(3)]
    wall[0] += 1_000_000_000
    assert read() == 1_700_000_001_123


def test_never_goes_back(wall):
    read = UniqueClock(1_000)
    first = read()
    wall[0] -= 3_600 * 10**9
    assert read() == first + 1


def test_is_unique_across_threads():
    read = UniqueClock(1_000_000)
    seen: list[int] = []

    def work():
        seen.extend([read() for _ in range(500)])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(seen)) == 2000


def readings(tree):
    """What a module asks for the wall clock."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = f"{node.value.id}.{node.attr}"
            if name in ("time.time", "time.time_ns", "datetime.now", "datetime.utcnow"):
                yield name
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            yield from (f"time.{alias.name}" for alias in node.names)


def test_everybody_asks_this_module():
    """Else what is stored, checked or expired would not follow when time is moved."""
    found = {
        path.name: names
        for path in (TREE / "autopush").rglob("*.py")
        if "tests" not in path.parts
        and (names := list(readings(ast.parse(path.read_text("utf-8")))))
    }
    assert found == {"clock.py": ["time.time", "time.time_ns"] * 2}


def test_nobody_keeps_the_functions():
    """A copy would stay with the time of the machine."""
    for path in (TREE / "autopush").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "autopush.clock":
                assert not {alias.name for alias in node.names} & {"now", "now_ns"}, path
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                defaults = [*node.args.defaults, *filter(None, node.args.kw_defaults)]
                assert "clock.now" not in {ast.unparse(value) for value in defaults}, path


@pytest.fixture
def true_time(monkeypatch):
    """The machine's clocks stand still, and the module's come back afterwards."""
    stopped = SimpleNamespace(
        time=lambda: 1000.0, time_ns=lambda: 1_000 * 10**9, monotonic=lambda: 50.0
    )
    monkeypatch.setattr(clock, "time", stopped)
    monkeypatch.setattr(clock, "now", None)
    monkeypatch.setattr(clock, "now_ns", None)


def test_a_shift_moves_all_clocks(true_time):
    reactor = SimpleNamespace()
    shift = Shift(reactor)
    read = UniqueClock(1_000_000)
    assert (clock.now(), clock.now_ns(), reactor.seconds()) == (1000, 1000 * 10**9, 50)
    shift.advance(60)
    shift.advance(0.5)
    assert (clock.now(), clock.now_ns(), reactor.seconds()) == (1060.5, 10605 * 10**8, 110.5)
    assert read() == 1_060_500
    assert shift.seconds == 60.5


def test_only_the_wall_clock_goes_back(true_time):
    reactor = SimpleNamespace()
    shift = Shift(reactor)
    shift.advance(60)
    shift.reset()
    assert (clock.now(), reactor.seconds()) == (1000, 110)


def test_forgotten_times_may_come_again(wall):
    read = UniqueClock(1_000_000)
    before = read()
    wall[0] -= 10**12
    read.forget()
    assert read() == before - 10**6


class ReactorWithoutIO(ReactorBase):
    """Twisted's timers."""

    def installWaker(self):
        """Nobody sleeps."""


def test_timers_follow_in_their_order(true_time):
    """All that is due, each once, in the reactor's next turn."""
    reactor = ReactorWithoutIO()
    shift = Shift(reactor)
    called = []
    for delay in (30, 10, 20, 100):
        reactor.callLater(delay, called.append, delay)
    shift.advance(40)
    assert reactor.timeout() == 0
    reactor.runUntilCurrent()
    assert called == [10, 20, 30]
