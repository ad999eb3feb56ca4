"""Answers to what a user agent should not have sent."""

from __future__ import annotations

from autopush.types import JSONDict

MORE_INFO = "http://autopush.readthedocs.io/en/latest/api/websocket.html#private-http-endpoint"
"""Where all error replies point to."""


class Malformed(Exception):
    """A message with a value of the wrong JSON type: logged, never answered (spec/websocket Q8)."""


class NotUnderstood(Exception):
    """A message of a kind that there isn't here, or not with such values: answered and counted.

    The text is for the log.
    """


UNKNOWN_MESSAGE: JSONDict = {
    "messageType": "error",
    "status": 400,
    "reason": "Unknown messageType",
    "more_info": MORE_INFO,
}


def hello_error(reason: str, status: int) -> JSONDict:
    """An unsuccessful answer to a hello."""
    return {"messageType": "hello", "reason": reason, "status": status, "more_info": MORE_INFO}
