"""The router table (spec/storage 9), on servers of all kinds."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from autopush.db.dynamodb.client import ConditionFailed, DynamoError
from autopush.db.dynamodb.users import Users
from autopush.tests.db.dynamodb.rows_support import NOW, s
from autopush.tests.db.store_contract import (
    NODE,
    UAID,
)


class TestServersThatTellLess(SynchronousTestCase):
    """Not all know ``ReturnValuesOnConditionCheckFailure``, or do what it asks for."""

    def _users(self, *answers: Any) -> Users:
        self.calls: list[tuple[str, bool]] = []
        left = list(answers)

        def call(operation: str, /, **parameters: Any) -> Any:
            asked = "ReturnValuesOnConditionCheckFailure" in parameters
            self.calls.append((operation, asked))
            answer = left.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return Users(call, "router", str, lambda: NOW)

    def _failed(self, item: Any) -> ConditionFailed:
        failed = ConditionFailed("no")
        failed.item = item
        return failed

    def test_server_that_refuses_the_question(self):
        refusal = DynamoError("unknown parameter")
        refusal.code = "ValidationException"
        old = {"Attributes": {"uaid": s(UAID), "router_type": s("webpush")}}
        users = self._users(refusal, old, old)
        for _ in range(2):
            self.assertTrue(users.reconnect("m", UAID, NODE, 1).written)
        self.assertEqual([asked for _, asked in self.calls], [True, False, False])

    def test_other_refusals_are_passed_on(self):
        refusal = DynamoError("no")
        refusal.code = "AccessDeniedException"
        with self.assertRaises(DynamoError):
            self._users(refusal).reconnect("m", UAID, NODE, 1)

    def test_server_that_does_not_answer_it(self):
        item = {"uaid": s(UAID), "router_type": s("webpush")}
        users = self._users(self._failed(None), {"Item": item}, self._failed(None), {})
        expected = {"uaid": UAID, "router_type": "webpush"}
        self.assertEqual(tuple(users.reconnect("m", UAID, NODE, 1)), (False, expected))
        self.assertEqual(tuple(users.reconnect("m", UAID, NODE, 1)), (False, None))
        self.assertEqual([name for name, _ in self.calls], ["update_item", "get_item"] * 2)

    def test_server_that_does_is_not_asked_about_nobody(self):
        item = {"uaid": s(UAID), "router_type": s("webpush")}
        users = self._users(self._failed(item), self._failed(None))
        self.assertFalse(users.reconnect("m", UAID, NODE, 1).written)
        self.assertEqual(tuple(users.reconnect("m", UAID, NODE, 1)), (False, None))
        self.assertEqual([name for name, _ in self.calls], ["update_item"] * 2)
