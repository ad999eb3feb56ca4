"""Where we answer otherwise than the recordings: a spec marks the behaviour as *fix*, or it turned
away who means something valid (more is taken than 1.58.3 took, and a refusal says why)."""

from __future__ import annotations

from typing import Any, NamedTuple


class Deviation(NamedTuple):
    """What replaces the recorded expectation of one step (members not named stay)."""

    step: int
    expect: dict[str, Any]
    reason: str
    do: dict[str, Any] = {}
    """What is done otherwise, where the recording waits for what does not come."""


MORE_INFO = "http://autopush.readthedocs.io/en/latest/http.html#error-codes"

MORE_INFO_WS = "http://autopush.readthedocs.io/en/latest/api/websocket.html#private-http-endpoint"

CHALLENGE = {"www-authenticate": "vapid, webpush", "content-type": "application/json"}
"""RFC 8292 4.2 asks for the first, 1.58.3 sent the second."""


def _wrong_audience(step: int) -> Deviation:
    text = "Invalid bearer token: Invalid Audience Specified: aud must be {endpoint}"
    return Deviation(
        step,
        {
            "headers": CHALLENGE,
            "json": {
                "code": 401,
                "errno": 109,
                "error": "Unauthorized",
                "message": f"Request did not validate {text}",
                "more_info": MORE_INFO,
            },
        },
        "a sender with a wrong aud is told the right one",
    )


DEVIATIONS: dict[str, Deviation] = {
    "ep_vapid/claims_aud_empty_webpush_v2": _wrong_audience(2),
    "ep_vapid/claims_aud_other_draft02_v1": _wrong_audience(2),
    **{
        case: Deviation(
            1, {"headers": CHALLENGE}, "RFC 8292 4.2: the challenge of a push resource is vapid"
        )
        for case in ("ep_vapid/jwt_claims_list_webpush", "ep_vapid/jwt_empty_signature_draft02")
    },
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
        "spec/http-endpoint Q2: a missing version is v1, so the length is checked",
    ),
    "ep_http/pipelined": Deviation(
        1,
        {"answers": [{"status": 201}, {"status": 200}]},
        "decisions/http-parser: pipelined requests are answered in order; the original lost one",
    ),
    "ep_ttl/online_max": Deviation(
        1,
        {
            "status": 201,
            "headers": {"location": "{endpoint}/m/<msg1>", "ttl": "2592000"},
        },
        "RFC 8030 5.2: the answer names the time the message is kept, always 30 days at most",
    ),
    "ws_register/key_bad_padding": Deviation(
        1,
        {
            "frames": [
                {
                    "json": {
                        "messageType": "register",
                        "channelID": "<chid>",
                        "status": 400,
                        "reason": "Invalid key: not a P-256 point",
                        "more_info": MORE_INFO_WS,
                    }
                }
            ],
            "closed": False,
        },
        "spec/websocket Q6: a refused register says which channel, and that the key is no key",
    ),
    "ws_unknown/purge": Deviation(
        1,
        {
            "frames": [
                {
                    "json": {
                        "messageType": "error",
                        "status": 400,
                        "reason": "Unknown messageType",
                        "more_info": MORE_INFO_WS,
                    }
                }
            ],
            "closed": False,
        },
        "spec/websocket 4: user agents of tomorrow may say what we don't know",
        {"wait_for": "1 message(s)"},
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
        "spec/http-endpoint Q14: HTTP registration makes a complete record, so the UAID is kept",
    ),
}

ADDED_TO_HEADERS = {
    "access-control-allow-headers": {
        "content-encoding,encryption,crypto-key,ttl,encryption-key,content-type,authorization": {
            *("topic", "urgency", "prefer"),
        },
    },
    "access-control-expose-headers": {
        "location,www-authenticate": {"link", "ttl", "retry-after"},
        "location": {"retry-after"},
    },
}
"""spec/http-endpoint Q29, and the headers of RFC 8030: items which a header, as it was recorded,
has in addition."""

ADDED_TO_ERRORS = {"errno", "error", "message", "more_info"}
"""spec/http-endpoint Q8: members all errors have, also those that were recorded without."""


def header_as_fixed(name: str, recorded: str) -> set[str] | None:
    """The items a list header must have where it deviates, else None."""
    added = ADDED_TO_HEADERS.get(name, {}).get(recorded)
    return None if added is None else {*recorded.split(","), *added}


def error_as_recorded(recorded: Any, actual: Any) -> Any:
    """A body without the members it has in addition, if an error was recorded."""
    if not (isinstance(recorded, dict) and isinstance(actual, dict) and "code" in recorded):
        return actual
    added = ADDED_TO_ERRORS - set(recorded)
    return {name: value for name, value in actual.items() if name not in added}
