"""What becomes of the row of a direct notification: the table, what happens, and the picture."""

from __future__ import annotations

import inspect

import pytest
from twisted.internet.defer import Deferred

from autopush.exceptions import StoreError
from autopush.session import outstanding
from autopush.session.outstanding import ROW_TRANSITIONS, Direct, Row
from autopush.tests.session import changes
from autopush.tests.session.support import UAID, Rig, ack, message

CHANGES = changes.edges(ROW_TRANSITIONS)


class Hand:
    """A store whose writes and deletions of messages end when told."""

    def __init__(self):
        self.rig = Rig(store_direct=True)
        self.written: Deferred[None] = Deferred()
        self.deletions: list[Deferred[bool]] = []
        self.rig.store.store_message = lambda *_: self.written
        self.rig.store.delete_message = self.delete
        self.session = self.rig.live()
        self.notification = message()
        self.rig.deliver(self.notification).addErrback(lambda _: None)
        (self.entry,) = self.session.direct.values()

    def delete(self, month, notification):
        self.deletions.append(Deferred())
        return self.deletions[-1]

    def acknowledge(self):
        self.session.received(ack(self.notification))


def acknowledged_when_stored(hand):
    hand.written.callback(None)
    assert hand.entry.row is Row.STORED
    hand.acknowledge()
    hand.deletions[0].callback(True)


def not_stored(hand):
    hand.written.errback(StoreError())
    assert hand.entry.row is Row.NONE
    hand.acknowledge()
    assert not hand.deletions


def taken_back(hand):
    hand.rig.store.take_back = lambda *_: True
    hand.acknowledge()
    assert hand.entry.row is Row.DONE
    hand.written.callback(None)
    assert not hand.deletions


def found_before_it_was_told(hand):
    hand.acknowledge()
    hand.deletions[0].callback(True)
    assert hand.entry.row is Row.DONE
    hand.written.callback(None)
    assert len(hand.deletions) == 1


def too_early(hand):
    hand.acknowledge()
    hand.deletions[0].callback(False)
    assert hand.entry.kept and hand.session.leaving
    hand.written.callback(None)
    hand.deletions[1].callback(True)


def written_first(hand):
    hand.acknowledge()
    hand.written.callback(None)
    hand.deletions[0].callback(True)
    assert len(hand.deletions) == 1


def written_first_but_too_early(hand):
    hand.acknowledge()
    hand.written.callback(None)
    hand.deletions[0].callback(False)
    hand.deletions[1].callback(True)


STORIES = (
    acknowledged_when_stored,
    not_stored,
    taken_back,
    found_before_it_was_told,
    too_early,
    written_first,
    written_first_but_too_early,
)


@pytest.mark.parametrize("story", STORIES)
def test_in_the_end_nothing_is_left(story):
    hand = Hand()
    story(hand)
    assert hand.entry.row in (Row.NONE, Row.DONE)
    assert not hand.session.direct and not hand.session.leaving
    assert hand.session.row_operations == 0
    assert hand.rig.node.clients[UAID] is hand.session


def test_every_change_in_the_table_happens(monkeypatch):
    monkeypatch.delitem(changes.taken, Row, raising=False)
    for story in STORIES:
        story(Hand())
    assert changes.taken[Row] == CHANGES


def test_any_other_is_refused():
    for before in Row:
        for after in Row:
            entry = Direct(message(), before)
            if (before, after) in CHANGES:
                entry.row = after
                assert entry.row is after
            else:
                with pytest.raises(AssertionError, match="->"):
                    entry.row = after
    assert len(changes.faults()) == len(Row) ** 2 - len(CHANGES)


def test_the_picture_shows_the_table():
    shown = changes.shown_in(inspect.getdoc(outstanding) or "")
    assert shown == {(before.name, after.name) for before, after in CHANGES}
