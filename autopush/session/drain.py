"""The stored notification loop (websocket.md 9).

A pass reads topic messages until there are none, then timestamped ones. Each batch is sent and
must be acknowledged completely before the next is fetched. One fetch runs at a time, and one
check at most is remembered (quirks Q17, Q18).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from autopush.exceptions import StoreBusy, StoreError
from autopush.session import direct, month
from autopush.session.background import GIVEN_UP
from autopush.session.events import identity, log, sent
from autopush.session.states import State

if TYPE_CHECKING:
    from autopush.notification import WebPushNotification
    from autopush.session.session import Session

DRAINING_TOPICS, DRAINING_TIMESTAMPED = State.DRAINING_TOPICS, State.DRAINING_TIMESTAMPED
LIVE, CLOSING = State.LIVE, State.CLOSING

PAGE = 10
"""Rows a fetch asks for (storage.md 10); the channel row counts among topics, so 9 of those."""

CHECK_DELAY = 1.0
"""Seconds between a pass and the one that was asked for meanwhile."""

ROUNDS = 20
"""Fetches in a row before the reactor gets its turn: a store may answer at once, and a user may
have thousands of expired rows."""


def check(session: Session) -> None:
    """Something was stored for this user: make sure that a full pass comes."""
    session.check_wanted = True
    if session.fetching:
        session.stale = True
    if session.state is LIVE:
        start(session)


def start(session: Session) -> None:
    """Begin a full pass."""
    session.cancel_timer()
    session.check_wanted = False
    session.state = DRAINING_TOPICS
    advance(session)


def advance(session: Session) -> None:
    """Do what comes next, if nothing is in the way: the follow-up of websocket.md 10."""
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


async def _drain(session: Session) -> None:
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


async def _round(session: Session) -> bool:
    """One fetch and what follows from it; whether to go on at once."""
    if session.wire.output_paused:
        return False
    store = session.node.store
    assert session.uaid is not None
    topics = session.state is DRAINING_TOPICS
    limit = PAGE + direct.unpaged(session)
    session.stale = False
    if topics:
        batch = await store.fetch_topics(session.month, session.uaid, limit)
    else:
        batch = await store.fetch_since(session.month, session.uaid, session.pointer, limit)
    if session.state >= CLOSING or session.wire.output_paused:
        return False
    messages = batch.messages
    new = [n for n in messages if not direct.holds(session, (str(n.channel_id), n.version))]
    fresh = [n for n in new if not _comes_again(session, n)]
    direct.forget_gone(session)
    moved = batch.timestamp is not None and batch.timestamp > (session.pointer or 0)
    if moved:
        session.pointer = batch.timestamp
    if fresh:
        return await _send(session, fresh)
    if new and moved:
        _pass_pointer(session)
    last_page = len(messages) < limit - 1 if topics else not moved and len(messages) < limit
    if last_page and session.stale:
        # Something was stored while this was fetched; it may have been read too early.
        session.check_wanted = False
        session.state = DRAINING_TOPICS
    elif last_page:
        session.state = DRAINING_TIMESTAMPED if topics else LIVE
    return True


def _comes_again(session: Session, notification: WebPushNotification) -> bool:
    """Whether this connection has acknowledged it already (see :mod:`autopush.session.recent`).

    Such a row is left where it is: who stores a message finds its place by what is there
    (storage.md 17.6). Rows of topics have one place only.
    """
    return notification.sortkey_timestamp is not None and session.node.recent.has(
        notification.version, session.connected_at
    )


async def _send(session: Session, messages: list[WebPushNotification]) -> bool:
    """Send a batch; whether to fetch the next one at once, as nothing of this was sent."""
    node = session.node
    now = int(node.now())
    session.stored_retrieved += len(messages)
    expired = [n for n in messages if n.expired(now)]
    removals = [
        node.background.persist(node.store.delete_message, session.month, n)
        for n in expired
        if n.sortkey_timestamp is None
    ]
    if len(expired) < len(messages):
        gone = set(map(id, expired))
        _send_live(session, [n for n in messages if id(n) not in gone])
        return False
    if session.state is DRAINING_TIMESTAMPED:
        _pass_pointer(session)
    for removal in removals:
        if await removal is GIVEN_UP:
            raise StoreError("An expired message can't be deleted")
    return session.state < CLOSING


def _send_live(session: Session, messages: list[WebPushNotification]) -> None:
    node = session.node
    stored = session.stored
    if stored is None:
        stored = session.stored = {}
    for notification in messages:
        key = (str(notification.channel_id), notification.version)
        if key in stored:
            # The first of two rows counts: acknowledging the last of a batch would move the pointer
            # past all of it (websocket.md 10).
            continue
        stored[key] = notification
        session.sent_count += _is_backlog(session, notification)
        if session.sent_count > (node.conf.msg_limit or math.inf):
            log.debug("Too many messages", **identity(session))
            drop_user(session)
            return
        frame = notification.websocket_format()
        if node.metered:
            sent(session, notification, "Stored")
        session.wire.send(frame)


def _is_backlog(session: Session, notification: WebPushNotification) -> bool:
    """Whether it has piled up while its user agent was away: this is what ``msg_limit`` counts."""
    return not notification.live and notification.timestamp * 1000 < session.connected_at


def _pass_pointer(session: Session) -> None:
    """Remember that everything so far was read, as there is nothing to acknowledge."""
    pointer = session.pointer
    limit = direct.pointer_limit(session)
    if pointer is not None and (limit is None or pointer < limit):
        node = session.node
        node.background.persist(node.store.set_pointer, session.month, session.uaid, pointer)


def _pass_over(session: Session) -> None:
    """Nothing is left (websocket.md 9.2 step 3)."""
    session.sent_count = 0
    if session.check_wanted:
        session.check_wanted = False
        session.start_timer(CHECK_DELAY, start)
    elif session.reset_uaid:
        drop_user(session)
    elif session.rotate:
        month.begin(session)


def drop_user(session: Session) -> None:
    """Drop the record, so that the user agent gets a new UAID and registers again; close."""
    node = session.node
    node.background.persist(node.store.drop_user, session.uaid)
    session.close()
