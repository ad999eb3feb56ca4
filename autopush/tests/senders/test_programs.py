"""Programs are built once; where that can't be, the tests are skipped and say why."""

from __future__ import annotations

from pathlib import Path

import pytest

from autopush.tests.senders import programs
from autopush.tests.senders.programs import PROGRAMS, Program, built, fingerprint


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache and sources of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(programs, "HERE", tmp_path)
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "source").write_text("one")
    return tmp_path


def test_built_once_and_again_when_the_sources_change(here: Path) -> None:
    toy = Program("toy", "true", build=("cp source made", "rm source"))
    folder = built(toy)
    assert (folder / "made").read_text() == "one"
    (folder / "made").write_text("still the same")
    assert built(toy) == folder
    assert (folder / "made").read_text() == "still the same"

    (here / "toy" / "source").write_text("two")
    again = built(toy)
    assert (again / "made").read_text() == "two"
    assert not folder.exists()


def test_missing_tool() -> None:
    with pytest.raises(pytest.skip.Exception, match="no such-a-tool on this machine"):
        built(Program("toy", "true", tools=("sh", "such-a-tool")))


def test_packages_that_cannot_be_fetched() -> None:
    for fetch, why in (("ls /nowhere", "No such file"), ("false", "status 1")):
        toy = Program("toy", "true", fetch=fetch)
        for _ in range(2):  # nothing is left of the first time
            with pytest.raises(pytest.skip.Exception, match=f"can't fetch .* of toy: .*{why}"):
                built(toy)


def test_sources_that_cannot_be_built_are_a_fault() -> None:
    with pytest.raises(AssertionError):
        built(Program("toy", "true", build=("false",)))


def test_every_program_has_a_name_of_its_own(here: Path) -> None:
    for program in PROGRAMS:
        (here / program.name).mkdir()
    assert len({fingerprint(program) for program in PROGRAMS}) == len(PROGRAMS)
