"""Private names of libraries: all are listed, and exist where they are said to."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from importlib.metadata import version

import pytest

from autopush.libraries import INSIDES, known
from autopush.tests import TREE
from autopush.tests.test_layers import SOURCES

LISTED = {
    name for inside in INSIDES.values() for names in inside.names.values() for name in names.split()
}

PUBLIC = frozenset({"_replace", "_asdict", "_exit", "_getframe", "_fields"})
"""Documented, underscore or not."""


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name != "_"


def defined(tree: ast.Module) -> set[str]:
    """Private names that a module gives a meaning: functions, variables, attributes of self."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                found.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {word for word in node.value.split() if word.isidentifier()}  # slots
    return found


def used(tree: ast.Module) -> set[str]:
    """Private names that a module takes from elsewhere."""
    found = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module != "__future__":
            found |= {alias.name for alias in node.names}
            found |= set((node.module or "").split("."))
    return {name for name in found if is_private(name)}


OWN = {name for module, tree in SOURCES.items() if module != "autopush.libraries"
       for name in defined(tree)}  # fmt: skip


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_no_other_private_name_is_used(module):
    assert used(SOURCES[module]) <= OWN | LISTED | PUBLIC


@pytest.mark.parametrize("library", INSIDES)
def test_the_installed_version_is_known(library):
    assert known(library, version(library))
    assert not known(library, "0")


@pytest.mark.parametrize(
    ("module", "names"),
    [item for inside in INSIDES.values() for item in inside.names.items()],
)
def test_the_names_exist(module, names):
    source = inspect.getsource(importlib.import_module(module))
    for name in names.split():
        assert re.search(rf"\b{name}\b", source) or module.endswith(name), name


@pytest.mark.parametrize("library", [name for name in INSIDES if not INSIDES[name].plain])
def test_without_a_plain_way_a_library_is_pinned(library):
    (only,) = INSIDES[library].versions
    pin = f"{library}=={only}"
    assert f'"{pin}"' in (TREE / "setup.py").read_text("utf-8") or library == "cyclone"
    assert re.search(rf"^{re.escape(pin)}\b", (TREE / "requirements.txt").read_text("utf-8"), re.M)
