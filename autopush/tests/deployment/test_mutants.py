"""``make mutants``: what it changes, and that it sees who notices."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

TREE = Path(__file__).resolve()
while not (TREE / "setup.py").exists():
    TREE = TREE.parent


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("mutants", TREE / ".ci" / "mutants.py")
    module = sys.modules["mutants"] = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(TREE / ".ci"))  # as it is for a command that lies there
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(TREE / ".ci"))
    del sys.modules["mutants"]


@pytest.mark.parametrize(
    ("source", "results"),
    [
        ("a < b", {"(a <= b)"}),
        ("a is not None", {"(a is None)"}),
        ("a in b", {"(a not in b)"}),
        ("a == b == c", set()),
        ("a and b or c", {"(a or b) or c", "((a and b) and c)"}),
        ("not a", {"(a)"}),
        ("a = 5", {"a = (6)"}),
        ("a = True", {"a = (False)"}),
        ("a.b = c", {"pass"}),
        ("a.b = c = d", set()),
        ("a.b += c", {"pass"}),
        ("a - b", {"(a + b)"}),
        ("a / b", set()),
        ("f(x)", {"pass"}),
        ("log.info(x)", set()),
        ("a: f(5) = b", set()),
        ("f'{5}'", set()),
        ("if TYPE_CHECKING:\n    f(x)", set()),
        ("def f():\n    return a", {"def f():\n    return None"}),
        ("def f(a: 1 < 2 = b) -> 5:\n    return None", set()),
        ("'\u20ac'; f(x)", {"'\u20ac'; pass"}),
    ],
)
def test_what_is_changed(tool, source, results):
    found = tool.mutants(source.encode())
    assert {mutant.apply(source.encode()).decode() for mutant in found} == results


def test_every_mutant_of_a_module_is_a_program(tool):
    source = (TREE / ".ci" / "mutants.py").read_bytes()
    found = tool.mutants(source)
    assert len(found) > 50
    for mutant in found:
        compile(mutant.apply(source), "mutant", "exec")
        assert mutant.apply(source) != source


MODULE = """
UNUSED = 7


def is_adult(age):
    return age >= 18
"""
TESTS = """
from autopush.ages import is_adult


def test_adult():
    assert is_adult(18) is True and is_adult(17) is False
"""


@pytest.fixture
def tree(tmp_path):
    """A small project: its function is tested, its constant isn't."""
    tests = tmp_path / "autopush" / "tests"
    tests.mkdir(parents=True)
    for folder in (tests.parent, tests):
        (folder / "__init__.py").touch()
    (tests.parent / "ages.py").write_text(MODULE)
    (tests / "test_ages.py").write_text(TESTS)
    return tmp_path


def test_mirrors(tool, tree):
    package = tree / "autopush"
    for name in ("test_ages_more.py", "test_ages_old.py", "test_agesago.py"):
        (package / "tests" / name).touch()
    (package / "ages_old.py").touch()
    found = tool.mirrors(tree, package / "ages.py")
    assert [path.name for path in found] == ["test_ages.py", "test_ages_more.py"]
    assert [path.name for path in tool.mirrors(tree, package / "ages_old.py")] == [
        "test_ages_old.py"
    ]
    assert tool.mirrors(tree, package / "none.py") == []


def test_survivors_are_those_nothing_tests(tool, tree, capsys):
    assert tool.main(["--seed", "1"], tree) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[1] == "autopush/ages.py: 4 of 4 mutants"
    survivors = [line for line in out if "survived:" in line]
    assert survivors == ["  survived: autopush/ages.py:2: 7  ->  (8)"]
    assert out[-1] == "3 killed, 1 survived"
    assert (tree / "autopush" / "ages.py").read_text() == MODULE


@pytest.fixture
def blind(tool, monkeypatch):
    """Tests that notice nothing, at once."""
    monkeypatch.setattr(tool, "passes", lambda *_: True)


def test_number_and_time_are_bounded(tool, tree, capsys, blind):
    assert tool.main(["--count", "1", "autopush/ages.py"], tree) == 0
    assert capsys.readouterr().out.endswith("\n0 killed, 1 survived\n")
    assert tool.main(["--seconds", "0", "autopush/ages.py"], tree) == 0
    assert capsys.readouterr().out.endswith("\n0 killed, 0 survived\n")


def test_tests_that_fail_anyhow_prove_nothing(tool, tree, capsys):
    (tree / "autopush" / "tests" / "test_ages.py").write_text("assert False")
    assert tool.main([], tree) == 1
    assert "fail without any change" in capsys.readouterr().out


def test_a_module_without_tests_needs_some_named(tool, tree, capsys, blind):
    (tree / "autopush" / "other.py").write_text("A = 1 < 2")
    with pytest.raises(SystemExit):
        tool.main(["autopush/other.py"], tree)
    assert "--tests" in capsys.readouterr().err
    assert tool.main(["autopush/other.py", "--tests", "autopush/tests/test_ages.py"], tree) == 0
    assert capsys.readouterr().out.endswith("\n0 killed, 3 survived\n")
