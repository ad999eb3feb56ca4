"""A cluster of real daemons on one store, each a process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import boto3
import httpx
from boto3.dynamodb.conditions import Key
from cryptography.fernet import Fernet

from autopush.tests import TREE
from autopush.tests.db.postgresql.server import Server
from autopush.tests.e2e.harness import START_WITHIN, STOP_WITHIN, UNEXPECTED, environment, free_port

PATIENCE = """
import autopush.app.service as service
import autopush.db.dynamodb.client as client, autopush.db.groupwriter as groupwriter
client.READ_TIMEOUT, client.DEADLINE, groupwriter.DEADLINE = 60, 100.0, 100.0
service.STOP_WITHIN = 100.0
"""
"""What makes a daemon wait for its store as long as it takes: where several clusters, each with an
emulator in Python, share a machine, that may be more than the eight seconds it has in earnest, and
the three that it has at its end to save what it owes."""

ENDS_WITHIN = STOP_WITHIN + 100
"""Seconds after which a test gives up on the end of such a daemon."""

COMMANDS = {
    "autopush": "import sys; from autopush.__main__ import connection as main; sys.exit(main())",
    "autoendpoint": "import sys; from autopush.__main__ import endpoint as main; sys.exit(main())",
}
"""What the console scripts do; the tests may run without an installation."""


DYNALITE = TREE / ".dynalite" / "node_modules" / "dynalite" / "cli.js"


class Process:
    """A command that runs until it is stopped; its output is kept.

    :param words: command line
    """

    def __init__(
        self, words: Sequence[str], home: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.words = list(words)
        self.home = home
        self.env = dict(env or {})
        self.lines: list[str] = []
        self._popen: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def spawn(self) -> None:
        """Start it, without waiting for anything."""
        assert self._popen is None
        self._popen = subprocess.Popen(
            self.words,
            cwd=self.home,
            env=environment(self.home, self.env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, args=(self._popen,), daemon=True)
        self._reader.start()

    def _read(self, popen: subprocess.Popen[str]) -> None:
        assert popen.stdout is not None
        with popen.stdout as stream:
            for line in stream:
                self.lines.append(line.rstrip("\n"))

    def wait_for(self, check: Callable[[], Any], what: str) -> None:
        """Poll until ``check()`` returns something true; connection errors count as false."""
        end = time.monotonic() + START_WITHIN
        while True:
            with contextlib.suppress(httpx.TransportError):
                if check():
                    return
            assert self._popen is not None
            assert self._popen.poll() is None, self.output
            assert time.monotonic() < end, f"{what} is not there\n{self.output}"
            time.sleep(0.05)

    @property
    def output(self) -> str:
        """What it printed, both streams."""
        return "\n".join(self.lines)

    @property
    def pid(self) -> int:
        """Process id while it runs."""
        assert self._popen is not None
        return self._popen.pid

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait; returns the exit status (negative: died of that signal)."""
        assert self._popen is not None and self._reader is not None
        self._popen.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end; returns the exit status."""
        assert self._popen is not None and self._reader is not None
        try:
            status = self._popen.wait(ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
            raise
        self._reader.join()
        self._popen = None
        return status

    def close(self) -> None:
        """Make sure that it has gone."""
        if self._popen is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.end()


class Daemon(Process):
    """One ``autopush`` or ``autoendpoint``; it keeps its ports over restarts.

    :param command: which
    :param home: where it runs
    :param options: further options
    """

    def __init__(
        self, command: str, home: Path, *options: str, env: Mapping[str, str] | None = None
    ) -> None:
        home.mkdir(exist_ok=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.ws_url = f"ws://127.0.0.1:{self.port}/"
        code = PATIENCE + COMMANDS[command]
        words = [sys.executable, "-c", code, "--port", str(self.port), *options]
        if command == "autopush":
            self.router_port = free_port()
            words += ["--router_port", str(self.router_port)]
        super().__init__(words, home, env)

    def start(self) -> Daemon:
        """Start it and wait until it serves."""
        self.spawn()
        self.wait_for(lambda: httpx.get(f"{self.url}/status").status_code == 200, "the daemon")
        return self


class Storage:
    """Where the daemons keep what they know."""

    name: str
    options: tuple[str, ...]
    env: Mapping[str, str] = {}

    def change_user(self, uaid: str, **changes: Any) -> None:
        """Overwrite attributes of a record; None removes one."""
        raise NotImplementedError

    def user(self, uaid: str) -> dict[str, Any]:
        """A record."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop what was started for it."""


class SqliteStorage(Storage):
    """One file that all processes share."""

    name = "sqlite"

    def __init__(self, home: Path) -> None:
        self.path = home / "shared.sqlite3"
        self.options = ("--db_dsn", f"sqlite://{self.path}")

    def _run(self, sql: str, *values: Any) -> list[Any]:
        from autopush.db.sqlite.schema import open_writer

        with contextlib.closing(open_writer(str(self.path))) as connection:
            return connection.execute(sql, values).fetchall()

    def user(self, uaid: str) -> dict[str, Any]:
        from autopush.db.rows import load_json

        ((text,),) = self._run("SELECT record FROM users WHERE uaid = ?", uaid)
        record: dict[str, Any] = load_json(text)
        return record

    def change_user(self, uaid: str, **changes: Any) -> None:
        from autopush.db.rows import dump_json

        record = {k: v for k, v in {**self.user(uaid), **changes}.items() if v is not None}
        self._run("UPDATE users SET record = ? WHERE uaid = ?", dump_json(record), uaid)


class DynamoStorage(Storage):
    """Tables in an emulator of DynamoDB, a process of its own: moto's server."""

    name = "dynamodb"
    options = ("--db_dsn", "dynamodb:")

    def __init__(self, home: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._server = Process(self.command(port), home, {"MOTO_CALL_RESET_API": "false"})
        self._server.spawn()
        self._server.wait_for(lambda: httpx.get(self.url), "the emulator")
        self.env = {"AWS_LOCAL_DYNAMODB": self.url}
        self._dynamodb = boto3.resource(
            "dynamodb",
            region_name="us-east-1",
            endpoint_url=self.url,
            aws_access_key_id="Bogus",
            aws_secret_access_key="Bogus",
        )
        self._table = self._dynamodb.Table("router")

    def command(self, port: int) -> list[str]:
        """Serves on a port of loopback."""
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]

    def user(self, uaid: str) -> dict[str, Any]:
        item: dict[str, Any] = self._table.get_item(Key={"uaid": uaid}, ConsistentRead=True)["Item"]
        return item

    def change_user(self, uaid: str, **changes: Any) -> None:
        item = {"uaid": uaid, **self.user(uaid), **changes}
        self._table.put_item(Item={k: v for k, v in item.items() if v is not None})

    def sort_keys(self, uaid: str, update_id: str) -> set[str]:
        """Those of the rows that a message has, in whatever month."""
        return {
            str(row["chidmessageid"])
            for table in self._dynamodb.tables.all()
            if table.name.startswith("message")
            for row in table.query(
                KeyConditionExpression=Key("uaid").eq(uaid), ConsistentRead=True
            )["Items"]
            if row.get("updateid") == update_id
        }

    def close(self) -> None:
        self._server.close()


class DynaliteStorage(DynamoStorage):
    """Tables in dynalite, which ``.ci/dynalite.py --install`` puts where it is looked for."""

    def command(self, port: int) -> list[str]:
        """Tables take some milliseconds to come and to go."""
        where = ["--host", "127.0.0.1", "--port", str(port)]
        times = ["--createTableMs", "20", "--deleteTableMs", "20"]
        return ["node", str(DYNALITE), *where, *times]


class PostgresqlStorage(Storage):
    """A server of its own."""

    name = "postgresql"

    def __init__(self, home: Path) -> None:
        self.server = Server().start()
        self.dsn = self.server.new_schema()
        self.options = ("--db_dsn", self.dsn)

    def user(self, uaid: str) -> dict[str, Any]:
        sql = "SELECT record FROM users WHERE uaid = %s"
        ((record,),) = self.server.sql(sql, uaid, dsn=self.dsn)
        return dict(record)

    def change_user(self, uaid: str, **changes: Any) -> None:
        from autopush.db.rows import dump_json

        record = {k: v for k, v in {**self.user(uaid), **changes}.items() if v is not None}
        sql = "UPDATE users SET record = %s::jsonb WHERE uaid = %s"
        self.server.sql(sql, dump_json(record), uaid, dsn=self.dsn)

    def close(self) -> None:
        self.server.close()


STORAGES: dict[str, Callable[[Path], Storage]] = {
    "sqlite": SqliteStorage,
    "dynamodb": DynamoStorage,
    "postgresql": PostgresqlStorage,
}


class Cluster:
    """Two connection nodes and two endpoint nodes.

    :param home: an empty directory
    :param options: further options of all daemons
    :param node_options: further options of the connection nodes
    :param env: environment of all daemons
    """

    def __init__(
        self,
        home: Path,
        storage: Storage,
        *options: str,
        node_options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.storage = storage
        self.home = home
        self.crypto_key = Fernet.generate_key()
        common = [
            *("--hostname", "127.0.0.1", "--no_aws", "--statsd_host", ""),
            *("--crypto_key", self.crypto_key.decode()),
            # Users who acknowledge slowly are not to be reset.
            *("--msg_limit", "100000"),
            # Nodes share a busy machine; an answer may take that much longer, too.
            *("--connection_timeout", "10"),
            *storage.options,
            *options,
        ]
        env = {**storage.env, **(env or {})}
        api = Daemon("autoendpoint", home / "endpoint0", env=env)
        common += ["--endpoint_port", str(api.port)]
        self.endpoints = [api, Daemon("autoendpoint", home / "endpoint1", env=env)]
        self.nodes = [
            Daemon("autopush", home / f"node{i}", *node_options, env=env) for i in range(2)
        ]
        for daemon in self.daemons:
            daemon.words += common

    @property
    def daemons(self) -> list[Daemon]:
        """All four."""
        return self.nodes + self.endpoints

    def __enter__(self) -> Cluster:
        # One after the other, so that the first creates the tables.
        try:
            for daemon in self.daemons:
                daemon.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop everything."""
        for daemon in self.daemons:
            daemon.close()

    def at_endpoint(self, url: str, number: int) -> str:
        """An endpoint URL, led to one of the endpoint nodes."""
        return url.replace(self.endpoints[0].url, self.endpoints[number].url)

    def router_url(self, number: int) -> str:
        """``node_id`` of one of the connection nodes."""
        return f"http://127.0.0.1:{self.nodes[number].router_port}"

    @property
    def errors(self) -> Iterator[str]:
        """Lines of the logs that tell of something unexpected."""
        for daemon in self.daemons:
            for line in daemon.lines:
                if any(sign in line for sign in UNEXPECTED):
                    yield line


def kill(daemon: Daemon) -> None:
    """End a daemon without giving it a chance to save anything."""
    os.kill(daemon.pid, signal.SIGKILL)
    assert daemon.wait() == -signal.SIGKILL


__all__ = ["DYNALITE", "STORAGES", "TREE", "Cluster", "Daemon", "Process", "Storage", "kill"]
