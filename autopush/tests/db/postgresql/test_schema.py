"""Making, checking and migrating the tables (db/postgresql/schema.py)."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import gatherResults

from autopush.db.interface import StoreUnusable
from autopush.tests.db.postgresql.support import PostgresqlCase
from autopush.tests.db.store_contract import UAID, message, versions


class TestSchema(PostgresqlCase):
    def prepare(self, dsn: str = "", **kwargs: Any) -> None:
        from autopush.db.postgresql import schema
        from autopush.db.postgresql.link import parameters

        schema.prepare(parameters(dsn or self.dsn), "here", **kwargs)

    async def test_a_second_start_changes_nothing(self):
        store = await self.open_store()
        await store.store_message("m", message())
        await store.close()
        store = await self.open_store()
        self.assertEqual(versions(await store.fetch_since("m", UAID, None)), [message().version])
        self.assertEqual(self.sql("SELECT version FROM autopush_schema"), [(1,)])

    async def test_processes_that_start_together(self):
        stores = [self.new_store() for _ in range(4)]
        await gatherResults([store.setup() for store in stores])

    def test_a_newer_schema_is_refused(self):
        self.prepare()
        self.sql("INSERT INTO autopush_schema VALUES (99)")
        with self.assertRaisesRegex(StoreUnusable, "written by a newer autopush"):
            self.prepare()

    def test_tables_of_others_are_left_alone(self):
        self.sql("CREATE TABLE users (name text)")
        with self.assertRaisesRegex(StoreUnusable, r"tables of another program \(users\)"):
            self.prepare()
        self.assertEqual(self.sql("SELECT * FROM users"), [])

    def test_what_is_missing_is_named(self):
        self.prepare()
        self.sql("DROP TABLE channels")
        with self.assertRaisesRegex(StoreUnusable, "has no channels: restore a backup"):
            self.prepare()

    def test_a_step_is_done_once_and_whole(self):
        from autopush.db.postgresql.schema import SCHEMA_DIRECTORY

        steps = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, steps)
        for path in SCHEMA_DIRECTORY.glob("*.sql"):
            shutil.copy(path, steps)
        self.prepare()
        number = len(list(steps.glob("*.sql"))) + 1
        step = steps / f"{number:03}.sql"
        insert = f"INSERT INTO autopush_schema (version) VALUES ({number});"
        step.write_text(f"ALTER TABLE users ADD more text; SELECT broken; {insert}")
        with self.assertRaises(StoreUnusable):
            self.prepare(schema=steps)
        self.assertEqual(self.sql("SELECT max(version) FROM autopush_schema"), [(number - 1,)])
        step.write_text(f"ALTER TABLE users ADD more text; {insert}")
        for _ in range(2):
            self.prepare(schema=steps)
        self.assertEqual(self.sql("SELECT more FROM users"), [])

    def test_each_file_says_its_version(self):
        """So that an administrator can run them by psql."""
        from autopush.db.postgresql.schema import schema_steps

        for number, text in enumerate(schema_steps(), start=1):
            said = re.findall(
                r"^INSERT INTO autopush_schema \(version\) VALUES \((\d+)\);", text, re.M
            )
            self.assertEqual(said, [str(number)])

    async def test_a_role_that_may_only_read_and_write(self):
        self.prepare()
        schema = self.dsn.partition("%3D")[2]
        role = f"role_{schema}"
        self.sql(f"CREATE ROLE {role} LOGIN")
        self.sql(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
        dsn = self.dsn.replace("user=postgres", f"user={role}")
        with self.assertRaisesRegex(StoreUnusable, "permission denied"):
            self.prepare(dsn)
        self.sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}")
        store = await self.open_store(dsn)
        self.assertEqual(await store.health(), {"router": None, "storage": None})

    def test_a_role_that_may_not_make_tables_is_told(self):
        schema = self.dsn.partition("%3D")[2]
        role = f"role_{schema}"
        self.sql(f"CREATE ROLE {role} LOGIN")
        self.sql(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
        with self.assertRaisesRegex(StoreUnusable, "let its role create tables"):
            self.prepare(self.dsn.replace("user=postgres", f"user={role}"))

    def test_a_server_that_is_not_there(self):
        from autopush.db.postgresql import schema

        self.patch(schema, "START_PATIENCE", 0)
        with self.assertRaisesRegex(StoreUnusable, "can't be reached"):
            self.prepare(self.server.dsn(port=1))
