"""What is in the tree besides code: locks, packaging, samples."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions

import pytest
import yaml

from autopush import __main__ as command, __version__
from autopush.app.standalone import standalone_config
from autopush.config import AutopushConfig
from autopush.options.bridges import option_groups
from autopush.options.parser import parse_standalone
from autopush.options.standalone import STANDALONE
from autopush.tests import TREE

SAMPLE = TREE / "configs" / "autopush_standalone.ini.sample"

UNRESOLVABLE = {"cyclone"}
"""Their metadata asks for releases of 2019."""

INSTALLERS = {"pip", "setuptools"}
"""What shiv asks for, of which it calls pip alone: that is in every environment."""

LOCKS = ("requirements.txt", "test-requirements.txt", "doc-requirements.txt")
LOCKED = re.compile(r"([A-Za-z0-9._-]+)==([^=\s]+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n")


def locked(name):
    """The versions of a lock, whose lines all are pins with hashes."""
    text = re.sub(r"^#.*\n", "", (TREE / name).read_text(), flags=re.MULTILINE)
    assert not LOCKED.sub("", text), LOCKED.sub("", text)
    return {canonical(package): version for package, version, _ in LOCKED.findall(text)}


def hashes(name):
    """(package, version) -> the hashes of its files."""
    found = LOCKED.findall((TREE / name).read_text())
    return {(package, version): sorted(lines.split()) for package, version, lines in found}


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(names):
    """Yield (package, requirement) for all that the packages need here, installed or not."""
    from packaging.requirements import Requirement

    for name in names:
        for text in distribution(name).requires or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                yield name, requirement


@pytest.mark.parametrize("name", ["requirements.txt", "test-requirements.txt"])
def test_lock_is_complete_and_consistent(name):
    pins = locked("requirements.txt") | locked(name)
    for package, requirement in needed(set(pins) - UNRESOLVABLE):
        if requirement.name in INSTALLERS:
            continue
        version = pins.get(canonical(requirement.name))
        assert version is not None, f"{package} needs {requirement}"
        assert requirement.specifier.contains(version, prereleases=True), (
            f"{package}: {requirement}"
        )


def test_doc_lock_is_a_part_of_the_test_lock():
    everything = locked("requirements.txt") | locked("test-requirements.txt")
    assert locked("doc-requirements.txt").items() <= everything.items()


def test_a_release_has_the_same_hashes_in_every_lock():
    everything = hashes("requirements.txt") | hashes("test-requirements.txt")
    assert hashes("doc-requirements.txt").items() <= everything.items()
    assert not hashes("requirements.txt").keys() & hashes("test-requirements.txt").keys()


def test_pip_takes_nothing_but_the_locked_files(tmp_path):
    """One wrong hash, and nothing is installed. From a file, so that no index is asked."""
    wheel = tmp_path / "nothing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("nothing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\n")
    lock = tmp_path / "lock.txt"
    lock.write_text(f"nothing==1.0 \\\n    --hash=sha256:{'0' * 64}\n")
    pip = [sys.executable, "-m", "pip", "install", "--no-index", "--find-links", tmp_path]
    done = subprocess.run(
        [*pip, "--target", tmp_path / "target", "--no-deps", "-r", lock],
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert not (tmp_path / "target").exists()


def lock_tool():
    spec = importlib.util.spec_from_file_location("lock", TREE / ".ci" / "lock.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestLockTool:
    """``make lock``, up to the point where the index is asked."""

    def test_it_reads_what_it_writes(self):
        for name in LOCKS:
            comment, pins = lock_tool().split((TREE / name).read_text())
            assert comment.startswith("# Complete lock of ")
            assert pins == locked(name)

    def test_it_reads_a_line_without_hash(self):
        text = "# why\nA_b==1.0\nc==2 \\\n    --hash=sha256:00\n"
        assert lock_tool().split(text) == ("# why\n", {"a-b": "1.0", "c": "2"})

    def test_only_pinned_packages_change(self):
        assert lock_tool().changed({"a": "1", "b": "1"}, {"b": "2", "c": "2"}) == {
            "a": "1",
            "b": "2",
        }

    @pytest.mark.parametrize("argument", ["unheard-of==1", "attrs", "attrs>=26"])
    def test_it_refuses_what_is_not_pinned(self, argument):
        with pytest.raises(SystemExit):
            lock_tool().main(argument)


def test_locked_versions_are_installed():
    for name, version in locked("requirements.txt").items():
        try:
            assert distribution(name).version == version
        except PackageNotFoundError:
            assert name == "requests", f"{name} is locked but not here"


def test_setup_asks_for_nothing_that_is_not_locked():
    pins = locked("requirements.txt")
    text = (TREE / "setup.py").read_text()
    (wanted,) = re.findall(r"install_requires=\[(.*?)\]", text, re.DOTALL)
    names = re.findall(r'"([A-Za-z-]+)[>=]', wanted)
    assert "Twisted" in names
    assert "cyclone" not in names
    for name in names:
        assert canonical(name) in pins


def imports(path):
    """Yield the top-level names of all modules a file imports."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]


def test_imported_packages_are_locked():
    """The service imports nothing that is only there by chance."""
    owners = packages_distributions()
    pins = locked("requirements.txt")
    for path in (TREE / "autopush").rglob("*.py"):
        if "tests" in path.relative_to(TREE).parts:
            continue
        for module in set(imports(path)) - {"autopush"} - sys.stdlib_module_names:
            packages = {canonical(name) for name in owners.get(module, [module])}
            if (path.name, module) == ("plugin.py", "pytest"):
                continue  # which nobody but pytest imports
            assert packages & set(pins), f"{path.name} imports {module}"


def test_a_start_without_cyclone_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(command, "provide", lambda name: False)
    text = command.main()
    assert isinstance(text, str)
    assert "pip install --no-deps cyclone==" in text
    assert "\n" not in text
    assert f"cyclone=={locked('requirements.txt')['cyclone']}" in text


def test_importing_cyclone_leaves_twisted_logging_alone():
    script = (
        "from twisted.python.log import FileLogObserver as F; before = F.emit\n"
        "import autopush.main; assert F.emit is before"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=TREE)


def test_licence_is_the_full_text_of_mpl_2():
    text = (TREE / "LICENSE").read_text()
    assert text.startswith("Mozilla Public License Version 2.0\n")
    assert 'Exhibit B - "Incompatible With Secondary Licenses" Notice' in text


def test_changelog_starts_with_this_version():
    text = (TREE / "CHANGELOG.md").read_text()
    assert re.findall(r"^## (\S+)", text, re.MULTILINE)[0] == __version__


def test_files_that_are_no_modules_are_packaged():
    """They have to be named in setup.py."""
    (patterns,) = re.findall(
        r'package_data=\{"autopush": \[(.*?)\]', (TREE / "setup.py").read_text()
    )
    package = TREE / "autopush"
    named = {path for pattern in re.findall(r'"(.*?)"', patterns) for path in package.glob(pattern)}
    left_out = {"tests", "bundle", "__pycache__"}
    assert named == {
        path
        for path in package.rglob("*")
        if path.is_file()
        and path.suffix != ".py"
        and not left_out.intersection(path.relative_to(package).parts)
    }


# ------------------------------------------------------------------- what contributors are told


def make(*targets):
    done = subprocess.run(["make", *targets], cwd=TREE, capture_output=True, text=True, check=True)
    return done.stdout


def phony():
    (names,) = re.findall(
        r"^\.PHONY: ((?:.*\\\n)*.*)", (TREE / "Makefile").read_text(), re.MULTILINE
    )
    return names.replace("\\\n", " ").split()


def test_make_alone_prints_every_target_with_a_line_of_text():
    described = re.findall(r"^    ([a-z-]+) +(\S.*)$", make(), re.MULTILINE)
    assert [name for name, _ in described] == phony()
    assert make("help") == make()


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md"])
def test_what_a_page_for_contributors_names_exists(name):
    text = (TREE / name).read_text()
    for target in re.findall(r"\]\((?!http)([^)]+)\)", text):
        assert (TREE / target).exists(), target
    assert set(re.findall(r"^    make ([a-z-]+)", text, re.MULTILINE)) <= set(phony())
    for path in re.findall(r"pytest (autopush/tests/\S+)|ARGS=\"(autopush/tests/[^\"]+)", text):
        assert (TREE / "".join(path)).exists(), path


def test_workflow_runs_what_the_project_runs():
    workflow = yaml.safe_load((TREE / ".github/workflows/ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert len(commands) == 1
    assert commands[0].endswith("bash .ci/run")
    versions = next(
        step["with"]["python-version"].split()
        for step in job["steps"]
        if "python-version" in step.get("with", {})
    )
    wanted = re.findall(r"envlist = py\{([0-9,]+)\}", (TREE / "tox.ini").read_text())[0]
    assert sorted(version.replace(".", "") for version in versions) == wanted.split(",")


def test_hooks_are_what_lint_runs():
    """Versions come from test-requirements.txt alone, so every hook is a local one."""
    hooks = yaml.safe_load((TREE / ".pre-commit-config.yaml").read_text())
    (repository,) = hooks["repos"]
    assert repository["repo"] == "local"
    entries = [hook["entry"].replace(" --force-exclude", "") for hook in repository["hooks"]]
    (lint,) = re.findall(r"^lint:.*\n((?:\t.*\n)+)", (TREE / "Makefile").read_text(), re.MULTILINE)
    commands = [line.strip().replace("$(TEST_VENV)", ".venv-test") for line in lint.splitlines()]
    assert entries == [command.removesuffix(" .") for command in commands]


# ----------------------------------------------------------------------------- the sample


def test_sample_changes_nothing():
    assert parse_standalone([str(SAMPLE)], []) == parse_standalone([], [])


def test_sample_has_every_option():
    text = SAMPLE.read_text()
    for _, rows in (*STANDALONE, *option_groups()):
        for row in rows:
            if row.name != "db_dsn":
                assert re.search(rf"^#{row.name} = ", text, re.MULTILINE), row.name


def test_sample_without_comment_signs_loads(tmp_path):
    text = re.sub(r"^#(\w+ = )", r"\1", SAMPLE.read_text(), flags=re.MULTILINE)
    path = tmp_path / "x.ini"
    path.write_text(
        re.sub(r"^(access_key|crypto_key|client_certs) = .*$", "", text, flags=re.MULTILINE)
    )
    ns = parse_standalone([str(path)], [])
    assert ns.auth_key == ["newest", "older"]
    assert isinstance(standalone_config(ns), AutopushConfig)


def test_sample_shows_the_defaults():
    path = SAMPLE.read_text()
    defaults = vars(parse_standalone([], []))
    for name, value in re.findall(r"^#(\w+) = (.*)$", path, re.MULTILINE):
        default = defaults[name]
        if default in (None, "", "{}", []):
            continue
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        assert value == shown, name
