"""Settings of the whole test-suite."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.logger import globalLogBeginner

LONGEST_ID = 40
"""Longer parameters (keys and tokens, mostly made anew for each run) don't become part of a test's
name: parallel workers must find the same names."""


def pytest_configure(config: pytest.Config) -> None:
    """Begin to log, to nowhere: else Twisted keeps the failures that tests provoke and replays them
    into whichever test begins to log first."""
    nowhere: Any = lambda event: None  # noqa: E731
    globalLogBeginner.beginLoggingTo([nowhere], True, redirectStandardIO=False)


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name a parameter after its argument where its value is no good name."""
    if isinstance(val, str | bytes) and len(val) > LONGEST_ID:
        return argname
    return None
