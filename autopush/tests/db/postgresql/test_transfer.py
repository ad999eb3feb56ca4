"""A database as one side of a copy: docs/moving."""

from __future__ import annotations

from autopush.tests.db.postgresql.support import PostgresqlCase
from autopush.tests.db.transfer_support import NOW, held, postgresql_side, user


class TestTransfer(PostgresqlCase):
    def side(self, dsn=""):
        from autopush.db.open import postgresql_parameters
        from autopush.db.postgresql.transfer import PostgresqlTransfer

        dsn = dsn or self.dsn
        side = PostgresqlTransfer(dsn, postgresql_parameters(dsn), "message", NOW)
        self.addCleanup(side.close)
        return side

    def test_looking_makes_no_tables(self):
        side = self.side()
        assert not side.exists()
        assert self.sql("SELECT 1 FROM pg_tables WHERE schemaname = current_schema()") == []
        side.prepare()
        assert side.exists()

    def test_a_batch_is_whole_or_not_there(self):
        side = postgresql_side()
        self.addCleanup(side.close)
        side.replace([user(1)], {})
        before = held(side)
        try:
            side.replace([user(2), user(2)], {})
        except Exception as error:
            assert "duplicate key" in str(error) or "Unique" in repr(error)
        else:
            raise AssertionError("two of one key")
        assert held(side) == before

    def test_odd_texts_come_along(self):
        """``jsonb`` has no NUL and no half of a surrogate pair."""
        odd = user(1)
        odd.record["router_data"] = {"token": "a\0b", "more": "\ud800"}
        side = postgresql_side()
        self.addCleanup(side.close)
        side.replace([odd], {})
        assert held(side) == {odd.key: odd}

    def test_the_password_is_nobodys_business(self):
        side = self.side("postgresql://push:geheim@127.0.0.1:1/push")
        assert "geheim" not in side.described
