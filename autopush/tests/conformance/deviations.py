"""Where we answer otherwise than the recordings, because a spec marks the behaviour as *fix*."""

from __future__ import annotations

from typing import Any, NamedTuple


class Deviation(NamedTuple):
    """What replaces the recorded expectation of one step (members not named stay)."""

    step: int
    expect: dict[str, Any]
    reason: str


MORE_INFO = "http://autopush.readthedocs.io/en/latest/http.html#error-codes"

DEVIATIONS: dict[str, Deviation] = {
    "ep_token/payload_63_bytes": Deviation(
        1,
        {
            "status": 404,
            "json": {
                "code": 404,
                "errno": 102,
                "error": "Not Found",
                "message": "Request did not validate invalid token",
                "more_info": MORE_INFO,
            },
            "headers": {"content-type": "application/json"},
        },
        "http-endpoint.md Q2: a missing version is v1, so the length is checked",
    ),
    "ep_http/pipelined": Deviation(
        1,
        {"answers": [{"status": 201}, {"status": 200}]},
        "design.md 4: pipelined requests are answered in order; the original lost one",
    ),
    "ep_ttl/online_max": Deviation(
        1,
        {
            "status": 201,
            "headers": {"location": "{endpoint}/m/<msg1>", "ttl": "2592000"},
        },
        "RFC 8030 5.2: the answer names the time the message is kept, always 30 days at most",
    ),
    "ws_hello/webpush_user_by_http": Deviation(
        2,
        {
            "frames": [
                {
                    "json": {
                        "status": 200,
                        "uaid": "<httpuaid>",
                        "use_webpush": True,
                        "messageType": "hello",
                        "env": "development",
                    }
                }
            ],
            "closed": False,
        },
        "http-endpoint.md Q14: registration over HTTP makes a complete record, so the UAID is kept",
    ),
}

ADDED_TO_HEADERS = {"access-control-allow-headers": {"topic"}}
"""http-endpoint.md Q29: items which a header that was not empty has in addition."""


def header_as_fixed(name: str, recorded: str) -> set[str] | None:
    """The items a list header must have where it deviates, else None."""
    if name in ADDED_TO_HEADERS and recorded:
        return {*recorded.split(","), *ADDED_TO_HEADERS[name]}
    return None
