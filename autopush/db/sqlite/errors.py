"""What an error of SQLite means to the callers of the store."""

from __future__ import annotations

import sqlite3

from autopush.exceptions import StoreBusy, StoreError

_TRY_LATER = {
    sqlite3.SQLITE_BUSY: "the database is locked",
    sqlite3.SQLITE_LOCKED: "the database is locked",
    sqlite3.SQLITE_FULL: "the disk is full",
}
"""Conditions that pass without a change to what was asked for. A full disk counts: senders and
user agents shall come back when the operator has made room."""

_WHOLE_DATABASE = {
    *_TRY_LATER,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_READONLY,
}


def primary_code(error: BaseException) -> int:
    """SQLite's primary result code, 0 if it is no error of SQLite."""
    code = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else 0


def concerns_whole_database(error: BaseException) -> bool:
    """Whether other operations would fail alike (disk, lock), not only this one (its values)."""
    return primary_code(error) in _WHOLE_DATABASE


def store_error(error: BaseException) -> StoreError:
    """The error for the caller: StoreBusy where trying later makes sense.

    The text never holds values of the operation. ``__cause__`` is ``error``.
    """
    if isinstance(error, StoreError):
        return error
    result: StoreError
    reason = _TRY_LATER.get(primary_code(error))
    if reason is not None:
        result = StoreBusy(reason)
    elif isinstance(error, sqlite3.Error) and primary_code(error):
        result = StoreError(f"SQLite: {error} ({error.sqlite_errorname})")
    else:
        result = StoreError(f"storage operation failed: {type(error).__name__}")
    result.__cause__ = error
    return result
