"""How storage learns what was acknowledged (spec/websocket 10).

Where the store says that it is cheap (:attr:`~autopush.db.interface.Store.deletes_read`), rows are
deleted. Elsewhere that of a topic message is, and for the others a pointer moves over the
acknowledged beginning only, in one write however many that are, and what is acknowledged behind
something that is not is deleted by itself::

    rows      1   2   3   4   5   6    o acknowledged, expired, or there for the second time
              o   o   -   o   -   o    - not acknowledged
    pointer ──────┘       └───────┴─── deleted

The pointer may only come to rest on a row that stays: who stores a message late finds its place by
the rows that are there (spec/storage 17.6). So a row that was deleted by itself is none to move to.

An acknowledgement is *processed* when its write is durable. That write begins at once when it was
the last of its batch, else within :data:`GATHER`, or in the next turn of the event loop where rows
are deleted, and at the end of the session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from autopush.session import direct
from autopush.session.background import GIVEN_UP
from autopush.session.events import log
from autopush.session.outstanding import Done, Key
from autopush.session.states import State

if TYPE_CHECKING:
    from autopush.message.notification import WebPushNotification
    from autopush.session.session import BaseSession

GATHER = 0.1
"""Seconds in which the acknowledgements of a batch may come together, to share one write where the
pointer is used: browsers send one message each."""


def acknowledged(session: BaseSession, key: Key, notification: WebPushNotification) -> None:
    """Note that a stored notification was acknowledged; :func:`settle` makes that last."""
    if session.settling is None:
        session.settling = set()
    session.settling.add(key)
    stamp = notification.sortkey_timestamp
    if session.node.store.deletes_read:
        _done(session, Done(stamp or 0, notification, key))
    elif stamp is None:
        _write(session, [key], _delete(session, notification))
    else:
        _done(session, Done(stamp, notification, key))


def discard(session: BaseSession, notification: WebPushNotification) -> Deferred[None] | None:
    """Get rid of a row that was read but is not to be sent.

    :returns: fires when it is deleted, or can't be, which closes the connection; None where
        :func:`flush` will see to it
    """
    stamp = notification.sortkey_timestamp
    if stamp is None or session.node.store.deletes_read:
        return _write(session, [], _delete(session, notification))
    _done(session, Done(stamp, notification, None))
    return None


def passed(session: BaseSession, stamp: int | None) -> None:
    """Note that a timestamped row is over and may be passed by the pointer: it has expired."""
    if stamp is not None and not session.node.store.deletes_read:
        _done(session, Done(stamp, None, None))


def settle(session: BaseSession) -> None:
    """Write what was noted: at once if nothing of the batch is outstanding any more, else soon."""
    if not session.done:
        return
    if not _outstanding(session):
        flush(session)
    elif session.gathering is None:
        delay = 0 if session.node.store.deletes_read else GATHER
        session.gathering = session.node.clock.callLater(delay, _gathered, session)


def flush(session: BaseSession) -> None:
    """Write what was noted, now."""
    if session.gathering is not None:
        session.gathering.cancel()
        session.gathering = None
    done, session.done = session.done, None
    if not done:
        return
    if session.node.store.deletes_read:
        _delete_all(session, done)
        return
    limit = _limit(session)
    beginning = [row for row in done if limit is None or row.stamp < limit]
    node = session.node
    if beginning:
        pointer = max(row.stamp for row in beginning)
        session.passed = max(pointer, session.passed or 0)
        persist, store = node.background.persist, node.store
        _write(
            session,
            [row.key for row in beginning if row.key is not None],
            persist(store.set_pointer, session.month, session.uaid, pointer),
        )
    for row in done:
        if limit is not None and row.stamp >= limit and row.notification is not None:
            keys = [] if row.key is None else [row.key]
            _write(session, keys, _delete(session, row.notification))


def _delete_all(session: BaseSession, done: list[Done]) -> None:
    node = session.node
    rows = [row.notification for row in done if row.notification is not None]
    _write(
        session,
        [row.key for row in done if row.key is not None],
        node.background.persist(node.store.delete_messages, session.month, rows),
    )


def _done(session: BaseSession, row: Done) -> None:
    if session.done is None:
        session.done = []
    session.done.append(row)


def _gathered(session: BaseSession) -> None:
    session.gathering = None
    try:
        flush(session)
    except Exception:
        log.failure("Unexpected error")
        session.close()


def _outstanding(session: BaseSession) -> bool:
    stored, settling = session.stored, session.settling
    return bool(stored) and len(stored or ()) > len(settling or ())


def _limit(session: BaseSession) -> int | None:
    """Timestamp of the first row that was read but not acknowledged, or not sent because it is not
    urgent enough; None if all were."""
    settling = session.settling or ()
    stamps = [
        notification.sortkey_timestamp
        for key, notification in (session.stored or {}).items()
        if key not in settling
    ]
    stamps.append(direct.pointer_limit(session))
    stamps.append(session.withheld)
    return min((stamp for stamp in stamps if stamp is not None), default=None)


def _delete(session: BaseSession, notification: WebPushNotification) -> Deferred[object]:
    node = session.node
    return node.background.persist(node.store.delete_message, session.month, notification)


def _write(session: BaseSession, keys: list[Key], done: Deferred[object]) -> Deferred[None]:
    """Keep notifications outstanding until storage knows: no fetch may bring them again."""
    session.row_operations += 1
    if keys:
        session.ack_writes += 1
        if session.ack_writes == 1 and session.state < State.CLOSING:
            session.hold_reading()
    return done.addCallback(_written, session, keys)


def _written(result: object, session: BaseSession, keys: list[Key]) -> None:
    stored, settling = session.stored, session.settling
    for key in keys:
        if settling is not None:
            settling.discard(key)
        if stored is not None:
            stored.pop(key, None)
    if keys:
        session.ack_writes -= 1
    session.row_operation_done()
    if session.state >= State.CLOSING:
        return
    if result is GIVEN_UP:
        session.close()
    elif keys and not session.ack_writes:
        session.release_reading()
        session.advance()
