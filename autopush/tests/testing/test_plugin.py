"""The fixtures, in the pytest of somebody else."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from autopush.control.faults import KINDS
from autopush.control.operations import OPERATIONS
from autopush.tests import TREE
from autopush.tests.docs.support import blocks, pages

WITHIN = 600
"""Seconds for a run, which starts a service or two."""

TEST = """
from pywebpush import webpush

def test_welcome(push):
    browser = push.browser()
    subscription = browser.subscribe(application_server_key=None)
    webpush(subscription, "Welcome!", ttl=60)
    message = browser.wait(timeout=60)
    assert message.text == "Welcome!"
    assert push.requests[-1].status == 201

def test_clean(push, push_service):
    assert not push.requests
    assert push is push_service
    open("pid-%s" % push.control.url.rpartition(":")[2].partition("/")[0], "w").close()

def test_again(push):
    assert not push.requests
    open("pid-%s" % push.control.url.rpartition(":")[2].partition("/")[0], "w").close()
"""


def run_pytest(folder, *options):
    (folder / "test_push.py").write_text(TEST)
    (folder / "pytest.ini").write_text("[pytest]\n")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "autopush.testing.plugin", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(TREE)},
        capture_output=True,
        text=True,
        timeout=WITHIN,
    )


def services(folder):
    return len(list(folder.glob("pid-*")))


def test_one_service_for_the_whole_run(tmp_path):
    done = run_pytest(tmp_path, "-p", "no:xdist")
    assert "3 passed" in done.stdout, done.stdout
    assert services(tmp_path) == 1


def test_one_service_for_each_worker(tmp_path):
    pytest.importorskip("xdist")
    done = run_pytest(tmp_path, "-n", "2", "--dist", "each")
    assert "6 passed" in done.stdout, done.stdout
    assert services(tmp_path) == 2


FAILING = """
def test_nothing_came(push):
    push.browser().wait(timeout=0)

def test_no_such_fault(push):
    push.fail("nonsense")
"""


def test_failures_show_the_line_of_the_test(tmp_path):
    """Not the inside of what it calls."""
    (tmp_path / "test_failing.py").write_text(FAILING)
    done = run_pytest(tmp_path, "-p", "no:xdist", "test_failing.py", "--tb=short")
    assert "2 failed" in done.stdout, done.stdout
    assert "nobody has sent anything" in done.stdout
    assert "http.py:" not in done.stdout and "browser.py:" not in done.stdout


def python_of_the_manual(css_class=None):
    found = blocks("code-block:: python", css_class)
    return [block.text for block in found if block.page == "test"]


def test_the_manuals_examples(tmp_path):
    """Each as a file of tests, as it stands there."""
    unittests = python_of_the_manual("unittest")
    for number, text in enumerate(python_of_the_manual()):
        if text not in unittests:
            (tmp_path / f"test_example_{number}.py").write_text(text)
    done = run_pytest(tmp_path, "-p", "no:xdist")
    assert done.returncode == 0, done.stdout
    assert "9 passed" in done.stdout


def test_the_manuals_example_for_unittest(tmp_path):
    (text,) = python_of_the_manual("unittest")
    (tmp_path / "test_it.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "unittest", "test_it"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(TREE)},
        capture_output=True,
        text=True,
        timeout=WITHIN,
    )
    assert done.returncode == 0, done.stderr


def rows(name):
    table = re.search(rf"^\.\. {name}$(.*?)^\.\. end of {name}$", pages()["test"], re.M | re.S)
    assert table is not None
    return re.findall(r"^   \* - ``(.+)``\n     - (.+)$", table[1], re.M)


def test_the_manual_lists_the_faults():
    assert rows("faults") == [(name, kind.text) for name, kind in KINDS.items()]


def test_the_manual_lists_the_operations():
    assert rows("operations") == [(f"{row.method} {row.path}", row.text) for row in OPERATIONS]
