"""What the operations do with the service."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from autopush.control import rig as module
from autopush.control.agents import AgentError
from autopush.control.rig import DAY, MAX_STEPS, STEP, NotFound, Rig, firefox_preferences


class Shift:
    def __init__(self):
        self.steps = []

    def advance(self, seconds):
        self.steps.append(seconds)


class Store:
    waited_for = 0

    async def alive(self):
        self.waited_for += 1


class Node:
    rounds = 0

    def __init__(self):
        self.store = Store()
        self.upkeep = SimpleNamespace(whole_round=self.count)
        self.conf = SimpleNamespace(access_keys=["K"], fernet=None)

    def count(self):
        self.rounds += 1


@pytest.fixture
def rig():
    endpoint = SimpleNamespace(by_message={}, stop=lambda: None)
    return Rig(endpoint, Node(), Shift(), Clock())


def advance(rig, seconds):
    done: list[object] = []
    Deferred.fromCoroutine(rig.advance(seconds)).addBoth(done.append)
    while not done:
        rig._reactor.advance(0)
    assert done == [None]
    return rig.shift.steps


def test_an_hour_passes_at_once(rig):
    assert advance(rig, STEP) == [STEP]


def test_a_day_passes_in_hours(rig):
    assert advance(rig, DAY) == [STEP] * 24
    assert rig.node.rounds == 1
    assert rig.node.store.waited_for == 24  # what it was given is written before time passes on


def test_more_passes_in_longer_steps(rig):
    steps = advance(rig, 100 * DAY)
    assert len(steps) == MAX_STEPS
    assert sum(steps) == pytest.approx(100 * DAY)
    assert rig.node.rounds == 100


def test_days_add_up(rig):
    for _ in range(5):
        advance(rig, DAY / 2)
    assert rig.node.rounds == 2


def test_nothing_passes(rig):
    assert advance(rig, 0) == []


def test_the_access_key_of_a_private_service(rig):
    rig.port = 7
    assert rig.websocket_url == "ws://127.0.0.1:7/K"


def test_only_so_many(rig, monkeypatch):
    monkeypatch.setattr(module, "MAX_AGENTS", 0)
    failures: list[object] = []
    Deferred.fromCoroutine(rig.add_agent()).addErrback(failures.append)
    (failure,) = failures
    assert failure.check(AgentError)


def test_nobody(rig):
    with pytest.raises(NotFound, match="no browser x"):
        rig.agent("x")
    with pytest.raises(NotFound, match="no subscription x"):
        rig.subscription("x")


def test_nobody_comes_back_when_the_service_ends(rig):
    closed: list[int] = []
    messages = SimpleNamespace(close=lambda: closed.append(1))
    agent = SimpleNamespace(wanted=True, messages=messages)
    rig.agents["1"] = agent
    rig.stop()
    assert agent.wanted is False and closed


def test_preferences():
    assert firefox_preferences("ws://x/")["dom.push.serverURL"] == "ws://x/"
