"""Stores on a file of their own."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from autopush.db import SqliteStore, groupwriter
from autopush.db.sqlite import health, schema
from autopush.tests.db.store_contract import START

PATIENCE = 240.0
"""Seconds a test waits for a disk and for threads, on a machine that is busy."""


def be_patient(case: TestCase) -> None:
    """Let no store of this test give up because the machine is busy."""
    case.patch(groupwriter, "DEADLINE", PATIENCE)
    case.patch(health, "WRITE_WITHIN", PATIENCE)
    case.patch(schema, "LOCK_WAIT", PATIENCE)
    case.patch(schema, "WRITE_WAIT", PATIENCE)


class SqliteCase(TestCase):
    """A store in a fresh directory, whose clock is ``self.time``."""

    def setUp(self) -> None:
        be_patient(self)
        self.time = START
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = os.path.join(self.directory, "autopush.sqlite")

    def new_store(self, **kwargs: Any) -> SqliteStore:
        store = SqliteStore(self.path, reactor, now=lambda: self.time, **kwargs)
        self.addCleanup(store.close)
        return store

    async def open_store(self, **kwargs: Any) -> SqliteStore:
        store = self.new_store(**kwargs)
        await store.setup()
        return store

    def sql(self, statement: str, *values: Any) -> list[Any]:
        connection = sqlite3.connect(self.path, isolation_level=None)
        try:
            return connection.execute(statement, values).fetchall()
        finally:
            connection.close()
