"""The control API's description, made from the tables of its operations."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from autopush import __version__
from autopush.control.aliases import ALIASES
from autopush.control.operations import (
    MESSAGE_MEMBERS,
    OPERATIONS,
    REQUEST_MEMBERS,
    Operation,
)
from autopush.control.schema import to_schema
from autopush.types import JSONDict

REFUSALS = {
    400: "the request doesn't have the form it must have",
    401: "the token is missing or wrong",
    404: "there is no such thing",
    409: "it can't be done now",
}
ERROR = {
    "type": "object",
    "properties": {"error": {"type": "string"}},
    "required": ["error"],
}


def document() -> JSONDict:
    """The description in OpenAPI 3.1."""
    paths: dict[str, JSONDict] = {}
    for operation in (*OPERATIONS, *ALIASES):
        paths.setdefault(operation.path, {})[operation.method.lower()] = describe(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "autopush: the control API of a push service under test",
            "version": __version__,
            "license": {"name": "MPL-2.0", "identifier": "MPL-2.0"},
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "Message": to_schema(MESSAGE_MEMBERS),
                "Request": to_schema(REQUEST_MEMBERS),
                "Error": ERROR,
            },
        },
    }


def describe(operation: Operation) -> JSONDict:
    """One operation."""
    described: JSONDict = {
        "operationId": operation.name,
        "summary": operation.text,
        "responses": responses(operation),
    }
    parameters = [
        *(
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in re.findall(r"\{(\w+)\}", operation.path)
        ),
        *({"name": row.name, "in": "query", "schema": row.to_schema()} for row in operation.query),
    ]
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        needed = any(row.required for row in operation.body)
        described["requestBody"] = {
            "required": needed,
            "content": json_of(to_schema(operation.body, closed=True)),
        }
    return described


def responses(operation: Operation) -> JSONDict:
    """What may be answered."""
    success: JSONDict = {"description": operation.text}
    if operation.answer is not None:
        success["content"] = json_of(to_schema(operation.answer))
    refusal: dict[str, Any] = {
        str(status): {
            "description": REFUSALS[status],
            "content": json_of({"$ref": "#/components/schemas/Error"}),
        }
        for status in sorted({400, 401, *operation.errors})
    }
    return {str(operation.status): success, **refusal}


def json_of(schema: JSONDict) -> JSONDict:
    """Content that is JSON."""
    return {"application/json": {"schema": schema}}


def main() -> None:
    """Write it down for the manual."""
    text = json.dumps(document(), indent=1)
    Path("docs/_static/openapi.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
