"""What errors of PostgreSQL mean to callers (db/postgresql/errors.py)."""

from __future__ import annotations

import pytest

psycopg = pytest.importorskip("psycopg")

from autopush.db.postgresql import errors  # noqa: E402
from autopush.exceptions import StoreBusy, StoreClosed, StoreError  # noqa: E402


def of(state: str, text: str = "what the server says\nDETAIL: a value") -> Exception:
    """An error with this SQLSTATE."""
    error: Exception = psycopg.errors.lookup(state)(text)
    return error


@pytest.mark.parametrize("state", errors.TRY_LATER)
def test_what_passes_is_busy(state):
    error = errors.store_error(of(state))
    assert type(error) is StoreBusy
    assert str(error) == errors.TRY_LATER[state]
    assert error.__cause__ is not None


@pytest.mark.parametrize("state", ["42P01", "42501", "XX001", "58030"])
def test_what_does_not_pass_is_none_and_says_what_the_server_says(state):
    error = errors.store_error(of(state))
    assert type(error) is StoreError
    assert str(error) == f"PostgreSQL: what the server says ({state})"
    assert not errors.may_work_again(of(state))
    assert not errors.concerns_one(of(state))


@pytest.mark.parametrize("state", ["22021", "22P02", "23505"])
def test_values_are_not_told(state):
    error = of(state, 'invalid input: "a secret"')
    assert errors.concerns_one(error)
    assert "secret" not in str(errors.store_error(error))
    assert not isinstance(errors.store_error(error), StoreBusy)


def test_a_value_without_representation_concerns_one_operation():
    assert errors.concerns_one(psycopg.DataError("no NUL"))
    assert errors.concerns_one(TypeError("what"))


def test_a_broken_connection_is_busy_and_may_be_replaced():
    error = psycopg.OperationalError("server closed the connection\n\tThis probably means")
    assert errors.is_broken(error)
    assert errors.may_work_again(error)
    assert not errors.concerns_one(error)
    busy = errors.store_error(error)
    assert isinstance(busy, StoreBusy)
    assert str(busy) == "the database can't be reached: server closed the connection"


def test_ours_stay_what_they_are():
    error = StoreClosed("the store is closed")
    assert errors.store_error(error) is error
    assert not errors.concerns_one(error)
