"""What several tests of the manual share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from autopush.tests.docs.support import DOCS

Manual = tuple[Path, subprocess.CompletedProcess[str]]
"""The built manual's folder, and what Sphinx did and said."""


@pytest.fixture(scope="session")
def manual(tmp_path_factory: pytest.TempPathFactory) -> Manual:
    """The manual as HTML."""
    html = tmp_path_factory.mktemp("manual")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", DOCS, html],
        capture_output=True,
        text=True,
        timeout=600,
    )
    return html, done
