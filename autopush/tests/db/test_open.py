"""Which store a ``db_dsn`` names (db/open.py). SQLite's are in sqlite/test_store.py, too."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet import reactor

from autopush.db import SqliteStore, store_from_dsn
from autopush.db.open import postgresql_parameters
from autopush.exceptions import InvalidConfig


def conf(dsn: str) -> Any:
    return SimpleNamespace(
        db_dsn=dsn,
        key_hash="",
        max_stored=1,
        max_stored_bytes=1,
        max_stored_share=100,
        workers=1,
        router_table=SimpleNamespace(tablename="people"),
        message_table=SimpleNamespace(tablename="letters"),
    )


def test_sqlite(tmp_path):
    assert isinstance(store_from_dsn(conf(f"sqlite://{tmp_path}/db"), reactor), SqliteStore)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_postgresql(scheme):
    pytest.importorskip("psycopg")
    from autopush.db.postgresql.store import PostgresqlStore

    store = store_from_dsn(conf(f"{scheme}://user@host:7/db?sslmode=verify-full"), reactor)
    assert isinstance(store, PostgresqlStore)
    assert store.months.current == "letters"
    for part in ("host=host", "port=7", "user=user", "dbname=db", "sslmode=verify-full"):
        assert part in store._parameters


@pytest.mark.parametrize(
    "dsn", ["postgresql://u:pass%word@h/d", "postgresql://h/d?nothing=known", "postgresql://[h"]
)
def test_a_dsn_that_cannot_be_read_is_told_without_its_password(dsn):
    pytest.importorskip("psycopg")
    with pytest.raises(InvalidConfig, match="can't be read") as told:
        postgresql_parameters(dsn)
    assert "pass" not in str(told.value)
    assert told.value.__cause__ is None


def test_without_psycopg_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(InvalidConfig, match=r"pip install 'autopush-server\[postgresql\]'"):
        store_from_dsn(conf("postgresql://h/d"), reactor)
