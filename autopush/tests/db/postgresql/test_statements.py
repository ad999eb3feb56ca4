"""Many operations in one statement (db/postgresql/statements.py)."""

from __future__ import annotations

from typing import Any

from autopush.tests.db.postgresql.support import PostgresqlCase


class TestKind(PostgresqlCase):
    def run_kind(self, *operations: dict[str, Any]) -> list[Any]:
        import psycopg

        from autopush.db.postgresql.statements import Kind, over

        first = over("low int, high int") + "SELECT n FROM v"
        last = over("low int, high int") + (
            "SELECT v.n, x + %(now)s, v.low FROM v, generate_series(v.low, v.high) x"
            " ORDER BY x DESC"
        )
        kind = Kind((first, last), lambda rows: rows)
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            return kind.run(connection, operations, 100)

    def test_each_operation_gets_its_rows(self):
        found = self.run_kind({"low": 1, "high": 2}, {"low": 5, "high": 4}, {"low": 7, "high": 7})
        self.assertEqual(found, [[(102, 1), (101, 1)], [], [(107, 7)]])

    def test_none_at_all(self):
        self.assertEqual(self.run_kind(), [])

    def test_results(self):
        from autopush.db.postgresql.statements import any_row, nothing

        self.assertIs(any_row([]), False)
        self.assertIs(any_row([()]), True)
        self.assertIsNone(nothing([()]))
