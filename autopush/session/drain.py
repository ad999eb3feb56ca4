"""The stored notification loop (spec/websocket 9).

A pass reads topic messages until there are none, then timestamped ones. Each batch is sent and
must be acknowledged completely before the next is fetched. One fetch runs at a time, and one
check at most is remembered (quirks Q17, Q18).
"""

from __future__ import annotations

import math
from collections.abc import Container
from typing import TYPE_CHECKING
from uuid import UUID

from twisted.internet.defer import Deferred

from autopush.exceptions import StoreBusy
from autopush.session import direct, ends, month, settle, urgency
from autopush.session.events import identity, log, sent
from autopush.session.states import State
from autopush.types import JSONDict

if TYPE_CHECKING:
    from autopush.db.interface import Batch
    from autopush.message.notification import WebPushNotification
    from autopush.session.session import BaseSession

DRAINING_TOPICS, DRAINING_TIMESTAMPED = State.DRAINING_TOPICS, State.DRAINING_TIMESTAMPED
LIVE, CLOSING = State.LIVE, State.CLOSING

PAGE = 10
"""Rows a fetch asks for (spec/storage 10); the channel row counts among topics, so 9 of those."""

CHECK_DELAY = 1.0
"""Seconds between a pass and the one that was asked for meanwhile."""

ROUNDS = 20
"""Fetches in a row before the reactor gets its turn: a store may answer at once, and a user may
have thousands of expired rows."""


def check(session: BaseSession) -> None:
    """Something was stored for this user: make sure that a full pass comes."""
    session.check_wanted = True
    if session.fetching:
        session.stale = True
    if session.state is LIVE:
        start(session)


def start(session: BaseSession) -> None:
    """Begin a full pass."""
    session.cancel_timer()
    session.check_wanted = False
    _begin_pass(session)
    advance(session)


def _begin_pass(session: BaseSession) -> None:
    """From the first row that may be there: a message may have been stored behind others that were
    acknowledged since, and whose rows no longer tell (spec/storage 17.6)."""
    session.to(DRAINING_TOPICS)
    settle.flush(session)
    session.position = session.passed
    session.withheld, session.topics_read = None, ""


def advance(session: BaseSession) -> None:
    """Do what comes next, if nothing is in the way: the follow-up of spec/websocket 10."""
    if session.fetching or session.stored or session.settling:
        return
    if session.wire.output_paused:
        return  # called again when it no longer is
    state = session.state
    if state is LIVE:
        if session.check_wanted:
            start(session)
    elif session.timer is None and DRAINING_TOPICS <= state <= DRAINING_TIMESTAMPED:
        session.fetching = True
        Deferred.fromCoroutine(_drain(session))


async def _drain(session: BaseSession) -> None:
    """Fetch until there is something to wait for."""
    over = False
    try:
        for _ in range(ROUNDS):
            if not await _round(session):
                break
            if session.state is LIVE:
                over = True
                break
        else:
            session.start_timer(0, advance)
    except StoreBusy:
        session.start_timer(session.node.randrange(5, 60), advance)
    except Exception:
        if session.state < CLOSING:
            log.failure("Unexpected error")
            session.close()
    finally:
        session.fetching = False
        direct.forget_gone(session)
    if over:
        _pass_over(session)


async def _round(session: BaseSession) -> bool:
    """One fetch and what follows from it; whether to go on at once."""
    if session.wire.output_paused:
        return False
    topics = session.state is DRAINING_TOPICS
    limit = PAGE + direct.unpaged(session)
    session.stale = False
    batch = await _fetch(session, topics, limit)
    if _interrupted(session):
        return False
    messages = batch.messages
    new = [n for n in messages if not direct.holds(session, (str(n.channel_id), n.version))]
    direct.forget_gone(session)
    ended = await ends.among(session, new) if new else ()
    if _interrupted(session):
        return False
    moved = _move_on(session, batch, topics)
    live, removals = _sort_out(session, new, ended)
    if topics and session.least:
        _skip_topics(session, messages)
    if live:
        _send_live(session, live)
        return False
    settle.flush(session)
    for removal in removals:
        await removal
    if session.state >= CLOSING:
        return False
    if len(messages) < limit - 1 if topics else not moved and len(messages) < limit:
        _next_phase(session, topics, batch.is_all)
    return True


def _interrupted(session: BaseSession) -> bool:
    """Whether what was read is of no use any more: it will be read again, here or elsewhere."""
    return session.state >= CLOSING or session.wire.output_paused


def _move_on(session: BaseSession, batch: Batch, topics: bool) -> bool:
    """Go to where this batch has been read to; whether that is further than before."""
    stamp = batch.timestamp
    if stamp is None or stamp <= (session.position or 0):
        return False
    session.position = stamp
    if topics:
        session.passed = stamp
    elif not any(n.sortkey_timestamp == stamp for n in batch.messages):
        settle.passed(session, stamp)  # expired, so that it was not even read
    return True


def _skip_topics(session: BaseSession, messages: list[WebPushNotification]) -> None:
    """Don't read again, in this pass, the topics at its beginning that aren't urgent enough."""
    for notification in messages:
        if notification.urgency >= session.least:
            break
        session.topics_read = notification.sort_key


def _next_phase(session: BaseSession, topics: bool, is_all: bool) -> None:
    """The last page of this phase of the pass was read.

    :param is_all: whether nothing was there for the next phase
    """
    if session.stale:
        # Something was stored while this was fetched; it may have been read too early.
        session.check_wanted = False
        _begin_pass(session)
    else:
        session.to(DRAINING_TIMESTAMPED if topics else LIVE)
        if topics and is_all:
            session.to(LIVE)


async def _fetch(session: BaseSession, topics: bool, limit: int) -> Batch:
    store = session.node.store
    assert session.uaid is not None
    if not topics:
        return await store.fetch_since(session.month, session.uaid, session.position, limit)
    read = session.topics_read
    if read:
        return await store.fetch_topics(session.month, session.uaid, limit, read)
    batch = await store.fetch_topics(session.month, session.uaid, limit)
    if batch.channels is not None and batch.channels.exists:
        session.channels = frozenset(batch.channels.chids)
    return batch


def _sort_out(
    session: BaseSession, messages: list[WebPushNotification], ended: Container[UUID]
) -> tuple[list[WebPushNotification], list[Deferred[None]]]:
    """Those to be sent, and the deletions of others that are under way."""
    now = int(session.node.now())
    live: list[WebPushNotification] = []
    removals = []
    for notification in messages:
        if notification.channel_id in ended or _comes_again(session, notification):
            removals.append(settle.discard(session, notification))
            continue
        over = notification.expired(now)
        if session.least and not over and urgency.withheld(session, notification):
            continue
        session.stored_retrieved += 1
        if not over:
            live.append(notification)
        elif notification.sortkey_timestamp is None:
            removals.append(settle.discard(session, notification))
        else:
            settle.passed(session, notification.sortkey_timestamp)
    return live, [removal for removal in removals if removal is not None]


def _comes_again(session: BaseSession, notification: WebPushNotification) -> bool:
    """Whether this connection has acknowledged it already (see :mod:`autopush.session.recent`)."""
    return session.node.recent.has(notification.version, session.connected_at)


def _send_live(session: BaseSession, messages: list[WebPushNotification]) -> None:
    node = session.node
    stored = session.stored
    if stored is None:
        stored = session.stored = {}
    frames: list[JSONDict] = []
    for notification in messages:
        key = (str(notification.channel_id), notification.version)
        if key in stored:
            # The first of two rows counts; the other one goes with it.
            settle.discard(session, notification)
            continue
        stored[key] = notification
        session.sent_count += _is_backlog(session, notification)
        if session.sent_count > (node.conf.msg_limit or math.inf):
            log.debug("Too many messages", **identity(session))
            session.wire.send_all(frames)
            drop_user(session)
            return
        frames.append(notification.websocket_format())
        if node.metered:
            sent(node, notification, "Stored")
    session.wire.send_all(frames)


def _is_backlog(session: BaseSession, notification: WebPushNotification) -> bool:
    """Whether it has piled up while its user agent was away: this is what ``msg_limit`` counts."""
    return not notification.live and notification.timestamp * 1000 < session.connected_at


def _pass_over(session: BaseSession) -> None:
    """Nothing is left (spec/websocket 9.2 step 3)."""
    session.sent_count = 0
    session.channels = None
    if session.check_wanted:
        session.check_wanted = False
        session.start_timer(CHECK_DELAY, start)
    elif session.reset_uaid:
        drop_user(session)
    elif session.rotate:
        month.begin(session, start)


def drop_user(session: BaseSession) -> None:
    """Drop the record, so that the user agent gets a new UAID and registers again; close."""
    node = session.node
    node.background.persist(node.store.drop_user, session.uaid)
    session.close()
