"""Stores on a file of their own."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from autopush.db import SqliteStore
from autopush.tests.db.store_contract import START


class SqliteCase(TestCase):
    """A store in a fresh directory, whose clock is ``self.time``."""

    def setUp(self) -> None:
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
