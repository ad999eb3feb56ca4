"""Times that identify things (spec/python-api 2.8, P4)."""

from __future__ import annotations

import threading
import time

import pytest

from autopush import clock
from autopush.clock import UniqueClock, ms_time, ns_time


@pytest.fixture
def wall(monkeypatch):
    """A wall clock in nanoseconds that only moves when told to."""
    now = [1_700_000_000_123_456_789]
    monkeypatch.setattr(clock.time, "time_ns", lambda: now[0])
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
