"""The end of a connection (spec/websocket 14)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, succeed

from autopush.session import direct, peers, settle
from autopush.session.events import enabled, log
from autopush.session.outstanding import Direct
from autopush.session.records import number
from autopush.session.states import State
from autopush.session.stats import base_tags, session_fields
from autopush.session.wire import NO_WIRE
from autopush.waiters import follow

if TYPE_CHECKING:
    from autopush.db.interface import User
    from autopush.session.session import BaseSession


def begin(session: BaseSession) -> None:
    """The session takes nothing any more: save what was not acknowledged.

    Now, and not when TCP ends: the user agent may be connected again long before that.
    """
    if session.uaid is None:
        return
    settle.flush(session)
    owed = direct.unacknowledged(session)
    session.direct_storage += len(owed)
    if not owed and not session.row_operations:
        return
    saved: Deferred[None] = Deferred()
    session.saved = saved
    session.node.saving.add(session)
    session.node.background.watch(Deferred.fromCoroutine(_save(session, owed, saved)))


def closed(session: BaseSession) -> Deferred[None]:
    """Clean up once TCP has ended; may be called again.

    :returns: fires when nothing of the session is left to be saved
    """
    if session.state is not State.CLOSED:
        session.close()
        session.to(State.CLOSED)
        session.wire = NO_WIRE
        session.queue = None
        if session.uaid is not None:
            _report(session)
    if session.saved is None or session.saved.called:
        return succeed(None)
    return follow(session.saved)


def _report(session: BaseSession) -> None:
    node = session.node
    seconds = max(0.0, node.now() - session.connected_at / 1000)
    if node.metered:
        node.metrics.timing("ua.connection.lifespan", seconds, tags=base_tags(session))
    if not node.stopping and enabled("info"):
        log.info("Session", **session_fields(session, int(seconds)))


async def _save(session: BaseSession, owed: list[Direct], saved: Deferred[None]) -> None:
    """Store what only this session knows, then let the connection that follows look for it."""
    node = session.node
    record: User | None = None
    try:
        for entry in owed:
            if not entry.row:
                direct.renew(entry.notification)
        await _store(session, owed)
        await session.row_operations_done()
        record = await _record(session) if owed else None
        month = record.get("current_month") if record else None
        if month and month != session.month:
            # Moved while this was stored: nobody may be reading the old month any more (S17).
            carry = node.store.carry_late
            await node.background.persist(carry, session.uaid, session.month, month)
        session.direct = None
    finally:
        node.saving.discard(session)
        saved.callback(None)
    if record is not None:
        await _tell_successor(session, record)


async def _store(session: BaseSession, owed: list[Direct]) -> None:
    node = session.node
    writes = [
        node.background.persist(node.store.restore_message, session.month, entry.notification)
        for entry in _latest(owed)
        if not entry.row
    ]
    for write in writes:
        await write


def _latest(owed: list[Direct]) -> Iterable[Direct]:
    """Without those that another one of the same topic has replaced."""
    places: dict[object, Direct] = {}
    for entry in owed:
        notification = entry.notification
        topic = notification.topic
        places[(notification.channel_id, topic) if topic else id(entry)] = entry
    return places.values()


async def _record(session: BaseSession) -> User | None:
    """The record as it is by now; None also if it can't be read."""
    assert session.uaid is not None
    try:
        return await session.node.store.get_user(session.uaid)
    except Exception:
        log.failure("Unexpected error", extra="Failed to get UAID for redeliver")
        return None


async def _tell_successor(session: BaseSession, record: User) -> None:
    """The user agent may have connected again, here or elsewhere, before all was stored."""
    node = session.node
    assert session.uaid is not None
    if not record.get("node_id"):
        return
    if number(record.get("connected_at")) == session.connected_at:
        return
    if record["node_id"] == node.router_url:
        node.check(session.uaid)
    else:
        await peers.notify(node, record["node_id"], session.uaid)
