"""What stores with one table of messages have in common (spec/storage 17)."""

from __future__ import annotations

import uuid
from typing import Any

from hypothesis import given, strategies as st
from twisted.internet.defer import Deferred, gatherResults
from twisted.python.failure import Failure

from autopush.db.deadlines import TooLate, Unknown
from autopush.db.interface import Registration
from autopush.db.onetable import Page, name_previous, unless_late
from autopush.db.rows import MessageRow
from autopush.exceptions import StoreBusy
from autopush.tests.db.sqlite.support import SqliteCase
from autopush.tests.db.store_contract import CHID, TS, UAID, message, topic

ROWS = st.lists(
    st.tuples(
        st.sampled_from([f"01:{CHID}:news", f"02:{TS}:{CHID}", f"02:{TS + 1}:{CHID}", "02:x"]),
        st.booleans(),
    )
)
"""Sort keys, and whether they can be read."""


def row(sort_key: str, readable: bool) -> MessageRow:
    headers = '{"encoding": "aes128gcm"}' if readable else "no JSON"
    return MessageRow(sort_key, "version", "data", headers, 60, TS // 10**6, TS // 10**6 + 60)


@given(ROWS)
def test_a_page(rows: list[tuple[str, bool]]) -> None:
    """Each row is a message or is to be deleted; both count for how far was read."""
    page = Page[int](uuid.UUID(UAID), "start")
    for number, (sort_key, readable) in enumerate(rows):
        page.add(number, row(sort_key, readable))
    unreadable = {n for n, (key, readable) in enumerate(rows) if not readable or key == "02:x"}
    assert set(page.unreadable) == unreadable
    assert len(page.messages) == len(rows) - len(unreadable)
    keys = [key for key, _ in rows]
    assert page.above == (keys[-1] if keys else "start")
    stamps = [int(key.split(":")[1]) for key in keys if key.startswith(f"02:{TS // 10}")]
    assert page.last == (stamps[-1] if stamps else None)


class TestWrites(SqliteCase):
    async def test_before_and_after_they_are_written(self) -> None:
        """A write that waits is spared, and one that is done is undone."""
        store = await self.open_store()
        messages = [message(TS + number) for number in range(4)] + [topic("news", "v")]
        stored: list[Any] = [store.store_message("m", one) for one in messages[:3]]
        assert store.writes_waiting() == 3
        assert store.take_back("m", messages[0])
        await gatherResults(stored)
        assert not store.take_back("m", messages[1])
        stored = [store.store_message("m", one) for one in messages[3:]]
        assert await store.delete_message("m", messages[1])
        assert not await store.delete_message("m", messages[1])
        await store.delete_messages("m", messages[3:])
        await gatherResults(stored)
        assert store.writes_waiting() == 0
        left = await store.fetch_since("m", UAID, None)
        assert [one.update_id for one in left.messages] == [messages[2].update_id]
        assert (await store.fetch_topics("m", UAID)).messages == []


def test_the_previous_record_has_its_name() -> None:
    """The key it was found by may be a hash."""
    assert name_previous(Registration(True, {"a": 1}), UAID).previous == {"a": 1, "uaid": UAID}
    assert name_previous(Registration(True, {}), UAID).previous == {}


def test_what_is_late_is_no_sign_of_life() -> None:
    """Else it is one, even if it failed."""
    for late in (TooLate("x"), Unknown("x")):
        waiting = unless_late(Failure(late))
        assert isinstance(waiting, Deferred) and not waiting.called
    failed = Failure(StoreBusy("x"))
    assert unless_late(failed) is failed
