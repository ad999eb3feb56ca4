"""Levels of urgency (RFC 8030 5.3)."""

from __future__ import annotations

import pytest

from autopush.message.urgency import (
    HIGH,
    LOW,
    NAMES,
    NORMAL,
    VERY_LOW,
    least_of,
    level_of,
    stored,
    to_store,
)


def test_levels_are_in_the_order_of_the_rfc():
    assert VERY_LOW < LOW < NORMAL < HIGH
    assert [level_of(name) for name in NAMES] == [VERY_LOW, LOW, NORMAL, HIGH]


@pytest.mark.parametrize("value", [None, "", "High", "urgent", 3, True, [], {}, "normal "])
def test_what_is_no_level(value):
    assert level_of(value) is None
    assert stored(value) == NORMAL
    assert least_of({"urgency": value}) == VERY_LOW


def test_normal_ones_are_stored_as_nodes_do_that_know_of_no_levels():
    assert to_store(NORMAL) is None
    assert least_of({}) == VERY_LOW
    for level in range(4):
        assert stored(to_store(level)) == level
        assert least_of({"urgency": NAMES[level]}) == level
