"""What the ``Session`` event tells about a connection (spec/websocket 16)."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autopush.session.session import BaseSession

COUNTERS = (
    "direct_acked",
    "direct_storage",
    "stored_retrieved",
    "stored_acked",
    "nacks",
    "unregisters",
    "registers",
)
_counts = attrgetter(*COUNTERS)


def session_fields(session: BaseSession, seconds: int) -> dict[str, Any]:
    """Fields of the event, for a connection that lasted ``seconds``."""
    agent = session.user_agent
    return {
        "uaid_hash": session.uaid_hash,
        "uaid_reset": session.uaid_reset,
        "existing_uaid": session.existing_uaid,
        "connection_type": "webpush",
        "host": session.host,
        **agent.info,
        **agent.tags,  # the limited families replace the full ones
        "connection_time": seconds,
        **dict(zip(COUNTERS, _counts(session), strict=True)),
    }


def base_tags(session: BaseSession) -> list[str]:
    """Metric tags of a session."""
    tags = [f"{name}:{value}" for name, value in session.user_agent.tags.items()]
    if session.host:
        tags.append("host:" + session.host)
    if session.uaid is not None:
        tags.append("use_webpush:True")
    return tags
