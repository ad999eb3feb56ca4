"""The manual's examples with a real browser, as they stand there: Selenium and Playwright."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autopush.control.rig import firefox_preferences
from autopush.testing import Push
from autopush.tests import TREE
from autopush.tests.docs.support import captioned, pages
from autopush.tests.e2e.firefox import PROGRAM
from autopush.tests.e2e.harness import free_port
from autopush.tests.senders.programs import Program, built

HERE = Path(__file__).parent
PAGE = "test_browsers"
PORT = "8321"
"""The one of the examples, which somebody else may have; the tests take another one."""

WITHIN = 600
"""Seconds for a run: some of it is the start of Firefox."""

CRATE = f"geckodriver@{(HERE / 'geckodriver/version').read_text().strip()}"
SMALL = "--config profile.dev.debug=false"

needs_firefox = pytest.mark.skipif(PROGRAM is None, reason="no Firefox on this machine")

SELENIUM = Program(
    "selenium",
    run="",
    fetch="python -m pip --disable-pip-version-check --quiet install --no-deps"
    " --require-hashes --target lib -r requirements.txt",
    home=HERE,
)
GECKODRIVER = Program(
    "geckodriver",
    run="",
    tools=("cargo", "cc"),
    fetch=f"cargo info --quiet {CRATE}",
    build=(f"cargo install --quiet --debug --locked {SMALL} --root . {CRATE}",),
    home=HERE,
)
PLAYWRIGHT = Program(
    "playwright",
    run="",
    tools=("node", "npm"),
    fetch="npm ci --ignore-scripts --no-audit --no-fund",
    home=HERE,
)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with the files of the page."""
    port = str(free_port())
    for name, text in captioned(PAGE).items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text.replace(PORT, port))
    return tmp_path


def run(folder: Path, *words: str, **variables: str) -> str:
    """What a command prints, which has to end well."""
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env={**os.environ, "NO_PROXY": "*", "no_proxy": "*", "PYTHONPATH": str(TREE), **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=WITHIN,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def geckodriver() -> Path:
    """The folder of a geckodriver, which is built if there is none."""
    found = shutil.which("geckodriver")
    return Path(found).parent if found else built(GECKODRIVER) / "bin"


@needs_firefox
def test_selenium(site: Path) -> None:
    lib = built(SELENIUM) / "lib"
    said = run(
        site,
        *("pytest", "-q", "-p", "no:cacheprovider", "-p", "autopush.testing.plugin"),
        "test_news.py",
        PATH=f"{geckodriver()}{os.pathsep}{os.environ['PATH']}",
        PYTHONPATH=f"{TREE}{os.pathsep}{lib}",
        SE_OFFLINE="true",
    )
    assert "1 passed" in said


@needs_firefox
def test_playwright(site: Path) -> None:
    (path,) = re.findall(r"executablePath: '(.+)'", captioned(PAGE)["playwright.config.js"])
    if not Path(path).exists():
        pytest.skip(f"no {path} on this machine")
    (site / "node_modules").symlink_to(built(PLAYWRIGHT) / "node_modules")
    said = run(site, "autopush.testing", "--tls", "--", "npx", "playwright", "test")
    assert "1 passed" in said


def test_the_manual_names_the_releases_that_were_tried() -> None:
    asked = json.loads((HERE / "playwright/package.json").read_text())["dependencies"]
    major, minor, _ = asked["@playwright/test"].split(".")
    assert f"Tried with Playwright {major}.{minor} " in pages()[PAGE]


def test_the_manual_lists_the_preferences(push: Push) -> None:
    table = re.search(
        r"^\.\. preferences$(.*?)^\.\. end of preferences$", pages()[PAGE], re.M | re.S
    )
    assert table is not None
    rows = re.findall(r"^   \* - ``(.+)``\n     - (.+)$", table[1], re.M)
    told: dict[str, Any] = {name: value.strip("`") for name, value in rows}
    assert told.pop("dom.push.serverURL") == "the service"
    wanted = firefox_preferences("ws://127.0.0.1:1/")
    assert wanted.pop("dom.push.serverURL") == "ws://127.0.0.1:1/"
    assert told == {name: json.dumps(value) for name, value in wanted.items()}
    assert push.firefox_preferences().keys() == wanted.keys() | {"dom.push.serverURL"}
