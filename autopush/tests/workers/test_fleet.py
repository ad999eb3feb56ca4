"""Who runs, and who is started again when. Time is a Clock, processes are none."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from hypothesis import given, strategies as st
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from autopush.workers.fleet import DELAYS, HANGS_AFTER, STEADY, Fleet, State, Worker


class NoProcess:
    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.signals: list[str] = []

    def signal(self, name: str) -> None:
        self.signals.append(name)


class World:
    """A fleet, and the keeper that does what it decides."""

    def __init__(self, count: int = 3) -> None:
        self.clock = Clock()
        self.events: list[Any] = []
        self.pid = 0
        self.fleet = Fleet(self.clock, self, count)
        self.error: OSError | None = None

    def spawn(self, worker: Worker) -> NoProcess:
        self.pid += 1
        self.events.append(("spawn", worker.number))
        if self.error is not None:
            raise self.error
        return NoProcess(self.pid)

    def rest(self, worker: Worker) -> None:
        self.events.append(("rest", worker.number))

    def ready(self, worker: Worker, said: str) -> None:
        self.events.append(("ready", said))

    def start_failed(self, worker: Worker) -> None:
        self.events.append(("failed", worker.number))

    def gone(self, worker: Worker) -> None:
        self.events.append(("gone", worker.number))

    def said(self) -> list[Any]:
        events, self.events = self.events, []
        return events


@pytest.fixture
def serving() -> World:
    world = World()
    world.fleet.start()
    for worker in world.fleet.workers:
        world.fleet.ready(worker, "all ready")
    world.said()
    return world


def test_ready_when_all_are() -> None:
    world = World()
    world.fleet.start()
    one, two, three = world.fleet.workers
    assert world.said() == [("spawn", 1), ("spawn", 2), ("spawn", 3)]
    world.fleet.ready(two, "a")
    world.fleet.ready(one, "b")
    assert not world.fleet.started and world.said() == []
    world.fleet.ready(three, "c")
    assert world.fleet.started and world.said() == [("ready", "c")]


def test_whoever_ends_while_the_service_starts_ends_it() -> None:
    world = World()
    world.fleet.start()
    world.fleet.ready(world.fleet.workers[0], "")
    world.said()
    world.fleet.ended(world.fleet.workers[1], "exit status 1")
    assert world.said() == [("gone", 2), ("failed", 2)]


def test_one_that_ends_is_started_again_at_once(serving: World) -> None:
    worker = serving.fleet.workers[1]
    with capturedLogs() as logged:
        serving.fleet.ended(worker, "signal 9")
        serving.clock.advance(0)
    assert serving.said() == [("gone", 2), ("spawn", 2)]
    texts = [formatEvent(event) for event in logged]
    assert texts == ["Worker 2 has ended (signal 9), starting it again"]
    serving.fleet.ready(worker, "")
    assert serving.said() == []
    assert worker.state is State.SERVING and worker.restarts == 1


def test_one_that_ends_in_a_loop_waits_longer_and_longer(serving: World) -> None:
    worker = serving.fleet.workers[0]
    for delay in (*DELAYS, DELAYS[-1]):
        with capturedLogs() as logged:
            serving.fleet.ended(worker, "exit status 1")
        (event,) = logged
        assert (event["log_level"].name == "critical") is (delay > 0)
        said = serving.said()
        assert (("rest", 1) in said) is (delay > 0)
        if delay:
            assert f"in {delay:g} s" in formatEvent(event)
            assert worker.fails
            serving.clock.advance(delay - 0.5)
            assert ("spawn", 1) not in serving.said()
            serving.clock.advance(0.5)
        else:
            serving.clock.advance(0)
        assert serving.said() == [("spawn", 1)]
        worker.error = "the disk is gone"
    with capturedLogs() as logged:
        serving.fleet.ended(worker, "exit status 1")
    assert "(exit status 1: the disk is gone)" in formatEvent(logged[0])


def test_one_that_can_not_be_started_now_is_started_later(serving: World) -> None:
    worker = serving.fleet.workers[2]
    serving.error = BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
    serving.fleet.ended(worker, "signal 9")
    with capturedLogs() as logged:
        serving.clock.advance(DELAYS[0])
    assert "(not started, Resource temporarily unavailable), 2 times" in formatEvent(logged[0])
    assert serving.said() == [("gone", 3), ("spawn", 3), ("rest", 3)]
    assert worker.state is State.WAITING and worker.restarts == 0
    serving.error = None
    serving.clock.advance(DELAYS[1])
    assert serving.said() == [("spawn", 3)]
    assert worker.process is not None and worker.restarts == 1


def test_a_start_that_can_not_be_made_is_told() -> None:
    world = World()
    world.error = OSError(errno.EMFILE, "Too many open files")
    with pytest.raises(OSError):
        world.fleet.start()
    assert world.fleet.stop().called


def test_one_that_was_ready_too_late_is_not_told_of() -> None:
    world = World(1)
    world.fleet.start()
    (worker,) = world.fleet.workers
    stopped = world.fleet.stop()
    world.said()
    world.fleet.ready(worker, "ready")
    assert world.said() == [] and not world.fleet.started
    world.fleet.ended(worker, "exit status 0")
    assert stopped.called


def test_what_was_before_a_steady_time_does_not_count(serving: World) -> None:
    worker = serving.fleet.workers[0]
    for _ in range(4):
        serving.fleet.ended(worker, "signal 9")
        serving.clock.advance(30)
        serving.fleet.ready(worker, "")
    for other in serving.fleet.workers:
        serving.fleet.alive(other)
    serving.clock.advance(STEADY)
    serving.said()
    serving.fleet.ended(worker, "signal 9")
    serving.clock.advance(0)
    assert ("spawn", 1) in serving.said()


def test_one_that_hangs_is_killed(serving: World) -> None:
    one, two, three = serving.fleet.workers
    for _ in range(int(HANGS_AFTER) + 1):
        serving.clock.advance(1)
        for worker in (one, three):
            serving.fleet.alive(worker)
    assert [getattr(w.process, "signals", None) for w in (one, two, three)] == [[], ["KILL"], []]
    serving.fleet.ended(two, "signal KILL")
    serving.clock.advance(0)
    assert ("spawn", 2) in serving.said()


def test_nobody_is_killed_because_the_supervisor_stood_still(serving: World) -> None:
    serving.clock.advance(10 * HANGS_AFTER)
    assert all(not getattr(w.process, "signals", None) for w in serving.fleet.workers)
    for _ in range(int(HANGS_AFTER) + 1):  # from then on it counts
        serving.clock.advance(1)
    assert all(getattr(w.process, "signals", None) for w in serving.fleet.workers)


def test_one_that_hangs_while_it_starts_is_killed() -> None:
    world = World(1)
    world.fleet.start()
    process: Any = world.fleet.workers[0].process
    for _ in range(int(HANGS_AFTER) + 1):
        world.clock.advance(1)
    assert process.signals == ["KILL"]


@given(st.permutations(range(3)), st.sets(st.integers(0, 2)))
def test_stopped_when_all_have_ended(order: list[int], away: set[int]) -> None:
    world = World()
    world.fleet.start()
    for worker in world.fleet.workers:
        world.fleet.ready(worker, "")
    for index in away:  # waiting to be started again
        world.fleet.workers[index].failures = 3
        world.fleet.ended(world.fleet.workers[index], "signal 9")
    running = [w for w in world.fleet.workers if w.process is not None]
    done: list[None] = []
    world.fleet.stop().addCallback(done.append)
    for worker in running:
        process: Any = worker.process
        assert process.signals == ["TERM"]
    for index in order:
        worker = world.fleet.workers[index]
        if worker in running:
            assert done == []
            world.fleet.ended(worker, "exit status 0")
    assert done == [None]
    world.said()
    world.clock.advance(100)
    assert world.said() == [] and not world.clock.getDelayedCalls()
