"""A cluster of four daemons on one DynamoDB or PostgreSQL, hurt in every way at once.

    python -m fuzz.cluster_loop --seconds 600 --seed 1
    python -m fuzz.cluster_loop --seconds 600 --seed 1 --store postgresql

Two connection nodes and two endpoint nodes with ``store_direct``, under the traffic of
fuzz/people.py. In each lap some of these happen: a node of either kind is killed or stopped and
comes back, the database fails (fuzz/harm.py), and with DynamoDB the month changes under a faked
clock (libfaketime, where it is installed). After each lap all is well again, everybody fetches what
is due, and the books are looked at (fuzz/ledger.py). Exits 1 if a promise was broken.

DynamoDB is dynalite, which ``.ci/dynalite.py`` installs, or moto where there is no Node.js.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import signal
import sys
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import httpx

from autopush.tests.cluster.harness import Cluster, Daemon, kill
from autopush.tests.e2e.clients import PATIENCE
from fuzz import faketime
from fuzz.harm import HARMS, Harm
from fuzz.ledger import Ledger
from fuzz.people import GONE, Person, Refused, Senders
from fuzz.running import home, log_faults

PEOPLE = 8
SENDERS = 3
PAUSE = 0.06
GAP = 0.5
LAP = 12.0
"""Seconds of traffic before everybody settles."""

MONTH_LAPS = 4
"""The month changes in every so many laps: nodes look at the calendar once a minute."""

MONTH_IN = 4.0
"""Seconds from the start of a lap to the change."""

WELL_AFTER = 15.0
"""Seconds after the last fault in which acknowledgements that were refused are written."""

TRIES = 3
"""A user who can't fetch what is due, because a node is just finding out, comes again."""


class ClusterLoop:
    """The daemons, their people, and what happens to them; the ``World`` of the people.

    :param where: an empty directory
    :param clock: None where it can't be faked
    """

    def __init__(
        self, where: Path, seed: int, harm: Harm, clock: faketime.FakeClock | None
    ) -> None:
        self.rng = random.Random(seed)
        self.ledger = Ledger()
        self.clock = clock
        self.moves = harm.moves
        self.harm = harm
        env = {**(clock.env if clock else {}), **harm.env}
        self.cluster = Cluster(where, harm.storage, "--store_direct", env=env)
        self.people = [Person(self, f"user {number}") for number in range(PEOPLE)]
        self._down: set[Daemon] = set()
        self._last_fault = -WELL_AFTER

    # ---- the world

    def pick_node(self) -> tuple[int, str]:
        """Any that is there."""
        number = self._pick(self.cluster.nodes)
        return number, self.cluster.nodes[number].ws_url

    def pick_url(self, endpoint: str) -> tuple[int, str]:
        """By any that is there."""
        number = self._pick(self.cluster.endpoints)
        return number, self.cluster.at_endpoint(endpoint, number)

    def _pick(self, daemons: Sequence[Daemon]) -> int:
        return self.rng.choice([n for n, one in enumerate(daemons) if one not in self._down])

    def may_be_gone(self, endpoint_node: int) -> bool:
        """While it is down."""
        return self.cluster.endpoints[endpoint_node] in self._down

    @property
    def shaky(self) -> bool:
        """Until some time after the last fault."""
        return self.harm.waiting or time.monotonic() - self._last_fault < WELL_AFTER

    # ---- laps

    async def run(self, seconds: float) -> Ledger:
        """Do laps until this time is over, at least one."""
        end = time.monotonic() + seconds
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
            senders = Senders(self, self.people, client)
            for person in self.people:
                await person.subscribe()
            while True:
                await self._lap(senders, min(LAP, seconds))
                await self._reckon(senders)
                self.ledger.count("laps")
                if time.monotonic() >= end:
                    break
            for person in self.people:
                await person.leave()
        return self.ledger

    async def _lap(self, senders: Senders, seconds: float) -> None:
        await self._turn_the_calendar()
        over = asyncio.Event()
        tasks = [person.live(over, GAP) for person in self.people]
        tasks += [senders.send(over, PAUSE) for _ in range(SENDERS)]
        running = asyncio.gather(*tasks)
        harm = asyncio.gather(*(self._later(seconds, work) for work in self._plan()))
        await asyncio.sleep(seconds)
        await harm
        self.harm.heal()
        over.set()
        await running

    def _plan(self) -> list[Coroutine[Any, Any, None]]:
        """What happens in a lap."""
        plan: list[Coroutine[Any, Any, None]] = []
        if self.rng.random() < 0.6:
            plan.append(self._fell(self.rng.choice(self.cluster.nodes)))
        if self.rng.random() < 0.4:
            plan.append(self._fell(self.rng.choice(self.cluster.endpoints)))
        if self.rng.random() < 0.6:
            plan += [self._spoil() for _ in range(self.rng.randrange(1, 8))]
        return plan

    async def _later(self, seconds: float, work: Coroutine[Any, Any, None]) -> None:
        await asyncio.sleep(self.rng.random() * seconds * 0.8)
        await work

    async def _turn_the_calendar(self) -> None:
        """Let the month change in this lap, in some of them.

        The clock makes its great step while nobody is connected: the daemons see it one after the
        other, and what they write about connections is ordered by their clocks.
        """
        if self.clock is None or self.ledger.counts["laps"] % MONTH_LAPS:
            return
        for person in self.people:
            await person.leave()
        await asyncio.sleep(2 * faketime.KNOWN_AFTER)
        self.clock.before_next_month(MONTH_IN + 2 * faketime.KNOWN_AFTER)
        await asyncio.sleep(2 * faketime.KNOWN_AFTER)
        self.ledger.count("changes of the month")

    async def _reckon(self, senders: Senders) -> None:
        """All is well again, and everybody comes back for what is due."""
        await senders.knock()
        for person in self.people:
            await senders.knock_at_ended(person.mailbox)
        await asyncio.gather(*map(self._settle, self.people))
        for person in self.people:
            if not self.shaky:
                person.mailbox.storage_is_well()
        self._read_logs()

    async def _settle(self, person: Person) -> None:
        story = ""
        for _ in range(TRIES):
            try:
                await person.settle()
                return
            except (*GONE, Refused) as error:
                story = f"{person.mailbox.name} can't fetch what is due: {error!r}"
                await asyncio.sleep(1)
        self.ledger.breach("unexpected answer", story)

    # ---- harm

    async def _fell(self, daemon: Daemon) -> None:
        """End a daemon, without a word or in order; it comes back after a while."""
        if daemon in self._down:
            return
        self._down.add(daemon)
        if self.rng.random() < 0.7:
            self.ledger.count("daemons killed")
            await asyncio.to_thread(kill, daemon)
        else:
            self.ledger.count("daemons stopped")
            status = await asyncio.to_thread(daemon.end, signal.SIGTERM)
            if status != 0:
                self.ledger.breach("exit", f"status {status}\n{daemon.output[-2000:]}")
        self._mourn(daemon)
        await asyncio.sleep(self.rng.random() * 2)
        await asyncio.to_thread(self._start, daemon)
        self._down.discard(daemon)

    def _start(self, daemon: Daemon) -> None:
        try:
            daemon.start()
        except AssertionError:
            # One that can't reach the database refuses to start; what supervises it tries again.
            self.ledger.count("starts refused while the database failed")
            self.harm.heal()
            daemon.wait()
            daemon.start()

    def _mourn(self, daemon: Daemon) -> None:
        if daemon in self.cluster.nodes:
            for person in self.people:
                person.mailbox.node_died(self.cluster.nodes.index(daemon))

    async def _spoil(self) -> None:
        """Let the database fail for a while."""
        self.ledger.count("faults of the database")
        await self.harm.spoil(self.rng)
        self._last_fault = time.monotonic()

    # ---- logs

    def _read_logs(self) -> None:
        for daemon in self.cluster.daemons:
            lines = list(daemon.lines)
            del daemon.lines[: len(lines)]
            with (daemon.home / "daemon.log").open("a") as file:
                file.writelines(f"{line}\n" for line in lines)
            for story in log_faults(lines, self.harm.known):
                self.ledger.breach("traceback", f"{daemon.home.name}: {story}")


def play(where: Path, seconds: float, seed: int, store: str = "dynamodb") -> Ledger:
    """Start all, run the loop, end all."""
    harm = HARMS[store](where)
    library = faketime.find() if harm.moves else None
    clock = faketime.FakeClock(library, where / "clock") if library else None
    if harm.moves and clock is None:
        print("libfaketime is not installed: the month does not change")
    with contextlib.closing(harm):
        loop = ClusterLoop(where, seed, harm, clock)
        with loop.cluster:
            return asyncio.run(loop.run(seconds))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.cluster_loop", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="begin no lap after these")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", choices=HARMS, default="dynamodb")
    parser.add_argument("--home", type=Path, help="where to run and leave the logs")
    given = parser.parse_args(arguments)
    with home(given.home) as where:
        ledger = play(where, given.seconds, given.seed, given.store)
    print(ledger.summary())
    return 0 if ledger.kept else 1


if __name__ == "__main__":
    sys.exit(main())
