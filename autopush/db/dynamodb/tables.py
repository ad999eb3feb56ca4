"""DynamoDB tables: making sure that they exist, listing them (spec/storage 2, 3, 8).

Blocking; every function takes the :class:`~autopush.db.dynamodb.client.Call` to use.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from twisted.logger import Logger

from autopush.db.dynamodb.client import Call, DynamoError, TableMissing, Throttled
from autopush.db.interface import StoreUnusable

log = Logger()

ROUTER_KEYS = ("uaid",)
MESSAGE_KEYS = ("uaid", "chidmessageid")
"""Names of the partition key and the sort key, both strings."""

EXISTS = frozenset({"ACTIVE", "CREATING", "UPDATING"})
USABLE = frozenset({"ACTIVE", "UPDATING"})
"""States of a table: as health checks count them, and in which it takes requests."""

POLL = 1.0
"""Seconds between two looks whether a table is usable."""

READY_WITHIN = 600
"""Seconds a table may take to become usable; a new one takes some ten."""

NO_SUCH_OPERATION = frozenset(
    {"UnknownOperationException", "UnknownOperation", "InvalidAction", "NotImplemented", "501"}
)
"""What emulators without it answer to an operation on the TTL."""


def status(call: Call, name: str) -> str | None:
    """State of a table, such as ``ACTIVE``; None if there is none."""
    try:
        answer = call("describe_table", TableName=name)
    except TableMissing:
        return None
    return str(answer["Table"]["TableStatus"])


def names(call: Call) -> Iterator[str]:
    """Names of all tables."""
    start: dict[str, str] = {}
    while True:
        answer = call("list_tables", **start)
        yield from answer.get("TableNames", ())
        last = answer.get("LastEvaluatedTableName")
        if not last:
            return
        start = {"ExclusiveStartTableName": last}


def ensure(
    call: Call,
    name: str,
    keys: tuple[str, ...],
    units: tuple[int, int],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Make sure that a table exists and takes requests; message tables get a TTL (quirk S19).

    Several processes may do so at once (quirk S13).

    :param units: provisioned read and write capacity of a new table
    :raises StoreUnusable: it doesn't become usable
    """
    for _ in range(int(READY_WITHIN / POLL)):
        state = status(call, name)
        if state in USABLE:
            break
        if state is None:
            _create(call, name, keys, units)
            if status(call, name) in USABLE:
                break
        sleep(POLL)
    else:
        raise StoreUnusable(f"table {name} is not active after {READY_WITHIN} seconds: {state}")
    if keys == MESSAGE_KEYS:
        enable_ttl(call, name)


def _create(call: Call, name: str, keys: tuple[str, ...], units: tuple[int, int]) -> None:
    read, write = units
    try:
        call(
            "create_table",
            TableName=name,
            KeySchema=[
                {"AttributeName": key, "KeyType": kind}
                for key, kind in zip(keys, ("HASH", "RANGE"), strict=False)
            ],
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in keys],
            ProvisionedThroughput={"ReadCapacityUnits": read, "WriteCapacityUnits": write},
        )
    except Throttled:
        return  # too many tables are being created at the moment: the caller looks again
    except DynamoError as error:
        if error.code != "ResourceInUseException":
            raise
        return
    log.info("Created table {name}", name=name)


def enable_ttl(call: Call, name: str) -> None:
    """Have rows removed after their ``expiry``, unless that is so already.

    An endpoint that can't, and an account that may not, keeps its rows; that is only logged.
    """
    try:
        answer = call("describe_time_to_live", TableName=name)
        state = answer["TimeToLiveDescription"].get("TimeToLiveStatus")
        if state in ("ENABLED", "ENABLING"):
            return
        call(
            "update_time_to_live",
            TableName=name,
            TimeToLiveSpecification={"Enabled": True, "AttributeName": "expiry"},
        )
    except DynamoError as error:
        if error.code in NO_SUCH_OPERATION or "already enabled" in str(error):
            return
        log.warn("Expired rows of table {name} stay: {error}", name=name, error=str(error))
