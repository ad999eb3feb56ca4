"""A file as one side of a copy: docs/moving."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from autopush.db.interface import StoreUnusable
from autopush.db.sqlite.transfer import SqliteTransfer
from autopush.tests.db.transfer_support import NOW, held, sqlite_side, user


def test_looking_makes_no_file(tmp_path):
    side = SqliteTransfer(str(tmp_path / "none"), "message", NOW)
    assert not side.exists()
    with pytest.raises(StoreUnusable, match="doesn't exist"):
        side.page("", 10)
    assert list(tmp_path.iterdir()) == []


def test_files_of_others_and_of_older_releases_are_refused(tmp_path):
    old = sqlite_side(tmp_path)
    other = tmp_path / "other"
    with closing(sqlite3.connect(old._path)) as db, db:
        db.execute("PRAGMA user_version = 1")
    with closing(sqlite3.connect(other)) as db, db:
        db.execute("CREATE TABLE t (x)")
    with pytest.raises(StoreUnusable, match="of an older release"):
        old.page("", 10)
    with pytest.raises(StoreUnusable, match="another program"):
        SqliteTransfer(str(other), "message", NOW).page("", 10)


def test_a_batch_is_whole_or_not_there(tmp_path):
    side = sqlite_side(tmp_path)
    side.replace([user(1)], {})
    with closing(sqlite3.connect(side._path)) as db, db:
        db.execute(
            "CREATE TRIGGER no BEFORE INSERT ON messages"
            " BEGIN SELECT RAISE(ABORT, 'on purpose'); END"
        )
    before = held(side)
    with pytest.raises(StoreUnusable, match="on purpose"):
        side.replace([user(1), user(2)], {})
    assert held(side) == before


def test_expired_channels_and_bare_records_are_not_there(tmp_path):
    side = sqlite_side(tmp_path)
    side.replace([user(1, expiry=NOW), user(2)], {})
    with closing(sqlite3.connect(side._path)) as db, db:
        db.execute("INSERT INTO users VALUES ('bare', '{}')")
    found = held(side)
    assert found.keys() == {user(1).key, user(2).key} == side.present([*found, "bare", "x"])
    assert found[user(1).key].channels is None
    assert side.page("", 10).left == 1
    assert side.count() == 3
    side.close()
