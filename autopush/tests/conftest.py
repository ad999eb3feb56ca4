"""Settings of the whole test-suite."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
from httpx._config import DEFAULT_TIMEOUT_CONFIG
from twisted.logger import globalLogBeginner
from twisted.trial import util
from websockets.asyncio import client as asyncio_client
from websockets.sync import client as sync_client

from autopush.testing.browser import Browser
from autopush.tests.session import changes

LONGEST_ID = 40
"""Longer parameters (keys and tokens, mostly made anew for each run) don't become part of a test's
name: parallel workers must find the same names."""


PATIENCE = 60.0
"""Seconds to wait for anything over HTTP and WebSocket, where a test doesn't say: httpx gives up
after five, websockets and a browser of ours after ten, which are soon over on a machine that is
busy with others."""

LONGEST_TEST = 1800.0
"""Seconds until trial gives up a test; of itself it would after 120."""


def pytest_configure(config: pytest.Config) -> None:
    """Be patient, and begin to log, to nowhere: else Twisted keeps the failures that
    tests provoke and replays them into whichever test begins to log first."""
    for part in ("connect", "read", "write", "pool"):
        setattr(DEFAULT_TIMEOUT_CONFIG, part, PATIENCE)
    for connect in (asyncio_client.connect.__init__, sync_client.connect):
        defaults: Any = connect.__kwdefaults__
        assert {"open_timeout", "ping_timeout"} <= set(defaults)
        defaults.update(open_timeout=PATIENCE, ping_timeout=PATIENCE)
    for wait in (Browser.wait, Browser.wait_async):
        wait.__defaults__ = (PATIENCE,)
    util.DEFAULT_TIMEOUT_DURATION = LONGEST_TEST
    hypothesis.settings.register_profile(
        "patient",
        deadline=None,
        # The same examples each time: what is new is looked for when somebody means to.
        derandomize="EXPLORE" not in os.environ,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    hypothesis.settings.load_profile("patient")
    nowhere: Any = lambda event: None  # noqa: E731
    globalLogBeginner.beginLoggingTo([nowhere], True, redirectStandardIO=False)
    changes.install()


@pytest.fixture(autouse=True)
def changes_of_state() -> Iterator[None]:
    """Fail a test in which something changed its state in a way that no table knows."""
    yield
    assert changes.faults() == []


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name a parameter after its argument where its value is no good name."""
    if isinstance(val, str | bytes) and len(val) > LONGEST_ID:
        return argname
    return None
