"""ack, nack and ping (websocket.md 5.4, 5.5, 5.7 and 10)."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from autopush.session import direct, drain
from autopush.session.background import GIVEN_UP
from autopush.session.errors import Malformed
from autopush.session.events import enabled, extract_code, identity, log, log_ack
from autopush.session.states import State
from autopush.session.wire import Message

if TYPE_CHECKING:
    from autopush.notification import WebPushNotification
    from autopush.session.session import Session

NACK_CODES = (301, 302, 303)

CHUNK = 1000
"""Updates taken in one reactor turn (about a millisecond): browsers send one a message, but a
message may carry a hundred thousand."""

MIN_PING_INTERVAL = 55.0
"""Seconds between two pings of a user agent that are answered."""

CLOSE_TOO_MANY_PINGS = 4774
"""Close code; Firefox then stays away until its network changes."""


def ack(session: Session, message: Message) -> None:
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
    for update in updates:
        _acknowledge(session, update)
    drain.advance(session)


def nack(session: Session, message: Message) -> None:
    """Count a complaint; the notification still has to be acknowledged."""
    version = message.get("version")
    if not version:
        return
    code = extract_code(message)
    if enabled("debug"):
        log.debug(
            "Nack",
            user_agent=session.agent.text,
            message_id=version,
            code=code,
            **identity(session),
        )
    metrics = session.node.metrics
    metrics.increment("ua.command.nack", tags=[f"code:{code if code in NACK_CODES else 0}"])
    session.nacks += 1


def ping(session: Session, _: Message) -> None:
    """Answer a ping, or end the connection when they come too often."""
    now = session.node.clock.seconds()
    last = session.last_ping
    if last is not None and now - last < MIN_PING_INTERVAL:
        session.close(CLOSE_TOO_MANY_PINGS)
        return
    session.last_ping = now
    session.wire.send({})


def _by_chunks(session: Session, updates: list[Any]) -> None:
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
            if left <= 0:
                drain.advance(session)
        if left > 0:
            session.node.clock.callLater(0, step)
        else:
            session.release_reading()

    step()


def _acknowledge(session: Session, update: Any) -> None:
    if not update:
        return
    if update.__class__ is not dict:
        raise Malformed("an update is no object")
    chid = update.get("channelID")
    version = update.get("version")
    if not chid or not version:
        return
    if chid.__class__ is not str:
        if isinstance(chid, list | dict):
            raise Malformed("channelID of an update is no text")
        return
    if version.__class__ is not str:
        return
    key = (chid, version)
    # Look-ups never insert: unknown channels must not take memory (quirk Q24).
    outstanding = session.direct
    if outstanding is not None:
        entry = outstanding.pop(key, None)
        if entry is not None:
            session.direct_acked += 1
            session.node.recent.add(version, session.connected_at)
            if enabled("debug"):
                log_ack(session, "direct", version, entry.notification, extract_code(update))
            if entry.row:
                direct.acknowledged(session, key, entry)
            return
    if session.stored:
        notification = session.stored.get(key)
        if notification is not None and not (session.settling and key in session.settling):
            session.stored_acked += 1
            session.node.recent.add(version, session.connected_at)
            if enabled("debug"):
                log_ack(session, "stored", version, notification, extract_code(update))
            _stored(session, key, notification)


def _stored(session: Session, key: direct.Key, notification: WebPushNotification) -> None:
    """Remember in storage, where needed, that a stored notification was read."""
    node = session.node
    stored = session.stored
    assert stored is not None
    stamp = notification.sortkey_timestamp
    pointer = session.pointer
    persist, store, month = node.background.persist, node.store, session.month
    if stamp is None or _pointer_is_held(session):
        _settle(session, key, persist(store.delete_message, month, notification))
    elif stamp == pointer or len(stored) == 1:
        _settle(session, key, persist(store.set_pointer, month, session.uaid, pointer))
    else:
        # The last of its batch will move the pointer past it.
        del stored[key]


def _pointer_is_held(session: Session) -> bool:
    """Whether a direct notification not yet acknowledged sorts before what was read.

    Rows written during a batch sort after it, so this can only become false meanwhile: either
    all rows of the batch are deleted or the pointer moves past the rest in the end.
    """
    limit = direct.pointer_limit(session)
    return limit is not None and session.pointer is not None and limit <= session.pointer


def _settle(session: Session, key: direct.Key, done: Deferred[Any]) -> None:
    """Keep a notification outstanding until storage knows: no fetch may bring it again."""
    if not session.settling:
        session.settling = set()
        session.hold_reading()
    settling = session.settling
    assert settling is not None
    settling.add(key)
    done.addCallback(_settled, session, key)


def _settled(result: object, session: Session, key: direct.Key) -> None:
    assert session.settling is not None and session.stored is not None
    session.settling.discard(key)
    session.stored.pop(key, None)
    if session.state >= State.CLOSING:
        return
    if result is GIVEN_UP:
        session.close()
        return
    if not session.settling:
        session.release_reading()
        drain.advance(session)
