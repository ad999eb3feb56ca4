"""register and unregister (spec/websocket 5.2 and 5.3)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from autopush.exceptions import StoreError
from autopush.ids import parse_uuid
from autopush.session import direct, drain, settle
from autopush.session.errors import MORE_INFO, Malformed
from autopush.session.events import enabled, extract_code, identity, log, redacted
from autopush.session.states import State
from autopush.session.wire import Message

if TYPE_CHECKING:
    from autopush.session.session import BaseSession

_CANONICAL = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch

_ABSENT = object()

INVALID = "Invalid UUID specified"

OVERLOADED: Message = {"messageType": "error", "reason": "overloaded", "status": 503}

SERVER_ERROR: Message = {
    "messageType": "register",
    "status": 500,
    "reason": "An unexpected server error occurred",
}

UNREGISTER_ERROR: Message = {
    "messageType": "unregister",
    "status": 500,
    "reason": "An unexpected server error occurred",
}


def register(session: BaseSession, message: Message) -> None:
    """Subscribe a channel: answer with its endpoint URL.

    :raises Malformed: ``channelID`` is neither text nor null.
    """
    chid = message.get("channelID", _ABSENT)
    if chid is _ABSENT:
        session.refuse("register")
        return
    if chid is None:
        session.refuse("register", INVALID)
        return
    if not isinstance(chid, str):
        raise Malformed("channelID is no text")
    reason = _fault(chid)
    if reason is not None:
        session.refuse("register", reason)
        return
    Deferred.fromCoroutine(_register(session, chid, message.get("key")))


def unregister(session: BaseSession, message: Message) -> None:
    """End a channel's subscription: answer when senders are refused and nothing of it is stored.

    :raises Malformed: ``channelID`` is no text.
    """
    given = message.get("channelID", _ABSENT)
    if given is _ABSENT:
        session.refuse("unregister", "Missing ChannelID")
        return
    if not isinstance(given, str):
        raise Malformed("channelID is no text")
    try:
        chid = str(parse_uuid(given))
    except ValueError:
        session.refuse("unregister", "Invalid ChannelID")
        return
    node = session.node
    if node.metered:
        node.metrics.increment("ua.command.unregister")
    session.unregisters += 1
    _log_unregister(session, message, given)
    Deferred.fromCoroutine(_unregister(session, message, chid))


def _fault(chid: str) -> str | None:
    if _CANONICAL(chid):
        return None
    try:
        parse_uuid(chid)
    except ValueError:
        return INVALID
    # No blank after "use": that is what user agents have always been told (quirk Q7).
    return "Bad UUID format, uselower case, dashed format"


def refuse(session: BaseSession, kind: str, reason: str | None = None) -> None:
    """Answer with an error, which does not name the channel: quirk Q6, kept."""
    reply = {"messageType": kind, "status": 401, "more_info": MORE_INFO, "reason": reason}
    if reason is None:
        del reply["reason"]
    session.wire.send(reply)


async def _register(session: BaseSession, chid: str, key: Any) -> None:
    node = session.node
    assert session.uaid is not None
    session.hold_reading()
    try:
        if key is not None and not isinstance(key, str):
            raise TypeError("key is no text")
        endpoint = node.conf.make_endpoint(session.uaid, chid, key)
        await node.store.add_channel(session.month, session.uaid, chid)
    except StoreError as error:
        log.warn("Failed to register", reason=repr(error), **identity(session))
        session.wire.send(OVERLOADED)
    except (TypeError, ValueError) as error:
        log.info("Malformed message", reason=repr(error), **identity(session))
        session.wire.send(SERVER_ERROR)
    except Exception:
        log.failure("Unexpected error", extra="Failed to register")
        session.wire.send(SERVER_ERROR)
    else:
        _registered(session, chid, endpoint)
    session.release_reading()


async def _unregister(session: BaseSession, message: Message, chid: str) -> None:
    assert session.uaid is not None
    session.hold_reading()
    settle.flush(session)
    try:
        await session.node.store.remove_channel(session.month, session.uaid, chid)
    except StoreError as error:
        log.warn("Failed to unregister", reason=repr(error), **identity(session))
        session.wire.send(OVERLOADED)
    except Exception:
        log.failure("Unexpected error", extra="Failed to unregister")
        session.wire.send(UNREGISTER_ERROR)
    else:
        session.wire.send({**message, "status": 200})
        _forget(session, chid)
    session.release_reading()


def _registered(session: BaseSession, chid: str, endpoint: str) -> None:
    session.wire.send(
        {
            "messageType": "register",
            "channelID": chid,
            "pushEndpoint": endpoint,
            "status": 200,
        }
    )
    if session.node.metered:
        session.node.metrics.increment("ua.command.register")
    session.registers += 1
    if enabled("info"):
        log.info(
            "Register",
            channel_id=chid,
            endpoint=redacted(endpoint),
            user_agent=session.agent.text,
            **identity(session),
        )


def _log_unregister(session: BaseSession, message: Message, given: str) -> None:
    if enabled("info"):
        code = {"code": extract_code(message)} if "code" in message else {}
        log.info(
            "Unregister",
            channel_id=given,
            user_agent=session.agent.text,
            **code,
            **identity(session),
        )


def _forget(session: BaseSession, chid: str) -> None:
    """Let go of what was sent to a channel that is no more: nothing of it is in storage now."""
    if session.state < State.CLOSING:
        direct.unregistered(session, chid)
    stored, settling = session.stored, session.settling or ()
    if stored:
        for key in [key for key in stored if key[0] == chid and key not in settling]:
            del stored[key]
    if session.state < State.CLOSING:
        settle.settle(session)
        drain.advance(session)
