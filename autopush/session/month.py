"""Monthly transition (spec/websocket 15): a drained user moves to the current message table."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from autopush.db.interface import Connection
from autopush.exceptions import StoreBusy
from autopush.session.events import log
from autopush.session.states import State

if TYPE_CHECKING:
    from autopush.session.session import BaseSession

RETRY = (1, 1800)
"""Seconds, lower limit and upper limit (exclusive), before a throttled transition is tried
again: all users of the old month want to move in the same days."""


def is_later(month: str, other: str) -> bool:
    """Whether a table is one of a later month with the same prefix.

    A node whose month has not changed yet leaves users of one that is ahead where they are.
    """
    return month[:-8] == other[:-8] and len(month) == len(other) and month > other


def begin(session: BaseSession, resume: Callable[[BaseSession], None]) -> None:
    """Move to the current month; commands wait until that is done.

    :param resume: begins a pass over what is stored, in the new month or once more in the old one
    """
    session.to(State.MOVING_MONTH)
    Deferred.fromCoroutine(_move(session, resume))


async def _move(session: BaseSession, resume: Callable[[BaseSession], None]) -> None:
    store = session.node.store
    assert session.uaid is not None
    try:
        # A row that is written or deleted while it is carried over would be lost or come back.
        await session.row_operations_done()
        new = store.months.current
        if session.state is State.MOVING_MONTH and new != session.month:
            move = session.node.moves.note(session.uaid, session.month, new)
            connection = Connection(session.node.router_url, session.connected_at)
            known = move.known = await store.move_month(
                session.uaid, session.month, new, connection
            )
            if known is None:
                # Nothing is sent here any more: another node has the user, or nobody knows it.
                session.close()
                return
    except StoreBusy:
        if session.state is State.MOVING_MONTH:
            session.to(State.LIVE)
            session.start_timer(session.node.randrange(*RETRY), resume)
            session.replay()
        return
    except Exception:
        log.failure("Unexpected error")
        session.close()
        return
    if session.state is State.MOVING_MONTH:
        session.month = new
        session.rotate = False
        session.position = session.passed = None
        # What was stored in either month meanwhile is in the new one now (quirk Q19).
        resume(session)
        session.replay()
