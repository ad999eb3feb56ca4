"""The end of a connection (websocket.md 14)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, succeed

from autopush.session import direct, peers
from autopush.session.events import enabled, log
from autopush.session.records import number
from autopush.session.states import State
from autopush.session.stats import base_tags, session_fields
from autopush.session.wire import GONE

if TYPE_CHECKING:
    from autopush.session.session import Session


def run(session: Session) -> Deferred[None]:
    """Clean up once TCP has ended; fires when un-acknowledged notifications are saved."""
    session.close()
    session.state = State.CLOSED
    session.wire = GONE
    session.queue = None
    if session.uaid is None:
        return succeed(None)
    owed = direct.unacknowledged(session)
    session.direct_storage += len(owed)
    _report(session)
    if not owed:
        return succeed(None)
    saved: Deferred[None] = Deferred()
    session.saved = saved
    session.node.saving.add(session)
    work = Deferred.fromCoroutine(_save(session, owed, saved))
    session.node.background.watch(work)
    return saved


def _report(session: Session) -> None:
    node = session.node
    seconds = max(0.0, node.now() - session.connected_at / 1000)
    if node.metered:
        node.metrics.timing("ua.connection.lifespan", seconds, tags=base_tags(session))
    if not node.stopping and enabled("info"):
        log.info("Session", **session_fields(session, int(seconds)))


async def _save(session: Session, owed: list[direct.Direct], saved: Deferred[None]) -> None:
    """Store what only this session knows, then let the connection that follows look for it."""
    node = session.node
    try:
        writes = []
        for entry in owed:
            if not entry.row:
                direct.renew(entry.notification)
                store = node.store.store_message
                writes.append(node.background.persist(store, session.month, entry.notification))
        for write in writes:
            await write
        await session.row_operations_done()
        session.direct = None
    finally:
        node.saving.discard(session)
        saved.callback(None)
    await _tell_successor(session)


async def _tell_successor(session: Session) -> None:
    """The user agent may have connected again, here or elsewhere, before all was stored."""
    node = session.node
    assert session.uaid is not None
    try:
        record = await node.store.get_user(session.uaid)
    except Exception:
        log.failure("Unexpected error", extra="Failed to get UAID for redeliver")
        return
    if record is None or not record.get("node_id"):
        return
    if number(record.get("connected_at")) == session.connected_at:
        return
    if record["node_id"] == node.router_url:
        node.check(session.uaid)
    else:
        await peers.notify(node, record["node_id"], session.uaid)
