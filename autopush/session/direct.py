"""Notifications sent at once, without storage in between (spec/websocket 11).

Each is kept until the user agent acknowledges it. With ``store_direct`` it is stored as well,
so that it survives the process: its row is written while the frame is on its way, deleted when
it is acknowledged, and must not be sent a second time by the stored loop meanwhile, nor be
left behind by the read pointer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.python.failure import Failure

from autopush.clock import ns_time
from autopush.session.events import sent
from autopush.session.outstanding import (
    AWAITED,
    CROSSING,
    DELETING,
    DONE,
    NONE,
    STORED,
    UNSURE,
    WRITING,
    Direct,
    Key,
)
from autopush.types import JSONDict

if TYPE_CHECKING:
    from autopush.message.notification import WebPushNotification
    from autopush.session.session import BaseSession


def send(session: BaseSession, notification: WebPushNotification) -> None:
    """Send and remember until acknowledged.

    :raises Exception: the notification has no valid frame; nothing was sent or remembered.
    """
    frame = notification.websocket_format()
    _remember(session, frame, Direct(notification, NONE))
    session.wire.send(frame)


def send_and_store(session: BaseSession, notification: WebPushNotification) -> Deferred[Any]:
    """Send and store at the same time; fires when the row is durable.

    :raises StoreError: as the Deferred's failure. It was sent all the same, and is saved at the
        end of the session unless acknowledged.
    """
    frame = notification.websocket_format()
    _place(session, notification)
    entry = Direct(notification, WRITING)
    key = _remember(session, frame, entry)
    session.row_operations += 1
    try:
        stored = session.node.store.store_message(session.month, notification)
    except Exception:
        stored = fail()
    stored.addBoth(_written, session, key, entry)
    session.wire.send(frame)
    return stored


def acknowledged(session: BaseSession, key: Key, entry: Direct) -> None:
    """Let go of an entry just taken from ``session.direct``, and of its row."""
    if not entry.row:
        return
    writing = entry.row is WRITING
    if writing and session.node.store.take_back(session.month, entry.notification):
        entry.row = DONE
        return
    entry.row = CROSSING if writing else DELETING
    if session.leaving is None:
        session.leaving = {}
    session.leaving[key] = entry
    _delete(session, key, entry)


def unregistered(session: BaseSession, chid: str) -> None:
    """Forget what was sent to a channel that is no more."""
    direct = session.direct
    if direct:
        for key in [key for key in direct if key[0] == chid]:
            acknowledged(session, key, direct.pop(key))


def holds(session: BaseSession, key: Key) -> bool:
    """Whether a stored row is one of ours, and so must not be sent again."""
    if session.direct is not None and key in session.direct:
        return True
    return session.leaving is not None and key in session.leaving


def forget_gone(session: BaseSession) -> None:
    """No fetch is running that could bring back rows deleted since it started."""
    if session.leaving:
        kept = {key: entry for key, entry in session.leaving.items() if entry.kept}
        session.leaving = kept or None


def pointer_limit(session: BaseSession) -> int | None:
    """Sort-key timestamp the stored read pointer must stay below, so that a row that was not
    acknowledged is read again by the next connection."""
    if not session.direct:
        return None
    stamps = [
        entry.notification.sortkey_timestamp
        for entry in session.direct.values()
        if entry.row and entry.paged
    ]
    return min((stamp for stamp in stamps if stamp is not None), default=None)


def unpaged(session: BaseSession) -> int:
    """How many of our rows, at most, each fetch brings again, whatever was read before.

    Counts also those we did not store: a sender that got no answer may have.
    """
    count = 0
    for entries in (session.direct, session.leaving):
        if entries:
            count += sum(1 for entry in entries.values() if not entry.paged)
    return count


def unacknowledged(session: BaseSession) -> list[Direct]:
    """What a session that ends owes its user: all that is not of the moment only (TTL 0)."""
    if not session.direct:
        return []
    return [entry for entry in session.direct.values() if entry.notification.ttl != 0]


def renew(notification: WebPushNotification) -> None:
    """Give a notification that is stored late a place after everything read before."""
    if not (notification.topic or notification.legacy):
        notification.sortkey_timestamp = ns_time()


def _remember(session: BaseSession, frame: JSONDict, entry: Direct) -> Key:
    direct = session.direct
    if direct is None:
        direct = session.direct = {}
    key = (frame["channelID"], frame["version"])
    direct[key] = entry
    if session.node.metered:
        sent(session.node, entry.notification, "Direct")
    return key


def _place(session: BaseSession, notification: WebPushNotification) -> None:
    """See to it that the row sorts after all this session has read."""
    if notification.topic or notification.legacy:
        return
    stamp = notification.sortkey_timestamp
    if stamp is None:
        stamp = notification.sortkey_timestamp = ns_time()
    if session.position is not None and stamp <= session.position:
        # Another node's clock is ahead. ns_time never repeats, so neither does its remainder
        # within a second: two rows of a channel don't get the same key.
        notification.sortkey_timestamp = session.position + 1 + ns_time() % 1_000_000


def _written(result: object, session: BaseSession, key: Key, entry: Direct) -> object:
    row = entry.row
    if row is WRITING:
        # That nobody waits any more for it doesn't mean that it isn't written.
        failed = isinstance(result, Failure) and not result.check(CancelledError)
        entry.row = NONE if failed else STORED
    elif row is CROSSING:
        entry.row = UNSURE
    elif row is AWAITED:
        entry.row = DELETING
        _delete(session, key, entry)
    session.row_operation_done()
    return result


def _delete(session: BaseSession, key: Key, entry: Direct) -> None:
    session.row_operations += 1
    node = session.node
    done = node.background.persist(node.store.delete_message, session.month, entry.notification)
    done.addCallback(_deleted, session, key, entry)


def _deleted(found: object, session: BaseSession, key: Key, entry: Direct) -> None:
    if entry.row is CROSSING and found is not True:
        entry.row = AWAITED
    elif entry.row is UNSURE and found is not True:
        entry.row = DELETING
        _delete(session, key, entry)
    else:
        entry.row = DONE
        leaving = session.leaving
        if leaving and not session.fetching and leaving.get(key) is entry:
            del leaving[key]
            session.leaving = leaving or None
    session.row_operation_done()
