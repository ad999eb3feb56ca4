"""Create a virtual environment with pip, also where Python comes without ensurepip.

Debian and its relatives split ensurepip off into a package of its own; there pip is fetched from
PyPI instead. Usage: ``python3 .ci/make_venv.py DIRECTORY [--fetch-pip]``
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
import venv
from pathlib import Path

OLDEST = (3, 11)
INDEX = "https://pypi.org/pypi/pip/json"


def fetch_pip(directory: Path) -> Path:
    """Download pip's wheel, checked against the index."""
    with urllib.request.urlopen(INDEX, timeout=60) as answer:
        files = json.load(answer)["urls"]
    wheel = next(file for file in files if file["packagetype"] == "bdist_wheel")
    url = urllib.parse.urljoin(INDEX, wheel["url"])  # mirrors may have relative ones
    with urllib.request.urlopen(url, timeout=60) as answer:
        content = answer.read()
    if hashlib.sha256(content).hexdigest() != wheel["digests"]["sha256"]:
        raise SystemExit(f"{url} is damaged")
    path = directory / wheel["filename"]
    path.write_bytes(content)
    return path


def main(target: str, *options: str) -> None:
    """Make the environment."""
    if sys.version_info < OLDEST:
        version = ".".join(map(str, sys.version_info[:2]))
        raise SystemExit(f"Python 3.11 or newer is needed, this is {version}: make PYTHON=...")
    with_pip = "--fetch-pip" not in options and importlib.util.find_spec("ensurepip") is not None
    venv.create(target, clear=True, symlinks=True, with_pip=with_pip)
    if not with_pip:
        with tempfile.TemporaryDirectory() as directory:
            wheel = fetch_pip(Path(directory))
            python = Path(target) / "bin" / "python"
            command = [python, wheel / "pip", "install", "--no-index", "--no-deps", wheel]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
