"""The shared suite on PostgreSQL, and what only that store promises (spec/storage 17)."""

from __future__ import annotations

from typing import Any

from autopush.db.rows import dump_json
from autopush.tests.db.postgresql.support import PostgresqlCase
from autopush.tests.db.store_contract import UAID, StoreContract


class TestPostgresqlStore(StoreContract, PostgresqlCase):
    key_hash = ""

    async def setUp(self) -> None:
        PostgresqlCase.setUp(self)
        await StoreContract.setUp(self)

    async def make_store(self) -> Any:
        return await self.open_store(key_hash=self.key_hash)

    def put_raw(self, sort_key: str, **columns: Any) -> None:
        row = {"update_id": "u", "data": None, "headers": None, "ttl": 60, "timestamp": 1}
        row = {**row, "expiry": int(self.time) + 1000, **columns}
        if row["timestamp"] == "soon":
            # The column takes numbers only. Another thing that can't be read:
            row.update(timestamp=1, headers="[]")
        key = self.store._key(UAID)
        self.sql(
            "INSERT INTO messages (uaid, sortkey, updateid, data, headers, ttl, timestamp, expiry)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
            *(key, sort_key, row["update_id"], row["data"], row["headers"], row["ttl"]),
            *(row["timestamp"], row["expiry"]),
        )

    def put_record(self, uaid: str, record: dict[str, Any]) -> None:
        values = (self.store._key(uaid), dump_json(record))
        self.sql("INSERT INTO users (uaid, record) VALUES (%s, %s::jsonb)", *values)

    def count_rows(self) -> int:
        key = self.store._key(UAID)
        return int(self.sql("SELECT count(*) FROM messages WHERE uaid = %s", key)[0][0])


class TestPostgresqlStoreHashed(TestPostgresqlStore):
    """With ``key_hash`` (5; S1)."""

    key_hash = "SuperSikkret"
