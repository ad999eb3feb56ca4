"""Write the hashes of all files of each pinned release into the requirements files.

Usage: ``python3 .ci/lock.py [NAME==VERSION ...]``; the arguments change versions that are already
pinned, in each file that has them. Nothing is resolved: the pins stay what they are (cyclone's
metadata could not be resolved anyhow), and a test says when one is missing or does not fit.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

TREE = Path(__file__).parents[1]
FILES = ("requirements.txt", "test-requirements.txt", "doc-requirements.txt")
TOOL = "uv==0.13.9"
OLDEST = "3.11"
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)


def canonical(name: str) -> str:
    """The normal form of a package's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def split(text: str) -> tuple[str, dict[str, str]]:
    """Return the comment a requirements file begins with, and its pins."""
    comment = re.match(r"(?:#.*\n)*", text)
    assert comment is not None
    return comment[0], {canonical(name): version for name, version in PIN.findall(text)}


def changed(pins: dict[str, str], changes: dict[str, str]) -> dict[str, str]:
    """Return the pins with those changes that are about one of them."""
    return {name: changes.get(name, version) for name, version in pins.items()}


def with_hashes(pins: dict[str, str], uv: Path, directory: Path) -> str:
    """Return the lines of a lock.

    :raises subprocess.CalledProcessError: a release does not exist; uv says which
    """
    source, target = directory / "pins.in", directory / "lock.txt"
    source.write_text("".join(f"{name}=={version}\n" for name, version in sorted(pins.items())))
    target.unlink(missing_ok=True)
    command = [uv, "pip", "compile", "--quiet", "--no-config", "--no-deps", "--generate-hashes"]
    layout = ["--no-header", "--no-annotate", "--universal", "--python-version", OLDEST]
    subprocess.run([*command, *layout, "--output-file", target, source], check=True)
    return target.read_text()


def main(*arguments: str) -> None:
    """Renew all files."""
    changes = {canonical(name): version for name, version in PIN.findall("\n".join(arguments))}
    locks = {TREE / name: split((TREE / name).read_text()) for name in FILES}
    unknown = set(changes) - {name for _, pins in locks.values() for name in pins}
    if unknown or len(changes) != len(arguments):
        raise SystemExit(f"NAME==VERSION of pinned packages, please: {' '.join(arguments)}")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        make_venv = [sys.executable, TREE / ".ci" / "make_venv.py", directory / "venv"]
        subprocess.run(make_venv, check=True)
        bin_ = directory / "venv" / "bin"
        pip = [bin_ / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, TOOL], check=True)
        for path, (comment, pins) in locks.items():
            path.write_text(comment + with_hashes(changed(pins, changes), bin_ / "uv", directory))
            print(f"{path.name}: {len(pins)} releases")


if __name__ == "__main__":
    main(*sys.argv[1:])
