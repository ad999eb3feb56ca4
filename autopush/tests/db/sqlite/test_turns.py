"""Turns of the processes that write to one file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import IO, Any

import pytest
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred

from autopush.db.sqlite import file
from autopush.db.sqlite.turns import Turns
from autopush.tests import TREE
from autopush.tests.db.sqlite.support import PATIENCE, SqliteCase
from autopush.tests.db.store_contract import message

reactor: Any = _reactor

TURNS = 200
LONG = PATIENCE

CHILD = """
import sys
from autopush.db.sqlite.turns import Turns
turns = Turns(sys.argv[1], float(sys.argv[2]))
for line in sys.stdin:
    if line == "take\\n":
        print(turns.take(), flush=True)
    elif line == "give back\\n":
        turns.give_back()
        print("gave back", flush=True)
"""
"""Does as it is told, one line each. Locks belong to processes."""

BUSY = f"""
import os, sys
from autopush.db.sqlite.turns import Turns
turns = Turns(sys.argv[1], {LONG})
log = os.open(sys.argv[1] + "-log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
print("here", flush=True)
sys.stdin.readline()
for _ in range({TURNS}):
    assert turns.take()
    os.write(log, b"begins %d\\n" % turns.ticket)
    os.write(log, b"ends %d\\n" % turns.ticket)
    turns.give_back()
"""


class Other:
    """Another process."""

    def __init__(self, script: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(TREE)},
        )

    @property
    def streams(self) -> tuple[IO[str], IO[str]]:
        assert self.process.stdin is not None and self.process.stdout is not None
        return self.process.stdin, self.process.stdout

    def tell(self, what: str) -> None:
        self.streams[0].write(f"{what}\n")
        self.streams[0].flush()

    def hear(self) -> str:
        return self.streams[1].readline().strip()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def others(tmp_path: Path) -> Any:
    made: list[Other] = []

    def make(wait: float = LONG) -> Other:
        made.append(Other(CHILD, str(tmp_path / "db"), str(wait)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_turns_come_one_after_the_other(others: Any) -> None:
    one, two = others(), others()
    for other, waiting in ((one, two), (two, one), (one, two)):
        other.tell("take")
        assert other.hear() == "True"
        waiting.tell("take")
        other.tell("give back")
        assert other.hear() == "gave back"
        assert waiting.hear() == "True"
        waiting.tell("give back")
        assert waiting.hear() == "gave back"


def test_whoever_dies_in_its_turn_keeps_nobody_waiting(others: Any) -> None:
    one, two = others(), others()
    one.tell("take")
    assert one.hear() == "True"
    two.tell("take")
    one.process.kill()
    assert two.hear() == "True"


def test_whoever_is_stopped_in_its_turn_is_not_waited_for_without_end(others: Any) -> None:
    one, two = others(), others(0.05)
    one.tell("take")
    assert one.hear() == "True"
    one.process.send_signal(signal.SIGSTOP)
    for _ in range(2):
        two.tell("take")
        assert two.hear() == "False"
        two.tell("give back")
        assert two.hear() == "gave back"
    one.process.send_signal(signal.SIGCONT)
    one.tell("give back")
    assert one.hear() == "gave back"
    while True:  # until the one that waited notices
        two.tell("take")
        taken = two.hear()
        two.tell("give back")
        two.hear()
        if taken == "True":
            break
    one.tell("take")
    assert one.hear() == "True"


def test_who_asks_first_is_first(tmp_path: Path) -> None:
    """A process has one ticket at a time: so nobody waits for more than one turn of each other."""
    made = [Other(BUSY, str(tmp_path / "db")) for _ in range(4)]
    try:
        assert [one.hear() for one in made] == ["here"] * len(made)
        for one in made:
            one.tell("go")
        assert [one.process.wait(LONG) for one in made] == [0] * len(made)
    finally:
        for one in made:
            one.close()
    tickets = range(1, TURNS * len(made) + 1)
    expected = [f"{what} {ticket}" for ticket in tickets for what in ("begins", "ends")]
    assert (tmp_path / "db-log").read_text().splitlines() == expected


def test_where_there_can_be_no_file_there_are_no_turns(tmp_path: Path) -> None:
    turns = Turns(str(tmp_path / "none" / "db"))
    assert turns.take() is False
    turns.give_back()
    turns.close()


def test_one_process_alone(tmp_path: Path) -> None:
    turns = Turns(str(tmp_path / "db"))
    for _ in range(100):
        assert turns.take() is True
        turns.give_back()
    turns.close()
    assert turns.take() is False
    assert (tmp_path / "db-turns").stat().st_mode & 0o777 == 0o600


class SharedTest(SqliteCase):
    """The store of a worker."""

    async def test_it_writes_in_its_turn_only(self) -> None:
        self.patch(file, "Turns", partial(Turns, wait=LONG))
        one = await self.open_store(shared=True)
        other = Other(CHILD, self.path, str(LONG))
        self.addCleanup(other.close)
        other.tell("take")
        assert other.hear() == "True"
        stored = one.store_message("message", message())
        waiting: Deferred[None] = Deferred()
        reactor.callLater(0.05, waiting.callback, None)
        await waiting
        assert not stored.called
        other.tell("give back")
        await stored
        other.tell("take")
        assert other.hear() == "gave back" and other.hear() == "True"
        other.tell("give back")
        assert other.hear() == "gave back"
        await one.close()

    async def test_alone_there_are_no_turns(self) -> None:
        await self.open_store()
        assert not os.path.exists(f"{self.path}-turns")
