"""The benchmarks that nothing else runs: small runs, of which no bar is judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autopush.tests import TREE


def run(tmp_path: Path, name: str, *words: str) -> dict[str, float]:
    """Run one; its figures."""
    result = tmp_path / "result.json"
    command = [sys.executable, str(TREE / "bench" / name), *words, "--json", str(result)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert "Traceback" not in done.stderr, done.stderr
    assert result.exists(), done.stderr
    answer: dict[str, Any] = json.loads(result.read_text())
    return {row["name"].strip(): row["value"] for row in answer["figures"]}


def test_all_are_back_after_a_storm_and_nobody_was_refused(tmp_path):
    figures = run(tmp_path, "storm.py", "--users", "150", "--at_a_time", "20")
    assert figures.pop("messages refused") == 0
    figures.pop("memory, per user")  # of so few it is what was free before
    assert len(figures) == 6
    assert all(value > 0 for value in figures.values()), figures


def test_a_change_of_a_broadcast_is_told_to_all(tmp_path):
    figures = run(tmp_path, "broadcast.py", "--connections", "20", "--seconds", "1")
    assert figures["change: told"] == 100
    assert figures["POST to frame, while it is told, p50"] > 0
    assert len(figures) == 8


WORKERS = ["--count", "100", "--rounds", "1", "--concurrency", "4", "--workers", "3"]


@pytest.mark.parametrize("part", ["direct", "late", "stored"])
def test_several_workers_beside_one(part, tmp_path):
    figures = run(tmp_path, "workers.py", part, *WORKERS)
    cpu = [value for name, value in figures.items() if name.endswith("workers: CPU")]
    assert len(cpu) == 3
    assert all(value > 0 for value in figures.values()), figures


def test_how_connections_spread(tmp_path):
    figures = run(tmp_path, "workers.py", "spread", *WORKERS)
    most = [value for name, value in figures.items() if "most" in name]
    assert len(most) == 6
    assert all(100 <= value <= 300 for value in most), figures


def test_more_idle_connections_than_a_process_may_open_files(tmp_path):
    words = ["--connections", "600", "--files", "400", *WORKERS]
    figures = run(tmp_path, "workers.py", "idle", *words)
    assert figures["idle connections"] == 600
    assert 200 <= figures["most of a worker"] < 400
