"""Backlogs as far as an endpoint knows them (spec/websocket 9.4)."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st

from autopush.router import backlog
from autopush.router.backlog import Backlogs
from autopush.tests.session.support import START, UAID, message

USER = {"uaid": UAID, "connected_at": 1000}


class Rig:
    """A count whose clock is ``time``."""

    def __init__(self, limit: int) -> None:
        self.time = float(START)
        self.backlogs = Backlogs(limit, lambda: self.time)

    def take(self, user=USER, **values) -> bool:
        self.last = message(**values)
        return self.backlogs.take(self.last, user)


def test_as_many_as_the_limit():
    rig = Rig(3)
    assert [rig.take() for _ in range(5)] == [True, True, True, False, False]
    assert rig.take({**USER, "uaid": "0" * 32})


def test_0_is_no_limit():
    rig = Rig(0)
    assert all(rig.take() for _ in range(500))


def test_expired_ones_are_gone():
    rig = Rig(2)
    assert [rig.take(ttl=10), rig.take(ttl=20), rig.take()] == [True, True, False]
    rig.time += 10
    assert [rig.take(), rig.take()] == [True, False]


def test_one_taken_back_is_gone():
    rig = Rig(1)
    rig.take()
    taken = rig.last
    assert not rig.take()
    rig.backlogs.forget(taken)
    rig.backlogs.forget(taken)
    assert [rig.take(), rig.take()] == [True, False]


def test_live_ones_do_not_count():
    rig = Rig(1)
    assert all(rig.take(live=True) for _ in range(5))
    assert all(rig.take({**USER, "node_id": "http://node"}) for _ in range(5))
    assert [rig.take(), rig.take()] == [True, False]


def test_a_new_connection_starts_anew():
    rig = Rig(1)
    assert [rig.take(), rig.take()] == [True, False]
    assert rig.take({**USER, "connected_at": 2000})
    assert not rig.take({**USER, "connected_at": 2000})


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.booleans()), max_size=150))
def test_what_it_remembers_is_bounded(steps):
    rig = Rig(5)
    limit, backlog.MAX_COUNTED = backlog.MAX_COUNTED, 12
    try:
        for user, since, back in steps:
            uaid = f"{user:032x}"
            rig.take({"uaid": uaid, "connected_at": since}, uaid=uaid)
            if back:
                rig.backlogs.forget(rig.last)
            assert all(one.messages for one in rig.backlogs._absences.values())
            absences = rig.backlogs._absences.values()
            kept = sum(backlog.OF_A_USER + len(one.messages) for one in absences)
            assert kept == rig.backlogs._counted <= 12
    finally:
        backlog.MAX_COUNTED = limit


def test_user_agents_count_and_those_without_a_message_are_gone(monkeypatch):
    """What can't be stored, or is taken back, leaves nothing behind."""
    monkeypatch.setattr(backlog, "MAX_COUNTED", 5 * (backlog.OF_A_USER + 1))
    rig = Rig(5)
    for user in range(20):
        uaid = f"{user:032x}"
        rig.take({"uaid": uaid, "connected_at": 1000}, uaid=uaid)
        assert len(rig.backlogs._absences) == min(user + 1, 5)
    rig.backlogs.forget(rig.last)
    assert len(rig.backlogs._absences) == 4
