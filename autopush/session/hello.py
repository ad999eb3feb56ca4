"""hello: who is this user agent? (spec/websocket 5.1 and 7)"""

from __future__ import annotations

import contextlib
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.internet.defer import Deferred

from autopush.db.interface import MOVING_FROM, User
from autopush.exceptions import StoreError
from autopush.ids import parse_uuid, validate_uaid
from autopush.session import peers, records, upkeep, urgency
from autopush.session.errors import hello_error
from autopush.session.events import enabled, for_people, identity, log, took
from autopush.session.month import is_later
from autopush.session.states import State
from autopush.types import JSONDict

if TYPE_CHECKING:
    from autopush.session.session import BaseSession

OVERLOAD_DELAY = (4, 9)
"""Seconds, lower limit and upper limit (exclusive), before a user agent hears that the store
fails: they would all be back at once otherwise."""


AHEAD = 1000
"""ms by which the connections of a worker may be ahead of the clock: each has one of its own."""

SETTLING = 1.0
"""Seconds for which the user agent's last connection here may still write acknowledgements."""


class Entry(NamedTuple):
    """The outcome of entering a user in the router table."""

    written: bool
    """False: a newer connection holds the record."""
    previous: User
    """The record as it was."""
    known: bool
    """Whether the user keeps its UAID, and so may have messages waiting."""


def begin(session: BaseSession, message: JSONDict) -> None:
    """The first message of a connection.

    Who doesn't speak of ``use_webpush`` means Web Push: nothing else is left, and the distributors
    of UnifiedPush never say it.
    """
    webpush = message.get("use_webpush")
    if webpush is not None and not webpush:
        _refuse(session, "Simplepush not supported", 401)
        return
    valid, uaid = _offered(message.get("uaid"))
    session.uaid = uaid
    session.existing_uaid = valid
    session.to(State.IDENTIFYING)
    session.least = urgency.asked(message)
    if valid:
        Deferred.fromCoroutine(_identify(session, message))
    else:
        _welcome(session, message)


def duplicate(session: BaseSession, _: JSONDict) -> None:
    """A hello on a connection that had one."""
    _refuse(session, "duplicate hello", 401)


def _offered(uaid: Any) -> tuple[bool, str]:
    """Read the UAID of a hello, in any spelling of a UUID.

    What is none, of whatever type, counts as missing. A refusal would keep that user agent out for
    good; with a new UAID it knows that its subscriptions are gone, and goes on.

    :returns: True and the UAID as we write it, or False and a new one
    """
    valid, name = validate_uaid(uaid)
    if not valid and isinstance(uaid, str):
        with contextlib.suppress(ValueError):
            return True, parse_uuid(uaid).hex
    return valid, name


def _refuse(session: BaseSession, reason: str, status: int) -> None:
    log.info("Hello refused", reason=reason, **identity(session))
    session.wire.send(hello_error(reason, status))
    session.close()


def _welcome(session: BaseSession, message: JSONDict) -> None:
    """Answer a user agent that offers no UAID: nothing has to be read, and nothing is written."""
    try:
        _finish(session, _anew(session), message, session.node.now())
    except Exception:
        _fail(session)


async def _identify(session: BaseSession, message: JSONDict) -> None:
    node, uaid = session.node, session.uaid
    assert uaid is not None
    began = node.now()
    node.identifying[uaid] += 1
    try:
        entry = await _enter(session)
        # The connection may have ended, or be ending, meanwhile; the record stays as it is.
        if session.state is not State.IDENTIFYING:
            return
        if entry.written:
            _finish(session, entry, message, began)
        else:
            _refuse(session, "already_connected", 500)
    except StoreError as error:
        log.warn("Storage fails at hello", reason=repr(error))
        if session.state is State.IDENTIFYING:
            session.start_timer(session.node.randrange(*OVERLOAD_DELAY), _overloaded)
    except Exception:
        _fail(session)
    finally:
        node.identifying[uaid] -= 1
        if not node.identifying[uaid]:
            del node.identifying[uaid]


def _fail(session: BaseSession) -> None:
    log.failure("Unexpected error")
    session.wire.send(hello_error("error", 503))
    session.close()


def _overloaded(session: BaseSession) -> None:
    session.wire.send(hello_error("error - overloaded", 503))
    session.close()


async def _enter(session: BaseSession) -> Entry:
    """Have the known user's record lead to this connection; who has none gets another UAID."""
    node = session.node
    assert session.uaid is not None
    written, record = await node.store.return_user(
        session.uaid, node.router_url, session.connected_at
    )
    if record is not None and written:
        return _take_over(session, record, record)
    if record is not None and _accepts(session, record):
        entry = await _return(session, record)
        if entry is not None:
            return entry
    session.uaid = uuid.uuid4().hex
    return _anew(session)


def _anew(session: BaseSession) -> Entry:
    """Begin with a user agent that has nothing yet.

    Its record is written with its first channel (:func:`autopush.session.registration.register`):
    before that nobody can send to it, and most never have one (decisions/new-users).
    """
    session.uaid_reset = True
    session.reset_uaid = session.rotate = session.recorded = False
    session.month = session.node.store.months.current
    return Entry(True, {}, False)


def _accepts(session: BaseSession, record: User) -> bool:
    """Whether the record can be kept. It is dropped if not, unless it is a bridge user's."""
    node = session.node
    if records.is_bridge(record):
        return False
    code = records.drop_code(record, node.store.months)
    if code is None:
        return True
    if enabled("debug"):
        dump = repr({**record, "uaid": session.uaid_hash})
        log.debug("Dropping User", code=code, uaid_hash=session.uaid_hash, uaid_record=dump)
    node.metrics.increment("ua.expiration", tags=[f"code:{code}"])
    node.background.persist(node.store.drop_user, session.uaid)
    return False


async def _return(session: BaseSession, record: User) -> Entry | None:
    """Take over the record of a known user; None if it was dropped under our hands."""
    node = session.node
    assert session.uaid is not None
    _outdo(session, record)
    session.uaid_reset = session.reset_uaid = records.needs_reset(record)
    changes = records.returning(record, node.router_url, session.connected_at, node.now())
    written, previous = await node.store.register_user(changes)
    if not written:
        return Entry(False, previous, True)
    if not previous:
        node.background.persist(node.store.drop_user, session.uaid)
        return None
    return _take_over(session, record, previous)


def _take_over(session: BaseSession, record: User, previous: User) -> Entry:
    """The record leads here now; ``record`` is as it was read, ``previous`` as it was then."""
    months = session.node.store.months
    month = record["current_month"]
    if months.accepts(previous.get("current_month")):
        month = previous["current_month"]  # another node has just finished the transition
    session.month = month
    session.rotate = month != months.current and not is_later(month, months.current)
    return Entry(True, previous, True)


def _outdo(session: BaseSession, record: User) -> None:
    """Don't let our own past shut out this user agent.

    Where there are no other nodes, a record from a moment later than any connection of this process
    can only come from before a restart, and from before the clock was set back. So can, among
    workers of one service, one from the future. In a cluster it is refused until the clock has
    passed it (quirk Q34).
    """
    node = session.node
    node_id, stored = record.get("node_id"), records.number(record["connected_at"])
    if stored is None:
        return
    if node.peers is None:
        outdated = node_id == node.router_url and stored > node.latest
    else:
        outdated = node_id in node.siblings and stored > max(node.now() * 1000 + AHEAD, node.latest)
    if outdated:
        session.connected_at = stored + 1


def _finish(session: BaseSession, entry: Entry, message: JSONDict, began: float) -> None:
    node = session.node
    assert session.uaid is not None
    if node.stopping:
        session.close()
        return
    other = node.clients.get(session.uaid)
    if other is not None:
        if session.connected_at <= other.connected_at:
            log.info("Hello refused", reason="a newer connection is here", **identity(session))
            session.close()
            return
        other.close()
    _leave_other_node(session, entry.previous)
    node.clients[session.uaid] = session
    session.to(State.LIVE)
    session.wire.send(_reply(session, message))
    if for_people():
        log.info("hello", **identity(session), shown=took(node, began))
    elif enabled("debug"):
        log.debug("hello", **identity(session))
    if node.metered:
        node.metrics.increment("ua.command.hello")
    if entry.known:
        urgency.begin(session, entry.previous, message)
        # The channels must live as long as the user agent comes here (spec/storage S2).
        node.background.persist(node.store.touch_channels, session.month, session.uaid)
        _note_move(session, entry.previous)
        if other is None or not other.row_operations:
            session.start()
        else:
            # What the user agent acknowledged there must not be read here; but a store that fails
            # is not waited for.
            session.start_timer(SETTLING, type(session).start)
            other.row_operations_done().addCallback(lambda _: session.check())
        urgency.note(session, entry.previous)
    session.replay()


def _note_move(session: BaseSession, previous: User) -> None:
    """Have done what another node may have left half done, or may do to this connection."""
    assert session.uaid is not None
    left = previous.get(MOVING_FROM)
    if left and left != session.month:
        upkeep.resume(session.node, session.uaid, left, session.month)
    if session.rotate:
        session.node.moves.note(session.uaid, session.month, None)


def _leave_other_node(session: BaseSession, previous: User) -> None:
    node = session.node
    node_id = previous.get("node_id")
    connected_at = records.number(previous.get("connected_at"))
    if node_id and connected_at is not None and node_id != node.router_url and node.peers:
        assert session.uaid is not None
        request = peers.disconnect(node, node_id, session.uaid, connected_at)
        node.background.watch(Deferred.fromCoroutine(request))


def _reply(session: BaseSession, message: JSONDict) -> JSONDict:
    conf = session.node.conf
    reply: JSONDict = {
        "messageType": "hello",
        "uaid": session.uaid,
        "status": 200,
        "use_webpush": True,
        "env": conf.env,
    }
    if conf.auto_ping_interval:
        reply["ping"] = conf.auto_ping_interval
    if "broadcasts" in message:
        reply["broadcasts"] = session.node.broadcasts.answer(session, message["broadcasts"])
    return reply
