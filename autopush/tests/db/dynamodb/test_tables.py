"""Tables are made, waited for, and told when rows may go (spec/storage 8)."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from autopush.db.dynamodb import tables
from autopush.db.dynamodb.client import DynamoError, Throttled
from autopush.db.interface import StoreUnusable


class TestEnsure(SynchronousTestCase):
    """Making sure of a table, with scripted answers (S13)."""

    def ensure(self, *answers: Any, keys: tuple[str, ...] = tables.ROUTER_KEYS) -> list[str]:
        operations = []
        script = list(answers)

        def call(operation: str, /, **parameters: Any) -> dict[str, Any]:
            operations.append(operation)
            answer = script.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        self.pauses: list[float] = []
        tables.ensure(call, "t", keys, (5, 5), self.pauses.append)
        self.assertEqual(script, [])
        return operations

    @staticmethod
    def state(name: str) -> dict[str, Any]:
        return {"Table": {"TableStatus": name}}

    def missing(self) -> Exception:
        from autopush.db.dynamodb.client import TableMissing

        return TableMissing("t")

    def refused(self, code: str, text: str = "") -> Exception:
        error = DynamoError(text)
        error.code = code
        return error

    def test_table_that_exists(self):
        self.assertEqual(self.ensure(self.state("ACTIVE")), ["describe_table"])
        self.assertEqual(self.ensure(self.state("UPDATING")), ["describe_table"])

    def test_new_table_is_waited_for(self):
        self.ensure(
            self.missing(), {}, self.state("CREATING"), self.state("CREATING"), self.state("ACTIVE")
        )
        self.assertEqual(self.pauses, [tables.POLL, tables.POLL])

    def test_table_that_somebody_else_makes_at_this_moment(self):
        self.ensure(
            self.missing(),
            self.refused("ResourceInUseException"),
            self.state("CREATING"),
            self.state("ACTIVE"),
        )

    def test_too_many_tables_at_a_time(self):
        self.ensure(
            self.missing(), Throttled("x"), self.missing(), self.missing(), {}, self.state("ACTIVE")
        )

    def test_refusal_is_told(self):
        with self.assertRaises(DynamoError):
            self.ensure(self.missing(), self.refused("AccessDeniedException"))

    def test_table_that_never_becomes_active(self):
        with self.assertRaisesRegex(StoreUnusable, "t is not active after 600 seconds: CREATING"):
            self.ensure(*[self.state("CREATING")] * int(tables.READY_WITHIN / tables.POLL))

    def test_ttl_that_is_on_is_left_alone(self):
        on = {"TimeToLiveDescription": {"TimeToLiveStatus": "ENABLED"}}
        operations = self.ensure(self.state("ACTIVE"), on, keys=tables.MESSAGE_KEYS)
        self.assertEqual(operations, ["describe_table", "describe_time_to_live"])

    def test_ttl_that_somebody_else_turns_on_at_this_moment(self):
        off = {"TimeToLiveDescription": {"TimeToLiveStatus": "DISABLED"}}
        already = self.refused("ValidationException", "TimeToLive is already enabled")
        self.ensure(self.state("ACTIVE"), off, already, keys=tables.MESSAGE_KEYS)

    def test_endpoint_without_ttl(self):
        unknown = self.refused("UnknownOperationException")
        self.ensure(self.state("ACTIVE"), unknown, keys=tables.MESSAGE_KEYS)

    def test_ttl_that_we_may_not_turn_on_is_only_logged(self):
        denied = self.refused("AccessDeniedException", "not authorized")
        self.ensure(self.state("ACTIVE"), denied, keys=tables.MESSAGE_KEYS)
