"""ack, nack and ping (spec/websocket 5.4, 5.5, 5.7 and 10)."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from autopush.session import direct, settle
from autopush.session.errors import Malformed
from autopush.session.events import enabled, extract_code, identity, log, log_ack
from autopush.session.states import State
from autopush.types import JSONDict

if TYPE_CHECKING:
    from autopush.session.session import BaseSession

NACK_CODES = (301, 302, 303)

CHUNK = 1000
"""Updates taken in one reactor turn (about a millisecond): browsers send one a message, but a
message may carry a hundred thousand."""

MIN_PING_INTERVAL = 55.0
"""Seconds between two pings of a user agent that are answered."""

CLOSE_TOO_MANY_PINGS = 4774
"""Close code; Firefox then stays away until its network changes."""


def ack(session: BaseSession, message: JSONDict) -> None:
    """Take acknowledgements.

    :raises Malformed: an element is no object, or names a channel by list or object.
    """
    updates = message.get("updates")
    if not updates or updates.__class__ is not list:
        return
    if session.node.metered:
        session.node.metrics.increment("ua.command.ack")
    if len(updates) > CHUNK:
        _by_chunks(session, updates)
        return
    try:
        for update in updates:
            _acknowledge(session, update)
    finally:
        _taken(session)


def nack(session: BaseSession, message: JSONDict) -> None:
    """Count a complaint; the notification still has to be acknowledged."""
    version = message.get("version")
    if not version:
        return
    code = extract_code(message)
    if enabled("debug"):
        log.debug(
            "Nack",
            user_agent=session.user_agent.text,
            message_id=version,
            code=code,
            **identity(session),
        )
    metrics = session.node.metrics
    metrics.increment("ua.command.nack", tags=[f"code:{code if code in NACK_CODES else 0}"])
    session.nacks += 1


def ping(session: BaseSession, _: JSONDict) -> None:
    """Answer a ping, or end the connection when they come too often."""
    now = session.node.clock.seconds()
    last = session.last_ping
    if last is not None and now - last < MIN_PING_INTERVAL:
        session.close(CLOSE_TOO_MANY_PINGS)
        return
    session.last_ping = now
    session.wire.send({})


def _by_chunks(session: BaseSession, updates: list[Any]) -> None:
    """Take many updates, letting others have their turn in between."""
    session.hold_reading()
    rest = iter(updates)
    left = len(updates)

    def step() -> None:
        nonlocal left
        if session.state >= State.CLOSING:
            return
        try:
            for update in islice(rest, CHUNK):
                _acknowledge(session, update)
        except Malformed as error:
            session.complain(error)
            left = 0
        except Exception:
            log.failure("Unexpected error")
            left = 0
        else:
            left -= CHUNK
        _taken(session)
        if left > 0:
            session.node.clock.callLater(0, step)
        else:
            session.release_reading()

    step()


def _taken(session: BaseSession) -> None:
    """Do what follows from acknowledgements: the follow-up of spec/websocket 10."""
    settle.settle(session)
    session.advance()


def _acknowledge(session: BaseSession, update: Any) -> None:
    if update.__class__ is not dict:
        if update:
            raise Malformed("an update is no object")
        return
    chid = update.get("channelID")
    version = update.get("version")
    if not chid or not version:
        return
    if chid.__class__ is not str or version.__class__ is not str:
        if isinstance(chid, list | dict):
            raise Malformed("channelID of an update is no text")
        return
    key = (chid, version)
    # Look-ups never insert: unknown channels must not take memory (quirk Q24).
    outstanding = session.direct
    entry = outstanding.pop(key, None) if outstanding else None
    if entry is None:
        _acknowledge_stored(session, key, update)
        return
    session.direct_acked += 1
    session.node.recent.add(version, session.connected_at)
    if enabled("debug"):
        log_ack(session, "direct", version, entry.notification, extract_code(update))
    if entry.row:
        direct.acknowledged(session, key, entry)


def _acknowledge_stored(session: BaseSession, key: tuple[str, str], update: Any) -> None:
    notification = session.stored.get(key) if session.stored else None
    if notification is None or (session.settling and key in session.settling):
        return
    version = key[1]
    session.stored_acked += 1
    session.node.recent.add(version, session.connected_at)
    if enabled("debug"):
        log_ack(session, "stored", version, notification, extract_code(update))
    settle.acknowledged(session, key, notification)
