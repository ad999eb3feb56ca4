"""The control API does what its description says, whatever it is sent (by schemathesis)."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from openapi_spec_validator import validate
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from autopush.control.aliases import ALIASES
from autopush.control.openapi import document
from autopush.control.operations import OPERATIONS
from autopush.tests import TREE

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
SCHEMA = schemathesis.openapi.from_dict(document())
EVERY_TIME_THE_SAME = settings(
    max_examples=15,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
DESCRIBED: list[Any] = [found.ok() for found in SCHEMA.get_all_operations()]  # type: ignore[union-attr]
CASES = {f"{operation.method.upper()} {operation.path}": operation for operation in DESCRIBED}


def test_the_description_is_openapi():
    validate(document())


def test_every_operation_is_described():
    described = {
        (method.upper(), path): operation["operationId"]
        for path, methods in document()["paths"].items()
        for method, operation in methods.items()
    }
    rows = (*OPERATIONS, *ALIASES)
    assert described == {(row.method, row.path): row.name for row in rows}
    assert len(set(described.values())) == len(rows)


def test_the_manual_has_it():
    written = json.loads((TREE / "docs/_static/openapi.json").read_text("utf-8"))
    assert written == document(), "write it anew: python -m autopush.control.openapi"


def test_the_service_shows_it(push):
    assert push.control.call("GET", "/openapi.json") == document()


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize("name", CASES)
def test_answers_are_as_described(push, name, mode):
    """Right requests and wrong ones, the same at each run. Waiting is cut short."""

    @EVERY_TIME_THE_SAME
    @given(case=CASES[name].as_strategy(generation_mode=mode))
    def check(case):
        if isinstance(case.query.get("timeout"), int | float):
            case.query["timeout"] = min(case.query["timeout"], 0.01)
        answer = case.call(base_url=push.control_url, timeout=60)
        case.validate_response(answer, checks=CHECKS)

    check()


@pytest.mark.parametrize("name", ["POST /faults", "POST /clock", "POST /browsers"])
def test_what_is_right_is_not_refused(push, name):
    @EVERY_TIME_THE_SAME
    @given(case=CASES[name].as_strategy(generation_mode=GenerationMode.POSITIVE))
    def check(case):
        if isinstance(case.body, dict) and "subscription" in case.body:
            case.body["subscription"] = None  # for what was made up is nobody's
        answer = case.call(base_url=push.control_url, timeout=60)
        assert answer.status_code < 300, answer.text

    check()


def test_other_methods_are_refused(push):
    for row in OPERATIONS:
        path = row.path.replace("{", "").replace("}", "")
        answer = requests.patch(push.control_url + path, timeout=60)
        assert answer.status_code == 405
        assert row.method in answer.headers["Allow"]
