"""The first fetch of a connection tells whether anything else waits; later ones go page by page."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given, settings, strategies as st

from autopush.db.dynamodb import reading
from autopush.db.dynamodb.items import CHANNEL_ROW, Item, row_key, write_message
from autopush.db.dynamodb.messages import Messages
from autopush.tests.db.store_contract import CHID, START, TS, UAID, legacy, message, topic

MONTH = "message_2026_11"
LEGACY = ("00" + CHID[2:], "01a" + CHID[3:], "02a" + CHID[3:], "f0" + CHID[2:])


class Table:
    """A message table with rows of one user, as far as queries go."""

    def __init__(self, items: list[Item]) -> None:
        self.items = {item["chidmessageid"]["S"]: item for item in items}
        self.limits: list[int] = []
        self.updates = 0
        self.messages = Messages(self.call, str, lambda: START)

    def call(self, operation: str, /, **given: Any) -> Any:
        if operation == "update_item":
            self.updates += 1
            return {}
        assert operation == "query"
        condition = given["KeyConditionExpression"].partition(" AND ")[2]
        values = {name: v["S"] for name, v in given["ExpressionAttributeValues"].items()}
        inside = {
            "": lambda key: True,
            "chidmessageid < :end": lambda key: key < values[":end"],
            "chidmessageid > :above": lambda key: key > values[":above"],
            "chidmessageid BETWEEN :after AND :end": (
                lambda key: values[":after"] <= key <= values[":end"]
            ),
        }[condition]
        start = given.get("ExclusiveStartKey", row_key(UAID, ""))["chidmessageid"]["S"]
        found = [key for key in sorted(self.items) if inside(key) and key > start]
        page = found[: given["Limit"]]
        self.limits.append(given["Limit"])
        more = {"LastEvaluatedKey": row_key(UAID, page[-1])} if len(page) == given["Limit"] else {}
        return {"Items": [self.items[key] for key in page], **more}


def channel_row(pointer: int | None, expiry: int = 2**40) -> Item:
    row: Item = {
        **row_key(UAID, CHANNEL_ROW),
        "chids": {"SS": [CHID]},
        "expiry": {"N": str(expiry)},
    }
    return row if pointer is None else {**row, "current_timestamp": {"N": str(pointer)}}


def rows(*notifications: Any) -> list[Item]:
    return [write_message(UAID, notification, int(START)) for notification in notifications]


@st.composite
def tables(draw: st.DrawFn) -> list[Item]:
    """Any rows: of all kinds, live and expired, before and behind the pointer."""
    over = {"timestamp": 1, "ttl": 1}
    stamps = draw(st.sets(st.integers(TS, TS + 12), max_size=8))
    names = draw(st.sets(st.sampled_from("abcdefghijkl"), max_size=8))
    chids = draw(st.sets(st.sampled_from(LEGACY)))
    found = [message(ts, **(over if draw(st.booleans()) else {})) for ts in stamps]
    found += [topic(name, name) for name in names]
    found += [legacy(chid, chid) for chid in chids]
    items = rows(*found)
    if draw(st.booleans()):
        pointer = draw(st.none() | st.integers(TS, TS + 12))
        items.append(channel_row(pointer))
    return items


@settings(deadline=None)
@given(tables(), st.integers(1, 12))
def test_the_first_fetch_finds_what_others_do_and_never_says_too_early_that_it_is_all(items, limit):
    table = Table(items)
    first = reading.topics(table.messages, MONTH, UAID, limit, touch=True)
    later = reading.topics(table.messages, MONTH, UAID, limit)
    assert first._replace(is_all=False) == later
    behind = reading.since(table.messages, MONTH, UAID, first.timestamp)
    if first.is_all:
        assert (behind.timestamp, behind.messages) == (None, [])
    elif len(items) < reading.GLANCE:
        assert behind.timestamp is not None or behind.messages


def test_who_has_only_a_channel_row_is_read_in_one_request():
    for pointer in (None, TS):
        table = Table([channel_row(pointer)])
        batch = reading.topics(table.messages, MONTH, UAID, touch=True)
        assert batch.is_all
        assert (batch.timestamp, batch.channels) == (pointer, (True, {CHID}))
        assert table.limits == [reading.GLANCE]
        assert table.updates == 0


def test_who_has_nothing_is_read_in_one_request():
    table = Table([])
    batch = reading.topics(table.messages, MONTH, UAID, touch=True)
    assert (batch.is_all, batch.messages, batch.channels) == (True, [], (False, set()))
    assert len(table.limits) == 1


def test_few_messages_that_were_read_are_looked_over():
    table = Table([channel_row(TS + 1), *rows(message(TS), message(TS + 1))])
    assert reading.topics(table.messages, MONTH, UAID, touch=True).is_all
    assert len(table.limits) == 1


def test_of_many_that_were_read_only_the_first_are_read_again():
    stamps = [TS + number for number in range(50)]
    table = Table([channel_row(stamps[-1]), *rows(*map(message, stamps))])
    batch = reading.topics(table.messages, MONTH, UAID, touch=True)
    assert (batch.is_all, batch.timestamp) == (False, stamps[-1])
    assert table.limits == [reading.GLANCE]


def test_topics_behind_the_first_look_come_with_the_next_request():
    topics = [topic(f"t{number}", f"v{number}") for number in range(6)]
    table = Table([channel_row(None), *rows(*topics, message())])
    batch = reading.topics(table.messages, MONTH, UAID, touch=True)
    assert [one.version for one in batch.messages] == [one.version for one in topics]
    assert not batch.is_all
    assert len(table.limits) == 2


def test_a_full_page_is_not_gone_behind():
    topics = [topic(f"t{number}", f"v{number}") for number in range(3)]
    table = Table([channel_row(None), *rows(*topics)])
    batch = reading.topics(table.messages, MONTH, UAID, limit=3, touch=True)
    assert len(batch.messages) == 2
    assert len(table.limits) == 1


def test_the_expiry_is_refreshed_once_where_it_lags_behind():
    for touch, topics in itertools.product((False, True), ([], rows(topic("t", "1")))):
        table = Table([channel_row(None, expiry=int(START)), *topics])
        reading.topics(table.messages, MONTH, UAID, touch=touch)
        assert table.updates == touch


def test_behind_a_key_there_is_no_first_look():
    topics = [topic(f"t{number}", f"v{number}") for number in range(3)]
    table = Table([channel_row(TS), *rows(*topics)])
    after = topics[0].sort_key
    batch = reading.topics(table.messages, MONTH, UAID, touch=True, after=after)
    assert [one.version for one in batch.messages] == ["v1", "v2"]
    assert (batch.is_all, batch.timestamp) == (False, None)
