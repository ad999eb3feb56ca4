"""Several processes on one file, and a process that dies (spec/storage 17.1).

Run as a program this module is one of those processes: it works until it is done or killed and
prints a line for each write the store has acknowledged.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import unittest
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

import twisted.internet.reactor
from twisted.internet.defer import Deferred, gatherResults

from autopush.db import groupwriter
from autopush.db.sqlite import schema
from autopush.db.sqlite.store import SqliteStore
from autopush.tests.db.sqlite.support import PATIENCE
from autopush.tests.db.store_contract import TS, UAID, message

CHANNELS = 60
ROUNDS = 60


async def add_channels(store: SqliteStore, name: str) -> None:
    """Add different members to one set, some of them at once."""
    for start in range(0, CHANNELS, 3):
        await gatherResults(
            [
                store.add_channel("m", UAID, str(uuid.uuid5(uuid.NAMESPACE_URL, f"{name}{number}")))
                for number in range(start, start + 3)
            ]
        )


async def register(store: SqliteStore, name: str) -> None:
    """Count up together: whoever is first with a number has it, the other one tries the next."""
    won = 0
    while won < ROUNDS:
        user = await store.get_user(UAID) or {}
        connected_at = user.get("connected_at", 0) + 1
        record = {"uaid": UAID, "router_type": "webpush", "connected_at": connected_at}
        written, _previous = await store.register_user({**record, "node_id": name})
        if written:
            won += 1
            print(connected_at, flush=True)


def acknowledged(_none: None, version: str | None) -> None:
    print("+", version, flush=True)


async def store_messages(store: SqliteStore, name: str) -> None:
    """Store, and delete every third; name what is acknowledged. Runs until killed."""
    number = 0
    while True:
        number += 10
        # The processes use the same timestamps, so that they also get into each other's way.
        batch = [message(TS + number + n, version=f"{name}-{number + n}.") for n in range(10)]
        for notification in batch:
            stored = store.store_message("m", notification)
            stored.addCallback(acknowledged, notification.version)
        await stored
        for notification in batch[::3]:
            print("?", notification.version, flush=True)
            await store.delete_message("m", notification)
            print("-", notification.version, flush=True)


ROLES: dict[str, Callable[[SqliteStore, str], Coroutine[Any, Any, None]]] = {
    work.__name__: work for work in (add_channels, register, store_messages)
}


def be_patient() -> None:
    """Don't give up because the machine is busy, or the other process is at it all the time."""
    groupwriter.DEADLINE = PATIENCE
    schema.LOCK_WAIT = schema.WRITE_WAIT = PATIENCE  # type: ignore[assignment]


def main(role: str, path: str, name: str) -> None:
    be_patient()
    reactor: Any = twisted.internet.reactor

    async def work() -> None:
        store = SqliteStore(path, reactor)
        await store.setup()
        print("ready", flush=True)
        sys.stdin.readline()
        await ROLES[role](store, name)
        await store.close()

    done = Deferred.fromCoroutine(work())
    done.addErrback(lambda failure: failure.printTraceback(sys.stderr))
    done.addBoth(lambda _result: reactor.stop())
    reactor.run()


class TestProcesses(unittest.TestCase):
    def setUp(self) -> None:
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = os.path.join(self.directory, "autopush.sqlite")

    def start(self, role: str, name: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, role, self.path, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(self.stop, process)
        return process

    def stop(self, process: subprocess.Popen[str]) -> None:
        process.kill()
        process.communicate()

    def go(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None and process.stdout is not None
        self.assertEqual(process.stdout.readline(), "ready\n")
        process.stdin.write("go\n")
        process.stdin.flush()

    def run_two(self, role: str) -> list[list[str]]:
        """Lines written by two processes that do the same at the same time."""
        # They also create the file at the same time.
        processes = [self.start(role, f"http://{name}") for name in ("a", "b")]
        for process in processes:
            self.go(process)
        outputs = []
        for process in processes:
            output, errors = process.communicate(timeout=PATIENCE)
            self.assertEqual((errors, process.returncode), ("", 0))
            outputs.append(output.split())
        return outputs

    def rest(self, process: subprocess.Popen[str]) -> list[str]:
        """The lines of a process that ends that were not read yet.

        Not by ``communicate()``: it leaves out what ``readline()`` has read ahead.
        """
        assert process.stdout is not None
        return process.stdout.readlines()

    def sql(self, statement: str) -> list[Any]:
        connection = sqlite3.connect(self.path)
        try:
            return connection.execute(statement).fetchall()
        finally:
            connection.close()

    def test_concurrent_set_inserts_all_survive(self):
        self.run_two("add_channels")
        self.assertEqual(self.sql("SELECT count(*) FROM channels"), [(2 * CHANNELS,)])

    def test_concurrent_compare_and_set_has_one_winner(self):
        first, second = ([int(line) for line in lines] for lines in self.run_two("register"))
        self.assertEqual(sorted(first + second), list(range(1, 2 * ROUNDS + 1)))

    def test_acknowledged_writes_survive_a_kill(self):
        survivor, victim = (self.start("store_messages", name) for name in ("s", "v"))
        for process in (survivor, victim):
            self.go(process)
        assert victim.stdout is not None
        lines = [victim.stdout.readline() for _ in range(400)]
        victim.send_signal(signal.SIGKILL)
        lines += self.rest(victim)
        survivor.send_signal(signal.SIGKILL)
        lines += self.rest(survivor)

        self.assertEqual(self.sql("PRAGMA integrity_check"), [("ok",)])
        marks: dict[str, set[str]] = {"+": set(), "?": set(), "-": set()}
        for line in lines:
            # The full stop is missing where the kill cut the last line short.
            if line.rstrip().endswith("."):
                mark, version = line.split()
                marks[mark].add(version)
        stored = {row[0] for row in self.sql("SELECT updateid FROM messages")}
        self.assertEqual(marks["+"] - marks["?"] - stored, set())
        self.assertEqual(marks["-"] & stored, set())
        self.assertGreater(len(marks["+"]), 200)


if __name__ == "__main__":
    main(*sys.argv[1:])
