"""bench/compare.py measures two services with the same load, whatever they are made of."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from autopush.tests import TREE

COMPARE = str(TREE / "bench" / "compare.py")
CLUSTER = str(TREE / "bench" / "sides" / "cluster-sqlite.toml")


def compare(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, COMPARE, *words], capture_output=True, text=True, timeout=600, cwd=TREE
    )


def test_a_checkout_and_a_file_that_names_processes(tmp_path):
    """What the ratio is depends on the machine; that there is one does not."""
    result = tmp_path / "result.json"
    words = ["--count", "100", "--rounds", "1", "--concurrency", "4", "--json", str(result)]
    done = compare(".", CLUSTER, *words, "--parts", "direct", "stored")
    assert done.returncode == 0, done.stderr
    answer = json.loads(result.read_text())
    assert answer["sides"] == [TREE.name, "cluster on SQLite"]
    rows = {row["name"]: row for row in answer["figures"]}
    assert set(rows) == {"direct: CPU", "stored: CPU", "stored, then fetched: CPU of the fetch"}
    for row in rows.values():
        assert row["unit"] == "µs"
        assert row["ratio"] == pytest.approx(row["second"] / row["first"], abs=0.01)
        assert f"{row['ratio']:.2f}" in done.stdout


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "No such file"),
        ("name = ", "side.toml: "),
        ('websocket = "{port:a}"', "'process' is missing"),
        ('process = [{command = ["/nowhere/at/all"], listens = "1"}]', "No such file"),
        ('process = [{command = ["false"], listens = "{port:a}"}]', "did not start"),
        ('process = [{command = ["{env:NOT_THERE}"], listens = "1"}]', "'NOT_THERE' is missing"),
    ],
)
def test_a_side_that_cannot_be_started_is_told(text, told, tmp_path):
    side = tmp_path / "side.toml"
    if text is not None:
        side.write_text(text)
    done = compare(str(side), CLUSTER, "--rounds", "1")
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_directory_that_is_no_checkout(tmp_path):
    done = compare(str(tmp_path), CLUSTER)
    assert done.returncode == 1
    assert "is no checkout of autopush" in done.stderr
