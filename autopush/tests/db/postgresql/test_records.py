"""Records as jsonb, and channels (db/postgresql/records.py)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies as st

pytest.importorskip("psycopg")

from autopush.db.interface import MOVING_FROM
from autopush.db.postgresql import records
from autopush.exceptions import ChannelLimit, StoreError
from autopush.tests.db.postgresql.support import PostgresqlCase
from autopush.tests.db.store_contract import CHID, CHID2, UAID

TEXTS = st.text(st.sampled_from("a\"\\u0d8{}'%\0\x7f\ud800\udfff\U0001f600é"), max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(TEXTS | st.just(records.WRAPPED), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["router_data", "a", "b"]), VALUES, max_size=3))
def test_a_record_is_read_as_it_was_written(record):
    assert records.load_record(records.dump_record(record)) == json.loads(json.dumps(record))


@given(st.dictionaries(st.sampled_from(["router_data", "a"]), VALUES, max_size=2))
def test_what_is_written_is_what_jsonb_takes(record):
    text = records.dump_record(record)
    assert "\0" not in text
    # A backslash that is not itself escaped, before what jsonb refuses.
    plain = text.replace("\\\\", "")
    assert "\\u0000" not in plain
    assert "\\ud8" not in plain.lower()
    assert "\\udf" not in plain.lower()


@pytest.mark.parametrize("text", ["{broken", "[1]", "3", "null", ""])
def test_a_text_that_is_no_object_is_told(text):
    with pytest.raises(StoreError):
        records.load_record(text)


class TestRecords(PostgresqlCase):
    async def test_any_router_data_is_kept(self):
        store = await self.open_store()
        for data in ({"token": "nul\0"}, {"half": "\ud800"}, {records.WRAPPED: "x"}, {"a": [1]}):
            user = {"uaid": UAID, "router_type": "fcm", "connected_at": 1, "router_data": data}
            self.assertTrue((await store.register_user(user)).written)
            self.assertEqual(await store.get_user(UAID), user)

    async def test_channels_are_limited(self):
        store = await self.open_store()
        key = store._key(UAID)
        await store.add_channel("m", UAID, CHID)
        self.sql(
            "INSERT INTO channels SELECT %s, n::text FROM generate_series(2, %s) n",
            *(key, records.MAX_CHANNELS),
        )
        await store.add_channel("m", UAID, CHID)  # is there already
        await self.assertFailure(store.add_channel("m", UAID, CHID2), ChannelLimit)
        await store.remove_channel("m", UAID, CHID)
        await store.add_channel("m", UAID, CHID2)

    async def test_a_hello_within_a_day_does_not_write(self):
        store = await self.open_store()
        await store.add_channel("m", UAID, CHID)
        ((first,),) = self.sql("SELECT xmin::text FROM channel_rows")
        self.time += 86_000
        await store.touch_channels("m", UAID)
        self.assertEqual(self.sql("SELECT xmin::text FROM channel_rows"), [(first,)])
        self.time += 1_000
        await store.touch_channels("m", UAID)
        self.assertNotEqual(self.sql("SELECT xmin::text FROM channel_rows"), [(first,)])

    async def test_a_plain_return_is_one_write_and_keeps_the_rest(self):
        from autopush.db.lastconnect import generate_last_connect

        store = await self.open_store()
        record = {
            "uaid": UAID,
            "router_type": "webpush",
            "connected_at": 1000,
            "current_month": store.months.current,
            "last_connect": generate_last_connect(self.time),
            "record_version": 1,
            MOVING_FROM: "message_2026_10",
        }
        await store.register_user(record)
        written, previous = await store.return_user(UAID, "http://n", 2000)
        self.assertTrue(written)
        self.assertEqual(previous, record)
        wanted = {**record, "node_id": "http://n", "connected_at": 2000}
        self.assertEqual(await store.get_user(UAID), wanted)
