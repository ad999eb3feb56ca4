"""A real Firefox without a window, driven over WebDriver BiDi (https://w3c.github.io/webdriver-bidi/)."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import re
import shutil
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from autopush.control.rig import firefox_preferences
from autopush.tests.e2e.clients import PATIENT

PROGRAM = shutil.which("firefox") or shutil.which("firefox-esr")

LISTENING = re.compile(rb"WebDriver BiDi listening on (ws://\S+)")

PREFERENCES = {
    **firefox_preferences(""),  # no push service, unless a test names one
    "dom.push.loglevel": "all",
    "browser.dom.window.dump.enabled": True,
    "devtools.console.stdout.chrome": True,
    # Nothing but the test talks to the network.
    "app.update.enabled": False,
    "app.normandy.enabled": False,
    "browser.safebrowsing.downloads.remote.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.newtabpage.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,none",
    "toolkit.telemetry.server": "",
}


class Firefox:
    """One browser with a profile of its own; ``async with`` starts and ends it.

    :param profile: an empty directory, or the one of an earlier run
    :param preferences: set on top of :data:`PREFERENCES`
    """

    def __init__(self, profile: Path, **preferences: Any) -> None:
        self.profile = profile
        self.preferences = preferences
        self.log: list[str] = []
        self._ids = itertools.count(1)
        self._context = ""
        self._process: asyncio.subprocess.Process
        self._reader: asyncio.Task[None]
        self._bidi: ClientConnection

    async def __aenter__(self) -> Firefox:
        assert PROGRAM is not None
        lines = [
            f"user_pref({json.dumps(name)}, {json.dumps(value)});"
            for name, value in {**PREFERENCES, **self.preferences}.items()
        ]
        (self.profile / "user.js").write_text("\n".join(lines))
        self._process = await asyncio.create_subprocess_exec(
            PROGRAM,
            "--headless",
            "--no-remote",
            "--remote-debugging-port=0",
            "--profile",
            str(self.profile),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={"HOME": str(self.profile), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
            limit=1 << 20,
        )
        url = await self._address()
        self._reader = asyncio.create_task(self._read())
        self._bidi = await connect(url + "/session", max_size=None, **PATIENT)
        await self.command("session.new", capabilities={})
        tree = await self.command("browsingContext.getTree")
        self._context = tree["contexts"][0]["context"]
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._bidi.close()
        if self._process.returncode is None:
            self._process.terminate()
        await self._process.wait()
        await self._reader

    async def _address(self) -> str:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.log.append(line.decode("utf-8", "replace"))
            found = LISTENING.search(line)
            if found:
                return found.group(1).decode()
        raise AssertionError("Firefox ended:\n" + "".join(self.log))

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.log.append(line.decode("utf-8", "replace"))

    async def command(self, method: str, **params: Any) -> Any:
        """Run a BiDi command; its result."""
        number = next(self._ids)
        await self._bidi.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            answer = json.loads(await self._bidi.recv())
            if answer.get("id") == number:
                if "result" not in answer:
                    raise AssertionError(f"{method}: {answer}")
                return answer["result"]

    async def open(self, url: str) -> None:
        """Show a page."""
        await self.command(
            "browsingContext.navigate", context=self._context, url=url, wait="complete"
        )

    async def load(self, script: str) -> None:
        """Run a script in the page, whatever its policy says."""
        await self.command(
            "script.evaluate",
            expression=f"{script};undefined",
            target={"context": self._context},
            awaitPromise=False,
        )

    async def press(self, key: str) -> None:
        """Press a key, and let it go."""
        actions = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
        await self.command(
            "input.performActions",
            context=self._context,
            actions=[{"type": "key", "id": "keyboard", "actions": actions}],
        )

    async def resize(self, width: int, height: int) -> None:
        """Give the page that many pixels of CSS."""
        await self.command(
            "browsingContext.setViewport",
            context=self._context,
            viewport={"width": width, "height": height},
        )

    async def screenshot(self) -> bytes:
        """The whole page as WebP, which is a third of PNG."""
        taken = await self.command(
            "browsingContext.captureScreenshot",
            context=self._context,
            origin="document",
            format={"type": "image/webp", "quality": 0.75},
        )
        return base64.b64decode(taken["data"])

    async def run(self, expression: str) -> Any:
        """Evaluate JavaScript in the page, as if its user had just clicked, awaiting a promise; the
        value must fit in JSON."""
        result = await self.command(
            "script.evaluate",
            expression=f"(async () => JSON.stringify(await ({expression})))()",
            target={"context": self._context},
            awaitPromise=True,
            userActivation=True,
        )
        if result["type"] != "success":
            raise AssertionError(result["exceptionDetails"]["text"])
        value = result["result"].get("value")
        return None if value is None else json.loads(value)
