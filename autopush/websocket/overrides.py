"""Documented members of the protocol that a program's own class replaces (spec/python-api 8).

The service itself goes shorter ways than through these members. Which of them a class replaces is
looked up once, when its factory is made or gets it: only such a class, with its sessions, takes
the way through them, so that all others pay nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred

from autopush.session import Session, drain
from autopush.session.states import State
from autopush.websocket.members import ProtocolMembers
from autopush.websocket.trimmed import OPEN
from autopush.websocket.wire import PushWire

if TYPE_CHECKING:
    from autopush.message.notification import WebPushNotification
    from autopush.types import JSONDict

COMMANDS = {
    kind: f"process_{kind}" for kind in ("hello", "register", "unregister", "ack", "nack", "ping")
}
"""The member that handles a message, by ``messageType``."""

REPLACEABLE = frozenset(COMMANDS.values()) | {
    "bad_message",
    "check_missed_notifications",
    "process_notifications",
    "sendJSON",
    "send_notification",
}


def replaced(protocol: type) -> frozenset[str]:
    """Return the names of the members that a protocol class has of its own."""
    ours = {name: getattr(PushWire, name, None) for name in REPLACEABLE}
    ours = {name: found or getattr(ProtocolMembers, name) for name, found in ours.items()}
    return frozenset(n for n in REPLACEABLE if getattr(protocol, n, ours[n]) is not ours[n])


def session_class(base: Callable[..., Session], own: frozenset[str]) -> Callable[..., Session]:
    """Return what makes the sessions of a protocol class that replaces ``own``."""
    if own - {"sendJSON"} and isinstance(base, type) and issubclass(base, Session):
        return type(base.__name__, (RoutedSession, base), {"__slots__": ()})
    return base


def routes(own: frozenset[str]) -> dict[str, Any]:
    """Return what the bound class of a protocol that replaces ``own`` needs in addition."""
    members: dict[str, Any] = {}
    if own - {"sendJSON"}:
        members.update(_process=_process, _check=_check, obeyed=None)
    if "sendJSON" in own:
        members["send"] = _send
        members["short_sends"] = False
    return members


class RoutedSession(Session):
    """A session that calls the members of its protocol, whose own do what a session does."""

    __slots__ = ()

    wire: Any

    def start(self) -> None:
        """Look for stored notifications after a hello."""
        self.wire.process_notifications()

    def check(self) -> None:
        """Look for stored notifications because there are some."""
        self.wire.process_notifications()

    def advance(self) -> None:
        """Go on after acknowledgements."""
        if self.state < State.CLOSING:
            self.wire.check_missed_notifications(None)

    def send_direct(self, notification: WebPushNotification) -> None:
        """Send a notification that isn't stored."""
        self._call("send_notification", notification)

    def send_and_store(self, notification: WebPushNotification) -> Deferred[Any]:
        """Send a notification; fires when its row is durable, if the protocol stores it."""
        return maybeDeferred(self.wire.send_notification, notification)

    def refuse(self, kind: str, reason: str, status: int = 401, **members: Any) -> None:
        """Answer what can't be carried out."""
        self.wire.refusal = {"status": status, **members}
        try:
            self.wire.bad_message(kind, reason)
        finally:
            self.wire.refusal = None

    def _dispatch(self, message: JSONDict) -> None:
        kind = message.get("messageType") if message else "ping"
        member = COMMANDS.get(kind) if kind.__class__ is str else None
        state = self.state
        due = State.DRAINING_TOPICS <= state <= State.LIVE or (
            state is State.UNIDENTIFIED and kind == "hello"
        )
        if member is None or not due or self.wire.obeyed is message:
            super()._dispatch(message)
        elif kind == "ping":
            self._call(member)
        else:
            self._call(member, message)

    def _call(self, member: str, *args: Any) -> None:
        """Call a member that may be ``async def`` or return a Deferred; failures are logged."""
        result = getattr(self.wire, member)(*args)
        if isinstance(result, CoroutineType):
            result = Deferred.fromCoroutine(result)
        if isinstance(result, Deferred):
            result.addErrback(self.wire.log_failure)


def _process(protocol: Any, data: JSONDict) -> None:
    """Let the session take a message that the member for it has let through."""
    if protocol.session is not None:
        protocol.obeyed = data
        try:
            protocol.session.received(data)
        finally:
            protocol.obeyed = None


def _check(protocol: PushWire) -> None:
    session = protocol.session
    if session is not None and session.uaid is not None:
        drain.check(session)


def _send(protocol: PushWire, message: JSONDict) -> None:
    if protocol.state == OPEN:
        protocol.sendJSON(message)
