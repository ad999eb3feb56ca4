"""What happens to the databases of fuzz/cluster_loop.py."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path

from automock.dynamodb_proxy import DynamoDBProxy
from automock.postgresql_proxy import PostgresqlProxy
from autopush.tests import TREE
from autopush.tests.cluster.harness import (
    DynaliteStorage,
    DynamoStorage,
    PostgresqlStorage,
    Storage,
)

FAULTS = (
    "throttled",
    "throttling",
    "server_error",
    "unavailable",
    "reset",
    "lost_answer",
    "timeout",
    "late_timeout",
)
OPERATIONS = ("*", "GetItem", "PutItem", "UpdateItem", "DeleteItem", "Query", "BatchGetItem")
HEALED_AFTER = 5.0
"""Seconds after which a fault that keeps requests waiting ends, at most."""


class Harm(ABC):
    """A database and what is done to it.

    :ivar moves: whether users move from month to month
    :ivar env: environment of the daemons
    :ivar known: errors that may be logged with a traceback
    """

    storage: Storage
    known: tuple[str, ...] = ()
    moves = False
    env: Mapping[str, str] = {}

    @property
    def waiting(self) -> bool:
        """Whether something is still kept from the daemons."""
        return False

    @abstractmethod
    async def spoil(self, rng: random.Random) -> None:
        """Let something fail for some seconds."""

    @abstractmethod
    def heal(self) -> None:
        """Let everything work from now on."""

    @abstractmethod
    def close(self) -> None:
        """Stop all that was started."""


class DynamoHarm(Harm):
    """Requests are throttled, lost, carried out without an answer, or never answered."""

    moves = True

    def __init__(self, where: Path) -> None:
        command = [sys.executable, str(TREE / ".ci" / "dynalite.py"), "--install"]
        there = subprocess.run(command, check=False).returncode == 0
        self.storage: DynamoStorage = DynaliteStorage(where) if there else DynamoStorage(where)
        self._proxy = DynamoDBProxy(self.storage.url).start()
        self.env = {"AWS_LOCAL_DYNAMODB": self._proxy.url}

    @property
    def waiting(self) -> bool:
        return bool(self._proxy.waiting)

    async def spoil(self, rng: random.Random) -> None:
        fault, operation = rng.choice(FAULTS), rng.choice(OPERATIONS)
        self._proxy.fail(operation, fault, times=rng.randrange(1, 6))
        await asyncio.sleep(rng.random() * HEALED_AFTER)
        self._proxy.heal()

    def heal(self) -> None:
        self._proxy.heal()

    def close(self) -> None:
        self._proxy.stop()
        self.storage.close()


class PostgresqlHarm(Harm):
    """Connections end before or after a statement was carried out, or hang; the server restarts,
    half of the times as if it had crashed, or is away for longer than the store waits."""

    known = (
        "autopush.exceptions.StoreBusy: ",
        "autopush.db.deadlines.",
        # The documented event of a message that was refused with 503.
        "autopush.exceptions.RouterException: Error saving to database",
    )

    def __init__(self, where: Path) -> None:
        self.storage = storage = PostgresqlStorage(where)
        self._server = storage.server
        self._proxy = PostgresqlProxy("127.0.0.1", self._server.port).start()
        schema = storage.dsn.partition("%3D")[2]
        dsn = self._server.dsn(
            host=self._proxy.host, port=self._proxy.port, options=f"-csearch_path={schema}"
        )
        storage.options = ("--db_dsn", dsn)
        self._restarting = asyncio.Lock()

    async def spoil(self, rng: random.Random) -> None:
        if rng.random() < 0.5:
            await self._restart(rng)
            return
        fault = rng.choice(("cut", "lost_answer", "hang", "late_hang"))
        pattern = rng.choice(
            ("", "COMMIT", "BEGIN", "DELETE FROM messages", "INSERT INTO messages")
        )
        self._proxy.fail(pattern, fault, times=rng.randrange(1, 6))
        await asyncio.sleep(rng.random() * HEALED_AFTER)
        self._proxy.heal()

    async def _restart(self, rng: random.Random) -> None:
        async with self._restarting:
            await asyncio.to_thread(self._server.stop, rng.choice(("immediate", "fast")))
            await asyncio.sleep(rng.choice((0.0, rng.random() * HEALED_AFTER)))
            await asyncio.to_thread(self._server.start)

    def heal(self) -> None:
        self._proxy.heal()

    def close(self) -> None:
        self._proxy.stop()
        self.storage.close()


HARMS: dict[str, Callable[[Path], Harm]] = {"dynamodb": DynamoHarm, "postgresql": PostgresqlHarm}
