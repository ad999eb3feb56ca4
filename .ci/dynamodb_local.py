"""Run the storage tests on Amazon's DynamoDB Local, or on any DynamoDB that is running.

AUTOPUSH_TEST_DYNAMODB    URL of a server that is running already
AUTOPUSH_DYNAMODB_LOCAL   path of a DynamoDBLocal.jar, with its DynamoDBLocal_lib beside it; it is
                          started for the tests
AUTOPUSH_ACCEPT_DYNAMODB_LOCAL_LICENSE
                          ``yes``: you have read Amazon's licence of DynamoDB Local and accept it.
                          Only then Maven is asked for it (.ci/dynamodb_local/pom.xml says which);
                          it is put into .dynamodb-local

DynamoDB Local needs Java 17 or later. With ``--if-present`` as the first argument it is no error
that there is nothing to test on. All other arguments are for pytest.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from storage_tests import TREE, URL, free_port, run_on, run_tests

JAR = "AUTOPUSH_DYNAMODB_LOCAL"
ACCEPTED = "AUTOPUSH_ACCEPT_DYNAMODB_LOCAL_LICENSE"
POM = Path(__file__).resolve().with_name("dynamodb_local") / "pom.xml"
FETCHED = TREE / ".dynamodb-local"
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.11.0"
MAIN = "com.amazonaws.services.dynamodbv2.local.main.ServerRunner"


def coordinates() -> str:
    """``group:artifact:version`` of the dependency in the POM."""
    tag = "<groupId>(.*?)</groupId>\\s*<artifactId>(.*?)</artifactId>\\s*<version>(.*?)</version>"
    found = re.search(f"<dependency>\\s*{tag}", POM.read_text())
    assert found is not None
    return ":".join(found.groups())


def fetch() -> Path:
    """Have Maven copy the jar and all it needs, unless that was done; returns the jar's path.

    :raises subprocess.CalledProcessError: Maven can't
    """
    what = coordinates()
    _, artifact, version = what.split(":")
    target = FETCHED / version
    jar = target / f"{artifact}.jar"
    if not jar.exists():
        print(f"Fetching {what} into {FETCHED.name} ...", flush=True)
        maven = ["mvn", "--batch-mode", "--quiet"]
        into = f"-DoutputDirectory={target}"
        library = f"-DoutputDirectory={target / f'{artifact}_lib'}"
        # The jar comes last: it tells that all is here.
        for command in (
            [*maven, "-f", str(POM), f"{PLUGIN}:copy-dependencies", library],
            [*maven, f"{PLUGIN}:copy", f"-Dartifact={what}", into, "-Dmdep.stripVersion=true"],
        ):
            subprocess.run(command, check=True)
    return jar


def find_jar() -> tuple[Path | None, str]:
    """The jar, or None and what is missing."""
    if not shutil.which("java"):
        return None, "Java is not installed"
    named = os.environ.get(JAR)
    if named:
        return Path(named).resolve(), ""
    if os.environ.get(ACCEPTED) != "yes":
        return None, f"{JAR} does not name a DynamoDBLocal.jar, and {ACCEPTED} is not yes"
    if not shutil.which("mvn"):
        return None, "Maven is not installed"
    return fetch(), ""


def server(jar: Path, port: int) -> list[str]:
    """The command that serves from memory."""
    library = jar.parent / f"{jar.stem}_lib"
    classes = f"{jar}{os.pathsep}{library / '*'}"
    native = [f"-Djava.library.path={library}", f"-Dsqlite4java.library.path={library}"]
    options = ["-inMemory", "-sharedDb", "-port", str(port)]
    return ["java", *native, "-cp", classes, MAIN, *options]


def main(arguments: list[str]) -> int:
    optional = arguments[:1] == ["--if-present"]
    arguments = arguments[1:] if optional else arguments
    if os.environ.get(URL):
        return run_tests(os.environ[URL], arguments)
    try:
        jar, missing = find_jar()
    except subprocess.CalledProcessError:
        return 2  # Maven has said why
    if jar is None:
        print(f"Not tested on DynamoDB Local: {missing} (see docs/dynamodb.rst)")
        return 0 if optional else 2
    port = free_port()
    return run_on(server(jar, port), port, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
