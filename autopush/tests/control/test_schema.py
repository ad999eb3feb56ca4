"""Members of requests: what is taken, and what is told of the rest."""

from __future__ import annotations

import json

import pytest

from autopush.control.schema import BadInput, Member, from_body, from_query, to_schema

ROWS = (
    Member("name", "string", "a name", required=True, choices=("a", "b")),
    Member("count", "integer", "a number", null=True, least=0, most=10),
    Member("seconds", "number", "a time"),
    Member("on", "boolean", "a switch"),
)


def test_what_is_missing_is_none():
    given = {"name": "a", "count": None, "seconds": 1, "on": True}
    assert from_body(json.dumps(given).encode(), ROWS) == given
    assert from_body(b'{"name": "b"}', ROWS) == {
        "name": "b",
        "count": None,
        "seconds": None,
        "on": None,
    }
    assert from_body(b"", ROWS[1:]) == {"count": None, "seconds": None, "on": None}


def test_a_whole_number_is_an_integer_however_it_is_written():
    assert from_body(b'{"count": 3.0}', ROWS[1:])["count"] == 3


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"name":' * 100_000, "not JSON"),
        (b"[]", "must be a JSON object"),
        (b"{}", "name is missing"),
        (b'{"name": "c"}', "name must be one of a, b"),
        (b'{"name": 1}', "name must be of type string"),
        (b'{"name": "a", "count": -1}', "count must not be less than 0"),
        (b'{"name": "a", "count": 11}', "count must not be more than 10"),
        (b'{"name": "a", "count": 1.5}', "count must be of type integer"),
        (b'{"name": "a", "count": true}', "count must be of type integer"),
        (b'{"name": "a", "seconds": NaN}', "seconds must be a number"),
        (b'{"name": "a", "seconds": null}', "seconds must be of type number"),
        (b'{"name": "a", "on": 1}', "on must be of type boolean"),
        (b'{"name": "a", "nam": 1}', "unknown: nam; known: name, count, seconds, on"),
    ],
)
def test_refused(body, text):
    with pytest.raises(BadInput, match=text):
        from_body(body, ROWS)


def test_queries():
    assert from_query({"count": ["1", "2"]}, ROWS[1:3]) == {"count": 2, "seconds": None}
    with pytest.raises(BadInput, match="unknown: cuont; known: count, seconds"):
        from_query({"cuont": ["1"]}, ROWS[1:3])
    with pytest.raises(BadInput, match="unknown: count; known: nothing"):
        from_query({"count": ["1"]}, ())
    for text in ("x", "", "1.5", "inf"):
        with pytest.raises(BadInput):
            from_query({"count": [text]}, ROWS[1:3])
    with pytest.raises(BadInput, match="must be a number"):
        from_query({"seconds": ["nan"]}, ROWS[1:3])


def test_as_json_schema():
    schema = to_schema(ROWS, closed=True)
    assert schema["required"] == ["name"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["count"] == {
        "description": "a number",
        "type": ["integer", "null"],
        "minimum": 0,
        "maximum": 10,
    }
    assert schema["properties"]["name"]["enum"] == ["a", "b"]
