"""A store on fresh tables whose rows are looked at and written as they are."""

from __future__ import annotations

from typing import Any

from autopush.tests.db.dynamodb.support import put_item
from autopush.tests.db.dynamodb.test_contract import DynamoCase
from autopush.tests.db.store_contract import (
    START,
    UAID,
)

NOW = int(START)


def s(text: str) -> dict[str, Any]:
    return {"S": text}


def n(number: int | str) -> dict[str, Any]:
    return {"N": str(number)}


class RowsCase(DynamoCase):
    async def setUp(self) -> None:
        self.time = START
        self.store = await self.open_store()
        self.month = self.store.months.current
        self.router = self.store.users.table

    def row(self, sort_key: str, **attributes: Any) -> None:
        put_item(self.month, {"uaid": s(UAID), "chidmessageid": s(sort_key), **attributes})
