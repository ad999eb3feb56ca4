"""Threads of a store's own: results, wake-ups, figures."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from autopush.db.threads import Threads
from autopush.exceptions import StoreClosed
from autopush.metrics.interface import PoolFigures

WAIT = 60
"""Seconds until a test gives up waiting for a thread."""


class Reactor:
    """Keeps what threads ask for until a test lets it happen."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []
        self.asked = threading.Semaphore(0)

    def callFromThread(self, function: Callable[[], None]) -> None:
        self.calls.append(function)
        self.asked.release()

    def turn(self) -> None:
        """Do what was asked for by now."""
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class Pool:
    """Makes calls when told."""

    def __init__(self) -> None:
        self.work: list[Callable[[], None]] = []

    def callInThreadWithCallback(self, done: Any, function: Any, *args: Any) -> None:
        self.work.append(lambda: done(True, function(*args)))


def outcome(deferred: Deferred[Any]) -> list[Any]:
    found: list[Any] = []
    deferred.addBoth(found.append)
    return found


def held() -> tuple[Callable[[], None], threading.Semaphore, threading.Semaphore]:
    """A function that waits, what says that it has begun, and what lets it go on."""
    begun, go_on = threading.Semaphore(0), threading.Semaphore(0)

    def wait() -> None:
        begun.release()
        assert go_on.acquire(timeout=WAIT)

    return wait, begun, go_on


def test_results_and_failures_come_back():
    reactor = Reactor()
    threads = Threads(reactor, 2)
    main = threading.get_ident()
    good = outcome(threads.call(lambda a, b: (a, b, threading.get_ident() != main), 1, 2))
    assert reactor.asked.acquire(timeout=WAIT)
    reactor.turn()
    bad = outcome(threads.call(int, "x"))
    assert reactor.asked.acquire(timeout=WAIT)
    assert not bad  # never outside the reactor's turn
    reactor.turn()
    assert good == [(1, 2, True)]
    assert isinstance(bad[0], Failure)
    assert bad[0].check(ValueError)
    threads.close()


def test_what_comes_together_wakes_the_reactor_once():
    reactor, pool = Reactor(), Pool()
    threads = Threads(reactor, 5, pool)
    found = [outcome(threads.call(int, str(number))) for number in range(4)]
    for work in pool.work[:3]:
        work()
    assert len(reactor.calls) == 1
    reactor.turn()
    assert found == [[0], [1], [2], []]
    pool.work[3]()
    assert len(reactor.calls) == 1
    reactor.turn()
    assert found[3] == [3]


def test_what_comes_while_results_are_told_wakes_it_again():
    reactor, pool = Reactor(), Pool()
    threads = Threads(reactor, 5, pool)
    first, second = threads.call(int, "1"), outcome(threads.call(int, "2"))
    first.addCallback(lambda _: pool.work[1]())
    pool.work[0]()
    reactor.turn()
    assert second == []
    assert len(reactor.calls) == 1
    reactor.turn()
    assert second == [2]


def test_every_result_is_told_whoever_finishes_when():
    reactor = Reactor()
    threads = Threads(reactor, 20)
    found = [outcome(threads.call(int, str(number))) for number in range(1000)]
    while not all(found):
        assert reactor.asked.acquire(timeout=WAIT)
        reactor.turn()
    assert [number for (number,) in found] == list(range(1000))
    assert threads.figures().busy == threads.figures().waiting == 0
    threads.close()


def test_figures_tell_what_the_threads_do():
    reactor = Reactor()
    threads = Threads(reactor, 3)
    assert threads.figures() == PoolFigures(0, 0, 0)
    wait, begun, go_on = held()
    calls = [outcome(threads.call(wait)) for _ in range(5)]
    for _ in range(3):
        assert begun.acquire(timeout=WAIT)
    assert threads.figures() == PoolFigures(0, 3, 2)
    for _ in range(5):
        go_on.release()
    while not all(calls):
        assert reactor.asked.acquire(timeout=WAIT)
        reactor.turn()
    assert threads.figures() == PoolFigures(3, 0, 0)
    threads.close()


def test_a_result_that_nobody_has_heard_of_keeps_no_thread_busy():
    reactor = Reactor()
    threads = Threads(reactor, 3)
    threads.call(int)
    assert reactor.asked.acquire(timeout=WAIT)
    assert threads.figures() == PoolFigures(1, 0, 0)
    threads.close()


def test_closing_does_what_was_asked_for():
    reactor = Reactor()
    threads = Threads(reactor, 1)
    wait, begun, go_on = held()
    first, second = outcome(threads.call(wait)), outcome(threads.call(int, "2"))
    assert begun.acquire(timeout=WAIT)
    threads.close()
    (refused,) = outcome(threads.call(int, "3"))
    assert refused.check(StoreClosed)
    go_on.release()
    while not (first and second):
        assert reactor.asked.acquire(timeout=WAIT)
        reactor.turn()
    assert second == [2]


@pytest.mark.parametrize("pool", [None, Pool()], ids=["own", "given"])
def test_nothing_is_taken_after_the_end(pool):
    threads = Threads(Reactor(), 1, pool)
    threads.close()
    (refused,) = outcome(threads.call(int))
    assert refused.check(StoreClosed)
    assert threads.figures() == PoolFigures(0, 0, 0)
