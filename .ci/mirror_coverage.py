"""How much of each module its own tests reach: those that mirror it, not all that pass through it.

Usage: ``python3 .ci/mirror_coverage.py [MODULE ...]`` (of ``make mirror-coverage``)

Runs the tests that mirror the modules (see ``mirrors.py``), once, and prints for each module the
part of its lines that its own tests executed in their process, least first, and the missing lines.
Without MODULE it looks at the packages of :data:`CORE`. The status is 1 only if a test fails.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import coverage
from mirrors import PACKAGE, mirrors, modules

TREE = Path(__file__).parents[1]
CORE = ("message", "session", "db", "websocket", "httpserver", "router", "web")
"""Packages whose tests run in one process; those of the others start commands."""


class Reached(NamedTuple):
    """What of a module its own tests executed."""

    module: str
    lines: int
    missing: list[int]

    @property
    def percent(self) -> float:
        """Of its lines; a module without any is reached."""
        return 100 * (1 - len(self.missing) / self.lines) if self.lines else 100.0

    def __str__(self) -> str:
        return f"{self.percent:6.1f} %  {self.module}  {ranges(self.missing)}".rstrip()


def ranges(lines: list[int]) -> str:
    """Write line numbers the short way: ``3-5, 9``."""
    runs: list[list[int]] = []
    for line in sorted(lines):
        if runs and line == runs[-1][-1] + 1:
            runs[-1].append(line)
        else:
            runs.append([line])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def run_tests(tree: Path, tests: list[Path], data_file: Path) -> bool:
    """Run tests, noting which of them executed which line; whether they passed."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--cov",
               "--cov-context=test", "--cov-report=", "--cov-fail-under=0"]  # fmt: skip
    env = {**os.environ, "COVERAGE_FILE": str(data_file)}
    return subprocess.run([*command, *map(str, tests)], cwd=tree, env=env).returncode == 0


def reached(tree: Path, module: Path, found: coverage.Coverage) -> Reached:
    """Compare a module's lines with those that its own tests executed.

    What runs at its import is executed by whichever test comes first, and counts.
    """
    _, statements, _, missing, _ = found.analysis2(str(module))
    own = {path.relative_to(tree).as_posix() for path in mirrors(tree, module)}
    contexts = found.get_data().contexts_by_lineno(str(module))
    absent = set(missing)
    for line in statements:
        tests = contexts.get(line, [])
        if all(test and test.partition("::")[0] not in own for test in tests):
            absent.add(line)
    return Reached(module.relative_to(tree).as_posix(), len(statements), sorted(absent))


def main(arguments: list[str] | None = None, tree: Path = TREE) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(
        "mirror_coverage.py", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("modules", nargs="*", type=Path, metavar="MODULE")
    named = [tree / path for path in parser.parse_args(arguments).modules]
    looked_at = named or [
        path for path in modules(tree) if path.relative_to(tree / PACKAGE).parts[0] in CORE
    ]
    tests = sorted({test for module in looked_at for test in mirrors(tree, module)})
    if not tests:
        parser.error("no tests mirror these")
    with tempfile.TemporaryDirectory() as directory:
        data_file = Path(directory) / "coverage"
        passed = run_tests(tree, tests, data_file)
        found = coverage.Coverage(
            data_file=str(data_file), config_file=str(tree / "pyproject.toml")
        )
        found.load()
        results = [reached(tree, module, found) for module in looked_at]
    for result in sorted(results, key=lambda result: result.percent):
        print(result)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
