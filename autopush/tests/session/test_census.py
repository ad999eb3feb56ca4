"""One slow round: users are counted, those nobody needs forgotten, then channels and messages."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from twisted.internet.defer import fail, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from autopush.db.interface import Forgotten, Stock, Survey
from autopush.exceptions import StoreBusy
from autopush.session.background import Background
from autopush.session.census import DAY, SLICE_PAUSE, STOCK_INTERVAL, Census
from autopush.tests.session.support import START

NODE = "http://node.example:8081"


class Store:
    """Answers in the order given."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.stock = []
        self.asked = []

    def survey(self, after, forgotten):
        self.asked.append((after, forgotten))
        return self.answer(self.answers)

    def take_stock(self, after):
        self.asked.append(after)
        return self.answer(self.stock)

    def answer(self, answers):
        answer = answers.pop(0)
        return fail(answer) if isinstance(answer, Exception) else succeed(answer)


class Metrics:
    def __init__(self):
        self.calls = []

    def gauge(self, name, count):
        self.calls.append((name, count))

    increment = gauge


@pytest.fixture
def node():
    clock = Clock()
    return SimpleNamespace(
        store=Store(),
        metrics=Metrics(),
        metered=False,
        clock=clock,
        background=Background(clock),
        stopping=False,
        now=lambda: START,
        router_url=NODE,
        clients={},
        users=None,
        stock=None,
    )


def begin(node, forget_after=0):
    """Fires at the end of the round."""
    Census(node, forget_after).begin()
    return node.background.idle()


def test_a_round_counts_slice_by_slice(node):
    node.store.answers = [Survey(250, 0, "x"), Survey(249, 0, "y"), Survey(3, 0, None)]
    done = begin(node)
    assert [after for after, _ in node.store.asked] == [""]
    for known in ("x", "y"):
        assert (done.called, node.users) == (False, None)
        node.clock.advance(SLICE_PAUSE)
        assert node.store.asked[-1] == (known, None)
    assert done.called
    assert node.users == 502


def test_who_is_to_be_forgotten(node):
    """Who has been connected for all that time is not."""
    node.store.answers = [Survey(7, 2, None)]
    before = int((START - 180 * DAY) * 1000)
    node.clients = {
        "a": SimpleNamespace(connected_at=before - 1),
        "b": SimpleNamespace(connected_at=before),
    }
    with capturedLogs() as events:
        begin(node, 180)
    assert node.store.asked == [("", Forgotten(before, NODE, frozenset("a")))]
    assert node.users == 7
    assert node.metrics.calls == [("updates.forgotten_users", 2)]
    assert [event["count"] for event in events] == [2]


def test_store_that_fails_ends_the_round(node):
    node.users = 5
    node.store.answers = [Survey(250, 1, "x"), StoreBusy("away")]
    with capturedLogs() as events:
        done = begin(node, 1)
        node.clock.advance(SLICE_PAUSE)
    assert done.called
    assert node.users == 5
    assert node.metrics.calls == [("updates.forgotten_users", 1)]
    assert len(events) == 2


def test_store_that_does_not_count(node):
    node.store.answers = [None]
    assert begin(node, 180).called
    assert node.users is None
    Census(node, 0).report()
    assert node.metrics.calls == []


def test_one_round_at_a_time(node):
    node.store.answers = [Survey(250, 0, "x"), Survey(1, 0, None), Survey(7, 0, None)]
    census = Census(node, 0)
    census.begin()
    census.begin()
    assert len(node.store.asked) == 1
    node.clock.advance(SLICE_PAUSE)
    assert node.users == 251
    census.begin()
    assert node.users == 7


def test_node_that_stops_ends_the_round(node):
    """At once, and quietly."""
    node.store.answers = [Survey(250, 0, "x")]
    done = begin(node)
    node.stopping = True
    with capturedLogs() as events:
        node.background.hurry()
    assert done.called
    assert (node.users, events) == (None, [])


@pytest.fixture
def metered(node):
    """One whose figures go somewhere."""
    node.metered = True
    node.store.answers = [Survey(7, 0, None)]
    return node


def test_then_channels_and_messages_are_counted(metered):
    metered.store.stock = [Stock(250, 0, 0, "0"), Stock(0, 250, 9, "x"), Stock(0, 1, 5, None)]
    done = begin(metered)
    assert metered.metrics.calls == [("users", 7)]
    for _ in range(3):
        assert (done.called, metered.stock) == (False, None)
        metered.clock.advance(SLICE_PAUSE)
    assert done.called
    assert metered.store.asked[1:] == ["", "0", "x"]
    assert metered.stock == Stock(250, 251, 14, None)
    Census(metered, 0).report()
    assert metered.metrics.calls[1:] == [
        ("users", 7),
        ("channels", 250),
        ("stored.messages", 251),
        ("stored.bytes", 14),
    ]


def test_store_that_does_not_count_messages(metered):
    metered.store.stock = [None]
    done = begin(metered)
    metered.clock.advance(SLICE_PAUSE)
    assert done.called
    assert (metered.users, metered.stock) == (7, None)


def test_node_that_stops_ends_the_count_of_messages(metered):
    done = begin(metered)
    metered.stopping = True
    metered.background.hurry()
    assert done.called
    assert metered.store.asked == [("", None)]


def test_nothing_more_is_counted_where_nobody_wants_to_know(node):
    node.store.answers = [Survey(7, 0, None)]
    assert begin(node).called
    assert node.store.asked == [("", None)]


def test_channels_and_messages_are_counted_for_who_looks_and_not_each_time(node):
    node.store.stock = [Stock(1, 2, 3, "more"), Stock(4, 5, 6, None), Stock(7, 0, 0, None)]
    census = Census(node, 0)
    census.freshen()
    census.freshen()
    node.clock.advance(SLICE_PAUSE)
    node.clock.advance(SLICE_PAUSE)
    assert node.stock == Stock(5, 7, 9, None)
    census.freshen()
    assert node.store.asked == ["", "more"]
    node.clock.advance(STOCK_INTERVAL)
    census.freshen()
    node.clock.advance(SLICE_PAUSE)
    assert node.stock == Stock(7, 0, 0, None)


def test_a_look_does_not_meet_a_round(node):
    node.store.answers = [Survey(250, 0, "x"), Survey(1, 0, None)]
    census = Census(node, 0)
    census.begin()
    census.freshen()
    node.clock.advance(SLICE_PAUSE)
    assert node.users == 251
    assert [one for one in node.store.asked if isinstance(one, str)] == []


def test_a_store_that_fails_leaves_the_last_count(node):
    node.stock = Stock(5, 7, 9, None)
    node.store.stock = [StoreBusy("away")]
    with capturedLogs() as events:
        Census(node, 0).freshen()
        node.clock.advance(SLICE_PAUSE)
    assert node.stock == Stock(5, 7, 9, None)
    assert [event["log_format"] for event in events] == [
        "Channels and messages not counted: {error}"
    ]
