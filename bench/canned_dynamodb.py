"""Stands in for DynamoDB in benchmarks: answers at once, and from a process of its own.

Just enough of the API for what autopush asks: items in dictionaries, updates carried out,
conditions taken for granted. Nothing is checked. For anything but measuring use moto.

    python bench/canned_dynamodb.py PORT
"""

from __future__ import annotations

import asyncio
import re
import sys
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable
from typing import Any

import orjson
from metering import MESSAGES, ROUTER, Item, Meter

Address = tuple[str, str, str]
"""Table, user, sort key."""

CLAUSE = re.compile(r"(SET|ADD|REMOVE|DELETE) (.*?)(?=(?: SET | ADD | REMOVE | DELETE |$))")


class Tables:
    """All tables. A router table's sort key is the empty text."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str, str], Item] = {}
        self.sorted: dict[tuple[str, str], list[str]] = {}
        self.calls: dict[str, int] = {}
        self.meter = Meter()

    # ---- items

    def _put(self, table: str, item: Item) -> None:
        _, user, sort = _address(table, item)
        if (table, user, sort) not in self.items:
            insort(self.sorted.setdefault((table, user), []), sort)
        self.items[table, user, sort] = item

    def _address(self, request: dict[str, Any]) -> Address:
        return _address(request["TableName"], request["Key"])

    # ---- operations

    def get_item(self, request: dict[str, Any]) -> dict[str, Any]:
        item = self._read(self._address(request), request)
        return {} if item is None else {"Item": item}

    def batch_get_item(self, request: dict[str, Any]) -> dict[str, Any]:
        responses: dict[str, list[Item]] = {}
        for table, wanted in request["RequestItems"].items():
            found = (self._read(_address(table, key), wanted) for key in wanted["Keys"])
            responses[table] = [item for item in found if item is not None]
        return {"Responses": responses, "UnprocessedKeys": {}}

    def _read(self, address: Address, request: dict[str, Any]) -> Item | None:
        item = self.items.get(address)
        self.meter.read(_kind(address[2]), (item,), request.get("ConsistentRead", False))
        return item

    def put_item(self, request: dict[str, Any]) -> dict[str, Any]:
        table, item = request["TableName"], request["Item"]
        address = _address(table, item)
        self.meter.write(_kind(address[2]), (self.items.get(address), item))
        self._put(table, item)
        return {}

    def delete_item(self, request: dict[str, Any]) -> dict[str, Any]:
        address = table, user, sort = self._address(request)
        item = self.items.pop(address, None)
        self.meter.write(_kind(sort), (item,))
        if item is None:
            return {}
        keys = self.sorted[table, user]
        del keys[bisect_left(keys, sort)]
        return {"Attributes": item} if request.get("ReturnValues") == "ALL_OLD" else {}

    def update_item(self, request: dict[str, Any]) -> dict[str, Any]:
        address = self._address(request)
        old = self.items.get(address, {})
        item = {**old} if old else dict(request["Key"])
        names = request.get("ExpressionAttributeNames", {})
        values = request.get("ExpressionAttributeValues", {})
        for verb, clause in CLAUSE.findall(request["UpdateExpression"]):
            for part in clause.split(","):
                self._change(item, verb, part.split(), names, values)
        self.meter.write(_kind(address[2]), (old, item))
        self._put(address[0], item)
        return {"Attributes": old} if old and request.get("ReturnValues") else {}

    def _change(
        self, item: Item, verb: str, words: list[str], names: dict[str, str], values: Item
    ) -> None:
        name = names.get(words[0], words[0])
        if verb == "SET":
            item[name] = values[words[2]]
        elif verb == "REMOVE":
            item.pop(name, None)
        else:
            given = set(values[words[1]]["SS"])
            members = set(item.get(name, {}).get("SS", ()))
            members = members | given if verb == "ADD" else members - given
            item.pop(name, None)
            if members:
                item[name] = {"SS": sorted(members)}

    def query(self, request: dict[str, Any]) -> dict[str, Any]:
        values = request["ExpressionAttributeValues"]
        condition = request["KeyConditionExpression"]
        table, user = request["TableName"], values[":uaid"]["S"]
        keys = self.sorted.get((table, user), [])
        low, high = 0, len(keys)
        if "BETWEEN :after" in condition:
            low, high = (bisect_left(keys, values[name]["S"]) for name in (":after", ":end"))
        elif "BETWEEN" in condition:
            low, high = (bisect_left(keys, values[name]["S"]) for name in (":low", ":high"))
        elif " > " in condition:
            low = bisect_left(keys, values[":above"]["S"])
        elif " < " in condition:
            high = bisect_left(keys, values[":end"]["S"])
        if start := request.get("ExclusiveStartKey"):
            low = bisect_right(keys, start["chidmessageid"]["S"])
        found = keys[low:high]
        if request.get("ScanIndexForward") is False:
            found.reverse()
        items = [self.items[table, user, key] for key in found[: request.get("Limit")]]
        self.meter.read(MESSAGES, items, request.get("ConsistentRead", False))
        more = {"LastEvaluatedKey": _key_of(items[-1])} if len(items) < len(found) else {}
        projection = request.get("ProjectionExpression")
        if projection:
            names = projection.split(", ")
            items = [{name: item[name] for name in names if name in item} for item in items]
        return {"Items": items, "Count": len(items), "ScannedCount": len(items), **more}

    def describe_table(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"Table": {"TableName": request["TableName"], "TableStatus": "ACTIVE"}}

    def describe_time_to_live(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"TimeToLiveDescription": {"TimeToLiveStatus": "ENABLED"}}

    def list_tables(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"TableNames": []}

    # ---- by name

    def answer(self, target: str, body: bytes) -> bytes:
        """The answer to a request."""
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", target).lower()
        return orjson.dumps(self.carry_out(name, orjson.loads(body)))

    def carry_out(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        """The same by the name that clients have for the operation."""
        self.calls[name] = self.calls.get(name, 0) + 1
        operation: Callable[[dict[str, Any]], dict[str, Any]] = getattr(self, name)
        return operation(request)


def _address(table: str, key: Item) -> Address:
    return table, key["uaid"]["S"], key.get("chidmessageid", {"S": ""})["S"]


def _kind(sort_key: str) -> str:
    return MESSAGES if sort_key else ROUTER


def _key_of(item: Item) -> Item:
    return {name: item[name] for name in ("uaid", "chidmessageid")}


class Connection(asyncio.Protocol):
    """One keep-alive connection; requests have a Content-Length."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._data = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while True:
            end = self._data.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._data[:end].decode("latin-1")
            length = _header(head, "content-length")
            stop = end + 4 + int(length or 0)
            if len(self._data) < stop:
                return
            body, self._data = self._data[end + 4 : stop], self._data[stop:]
            self._transport.write(self._answer(head, body))

    def _answer(self, head: str, body: bytes) -> bytes:
        if head.startswith("GET /calls"):
            content = orjson.dumps(self._tables.calls)
        elif head.startswith("GET /units"):
            self._tables.meter.on = True
            content = orjson.dumps(list(self._tables.meter.total()))
        else:
            target = _header(head, "x-amz-target").rpartition(".")[2]
            content = self._tables.answer(target, body)
        return (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\n"
            b"Content-Length: %d\r\n\r\n" % len(content)
        ) + content


def _header(head: str, name: str) -> str:
    match = re.search(rf"^{name}: *(.*?)\r?$", head, re.MULTILINE | re.IGNORECASE)
    return match[1] if match else ""


async def serve(port: int) -> None:
    """Serve for ever."""
    tables = Tables()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(tables), "127.0.0.1", port)
    print("canned DynamoDB is ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
