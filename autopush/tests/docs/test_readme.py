"""What the README says works as pasted."""

from __future__ import annotations

import re
import subprocess
import sys

from autopush.options.parser import standalone_parser
from autopush.tests import TREE
from autopush.tests.e2e.harness import Server

README = (TREE / "README.md").read_text("utf-8")
DEFAULT_URL = "ws://127.0.0.1:8080/"


def block(language):
    """The README's only code block in this language."""
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return text


def test_first_message(tmp_path):
    code = block("python")
    assert code.count(DEFAULT_URL) == 1
    with Server(tmp_path) as server:
        script = tmp_path / "first.py"
        script.write_text(code.replace(DEFAULT_URL, server.ws_url))
        done = subprocess.run(
            [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=300
        )
    assert (done.returncode, done.stdout) == (0, "Hello!\n"), done.stderr


def test_first_message_is_short():
    lines = [line for line in block("python").splitlines() if line.strip()]
    assert len([line for line in lines if not line.startswith(("import", "from"))]) <= 12


def test_default_url_is_the_one_the_service_prints(tmp_path):
    with Server(tmp_path) as server:
        assert server.ws_url == DEFAULT_URL.replace("8080", str(server.port))
        assert server.ws_url in server.output
    assert standalone_parser().get_default("port") == 8080


def test_options_mentioned_exist():
    known = standalone_parser().spellings
    others = {"--access", "--no-deps", "--help"}
    for option in set(re.findall(r"--[a-z][a-z_-]+", README)) - others:
        assert option in known, option


def test_preferences_are_those_the_service_prints(tmp_path):
    with Server(tmp_path) as server:
        printed = set(re.findall(r"dom\.push\.\S+", server.output))
    assert printed == set(re.findall(r"dom\.push\.\w+(?:\.\w+)*", README))
