"""DynamoDB's tables as one side of a copy."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from autopush.constants import MAX_EXPIRY
from autopush.db.dynamodb import tables
from autopush.db.dynamodb.channels import ended_channels
from autopush.db.dynamodb.client import Call, TableMissing, delays, patient
from autopush.db.dynamodb.items import (
    BRIDGE_CHANNELS,
    CHANNEL_ROW,
    Item,
    number_of,
    read_record,
    row_key,
    write_value,
)
from autopush.db.dynamodb.messages import KEPT, channel_set
from autopush.db.interface import MOVING_FROM, Months
from autopush.db.months import LatestMonths, RotatingMonths, message_tables
from autopush.db.rows import MessageRow, channel_ids, dump_json, load_json
from autopush.db.sqlite.records import NEVER
from autopush.db.transfer import DAY, MONTH, Mark, Page, Portable, Transfer, portable, waiting
from autopush.exceptions import StoreBusy

MARK = "autopush_data"
"""Key of the item in the table of users that tells how far a copy to here is."""

WRITES = 25
"""Rows in one request, at most."""


class Pace:
    """Keeps requests below a number of capacity units a second.

    :param limit: units a second; 0: no limit
    """

    def __init__(
        self,
        limit: float,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit, self._sleep, self._now = limit, sleep, now
        self._free = 0.0

    def spend(self, units: float) -> None:
        """Wait until the units that were consumed are there again."""
        if not self._limit or not units:
            return
        now = self._now()
        self._free = max(self._free, now) + units / self._limit
        self._sleep(self._free - now)


def consumed(answer: Mapping[str, Any]) -> float:
    """Return the capacity units of a request."""
    told = answer.get("ConsumedCapacity") or []
    parts = told if isinstance(told, list) else [told]
    return sum(float(part.get("CapacityUnits", 0)) for part in parts)


class DynamoTransfer(Transfer):
    """The tables of a cluster, which may be in use when they are only read.

    :param call: makes one attempt at a request
    :param router_table: table of users
    :param prefix: ``message_tablename``
    :param rotating: whether there is a table of messages for each month
    :param units: capacity units a second, of reads and writes apart; 0: no limit
    :param now: seconds since the epoch; what has expired by then isn't there
    """

    def __init__(
        self,
        call: Call,
        router_table: str,
        prefix: str,
        *,
        rotating: bool,
        units: float = 0,
        now: int,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.described = f"dynamodb: ({router_table}, {prefix})"
        self._plain = patient(call, sleep)
        self._table = router_table
        self._prefix = prefix
        self._rotating = rotating
        self._now = now
        self._sleep = sleep
        self._reads, self._writes = Pace(units, sleep), Pace(units, sleep)
        self._tables: list[str] | None = None

    # ---- requests

    def _read(self, operation: str, **parameters: Any) -> dict[str, Any]:
        return self._paced(self._reads, operation, parameters)

    def _write(self, operation: str, **parameters: Any) -> dict[str, Any]:
        return self._paced(self._writes, operation, parameters)

    def _paced(self, pace: Pace, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        answer = self._plain(operation, ReturnConsumedCapacity="TOTAL", **parameters)
        pace.spend(consumed(answer))
        return answer

    def _until_done(
        self, request: Callable[[Any], dict[str, Any]], wanted: Any, left: str
    ) -> Iterator[dict[str, Any]]:
        """Repeat a batch with what the server has left out.

        :raises StoreBusy: again and again
        """
        for delay in delays():
            answer = request(wanted)
            yield answer
            wanted = answer.get(left)
            if not wanted:
                return
            self._sleep(delay)
        raise StoreBusy(f"{self.described}: too many requests")

    # ---- which tables

    def _months(self) -> Months:
        if self._rotating:
            return RotatingMonths(self._prefix, lambda: float(self._now))
        return LatestMonths(self._prefix, self._all_tables())

    def _all_tables(self) -> list[str]:
        if self._tables is None:
            self._tables = message_tables(self._prefix, tables.names(self._plain))
        return self._tables

    def _accepted(self) -> list[str]:
        """The tables of messages that exist and count, oldest first."""
        months = self._months()
        return [name for name in self._all_tables() if months.accepts(name)]

    @property
    def _month(self) -> str:
        """The one that users get."""
        return self._months().current

    def exists(self) -> bool:
        return tables.status(self._plain, self._table) is not None

    def prepare(self) -> None:
        months = self._months()
        names = months.needed_at_start() if isinstance(months, RotatingMonths) else [months.current]
        tables.ensure(self._plain, self._table, tables.ROUTER_KEYS, (5, 5), self._sleep)
        for name in names:
            tables.ensure(self._plain, name, tables.MESSAGE_KEYS, (5, 5), self._sleep)
        self._tables = None

    def count(self) -> int | None:
        """Return what the server says; it looks every six hours."""
        answer = self._plain("describe_table", TableName=self._table)
        return int(answer["Table"].get("ItemCount", 0)) or None

    def close(self) -> None:
        pass

    # ---- reading

    def page(self, after: str, limit: int) -> Page:
        start = {"ExclusiveStartKey": {"uaid": {"S": after}}} if after else {}
        answer = self._read(
            "scan", TableName=self._table, Limit=limit, ConsistentRead=True, **start
        )
        items = [item for item in answer["Items"] if item["uaid"]["S"] != MARK]
        users = [user for item in items if (user := self._portable(item)) is not None]
        last = answer.get("LastEvaluatedKey")
        return Page(users, last["uaid"]["S"] if last else None, len(items) - len(users))

    def load(self, keys: Sequence[str]) -> dict[str, Portable]:
        found = map(self._portable, self._items(keys))
        return {user.key: user for user in found if user is not None}

    def present(self, keys: Sequence[str]) -> set[str]:
        return {item["uaid"]["S"] for item in self._items(keys) if self._counts(item)}

    def _items(self, keys: Sequence[str]) -> Iterator[Item]:
        def request(wanted: Any) -> dict[str, Any]:
            return self._read("batch_get_item", RequestItems=wanted)

        listed = [{"uaid": {"S": key}} for key in keys if key != MARK]
        if not listed:  # which DynamoDB refuses
            return
        wanted = {self._table: {"Keys": listed, "ConsistentRead": True}}
        for answer in self._until_done(request, wanted, "UnprocessedKeys"):
            yield from answer["Responses"].get(self._table, ())

    def _counts(self, item: Item) -> bool:
        """Whether a node would know the user: its month is there, if it has one."""
        month = item.get(MONTH, {}).get("S")
        return len(item) > 1 and (MONTH not in item or month in self._accepted())

    def _portable(self, item: Item) -> Portable | None:
        if not self._counts(item):
            return None
        key = item["uaid"]["S"]
        if MONTH not in item:
            return self._bridge_user(key, item)
        row, messages = self._rows(item[MONTH]["S"], key)
        channels = None if row is None else channel_set(row)
        pointer = number_of(row, "current_timestamp") if row else None
        old = item.get(MOVING_FROM, {}).get("S")
        if old in self._accepted() and old != item[MONTH]["S"]:
            # A node has died while it moved the user (spec/storage 8.5).
            old_row, rest = self._rows(old, key)
            read = number_of(old_row, "current_timestamp") if old_row else None
            known = {message.sort_key for message in messages}
            messages += [m for m in waiting(rest, read, self._now) if m.sort_key not in known]
            if old_row is not None:
                channels = (channels or set()) | channel_set(old_row)
        # A row that is there counts, whatever its expiry.
        expiry = max(number_of(row, "expiry") or 0 if row else 0, self._now + DAY)
        return portable(
            key, read_record(item, key), channels, pointer=pointer,
            expiry=0 if channels is None else expiry, messages=messages, now=self._now,
        )  # fmt: skip

    def _bridge_user(self, key: str, item: Item) -> Portable:
        """See :mod:`autopush.db.dynamodb.channels`."""
        rows = [row for name in self._accepted() if (row := self._channel_row(name, key))]
        known = item.get(BRIDGE_CHANNELS, {}).get("SS")
        channels = channel_ids(known or ()).union(*map(channel_set, rows))
        channels -= set[str]().union(*map(ended_channels, rows))
        there = known is not None or bool(rows)
        return portable(
            key, read_record(item, key), channels if there else None,
            expiry=NEVER if there else 0, now=self._now,
        )  # fmt: skip

    def _channel_row(self, table: str, key: str) -> Item | None:
        answer = self._read(
            "get_item", TableName=table, Key=row_key(key, CHANNEL_ROW), ConsistentRead=True
        )
        item: Item | None = answer.get("Item")
        return item

    def _query(self, table: str, key: str, **more: Any) -> Iterator[Item]:
        request: dict[str, Any] = {
            "TableName": table,
            "KeyConditionExpression": "uaid = :uaid",
            "ExpressionAttributeValues": {":uaid": {"S": key}},
            "ConsistentRead": True,
            **more,
        }
        while True:
            try:
                answer = self._read("query", **request)
            except TableMissing:
                return
            yield from answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def _rows(self, table: str, key: str) -> tuple[Item | None, list[MessageRow]]:
        row, messages = None, []
        for item in self._query(table, key):
            if item["chidmessageid"]["S"] == CHANNEL_ROW:
                row = item
            elif (message := read_row(item)) is not None:
                messages.append(message)
        return row, messages

    # ---- writing

    def replace(self, users: Sequence[Portable], there: Mapping[str, Portable]) -> None:
        month = self._month
        # A record never names a month without its rows, so those come first.
        self._batch(month, self._changes(month, users))
        self._batch(self._table, [{"PutRequest": {"Item": self._record(user)}} for user in users])

    def _changes(self, month: str, users: Sequence[Portable]) -> Iterator[dict[str, Any]]:
        for user in users:
            rows = {row["chidmessageid"]["S"]: row for row in self._row_items(user)}
            keys = self._query(month, user.key, ProjectionExpression="chidmessageid")
            gone = [key for item in keys if (key := item["chidmessageid"]["S"]) not in rows]
            yield from ({"DeleteRequest": {"Key": row_key(user.key, key)}} for key in gone)
            yield from ({"PutRequest": {"Item": row}} for row in rows.values())

    def _batch(self, table: str, changes: Iterable[dict[str, Any]]) -> None:
        def request(wanted: Any) -> dict[str, Any]:
            return self._write("batch_write_item", RequestItems=wanted)

        listed = list(changes)
        for start in range(0, len(listed), WRITES):
            wanted = {table: listed[start : start + WRITES]}
            for _ in self._until_done(request, wanted, "UnprocessedItems"):
                pass

    def _record(self, user: Portable) -> Item:
        item = {name: write_value(value) for name, value in user.record_in(self._month).items()}
        item["uaid"] = {"S": user.key}
        if not user.has_month and user.channels:
            item[BRIDGE_CHANNELS] = {"SS": sorted(user.channels)}
        return item

    def _row_items(self, user: Portable) -> Iterator[Item]:
        if user.channels is not None:
            row = row_key(user.key, CHANNEL_ROW)
            row["expiry"] = {"N": str(min(user.expiry, self._now + MAX_EXPIRY))}
            if user.channels:
                row["chids"] = {"SS": sorted(user.channels)}
                if not user.has_month:
                    row[KEPT] = row["chids"]
            if user.pointer:
                row["current_timestamp"] = {"N": str(user.pointer)}
            yield row
        for message in user.messages:
            yield write_row(user.key, message)

    def remove(self, keys: Sequence[str]) -> None:
        """Delete the records; what no record names expires by itself."""
        self._batch(self._table, [{"DeleteRequest": {"Key": {"uaid": {"S": key}}}} for key in keys])

    # ---- how far it is

    def served(self) -> bool:
        request: dict[str, Any] = {
            "TableName": self._table,
            "FilterExpression": "attribute_exists(node_id)",
            "ProjectionExpression": "uaid",
        }
        while True:
            answer = self._read("scan", **request)
            if answer["Items"]:
                return True
            if "LastEvaluatedKey" not in answer:
                return False
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def get_mark(self) -> Mark | None:
        answer = self._read(
            "get_item", TableName=self._table, Key={"uaid": {"S": MARK}}, ConsistentRead=True
        )
        item = answer.get("Item")
        return Mark(*json.loads(item["mark"]["S"])) if item else None

    def set_mark(self, mark: Mark) -> None:
        item = {"uaid": {"S": MARK}, "mark": {"S": json.dumps(mark)}}
        self._write("put_item", TableName=self._table, Item=item)


# ---- messages


def read_row(item: Item) -> MessageRow | None:
    """Return a message as other stores have it; None: no node could read it."""
    try:
        headers = item.get("headers", {"NULL": True})
        texts = None if "NULL" in headers else {n: v["S"] for n, v in headers["M"].items()}
        timestamp = number_of(item, "timestamp")
        if timestamp is None:
            return None
        ttl = number_of(item, "ttl") or 0
        expiry = number_of(item, "expiry")
        return MessageRow(
            item["chidmessageid"]["S"],
            item["updateid"]["S"] if "updateid" in item else None,
            item["data"]["S"] if "data" in item else None,
            None if texts is None else dump_json(texts),
            ttl,
            timestamp,
            timestamp + min(ttl, MAX_EXPIRY) if expiry is None else expiry,
            1 if "live" in item else None,
            item["urgency"]["S"] if "urgency" in item else None,
        )
    except (KeyError, AttributeError):
        return None


def write_row(key: str, row: MessageRow) -> Item:
    """Return the row of a message as nodes write it."""
    item = row_key(key, row.sort_key)
    headers = None if row.headers is None else load_json(row.headers)
    item["headers"] = write_value(headers)
    for name, number in (("ttl", row.ttl), ("timestamp", row.timestamp), ("expiry", row.expiry)):
        item[name] = {"N": str(number)}
    for name, text in (("updateid", row.update_id), ("data", row.data), ("urgency", row.urgency)):
        if text:
            item[name] = {"S": text}
    if row.live:
        item["live"] = {"N": "1"}
    return item
