"""What is in the tree besides code: locks, packaging, samples."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest

from autopush import __main__ as command
from autopush import __version__
from autopush.config import AutopushConfig
from autopush.main_argparse import parse_standalone
from autopush.options_standalone import STANDALONE
from autopush.standalone import standalone_config

TREE = Path(__file__).parents[2]
SAMPLE = TREE / "configs" / "autopush_standalone.ini.sample"

UNRESOLVABLE = {"cyclone"}
"""Their metadata asks for releases of 2019."""


def locked(name):
    lines = (TREE / name).read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^=\s]+", pin) for pin in pins), pins
    return {canonical(pin.split("==")[0]): pin.split("==")[1] for pin in pins}


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
        version = pins.get(canonical(requirement.name))
        assert version is not None, f"{package} needs {requirement}"
        assert requirement.specifier.contains(version, prereleases=True), (
            f"{package}: {requirement}"
        )


def test_doc_lock_is_a_part_of_the_test_lock():
    everything = locked("requirements.txt") | locked("test-requirements.txt")
    assert locked("doc-requirements.txt").items() <= everything.items()


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
            assert packages & set(pins), f"{path.name} imports {module}"


def test_a_start_without_cyclone_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
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


def test_schema_is_packaged():
    """Files that are no modules have to be named in setup.py."""
    (patterns,) = re.findall(
        r'package_data=\{"autopush": \[(.*?)\]', (TREE / "setup.py").read_text()
    )
    package = TREE / "autopush"
    named = {path for pattern in re.findall(r'"(.*?)"', patterns) for path in package.glob(pattern)}
    assert {path for path in package.rglob("*.sql") if "tests" not in path.parts} == {
        path for path in named if path.suffix == ".sql"
    }


# ----------------------------------------------------------------------------- the sample


def test_sample_changes_nothing():
    assert parse_standalone([str(SAMPLE)], []) == parse_standalone([], [])


def test_sample_has_every_option():
    text = SAMPLE.read_text()
    for _, rows in STANDALONE:
        for row in rows:
            if row.name != "db_dsn":
                assert re.search(rf"^#{row.name} = ", text, re.MULTILINE), row.name


def test_sample_without_comment_signs_loads(tmp_path):
    text = re.sub(r"^#(\w+ = )", r"\1", SAMPLE.read_text(), flags=re.MULTILINE)
    path = tmp_path / "x.ini"
    path.write_text(re.sub(r"^(crypto_key|client_certs) = .*$", "", text, flags=re.MULTILINE))
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
