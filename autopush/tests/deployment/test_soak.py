"""bench/soak.py loads the service and tells what its memory is made of."""

from __future__ import annotations

import json
import subprocess
import sys

from autopush.tests import TREE

WORDS = ["--minutes", "0", "--warm", "0", "--count", "100", "--concurrency", "4"]


def test_every_kind_of_memory_is_found(tmp_path):
    result = tmp_path / "result.json"
    words = [sys.executable, str(TREE / "bench" / "soak.py"), *WORDS, "--json", str(result)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    answer = json.loads(result.read_text())
    assert answer["within"] is True
    (sample,) = answer["samples"]
    objects = sample.pop("objects")
    assert all(value > 0 for value in sample.values()), sample
    assert objects["dict"] > 1000
    assert sample["malloc_free"] < sample["malloc"] < sample["own"]
