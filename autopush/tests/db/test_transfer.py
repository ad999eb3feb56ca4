"""Users in the form that all stores share: docs/moving."""

from __future__ import annotations

import attrs
import pytest

from autopush.db.transfer import (
    Nowhere,
    checksum,
    differences,
    plain,
    plain_record,
    same,
    waiting,
)
from autopush.tests.db.transfer_support import NOW, message, user

CHID = "00000000-0000-4000-8000-000000000001"


def test_what_belongs_to_one_place_stays_there():
    record = {"uaid": "x", "node_id": "http://n", "moving_from": "m", "current_month": "m_2026_11"}
    assert plain_record({**record, "router_type": "webpush"}) == {
        "router_type": "webpush", "current_month": "",
    }  # fmt: skip
    assert "current_month" not in plain_record({"current_month": None})


def test_users_get_the_month_of_the_place():
    assert user(1).record_in("message_2026_11")["current_month"] == "message_2026_11"
    bridge = attrs.evolve(user(1), record={"router_type": "fcm"})
    assert bridge.record_in("message_2026_11") == {"router_type": "fcm"}


def test_values_are_what_every_store_gives_back():
    assert plain({"a": {"b": 2.0, "c": 2.5}, "s": {"y", "x"}, "l": (1, {"z"})}) == {
        "a": {"b": 2, "c": 2.5}, "s": ["x", "y"], "l": [1, ["z"]],
    }  # fmt: skip


def test_only_messages_that_wait_are_taken():
    """Neither those that were read, where a store keeps them for longer, nor expired ones."""
    topic = message(0, CHID, sort_key=f"01:{CHID}:topic")
    rows = [topic, *(message(number, CHID) for number in range(3))]
    rows.append(message(9, CHID, expiry=NOW))
    assert list(waiting(rows, None, NOW)) == rows[:-1]
    assert list(waiting(rows, NOW * 1_000_000 + 1, NOW)) == [topic, rows[3]]


def test_longer_lives_are_no_difference():
    one = user(1)
    assert same(one, attrs.evolve(one, expiry=one.expiry + 1))
    assert not same(one, attrs.evolve(one, expiry=one.expiry - 1))
    assert not same(one, None)
    assert checksum(one) == checksum(attrs.evolve(one, expiry=1))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"record": {**user(1).record, "connected_at": 1}}, "attribute connected_at differs"),
        ({"channels": frozenset()}, f"channel {CHID} is missing"),
        ({"channels": frozenset({CHID, "x"})}, "channel x is too much"),
        ({"pointer": 5}, "the read pointer differs"),
        ({"messages": ()}, f"message {message(1, CHID).sort_key} is missing"),
        ({"messages": (*user(1).messages, message(2, CHID))},
         f"message {message(2, CHID).sort_key} is too much"),
        ({"messages": (message(1, CHID, data="eA"),)},
         f"message {message(1, CHID).sort_key} differs"),
    ],
)  # fmt: skip
def test_differences_have_names(change, line):
    other = attrs.evolve(user(1), **change)
    assert differences(user(1), other) == [line]
    assert checksum(user(1)) != checksum(other)
    assert not same(user(1), other)


def test_no_difference_has_no_name():
    assert differences(user(1), user(1)) == []
    without = user(1, channels=None, messages=[], expiry=0)
    assert "the row of its channels differs" in differences(user(1, channels=[]), without)


def test_nowhere_is_empty():
    side = Nowhere("a store")
    assert side.page("", 10).users == [] and side.load(["x"]) == {} and not side.exists()
    with pytest.raises(AssertionError):
        side.replace([user(1)], {})
