"""bench/soak.py loads the service and tells what its memory is made of."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from argparse import Namespace
from collections import Counter

import pytest

from autopush.tests import TREE

TOOL = TREE / "bench" / "soak.py"
WORDS = ["--minutes", "0", "--warm", "0", "--fill", "150", "--count", "100", "--concurrency", "4"]


def test_every_kind_of_memory_is_found(tmp_path):
    result = tmp_path / "result.json"
    words = [sys.executable, str(TOOL), *WORDS, "--json", str(result)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    answer = json.loads(result.read_text())
    assert answer["within"] is True
    (sample,) = answer["samples"]
    objects = sample.pop("objects")
    assert all(value > 0 for value in sample.values()), sample
    assert objects["dict"] > 1000
    assert sample["malloc_free"] < sample["malloc"] < sample["own"]


@pytest.fixture(scope="module")
def tool():
    before = list(sys.path)
    spec = importlib.util.spec_from_file_location("bench_soak", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]
    sys.path[:] = before


def report(tool, *own, warm=5, within=2):
    """Of these MiB, one a minute."""
    samples = [
        tool.Sample(minute, int(size * tool.MiB), 1, 1, 1, 1, 1, Counter(Session=minute))
        for minute, size in enumerate(own)
    ]
    return tool.report(samples, Namespace(warm=warm, within=within, json=None))


def test_what_comes_after_the_warm_up_is_compared_with_its_end(tool, capsys):
    assert report(tool, 50, 60, 70, 80, 90, 100, 101, 101.5, 101)
    assert "minute 5.0: 100.00 MiB; at most 101.50 MiB (minute 7.0): +1.50 %" in (
        capsys.readouterr().out
    )


def test_too_much_at_any_time_is_too_much(tool, capsys):
    assert not report(tool, 50, 60, 70, 80, 90, 100, 101, 103, 100)
    told = capsys.readouterr().out
    assert "TOO MUCH" in told
    assert "Session: 5 -> 8 (+3)" in told


def test_the_caches_are_filled_before(tool):
    """Each user of a round is sent one message when it is there, and one when it isn't."""
    done = []

    class Bench:
        args = Namespace(count=3)
        loop = None
        server = Namespace(address=("127.0.0.1", 1), url="http://127.0.0.1:1")

        def flow(self, requests):
            there = [browser is not None for _, browser in requests]
            senders = {request.partition(b", k=")[2].split()[0] for request, _ in requests}
            done.append((len(senders), there))

        def disconnect(self, browsers):
            done.append("away")

    def connect(loop, address, count, key):
        return [Namespace(endpoint=f"http://127.0.0.1:1/wpush/v1/{n}") for n in range(count)]

    tool.connect_browsers, connected = connect, tool.connect_browsers
    try:
        tool.fill(Bench(), 5)
    finally:
        tool.connect_browsers = connected
    assert done == [
        item
        for count in (3, 2)
        for item in ((count, [True] * count), "away", (count, [False] * count))
    ]
