"""The tables: creating, checking and migrating them (spec/storage 17.1)."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import psycopg

from autopush.db.interface import StoreUnusable
from autopush.db.postgresql.link import Connection, Link
from autopush.exceptions import StoreError

SCHEMA_DIRECTORY = Path(__file__).parent / "schema"

START_PATIENCE = 20.0
"""Seconds for which a server is waited for at the start: after a boot it may start later than
we."""

LOCK = 0x61757470
"""First number of our advisory locks that are about no user (``autp``)."""

MIGRATION, SWEEP = 1, 2
"""Second numbers."""

_VERSION_TABLE = "autopush_schema"


def prepare(parameters: str, described: str, schema: Path = SCHEMA_DIRECTORY) -> None:
    """Create the tables if there are none, else check them and bring them to the newest version.

    :param parameters: of libpq
    :param described: the database, for people
    :param schema: directory of ``001.sql``, ``002.sql``...: number N leads from version N - 1
        (1: from nothing) to version N
    :raises StoreUnusable: the database can't be used; it is left as it was
    """
    link = Link(parameters, threading.Event())
    steps = schema_steps(schema)
    try:
        link.run(lambda connection: _migrate(connection, described, steps), START_PATIENCE)
    except StoreUnusable:
        raise
    except StoreError as error:
        raise unusable(described, error) from error
    finally:
        link.drop()


def unusable(described: str, error: StoreError) -> StoreUnusable:
    """What an operator is to know of an error met at the start."""
    cause = error.__cause__
    if isinstance(cause, psycopg.errors.InsufficientPrivilege):
        return StoreUnusable(
            f"{described}: {cause.diag.message_primary}: let its role create tables, or create"
            " them for it (docs/postgresql)"
        )
    return StoreUnusable(f"{described} can't be used: {error}")


def schema_steps(schema: Path = SCHEMA_DIRECTORY) -> list[str]:
    """The scripts that lead from nothing to the newest version, one a version."""
    steps = sorted(schema.glob("[0-9]*.sql"))
    if not steps or [int(step.stem) for step in steps] != list(range(1, len(steps) + 1)):
        raise StoreUnusable(f"files are missing in {schema}: install autopush again")
    return [step.read_text(encoding="utf-8") for step in steps]


def version(connection: Connection) -> int:
    """The version of the tables, 0 if there are none.

    Only in the schema where they would be made: tables of others may have the same names.
    """
    if not _exists(connection, _VERSION_TABLE):
        return 0
    row = connection.execute(f"SELECT coalesce(max(version), 0) FROM {_VERSION_TABLE}").fetchone()
    return row[0] if row else 0


def tables(steps: list[str]) -> list[str]:
    """The names of the tables that these steps make."""
    return re.findall(r"^CREATE TABLE (\w+)", "\n".join(steps), re.MULTILINE)


def missing(connection: Connection, steps: list[str]) -> list[str]:
    """The tables that these steps make and that are not there."""
    return [name for name in tables(steps) if not _exists(connection, name)]


def _exists(connection: Connection, name: str) -> bool:
    row = connection.execute(
        "SELECT 1 FROM pg_tables WHERE schemaname = current_schema() AND tablename = %s", (name,)
    ).fetchone()
    return row is not None


def _migrate(connection: Connection, described: str, steps: list[str]) -> None:
    with connection.transaction():
        connection.execute(
            "SET LOCAL lock_timeout = '15s'; SET LOCAL statement_timeout = 0", prepare=False
        )
        connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCK, MIGRATION))
        found = version(connection)
        if found > len(steps):
            raise StoreUnusable(
                f"{described} was written by a newer autopush (schema {found}, this one knows"
                f" {len(steps)}): upgrade autopush or name another database"
            )
        if not found:
            others = [name for name in tables(steps) if _exists(connection, name)]
            if others:
                raise StoreUnusable(
                    f"{described} has tables of another program ({', '.join(others)}): name a"
                    " database of its own"
                )
        lacking = missing(connection, steps[:found])
        if lacking:
            raise StoreUnusable(
                f"{described} is incomplete, it has no {', no '.join(lacking)}: restore a backup"
            )
        for script in steps[found:]:
            connection.execute(script.encode(), prepare=False)
