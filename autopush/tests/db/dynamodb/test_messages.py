"""Messages find the place where readers look for them (spec/storage 10, 17.6)."""

from __future__ import annotations

from typing import Any

from autopush.db.dynamodb.messages import RESTAMPS
from autopush.tests.db.dynamodb.rows_support import RowsCase, s
from autopush.tests.db.dynamodb.support import rows, sort_keys
from autopush.tests.db.store_contract import (
    CHID,
    CHID2,
    TS,
    UAID,
    message,
)


class TestOvertaken(RowsCase):
    async def test_overtaken_message_takes_the_next_free_timestamp(self):
        # 17.6
        await self.store.store_message(self.month, message(TS + 10, version="first"))
        await self.store.store_message(self.month, message(TS, version="second"))
        self.assertEqual(
            sort_keys(self.month, UAID), [f"02:{TS + 10}:{CHID}", f"02:{TS + 11}:{CHID}"]
        )

    async def test_overtaken_message_that_is_stored_again_keeps_one_row(self):
        await self.store.store_message(self.month, message(TS + 10, version="first"))
        for _ in range(2):
            await self.store.store_message(self.month, message(TS, version="second"))
        self.assertEqual(
            sort_keys(self.month, UAID), [f"02:{TS + 10}:{CHID}", f"02:{TS + 11}:{CHID}"]
        )

    async def test_messages_that_move_at_the_same_time_don_t_replace_each_other(self):
        """The place after the last message may be taken between the look and the write."""
        await self.store.store_message(self.month, message(TS + 10, version="first"))
        store = self.store
        call = store.messages.call

        def rival(operation: str, /, **request: Any) -> dict[str, Any]:
            item = request.get("Item", {})
            if operation == "put_item" and item.get("chidmessageid") == s(f"02:{TS + 11}:{CHID}"):
                store.messages.call = call
                self.row(f"02:{TS + 11}:{CHID}", updateid=s("rival"), headers={"NULL": True})
            return call(operation, **request)

        store.messages.call = rival
        await store.store_message(self.month, message(TS, version="second"))
        found = {row["chidmessageid"]["S"]: row["updateid"]["S"] for row in rows(self.month, UAID)}
        self.assertEqual(
            found,
            {
                f"02:{TS + 10}:{CHID}": "first",
                f"02:{TS + 11}:{CHID}": "rival",
                f"02:{TS + 12}:{CHID}": "second",
            },
        )

    async def test_message_that_is_overtaken_again_and_again_stays_in_the_end(self):
        """Where others are quicker each time, it is read by whoever begins a pass after it."""
        store = self.store
        call = store.messages.call
        own: list[int] = []

        def overtake(operation: str, /, **request: Any) -> dict[str, Any]:
            answer = call(operation, **request)
            if operation == "put_item":
                stamp = int(request["Item"]["chidmessageid"]["S"].split(":")[1])
                own.append(stamp)
                self.row(f"02:{stamp + 1}:{CHID2}", updateid=s("other"), headers={"NULL": True})
            return answer

        store.messages.call = overtake
        await store.store_message(self.month, message(TS, version="own"))
        self.assertEqual(own, [TS + 2 * move for move in range(RESTAMPS + 1)])
        kept = [row for row in rows(self.month, UAID) if row["updateid"] == s("own")]
        self.assertEqual([row["chidmessageid"] for row in kept], [s(f"02:{own[-1]}:{CHID}")])

    async def test_message_whose_place_another_one_has_taken_gets_the_next(self):
        """One that moved may have come to the place of one that was just on its way."""
        self.row(f"02:{TS}:{CHID}", updateid=s("moved"), headers={"NULL": True})
        await self.store.store_message(self.month, message(TS, version="own"))
        found = {row["chidmessageid"]["S"]: row["updateid"]["S"] for row in rows(self.month, UAID)}
        self.assertEqual(found, {f"02:{TS}:{CHID}": "moved", f"02:{TS + 1}:{CHID}": "own"})
