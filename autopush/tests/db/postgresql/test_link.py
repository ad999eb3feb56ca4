"""Connections and their settings (db/postgresql/link.py)."""

from __future__ import annotations

import threading
from typing import Any

from autopush.exceptions import StoreBusy, StoreClosed, StoreError
from autopush.tests.db.postgresql.support import PostgresqlCase


class TestLink(PostgresqlCase):
    def make(self, **parameters: Any) -> Any:
        from autopush.db.postgresql.link import Link, parameters as of

        self.stop = threading.Event()
        link = Link(of(self.server.dsn(**parameters)), self.stop)
        self.addCleanup(link.drop)
        return link

    def setting(self, link: Any, name: str) -> str:
        row = link.get().execute("SELECT current_setting(%s)", (name,)).fetchone()
        assert row is not None
        return str(row[0])

    def test_what_was_acknowledged_is_on_the_disk_whatever_the_server_says(self):
        for given, wanted in (("off", "on"), ("on", "on"), ("remote_apply", "remote_apply")):
            link = self.make(options=f"-csynchronous_commit={given}")
            self.assertEqual(self.setting(link, "synchronous_commit"), wanted)

    def test_nobody_waits_for_ever(self):
        link = self.make()
        for name in ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"):
            self.assertNotEqual(self.setting(link, name), "0", name)

    def test_the_dsn_may_say_otherwise(self):
        from autopush.db.postgresql.link import parameters

        self.assertEqual(self.setting(self.make(), "application_name"), "autopush")
        link = self.make(application_name="push7")
        self.assertEqual(self.setting(link, "application_name"), "push7")
        found = parameters("postgresql://h/d?target_session_attrs=any&connect_timeout=9")
        self.assertIn("target_session_attrs=any", found)
        self.assertIn("connect_timeout=9", found)
        self.assertNotIn("read-write", found)

    def test_a_transaction_that_failed_is_rolled_back(self):
        link = self.make()

        def fail(connection: Any) -> None:
            connection.execute("BEGIN")
            raise ValueError

        with self.assertRaisesRegex(StoreError, "ValueError"):
            link.run(fail)
        self.assertEqual(link.run(lambda c: c.info.transaction_status.name), "IDLE")

    def test_an_aborted_statement_is_asked_again_on_another_connection(self):
        link = self.make()
        pids: list[int] = []

        def ask(connection: Any) -> str:
            pids.append(connection.info.backend_pid)
            if len(pids) == 1:
                threading.Timer(0.1, link.abort).start()
                connection.execute("SELECT pg_sleep(60)")
            return "answered"

        self.assertEqual(link.run(ask), "answered")
        self.assertEqual(len(set(pids)), 2)

    def test_a_stop_ends_attempts(self):
        link = self.make(port=1)
        self.stop.set()
        with self.assertRaises(StoreClosed):
            link.run(lambda c: None)

    def test_without_patience_there_is_one_attempt(self):
        link = self.make(port=1)
        with self.assertRaisesRegex(StoreBusy, "can't be reached"):
            link.run(lambda c: None, patience=0)
