"""One connected user agent: commands in, replies and storage calls out.

Knows no socket and no HTTP. The states are in :mod:`~autopush.session.states`, each concern has
its own module, and what they share is the data of :mod:`~autopush.session.session`
(spec/websocket 8)::

    > {"messageType": "hello", "use_webpush": true, "uaid": "<32 hex>"}         hello
    < {"messageType": "hello", "uaid": "<32 hex>", "status": 200, ...}
    > {"messageType": "register", "channelID": "<uuid>", "key": "<base64url>"}  registration
    < {"messageType": "register", "channelID": "<uuid>", "pushEndpoint": "<url>", "status": 200}
    < {"messageType": "notification", "channelID": "<uuid>", "version": ...}    direct, drain
    > {"messageType": "ack", "updates": [{"channelID": ..., "version": ...}]}   acks
    > {"messageType": "nack", "version": "...", "code": 301}                    acks
    > {"messageType": "unregister", "channelID": "<uuid>", "code": 200}         registration
    < {"messageType": "unregister", "channelID": "<uuid>", "code": 200, "status": 200}
    > {"messageType": "broadcast_subscribe", "broadcasts": {"<id>": "<version>"}}  broadcasts
    < {"messageType": "broadcast", "broadcasts": {"<id>": "<version>"}}            broadcasts
    > {"messageType": "urgency", "min": "<very-low, low, normal or high>"}      urgency
    < {"messageType": "urgency", "status": 200}
    > {}                                                                        acks
    < {}
    > {"messageType": "<anything else>"}
    < {"messageType": "error", "status": 400, "reason": "Unknown messageType", ...}
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from autopush.session import (
    acks,
    broadcasts,
    cleanup,
    direct,
    drain,
    hello,
    registration,
    urgency,
)
from autopush.session.errors import UNKNOWN_MESSAGE, Malformed, NotUnderstood
from autopush.session.events import log
from autopush.session.session import BaseSession
from autopush.session.states import State
from autopush.session.stats import base_tags
from autopush.types import JSONDict

MAX_QUEUED = 1000
"""Messages kept while a hello is processed. Reading stops with the first one, so only what came
in the same piece is more; a user agent has no reason to send even ten."""

MAX_NOT_UNDERSTOOD = 20
"""Messages in a row that we don't know before we close. User agents of tomorrow may say what those
of today don't, and must not be shut out for it; who says nothing else is none."""

COMMANDS: dict[str, Callable[[BaseSession, JSONDict], None]] = {
    "ack": acks.ack,
    "broadcast_subscribe": broadcasts.subscribe,
    "hello": hello.duplicate,
    "nack": acks.nack,
    "ping": acks.ping,
    "register": registration.register,
    "unregister": registration.unregister,
    "urgency": urgency.change,
}

UNIDENTIFIED, DRAINING_TOPICS, LIVE = State.UNIDENTIFIED, State.DRAINING_TOPICS, State.LIVE
CLOSING = State.CLOSING


class Session(BaseSession):
    """A connection from its handshake to its end.

    :param node: what the connections of this process share
    :param wire: the connection itself
    :param connected_at: milliseconds since the epoch at the handshake, from
        :func:`autopush.utils.ms_time`; identifies the connection
    :param user_agent: the User-Agent header, if any
    :param host: the Host header without its port
    """

    __slots__ = ()

    # ---- what the connection reports

    def received(self, message: JSONDict) -> None:
        """A JSON object came from the user agent. Never raises."""
        try:
            self._dispatch(message)
        except NotUnderstood as error:
            self._not_understood(str(error))
        except Malformed as error:
            self.complain(error)
        except Exception:
            log.failure("Unexpected error")

    def bad_input(self) -> None:
        """Something else came: not JSON, no object, or binary."""
        self.close()

    def output_resumed(self) -> None:
        """The connection can take more output again."""
        drain.advance(self)
        if self.broadcasts is not None:
            self.node.broadcasts.resumed(self)

    def closed(self) -> Deferred[None]:
        """TCP has ended. May be called again.

        :returns: fires when the notifications that were not acknowledged are saved.
        """
        return cleanup.closed(self)

    # ---- what a program's own protocol may replace (websocket/overrides), so called through here

    start = drain.start
    check = drain.check
    advance = drain.advance
    send_direct = direct.send
    send_and_store = direct.send_and_store
    refuse = registration.refuse

    # ---- what the commands ask

    def close(self, code: int | None = None) -> None:
        """Close the connection; nothing the user agent sends counts any more.

        The node no longer knows it, and what was not acknowledged is being saved, at once; the rest
        is cleaned up when TCP ends.
        """
        if self.state >= CLOSING:
            return
        self.to(CLOSING)
        self.cancel_timer()
        if self.registered:
            assert self.uaid is not None
            del self.node.clients[self.uaid]
        try:
            cleanup.begin(self)
        finally:
            self.wire.close(code)

    def replay(self) -> None:
        """Take the messages that had to wait."""
        messages, self.queue = self.queue, None
        if messages:
            for message in messages:
                self.received(message)
            self.release_reading()

    @property
    def base_tags(self) -> list[str]:
        """Tags of this session's metrics (spec/websocket 16)."""
        return base_tags(self)

    def _dispatch(self, message: JSONDict) -> None:
        state = self.state
        if DRAINING_TOPICS <= state <= LIVE:
            kind = message.get("messageType")
            command = COMMANDS.get(kind) if kind.__class__ is str else None
            if command is None:
                if message:
                    raise NotUnderstood("unknown messageType")
                command = acks.ping
            command(self, message)
            self.not_understood = 0
        elif state is UNIDENTIFIED:
            if message.get("messageType") == "hello":
                hello.begin(self, message)
            else:
                self.close()
        elif state < CLOSING:
            self._enqueue(message)

    def _not_understood(self, reason: str) -> None:
        node = self.node
        if node.metered:
            node.metrics.increment("ua.command.unknown")
        log.info("Malformed message", reason=reason, uaid_hash=self.uaid_hash)
        self.not_understood += 1
        if self.not_understood >= MAX_NOT_UNDERSTOOD:
            self.close()
        else:
            self.wire.send(UNKNOWN_MESSAGE)

    def _enqueue(self, message: JSONDict) -> None:
        if self.queue is None:
            self.queue = []
            self.hold_reading()
        if len(self.queue) >= MAX_QUEUED:
            self.close()
        else:
            self.queue.append(message)
