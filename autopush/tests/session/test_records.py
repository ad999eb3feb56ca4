"""Which records are of use, and what is written of a user agent that comes or returns."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from autopush.constants import RECORD_VERSION
from autopush.session.records import (
    NO_IDENTITY,
    NO_MONTH,
    drop_code,
    needs_reset,
    new_record,
    number,
    returning,
)
from autopush.tests.session.support import MONTH, ROUTER_URL, START, UAID

MONTHS: Any = SimpleNamespace(accepts=lambda month: month == MONTH)


def record(**changes):
    return {**new_record(UAID, ROUTER_URL, 1000, MONTH, START), **changes}


@pytest.mark.parametrize(
    ("value", "expected"),
    [(5, 5), (Decimal(5), 5), ("5", 5), (None, None), ("x", None), (Decimal("NaN"), None)],
)
def test_number(value, expected):
    assert number(value) == expected
    assert number(Decimal("Infinity")) is None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"connected_at": 0}, None),
        ({"router_type": None}, NO_IDENTITY),
        ({"connected_at": None}, NO_IDENTITY),
        ({"connected_at": "x", "current_month": None}, NO_IDENTITY),
        ({"current_month": None}, NO_MONTH),
        ({"current_month": "message_1999_01"}, NO_MONTH),
    ],
)
def test_records_of_no_use(changes, code):
    assert drop_code(record(**changes), MONTHS) == code


def test_records_that_are_too_old():
    assert not needs_reset(record())
    assert not needs_reset(record(record_version=RECORD_VERSION + 1))
    for version in (RECORD_VERSION - 1, None, "x"):
        assert needs_reset(record(record_version=version))


def test_of_one_that_returns_only_what_changes_is_written():
    changes = returning(record(), "http://other", 2000, START)
    assert changes == {
        "uaid": UAID,
        "router_type": "webpush",
        "node_id": "http://other",
        "connected_at": 2000,
    }


def test_the_first_connection_of_a_month_is_noted():
    later = START + 40 * 86_400
    changes = returning(record(), ROUTER_URL, 2000, later)
    assert str(changes["last_connect"]).startswith("202701") and "current_month" not in changes
