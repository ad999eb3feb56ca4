"""A short round of fuzz/cluster_loop.py: every promise is kept, whatever fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from autopush.tests.db.postgresql.server import missing
from fuzz.cluster_loop import play
from fuzz.harm import HARMS

SECONDS = 20


@pytest.mark.parametrize("seed", [1])
@pytest.mark.parametrize("store", HARMS)
def test_promises_are_kept(tmp_path: Path, store: str, seed: int) -> None:
    if store == "postgresql" and (reason := missing()):
        pytest.skip(reason)
    ledger = play(tmp_path, SECONDS, seed, store)
    assert ledger.kept, ledger.summary()
    assert ledger.counts["laps"]
    assert ledger.counts["acknowledgements proven"]
