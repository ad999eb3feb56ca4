"""The queue of users whose old month is looked at once more."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from autopush.session.moves import LOOK_BACK, Moves

OLD, NEW = "message_2026_11", "message_2026_12"


@pytest.fixture
def clock():
    return Clock()


def due(moves):
    return [move.uaid for move in moves.due()]


def test_they_are_due_a_while_after_they_were_noted(clock):
    moves = Moves(clock)
    moves.note("a", OLD, NEW)
    clock.advance(1)
    moves.note("b", OLD, None)
    clock.advance(LOOK_BACK - 1.5)
    assert due(moves) == []
    clock.advance(0.5)
    assert due(moves) == ["a"]
    clock.advance(1)
    assert due(moves) == ["b"]
    assert due(moves) == []


def test_one_who_is_noted_again_waits_again(clock):
    moves = Moves(clock)
    moves.note("a", OLD, None)
    moves.note("b", OLD, NEW)
    clock.advance(LOOK_BACK / 2)
    later = moves.note("a", OLD, NEW)
    clock.advance(LOOK_BACK / 2)
    assert due(moves) == ["b"]
    clock.advance(LOOK_BACK / 2)
    assert list(moves.due()) == [later]


def test_the_oldest_is_let_go_when_there_are_too_many(clock, monkeypatch):
    monkeypatch.setattr("autopush.session.moves.MAX_MOVES", 2)
    moves = Moves(clock)
    for uaid in ("a", "b", "c"):
        moves.note(uaid, OLD, NEW)
    assert [move.uaid for move in moves.take_all()] == ["b", "c"]
    assert moves.take_all() == []
