"""What several tests of the manual share."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from pathlib import Path

import pytest

from autopush.tests.docs.support import DOCS

Manual = tuple[Path, subprocess.CompletedProcess[str]]
"""The built manual's folder, and what Sphinx did and said."""


@pytest.fixture(scope="session")
def manual(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Manual:
    """The manual as HTML: built once, also where several processes run the tests."""
    base = tmp_path_factory.getbasetemp()
    folder = base / "manual" if worker_id == "master" else base.parent / "manual"
    folder.mkdir(exist_ok=True)
    html, said = folder / "html", folder / "said.json"
    options = ["-W", "--keep-going", "-q", "-b", "html"]
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not said.exists():
            done = subprocess.run(
                [sys.executable, "-m", "sphinx", *options, DOCS, html],
                capture_output=True,
                text=True,
                timeout=600,
            )
            said.write_text(json.dumps([done.returncode, done.stdout, done.stderr]))
    return html, subprocess.CompletedProcess([], *json.loads(said.read_text()))
