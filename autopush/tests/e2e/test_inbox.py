"""The page of the test mode, in Firefox: it shows what tests do, and keeps nobody out."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from pywebpush import WebPushException, webpush

from autopush.testing import Push
from autopush.testing.plugin import push as push, push_service as push_service
from autopush.tests.e2e.firefox import PROGRAM, Firefox
from autopush.tests.e2e.test_page import (
    AXE,
    DARK,
    DESK,
    KEPT_OUT,
    LIGHT,
    PHONE,
    SCHEME,
    VIOLATIONS,
    until,
)
from autopush.tests.senders.programs import built

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Firefox on this machine")

PICTURE = (760, 800)
"""Pixels of the one the manual has; it is put into the folder that ``SCREENSHOTS`` names."""

STATE = "Fault in force: too-many. The clock is 3,600 seconds ahead."
"""What the page says when it has seen all that :func:`use` does."""

ROWS = """[...document.getElementById('inbox-NAME').rows]
  .map(row => [...row.cells].map(cell => cell.textContent))"""


def rows(name: str) -> str:
    """What a table shows: an expression."""
    return ROWS.replace("NAME", name)


def use(push: Push) -> None:
    """What tests do: a message that comes, one that waits, and one that is refused."""
    browser, away = push.browser(), push.browser()
    subscription = browser.subscribe()
    webpush(subscription, '{"title": "Rain"}', ttl=60, headers={"Topic": "weather"})
    browser.wait()
    other = away.subscribe()
    away.offline()
    webpush(other, "later", ttl=60)
    browser.expire(subscription)
    with pytest.raises(WebPushException):
        webpush(subscription, "too late", ttl=60)
    push.advance(3600)
    push.fail(429, retry_after=30)


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
async def test_it_shows_what_tests_do(push: Push, tmp_path: Path, scheme: int) -> None:
    """As it happens; axe finds nothing on a phone or on a desk, and its policy stops nothing."""
    axe = (built(AXE) / "node_modules/axe-core/axe.min.js").read_text("utf-8")
    preferences: dict[str, Any] = {**push.firefox_preferences(), SCHEME: scheme}
    async with Firefox(tmp_path, **preferences) as firefox:
        await firefox.command("script.addPreloadScript", functionDeclaration=KEPT_OUT)
        await firefox.open(push.url)
        await until(firefox, "document.getElementById('inbox-messages').dataset.said")
        assert await firefox.run(rows("messages")) == [["none"]]
        await asyncio.to_thread(use, push)
        # It looks every few seconds, so it may have seen but the beginning.
        await until(firefox, f"document.getElementById('inbox-state').textContent === '{STATE}'")
        subscriptions = await firefox.run(rows("subscriptions"))
        assert [state for _, state, _ in subscriptions] == ["offline", "online"]
        away, browser = (name for name, _, _ in subscriptions)
        later, rain = await firefox.run(rows("messages"))
        assert rain[1:] == [
            f"browser {browser}",
            '{"title": "Rain"}',
            "yes",
            "TTL 60, Topic weather",
        ]
        assert later[1:2] + later[3:] == [f"browser {away}", "not yet", "TTL 60"]
        assert "bytes, encrypted" in later[2]
        (refused,) = await firefox.run(rows("refused"))
        assert refused[2] == "410" and refused[3]
        await firefox.load(axe)
        for size in (PHONE, DESK):
            await firefox.resize(*size)
            assert await firefox.run(VIOLATIONS) == []
            assert await firefox.run("document.documentElement.scrollWidth <= window.innerWidth")
        assert await firefox.run("window.keptOut") == []
        await firefox.resize(*PICTURE)
        picture = await firefox.screenshot()
    assert picture[:4] == b"RIFF"
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    if scheme == LIGHT:
        (folder / "page-inbox.webp").write_bytes(picture)
