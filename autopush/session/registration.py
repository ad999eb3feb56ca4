"""register and unregister (spec/websocket 5.2 and 5.3)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from autopush.exceptions import ChannelLimit, StoreError
from autopush.ids import parse_uuid
from autopush.message.endpoint_token import check_subscription_key
from autopush.session import direct, drain, records, settle, urgency
from autopush.session.errors import MORE_INFO, Malformed
from autopush.session.events import enabled, extract_code, identity, log, redacted, took
from autopush.session.states import State
from autopush.types import JSONDict

if TYPE_CHECKING:
    from autopush.session.session import BaseSession

_CANONICAL = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch

_ABSENT = object()

INVALID = "Invalid UUID specified"

INVALID_KEY = "Invalid key: not a P-256 point"

TOO_MANY = "Too many channels: end some first"

OVERLOADED: JSONDict = {"messageType": "error", "reason": "overloaded", "status": 503}

SERVER_ERROR: JSONDict = {
    "messageType": "register",
    "status": 500,
    "reason": "An unexpected server error occurred",
}

UNREGISTER_ERROR: JSONDict = {
    "messageType": "unregister",
    "status": 500,
    "reason": "An unexpected server error occurred",
}


def register(session: BaseSession, message: JSONDict) -> None:
    """Subscribe a channel: answer with its endpoint URL."""
    chid = message.get("channelID", _ABSENT)
    if chid is _ABSENT:
        session.refuse("register", "Missing ChannelID")
        return
    key = message.get("key")
    reason = _fault(chid)
    if reason is not None:
        _refused(session, chid, 401, reason)
    elif not _usable(key):
        _refused(session, chid, 400, INVALID_KEY)
    else:
        Deferred.fromCoroutine(_register(session, chid, key))


def unregister(session: BaseSession, message: JSONDict) -> None:
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
    Deferred.fromCoroutine(_unregister(session, message, chid))


def _fault(chid: Any) -> str | None:
    if not isinstance(chid, str):
        return INVALID
    if _CANONICAL(chid):
        return None
    try:
        parse_uuid(chid)
    except ValueError:
        return INVALID
    # No blank after "use": that is what user agents have always been told (quirk Q7).
    return "Bad UUID format, uselower case, dashed format"


def _usable(key: Any) -> bool:
    """Whether a sender can have this key; no key, also an empty one, means any sender."""
    if key is None or key == "":
        return True
    if not isinstance(key, str):
        return False
    try:
        check_subscription_key(key)
    except ValueError:
        return False
    return True


def refuse(session: BaseSession, kind: str, reason: str, status: int = 401, **members: Any) -> None:
    """Answer with an error.

    :param members: what the answer has besides
    """
    reply = {"messageType": kind, "status": status, "more_info": MORE_INFO, "reason": reason}
    session.wire.send({**reply, **members})


def _refused(session: BaseSession, chid: Any, status: int, reason: str) -> None:
    """Refuse to register a channel.

    :param chid: as it came: by it the user agent knows what was refused (quirk Q6, not kept)
    """
    log.info("Register refused", reason=reason, **identity(session))
    session.refuse("register", reason, status, channelID=chid)


async def _register(session: BaseSession, chid: str, key: str | None) -> None:
    node = session.node
    assert session.uaid is not None
    began = node.now()
    session.hold_reading()
    try:
        endpoint = node.conf.make_endpoint(session.uaid, chid, key)
        await _add(session, chid)
    except ChannelLimit:
        _refused(session, chid, 403, TOO_MANY)
    except StoreError as error:
        log.warn("Failed to register", reason=repr(error), **identity(session))
        session.wire.send({**OVERLOADED, "channelID": chid})
    except Exception:
        log.failure("Unexpected error", extra="Failed to register")
        session.wire.send({**SERVER_ERROR, "channelID": chid})
    else:
        _registered(session, chid, endpoint, began)
    session.release_reading()


async def _add(session: BaseSession, chid: str) -> None:
    """Have the channel stored, and with a new user's first one its record."""
    node = session.node
    assert session.uaid is not None
    if session.recorded:
        await node.store.add_channel(session.month, session.uaid, chid)
        return
    # The month may have changed since the hello.
    month = node.store.months.current
    record = records.new_record(
        session.uaid, node.router_url, session.connected_at, month, node.now(), session.least
    )
    session.month = await node.store.add_first_channel(record, chid)
    session.recorded = True
    urgency.note(session, record)  # it may ask for another one meanwhile


async def _unregister(session: BaseSession, message: JSONDict, chid: str) -> None:
    assert session.uaid is not None
    began = session.node.now()
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
        _log_unregister(session, message, began)
        _forget(session, chid)
    session.release_reading()


def _registered(session: BaseSession, chid: str, endpoint: str, began: float) -> None:
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
            user_agent=session.user_agent.text,
            **identity(session),
            shown=took(session.node, began),
        )


def _log_unregister(session: BaseSession, message: JSONDict, began: float) -> None:
    if enabled("info"):
        code = {"code": extract_code(message)} if "code" in message else {}
        log.info(
            "Unregister",
            channel_id=message["channelID"],
            user_agent=session.user_agent.text,
            **code,
            **identity(session),
            shown=took(session.node, began),
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
