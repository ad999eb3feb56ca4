"""Stores in tables of their own."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import SkipTest, TestCase

from autopush.db import groupwriter
from autopush.tests.db.postgresql.server import Server, missing, shared_server
from autopush.tests.db.store_contract import START


class PostgresqlCase(TestCase):
    """A store in a fresh schema, whose clock is ``self.time``."""

    def setUp(self) -> None:
        if reason := missing():
            raise SkipTest(reason)
        # Nobody gives up because the machine is busy.
        from autopush.db.postgresql import health, link

        self.patch(link, "PATIENCE", 120)
        self.patch(link, "PARAMETERS", {**link.PARAMETERS, "connect_timeout": "120"})
        self.patch(link, "SETTINGS", {**link.SETTINGS, "statement_timeout": "120000"})
        self.patch(groupwriter, "DEADLINE", 240)
        self.patch(health, "WITHIN", 240)
        self.time = START
        self.server = self.get_server()
        self.dsn = self.server.new_schema()

    def get_server(self) -> Server:
        """Where the tables are."""
        return shared_server()

    def new_store(self, dsn: str = "", **kwargs: Any) -> Any:
        from autopush.db.postgresql.store import PostgresqlStore

        store = PostgresqlStore(dsn or self.dsn, reactor, now=lambda: self.time, **kwargs)
        self.addCleanup(store.close)
        return store

    async def open_store(self, dsn: str = "", **kwargs: Any) -> Any:
        store = self.new_store(dsn, **kwargs)
        await store.setup()
        return store

    def sql(self, statement: str, *values: Any) -> list[Any]:
        return self.server.sql(statement, *values, dsn=self.dsn)
