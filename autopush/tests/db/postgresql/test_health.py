"""Whether it works (db/postgresql/health.py). What is said of outages is in test_faults.py."""

from __future__ import annotations

from autopush.db import groupwriter
from autopush.tests.db.postgresql.support import PostgresqlCase
from autopush.tests.db.store_contract import message


class TestHealth(PostgresqlCase):
    async def test_tables_that_are_gone_are_named_by_part(self):
        store = await self.open_store(router_table="people")
        self.assertEqual(await store.health(), {"people": None, "storage": None})
        self.sql("DROP TABLE users")
        self.assertEqual(await store.health(), {"people": "Nonexistent table", "storage": None})
        self.sql("DROP TABLE channels")
        self.assertEqual((await store.health())["storage"], "Nonexistent table")

    async def test_after_a_write_that_failed_a_row_is_tried(self):
        store = await self.open_store()
        self.sql("ALTER TABLE messages ADD CHECK (length(data) < 1000) NOT VALID")
        store._writer._failing = "the database's disk is full"
        self.assertIsNotNone((await store.health())["storage"])
        self.sql("ALTER TABLE messages DROP CONSTRAINT messages_data_check")
        store._writer._failing = "the database's disk is full"
        self.assertIsNone((await store.health())["storage"])
        self.assertEqual(self.sql("SELECT * FROM messages"), [])

    async def test_a_database_that_takes_long(self):
        import psycopg

        from autopush.db.postgresql import health

        store = await self.open_store()
        self.patch(health, "WITHIN", 0.1)
        with psycopg.connect(self.dsn, autocommit=True) as other:
            other.execute("BEGIN")
            other.execute("LOCK TABLE messages")
            report = await store.health()
            self.assertEqual(set(report.values()), {"the database takes longer than 0.1 seconds"})
            other.execute("ROLLBACK")
        self.patch(groupwriter, "DEADLINE", 240)
        await store.store_message("m", message())
