"""The recorded cases with rows of their own in the tables: both daemons, on moto's DynamoDB.

What a row has beside what its case says is as 1.58.3 writes it (spec/storage 2, 3).
"""

from __future__ import annotations

import re
import time
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from cryptography.fernet import Fernet

from autopush.db.dynamodb.items import Item, write_value
from autopush.db.months import make_rotating_tablename
from autopush.tests.cluster.harness import Daemon
from autopush.tests.conformance.driver import OBSERVERS, Environment, Run
from autopush.tests.conformance.labels import Mismatch
from autopush.tests.db.dynamodb import support as dynamodb_support
from autopush.tests.e2e.clients import JSON, QUIET

NEEDS = frozenset({"ddb"})

RECORDED_SECOND = "1795462806"
"""Of the recorded rows' sort keys; ``<now>`` where a row is observed."""

MONTH = re.compile(r"\w+_\d{4}_\d\d")


class Daemons:
    """A connection node and an endpoint node on tables of their own."""

    def __init__(self, home: Path) -> None:
        self.router_table, self.prefix = dynamodb_support.table_names()
        env = {"AWS_LOCAL_DYNAMODB": dynamodb_support.dynamodb_url()}
        self.endpoint = Daemon("autoendpoint", home / "endpoint", env=env)
        self.node = Daemon("autopush", home / "node", env=env)
        common = {
            "hostname": "127.0.0.1",
            "statsd_host": "",
            "crypto_key": Fernet.generate_key().decode(),
            "endpoint_port": str(self.endpoint.port),
            "router_tablename": self.router_table,
            "message_tablename": self.prefix,
        }
        words = [f"--{name}={value}" for name, value in common.items()]
        for daemon in (self.endpoint, self.node):
            daemon.words += [*words, "--no_aws"]

    def __enter__(self) -> Daemons:
        try:
            self.endpoint.start()
            self.node.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop both."""
        self.node.close()
        self.endpoint.close()

    @property
    def month(self) -> str:
        """The current message table."""
        return make_rotating_tablename(self.prefix)


class DynamoEnvironment(Environment):
    """Two daemons, and a way past them to what they store."""

    provides: ClassVar[frozenset[str]] = NEEDS | {"router", "serial"}

    def __init__(self, daemons: Daemons) -> None:
        self.daemons = daemons
        super().__init__(
            SimpleNamespace(  # type: ignore[arg-type]
                endpoint_url=daemons.endpoint.url,
                ws_url=daemons.node.ws_url,
                router_url=f"http://127.0.0.1:{daemons.node.router_port}",
            )
        )

    async def other_step(self, run: Run, do: JSON) -> None:
        if "seed_user" in do:
            self._seed_user(run, **do["seed_user"])
        elif "seed_row" in do:
            self._seed_row(run, do["seed_row"])
        else:
            await super().other_step(run, do)

    def _seed_user(self, run: Run, without: list[str], **changes: JSON) -> None:
        uaid, chid = uuid.uuid4().hex, str(uuid.uuid4())
        run.labels.values |= {"uaid": uaid, "chid": chid, "hex32": uaid, "now": RECORDED_SECOND}
        run.labels.values["url"] = self.server.router_url
        record = {
            "router_type": "webpush",
            "node_id": self.server.router_url,
            "connected_at": int(time.time() * 1000) - 60_000,
            "last_connect": 202611180006,
            "record_version": 1,
            "current_month": self.daemons.month,
            **{name: _number(value) for name, value in changes["with"].items()},
        }
        record = {name: value for name, value in record.items() if name not in without}
        dynamodb_support.put_item(self.daemons.router_table, _item(uaid=uaid, **record))
        dynamodb_support.put_item(
            self.daemons.month,
            _item(uaid=uaid, chidmessageid=" ", chids={chid}, expiry=int(time.time()) + 2_592_000),
        )

    def _seed_row(self, run: Run, columns: JSON) -> None:
        now = int(time.time())
        row = {"timestamp": now, "expiry": now + 600, **run.labels.fill(columns)}
        if run.case["title"].endswith("expiry past"):
            row["expiry"] = now - 60
        dynamodb_support.put_item(self.daemons.month, _item(uaid=run.labels.values["uaid"], **row))


def _item(**attributes: Any) -> Item:
    return {name: write_value(value) for name, value in attributes.items()}


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdigit() else value


def _environment(run: Run) -> DynamoEnvironment:
    environment = run.environment
    assert isinstance(environment, DynamoEnvironment)
    return environment


async def _old_record(run: Run) -> dict[str, str] | None:
    table = _environment(run).daemons.router_table
    item = dynamodb_support.get_item(table, run.labels.values["uaid"])
    return None if item is None else {name: _described(value) for name, value in item.items()}


def _described(value: dict[str, Any]) -> str:
    ((kind, content),) = value.items()
    if kind == "N":
        return f"N of {len(content)} digits"
    return f"{kind} {'<message table of a month>' if MONTH.fullmatch(content) else content}"


async def _delivered(run: Run) -> list[JSON]:
    """What the user gets, who connects for it and acknowledges nothing."""
    agent = await run._open("ws2", run.labels.values["uaid"])
    if agent.uaid != run.labels.values["uaid"]:
        raise Mismatch("another UAID was issued")
    frames = await agent.receive_all(1)  # that may take its time; then the others come at once
    try:
        while True:
            frames.append(await agent.receive("notification", timeout=QUIET))
    except TimeoutError:
        return frames


async def _rows_left(run: Run) -> list[str]:
    month = _environment(run).daemons.month
    return dynamodb_support.sort_keys(month, run.labels.values["uaid"])


async def _still_connected(run: Run) -> bool:
    await run.agents["ws2"].round_trip()
    return True


async def _uaid_kept(run: Run) -> bool:
    return "newuaid" not in run.labels.values


OBSERVERS |= {
    "the old record afterwards": _old_record,
    "delivered": _delivered,
    "rows left": _rows_left,
    "still connected": _still_connected,
    "uaid kept": _uaid_kept,
}
