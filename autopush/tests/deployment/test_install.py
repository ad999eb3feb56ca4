"""The ways to install it, each in an environment of its own, with packages from the index."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from autopush.tests import TREE

COMMANDS = [
    "autoendpoint",
    "autokey",
    "autopush",
    "autopush_data",
    "autopush_doctor",
    "autopush_standalone",
    "drop_users",
    "endpoint_diagnostic",
]
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
PLAIN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("PYTHON", "VIRTUAL_ENV", "COV"))
}
"""The environment without what makes this interpreter find the tree."""


def run(*words, cwd, **environment) -> str:
    done = subprocess.run(
        list(map(str, words)),
        cwd=cwd,
        env=PLAIN | {name: str(value) for name, value in environment.items()},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{words}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def files() -> list[str]:
    """What is in the repository, or, in an unpacked sdist, in that."""
    if (TREE / ".git").exists():
        return run("git", "ls-files", cwd=TREE).splitlines()
    lines = (TREE / "autopush_server.egg-info" / "SOURCES.txt").read_text().splitlines()
    return [line for line in lines if ".egg-info/" not in line]


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy to build in: a build leaves folders in the tree."""
    copy = tmp_path_factory.mktemp("tree")
    for name in files():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(TREE / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def dist(tree) -> Path:
    """sdist, and the wheel that is built from it."""
    run(sys.executable, "-m", "build", "--outdir", tree / "dist", ".", cwd=tree)
    return tree / "dist"


@pytest.fixture(scope="module")
def wheel(dist) -> Path:
    (path,) = dist.glob("autopush_server-*-py3-none-any.whl")
    return path


@pytest.fixture(scope="module")
def sdist(dist) -> Path:
    (path,) = dist.glob("autopush_server-*.tar.gz")
    return path


def check_commands(folder: Path, tmp_path: Path) -> None:
    """All commands are there and start; the service could run."""
    for command in COMMANDS:
        assert "usage: " in run(folder / command, "--help", cwd=tmp_path)
    check = run(folder / "autopush_standalone", "--check", "--data_dir", "d", cwd=tmp_path)
    assert "ok    configuration" in check


def make_venv(target: Path, tmp_path: Path) -> Path:
    """Return an environment's interpreter."""
    run(sys.executable, TREE / ".ci" / "make_venv.py", target, cwd=tmp_path)
    return target / "bin" / "python"


def test_pip_install_of_a_clone(tree, tmp_path):
    python = make_venv(tmp_path / "venv", tmp_path)
    run(python, "-m", "pip", "install", "--quiet", tree, cwd=tmp_path)
    check_commands(python.parent, tmp_path)
    assert "No broken requirements found" in run(python, "-m", "pip", "check", cwd=tmp_path)
    show = "import autopush, sys; print(autopush.__file__, sys.version_info[:2])"
    assert str(tmp_path) in run(python, "-c", show, cwd=tmp_path)


def test_wheel_is_what_a_service_needs(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert not [name for name in names if name.startswith("autopush/tests")]
    assert not [name for name in names if name.startswith("cyclone")]
    bundled = {name for name in names if name.startswith("autopush/libraries/bundle/")}
    assert "autopush/libraries/bundle/cyclone/web.py" in bundled
    assert "autopush/libraries/bundle/cyclone/LICENSE" in bundled
    source = {
        name
        for name in files()
        if name.startswith(("autopush/", "automock/")) and not name.startswith("autopush/tests/")
    }
    assert {name for name in names if ".dist-info/" not in name} - bundled == source


def test_sdist_has_all_that_is_in_the_repository(sdist, tmp_path):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        archive.extractall(tmp_path, filter="data")
    assert set(files()) <= names
    (unpacked,) = tmp_path.iterdir()
    tests = ["test_layers.py", "docs/test_references.py", "message"]
    paths = [f"autopush/tests/{name}" for name in tests]
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *paths]
    assert " passed" in run(*words, cwd=unpacked, PYTHONPATH=unpacked)


def test_wheel_of_cyclone_may_be_at_hand(tree, tmp_path):
    """And must be the right one."""
    wrong = tmp_path / "cyclone-1.3-py3-none-any.whl"
    wrong.write_bytes(b"something else")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, "."],
        cwd=tree,
        env=PLAIN | {"AUTOPUSH_CYCLONE_WHEEL": str(wrong)},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert f"{wrong} is not the wheel that requirements.txt names" in done.stdout + done.stderr
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "cyclone==1.3"]
    (tmp_path / "right").mkdir()
    run(*pip, "--dest", tmp_path / "right", cwd=tmp_path)
    (right,) = (tmp_path / "right").iterdir()
    words = [sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path / "dist", "."]
    run(*words, cwd=tree, AUTOPUSH_CYCLONE_WHEEL=right)


class TestOtherTools:
    """uv and pipx come with the test requirements; they make environments by themselves."""

    @pytest.fixture
    def tool(self) -> Path:
        return Path(sys.executable).parent

    def test_uv_tool_install(self, tool, tree, tmp_path):
        places = {"UV_TOOL_DIR": tmp_path / "tools", "UV_TOOL_BIN_DIR": tmp_path / "bin"}
        words = ["tool", "install", "--quiet", "--python", sys.executable, tree]
        run(tool / "uv", *words, cwd=tmp_path, **places)
        check_commands(tmp_path / "bin", tmp_path)

    def test_uv_run_in_a_clone(self, tool, tree, tmp_path):
        run_ = [tool / "uv", "run", "--quiet", "--python", sys.executable, "autopush_standalone"]
        words = [*run_, "--check", "--data_dir", tmp_path / "d"]
        environment = {"UV_PROJECT_ENVIRONMENT": tmp_path / "venv"}
        assert "ok    configuration" in run(*words, cwd=tree, **environment)

    def test_pipx_install(self, tool, tree, tmp_path):
        places = {"PIPX_HOME": tmp_path / "pipx", "PIPX_BIN_DIR": tmp_path / "bin"}
        words = ["install", "--quiet", "--python", sys.executable, tree]
        run(tool / "pipx", *words, cwd=tmp_path, **places)
        check_commands(tmp_path / "bin", tmp_path)

    def test_one_file_for_every_python(self, wheel, tmp_path):
        target = tmp_path / "autopush.pyz"
        run(sys.executable, TREE / ".ci" / "pyz.py", wheel, target, cwd=tmp_path)
        pythons = {*filter(None, (shutil.which(f"python{v}") for v in VERSIONS)), sys.executable}
        tried = 0
        for python in pythons:
            known = subprocess.run([python, "-c", ""], env=PLAIN, capture_output=True)
            if known.returncode == 0:  # pyenv has commands for versions that aren't chosen
                words = [python, target, "--check", "--data_dir", "d"]
                check = run(*words, cwd=tmp_path, SHIV_ROOT=tmp_path / "shiv")
                assert "ok    configuration" in check
                tried += 1
        assert tried
        entry = {"SHIV_ROOT": tmp_path / "shiv", "SHIV_ENTRY_POINT": "autopush.__main__:endpoint"}
        assert "autoendpoint" in run(sys.executable, target, "--help", cwd=tmp_path, **entry)
