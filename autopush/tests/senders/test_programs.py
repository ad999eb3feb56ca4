"""Programs are built once; where that can't be, the tests are skipped and say why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autopush.tests.senders.programs import PROGRAMS, Program, built, fingerprint


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache and sources of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "source").write_text("one")
    return tmp_path


def toy(here: Path, **how: Any) -> Program:
    """A program of these sources."""
    return Program("toy", "true", home=here, **how)


def test_built_once_and_again_when_the_sources_change(here: Path) -> None:
    program = toy(here, build=("cp source made", "rm source"))
    folder = built(program)
    assert (folder / "made").read_text() == "one"
    (folder / "made").write_text("still the same")
    assert built(program) == folder
    assert (folder / "made").read_text() == "still the same"

    (here / "toy" / "source").write_text("two")
    again = built(program)
    assert (again / "made").read_text() == "two"
    assert not folder.exists()


def test_missing_tool(here: Path) -> None:
    with pytest.raises(pytest.skip.Exception, match="no such-a-tool on this machine"):
        built(toy(here, tools=("sh", "such-a-tool")))


def test_packages_that_cannot_be_fetched(here: Path) -> None:
    for fetch, why in (("ls /nowhere", "No such file"), ("false", "status 1")):
        program = toy(here, fetch=fetch)
        for _ in range(2):  # nothing is left of the first time
            with pytest.raises(pytest.skip.Exception, match=f"can't fetch .* of toy: .*{why}"):
                built(program)


def test_sources_that_cannot_be_built_are_a_fault(here: Path) -> None:
    with pytest.raises(AssertionError):
        built(toy(here, build=("false",)))


def test_every_program_has_a_name_of_its_own() -> None:
    assert len({fingerprint(program) for program in PROGRAMS}) == len(PROGRAMS)
