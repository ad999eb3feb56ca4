"""Members of requests and answers of the control API, as data.

The same rows check what comes in and describe it in the OpenAPI document.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from autopush.types import JSONDict

TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
}


class BadInput(Exception):
    """A request doesn't have the form it must have; the text says where."""


class Member(NamedTuple):
    """A member of a JSON object, or a parameter of a query.

    :ivar kind: one of :data:`TYPES`
    :ivar null: whether it may be null, which says the same as leaving it out
    :ivar choices: the only texts it may be
    """

    name: str
    kind: str
    text: str
    required: bool = False
    null: bool = False
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()

    def to_schema(self) -> JSONDict:
        """As JSON Schema."""
        schema: JSONDict = {"description": self.text}
        schema["type"] = [self.kind, "null"] if self.null else self.kind
        if self.least is not None:
            schema["minimum"] = self.least
        if self.most is not None:
            schema["maximum"] = self.most
        if self.choices:
            schema["enum"] = list(self.choices)
        return schema

    def checked(self, value: Any) -> Any:
        """Return a value of the member's type.

        :raises BadInput: it can't be that
        """
        if value is None and self.null:
            return None
        if self.kind == "integer" and isinstance(value, float) and value.is_integer():
            value = int(value)  # for JSON Schema 1.0 is one
        kinds = TYPES[self.kind]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise BadInput(f"{self.name} must be of type {self.kind}")
        if self.choices and value not in self.choices:
            raise BadInput(f"{self.name} must be one of {', '.join(self.choices)}")
        if isinstance(value, int | float):
            self._check_bounds(value)
        return value

    def _check_bounds(self, value: float) -> None:
        if isinstance(value, float) and not math.isfinite(value):
            raise BadInput(f"{self.name} must be a number")
        if self.least is not None and value < self.least:
            raise BadInput(f"{self.name} must not be less than {self.least:g}")
        if self.most is not None and value > self.most:
            raise BadInput(f"{self.name} must not be more than {self.most:g}")


Members = tuple[Member, ...]


def to_schema(members: Iterable[Member], closed: bool = False) -> JSONDict:
    """An object of these members as JSON Schema.

    :param closed: whether there may be no others
    """
    rows = list(members)
    schema: JSONDict = {
        "type": "object",
        "properties": {row.name: row.to_schema() for row in rows},
    }
    required = [row.name for row in rows if row.required]
    if required:
        schema["required"] = required
    if closed:
        schema["additionalProperties"] = False
    return schema


def check_names(given: Iterable[str], known: Iterable[str]) -> None:
    """:raises BadInput: something is given that nobody knows, as by a slip of the pen."""
    known = list(known)
    unknown = sorted(set(given).difference(known))
    if unknown:
        raise BadInput(f"unknown: {', '.join(unknown)}; known: {', '.join(known) or 'nothing'}")


def checked(value: Any, members: Iterable[Member]) -> JSONDict:
    """Return an object of these members; those that are missing are None.

    :raises BadInput: it isn't one
    """
    rows = {row.name: row for row in members}
    if not isinstance(value, dict):
        raise BadInput("the body must be a JSON object")
    check_names(value, rows)
    for row in rows.values():
        if row.required and row.name not in value:
            raise BadInput(f"{row.name} is missing")
    return {name: row.checked(value[name]) if name in value else None for name, row in rows.items()}


def from_body(body: bytes, members: Iterable[Member]) -> JSONDict:
    """Read a body; an empty one is an empty object.

    :raises BadInput: it isn't such an object
    """
    try:
        value = json.loads(body) if body else {}
    except (ValueError, RecursionError):  # also of what is no UTF-8, or nested too deep
        raise BadInput("the body is not JSON") from None
    return checked(value, members)


def from_query(arguments: Mapping[str, list[str]], members: Iterable[Member]) -> JSONDict:
    """Read the parameters of a query, all of them numbers.

    :raises BadInput: one is none, or unknown
    """
    rows = list(members)
    check_names(arguments, (row.name for row in rows))
    given: JSONDict = {}
    for row in rows:
        if row.name not in arguments:
            continue
        text = arguments[row.name][-1]
        try:
            given[row.name] = int(text) if row.kind == "integer" else float(text)
        except ValueError:
            raise BadInput(f"{row.name} must be of type {row.kind}") from None
    return checked(given, rows)
