"""Change one thing in a module and see whether the tests that mirror it notice.

Usage: ``python3 .ci/mutants.py [OPTIONS] [MODULE ...] [--tests FILE ...]``

Works in a copy of the tree. A mutant is *killed* if a test fails (or does not end), else it
*survived*: a rule without a test, or a change that means the same. Survivors are printed for
someone to look at; the status is 1 only if the tests fail without any change. Without MODULE a few
are taken that have tests mirroring them. Modules, positions and changes follow from the seed.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mirrors import mirrors, modules, own

TREE = Path(__file__).parents[1]
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "_build", "*.egg-info", "autopush-data")
MODULES = 4
"""How many are taken when none is named."""

SLOWER = 5
"""Times as long as without a change, and :data:`MARGIN` seconds, a mutant's tests may take."""
MARGIN = 30

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
QUIET_CALLS = {"debug", "info", "warn", "failure", "increment", "timing", "gauge"}
"""Methods whose calls aren't dropped: what is logged and counted is looked at elsewhere."""


class Mutant(NamedTuple):
    """One change: ``old`` at bytes ``start`` to ``end`` becomes ``new``."""

    line: int
    start: int
    end: int
    old: str
    new: str

    def apply(self, source: bytes) -> bytes:
        """The module with this change."""
        return source[: self.start] + self.new.encode() + source[self.end :]

    def __str__(self) -> str:
        old, new = (" ".join(text.split()) for text in (self.old, self.new))
        return f"{self.line}: {old}  ->  {new}"


# ----------------------------------------------------------------------------- what is changed


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what a node may become."""
    changed = copy.deepcopy(node)
    if isinstance(changed, ast.Compare) and len(changed.ops) == 1:
        changed.ops = [COMPARISONS[type(changed.ops[0])]()]
        yield changed
    elif isinstance(changed, ast.BoolOp):
        changed.op = ast.Or() if isinstance(changed.op, ast.And) else ast.And()
        yield changed
    elif isinstance(changed, ast.UnaryOp) and isinstance(changed.op, ast.Not):
        yield changed.operand
    elif isinstance(changed, ast.BinOp) and type(changed.op) in ARITHMETIC:
        changed.op = ARITHMETIC[type(changed.op)]()
        yield changed
    elif isinstance(changed, ast.Constant) and isinstance(changed.value, int):
        value = changed.value
        yield ast.Constant(not value if isinstance(value, bool) else value + 1)
    elif isinstance(changed, ast.Return) and ast.unparse(changed) not in ("return", "return None"):
        yield ast.Return(ast.Constant(None))
    elif is_step(changed):
        yield ast.Pass()


def is_step(node: ast.AST) -> bool:
    """Whether it is a call for its effect, or sets an attribute."""
    if isinstance(node, ast.Assign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return all(isinstance(target, ast.Attribute) for target in targets)
    if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        return False
    return getattr(node.value.func, "attr", None) not in QUIET_CALLS


def code(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that say what is done: no annotations, nothing for the type checker only."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr):
                yield from code(child)


def mutants(source: bytes) -> list[Mutant]:
    """Return all changes of a module, in the order of the text."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = []
    for node in code(ast.parse(source)):
        for changed in changes(node):
            assert isinstance(node, ast.expr | ast.stmt)
            assert node.end_lineno is not None and node.end_col_offset is not None
            start = starts[node.lineno - 1] + node.col_offset
            end = starts[node.end_lineno - 1] + node.end_col_offset
            text = ast.unparse(changed)
            new = f"({text})" if isinstance(node, ast.expr) else text
            found.append(Mutant(node.lineno, start, end, source[start:end].decode(), new))
    return sorted(found, key=lambda mutant: (mutant.start, mutant.end, mutant.new))


# ---------------------------------------------------------------------------- who has to notice


def some_modules(tree: Path, rng: random.Random) -> list[Path]:
    """Return a few modules that have tests of their own."""
    tested = [path for path in modules(tree) if own(tree, path)]
    return rng.sample(tested, min(MODULES, len(tested)))


def passes(tree: Path, tests: list[Path], timeout: float | None = None) -> bool:
    """Whether the tests pass, in time."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    # Bytecode is told apart by size and second, mutants often aren't.
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "HYPOTHESIS_STORAGE_DIRECTORY": os.devnull}
    with subprocess.Popen(
        [str(word) for word in command],
        cwd=tree,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            return process.wait(timeout) == 0
        except subprocess.TimeoutExpired:
            return False
        finally:
            # Also what the tests started, which a mutant may have made forget.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


# ------------------------------------------------------------------------------------- the run


class Run:
    """Mutants of several modules, bounded in number and time.

    :param tree: a copy, which is changed
    :param until: monotonic seconds
    """

    def __init__(self, tree: Path, rng: random.Random, until: float) -> None:
        self.tree = tree
        self.rng = rng
        self.until = until
        self.killed = 0
        self.survivors: list[str] = []

    def module(self, path: Path, tests: list[Path], count: int) -> bool:
        """Try some mutants of a module; False: its tests fail as it is."""
        name = path.relative_to(self.tree)
        begun = time.monotonic()
        if not passes(self.tree, tests):
            print(f"{name}: its tests fail without any change")
            return False
        timeout = (time.monotonic() - begun) * SLOWER + MARGIN
        source = path.read_bytes()
        possible = mutants(source)
        print(f"{name}: {min(count, len(possible))} of {len(possible)} mutants", flush=True)
        try:
            for mutant in self.rng.sample(possible, min(count, len(possible))):
                if time.monotonic() > self.until:
                    break
                path.write_bytes(mutant.apply(source))
                if passes(self.tree, tests, timeout):
                    self.survivors.append(f"{name}:{mutant}")
                    print(f"  survived: {name}:{mutant}", flush=True)
                else:
                    self.killed += 1
        finally:
            path.write_bytes(source)
        return True


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser("mutants.py", description=(__doc__ or "").split("\n")[0])
    options.add_argument("modules", nargs="*", type=Path, metavar="MODULE")
    options.add_argument("--tests", nargs="+", type=Path, help="default: those that mirror it")
    options.add_argument("--count", type=int, default=20, help="mutants, all modules together")
    options.add_argument("--seconds", type=float, default=900, help="no new one begins after them")
    options.add_argument("--seed", type=int, help="default: a new one, which is printed")
    return options


def main(arguments: list[str] | None = None, tree: Path = TREE) -> int:
    """The command; returns the exit status."""
    options = parser().parse_args(arguments)
    seed = random.randrange(10**6) if options.seed is None else options.seed
    print(f"seed {seed}")
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory).resolve() / "tree"
        shutil.copytree(tree, work, ignore=LEFT_OUT, symlinks=True)
        run = Run(work, rng, time.monotonic() + options.seconds)
        modules = [work / path for path in options.modules] or some_modules(work, rng)
        for number, path in enumerate(modules):
            tests = [work / test for test in options.tests or ()] or mirrors(work, path)
            if not tests:
                parser().error(f"no tests mirror {path.relative_to(work)}: name them with --tests")
            # The first ones get what can't be divided.
            count = (options.count + len(modules) - 1 - number) // len(modules)
            if time.monotonic() < run.until and not run.module(path, tests, count):
                return 1
    print(f"{run.killed} killed, {len(run.survivors)} survived")
    return 0


if __name__ == "__main__":
    sys.exit(main())
