"""Statements that carry out many operations of a kind at once.

A round trip costs more than what is asked for, on both sides. So each statement takes a list: a
JSON array of objects, each an operation with its number ``n``, which are the rows of ``v``; and
what it returns begins with ``n``. A JSON text is one parameter, made and read faster than a list
for each column.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from autopush.db.postgresql.link import Connection
from autopush.db.rows import dump_json

Row = tuple[Any, ...]
Values = dict[str, Any]


def over(columns: str, *more: str) -> str:
    """How such a statement begins.

    :param columns: of ``v`` beside ``n``, with their types
    :param more: further parts of the WITH clause
    """
    first = f"v AS (SELECT * FROM json_to_recordset(%(rows)s::json) AS v(n int, {columns}))"
    return f"WITH {', '.join((first, *more))} "


class Kind(NamedTuple):
    """A kind of operation.

    :ivar statements: run one after the other; what the last one returns counts
    :ivar result: makes an operation's result of its rows, without ``n``
    """

    statements: tuple[str, ...]
    result: Callable[[list[Row]], Any]

    def run(self, connection: Connection, operations: Sequence[Values], now: int) -> list[Any]:
        """Carry out operations, no two of which are about the same thing; returns their results.

        :param now: seconds since the epoch
        """
        rows = [{"n": number, **values} for number, values in enumerate(operations)]
        values = {"rows": dump_json(rows), "now": now}
        found: list[list[Row]] = [[] for _ in operations]
        with connection.cursor() as cursor:
            for statement in self.statements:
                cursor.execute(statement, values)
            if cursor.description is not None:
                for number, *columns in cursor:
                    found[number].append(tuple(columns))
        return [self.result(rows) for rows in found]


def nothing(rows: list[Row]) -> None:
    """The result of what has none."""


def any_row(rows: list[Row]) -> bool:
    """Whether something was found, or done."""
    return bool(rows)
