"""bench/cluster.py runs, and measures what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from autopush.tests import TREE
from autopush.tests.cluster.harness import STORAGES


@pytest.mark.parametrize("store", STORAGES)
def test_bench_measures_every_part(store, tmp_path):
    """What it measures depends on the machine, so no bar is checked here."""
    result = tmp_path / "result.json"
    words = [sys.executable, str(TREE / "bench" / "cluster.py"), store]
    words += ["--count", "100", "--rounds", "1", "--concurrency", "4", "--json", str(result)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=1000)
    assert "Traceback" not in done.stderr, done.stderr
    figures = {
        row["name"].removeprefix(f"{store}: "): row for row in json.loads(result.read_text())
    }
    barred = [row for row in figures.values() if row["bar"] is not None]
    assert len(barred) == 5
    for row in figures.values():
        assert row["value"] > 0, row
    if store == "dynamodb":
        calls = {name: row["value"] for name, row in figures.items() if "calls" in name}
        for name, value in calls.items():
            expected = {
                "direct": 1,
                "stored": 5,  # one of them forgets the node: each is the first to this user
                # Around the end of a month it looks into two tables for what it may replace.
                "first subscription": 4 if _month_is_changing() else 2,
                "hello, returning user": 2,
            }
            if name.partition(":")[0] in expected:
                assert value == pytest.approx(expected[name.partition(":")[0]], abs=0.3), name


def _month_is_changing() -> bool:
    now, day = datetime.now(UTC), timedelta(days=1)
    return (now - day).month != (now + day).month
