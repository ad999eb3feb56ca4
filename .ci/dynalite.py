"""Run the storage tests on dynalite, a DynamoDB in JavaScript (Apache-2.0).

The version is that of .ci/dynalite/package-lock.json; it is installed into .dynalite, once. With
``--if-present`` as the first argument it is no error that Node.js isn't here, or that npm can't
install it. With ``--install`` no test is run: it is only made sure that dynalite is there. All
other arguments are for pytest.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from storage_tests import TREE, free_port, run_on

WANTED = Path(__file__).resolve().with_name("dynalite")
INSTALLED = TREE / ".dynalite"
FILES = ("package.json", "package-lock.json")
SERVER = INSTALLED / "node_modules" / "dynalite" / "cli.js"
TABLES_TAKE = "20"
"""Milliseconds until a table is made or deleted: as long as it is not at once, like DynamoDB's."""


def install(npm: str) -> None:
    """Install what is locked, unless that is there.

    Packages' own scripts are not run: only the back end in memory is used, which is JavaScript.
    """
    lock = FILES[-1]
    have = INSTALLED / lock
    if SERVER.exists() and have.read_bytes() == (WANTED / lock).read_bytes():
        return
    INSTALLED.mkdir(exist_ok=True)
    shutil.rmtree(INSTALLED / "node_modules", ignore_errors=True)
    for name in FILES:
        shutil.copy(WANTED / name, INSTALLED / name)
    print(f"Installing dynalite into {INSTALLED.name} ...", flush=True)
    options = ["--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run([npm, "ci", *options], cwd=INSTALLED, check=True)


def main(arguments: list[str]) -> int:
    optional = arguments[:1] == ["--if-present"]
    arguments = arguments[1:] if optional else arguments
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        missing = "Node.js" if node is None else "npm"
        print(f"Not tested on dynalite: {missing} is not installed (see docs/dynamodb.rst)")
        return 0 if optional else 2
    try:
        install(npm)
    except subprocess.CalledProcessError:
        print("Not tested on dynalite: npm can't install it, and has said why")
        return 0 if optional else 2
    if arguments[:1] == ["--install"]:
        return 0
    port = free_port()
    where = ["--host", "127.0.0.1", "--port", str(port)]
    times = ["--createTableMs", TABLES_TAKE, "--deleteTableMs", TABLES_TAKE]
    return run_on([node, str(SERVER), *where, *times], port, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
