"""What a turn of the event loop does for newcomers, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, strategies as st

from autopush.net.newcomers import A_TURN, ACCEPTS, PER_SECOND, Newcomers, newcomers


class Client:
    """A connection that is put off, and notes when it is its turn."""

    def __init__(self, number: int, served: list[int]) -> None:
        self.number = number
        self.served = served

    def admit(self) -> None:
        self.served.append(self.number)


class Turns:
    """An event loop: what is asked for in a turn is called at the beginning of the next one."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[Callable[[], None]] = []

    def seconds(self) -> float:
        return self.now

    def callLater(self, delay: float, call: Callable[[], None]) -> None:
        assert delay == 0
        self.calls.append(call)


def turn(loop: Turns, seconds: float = 0.0) -> None:
    """Let a turn take so long, and begin the next one."""
    loop.now += seconds
    calls, loop.calls = loop.calls, []
    for call in calls:
        call()


def test_a_turn_has_so_much_and_the_next_as_much_again():
    loop = Turns()
    new = Newcomers(loop)
    for _ in range(3):
        assert sum(new.take() for _ in range(A_TURN + 5)) == A_TURN
        assert not new.accepts()
        turn(loop)


def test_a_turn_in_which_nobody_comes_costs_nothing():
    loop = Turns()
    new = Newcomers(loop)
    assert new.take()
    turn(loop)
    assert not loop.calls


def test_few_are_accepted_at_once_as_each_is_read_from_soon():
    new = Newcomers(Turns())
    assert new.accepts() == ACCEPTS
    assert new.take(A_TURN) == A_TURN - ACCEPTS
    assert new.accepts() == 0


def test_nobody_is_accepted_while_others_wait():
    loop = Turns()
    new = Newcomers(loop)
    served: list[int] = []
    new.take(A_TURN)
    for number in range(A_TURN + 1):
        assert not new.take()
        new.put_off(Client(number, served))
    turn(loop)
    assert served == list(range(A_TURN))
    assert not new.accepts()
    turn(loop)
    assert served[-1] == A_TURN
    assert new.accepts() == ACCEPTS


def test_after_a_long_turn_more_is_done_for_them():
    """Messages that keep the event loop busy don't shut out those who connect."""
    loop = Turns()
    new = Newcomers(loop)
    served: list[int] = []
    new.take(A_TURN)
    for number in range(1000):
        new.put_off(Client(number, served))
    turn(loop, 0.2)
    assert len(served) == 0.2 * PER_SECOND
    turn(loop)
    assert len(served) == 0.2 * PER_SECOND + A_TURN


@given(
    st.lists(st.tuples(st.integers(0, 3 * A_TURN), st.floats(0, 0.1)), max_size=20),
)
def test_everybody_has_a_turn_in_the_order_of_coming(turns: list[tuple[int, float]]):
    loop = Turns()
    new = Newcomers(loop)
    served: list[int] = []
    came = 0
    for count, seconds in turns:
        for number in range(came, came + count):
            if new.take():
                assert len(served) == number  # nobody was before it
                served.append(number)
            else:
                new.put_off(Client(number, served))
        came += count
        turn(loop, seconds)
    while loop.calls:
        turn(loop)
    assert served == list(range(came))


def test_all_ports_of_an_event_loop_share_its_turns():
    first: Any = Turns()
    assert newcomers(first) is newcomers(first)
    assert newcomers(first) is not newcomers(Turns())
