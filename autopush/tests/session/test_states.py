"""The table of states: what happens is in it, what is in it happens, and the pictures show it."""

from __future__ import annotations

import ast
import inspect
import re

import pytest

from autopush.exceptions import StoreBusy
from autopush.session import session as data, states
from autopush.session.states import TRANSITIONS, State
from autopush.tests import TREE
from autopush.tests.session import changes
from autopush.tests.session.support import UAID, Rig, ack, message

OLD = "message_2026_10"

CHANGES = changes.edges(TRANSITIONS)


def drained():
    """Topics, then timestamped ones, then nothing."""
    rig = Rig()
    topic, timestamped = message(topic="a"), message(1)
    rig.put(topic, timestamped)
    session = rig.hello(UAID)
    assert session.state is State.DRAINING_TOPICS
    session.received(ack(topic))
    assert session.state is State.DRAINING_TIMESTAMPED
    session.received(ack(timestamped))
    assert session.state is State.LIVE
    session.closed()


def stored_meanwhile(operation):
    """A check comes during the last fetch of a phase."""
    rig = Rig()
    session = rig.live()
    rig.store.hold(operation)
    rig.node.check(UAID)
    rig.put(message(topic="a"))
    rig.node.check(UAID)
    rig.store.release(operation)
    assert session.state is not State.LIVE


def stored_meanwhile_during_topics():
    stored_meanwhile("fetch_topics")


def stored_meanwhile_during_timestamped():
    stored_meanwhile("fetch_since")


def moving(failure=None):
    """A user of the old month, who is moved when ``move_month`` is released."""
    rig = Rig()
    rig.store.months.accepted.add(OLD)
    rig.user(current_month=OLD)
    if failure is not None:
        rig.store.fail("move_month", failure)
    rig.store.hold("move_month")
    session = rig.hello(UAID)
    assert session.state is State.MOVING_MONTH
    return rig, session


def moved():
    rig, session = moving()
    rig.store.release("move_month")
    assert session.state is State.LIVE


def busy_while_moving():
    rig, session = moving(StoreBusy())
    rig.store.release("move_month")
    assert session.state is State.LIVE


def closed_in_every_state():
    """The node may close whenever it likes."""
    for stage in (unidentified, identifying, *map(draining, ("fetch_topics", "fetch_since"))):
        stage().close()
    moving()[1].close()
    session = Rig().live()
    session.close()
    assert session.state is State.CLOSING
    session.closed()
    session.closed()
    assert session.state is State.CLOSED


def unidentified():
    return Rig().connect()


def identifying():
    rig = Rig()
    rig.store.hold("register_user")
    session = rig.hello(UAID)
    assert session.state is State.IDENTIFYING
    return session


def draining(operation):
    def stage():
        rig = Rig()
        session = rig.live()
        rig.store.hold(operation)
        rig.node.check(UAID)
        return session

    return stage


STORIES = (
    drained,
    stored_meanwhile_during_topics,
    stored_meanwhile_during_timestamped,
    moved,
    busy_while_moving,
    closed_in_every_state,
)


def test_every_change_in_the_table_happens(monkeypatch):
    monkeypatch.delitem(changes.taken, State, raising=False)
    for story in STORIES:
        story()
    assert changes.taken[State] == CHANGES


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("after", State)
def test_any_other_is_refused(state, after):
    session = Rig().connect()
    vars(data.BaseSession)["state"].slot.__set__(session, state)
    if (state, after) in CHANGES:
        session.to(after)
        assert session.state is after
        assert changes.faults() == []
    else:
        with pytest.raises(AssertionError, match="->"):
            session.to(after)
        assert session.state is state
        assert len(changes.faults()) == 1


def test_to_is_the_only_place_that_assigns_one():
    found = []
    for path in sorted((TREE / "autopush" / "session").glob("*.py")):
        for function in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                found += [
                    (path.stem, function.name)
                    for node in ast.walk(function)
                    if isinstance(node, ast.Attribute)
                    and node.attr == "state"
                    and isinstance(node.ctx, ast.Store)
                ]
    assert found == [("session", "__init__"), ("session", "to")]


def test_the_picture_shows_the_table():
    shown = changes.shown_in(inspect.getdoc(states) or "")
    assert shown == {(state.name, after.name) for state, after in CHANGES}


def test_the_specification_shows_the_table():
    text = (TREE / "docs/spec/websocket.rst").read_text("utf-8")
    table = re.search(r"^   \.\. states$\n(.*?)^   \.\. end of states$", text, re.M | re.S)
    assert table is not None
    rows = re.findall(r"^ +\* - ``(\w+)``\n +- .+\n +- ``(\w+)``$", table[1], re.M)
    assert len(rows) == len(set(rows))
    assert set(rows) == {(state.name, after.name) for state, after in CHANGES}
