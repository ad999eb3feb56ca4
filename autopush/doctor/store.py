"""Checks of the store. They only read, and leave no file behind."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from autopush import clock
from autopush.addresses import without_password
from autopush.db import sqlite_path
from autopush.db.open import POSTGRESQL, postgresql_parameters
from autopush.db.sqlite.schema import APPLICATION_ID, SCHEMA_DIRECTORY, missing, schema_steps
from autopush.doctor.network import skew
from autopush.doctor.report import Result, Subject, fail, ok, plural, warn
from autopush.exceptions import InvalidConfig, StoreError

SKEW = 60
"""Seconds the clock of a database may differ: expiry is judged by ours."""

ROOM = 100 * 2**20
"""Bytes: with less free, messages will soon be refused."""


def store(subject: Subject) -> Iterator[Result]:
    """Whether what is to be remembered can be."""
    if subject.conf.db_dsn.startswith("dynamodb:"):
        yield from _dynamodb(subject)
    elif subject.conf.db_dsn.startswith(POSTGRESQL):
        yield from _postgresql(subject.conf.db_dsn)
    else:
        yield from _sqlite(Path(os.path.abspath(sqlite_path(subject.conf.db_dsn))))


# -------------------------------------------------------------------------------------- SQLite


def _sqlite(path: Path) -> Iterator[Result]:
    parent = next(p for p in path.parents if p.exists())
    free = shutil.disk_usage(parent).free
    if free < ROOM:
        yield warn("disk", f"{free // 2**20} MB are free at {parent}")
    else:
        yield ok("disk", f"{free / 2**30:.1f} GB are free at {parent}")
    if not path.exists():
        missing = not path.parent.exists()
        if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
            yield fail("store", f"{path} can't be created in {parent}")
        else:
            place = " with its directory" if missing else ""
            yield ok("store", f"{path} will be created{place} at the first start")
        return
    if not path.is_file():
        yield fail("store", f"{path} is not a file")
        return
    if not (os.access(path, os.R_OK | os.W_OK) and os.access(path.parent, os.W_OK)):
        yield fail("store", f"{path} or its directory is not writable")
        return
    try:
        with closing(open_untouched(path)) as connection:
            yield from _contents(path, connection)
    except sqlite3.Error as exc:
        yield fail("store", f"{path}: {exc}")
    newest = max(p.stat().st_mtime for p in path.parent.glob(f"{path.name}*"))
    if newest > clock.now() + 60:
        yield warn("clock", "the storage file was written in what is the future now")


def open_untouched(path: Path) -> sqlite3.Connection:
    """Open a database so that no file is made or changed.

    While a process has it open, its log exists and is read; else there is none, and SQLite must be
    told so, or it would make one.
    """
    in_use = all(Path(f"{path}{suffix}").exists() for suffix in ("-wal", "-shm"))
    mode = "mode=ro" if in_use else "mode=ro&immutable=1"
    return sqlite3.connect(f"{path.as_uri()}?{mode}", uri=True, timeout=5)


def _contents(path: Path, connection: sqlite3.Connection) -> Iterator[Result]:
    def pragma(name: str) -> Any:
        return connection.execute(f"PRAGMA {name}").fetchone()[0]

    version, known = pragma("user_version"), len(list(SCHEMA_DIRECTORY.glob("[0-9]*.sql")))
    if pragma("application_id") != APPLICATION_ID:
        if version or connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            yield fail("store", f"{path} belongs to another program")
        else:
            yield ok("store", f"{path} is empty and will be filled at the first start")
        return
    if version > known:
        text = f"schema {version}, this autopush knows {known}: upgrade it"
        yield fail("store", f"{path} was written by a newer autopush ({text})")
        return
    damage = pragma("quick_check(1)")
    if damage != "ok":
        yield fail("store", f"{path} is damaged: {damage}")
        return
    lacking = missing(connection, schema_steps()[:version])
    if lacking:
        yield fail("store", f"{path} is incomplete, it has no {', no '.join(lacking)}")
        return
    if version < known:
        yield warn("store", f"{path} will be migrated from schema {version} to {known}")
    users = connection.execute("SELECT count(*) FROM users").fetchone()[0]
    messages = connection.execute("SELECT count(*) FROM messages").fetchone()[0]
    yield ok(
        "store",
        f"{path}, schema {version}, {plural(users, 'user')}, {plural(messages, 'message')}",
    )


# ---------------------------------------------------------------------------------- PostgreSQL


def _postgresql(dsn: str) -> Iterator[Result]:
    try:
        parameters = postgresql_parameters(dsn)
    except InvalidConfig as exc:
        yield fail("store", str(exc))
        return
    import psycopg

    from autopush.db.postgresql.errors import first_line
    from autopush.db.postgresql.link import connect

    where = without_password(dsn)
    try:
        with connect(parameters) as connection:
            yield from _tables(where, connection)
            yield from _server(connection)
    except psycopg.Error as exc:
        yield fail("store", f"{where}: {first_line(exc)}")


def _tables(where: str, connection: Any) -> Iterator[Result]:
    from autopush.db.postgresql import schema

    steps = schema.schema_steps()
    found, known = schema.version(connection), len(steps)
    lacking = schema.missing(connection, steps[:found])
    unlike = sorted(set(schema.tables(steps)) - set(schema.missing(connection, steps)))
    if found > known:
        text = f"schema {found}, this autopush knows {known}: upgrade it"
        yield fail("store", f"{where} was written by a newer autopush ({text})")
    elif lacking:
        yield fail("store", f"{where} is incomplete, it has no {', no '.join(lacking)}")
    elif not found and unlike:
        yield fail("store", f"{where} has tables of another program: {', '.join(unlike)}")
    elif found < known and not _one(
        connection, "SELECT has_schema_privilege(current_schema(), 'CREATE')"
    ):
        yield fail("store", f"{where}: this role may not make the tables that are missing")
    elif not found:
        yield ok("store", f"{where} is empty and will be filled at the first start")
    elif found < known:
        yield warn("store", f"{where} will be migrated from schema {found} to {known}")
    else:
        users, messages = (
            _one(connection, f"SELECT count(*) FROM {table}") for table in ("users", "messages")
        )
        counts = f"{plural(users, 'user')}, {plural(messages, 'message')}"
        yield ok("store", f"{where}, schema {found}, {counts}")


def _server(connection: Any) -> Iterator[Result]:
    """What of the server's settings loses messages, or keeps nodes out."""
    from autopush.db.postgresql.reader import THREADS

    for name, loss in (
        ("fsync", "a crash of the machine may destroy the database"),
        ("full_page_writes", "a crash of the machine may destroy the database"),
    ):
        if _one(connection, f"SHOW {name}") != "on":
            yield warn("server", f"{name} is off: {loss}")
    seconds = _one(connection, "SELECT extract(epoch FROM clock_timestamp())::float8")
    if abs(seconds - clock.now()) > SKEW:
        yield warn("clock", f"the database's differs by {abs(seconds - clock.now()):.0f} seconds")
    limit, used = (
        int(_one(connection, statement))
        for statement in ("SHOW max_connections", "SELECT count(*) FROM pg_stat_activity")
    )
    needed = THREADS + 1
    if limit - used < 2 * needed:
        yield warn(
            "connections",
            f"{used} of {limit} are taken, each process needs {needed}: raise max_connections",
        )


def _one(connection: Any, statement: str) -> Any:
    return connection.execute(statement).fetchone()[0]


# ------------------------------------------------------------------------------------ DynamoDB


def _dynamodb(subject: Subject) -> Iterator[Result]:
    from botocore.exceptions import BotoCoreError

    from autopush.db.dynamodb import tables
    from autopush.db.dynamodb.client import caller, make_client

    try:
        client = make_client(endpoint_url=subject.conf.aws_ddb_endpoint)
    except (BotoCoreError, ValueError) as exc:
        yield fail("store", f"DynamoDB: {exc}")
        return
    call = caller(client)
    try:
        names = set(tables.names(call))
        answer = call("list_tables", Limit=1)
    except StoreError as exc:
        yield fail("store", f"{client.meta.endpoint_url}: {exc}")
        yield from _clock_from_refusal(exc)
        return
    yield ok("store", f"DynamoDB at {client.meta.endpoint_url}")
    conf = subject.conf
    yield _table(call, conf.router_table.tablename, tables.ROUTER_KEYS, names)
    for name in _months(subject, names):
        result = _table(call, name, tables.MESSAGE_KEYS, names)
        yield result
        if name in names:
            yield _time_to_live(call, name)
    date = answer["ResponseMetadata"].get("HTTPHeaders", {}).get("date")
    result_of_clock = skew("DynamoDB", date)
    if result_of_clock is not None:
        yield result_of_clock


def _months(subject: Subject, names: set[str]) -> list[str]:
    from autopush.db.months import LatestMonths, RotatingMonths

    prefix = subject.conf.message_table.tablename
    if subject.conf.allow_table_rotation:
        return RotatingMonths(prefix).needed_at_start()
    return [LatestMonths(prefix, names).current]


def _table(call: Any, name: str, keys: tuple[str, ...], names: set[str]) -> Result:
    from autopush.db.dynamodb.tables import USABLE

    label = f"table {name}"
    if name not in names:
        return warn(label, "missing, will be created at the start")
    try:
        table = call("describe_table", TableName=name)["Table"]
    except StoreError as exc:
        return fail(label, str(exc))
    found = tuple(key["AttributeName"] for key in table["KeySchema"])
    if found != keys:
        return fail(label, f"its key is {found}, not {keys}: it is no table of autopush")
    if table["TableStatus"] not in USABLE:
        return fail(label, f"is {table['TableStatus']}")
    return ok(label, table["TableStatus"])


def _time_to_live(call: Any, name: str) -> Result:
    from autopush.db.dynamodb.tables import NO_SUCH_OPERATION

    label = f"TTL of {name}"
    try:
        answer = call("describe_time_to_live", TableName=name)["TimeToLiveDescription"]
    except StoreError as exc:
        if getattr(exc, "code", "") in NO_SUCH_OPERATION:
            return warn(label, "this DynamoDB has none: expired messages stay")
        return warn(label, str(exc))
    state, attribute = answer.get("TimeToLiveStatus"), answer.get("AttributeName")
    if state not in ("ENABLED", "ENABLING"):
        return warn(label, "is off: expired messages stay until a node turns it on at its start")
    if attribute != "expiry":
        return fail(label, f"is on for {attribute}, not for expiry: messages never expire")
    return ok(label, "on")


def _clock_from_refusal(exc: StoreError) -> Iterator[Result]:
    text = str(exc)
    if "Signature expired" in text or "Signature not yet current" in text:
        yield fail("clock", "is so wrong that AWS refuses our signatures")
