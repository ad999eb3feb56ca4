"""What happened to whom, in one line of text.

JSON lines have the fields of an event beside its text; lines for people have those that tell whom
it was about, how it ended and how long it took::

    register uaid=0f64c2... channel=1111... 200 in 3 ms
    message uaid=0f64c2... channel=1111... bytes=120 stored 201 in 2 ms

The fields are those of the event, of its ``client_info``, and of its ``shown``: these are for such
lines only, JSON leaves them out.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

from autopush.ids import parse_uuid
from autopush.logging.redaction import HIDDEN, redact

LogEvent = dict[str, Any]

SHOWN = "shown"
"""Argument of a logger: a mapping of fields that only such lines have."""

WORDS = {
    "Message": "message",
    "Refused": "refused",
    "Register": "register",
    "Session": "session",
    "Unregister": "unregister",
}
"""What lines for people call events. The names in JSON lines stay as 1.58.3 has them."""

SHORT = 16
"""Characters of a pseudonym in such a line: enough to tell user agents apart, and to search for."""

PLACES = (("uaid_hash", "uaid"), ("channel_id", "channel"))
"""Fields that come first: whom it is about."""

DETAILS = (
    ("origin", "origin"),
    ("host", "host"),
    ("remote_ip", "from"),
    ("code", "code"),
    ("errno", "errno"),
    ("reason", "reason"),
    ("message_source", "source"),
    ("message_size", "bytes"),
    ("connection_time", "seconds"),
    ("direct_acked", "direct_acked"),
    ("direct_storage", "direct_storage"),
    ("stored_retrieved", "stored_retrieved"),
    ("stored_acked", "stored_acked"),
    ("nacks", "nacks"),
    ("registers", "registers"),
    ("unregisters", "unregisters"),
)
"""Fields that come next, as far as they say anything."""

ONLY_REFUSED = frozenset(("remote_ip",))
"""Fields of every request, shown of those that were refused."""

DIGITS = re.compile(r"[0-9a-f]{32}")
"""A UUID as HTTP requests have it."""

PLAIN = re.compile(r"[!#-<>-\[\]-~]+", re.ASCII)
"""Values that need no quotes: no blank, quote, backslash or ``=`` in them."""


def concerns(event: LogEvent) -> bool:
    """Whether there is more to tell of an event than its text."""
    return "uaid_hash" in event or "client_info" in event or SHOWN in event


def tell(event: LogEvent, text: str) -> str:
    """Return the line about an event.

    :param text: what the event says by itself
    """
    fields = {**event, **(event.get("client_info") or {}), **(event.get(SHOWN) or {})}
    form = str(event.get("log_format") or "")
    parts = [WORDS.get(text, text), *_places(fields, form), *_details(fields, form)]
    if "outcome" in fields:
        parts.append(str(fields["outcome"]))
    return " ".join((*parts, *_end(event, fields, form)))


def _places(fields: LogEvent, form: str) -> Iterator[str]:
    for field, name in PLACES:
        value = fields.get(field)
        if value and f"{{{field}}}" not in form:
            yield f"{name}={_shown(field, value)}"


def _details(fields: LogEvent, form: str) -> Iterator[str]:
    refused = int(fields.get("status_code") or 0) >= 400
    for field, name in DETAILS:
        value = fields.get(field)
        if not value or f"{{{field}}}" in form or (field in ONLY_REFUSED and not refused):
            continue
        yield f"{name}={_shown(field, value)}"


def _end(event: LogEvent, fields: LogEvent, form: str) -> Iterator[str]:
    """How it ended, and how long it took."""
    status = fields.get("status_code") or fields.get("status")
    if status and "{status" not in form:
        yield str(status)
    seconds = fields.get("took", (event.get("timings") or {}).get("request_time"))
    if seconds is not None:
        yield f"in {max(0.0, seconds) * 1000:.0f} ms"


def _shown(field: str, value: object) -> str:
    """Return a value in a form that can't be taken for anything else in the line."""
    value = redact(field, value)
    if not isinstance(value, str):
        return str(value)
    if field == "uaid_hash" and HIDDEN.fullmatch(value):
        return value[:SHORT]
    if field == "channel_id":
        # 32 digits without dashes are a UAID to those who hide these.
        if DIGITS.fullmatch(value):
            return f"{value[:8]}-{value[8:12]}-{value[12:16]}-{value[16:20]}-{value[20:]}"
        with contextlib.suppress(ValueError):
            return str(parse_uuid(value))
    return value if PLAIN.fullmatch(value) else json.dumps(value)
