"""Message rows and JSON texts, as every embedded back end stores them (spec/storage 3, 4)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import attrs
import orjson

from autopush.constants import MAX_EXPIRY
from autopush.ids import hash_uaid, normalize_id
from autopush.message.notification import WebPushNotification
from autopush.message.urgency import NAMES, NORMAL

TOPIC = "01:"
"""Sort keys of topic messages start so."""
TIMESTAMPED = "02:"
"""Sort keys of timestamped messages start so; those are all between this and AFTER_TIMESTAMPED."""
AFTER_TIMESTAMPED = "02;"
TOPICS_END = "02"
"""The topic fetch reads the sort keys below this."""
TOPICS_AND_LOW_LEGACY_END = "01;"
"""The timestamp fetch starts above this when there is no pointer."""

FIRST = ""
LAST = "\U0010ffff"
"""Sort keys: no message is before the one or behind the other."""

CACHED_KEYS = 4096
"""UAIDs whose keys are remembered where they are hashed (``key_hash``): each message needs its
user's several times. About 1 MB."""


class MessageRow(NamedTuple):
    """A stored message but for its user."""

    sort_key: str
    update_id: str | None
    data: str | None
    headers: str | None
    """JSON object, or None for a message without payload."""
    ttl: int
    timestamp: int
    expiry: int
    live: int | None = None
    """1 for a message accepted while its user agent was connected."""
    urgency: str | None = None
    """None for normal."""


def key_maker(key_hash: str) -> Callable[[str], str]:
    """What makes the key a user is stored under (spec/storage 5).

    :param key_hash: key of an HMAC; empty: the UAID is its own key
    """
    return lru_cache(CACHED_KEYS)(partial(hash_uaid, key_hash)) if key_hash else str


def write_message(notification: WebPushNotification, now: int) -> MessageRow:
    """The row for a message stored at ``now`` (s).

    A missing TTL counts as 0, a missing timestamp as now (quirk S20).
    """
    headers = notification.headers
    ttl = notification.ttl or 0
    return MessageRow(
        notification.sort_key,
        notification.update_id,
        notification.data or None,
        None if headers is None else dump_json(headers),
        ttl,
        now if notification.timestamp is None else notification.timestamp,
        now + min(ttl, MAX_EXPIRY),
        1 if notification.live else None,
        None if notification.urgency == NORMAL else NAMES[notification.urgency],
    )


def read_message(uaid: uuid.UUID, row: MessageRow) -> WebPushNotification:
    """The message in a row.

    :raises ValueError: the row can't be a message (spec/websocket Q15)
    """
    headers = load_json(row.headers) if row.headers else None
    if headers is not None and not isinstance(headers, dict):
        raise ValueError("headers are no object")
    if row.data and headers is None:
        raise ValueError("payload without headers")
    if row.sort_key.startswith((TOPIC, TIMESTAMPED)) and not row.update_id:
        raise ValueError("no update id")
    item = {
        "chidmessageid": row.sort_key,
        "updateid": row.update_id,
        "ttl": row.ttl,
        "timestamp": row.timestamp,
        "headers": headers,
        "data": row.data,
        "live": row.live,
        "urgency": row.urgency,
    }
    return WebPushNotification.from_message_table(uaid, item)


def without_topic(notification: WebPushNotification) -> WebPushNotification:
    """The same message, to be stored beside another one of its topic, at the end."""
    return attrs.evolve(notification, topic=None, sortkey_timestamp=None)


def key_timestamp(sort_key: str) -> int | None:
    """The timestamp (µs) in a timestamped message's sort key; None for the other kinds.

    Also None for a key that is malformed.
    """
    if not sort_key.startswith(TIMESTAMPED):
        return None
    digits, colon, _ = sort_key[3:].partition(":")
    return int(digits) if colon and digits.isascii() and digits.isdigit() else None


def channel_ids(stored: Iterable[str]) -> set[str]:
    """Channel ids as we write them; other programs may have stored them in other spellings.

    What is no UUID stays as it is: to list it is the only way to see it.
    """
    return {_channel_id(text) for text in stored}


def _channel_id(text: str) -> str:
    try:
        return normalize_id(text)
    except ValueError:
        return text


def spellings(chid: str) -> tuple[str, str, str, str]:
    """The ways in which a channel id is usually written; the first one is ours."""
    digits = chid.replace("-", "")
    return chid, digits, chid.upper(), digits.upper()


def other_spellings(chid: str, stored: set[str]) -> set[str]:
    """The unusual ways in which a channel is among these: mixed case, braces."""
    rest = stored.difference(spellings(chid))
    return {text for text in rest if _channel_id(text) == chid}


def dump_json(value: Any) -> str:
    """JSON text, also for what orjson refuses: integers over 64 bits, lone surrogates."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return json.dumps(value)


def load_json(text: str) -> Any:
    """What :func:`dump_json` was given.

    :raises ValueError: not JSON
    """
    try:
        return orjson.loads(text)
    except ValueError:
        return json.loads(text)
