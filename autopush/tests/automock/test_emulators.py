"""The scripts that run the storage tests on other DynamoDBs than moto's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from autopush.tests import TREE

MOTO = """
import sys, threading
from moto.server import ThreadedMotoServer
port = int(sys.argv[sys.argv.index({option!r}) + 1])
ThreadedMotoServer("127.0.0.1", port, verbose=False).start()
threading.Event().wait()
"""

JAVA = """
import sys
directory = {directory!r}
library = directory + "/DynamoDBLocal_lib"
assert sys.argv[1] == "-Djava.library.path=" + library
assert sys.argv[3] == "-cp"
assert sys.argv[4] == directory + "/DynamoDBLocal.jar:" + library + "/*"
assert sys.argv[5].endswith(".ServerRunner")
assert sys.argv[6:9] == ["-inMemory", "-sharedDb", "-port"]
"""

NODE = """
import sys
assert sys.argv[1].endswith("/.dynalite/node_modules/dynalite/cli.js")
assert sys.argv[2:4] == ["--host", "127.0.0.1"]
"""

NPM = """
import pathlib, sys
assert sys.argv[1:3] == ["ci", "--ignore-scripts"]
assert pathlib.Path("package-lock.json").exists()
server = pathlib.Path("node_modules/dynalite/cli.js")
server.parent.mkdir(parents=True)
server.touch()
print("npm was asked", flush=True)
"""

MVN = """
import pathlib, sys
print("mvn was asked for", *sys.argv[1:], flush=True)
into = [word.partition("=")[2] for word in sys.argv if word.startswith("-DoutputDirectory=")]
pathlib.Path(into[0]).mkdir(parents=True, exist_ok=True)
if sys.argv[-1] == "-Dmdep.stripVersion=true":
    (pathlib.Path(into[0]) / "DynamoDBLocal.jar").touch()
"""

SOME = ("-k", "TestDynamoStore and get_user_unknown", "-v")


@pytest.fixture
def tree(tmp_path):
    """The scripts in a tree of their own: what they install is put there."""
    root = tmp_path / "tree"
    for folder in (".ci", "bench"):
        shutil.copytree(TREE / folder, root / folder)
    (root / "autopush").symlink_to(TREE / "autopush")
    return root


@pytest.fixture
def commands(tmp_path):
    """A directory in the PATH, and how to put a program there."""
    directory = tmp_path / "bin"
    directory.mkdir()

    def put(name: str, script: str) -> None:
        path = directory / name
        path.write_text(f"#!{sys.executable}{script}")
        path.chmod(0o755)

    put.path = str(directory)
    return put


def run(script: Path, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    ours = ("AUTOPUSH_TEST_DYNAMODB", "AUTOPUSH_DYNAMODB_LOCAL", "AUTOPUSH_ACCEPT")
    env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return subprocess.run(
        [sys.executable, str(script), *args],
        env={**env, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


class TestDynamoDBLocal:
    @pytest.fixture
    def script(self, tree):
        return tree / ".ci" / "dynamodb_local.py"

    @pytest.fixture
    def java(self, commands):
        def serve_from(directory: Path) -> None:
            script = JAVA.format(directory=str(directory)) + MOTO.format(option="-port")
            commands("java", script)

        return serve_from

    @pytest.mark.parametrize(("args", "status"), [((), 2), (("--if-present",), 0)])
    def test_without_a_jar_it_says_so(self, script, commands, java, args, status):
        java(Path("/nowhere"))
        done = run(script, *args, PATH=commands.path)
        assert done.returncode == status
        assert "Not tested on DynamoDB Local: AUTOPUSH_DYNAMODB_LOCAL does not name" in done.stdout

    def test_without_java_it_says_so(self, script, commands):
        done = run(script, "--if-present", AUTOPUSH_DYNAMODB_LOCAL="x.jar", PATH=commands.path)
        assert done.returncode == 0
        assert "Java is not installed" in done.stdout

    def test_jar_is_started_and_tested(self, script, commands, java, tmp_path):
        java(tmp_path)
        jar = str(tmp_path / "DynamoDBLocal.jar")
        done = run(script, *SOME, PATH=commands.path, AUTOPUSH_DYNAMODB_LOCAL=jar)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "2 passed" in done.stdout

    @pytest.mark.parametrize("accepted", [{}, {"AUTOPUSH_ACCEPT_DYNAMODB_LOCAL_LICENSE": "1"}])
    def test_nothing_is_fetched_before_the_licence_is_accepted(
        self, script, commands, java, accepted
    ):
        java(Path("/nowhere"))
        commands("mvn", MVN)
        done = run(script, PATH=commands.path, **accepted)
        assert done.returncode == 2
        assert "mvn was asked" not in done.stdout
        assert "AUTOPUSH_ACCEPT_DYNAMODB_LOCAL_LICENSE is not yes" in done.stdout

    def test_maven_fetches_it_once_the_licence_is_accepted(self, script, tree, commands, java):
        home = tree / ".dynamodb-local" / "2.6.1"
        java(home)
        commands("mvn", MVN)
        accepted = {"AUTOPUSH_ACCEPT_DYNAMODB_LOCAL_LICENSE": "yes"}
        done = run(script, *SOME, PATH=commands.path, **accepted)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "2 passed" in done.stdout
        plugin = "org.apache.maven.plugins:maven-dependency-plugin:3.11.0"
        assert (
            f"mvn was asked for --batch-mode --quiet -f {tree}/.ci/dynamodb_local/pom.xml"
            f" {plugin}:copy-dependencies -DoutputDirectory={home}/DynamoDBLocal_lib\n"
            f"mvn was asked for --batch-mode --quiet {plugin}:copy"
            " -Dartifact=software.amazon.dynamodb:DynamoDBLocal:2.6.1"
            f" -DoutputDirectory={home} -Dmdep.stripVersion=true\n"
        ) in done.stdout.replace("rootdir", "\nrootdir")
        again = run(script, *SOME, PATH=commands.path, **accepted)
        assert again.returncode == 0
        assert "mvn was asked" not in again.stdout

    def test_maven_that_fails_ends_it(self, script, commands, java):
        java(Path("/nowhere"))
        commands("mvn", "\nraise SystemExit(1)\n")
        done = run(
            script, "--if-present", PATH=commands.path, AUTOPUSH_ACCEPT_DYNAMODB_LOCAL_LICENSE="yes"
        )
        assert done.returncode == 2
        assert "passed" not in done.stdout


class TestDynalite:
    @pytest.fixture
    def script(self, tree):
        return tree / ".ci" / "dynalite.py"

    @pytest.mark.parametrize(("args", "status"), [((), 2), (("--if-present",), 0)])
    def test_without_node_it_says_so(self, script, commands, args, status):
        commands("npm", NPM)
        done = run(script, *args, PATH=commands.path)
        assert done.returncode == status
        assert "Not tested on dynalite: Node.js is not installed" in done.stdout

    def test_without_npm_it_says_so(self, script, commands):
        commands("node", NODE)
        done = run(script, "--if-present", PATH=commands.path)
        assert done.returncode == 0
        assert "Not tested on dynalite: npm is not installed" in done.stdout

    @pytest.mark.parametrize(("arguments", "status"), [(("--if-present",), 0), ((), 2)])
    def test_npm_that_fails_ends_it(self, script, commands, arguments, status):
        """Where it is not asked for, the network of a day decides nothing."""
        commands("node", NODE)
        commands("npm", "\nraise SystemExit(1)\n")
        done = run(script, *arguments, PATH=commands.path)
        assert done.returncode == status
        assert "Not tested on dynalite: npm can't install it" in done.stdout

    def test_it_is_installed_once_and_tested(self, script, tree, commands):
        commands("node", NODE + MOTO.format(option="--port"))
        commands("npm", NPM)
        first = run(script, *SOME, PATH=commands.path)
        assert first.returncode == 0, first.stdout + first.stderr
        assert "npm was asked" in first.stdout
        assert "2 passed" in first.stdout
        second = run(script, *SOME, PATH=commands.path)
        assert "2 passed" in second.stdout
        assert "npm was asked" not in second.stdout
        (tree / ".dynalite" / "package-lock.json").write_text("another version")
        assert "npm was asked" in run(script, *SOME, PATH=commands.path).stdout

    def test_lock_is_of_the_wanted_version_and_names_no_registry(self):
        directory = TREE / ".ci" / "dynalite"
        wanted = json.loads((directory / "package.json").read_text())["dependencies"]
        text = (directory / "package-lock.json").read_text()
        packages = json.loads(text)["packages"]
        assert packages[""]["dependencies"] == wanted
        assert packages["node_modules/dynalite"]["version"] == wanted["dynalite"]
        assert all("integrity" in package for name, package in packages.items() if name)
        assert "resolved" not in text
