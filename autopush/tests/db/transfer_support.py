"""Stores to copy between, and users to copy."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from autopush.db.dynamodb.client import caller
from autopush.db.dynamodb.transfer import DynamoTransfer
from autopush.db.rows import MessageRow
from autopush.db.sqlite.records import NEVER
from autopush.db.sqlite.transfer import SqliteTransfer
from autopush.db.transfer import MONTH, Portable, portable
from autopush.tests.db.dynamodb.support import client, table_names
from autopush.tests.db.postgresql.server import missing, shared_server

NOW = 1_795_459_299
"""Seconds since the epoch: in November 2026."""

FAR = NOW + 30 * 86_400

_numbers = itertools.count()


def sqlite_side(home: Path) -> SqliteTransfer:
    side = SqliteTransfer(str(home / f"{next(_numbers)}.sqlite3"), "message", NOW)
    side.prepare()
    return side


def dynamo_side(_home: Path | None = None, **more: Any) -> DynamoTransfer:
    router, message = table_names()
    options = {"rotating": True, "now": NOW, **more}
    side = DynamoTransfer(caller(client()), router, message, **options)
    side.prepare()
    return side


def postgresql_side(_home: Path | None = None) -> Any:
    from autopush.db.open import postgresql_parameters
    from autopush.db.postgresql.transfer import PostgresqlTransfer

    dsn = shared_server().new_schema()
    side = PostgresqlTransfer(dsn, postgresql_parameters(dsn), "message", NOW)
    side.prepare()
    return side


SIDES: dict[str, Any] = {"sqlite": sqlite_side, "dynamodb": dynamo_side}
if not missing():
    SIDES["postgresql"] = postgresql_side


def message(number: int, chid: str, **more: Any) -> MessageRow:
    row = MessageRow(
        f"02:{NOW * 1_000_000 + number}:{chid}", f"version-{number}", "cGF5bG9hZA",
        '{"encoding":"aes128gcm"}', 600, NOW, NOW + 600,
    )  # fmt: skip
    return row._replace(**more)


def user(number: int = 0, **more: Any) -> Portable:
    """Somebody with a channel and a message."""
    chid = f"00000000-0000-4000-8000-{number:012}"
    record = {"router_type": "webpush", "connected_at": NOW * 1000, MONTH: "message"}
    given: dict[str, Any] = {
        "channels": [chid], "expiry": FAR, "messages": [message(1, chid)], "now": NOW, **more,
    }  # fmt: skip
    return portable(f"{number:032x}", record, **given)


def held(side: Any) -> dict[str, Portable]:
    """All users of a store."""
    found: dict[str, Portable] = {}
    after: str | None = ""
    while after is not None:
        page = side.page(after, 3)
        found |= {user.key: user for user in page.users}
        after = page.after
    return found


# ---- at random

_texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)
_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | _texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_texts, inner, max_size=2),
    max_leaves=4,
)
_chids = st.uuids(version=4).map(str)


@st.composite
def messages(draw: st.DrawFn, chids: list[str]) -> MessageRow:
    chid, number = draw(st.sampled_from(chids)), draw(st.integers(0, 50))
    keys = [f"02:{NOW * 1_000_000 + number}:{chid}", f"01:{chid}:topic{number}"]
    headers = draw(st.none() | st.just('{"encoding": "aes128gcm", "crypto_key": "p256ecdsa=x"}'))
    return MessageRow(
        draw(st.sampled_from(keys)),
        draw(st.text("abc-_=", min_size=1)),
        draw(st.text("abc-_", min_size=1, max_size=20)) if headers else None,
        headers,
        draw(st.integers(0, 2_592_000)),
        NOW - draw(st.integers(0, 100)),
        NOW + draw(st.integers(1, 2_592_000)),
        draw(st.sampled_from([None, 1])),
        draw(st.sampled_from([None, "very-low", "low", "high"])),
    )


@st.composite
def users(draw: st.DrawFn) -> Portable:
    """Anybody, of a browser or of a bridge."""
    key = draw(st.uuids(version=4)).hex
    chids = draw(st.lists(_chids, max_size=3, unique=True))
    record = {"connected_at": draw(st.integers(1, 2**41)), "more": draw(_values)}
    if draw(st.booleans()):
        record |= {"router_type": "fcm", "router_data": {"token": draw(_texts)}}
        return portable(key, record, chids or None, expiry=NEVER if chids else 0, now=NOW)
    record |= {"router_type": "webpush", MONTH: "any", "record_version": 1}
    has_row = bool(chids) or draw(st.booleans())
    rows = draw(st.lists(messages(chids), max_size=4)) if chids else []
    pointer = draw(st.none() | st.integers(0, 50)) if has_row else None
    return portable(
        key, record, chids if has_row else None,
        pointer=None if pointer is None else NOW * 1_000_000 + pointer,
        expiry=FAR if has_row else 0,
        messages={row.sort_key: row for row in rows}.values(), now=NOW,
    )  # fmt: skip


stores = st.lists(users(), max_size=7, unique_by=lambda user: user.key)
