"""``make mirror-coverage``: what only other modules' tests pass through isn't reached."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from autopush.tests import TREE


@pytest.fixture(scope="module")
def tool():
    path = TREE / ".ci" / "mirror_coverage.py"
    spec = importlib.util.spec_from_file_location("mirror_coverage", path)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))  # as it is for a command that lies there
    sys.modules["mirror_coverage"] = module
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(path.parent))
    del sys.modules["mirror_coverage"]


AGES = """
def is_adult(age):
    return age >= 18


def is_old(age):
    if age > 90:
        return True
    return age >= 70


def never():
    return None
"""
PEOPLE = """
from autopush.ages import is_old


def greeting(age):
    return "Sir" if is_old(age) else "Hi"
"""


@pytest.fixture
def tree(tmp_path):
    """A small project, in which one module's tests use another module."""
    files = {
        "autopush/__init__.py": "",
        "autopush/ages.py": AGES,
        "autopush/people.py": PEOPLE,
        "autopush/tests/__init__.py": "",
        "autopush/tests/test_ages.py": "from autopush.ages import is_adult\n\n"
        "def test_adult():\n    assert is_adult(18)\n",
        "autopush/tests/test_people.py": "from autopush.people import greeting\n\n"
        "def test_greeting():\n    assert greeting(80) == 'Sir'\n",
        "pyproject.toml": '[tool.coverage.run]\nsource = ["autopush"]\nbranch = true\n',
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_lines_that_only_other_tests_reach_are_missing(tool, tree, capfd):
    assert tool.main(["autopush/ages.py", "autopush/people.py"], tree) == 0
    lines = [
        line for line in capfd.readouterr().out.splitlines() if "% " in line and "autopush" in line
    ]
    assert lines == [
        "  50.0 %  autopush/ages.py  7-9, 13",
        " 100.0 %  autopush/people.py",
    ]


def test_a_test_that_fails_is_told(tool, tree):
    (tree / "autopush/tests/test_ages.py").write_text("def test_adult():\n    assert False\n")
    assert tool.main(["autopush/ages.py"], tree) == 1


def test_a_module_without_tests(tool, tree):
    (tree / "autopush/tests/test_ages.py").unlink()
    with pytest.raises(SystemExit):
        tool.main(["autopush/ages.py"], tree)


@pytest.mark.parametrize(
    ("lines", "text"), [([], ""), ([3], "3"), ([9, 3, 4, 5], "3-5, 9"), ([1, 3], "1, 3")]
)
def test_ranges(tool, lines, text):
    assert tool.ranges(lines) == text
