"""What the doctor says of a PostgreSQL (doctor/store.py); of others: test_doctor.py."""

from __future__ import annotations

import pytest

from autopush.doctor.store import _postgresql
from autopush.tests.db.postgresql.server import missing, shared_server


@pytest.fixture
def server():
    if reason := missing():
        pytest.skip(reason)
    return shared_server()


@pytest.fixture
def dsn(server):
    return server.new_schema()


def told(dsn):
    """Texts by name, with their levels."""
    return {result.name: (result.level, result.text) for result in _postgresql(dsn)}


def prepare(dsn):
    from autopush.db.postgresql.link import parameters
    from autopush.db.postgresql.schema import prepare as make

    make(parameters(dsn), "here")


def test_an_empty_database_will_be_filled(dsn):
    level, text = told(dsn)["store"]
    assert level == "ok"
    assert text.endswith("is empty and will be filled at the first start")


def test_what_is_there_is_counted(server, dsn):
    prepare(dsn)
    server.sql("INSERT INTO users VALUES ('a', '{}')", dsn=dsn)
    level, text = told(dsn)["store"]
    assert level == "ok"
    assert text.endswith("schema 1, 1 user, 0 messages")


def test_nothing_is_written(server, dsn):
    told(dsn)
    assert server.sql("SELECT to_regclass('users')", dsn=dsn) == [(None,)]


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("INSERT INTO autopush_schema VALUES (99)", "written by a newer autopush (schema 99"),
        ("DROP TABLE channels", "is incomplete, it has no channels"),
        ("DROP TABLE autopush_schema", "has tables of another program: channel_rows, channels"),
    ],
)
def test_what_cannot_be_used(server, dsn, statement, text):
    prepare(dsn)
    server.sql(statement, dsn=dsn)
    level, said = told(dsn)["store"]
    assert level == "FAIL"
    assert text in said


def test_a_role_that_may_not_make_tables(server, dsn):
    schema = dsn.partition("%3D")[2]
    role = f"doctor_{schema}"
    server.sql(f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA {schema} TO {role}")
    level, text = told(dsn.replace("user=postgres", f"user={role}"))["store"]
    assert (level, text.partition(": ")[2]) == (
        "FAIL",
        "this role may not make the tables that are missing",
    )


def test_a_server_that_is_not_there(server):
    level, text = told(server.dsn(port=1))["store"]
    assert level == "FAIL"
    assert "connection" in text


def test_settings_that_lose_messages(dsn):
    # The tests' own server has them.
    assert told(dsn)["server"][0] == "warn"
    assert "is off" in told(dsn)["server"][1]


def test_a_dsn_that_cannot_be_read(server):
    assert told("postgresql://h/d?nothing=known")["store"][0] == "FAIL"
