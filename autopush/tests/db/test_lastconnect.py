"""``last_connect``: year, month, hour, a random number (spec/storage 7)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, strategies as st

from autopush.db.lastconnect import (
    generate_last_connect,
    has_connected_this_month,
    last_connects_of_month,
)

MOMENTS = st.integers(1_500_000_000, 3_500_000_000)


def test_digits():
    now = datetime(2026, 3, 31, 7, 59, tzinfo=UTC).timestamp()
    assert {generate_last_connect(now) // 10_000 for _ in range(50)} == {20260307}
    assert {generate_last_connect(now) % 10_000 for _ in range(500)} <= set(range(11))


@given(MOMENTS)
def test_it_is_of_its_month_and_of_no_other(now):
    record = {"last_connect": generate_last_connect(now)}
    first, last = last_connects_of_month(now)
    assert first <= record["last_connect"] <= last
    assert has_connected_this_month(record, now)
    for days in (-32, 32):
        assert not has_connected_this_month(record, now + days * 86_400)


@pytest.mark.parametrize("record", [{}, {"last_connect": None}, {"last_connect": 0}])
def test_a_record_without_it_is_of_no_month(record):
    assert not has_connected_this_month(record)
