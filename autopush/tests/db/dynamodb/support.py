"""A DynamoDB to test against: moto's server, or any other named by the environment.

``AUTOPUSH_TEST_DYNAMODB`` is the URL of one that is running already, such as DynamoDB Local
(``make test-dynamodb-local``).
"""

from __future__ import annotations

import functools
import itertools
import json
import logging
import os
from typing import Any

from botocore.config import Config
from twisted.internet import reactor

from autopush.config import DDBTableConfig
from autopush.db.dynamodb import tables
from autopush.db.dynamodb.client import caller, client_options, make_client
from autopush.db.dynamodb.items import Item, row_key, write_value
from autopush.db.dynamodb.store import DynamoStore
from autopush.db.interface import Months

URL = "AUTOPUSH_TEST_DYNAMODB"

if os.environ.get(URL):
    tables.POLL = 0.1  # there, new tables take a moment

PATIENCE = 60.0
"""Seconds that a store of a test waits for an emulator in Python, on a machine that is busy."""

_numbers = itertools.count()


@functools.cache
def dynamodb_url() -> str:
    """URL of the server, which is started if need be and ends with the process."""
    if os.environ.get(URL):
        return os.environ[URL]
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    return f"http://{host}:{port}"


@functools.cache
def client(url: str | None = None) -> Any:
    """A client, one a server."""
    url = url or dynamodb_url()
    config = client_options(url)["config"].merge(Config(read_timeout=PATIENCE))
    return make_client(thin=True, endpoint_url=url, config=config)


def table_names() -> tuple[str, str]:
    """Names of a router table and prefix of message tables that nothing has used before."""
    number = f"{os.getpid()}_{next(_numbers)}"
    return f"router_{number}", f"message_{number}"


def new_store(
    router: str | None = None, message: str | None = None, url: str | None = None, **kwargs: Any
) -> DynamoStore:
    """A store that is not set up; on fresh tables unless they are named."""
    fresh = table_names()
    if "reactor" not in kwargs:  # else it is a test's own clock, which is in no hurry
        kwargs = {"reactor": reactor, "deadline": PATIENCE, **kwargs}
    return DynamoStore(
        client(url),
        router_table=DDBTableConfig(router or fresh[0]),
        message_table=DDBTableConfig(message or fresh[1]),
        **kwargs,
    )


def raw_call(operation: str, /, **parameters: Any) -> Any:
    """A request past the store."""
    return caller(client())(operation, **parameters)


def put_item(table: str, item: Item) -> None:
    raw_call("put_item", TableName=table, Item=item)


def get_item(table: str, user: str, sort_key: str | None = None) -> Item | None:
    """An item as it is stored; of a message table if there is a sort key."""
    key = {"uaid": {"S": user}} if sort_key is None else row_key(user, sort_key)
    item: Item | None = raw_call("get_item", TableName=table, Key=key, ConsistentRead=True).get(
        "Item"
    )
    return item


def rows(table: str, user: str) -> list[Item]:
    """All rows of a user in a message table."""
    answer = raw_call(
        "query",
        TableName=table,
        KeyConditionExpression="uaid = :u",
        ExpressionAttributeValues={":u": {"S": user}},
        ConsistentRead=True,
    )
    items: list[Item] = answer["Items"]
    return items


def sort_keys(table: str, user: str) -> list[str]:
    return [item["chidmessageid"]["S"] for item in rows(table, user)]


def raw_item(user: str, sort_key: str, columns: dict[str, Any]) -> Item:
    """A message row from the columns of :meth:`StoreContract.put_raw`, of whatever type."""
    values: dict[str, Any] = {
        "update_id": "poison",
        "headers": None,
        "ttl": 60,
        "timestamp": 1_795_459_299,
        "expiry": 1_795_459_299 + 60,
        **columns,
    }
    update_id, headers = values.pop("update_id"), values["headers"]
    try:
        values["headers"] = json.loads(headers) if headers else None
    except ValueError:
        pass
    if update_id is not None:
        values["updateid"] = update_id
    return {
        **row_key(user, sort_key),
        **{name: write_value(value) for name, value in values.items()},
    }


class AlsoAccepting(Months):
    """Months of a store and one more, for tests of the shared suite with a month of their own."""

    def __init__(self, months: Months, more: str) -> None:
        self._months = months
        self._more = more

    @property
    def current(self) -> str:
        return self._months.current

    def accepts(self, month: object) -> bool:
        return month == self._more or self._months.accepts(month)
