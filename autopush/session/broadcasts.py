"""Broadcasts as user agents see them where no Megaphone feeds the node (spec/websocket 23.2).

Every id is unknown then: it is reported as not found, and nothing is ever pushed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autopush.types import JSONDict

if TYPE_CHECKING:
    from autopush.session.session import BaseSession

NOT_FOUND = "Broadcast not found"


def answer(wanted: Any) -> JSONDict:
    """What a user agent is told about the broadcasts it names, a map of id to version."""
    if not wanted or not isinstance(wanted, dict):
        return {}
    return {"errors": dict.fromkeys(wanted, NOT_FOUND)}


def subscribe(session: BaseSession, message: JSONDict) -> None:
    """``broadcast_subscribe``: answered only where there is something to say."""
    found = answer(message.get("broadcasts"))
    if found:
        session.wire.send({"messageType": "broadcast", "broadcasts": found})
