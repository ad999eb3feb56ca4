"""Make ``dist/autopush.pyz``: all of it in one file, for every CPython from 3.11 on.

Usage: ``.venv-test/bin/python .ci/pyz.py WHEEL TARGET``. Compiled modules carry the version of
Python they are for in their names, so those of all versions lie side by side. They are for the
system and processor this is run on.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TREE = Path(__file__).parents[1]
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
ENTRY_POINT = "autopush.__main__:main"


def install(target: Path, *arguments: str | Path) -> None:
    """Put packages into a folder."""
    subprocess.run([*PIP, "--no-deps", "--no-compile", "--target", target, *arguments], check=True)


def main(wheel: str, target: str) -> None:
    """Collect the packages and pack them."""
    with tempfile.TemporaryDirectory() as name:
        site = Path(name, "site")
        for version in VERSIONS:
            folder = Path(name, version)
            which = ["--python-version", version, "--only-binary", ":all:"]
            install(folder, *which, "--requirement", TREE / "requirements.txt")
            shutil.copytree(folder, site, dirs_exist_ok=True)
        install(Path(name, "own"), wheel)
        shutil.copytree(Path(name, "own"), site, dirs_exist_ok=True)
        shiv = [sys.executable, "-m", "shiv.cli", "--compressed", "--reproducible"]
        python = ["--python", "/usr/bin/env python3"]
        files = ["--site-packages", site, "--output-file", target]
        subprocess.run([*shiv, *python, *files, "--entry-point", ENTRY_POINT], check=True)
    print(f"{target}: {Path(target).stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
