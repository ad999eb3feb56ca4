"""``autopush_standalone`` under mixed traffic, killed at random moments, again and again.

    python -m fuzz.kill_loop --rounds 400 --seed 1

    python -m fuzz.kill_loop --workers 3 --rounds 400 --seed 1

Each round people come and go, acknowledge in any order, subscribe and unsubscribe, while others
send to them, until the process is killed (``kill -9``, or SIGTERM: ``--terms`` of all). It is
started again; then everybody fetches what is due, and the books are looked at (fuzz/ledger.py).
With several workers every other kill is that of one of them, which the service survives. Exits 1
if a promise was broken. The seed repeats what is done, not when.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import psutil

from autopush.tests.e2e.clients import PATIENCE
from autopush.tests.e2e.harness import Server, eventually
from fuzz.ledger import Ledger
from fuzz.people import GONE, Person, Refused, Senders
from fuzz.running import home, log_faults

PEOPLE = 8
AWAY = 3
"""So many of them stay away during a round: what is sent to them waits."""

SENDERS = 4
PAUSE = 0.01
GAP = 0.1
ACCEPTED = (1, 250)
"""Messages after which the process is killed, about."""


class KillLoop:
    """One server, its people, and what happens to them; the ``World`` of both.

    :param where: an empty directory
    :param terms: part of the ends that are orderly
    :param workers: processes of the service
    """

    def __init__(self, where: Path, seed: int, terms: float = 0.25, workers: int = 1) -> None:
        self.rng = random.Random(seed)
        self.ledger = Ledger()
        self.server = Server(where, "--workers", str(workers))
        self.workers = workers
        self.terms = terms
        self.moves = self.shaky = False
        self.people = [Person(self, f"user {number}") for number in range(PEOPLE)]
        self._alive = False

    # ---- the world

    def pick_node(self) -> tuple[int, str]:
        """There is one only."""
        return 0, self.server.ws_url

    def pick_url(self, endpoint: str) -> tuple[int, str]:
        """Where it leads anyway."""
        return 0, endpoint

    def may_be_gone(self, endpoint_node: int) -> bool:
        """While the process ends."""
        return not self._alive

    # ---- the rounds

    async def run(self, rounds: int, seconds: float) -> Ledger:
        """Do so many rounds, but begin none after this time."""
        end = time.monotonic() + seconds
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
            senders = Senders(self, self.people, client)
            await self._start()
            for person in self.people:
                await person.subscribe()
            while self.ledger.counts["rounds"] < rounds and time.monotonic() < end:
                await self._hurt(senders)
                await self._start()
                await self._reckon(senders)
                self.ledger.count("rounds")
            for person in self.people:
                await person.leave()
            await self._stop()
            self._read_log()
        return self.ledger

    async def _start(self) -> None:
        if not self.server.alive:
            await asyncio.to_thread(self.server.start)
        self._alive = True

    async def _hurt(self, senders: Senders) -> None:
        """Traffic, until the process has gone."""
        over = asyncio.Event()
        away = self.rng.sample(self.people, AWAY)
        for person in away:
            await person.leave()
        lives = [p.live(over, GAP) for p in self.people if p not in away]
        tasks = [*lives, *(senders.send(over, PAUSE) for _ in range(SENDERS))]
        running = asyncio.gather(*tasks)
        stop = self.ledger.counts["messages accepted"] + self.rng.randrange(*ACCEPTED)
        while self.ledger.counts["messages accepted"] < stop and not running.done():
            await asyncio.sleep(0.005)
        await asyncio.sleep(self.rng.random() * 0.02)
        await self._end()
        over.set()
        await running

    async def _end(self) -> None:
        self._alive = False
        if self.rng.random() < self.terms:
            await self._stop()
        elif self.workers > 1 and self.rng.random() < 0.5:
            self.ledger.count("workers killed")
            await asyncio.to_thread(self._kill_one)
        else:
            self.ledger.count("ended by SIGKILL")
            await asyncio.to_thread(self._kill)
        self._read_log()

    async def _stop(self) -> None:
        self._alive = False
        self.ledger.count("ended by SIGTERM")
        status = await asyncio.to_thread(self.server.stop, signal.SIGTERM)
        if status != 0:
            self.ledger.breach("exit", f"status {status}\n{self.server.output[-2000:]}")

    def _kill(self) -> None:
        """All processes at once, as a power failure does."""
        for process in self._children():
            process.kill()
        self.server.kill()

    def _kill_one(self) -> None:
        """One that serves; it is back when it says so."""
        self.rng.choice(self._children()).kill()
        eventually(lambda: any("serves again" in line for line in self.server.lines))

    def _children(self) -> list[psutil.Process]:
        assert self.server.process is not None
        found: list[psutil.Process] = psutil.Process(self.server.process.pid).children()
        return found

    def _read_log(self) -> None:
        lines = list(self.server.lines)
        self.server.lines.clear()
        with (self.server.home / "server.log").open("a") as file:
            file.writelines(f"{line}\n" for line in lines)
        for story in log_faults(lines):
            self.ledger.breach("traceback", story)

    async def _reckon(self, senders: Senders) -> None:
        """Everybody comes back for what is due."""
        await senders.knock()
        for person in self.people:
            await senders.knock_at_ended(person.mailbox)
        await asyncio.gather(*map(self._settle, self.people))

    async def _settle(self, person: Person) -> None:
        try:
            await person.settle()
        except (*GONE, Refused) as error:
            story = f"{person.mailbox.name} can't fetch what is due: {error!r}"
            self.ledger.breach("unexpected answer", story)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.kill_loop", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="kills (default: 20)")
    parser.add_argument("--seconds", type=float, default=3600, help="begin no round after these")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--terms", type=float, default=0.25, help="part of SIGTERM (default: 0.25)")
    parser.add_argument("--workers", type=int, default=1, help="of the service (default: 1)")
    parser.add_argument("--home", type=Path, help="where to run and leave the log")
    given = parser.parse_args(arguments)
    with home(given.home) as where:
        loop = KillLoop(where, given.seed, given.terms, given.workers)
        try:
            ledger = asyncio.run(loop.run(given.rounds, given.seconds))
        finally:
            loop.server.close()
    print(ledger.summary())
    return 0 if ledger.kept else 1


if __name__ == "__main__":
    sys.exit(main())
