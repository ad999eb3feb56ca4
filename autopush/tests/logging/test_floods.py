"""Of a flood of equal events a few are told, and the number of the others."""

from __future__ import annotations

from hypothesis import given, strategies as st
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from autopush.logging.floods import INTERVAL, LINES, Floods

TEXT = "Malformed"
OTHER = "Too much"


def sums(events):
    """Number by kind."""
    assert {event["log_format"] for event in events} <= {"{count} more of these: {text}"}
    return [(event["text"], event["count"]) for event in events]


def test_a_few_are_told_one_by_one_and_the_others_in_the_end():
    clock = Clock()
    floods = Floods(clock)
    assert [floods.take(TEXT) for _ in range(LINES + 5)] == [True] * LINES + [False] * 5
    assert floods.take(OTHER)  # each kind by itself
    with capturedLogs() as events:
        clock.advance(INTERVAL)
    assert sums(events) == [(TEXT, 5)]
    assert floods.take(TEXT)
    assert clock.getDelayedCalls() == []


GAPS = st.lists(st.tuples(st.floats(0, 15), st.sampled_from([0, 102, 106])), max_size=120)


@given(GAPS, st.booleans())
def test_none_is_forgotten_and_lines_are_few(came, at_the_end):
    clock = Clock()
    floods = Floods(clock)
    lines: dict[int, list[float]] = {0: [], 102: [], 106: []}
    with capturedLogs() as events:
        for gap, kind in came:
            clock.advance(gap)
            if floods.take(kind):
                lines[kind].append(clock.seconds())
        if at_the_end:
            floods.stop()
        else:
            clock.advance(INTERVAL)
    for kind, times in lines.items():
        summed = sum(count for text, count in sums(events) if text == kind)
        assert len(times) + summed == sum(one == kind for _, one in came)
        for first in times:
            assert sum(first <= one < first + INTERVAL for one in times) <= 2 * LINES
    assert clock.getDelayedCalls() == []


def test_after_the_end_nothing_is_told_twice():
    floods = Floods(Clock())
    for _ in range(LINES + 1):
        floods.take(TEXT)
    with capturedLogs() as events:
        floods.stop()
        floods.stop()
    assert sums(events) == [(TEXT, 1)]
