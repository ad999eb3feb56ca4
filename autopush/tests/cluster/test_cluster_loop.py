"""A short round of fuzz/cluster_loop.py: every promise is kept, whatever fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.cluster_loop import play

SECONDS = 20


@pytest.mark.parametrize("seed", [1])
def test_promises_are_kept(tmp_path: Path, seed: int) -> None:
    ledger = play(tmp_path, SECONDS, seed)
    assert ledger.kept, ledger.summary()
    assert ledger.counts["laps"]
    assert ledger.counts["acknowledgements proven"]
