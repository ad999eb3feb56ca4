"""Where log events go (spec/observability 1 to 3)."""

from typing import Any

from autopush.logging.events import (
    PushLogger,
    begin_or_register,
    enabled,
    find_host_name,
    for_people,
    reopen,
)
from autopush.logging.redaction import (
    hide_ids,
    redact,
    redact_authorization,
    redact_text,
    redact_uri,
)

__all__ = [
    "PushLogger",
    "begin_or_register",
    "enabled",
    "find_host_name",
    "for_people",
    "hide_ids",
    "redact",
    "redact_authorization",
    "redact_text",
    "redact_uri",
    "reopen",
]


def __getattr__(name: str) -> Any:
    # Documented here (spec/python-api 4.1), but imported only by those who use it: it brings boto3.
    if name == "FirehoseProcessor":
        from autopush.logging.firehose import FirehoseProcessor

        return FirehoseProcessor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
