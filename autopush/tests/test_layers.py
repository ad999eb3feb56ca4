"""Imports go down the table of layers in docs/architecture.rst, and never in a circle.

Imports are read from the source, those for the type checker and those inside functions included.
"""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from autopush.tests import TREE

PACKAGE = TREE / "autopush"

LAYERS: dict[str, str] = {
    "tests of others": "testing",
    "documented names": "base crypto_key diagnostic_cli haproxy jwt main_argparse protocol utils",
    "commands": "__main__",
    "applications": "main workers",
    "tools": "control doctor scripts",
    "process": "app",
    "HTTP applications": "http",
    "user agents": "websocket",
    "handlers": "web",
    "HTTP server": "httpserver",
    "routers": "router",
    "sessions": "session",
    "storage": "db",
    "network": "net",
    "reports": "metrics logging",
    "configuration": "config",
    "options": "options",
    "messages": "message",
    "ground": "addresses clock constants exceptions ids libraries ssl types useragent waiters",
}
"""From the top: names directly under ``autopush``, by layer. A layer may import those below it and
itself."""

MAX_MODULES = 20
"""Modules directly under ``autopush``: what a newcomer can take in."""

DEPTH = {name: depth for depth, names in enumerate(LAYERS.values()) for name in names.split()}


def name_of(path: Path) -> str:
    """The dotted name of a source file."""
    parts = path.relative_to(TREE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {
    name_of(path): ast.parse(path.read_text("utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
    if "tests" not in path.parts
}


def imports(module: str) -> set[str]:
    """The modules of ours that a module imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(SOURCES[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in SOURCES}
        elif isinstance(node, ast.ImportFrom) and node.module in SOURCES:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in SOURCES else node.module)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: imports are absolute"
    return found - {"autopush", module}


def depth(module: str) -> int:
    """Number of a module's layer, from the top."""
    return DEPTH[module.split(".")[1]]


@pytest.mark.parametrize("module", sorted(SOURCES.keys() - {"autopush"}))
def test_imports_go_down(module):
    upwards = {other for other in imports(module) if depth(other) < depth(module)}
    assert not upwards


def test_there_is_no_circle():
    try:
        TopologicalSorter({module: imports(module) for module in SOURCES}).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_every_module_has_a_layer():
    names = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert names - {"__init__", "__pycache__", "tests", "py"} == set(DEPTH)


def test_there_are_few_modules_at_the_top():
    modules = [path for path in PACKAGE.glob("*.py") if path.stem != "__init__"]
    assert len(modules) <= MAX_MODULES


def test_documented_names_are_nothing_but_imports():
    for name in LAYERS["documented names"].split():
        for node in SOURCES[f"autopush.{name}"].body:
            ours = isinstance(node, ast.Import | ast.ImportFrom | ast.Expr)
            assert ours or (isinstance(node, ast.Assign) and node.targets[0].id == "__all__"), name


def test_the_manual_shows_this_table():
    text = (TREE / "docs/architecture.rst").read_text("utf-8")
    table = re.search(r"^\.\. layers$\n(.*?)^\.\. end of layers$", text, re.M | re.S)
    assert table is not None
    rows = re.findall(r"^   \* - (.+)\n     - (.+)$", table[1], re.M)[1:]
    assert {layer: cell.replace("`", "") for layer, cell in rows} == LAYERS
