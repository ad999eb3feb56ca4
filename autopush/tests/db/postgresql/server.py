"""A PostgreSQL server of the tests' own, in a directory that goes when they end.

It refuses to run as root, so then it runs as another user.
"""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import subprocess
import tempfile
import time
import uuid
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from autopush.tests.e2e.harness import free_port

USERS = ("postgres", "nobody")
"""Who it runs as, where the tests run as root: the first of them that exists."""

STOP_WITHIN = 60
"""Seconds."""

UNSAFE = ("-c", "fsync=off", "-c", "full_page_writes=off")
"""What makes tests faster, and a crash of the machine fatal."""


def programs() -> Path | None:
    """The directory of the newest PostgreSQL there is."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: float(p.parts[-3])
    )
    path = str(found[-1]) if found else shutil.which("initdb")
    return Path(path).parent if path else None


def missing() -> str | None:
    """Why there can't be a server."""
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "psycopg is not installed"
    return None if programs() else "PostgreSQL is not installed"


class Server:
    """One server, which is started and stopped with its data.

    :param options: of ``postgres``
    """

    def __init__(self, *options: str) -> None:
        self.port = free_port()
        self.home = Path(tempfile.mkdtemp(prefix="autopush-pg-", dir="/tmp"))
        self.data = self.home / "data"
        self.log = self.home / "log"
        self._options = [*UNSAFE, *options]
        self._popen: subprocess.Popen[bytes] | None = None
        self._user = self._choose_user()
        if self._user:
            shutil.chown(self.home, self._user)
        self.run(
            "initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8"
        )

    def _choose_user(self) -> str | None:
        if os.getuid():
            return None
        names = {entry.pw_name for entry in pwd.getpwall()}
        return next(name for name in USERS if name in names)

    def _command(self, program: str, *words: str) -> list[str]:
        directory = programs()
        assert directory is not None
        become = ["setpriv", f"--reuid={self._user}", "--clear-groups"] if self._user else []
        return [*become, str(directory / program), *words]

    def run(self, program: str, *words: str) -> str:
        """Run one of PostgreSQL's programs to its end; returns what it printed."""
        done = subprocess.run(
            self._command(program, *words), cwd=self.home, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def host(self) -> str:
        """Of its socket."""
        return str(self.home)

    def dsn(self, database: str = "postgres", **parameters: Any) -> str:
        """A DSN that leads here by the socket, unless a ``host`` is among the parameters."""
        given = {"host": self.host, "port": self.port, "user": "postgres", **parameters}
        words = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in given.items())
        return f"postgresql:///{database}?{words}"

    def start(self) -> Server:
        """Start it and wait until it answers."""
        assert self._popen is None
        where = ["-p", str(self.port), "-k", str(self.home), "-c", "listen_addresses=127.0.0.1"]
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                self._command("postgres", "-D", str(self.data), *where, *self._options),
                cwd=self.home,
                stdout=log,
                stderr=log,
            )
        self.wait_until_ready()
        return self

    def wait_until_ready(self) -> None:
        """Wait until it takes connections."""
        import psycopg

        end = time.monotonic() + STOP_WITHIN
        while True:
            try:
                psycopg.connect(self.dsn()).close()
                return
            except psycopg.OperationalError:
                assert self._popen is not None and self._popen.poll() is None, self.log.read_text()
                assert time.monotonic() < end, self.log.read_text()
                time.sleep(0.05)

    def stop(self, mode: str = "immediate") -> None:
        """Stop it: ``immediate`` as if it crashed, ``fast`` in order."""
        if self._popen is None:
            return
        # Not by a signal: as root, the process is that of setpriv, which became postgres itself.
        self.run("pg_ctl", "-D", str(self.data), "-m", mode, "-w", "stop")
        self._popen.wait(STOP_WITHIN)
        self._popen = None

    def restart(self, mode: str = "immediate") -> None:
        """Stop and start it."""
        self.stop(mode)
        self.start()

    def close(self) -> None:
        """Stop it and remove its data."""
        try:
            self.stop()
        finally:
            shutil.rmtree(self.home, ignore_errors=True)

    def sql(self, statement: str, *values: Any, dsn: str = "") -> list[Any]:
        """Run a statement and return its rows."""
        import psycopg

        with psycopg.connect(dsn or self.dsn(), autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def new_schema(self, **parameters: Any) -> str:
        """A DSN whose tables are nobody else's."""
        name = f"test_{uuid.uuid4().hex}"
        self.sql(f"CREATE SCHEMA {name}")
        return self.dsn(options=f"-csearch_path={name}", **parameters)


@cache
def shared_server() -> Server:
    """The server for tests that don't stop it; it is stopped with this process."""
    server = Server()
    atexit.register(server.close)
    return server.start()
