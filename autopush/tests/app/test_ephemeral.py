"""Data directories that are gone at the end."""

from __future__ import annotations

import fcntl
import os
import tempfile

import pytest

from autopush.app.ephemeral import PREFIX, ephemeral_directory, sweep
from autopush.app.standalone import LOCK, DataDir


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_gone_at_the_end(temporary):
    with ephemeral_directory() as path:
        assert os.path.dirname(path) == str(temporary)
        DataDir(path).release()
    assert not os.path.exists(path)


def test_gone_after_a_fault(temporary):
    with pytest.raises(KeyError), ephemeral_directory():
        raise KeyError
    assert not list(temporary.iterdir())


def left_behind(folder, name, pid="123\n"):
    path = folder / name
    path.mkdir()
    (path / LOCK).write_text(pid)
    return path


def test_what_killed_services_left_is_removed(temporary):
    path = left_behind(temporary, f"{PREFIX}a")
    with ephemeral_directory():
        assert not path.exists()


def test_others_stay(tmp_path):
    other = left_behind(tmp_path, "something-else")
    beginning = left_behind(tmp_path, f"{PREFIX}new", pid="")  # its service writes its id next
    unlocked = tmp_path / f"{PREFIX}newer"
    unlocked.mkdir()
    running = left_behind(tmp_path, f"{PREFIX}running")
    with open(running / LOCK) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sweep(tmp_path)
        assert all(path.exists() for path in (other, beginning, unlocked, running))
    sweep(tmp_path)
    assert not running.exists()


def test_a_lock_that_leads_elsewhere(tmp_path):
    """Anybody may put something into a directory of temporary files."""
    elsewhere = left_behind(tmp_path, "elsewhere")
    trap = tmp_path / f"{PREFIX}trap"
    trap.mkdir()
    (trap / LOCK).symlink_to(elsewhere / LOCK)
    sweep(tmp_path)
    assert trap.exists() and elsewhere.exists()
