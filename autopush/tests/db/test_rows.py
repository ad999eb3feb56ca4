"""Message rows and JSON texts (spec/storage 3, 4)."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given, strategies as st
from twisted.trial.unittest import SynchronousTestCase

from autopush.constants import MAX_EXPIRY
from autopush.db.rows import (
    AFTER_TIMESTAMPED,
    TIMESTAMPED,
    TOPICS_AND_LOW_LEGACY_END,
    TOPICS_END,
    channel_ids,
    dump_json,
    key_timestamp,
    load_json,
    other_spellings,
    read_message,
    spellings,
    write_message,
)
from autopush.tests.db.store_contract import CHID, CHID2, TS, UAID, message, topic

NOW = TS // 10**6
HEADERS = {"encoding": "aes128gcm"}


class TestJson(SynchronousTestCase):
    """Attribute values SQLite's text can't hold as they are (17.2: an open map)."""

    def test_values_survive(self):
        for value in ({"a": [1, None, True, 1.5, "é\0"]}, 2**70, {"bad": "\ud800"}, {"big": 2**64}):
            self.assertEqual(load_json(dump_json(value)), value)


@pytest.mark.parametrize(
    ("key", "timestamp"),
    [
        (f"02:17:{CHID}", 17),
        ("02:17", None),
        ("02::x", None),
        ("02:-17:x", None),
        ("02:\u0661:x", None),
        (f"01:{CHID}:topic", None),
        (f"{CHID}", None),
    ],
)
def test_timestamp_of_a_sort_key(key, timestamp):
    assert key_timestamp(key) == timestamp


def test_the_key_of_a_message_tells_its_timestamp():
    assert key_timestamp(message(TS).sort_key) == TS
    assert key_timestamp(topic("t", "v").sort_key) is None


def test_timestamped_keys_lie_between_the_limits():
    for stamp in (0, 17, TS):
        assert TOPICS_END < TIMESTAMPED < f"02:{stamp}:{CHID}" < AFTER_TIMESTAMPED
    assert TOPICS_AND_LOW_LEGACY_END < TOPICS_END
    assert topic("t", "v").sort_key < TOPICS_AND_LOW_LEGACY_END


@given(
    st.builds(
        lambda live, ttl, data: message(
            TS,
            timestamp=NOW,
            data=data,
            headers=HEADERS if data else None,
            ttl=ttl,
            live=live,
            source="Stored",
        ),
        st.booleans(),
        st.integers(0, 10**7),
        st.sampled_from(["QUJD", "QQ", None]),
    )
)
def test_a_message_comes_back_from_its_row(notification):
    row = write_message(notification, NOW)
    assert read_message(notification.uaid, row) == notification
    assert row.expiry == NOW + min(notification.ttl, MAX_EXPIRY)


@pytest.mark.parametrize(
    "changes",
    [
        {"headers": "[]"},
        {"headers": "no JSON"},
        {"headers": None},
        {"update_id": None},
        {"update_id": ""},
        {"sort_key": "02:x:y"},
    ],
)
def test_rows_that_are_no_messages(changes):
    row = write_message(message(TS, data="QUJD", headers=HEADERS), 0)._replace(**changes)
    with pytest.raises(ValueError):
        read_message(uuid.UUID(UAID), row)


def test_usual_spellings_of_a_channel_begin_with_ours():
    upper = CHID.upper()
    assert spellings(CHID) == (CHID, CHID.replace("-", ""), upper, upper.replace("-", ""))


def test_unusual_spellings_are_found_among_others():
    braces, other = f"{{{CHID}}}", CHID2
    assert other_spellings(CHID, {CHID, CHID.upper(), braces, other, "none"}) == {braces}
    assert channel_ids([braces, CHID.upper(), "none"]) == {CHID, "none"}
