"""The database file: creating, opening, checking and migrating it (spec/storage 17.1)."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from autopush.db.interface import StoreUnusable
from autopush.db.sqlite.errors import primary_code

APPLICATION_ID = 0x61757470
"""Marks the file as ours (``autp``)."""

SCHEMA_DIRECTORY = Path(__file__).parent / "schema"

LOCK_WAIT = 10
"""Seconds to wait at start-up for another process that creates or migrates the file."""

WRITE_WAIT = 5
"""Seconds a batch of writes waits for those of other processes; they take milliseconds."""

READ_WAIT = 0.01
"""Seconds a read may wait. In WAL mode readers wait only while the file is opened or closed, and
reads happen on the reactor thread."""

WRITER_CACHE = 16384
"""KiB of the file that the connection that writes keeps: nobody else changes it as a rule."""

READER_CACHE = 2048
"""KiB that the one that reads keeps. It looks at the file itself, which the kernel has in memory,
and forgets with each transaction of the other what it has read in the log."""

_COMMON = ("temp_store = MEMORY",)
_WRITER = (
    f"cache_size = -{WRITER_CACHE}",
    # An acknowledged write has reached the disk.
    "synchronous = FULL",
    # Payloads are encrypted end to end: overwriting what was deleted only costs writes.
    "secure_delete = OFF",
    # Messages are often deleted soon after they came. The longer the log may grow, the fewer
    # of those pages are ever copied to the file; 4,000 pages are 16 MB.
    "wal_autocheckpoint = 4000",
    "journal_size_limit = 67108864",
)
_READER = (f"cache_size = -{READER_CACHE}", "query_only = ON", "mmap_size = 268435456")


def open_writer(path: str) -> sqlite3.Connection:
    """A connection for the thread that writes."""
    return connect(path, WRITE_WAIT, *_COMMON, *_WRITER)


def open_reader(path: str) -> sqlite3.Connection:
    """A connection for the thread that reads."""
    return connect(path, READ_WAIT, *_COMMON, *_READER)


def connect(path: str, wait: float, *pragmas: str) -> sqlite3.Connection:
    """Open a database that exists.

    :param wait: seconds to wait for others that hold it
    """
    # mode=rw: a file that has been moved away must not be replaced by an empty one.
    connection = sqlite3.connect(
        f"{Path(path).absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=wait,
        isolation_level=None,
        cached_statements=256,
    )
    try:
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def prepare(path: str, schema: Path = SCHEMA_DIRECTORY) -> None:
    """Create the file if there is none, else check it and bring it to the newest version.

    :param schema: directory of ``001.sql``, ``002.sql``...: number N leads from version N - 1
        (1: from an empty file) to version N
    :raises StoreUnusable: the file can't be used; it is left as it was
    """
    _create(path)
    connection = None
    try:
        connection = connect(path, LOCK_WAIT)
        steps = schema_steps(schema)
        # In one transaction: another process may be creating the file.
        connection.execute("BEGIN")
        try:
            check(path, connection, len(steps))
        finally:
            connection.execute("ROLLBACK")
        _write_ahead(connection)
        _migrate(path, connection, steps)
    except sqlite3.Error as error:
        raise unusable(path, error) from error
    finally:
        if connection is not None:
            connection.close()


def unusable(path: str, error: BaseException) -> StoreUnusable:
    """What an operator is to do about an error met while opening the file."""
    advice = {
        sqlite3.SQLITE_NOTADB: "is not an SQLite database: move it away or name another file",
        sqlite3.SQLITE_CORRUPT: "is damaged: restore a backup or move it away",
        sqlite3.SQLITE_READONLY: "is not writable: give this user write access to it and to its "
        "directory",
        sqlite3.SQLITE_CANTOPEN: "can't be opened: give this user write access to it and to its "
        "directory",
        sqlite3.SQLITE_PERM: "can't be opened: give this user access to it",
        sqlite3.SQLITE_BUSY: "is locked by another process: end that process",
        sqlite3.SQLITE_FULL: "can't grow: make room on its disk",
    }.get(primary_code(error), f"can't be used: {error}")
    return StoreUnusable(f"storage file {path} {advice}")


def _create(path: str) -> None:
    try:
        # Only the owner may read it: it holds the secrets of subscriptions.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if not os.path.isfile(path):
            raise StoreUnusable(f"storage file {path} is not a file: name another one") from None
    except OSError as error:
        raise StoreUnusable(
            f"storage file {path} can't be created ({error.strerror}): create its directory and "
            "give this user write access to it"
        ) from error


def schema_steps(schema: Path = SCHEMA_DIRECTORY) -> list[str]:
    """The scripts that lead from an empty file to the newest version, one a version."""
    steps = sorted(schema.glob("[0-9]*.sql"))
    if [int(step.stem) for step in steps] != list(range(1, len(steps) + 1)):
        raise StoreUnusable(f"files are missing in {schema}: install autopush again")
    return [step.read_text(encoding="utf-8") for step in steps]


def pragma(connection: sqlite3.Connection, name: str) -> int:
    """Return the value of a pragma that has a number."""
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def check(path: str, connection: sqlite3.Connection, newest: int) -> int:
    """Return the version of the file, if it is one of ours or empty.

    :param newest: version that is known
    :raises StoreUnusable: it is neither, or newer
    """
    version = pragma(connection, "user_version")
    if pragma(connection, "application_id") != APPLICATION_ID:
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if version or tables:
            raise StoreUnusable(
                f"storage file {path} belongs to another program: name another file"
            )
    elif version > newest:
        raise StoreUnusable(
            f"storage file {path} was written by a newer autopush (schema {version}, this one "
            f"knows {newest}): upgrade autopush or name another file"
        )
    return version


def _write_ahead(connection: sqlite3.Connection) -> None:
    # The change of mode needs the file for itself and doesn't wait for it by itself.
    deadline = time.monotonic() + LOCK_WAIT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            return
        except sqlite3.OperationalError as error:
            if primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _migrate(path: str, connection: sqlite3.Connection, steps: list[str]) -> None:
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Once more, now that no other process can be at it.
        version = check(path, connection, len(steps))
        check_complete(path, connection, steps[:version])
        for number, script in enumerate(steps[version:], start=version + 1):
            for statement in _statements(script):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def check_complete(path: str, connection: sqlite3.Connection, steps: list[str]) -> None:
    """:raises StoreUnusable: it lacks what these steps have made"""
    lacking = missing(connection, steps)
    if lacking:
        raise StoreUnusable(
            f"storage file {path} is incomplete, it has no {', no '.join(lacking)}: restore a"
            " backup, or move it away to start with an empty one"
        )


def missing(connection: sqlite3.Connection, steps: list[str]) -> list[str]:
    """What a database lacks of what these steps make, such as ``table users``."""
    with closing(sqlite3.connect(":memory:")) as complete:
        complete.executescript("".join(steps))
        wanted = _objects(complete)
    there = _objects(connection)
    return [
        text
        for (kind, name), columns in wanted.items()
        for text in (
            [f"{kind} {name}"]
            if (kind, name) not in there
            else [f"column {c} in {name}" for c in columns if c not in there[kind, name]]
        )
    ]


def _objects(connection: sqlite3.Connection) -> dict[tuple[str, str], list[str]]:
    """Columns of tables, indexes and so on, by kind and name."""
    found = connection.execute(
        "SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        " ORDER BY type = 'table' DESC, name"
    ).fetchall()
    columns = "SELECT name FROM pragma_table_info(?)"
    return {
        (kind, name): [column for (column,) in connection.execute(columns, (name,))]
        for kind, name in found
    }


def _statements(script: str) -> Iterator[str]:
    """The script's statements one by one (``executescript`` would commit first)."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        yield statement
