"""What autopush's operations cost in DynamoDB's units.

    python bench/units.py              each operation, by table
    python bench/units.py --size 2048  with messages of 2 KB

A read unit (RCU) is 4 KB read in a consistent way, half of that otherwise; a write unit (WCU) is
1 KB written. What is counted is an item as it is stored, so the nodes' own code runs here, in one
process, without a clock that passes and on canned_dynamodb.py's tables. See README.md here, and
docs/dynamodb.rst, whose table a test compares with this one.

Of Amazon's rules those are here that autopush needs: its tables have no index, each of which would
be written as well, and it makes no transaction, which costs twice as much.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

from canned_dynamodb import Tables
from cryptography.fernet import Fernet
from metering import READ, Units, size_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from autopush.config import DDBTableConfig
from autopush.db.dynamodb.store import DynamoStore
from autopush.tests.session.world import Inline, World

NOON = 1_795_003_200.0
"""The time, seconds since the epoch, in the middle of a month: around its end users may be in
either of two tables."""

TEN = 10
AWAY = 100
"""Seconds after which a node is believed that says a user is not there."""

CHID = "76dfb18c-1eb1-4f92-80a5-7fdf8d462b5c"
NODE = "http://ip-10-0-0-1.ec2.internal:8081"

TTL = 86_400
DAYS = 30
FETCH_READ, FETCH_WRITE = 2, 1
"""Units of a fetch: what is begun of 4 KB, and the look behind the messages; and the pointer."""

SIZE = 1024
"""Bytes of a message's body, encrypted, as senders post it: more than most have."""


class MeteredWorld(World):
    """A connection node and senders on canned tables, by a clock that stands still."""

    def __init__(self) -> None:
        self.tables = Tables()
        self.tables.meter.on = True
        super().__init__(self._open)
        self.connections = int(NOON * 1000)

    def now(self) -> float:
        return NOON + self.reactor.seconds()

    def _open(self, reactor: Any, now: Callable[[], float]) -> DynamoStore:
        return DynamoStore(
            Client(self.tables),
            reactor,
            DDBTableConfig("router"),
            DDBTableConfig("message"),
            now=now,
            threadpool=Inline(),
        )


class Client:
    """boto3's, as far as the store uses it."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def __getattr__(self, name: str) -> Callable[..., dict[str, Any]]:
        return lambda **parameters: self._tables.carry_out(name, parameters)


HELLO_NEW = "A hello of a new user"
FIRST_CHANNEL = "The first channel of a new user"
HELLO_BACK = "A hello of a user who returns, for whom nothing waits"
DIRECT = "A message to a connected user"
STORED = "A message that is stored"
FETCHED = "Fetching ten messages at a hello, beside that"


class Row(NamedTuple):
    """An operation and what it costs."""

    name: str
    units: Units
    requests: int


class Visit:
    """One user and what happens to it, each step measured.

    :param size: bytes of a message's body
    """

    def __init__(self, size: int = SIZE) -> None:
        self.world = MeteredWorld()
        self.world.start(NODE)
        self._data = "x" * math.ceil(size * 4 / 3)
        self._session: Any = None
        self._uaid = ""
        self._fernet = Fernet(Fernet.generate_key())
        self._posted = 0
        self.rows: list[Row] = []

    def run(self) -> list[Row]:
        """All steps."""
        self._step(HELLO_NEW, lambda: self._hello(None))
        self._uaid = self._session.uaid
        self._step(FIRST_CHANNEL, self._register)
        self._step(DIRECT, self._post)
        self._leave()
        hello = self._step(HELLO_BACK, self._return)
        self._leave()
        self._post()  # finds the user gone, and notes that
        self._step(STORED, self._post)
        for _ in range(TEN - 2):
            self._post()
        fetched = self._step(FETCHED, self._return)
        self.rows[-1] = Row(
            FETCHED, fetched.units.minus(hello.units), fetched.requests - hello.requests
        )
        return self.rows

    @property
    def row_size(self) -> int:
        """Bytes of a stored message's row."""
        return max(size_of(item) for item in self.world.tables.items.values() if "data" in item)

    def overhead(self) -> int:
        """Of these, what is beside the body."""
        return self.row_size - len(self._data)

    def _step(self, name: str, step: Callable[[], None]) -> Row:
        tables = self.world.tables
        units, calls = tables.meter.total(), sum(tables.calls.values())
        step()
        spent = tables.meter.total().minus(units)
        self.rows.append(Row(name, spent, sum(tables.calls.values()) - calls))
        return self.rows[-1]

    # ---- steps

    def _hello(self, uaid: str | None) -> None:
        self._session = self.world.connect(NODE, uaid)
        self.world.settle()

    def _return(self) -> None:
        self._hello(self._uaid)
        while updates := self._unacknowledged():
            for update in updates:
                self._session.received({"messageType": "ack", "updates": [update]})
            self.world.settle()

    def _unacknowledged(self) -> list[dict[str, str]]:
        if self._session is None:
            return []
        frames = [f for f in self._session.wire.take() if f["messageType"] == "notification"]
        return [{"channelID": f["channelID"], "version": f["version"]} for f in frames]

    def _register(self) -> None:
        self._session.received({"messageType": "register", "channelID": CHID})
        self.world.settle()

    def _post(self) -> None:
        notification = self.world.message(self._uaid, CHID, None, TTL)
        self._posted += 1
        notification.sortkey_timestamp = int(self.world.now() * 1e6) + self._posted
        notification.generate_message_id(self._fernet)
        notification.data, notification.headers = self._data, {"encoding": "aes128gcm"}
        assert self.world.post(notification)
        for update in self._unacknowledged():
            self._session.received({"messageType": "ack", "updates": [update]})
        self.world.settle()

    def _leave(self) -> None:
        self._session.closed()
        self._session = None
        self.world.settle()
        self.world.reactor.advance(AWAY)


class Rates(NamedTuple):
    """What users do in a day, each but for the new ones."""

    users: int = 1_000_000
    connections: float = 5
    direct: float = 10
    """Messages that find it connected."""
    stored: float = 2
    fetches: float = 2
    """Returns that find messages."""
    new: int = 10_000
    """First channels of new users, together."""


class Share(NamedTuple):
    """Units of a month that go into one kind of operation."""

    name: str
    read: int
    written: int


def monthly(rates: Rates, rows: list[Row], row_size: int) -> list[Share]:
    """Units of a month of 30 days: docs/dynamodb.rst has the formula.

    :param rows: what operations cost
    :param row_size: bytes of a stored message's row
    """
    units = {row.name: row.units for row in rows}
    hello, direct, stored = units[HELLO_BACK], units[DIRECT], units[STORED]
    read_back = FETCH_READ * rates.fetches + rates.stored * row_size / READ
    written = stored.written * rates.stored + FETCH_WRITE * rates.fetches
    first = units[FIRST_CHANNEL]
    each = [
        ("connections", hello.read * rates.connections, hello.written * rates.connections),
        ("messages to connected users", direct.read * rates.direct, 0),
        ("stored messages, and fetching them", stored.read * rates.stored + read_back, written),
        ("expiry of the channels", 0, 1),
    ]
    shares = [Share(name, *(round(DAYS * rates.users * n) for n in two)) for name, *two in each]
    new = (round(DAYS * rates.new * n) for n in (first.read, first.written))
    shares.append(Share("new users", *new))
    totals = (sum(share.read for share in shares), sum(share.written for share in shares))
    return [*shares, Share("together", *totals)]


def text_of(rows: list[Row]) -> str:
    """The table."""
    head = ("", "requests", "router R", "W", "messages R", "W")
    lines = [head] + [
        (row.name, str(row.requests), *(f"{units:g}" for units in row.units)) for row in rows
    ]
    width = max(len(line[0]) for line in lines)
    return "\n".join(
        f"{name:<{width}}" + "".join(f"{cell:>12}" for cell in cells) for name, *cells in lines
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=SIZE, help="bytes of a message's body (1024)")
    for name, default in Rates._field_defaults.items():
        what = "all of them" if name in ("users", "new") else "of a user a day"
        kind = type(default) if what == "all of them" else float
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"{what} ({default})")
    args = parser.parse_args()
    visit = Visit(args.size)
    print(text_of(rows := visit.run()))
    print(f"A stored message: 4/3 of its body, and {visit.overhead()} bytes\n\nUnits a month")
    rates = Rates(*(getattr(args, name) for name in Rates._fields))
    for share in monthly(rates, rows, visit.row_size):
        print(f"{share.name:<40} read {share.read:>15,}  write {share.written:>15,}")


if __name__ == "__main__":
    main()
