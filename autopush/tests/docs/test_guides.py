"""What the guides for contributors say of the tree is so."""

from __future__ import annotations

import ast
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, median

import pytest

from autopush.tests import TREE
from autopush.tests.test_layers import DEPTH, SOURCES, imports

GUIDES = {
    name: (TREE / name).read_text("utf-8")
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "docs/testing.rst",
        "docs/style.rst",
        "docs/releasing.rst",
    )
}
LITERAL = re.compile(r"`+([\w./-]+)`+")
LINK = re.compile(r"\]\(((?!https?:)[^)#]+)[)#]")
MADE = {".venv", ".venv-test", "htmlcov", "docs/_build/html", "autopush-data"}
"""What the tree has only after something was run."""

guide = pytest.mark.parametrize("guide", GUIDES)


def is_path(text: str) -> bool:
    """Whether a literal is meant as a file or folder of the tree."""
    absolute = text.startswith("/")
    return not absolute and ("/" in text or text.endswith((".md", ".py", ".toml", ".txt")))


def paths(text: str) -> Iterator[tuple[str, list[Path]]]:
    """Yield what is named, with the folders it may be in: that of the first in its line, too."""
    for line in text.splitlines():
        named = [name for name in LITERAL.findall(line) if is_path(name)]
        for name in [*named, *LINK.findall(line)]:
            yield name, [TREE, TREE / "autopush", *(TREE / other for other in named[:1])]


@guide
def test_files_and_folders_exist(guide):
    elsewhere = {"spec/index", "decisions/index", "release/major.minor"}  # pages, a branch
    for name, folders in paths(GUIDES[guide]):
        if name not in elsewhere | MADE:
            assert any((folder / name).exists() for folder in folders), name


@guide
def test_targets_of_make_exist(guide):
    makefile = (TREE / "Makefile").read_text("utf-8")
    named = set(re.findall(r"(?:`|^ +(?:\$ )?)make ([a-z][a-z-]*)", GUIDES[guide], re.MULTILINE))
    assert named <= set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))


@guide
def test_commands_exist(guide):
    """Of the environments that make makes: ours, and those that come with them."""
    scripts = re.findall(r'"(\w+) = autopush', (TREE / "setup.py").read_text("utf-8"))
    known = {*scripts, "python", "pip", "pre-commit"}
    assert set(re.findall(r"\.venv(?:-test)?/bin/([\w-]+)", GUIDES[guide])) <= known


@guide
def test_options_of_fuzzers_and_mutants_exist(guide):
    calls = re.findall(r"-m (fuzz)\.(\w+)([^`\n]*)", GUIDES[guide])
    calls += [
        (".ci", "mutants", words) for words in re.findall(r'mutants ARGS="(.*)"', GUIDES[guide])
    ]
    for folder, name, words in calls:
        source = (TREE / folder / f"{name}.py").read_text("utf-8")
        for option in re.findall(r"--[a-z]+", words):
            assert f'"{option}"' in source, (name, option)


def test_imports_go_down_the_table_of_folders():
    rows = re.findall(r"^\| `autopush/.*?\|", GUIDES["CONTRIBUTING.md"], re.MULTILINE)
    places = {
        name.removeprefix("autopush/").rstrip("/").removesuffix(".py"): number
        for number, row in enumerate(rows)
        for name in LITERAL.findall(row)
    }
    assert len(places.keys() & DEPTH.keys()) > 15
    for module in SOURCES.keys() - {"autopush"}:
        own = places.get(module.split(".")[1])
        if own is not None:
            others = {other.split(".")[1] for other in imports(module)}
            assert not [other for other in others if places.get(other, own) < own], module


def test_every_package_is_in_the_table_of_folders():
    table = "".join(re.findall(r"^\|.*\|$", GUIDES["CONTRIBUTING.md"], re.MULTILINE))
    packages = {path.parent.name for path in (TREE / "autopush").glob("*/__init__.py")}
    assert not {name for name in packages if f"{name}/" not in table}


def test_modules_and_functions_are_as_short_as_it_says():
    found = re.search(
        r"fewer than (\d+) lines, none more than (\d+); functions have about nine, none more than "
        r"(\d+)",
        " ".join(GUIDES["docs/style.rst"].split()),
    )
    assert found is not None
    usual, longest, longest_function = map(int, found.groups())
    modules = [
        max((node.end_lineno or 0 for node in tree.body), default=0) for tree in SOURCES.values()
    ]
    functions = [
        (node.end_lineno or 0) - node.lineno + 1
        for tree in SOURCES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert median(modules) < usual and max(modules) <= longest
    assert abs(mean(functions) - 9) < 1 and max(functions) <= longest_function


def test_every_package_has_its_tests():
    """A folder of its name, or a file."""
    for init in (TREE / "autopush").rglob("__init__.py"):
        place = TREE / "autopush/tests" / init.parent.relative_to(TREE / "autopush")
        if init.relative_to(TREE / "autopush").parts[0] != "tests":
            assert place.is_dir() or (place.parent / f"test_{place.name}.py").exists(), place


def test_locks_and_exact_pins_are_those_of_the_tree():
    text = GUIDES["docs/releasing.rst"]
    files = set(runpy.run_path(str(TREE / ".ci/lock.py"))["FILES"])
    assert {name for name in LITERAL.findall(text) if name.endswith("requirements.txt")} == files
    pinned = re.findall(r'^ +"(\w+)==', (TREE / "setup.py").read_text("utf-8"), re.MULTILINE)
    sentence = re.search(r"([\w, ]+) are pinned exactly", " ".join(text.split()))
    assert sentence is not None
    words = re.findall(r"\w+", sentence[1].lower())
    assert sorted(pinned) == sorted(word for word in words if word != "and")
