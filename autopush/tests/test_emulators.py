"""The script that runs the storage tests on another DynamoDB than moto's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TREE = Path(__file__).parents[2]
SCRIPT = TREE / ".ci" / "dynamodb_local.py"

JAVA = """#!{python}
import sys, threading
from moto.server import ThreadedMotoServer
assert sys.argv[1] == "-Djava.library.path={directory}/DynamoDBLocal_lib"
assert sys.argv[2:4] == ["-jar", "{directory}/DynamoDBLocal.jar"]
assert sys.argv[4:7] == ["-inMemory", "-sharedDb", "-port"]
ThreadedMotoServer("127.0.0.1", int(sys.argv[7]), verbose=False).start()
threading.Event().wait()
"""


def run(*args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    ours = ("AUTOPUSH_DYNAMODB_LOCAL", "AUTOPUSH_TEST_DYNAMODB")
    env = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.run(
        [sys.executable, str(SCRIPT), *args],
        env={**env, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize(("args", "status"), [((), 2), (("--if-present",), 0)])
def test_without_dynamodb_local_it_says_so(args, status):
    done = run(*args)
    assert done.returncode == status
    assert "Not tested on DynamoDB Local: AUTOPUSH_DYNAMODB_LOCAL does not name" in done.stdout


def test_without_java_it_says_so(tmp_path):
    done = run("--if-present", AUTOPUSH_DYNAMODB_LOCAL="x.jar", PATH=str(tmp_path))
    assert done.returncode == 0
    assert "Java is not installed" in done.stdout


def test_jar_is_started_and_tested(tmp_path):
    java = tmp_path / "java"
    java.write_text(JAVA.format(python=sys.executable, directory=tmp_path))
    java.chmod(0o755)
    path = f"{tmp_path}:{os.environ.get('PATH', '')}"
    jar = str(tmp_path / "DynamoDBLocal.jar")
    wanted = "TestDynamoStore and get_user_unknown"
    done = run("-k", wanted, "-v", PATH=path, AUTOPUSH_DYNAMODB_LOCAL=jar)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
