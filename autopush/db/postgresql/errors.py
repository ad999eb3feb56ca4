"""What an error of PostgreSQL means to the callers of the store."""

from __future__ import annotations

import psycopg

from autopush.exceptions import StoreBusy, StoreError

AGAIN = {
    "40001": "the database could not serialize what others did at the same time",
    "40P01": "the database had to end a deadlock",
    "55P03": "the database is locked",
}
"""SQLSTATEs after which the same transaction may work at once: it was rolled back."""

ELSEWHERE = {
    "25006": "the database is read-only",
    "57P01": "the database is being shut down",
    "57P02": "the database has crashed",
    "57P03": "the database is starting up or shutting down",
    "53300": "the database has too many connections",
    "57P05": "the database ended an idle connection",
    "25P03": "the database ended an idle transaction",
}
"""Those after which another connection may work: the server ends, or is no primary any more."""

TRY_LATER = {
    **AGAIN,
    **ELSEWHERE,
    "53100": "the database's disk is full",
    "53200": "the database is out of memory, or of locks",
    "53400": "a limit of the database is exceeded",
    "57014": "the database takes too long",
}
"""All those that pass without a change to what was asked for."""


def sqlstate(error: BaseException) -> str:
    """The five characters, empty if the server has not said anything."""
    return getattr(error, "sqlstate", None) or ""


def is_broken(error: BaseException) -> bool:
    """Whether its connection is of no use any more."""
    if not isinstance(error, psycopg.Error):
        return False
    state = sqlstate(error)
    return state in ELSEWHERE or (not state and isinstance(error, psycopg.OperationalError))


def may_work_again(error: BaseException) -> bool:
    """Whether the same, asked for again in a moment, may work."""
    return sqlstate(error) in AGAIN or is_broken(error)


def concerns_one(error: BaseException) -> bool:
    """Whether it is about values of one operation: others would not fail alike."""
    if isinstance(error, psycopg.Error):
        # A value that has no representation has no SQLSTATE, psycopg refuses it.
        return sqlstate(error)[:2] in ("22", "23") or isinstance(error, psycopg.DataError)
    return not isinstance(error, StoreError)


def store_error(error: BaseException) -> StoreError:
    """The error for the caller: StoreBusy where trying later makes sense.

    The text holds neither values of the operation nor the password. ``__cause__`` is ``error``.
    """
    if isinstance(error, StoreError):
        return error
    result: StoreError
    state = sqlstate(error)
    if state in TRY_LATER:
        result = StoreBusy(TRY_LATER[state])
    elif is_broken(error):
        result = StoreBusy(f"the database can't be reached: {first_line(error)}")
    elif state and not concerns_one(error):
        result = StoreError(f"PostgreSQL: {first_line(error)} ({state})")
    else:
        result = StoreError(f"storage operation failed: {type(error).__name__} {state}".rstrip())
    result.__cause__ = error
    return result


def first_line(error: BaseException) -> str:
    """What the server says, without what it says beside."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
