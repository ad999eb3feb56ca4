"""Records and rows as DynamoDB's attribute values (spec/storage 2, 3).

Small on purpose: one function a kind of row, as they run for every notification.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any
from uuid import UUID

from autopush.constants import MAX_EXPIRY
from autopush.db.interface import User
from autopush.db.rows import TIMESTAMPED, TOPIC
from autopush.message.notification import WebPushNotification
from autopush.message.urgency import NAMES, NORMAL

Value = dict[str, Any]
"""``{"S": text}``, ``{"N": digits}``, ..."""
Item = dict[str, Value]

CHANNEL_ROW = " "
"""Sort key of the row that holds a user's channels and read pointer."""

BRIDGE_CHANNELS = "chids"
"""Attribute of a bridge user's router record: its channels, whatever the month (quirk S4)."""


# ---- any value


def write_value(value: Any) -> Value:
    """A value of a router record.

    :raises TypeError: DynamoDB has no such type
    """
    if isinstance(value, str):
        return {"S": value}
    if value is None:
        return {"NULL": True}
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, int | float | Decimal):
        return {"N": str(value)}
    if isinstance(value, dict):
        return {"M": {str(name): write_value(member) for name, member in value.items()}}
    if isinstance(value, list | tuple):
        return {"L": [write_value(member) for member in value]}
    if isinstance(value, set | frozenset):
        return {"SS": sorted(value)}
    if isinstance(value, bytes | bytearray):
        return {"B": bytes(value)}
    raise TypeError(f"{type(value).__name__} can't be stored")


def read_value(value: Value) -> Any:
    """What :func:`write_value` was given; whole numbers as int, others as float."""
    ((kind, content),) = value.items()
    if kind == "S":
        return content
    if kind == "N":
        return read_number(content)
    if kind == "NULL":
        return None
    if kind == "M":
        return {name: read_value(member) for name, member in content.items()}
    if kind == "L":
        return [read_value(member) for member in content]
    if kind == "SS":
        return set(content)
    if kind == "NS":
        return {read_number(member) for member in content}
    if kind == "BS":
        return set(content)
    return content


def read_number(digits: str) -> int | float:
    """A number as DynamoDB writes it."""
    try:
        return int(digits)
    except ValueError:
        number = Decimal(digits)
        return int(number) if number == number.to_integral_value() else float(number)


def number_of(item: Item, name: str) -> int | None:
    """A whole number attribute, None if it is missing or none."""
    digits = item.get(name, {}).get("N")
    return None if digits is None else int(read_number(digits))


# ---- router records


def read_record(item: Item, uaid: str) -> User:
    """A router record, with the plain UAID (quirk S1); the channels are not part of it."""
    record = {name: read_value(value) for name, value in item.items()}
    if isinstance(record.get(BRIDGE_CHANNELS), set):
        del record[BRIDGE_CHANNELS]
    record["uaid"] = uaid
    return record


@functools.lru_cache(256)
def set_expression(names: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    """``UpdateExpression`` that sets these attributes, and its ``ExpressionAttributeNames``.

    The values are ``:v0``, ``:v1`` and so on.
    """
    sets = ", ".join(f"#n{number} = :v{number}" for number in range(len(names)))
    return f"SET {sets}", {f"#n{number}": name for number, name in enumerate(names)}


def set_values(values: Iterable[Any]) -> dict[str, Value]:
    """``ExpressionAttributeValues`` for :func:`set_expression`."""
    return {f":v{number}": write_value(value) for number, value in enumerate(values)}


# ---- rows of a message table


def row_key(user: str, sort_key: str) -> Item:
    """Key of a row; ``user`` is the UAID as stored."""
    return {"uaid": {"S": user}, "chidmessageid": {"S": sort_key}}


def channel_row(call: Callable[..., Any], month: str, user: str) -> Item | None:
    """Read a user's channel row in a month; ``user`` is the UAID as stored.

    :raises StoreError: also StoreBusy
    """
    key = row_key(user, CHANNEL_ROW)
    item: Item | None = call("get_item", TableName=month, Key=key, ConsistentRead=True).get("Item")
    return item


def expired(item: Item, now: int) -> bool:
    """Whether a row is past its expiry, though DynamoDB has not removed it yet."""
    expiry = number_of(item, "expiry")
    return expiry is not None and expiry <= now


def write_message(user: str, notification: WebPushNotification, now: int) -> Item:
    """The row of a message stored at ``now`` (s).

    A missing TTL counts as 0, a missing timestamp as now (quirk S20).
    """
    ttl = notification.ttl or 0
    timestamp = now if notification.timestamp is None else notification.timestamp
    headers = notification.headers
    item: Item = {
        "uaid": {"S": user},
        "chidmessageid": {"S": notification.sort_key},
        "headers": {"M": {name: {"S": text} for name, text in headers.items()}}
        if headers is not None
        else {"NULL": True},
        "ttl": {"N": str(ttl)},
        "timestamp": {"N": str(timestamp)},
        "expiry": {"N": str(now + min(ttl, MAX_EXPIRY))},
    }
    if notification.update_id:
        item["updateid"] = {"S": notification.update_id}
    if notification.data:
        item["data"] = {"S": notification.data}
    if notification.live:
        # Not in 1.58.3, which leaves alone what it doesn't know.
        item["live"] = {"N": "1"}
    if notification.urgency != NORMAL:
        item["urgency"] = {"S": NAMES[notification.urgency]}
    return item


def _read_headers(value: Value) -> dict[str, str] | None:
    """:raises KeyError: neither a map of texts nor NULL."""
    if "NULL" in value:
        return None
    return {name: text["S"] for name, text in value["M"].items()}


def read_message(uaid: UUID, item: Item) -> WebPushNotification:
    """The message in a row.

    :raises ValueError: the row can't be a message (spec/websocket Q15)
    """
    try:
        sort_key = item["chidmessageid"]["S"]
        data = item["data"]["S"] if "data" in item else None
        update_id = item["updateid"]["S"] if "updateid" in item else None
        headers = _read_headers(item.get("headers", {"NULL": True}))
        timestamp = item["timestamp"]["N"]
    except (KeyError, AttributeError) as exc:
        raise ValueError("an attribute is missing or of the wrong type") from exc
    if data and headers is None:
        raise ValueError("payload without headers")
    if not update_id and sort_key.startswith((TOPIC, TIMESTAMPED)):
        raise ValueError("no update id")
    return WebPushNotification.from_message_table(
        uaid,
        {
            "chidmessageid": sort_key,
            "updateid": update_id,
            "ttl": number_of(item, "ttl"),
            "timestamp": read_number(timestamp),
            "headers": headers,
            "data": data,
            "live": "live" in item,
            "urgency": item["urgency"].get("S") if "urgency" in item else None,
        },
    )
