"""What docs/dynamodb.rst says of units and costs is what bench/units.py counts, without a clock."""

from __future__ import annotations

import importlib
import re
import sys
from typing import Any

import pytest

from autopush.tests import TREE
from autopush.tests.docs.support import pages, table

BENCH = str(TREE / "bench")


@pytest.fixture(scope="module")
def units():
    """bench/units.py, and nothing of its neighbours left behind."""
    before = set(sys.modules), list(sys.path)
    sys.path.insert(0, BENCH)
    try:
        yield importlib.import_module("units")
    finally:
        sys.path[:] = before[1]
        for name in set(sys.modules) - before[0]:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(BENCH):
                del sys.modules[name]


@pytest.fixture(scope="module")
def visit(units):
    visit = units.Visit()
    visit.run()
    return visit


def numbers(row: list[str]) -> list[float]:
    return [float(cell) for cell in row[1:]]


def test_each_operation_costs_what_the_table_says(visit):
    counted = [[row.name, row.requests, *row.units] for row in visit.rows]
    shown = [[row[0], *numbers(row)] for row in table("dynamodb-units")]
    assert shown == counted


def test_the_example_is_what_the_formula_gives(units, visit):
    shares = units.monthly(units.Rates(), visit.rows, visit.row_size)
    shown = [[row[0], *numbers(row)] for row in table("dynamodb-month")]
    assert shown == [list(share) for share in shares]


def test_the_formula_of_the_page_is_that_of_the_program(units, visit):
    formulas = dict(
        re.findall(r"^   (read|write) units +=(.+)$", pages()["dynamodb"], re.MULTILINE)
    )
    rates = units.Rates(users=3, connections=5, direct=7, stored=11, fetches=13, new=17)
    letters: dict[str, Any] = dict(zip("UCDSFN", rates, strict=True))
    letters |= {"r": visit.row_size, "w": 2}
    together = units.monthly(rates, visit.rows, visit.row_size)[-1]
    for name, units_counted in (("read", together.read), ("write", together.written)):
        assert eval(formulas[name].strip(), {}, letters) == pytest.approx(units_counted, abs=1)


def test_the_example_is_multiplied_by_the_prices_that_are_assumed():
    (*_, together) = table("dynamodb-month")
    read, written = (units / 1e6 for units in numbers(together))
    text = pages()["dynamodb"]
    assert "*p* = 0.125 and *q* = 0.625" in text
    ((_, *shown),) = table("dynamodb-price")
    costs = read * 0.125, written * 0.625
    assert [float(cell) for cell in shown] == [round(cost) for cost in (*costs, sum(costs))]


def test_a_row_has_the_size_that_the_page_says(units, visit):
    text = " ".join(pages()["dynamodb"].split())
    assert f"4/3 of its body, as it is kept in base64, and {visit.overhead()} bytes" in text
    for body, written in ((483, 1), (484, 2), (1251, 2), (1252, 3), (4096, 6)):
        other = units.Visit(body)
        stored = next(row for row in other.run() if row.name == units.STORED)
        assert stored.units.written == written, body


def test_a_fetch_costs_no_more_than_the_formula_has(units, visit):
    """But for what the first look at the rows reads of them."""
    fetched = visit.rows[-1].units
    most = units.FETCH_READ + units.TEN * visit.row_size / 4096
    assert 0 < fetched.read - 1 <= most
    assert fetched.written == units.FETCH_WRITE


@pytest.mark.parametrize(
    ("item", "size"),
    [
        ({}, 0),
        (None, 0),
        ({"a": {"S": "bcd"}}, 4),
        ({"a": {"S": "\u00fc"}}, 3),
        ({"a": {"N": "0"}}, 3),
        ({"ab": {"N": "1795459299164"}}, 10),
        ({"a": {"N": "100"}}, 3),
        ({"a": {"N": "-12"}}, 4),
        ({"a": {"SS": ["bc", "d"]}}, 4),
        ({"a": {"NULL": True}}, 2),
        ({"a": {"M": {"b": {"S": "c"}}}}, 7),
        ({"a": {"L": [{"S": "c"}]}}, 6),
    ],
)
def test_items_are_as_large_as_amazon_says(units, item, size):
    assert units.size_of(item) == size


def test_units_are_those_begun(units):
    meter = units.Tables().meter
    meter.read("router", [{"a": {"S": "x" * 4095}}], True)
    assert meter.total() == units.Units()  # it is not on
    meter.on = True
    meter.read("router", [{"a": {"S": "x" * 4095}}], True)
    meter.read("router", [None], False)
    meter.read("messages", [{"a": {"S": "x" * 3000}}] * 2, True)
    meter.write("messages", [{"a": {"S": "x" * 1024}}, {"a": {"S": "x"}}])
    meter.write("router", [None])
    assert meter.total() == units.Units(1.5, 1, 2, 2)
