"""The fixtures, in the pytest of somebody else."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from autopush.tests import TREE

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
        timeout=240,
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
