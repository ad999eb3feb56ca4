"""autopush_data: docs/moving."""

from __future__ import annotations

import pytest

from autopush.db.copying import Copied, Totals, Verified
from autopush.scripts.data import described, found_lines, main, open_side, parse, told
from autopush.tests.db.dynamodb.support import client, table_names
from autopush.tests.db.transfer_support import NOW, held, sqlite_side, user


@pytest.fixture(autouse=True)
def clock_of_the_users(monkeypatch):
    monkeypatch.setattr("autopush.clock.now", lambda: float(NOW))
    for name in ("ROUTER_TABLENAME", "MESSAGE_TABLENAME", "AWS_LOCAL_DYNAMODB"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def source(tmp_path):
    side = sqlite_side(tmp_path)
    side.replace([user(1), user(2)], {})
    return side


def dsn(path):
    return f"sqlite://{path}"


def test_copy_verify_and_stats(source, tmp_path, capsys):
    there = dsn(tmp_path / "new.sqlite3")
    words = ["--from", source.described, "--to", there]
    assert main(["copy", *words, "--dry_run"]) is None
    assert "2 users would be written, 0 would be removed." in capsys.readouterr().out
    assert not (tmp_path / "new.sqlite3").exists()
    assert main(["copy", *words]) is None
    assert "2 users written, 0 removed.\nFinished in " in capsys.readouterr().out
    assert main(["verify", *words]) is None
    assert "2 users compared" in capsys.readouterr().out
    assert main(["stats", "--from", there]) is None
    assert capsys.readouterr().out == (
        "2 users, 2 channels, 2 messages, 68 bytes, oldest 2026-11-23 18:41:39 UTC\n"
    )
    source.remove([user(1).key])
    assert main(["verify", *words]) == "autopush_data: the two stores differ"
    assert main(["copy", *words]) is None
    assert "0 users written, 1 removed." in capsys.readouterr().out


def test_to_dynamodb_and_back(source, tmp_path, capsys):
    router, message = table_names()
    tables = ["--router_tablename", router, "--message_tablename", message, "--units", "0"]
    assert (
        main(["copy", "--from", source.described, "--to", "dynamodb:", *tables], client()) is None
    )
    back = dsn(tmp_path / "back.sqlite3")
    assert main(["copy", "--from", "dynamodb:", "--to", back, *tables], client()) is None
    with_back = open_side(back, parse(["stats", "--from", back]))
    assert held(with_back) == held(source)
    with_back.close()


def test_what_is_no_store(source, tmp_path):
    missing = dsn(tmp_path / "none")
    assert "doesn't exist" in main(["stats", "--from", missing])
    assert "doesn't exist" in main(["verify", "--from", source.described, "--to", missing])
    assert "the same store" in main(["copy", "--from", source.described, "--to", source.described])
    assert "is not supported" in main(["stats", "--from", "mysql:"])


@pytest.mark.parametrize("words", [["copy", "--from", "dynamodb:"], ["stats"], ["move"], []])
def test_what_is_no_command(words, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(words)
    assert caught.value.code == 2
    assert "autopush_data" in capsys.readouterr().err


def test_interrupted(source, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("autopush.scripts.data.copy", interrupt)
    words = ["--from", source.described, "--to", dsn(tmp_path / "new")]
    assert "interrupted" in main(["copy", *words])


def test_what_it_says():
    assert described(Totals(left=2)).endswith("; 2 users that no node would know any more")
    assert described(Totals(unreadable=["a", "b"])).endswith(
        "; 2 users left out whose record can't be read: a, b"
    )
    assert described(Totals(unreadable=["a"] * 11)).endswith(" a, ...")
    assert told(Copied(resumed=True), dry=False)[0].startswith("Went on")
    many = Verified(Totals(), Totals(), 25, ("a", "b"), [f"line {n}" for n in range(25)])
    lines = found_lines(many)
    assert lines[-1] == "and 5 more differences"
    assert not many.alike
