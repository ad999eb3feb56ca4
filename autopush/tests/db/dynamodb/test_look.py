"""A message is stored, and its user looked at, in one turn of a thread; nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from autopush.db.deadlines import TooLate, Unknown
from autopush.db.dynamodb.client import DEADLINE, DynamoError, TableMissing, Throttled, Unavailable
from autopush.db.interface import Stored
from autopush.exceptions import StoreError
from autopush.tests.db.dynamodb.support import new_store
from autopush.tests.db.store_contract import TS, UAID, message, topic

RECORD = {"uaid": {"S": UAID}, "router_type": {"S": "webpush"}, "node_id": {"S": "http://n"}}
USER = {"uaid": UAID, "router_type": "webpush", "node_id": "http://n"}


class Pool:
    """A pool whose calls a test makes one by one."""

    def __init__(self) -> None:
        self.work: list[tuple[Callable[..., Any], Callable[..., Any]]] = []

    def callInThreadWithCallback(self, done: Any, function: Any, *args: Any) -> None:
        self.work.append((done, lambda: function(*args)))

    def turn(self) -> None:
        """Make the call that was asked for first."""
        done, function = self.work.pop(0)
        try:
            result = function()
        except BaseException:
            done(False, Failure())
        else:
            done(True, result)


class Rig:
    """A store whose requests are answered by ``errors``, or well; by a clock of its own."""

    def __init__(self) -> None:
        clock: Any = Clock()
        clock.callFromThread = lambda function: function()
        self.clock = clock
        self.pool = Pool()
        self.store = new_store(reactor=clock, threadpool=self.pool, now=lambda: TS / 1e6)
        self.requests: list[str] = []
        self.errors: dict[str, list[Exception | Callable[[], None]]] = {}
        self.store.users.call = self.store.messages.call = self.call

    def call(self, operation: str, /, **parameters: Any) -> Any:
        self.requests.append(operation)
        errors = self.errors.get(operation)
        if errors:
            error = errors.pop(0)
            if isinstance(error, Exception):
                raise error
            error()
        return {"get_item": {"Item": RECORD}, "query": {"Items": []}}.get(operation, {})

    def store_and_look(self, notification: Any = None) -> list[Any]:
        """What comes of it, once it has."""
        return outcome(self.store.store_and_look("message", notification or message()))


def outcome(deferred: Deferred[Any]) -> list[Any]:
    found: list[Any] = []
    deferred.addBoth(lambda result: found.append(result))
    return found


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.mark.parametrize(
    ("notification", "requests"),
    [
        (message(), ["put_item", "query", "get_item"]),
        (topic("t", "1"), ["put_item", "get_item"]),
    ],
)
def test_one_turn_does_all(rig, notification, requests):
    found = rig.store_and_look(notification)
    rig.pool.turn()
    assert found == [Stored(USER)]
    assert rig.requests == requests
    assert rig.pool.work == []


@pytest.mark.parametrize("operation", ["put_item", "query"])
def test_storing_is_tried_again_before_anybody_looks(rig, operation):
    rig.errors[operation] = [Throttled("")]
    found = rig.store_and_look()
    rig.pool.turn()
    assert "get_item" not in rig.requests
    rig.clock.advance(0.05)
    rig.pool.turn()
    assert found == [Stored(USER)]
    assert rig.requests.count("get_item") == 1


@pytest.mark.parametrize("operation", ["put_item", "query"])
def test_what_can_not_be_stored_fails_as_it_does_alone(rig, operation):
    rig.errors[operation] = [DynamoError("refused")]
    (failure,) = _after_turn(rig)
    assert failure.check(DynamoError)
    assert "get_item" not in rig.requests


@pytest.mark.parametrize("error", [Throttled(""), Unavailable("", maybe_done=True)])
def test_a_look_that_fails_is_tried_again_after_a_pause_and_nothing_is_stored_twice(rig, error):
    rig.errors["get_item"] = [error]
    found = rig.store_and_look()
    rig.pool.turn()
    assert rig.pool.work == []  # not at once: see DELAYS
    assert found == []
    rig.clock.advance(0.05)
    rig.pool.turn()
    assert found == [Stored(USER)]
    assert rig.requests == ["put_item", "query", "get_item", "get_item"]


def test_a_look_that_fails_for_good_leaves_the_message_stored(rig):
    rig.errors["get_item"] = [DynamoError("refused")]
    found = rig.store_and_look()
    rig.pool.turn()
    assert found == [Stored(None, was_read=False)]


def test_a_look_has_as_many_attempts_as_alone(rig):
    def attempts(start: Callable[[], list[Any]]) -> int:
        rig.requests.clear()
        rig.errors["get_item"] = [Throttled("")] * 20
        found = start()
        while not found:
            while rig.pool.work:
                rig.pool.turn()
            rig.clock.advance(0.05)
        return rig.requests.count("get_item")

    alone = attempts(lambda: outcome(rig.store.get_user(UAID)))
    assert attempts(rig.store_and_look) == alone > 1


def test_a_missing_router_table_is_noticed(rig):
    rig.errors["get_item"] = [TableMissing("gone")]
    found = rig.store_and_look()
    rig.pool.turn()
    assert found == [Stored(None, was_read=False)]
    assert rig.store._in_doubt


def test_who_was_stored_when_its_time_is_over_is_looked_at_in_a_time_of_its_own(rig):
    rig.errors["get_item"] = [lambda: rig.clock.advance(DEADLINE)]
    found = rig.store_and_look()
    rig.pool.turn()
    assert found == []
    rig.pool.turn()
    assert found == [Stored(USER)]
    assert rig.requests == ["put_item", "query", "get_item", "get_item"]


def test_who_was_not_stored_in_time_is_told_so(rig):
    rig.errors["put_item"] = [lambda: rig.clock.advance(DEADLINE)]
    (failure,) = _after_turn(rig)
    assert failure.check(Unknown)
    waiting = rig.store_and_look()
    rig.clock.advance(DEADLINE)
    assert waiting[0].check(TooLate)
    assert rig.requests.count("put_item") == 1


def _after_turn(rig: Rig) -> list[Any]:
    found = rig.store_and_look()
    rig.pool.turn()
    return found


def test_the_next_write_of_the_user_does_not_wait_for_a_look(rig):
    first, second = rig.store_and_look(), rig.store_and_look(message(TS + 1))
    rig.pool.turn()
    assert rig.requests == ["put_item", "query"]
    assert len(rig.pool.work) == 2  # the look, and the second message
    rig.pool.turn()
    rig.pool.turn()
    assert first == second == [Stored(USER)]
    assert sorted(rig.requests[2:]) == ["get_item", "get_item", "put_item", "query"]


def test_a_closed_store_takes_nothing(rig):
    rig.store.close()
    assert rig.store_and_look()[0].check(StoreError)
    assert rig.pool.work == []


def test_a_store_that_closes_meanwhile_has_stored_what_it_took(rig):
    rig.errors["get_item"] = [Throttled("")]
    found = rig.store_and_look()
    closed = outcome(rig.store.close())
    rig.pool.turn()
    rig.clock.advance(0)
    assert found == [Stored(None, was_read=False)]
    assert closed == [None]
    assert not rig.pool.work
