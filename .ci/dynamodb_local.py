"""Run the storage tests on another DynamoDB than moto's.

AUTOPUSH_DYNAMODB_LOCAL   path of Amazon's DynamoDBLocal.jar, with its DynamoDBLocal_lib beside it;
                          it is started for the tests and needs Java 17 or later
AUTOPUSH_TEST_DYNAMODB    URL of a server that is running already

With ``--if-present`` as the first argument it is no error that there is neither. All other
arguments are for pytest.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

TREE = Path(__file__).resolve().parents[1]
TESTS = ("test_dynamodb_*.py", "test_rotation.py")
JAR, URL = "AUTOPUSH_DYNAMODB_LOCAL", "AUTOPUSH_TEST_DYNAMODB"
START_WITHIN = 60


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start(jar: Path, port: int) -> subprocess.Popen[bytes]:
    """Start DynamoDB Local, in memory, and wait until it listens."""
    server = subprocess.Popen(
        [
            "java",
            f"-Djava.library.path={jar.parent / 'DynamoDBLocal_lib'}",
            "-jar",
            str(jar),
            "-inMemory",
            "-sharedDb",
            "-port",
            str(port),
        ],
        stdout=subprocess.DEVNULL,
    )
    end = time.monotonic() + START_WITHIN
    while time.monotonic() < end and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return server
        except OSError:
            time.sleep(0.2)
    server.kill()
    sys.exit(f"{jar} did not start")


def run_tests(url: str, arguments: list[str]) -> int:
    files = [str(path) for name in TESTS for path in sorted((TREE / "autopush/tests").glob(name))]
    command = [sys.executable, "-m", "pytest", *files, *arguments]
    return subprocess.run(command, cwd=TREE, env={**os.environ, URL: url}, check=False).returncode


def main(arguments: list[str]) -> int:
    optional = arguments[:1] == ["--if-present"]
    arguments = arguments[1:] if optional else arguments
    if os.environ.get(URL):
        return run_tests(os.environ[URL], arguments)
    jar = os.environ.get(JAR)
    missing = "Java is not installed" if jar else f"{JAR} does not name a DynamoDBLocal.jar"
    if not jar or not shutil.which("java"):
        print(f"Not tested on DynamoDB Local: {missing} (see docs/dynamodb.rst)")
        return 0 if optional else 2
    port = free_port()
    server = start(Path(jar).resolve(), port)
    try:
        return run_tests(f"http://127.0.0.1:{port}", arguments)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
