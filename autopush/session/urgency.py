"""Which messages a user agent wants at once: those of an urgency, or more (spec/broadcasts 2).

The others are stored, and wait until it asks for less. What it asks for is in the user's record, so
that endpoint nodes don't even send the others here, and that it lasts until a hello says
something else. Nodes of 1.58.3 don't look at that, and send all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from autopush.db.interface import Connection, User
from autopush.exceptions import StoreError
from autopush.message.urgency import NAMES, VERY_LOW, least_of, level_of
from autopush.session.background import GIVEN_UP
from autopush.session.errors import MORE_INFO
from autopush.session.events import identity, log
from autopush.types import JSONDict

if TYPE_CHECKING:
    from autopush.message.notification import WebPushNotification
    from autopush.session.session import BaseSession

INVALID: JSONDict = {
    "messageType": "urgency",
    "status": 400,
    "more_info": MORE_INFO,
    "reason": "min must be very-low, low, normal or high",
}

OVERLOADED: JSONDict = {"messageType": "urgency", "status": 503, "reason": "overloaded"}

SERVER_ERROR: JSONDict = {
    "messageType": "urgency",
    "status": 500,
    "reason": "An unexpected server error occurred",
}


def asked(message: JSONDict) -> int:
    """What a hello asks for; everything, if nothing, or nothing we know."""
    return level_of(message.get("urgency")) or VERY_LOW


def begin(session: BaseSession, record: User, message: JSONDict) -> None:
    """What a user that is back gets: what its record says, unless the hello says something else."""
    wanted = level_of(message.get("urgency"))
    session.least = least_of(record) if wanted is None else wanted


def note(session: BaseSession, record: User) -> None:
    """Write into the record what the hello has said, if that is news."""
    least = least_of(record)
    if session.least != least:
        noted = session.node.background.persist(_note, session, session.least)
        noted.addCallback(_noted, session, session.least < least)


def change(session: BaseSession, message: JSONDict) -> None:
    """``urgency``: another minimum. Answered when it is in the record."""
    least = level_of(message.get("min"))
    if least is None:
        session.wire.send(INVALID)
        return
    Deferred.fromCoroutine(_change(session, least))


def withheld(session: BaseSession, notification: WebPushNotification) -> bool:
    """Whether a stored message, which has just been read, is to wait. No pointer may pass it."""
    if notification.urgency >= session.least:
        return False
    stamp = notification.sortkey_timestamp
    if stamp is not None and (session.withheld is None or stamp < session.withheld):
        session.withheld = stamp
    return True


def _note(session: BaseSession, least: int) -> Deferred[bool]:
    node = session.node
    assert session.uaid is not None
    connection = Connection(node.router_url, session.connected_at)
    return node.store.set_urgency(session.uaid, NAMES[least], connection)


def _noted(result: Any, session: BaseSession, lowered: bool) -> None:
    if lowered and result is not GIVEN_UP and session.registered:
        session.check()


async def _change(session: BaseSession, least: int) -> None:
    session.hold_reading()
    try:
        if session.recorded:  # else it is written with the first channel
            await _note(session, least)
    except StoreError as error:
        log.warn("Failed to note urgency", reason=repr(error), **identity(session))
        session.wire.send(OVERLOADED)
    except Exception:
        log.failure("Unexpected error", extra="Failed to note urgency")
        session.wire.send(SERVER_ERROR)
    else:
        lowered = least < session.least
        session.least = least
        session.wire.send({"messageType": "urgency", "status": 200})
        _noted(None, session, lowered)
    session.release_reading()
