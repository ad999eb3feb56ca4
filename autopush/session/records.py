"""The router record of a user that connects (spec/websocket 7, spec/storage 2, 7 and 11)."""

from __future__ import annotations

from typing import Any

from autopush.constants import RECORD_VERSION
from autopush.db.interface import Months, User
from autopush.db.lastconnect import generate_last_connect, has_connected_this_month
from autopush.message.urgency import NAMES, VERY_LOW
from autopush.options.bridges import BRIDGES

NO_IDENTITY = 104
"""Drop code: ``router_type`` or ``connected_at`` is missing."""

NO_MONTH = 105
"""Drop code: ``current_month`` is missing or unknown."""


def number(value: Any) -> int | None:
    """A stored number of any type, None if it is none."""
    try:
        return int(value)
    except (TypeError, ValueError, ArithmeticError):
        return None


def is_bridge(record: User) -> bool:
    """Whether a user is reached another way, so that the record is not ours to drop (quirk Q12)."""
    return record.get("router_type") in BRIDGES


def drop_code(record: User, months: Months) -> int | None:
    """Why a record is of no use any more, None if it is."""
    if not record.get("router_type") or number(record.get("connected_at")) is None:
        return NO_IDENTITY
    month = record.get("current_month")
    if not month or not months.accepts(month):
        return NO_MONTH
    return None


def needs_reset(record: User) -> bool:
    """Whether the record is too old to keep: the user agent gets a new UAID after draining."""
    version = number(record.get("record_version"))
    return version is None or version < RECORD_VERSION


def new_record(
    uaid: str, node_id: str, connected_at: int, month: str, now: float, least: int = VERY_LOW
) -> User:
    """The record of a user agent that is new, or has to start anew.

    :param least: the least urgency it wants to be sent at once
    """
    urgency = {} if least == VERY_LOW else {"urgency": NAMES[least]}
    return {
        "uaid": uaid,
        "router_type": "webpush",
        "node_id": node_id,
        "connected_at": connected_at,
        "last_connect": generate_last_connect(now),
        "record_version": RECORD_VERSION,
        "current_month": month,
        **urgency,
    }


def returning(record: User, node_id: str, connected_at: int, now: float) -> User:
    """The changes to the record of a user agent that is back.

    Nothing else is written: another node may be changing the month at this moment.
    """
    changes = {
        "uaid": record["uaid"],
        "router_type": record["router_type"],
        "node_id": node_id,
        "connected_at": connected_at,
    }
    if not has_connected_this_month(record, now):
        changes["last_connect"] = generate_last_connect(now)
    return changes
