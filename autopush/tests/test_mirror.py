"""Each module has a test file of its own name, or stands in a table of those tested elsewhere."""

from __future__ import annotations

import sys

import pytest

from autopush.tests import TREE

MOST = 57
"""Rows of the table. Only ever lowered."""

sys.path.insert(0, str(TREE / ".ci"))
import mirrors  # noqa: E402

sys.path.pop(0)
MODULES = {mirrors.key(TREE, path): path for path in mirrors.modules(TREE)}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_each_module_has_tests(module):
    assert mirrors.mirrors(TREE, MODULES[module]), "write tests in a file of its name"


def test_the_table_names_tests_that_exist():
    for other in mirrors.ELSEWHERE.values():
        assert (TREE / "autopush/tests" / f"{other}.py").exists(), other


def test_the_table_holds_only_what_has_no_tests_of_its_own():
    needless = {
        module
        for module in mirrors.ELSEWHERE
        if module not in MODULES or mirrors.own(TREE, MODULES[module])
    }
    assert not needless


def test_the_table_does_not_grow():
    assert len(mirrors.ELSEWHERE) <= MOST
