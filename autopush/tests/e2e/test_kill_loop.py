"""A short round of fuzz/kill_loop.py: every promise is kept although the process is killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.kill_loop import KillLoop

ROUNDS = 6
HOURS = 3600.0


@pytest.mark.parametrize(("seed", "terms", "workers"), [(1, 0.0, 1), (2, 0.5, 1), (3, 0.2, 3)])
async def test_promises_are_kept(tmp_path: Path, seed: int, terms: float, workers: int) -> None:
    loop = KillLoop(tmp_path, seed, terms, workers)
    try:
        ledger = await loop.run(ROUNDS, HOURS)
    finally:
        loop.server.close()
    assert ledger.kept, ledger.summary()
    assert ledger.counts["rounds"] == ROUNDS
    assert ledger.counts["acknowledgements proven"] > ROUNDS
    assert ledger.counts["channels unregistered"] > ROUNDS
