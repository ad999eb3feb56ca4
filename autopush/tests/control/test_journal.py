"""What happened, and who waits for it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from autopush.control import journal
from autopush.control.journal import Journal


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def book(clock):
    return Journal(clock)


@pytest.fixture
def true_time(clock, monkeypatch):
    """The machine's clock, which is not the reactor's."""
    machine = SimpleNamespace(now=0.0)
    monkeypatch.setattr(journal, "time", SimpleNamespace(monotonic=lambda: machine.now))
    return machine


def waiting(book, number, timeout):
    results: list[list[object]] = []
    Deferred.fromCoroutine(book.wait(number, timeout)).addCallback(results.append)
    return results


def test_numbers(book):
    for entry in "abc":
        book.append(entry)
    assert book.last == 3
    assert [book.after(n) for n in range(4)] == [["a", "b", "c"], ["b", "c"], ["c"], []]
    assert book.after(99) == []


def test_the_oldest_are_forgotten(book, monkeypatch):
    monkeypatch.setattr(journal, "MAX_ENTRIES", 2)
    book = Journal(Clock())
    for entry in "abcd":
        book.append(entry)
    assert book.after(0) == book.after(1) == book.after(2) == ["c", "d"]
    assert book.after(3) == ["d"]


def test_numbers_go_on_after_clear(book):
    book.append("a")
    book.clear()
    assert (book.after(0), book.last) == ([], 1)
    book.append("b")
    assert book.after(1) == ["b"]


def test_who_waits_gets_the_next(book, clock, true_time):
    one, other = waiting(book, 0, 10), waiting(book, 1, 10)
    book.append("a")
    assert (one, other) == ([["a"]], [])
    book.append("b")
    assert other == [["b"]]
    assert not clock.getDelayedCalls()


def test_what_is_there_needs_no_waiting(book, clock):
    book.append("a")
    assert waiting(book, 0, 10) == [["a"]]
    assert waiting(book, 1, 0) == [[]]


def test_patience_ends(book, clock, true_time):
    results = waiting(book, 0, 10)
    true_time.now = 9.9
    clock.advance(9.9)
    assert not results
    true_time.now = 10
    clock.advance(0.1)
    assert results == [[]]


def test_patience_is_measured_by_the_true_time(book, clock, true_time):
    """Who waits while a test lets an hour pass still waits."""
    results = waiting(book, 0, 10)
    clock.advance(3600)
    assert not results
    book.append("a")
    assert results == [["a"]]


def test_nobody_waits_at_the_end(book, clock):
    results = waiting(book, 0, 10)
    book.close()
    assert results == [[]]
    assert waiting(book, 0, 10) == [[]]
    assert not clock.getDelayedCalls()
