"""Copies of the database: made while it is used, and put in its place while it is not.

Source: spec/storage 17.1.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import NamedTuple

from autopush.db.interface import StoreUnusable
from autopush.db.sqlite import schema
from autopush.db.sqlite.errors import primary_code

STEP = 4096
"""Pages that are copied between two looks at how far it is: 16 MB, some 20 ms."""

IN_USE_WAIT = 1
"""Seconds a database that is to be replaced may be in use: by a command that is about to end."""

MAGIC = b"SQLite format 3\0"
"""How each database begins."""

DAMAGED = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)

BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite has beside a database."""

Shown = Callable[[int, int], None]
"""Is told the bytes that are copied, and all."""


class Restored(NamedTuple):
    """What has been put in place.

    :ivar kept: the database of before; None: there was none
    """

    size: int
    users: int
    kept: str | None


def backup(path_from: str, path_to: str, shown: Shown | None = None) -> None:
    """Copy the database of a running server into a new file.

    The copy is one consistent state and holds every write acknowledged before the call. The
    server is not held up. Works from any process of the same machine.

    :raises StoreUnusable: there is no such database, or the copy exists already or failed
    """
    if not os.path.isfile(path_from):
        raise StoreUnusable(f"storage file {path_from} doesn't exist: name the one to copy")
    with _new_file(path_to):
        _copy(path_from, path_to, shown)


def restore(path_from: str, path_to: str, shown: Shown | None = None) -> Restored:
    """Put a copy in the place of a database that nobody uses; what was there stays beside it.

    Either all of it is done or nothing: at any time the one database or the other is in place.

    :param path_from: stays as it is
    :raises StoreUnusable: there is no such copy, it can't be used, or the database is in use
    """
    if not os.path.isfile(path_from):
        raise StoreUnusable(f"{path_from} doesn't exist: name the copy to restore")
    if os.path.exists(path_to) and os.path.samefile(path_from, path_to):
        raise StoreUnusable(f"{path_from} is the database itself: name the copy to restore")
    _fold(path_to)  # before the long part
    draft = f"{path_to}.restoring"
    _remove(draft)  # left by a crash
    with _new_file(draft):
        _copy(path_from, draft, shown)
        users = _usable(path_from, draft)
        _give_to_owner(draft, path_to)
        _sync(draft)
        kept = _set_aside(path_to)
        os.replace(draft, path_to)
    _sync(os.path.dirname(path_to))
    return Restored(os.path.getsize(path_to), users, kept)


# ---------------------------------------------------------------------------------------- copying


@contextlib.contextmanager
def _new_file(path: str) -> Iterator[None]:
    """Make a file that only its owner can read; it is removed if what comes then fails.

    :raises StoreUnusable: it exists, or can't be made
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise StoreUnusable(f"{path} exists already: name a new file for the copy") from None
    except OSError as error:
        raise StoreUnusable(
            f"{path} can't be created ({error.strerror}): name another file"
        ) from error
    try:
        yield
    except BaseException:
        _remove(path)
        raise


def _copy(path_from: str, path_to: str, shown: Shown | None) -> None:
    try:
        with (
            closing(schema.connect(path_from, schema.LOCK_WAIT)) as source,
            closing(schema.connect(path_to, schema.LOCK_WAIT)) as target,
        ):
            if schema.pragma(source, "application_id") != schema.APPLICATION_ID:
                raise StoreUnusable(f"{path_from} belongs to another program: name the one to copy")
            size = schema.pragma(source, "page_size")

            def step(_status: int, left: int, pages: int) -> None:
                if shown is not None:
                    shown((pages - left) * size, pages * size)

            # A reader in WAL mode sees one state and holds up nobody. Were none open, each write
            # in between would have the copy start again.
            source.execute("BEGIN")
            source.execute("SELECT count(*) FROM sqlite_master").fetchone()
            source.backup(target, pages=STEP, progress=step)
            # One self-contained file, with nothing beside it.
            target.execute("PRAGMA journal_mode = DELETE").fetchall()
            if target.execute("PRAGMA integrity_check").fetchone()[0] != "ok":
                raise StoreUnusable(f"storage file {path_from} is damaged: restore an older backup")
    except sqlite3.Error as error:
        raise schema.unusable(path_from, error) from error


def _usable(path_from: str, copy: str) -> int:
    """Return the number of users in a copy.

    :raises StoreUnusable: of another program, of a newer release, or incomplete
    """
    steps = schema.schema_steps()
    with closing(schema.connect(copy, schema.LOCK_WAIT)) as connection:
        version = schema.check(path_from, connection, len(steps))
        schema.check_complete(path_from, connection, steps[:version])
        return int(connection.execute("SELECT count(*) FROM users").fetchone()[0])


# ---------------------------------------------------------------------------------- the one before


def _fold(path: str) -> None:
    """Have a database in one file, and see that nobody else uses it. A damaged one stays as it is.

    :raises StoreUnusable: somebody does
    """
    if not os.path.exists(path) or not _looks_sound(path):
        return  # SQLite would clear up what is beside it
    try:
        with closing(schema.connect(path, IN_USE_WAIT)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE").fetchall()
    except sqlite3.Error as error:
        if primary_code(error) not in DAMAGED:
            raise schema.unusable(path, error) from error


def _looks_sound(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _set_aside(path: str) -> str | None:
    """Give a database another name beside its own; returns it."""
    _fold(path)
    if not os.path.exists(path):
        _remove(path)  # a log without its database
        return None
    name = f"{path}.before-{time.strftime('%Y%m%dT%H%M%S')}"
    names = itertools.chain((name,), (f"{name}-{number}" for number in itertools.count(2)))
    kept = next(name for name in names if not os.path.exists(name))
    os.link(path, kept)
    for suffix in BESIDE:
        # Only a damaged one has some: they must not be taken for the new one's.
        with contextlib.suppress(FileNotFoundError):
            os.rename(path + suffix, kept + suffix)
    return kept


def _give_to_owner(path: str, place: str) -> None:
    """Let a file belong to whom its place belongs, where we may: root restores for a service."""
    model = os.stat(place if os.path.exists(place) else os.path.dirname(place))
    with contextlib.suppress(PermissionError):
        os.chown(path, model.st_uid, model.st_gid)


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove(path: str) -> None:
    for suffix in ("", *BESIDE):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + suffix)
