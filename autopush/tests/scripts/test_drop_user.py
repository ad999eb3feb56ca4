"""drop_users: spec/configuration 1.5, spec/storage 14, quirk C14."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

import pytest
from moto import mock_aws

from autopush.app.progress import Progress
from autopush.config import AutopushConfig
from autopush.db.offline import Stale, offline_from_config
from autopush.db.sqlite import schema
from autopush.scripts.drop_user import drop_users, expected, first_kept, pace, parse, purge
from autopush.tests.app.test_progress import Terminal
from autopush.tests.db.offline_support import DynamoSide, PostgresqlSide, SqliteSide
from autopush.tests.db.postgresql.server import missing


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in ("DB_DSN", "ROUTER_TABLENAME", "AWS_LOCAL_DYNAMODB", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")


@pytest.fixture(autouse=True)
def month(monkeypatch):
    """It doesn't change during a test."""
    local, today = time.localtime, time.localtime()
    monkeypatch.setattr("time.localtime", lambda *of: local(*of) if of else today)


@pytest.fixture(params=["sqlite", "postgresql", "dynamodb"])
def side(request, tmp_path):
    if request.param == "sqlite":
        yield SqliteSide(str(tmp_path / "db.sqlite3"))
    elif request.param == "postgresql":
        if reason := missing():
            pytest.skip(reason)
        yield PostgresqlSide()
    else:
        with mock_aws():
            yield DynamoSide()


def ago(months):
    """A ``last_connect`` of a day so many months back."""
    now = time.localtime()
    number = now.tm_year * 12 + now.tm_mon - 1 - months
    return int(f"{number // 12}{number % 12 + 1:02}230010")


def run(side, *args):
    words = ["--db_dsn", side.dsn, "--pause_time", "0", *args]
    return drop_users(words, resource=side.resource)


@pytest.mark.parametrize(
    ("months", "year", "month", "first"),
    [
        (2, 2026, 11, 202610000000),
        (1, 2026, 11, 202611000000),
        (2, 2026, 2, 202601000000),
        (2, 2026, 1, 202512000000),
        (12, 2026, 6, 202507000000),
    ],
)
def test_months_ago(months, year, month, first):
    """Two months ago in November is September: October is kept."""
    assert first_kept(months, time.struct_time((year, month, 15, 0, 0, 0, 0, 0, 0))) == first


def test_old_users_go_and_others_stay(side, capsys):
    for months in range(5):
        side.put_user(f"user{months}", router_type="webpush", last_connect=ago(months))
    side.put_user("simple", router_type="simplepush", last_connect=ago(3))
    side.put_user("never", router_type="webpush")
    side.put_user("phone", router_type="fcm", last_connect=ago(12))
    assert run(side) is None
    assert side.users() == {"user0", "user1", "never", "phone"}
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Deleting users with a last_connect 2 months ago."
    assert lines[1] == "Deleted 4 user records, pausing for 0 seconds."
    assert lines[-1].startswith("Finished old user purge.")


def test_months_ago_option(side):
    for months in range(5):
        side.put_user(f"user{months}", router_type="webpush", last_connect=ago(months))
    assert run(side, "--months-ago", "4") is None
    assert side.users() == {"user0", "user1", "user2", "user3"}


def test_dry_run_changes_nothing(side, capsys):
    for number in range(3):
        side.put_user(f"user{number}", router_type="webpush", last_connect=ago(5))
    before = side.dump()
    assert run(side, "--dry_run") is None
    assert side.dump() == before
    assert "Dry run: 3 user records would be deleted." in capsys.readouterr().out


def database(side):
    conf = AutopushConfig(db_dsn=side.dsn)
    return offline_from_config(conf, side.resource)


def test_batches_and_pauses(side, capsys):
    for number in range(7):
        side.put_user(f"user{number}", router_type="webpush", last_connect=ago(5))
    pauses = []
    ns = parse(["--batch_size", "3", "--pause_time", "2"])
    assert purge(database(side), ns, ago(0), pauses.append) == 7
    assert pauses == [2, 2, 2]
    out = capsys.readouterr().out
    assert out.count("Deleted 3 user records, pausing for 2 seconds.") == 2
    assert out.count("Deleted 1 user records") == 1


def test_pace_by_itself(side):
    """DynamoDB's units are shared with the nodes; SQLite writes many at once."""
    db = database(side)
    usual = (1000, 0, False) if side.resource is None else (25, 1, True)
    assert pace(db, parse([])) == usual
    assert pace(db, parse(["--batch_size", "7", "--pause_time", "0"])) == (7, 0, True)


def test_many_in_one_write(tmp_path, capsys, monkeypatch):
    """A batch is one transaction, not one for each user."""
    side = SqliteSide(str(tmp_path / "db.sqlite3"))
    for number in range(2500):
        side.put_user(f"user{number}", router_type="webpush", last_connect=ago(5))
    opened = []
    plain = schema.open_writer
    monkeypatch.setattr(schema, "open_writer", lambda path: opened.append(path) or plain(path))
    assert drop_users(["--db_dsn", side.dsn]) is None
    assert len(opened) == 3
    assert side.users() == set()
    said = capsys.readouterr()
    last = said.out.splitlines()[-1]
    assert last.startswith("Finished old user purge. Deleted 2500 user records in ")
    assert last.endswith(" users a second).")
    assert said.err == ""


def test_failing_batch_is_whole_or_not_there(tmp_path):
    side = SqliteSide(str(tmp_path / "db.sqlite3"))
    for number in range(3):
        side.put_user(f"user{number}", router_type="webpush", last_connect=ago(5))
    with closing(sqlite3.connect(tmp_path / "db.sqlite3")) as db, db:
        db.execute(
            "CREATE TRIGGER no BEFORE DELETE ON users WHEN old.uaid = 'user2'"
            " BEGIN SELECT RAISE(ABORT, 'on purpose'); END"
        )
    assert "on purpose" in str(drop_users(["--db_dsn", side.dsn]))
    assert side.users() == {"user0", "user1", "user2"}


def test_progress_on_a_terminal(side, capsys):
    for number in range(7):
        side.put_user(f"user{number}", router_type="webpush", last_connect=ago(5))
    stream = Terminal()
    times = iter(range(100))
    db, ns = database(side), parse(["--batch_size", "3", "--pause_time", "0"])
    total = expected(db, ns, ago(0))
    assert total == (7 if side.resource is None else None)
    progress = Progress("Deleting", "users", total, stream=stream, now=lambda: next(times))
    assert purge(db, ns, ago(0), progress=progress) == 7
    assert capsys.readouterr().out == ""
    assert stream.getvalue().startswith(
        "\rDeleting: 3 of 7 users (43%)" if total else "\rDeleting: 3 users"
    )


def test_expected_with_a_limit(tmp_path):
    side = SqliteSide(str(tmp_path / "db.sqlite3"))
    for number in range(3):
        side.put_user(f"user{number}", router_type="webpush", last_connect=ago(5))
    db = database(side)
    assert [expected(db, parse(["--limit", n]), ago(0)) for n in "025"] == [3, 2, 3]


def test_limit(side):
    for number in range(7):
        side.put_user(f"user{number}", router_type="webpush", last_connect=ago(5))
    assert run(side, "--limit", "4") is None
    assert len(side.users()) == 3


def test_user_who_comes_back_meanwhile_stays(side):
    side.put_user("user", router_type="webpush", last_connect=ago(0))
    db = database(side)
    assert db.drop(Stale("user", ago(5))) is False
    assert db.drop(Stale("nobody", ago(5))) is False
    assert side.users() == {"user"}


def test_other_table():
    with mock_aws():
        side = DynamoSide()
        side.put_user("user", router_type="webpush", last_connect=ago(5))
        assert "drop_users: error:" in str(run(side, "--router_table_name", "nothing"))
        assert side.users() == {"user"}


def test_scan_in_pages():
    with mock_aws():
        side = DynamoSide()
        filler = "x" * 300_000
        for number in range(10):
            side.put_user(
                f"user{number}", router_type="webpush", last_connect=ago(5), filler=filler
            )
        assert run(side) is None
        assert side.users() == set()


def test_bad_dsn():
    text = drop_users(["--db_dsn", "mysql:"])
    assert str(text).startswith("drop_users: error: db_dsn mysql: is not supported")


def test_defaults():
    ns = parse([])
    assert (ns.months_ago, ns.batch_size, ns.pause_time) == (2, None, None)
    assert (ns.router_table_name, ns.dry_run, ns.db_dsn) == ("router", False, "dynamodb:")


def test_data_directory_of_a_standalone_service(tmp_path):
    side = SqliteSide(str(tmp_path / "autopush.sqlite3"))
    side.put_user("user", router_type="webpush", last_connect=ago(5))
    assert drop_users(["--data_dir", str(tmp_path), "--pause_time", "0"]) is None
    assert side.users() == set()


def test_missing_file(tmp_path):
    """It speaks of the file, and makes none."""
    for words in (["--data_dir", str(tmp_path)], ["--db_dsn", f"sqlite://{tmp_path}/db"]):
        assert "doesn't exist: name one that does" in str(drop_users(words))
    assert list(tmp_path.iterdir()) == []
