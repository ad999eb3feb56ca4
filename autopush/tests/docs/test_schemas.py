"""The tables of storage, attribute by attribute, are as docs/dynamodb.rst has them."""

from __future__ import annotations

import re
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

from autopush.db.dynamodb.items import write_message
from autopush.db.sqlite import schema
from autopush.message.notification import WebPushNotification
from autopush.message.urgency import HIGH
from autopush.session.records import new_record
from autopush.tests import TREE
from autopush.tests.docs.support import table

WRITERS = [
    path.read_text("utf-8")
    for name in ("db", "session", "web", "router")
    for path in sorted((TREE / "autopush" / name).rglob("*.py"))
]


def attributes(css_class: str) -> dict[str, str]:
    """Names and types of a table's attributes."""
    return {row[0]: row[1] for row in table(css_class)}


def kinds(item: dict[str, Any]) -> dict[str, str]:
    """Names and types of a row's attributes."""
    return {name: next(iter(value)) for name, value in item.items()}


def test_attributes_of_messages() -> None:
    notification = WebPushNotification(
        uaid=uuid.uuid4(),
        channel_id=uuid.uuid4(),
        ttl=60,
        data="YWJj",
        headers={"encoding": "aes128gcm"},
        timestamp=1,
        sortkey_timestamp=1,
        update_id="id",
    )
    notification.live = True
    notification.urgency = HIGH
    assert kinds(write_message("user", notification, 1)) == attributes("message-attributes")


def test_attributes_of_records() -> None:
    known = attributes("router-attributes")
    assert new_record("user", "node", 1, "month", 1.0).keys() <= known.keys()
    written = "\n".join(WRITERS)
    missing = [name for name in known if not re.search(rf'["\s]{name}["\s]', written)]
    assert not missing


def test_attributes_of_channel_rows() -> None:
    known = attributes("channel-attributes")
    written = (TREE / "autopush/db/dynamodb/messages.py").read_text("utf-8")
    set_there = set(re.findall(r"\b(?:SET|ADD|DELETE|,) ?(\w+) (?:= )?:\w+", written))
    assert set_there <= known.keys()
    assert [name for name in known if name not in written] == []


def test_columns_of_sqlite(tmp_path: Path) -> None:
    path = str(tmp_path / "store")
    schema.prepare(path)
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT name FROM sqlite_master WHERE type = 'table'"
        columns = {
            name: [row[1] for row in connection.execute(f"PRAGMA table_info({name})")]
            for (name,) in connection.execute(query)
        }
    shown = {
        name: re.findall(r"\w+", re.sub(r"\([^)]*\)|: .*", "", text))
        for name, text in table("sqlite-columns")
    }
    assert shown == columns
