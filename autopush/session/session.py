"""One connected user agent: commands in, replies and storage calls out.

Knows no socket and no HTTP. The states are in :mod:`~autopush.session.states`, each concern has
its own module, and what they share is the attributes of :class:`Session` (spec/websocket 8)::

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
    < {"messageType": "broadcast", "broadcasts": {"errors": {"<id>": "..."}}}
    > {}                                                                        acks
    < {}
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, succeed

from autopush.ids import generate_hash
from autopush.session import (
    acks,
    agent,
    broadcasts,
    cleanup,
    direct,
    drain,
    hello,
    registration,
)
from autopush.session.clock import Call
from autopush.session.direct import Direct, Key
from autopush.session.errors import Malformed
from autopush.session.events import log
from autopush.session.states import State
from autopush.session.stats import base_tags
from autopush.session.wire import Message, Wire

if TYPE_CHECKING:
    from autopush.message.notification import WebPushNotification
    from autopush.session.node import Node
    from autopush.session.settle import Done

MAX_QUEUED = 1000
"""Messages kept while a hello is processed. Reading stops with the first one, so only what came
in the same piece is more; a user agent has no reason to send even ten."""

COMMANDS: dict[str, Callable[[Session, Message], None]] = {
    "ack": acks.ack,
    "broadcast_subscribe": broadcasts.subscribe,
    "hello": hello.duplicate,
    "nack": acks.nack,
    "ping": acks.ping,
    "register": registration.register,
    "unregister": registration.unregister,
}

UNIDENTIFIED, DRAINING_TOPICS, LIVE = State.UNIDENTIFIED, State.DRAINING_TOPICS, State.LIVE
CLOSING, CLOSED = State.CLOSING, State.CLOSED


class Session:
    """A connection from its handshake to its end.

    :param node: what the connections of this process share
    :param wire: the connection itself
    :param connected_at: milliseconds since the epoch at the handshake, from
        :func:`autopush.utils.ms_time`; identifies the connection
    :param user_agent: the User-Agent header, if any
    :param host: the Host header without its port
    """

    __slots__ = (
        "ack_writes",
        "agent",
        "channels",
        "check_wanted",
        "connected_at",
        "direct",
        "direct_acked",
        "direct_storage",
        "done",
        "existing_uaid",
        "fetching",
        "gathering",
        "host",
        "last_ping",
        "leaving",
        "month",
        "nacks",
        "node",
        "passed",
        "position",
        "queue",
        "reading_holds",
        "registers",
        "reset_uaid",
        "rotate",
        "row_operations",
        "row_waiters",
        "saved",
        "sent_count",
        "settling",
        "stale",
        "state",
        "stored",
        "stored_acked",
        "stored_retrieved",
        "timer",
        "uaid",
        "uaid_reset",
        "unregisters",
        "wire",
    )

    def __init__(
        self, node: Node, wire: Wire, connected_at: int, user_agent: str | None, host: str
    ) -> None:
        self.node = node
        self.wire = wire
        self.connected_at = connected_at
        node.latest = max(node.latest, connected_at)
        self.agent = agent.user_agent(user_agent)
        self.host = agent.shared_host(host)
        self.state = UNIDENTIFIED
        self.uaid: str | None = None
        self.month = ""
        # Flags of the record (spec/websocket 8): what to do once everything stored is read.
        self.rotate = self.reset_uaid = False
        # Statistics (spec/websocket 16)
        self.uaid_reset = self.existing_uaid = False
        self.direct_acked = self.direct_storage = 0
        self.stored_retrieved = self.stored_acked = 0
        self.nacks = self.unregisters = self.registers = 0
        # Notifications not yet acknowledged, and direct ones whose row is still to be deleted
        self.direct: dict[Key, Direct] | None = None
        self.leaving: dict[Key, Direct] | None = None
        self.stored: dict[Key, WebPushNotification] | None = None
        # Of those: acknowledged, but storage does not know it yet (see settle)
        self.settling: set[Key] | None = None
        self.done: list[Done] | None = None
        self.gathering: Call | None = None
        self.ack_writes = 0
        self.row_operations = 0
        self.row_waiters: list[Deferred[None]] | None = None
        # The stored loop: how far it has read in this pass, and the read pointer in storage, up to
        # which nothing has to be read again, as far as is known here
        self.position: int | None = None
        self.passed: int | None = None
        self.channels: frozenset[str] | None = None
        self.sent_count = 0
        self.fetching = self.stale = self.check_wanted = False
        self.timer: Call | None = None
        # The conversation
        self.last_ping: float | None = None
        self.queue: list[Message] | None = None
        self.reading_holds = 0
        self.saved: Deferred[None] | None = None

    # ---- what the connection reports

    def received(self, message: Message) -> None:
        """A JSON object came from the user agent. Never raises."""
        try:
            self._dispatch(message)
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

    def closed(self) -> Deferred[None]:
        """TCP has ended. May be called again.

        :returns: fires when the notifications that were not acknowledged are saved.
        """
        return cleanup.saved(self) if self.state is CLOSED else cleanup.run(self)

    # ---- what the connection may ask

    @property
    def awaiting_hello(self) -> bool:
        """Whether there has been no (proper) hello so far."""
        return self.state is UNIDENTIFIED

    @property
    def registered(self) -> bool:
        """Whether this is the connection of its user agent on this node."""
        return self.uaid is not None and self.node.clients.get(self.uaid) is self

    @property
    def base_tags(self) -> list[str]:
        """Tags of this session's metrics (spec/websocket 16)."""
        return base_tags(self)

    @property
    def uaid_hash(self) -> str | None:
        """The UAID for logs: hashed where ``key_hash`` is set."""
        key = self.node.conf.key_hash
        return generate_hash(key, self.uaid) if key and self.uaid else self.uaid

    # ---- what a program's own protocol may replace (websocket/overrides), so called through here

    start = drain.start
    check = drain.check
    advance = drain.advance
    send_direct = direct.send
    send_and_store = direct.send_and_store
    refuse = registration.refuse

    # ---- what the modules of this package share

    def close(self, code: int | None = None) -> None:
        """Close the connection; nothing the user agent sends counts any more.

        The node no longer knows it, and what was not acknowledged is being saved, at once; the rest
        is cleaned up when TCP ends.
        """
        if self.state >= CLOSING:
            return
        self.state = CLOSING
        self.cancel_timer()
        if self.registered:
            assert self.uaid is not None
            del self.node.clients[self.uaid]
        try:
            cleanup.begin(self)
        finally:
            self.wire.close(code)

    def complain(self, error: Malformed) -> None:
        """Log a message that makes no sense."""
        log.info("Malformed message", reason=str(error), uaid_hash=self.uaid_hash)

    def start_timer(self, delay: float, action: Callable[[Session], None]) -> None:
        """Do something later, unless the connection closes before. There is one at a time."""
        self.cancel_timer()
        if self.state < CLOSING:
            self.timer = self.node.clock.callLater(delay, self._time_out, action)

    def cancel_timer(self) -> None:
        """Forget what was to be done later."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def hold_reading(self) -> None:
        """Read nothing from the user agent until :meth:`release_reading`; may be nested."""
        self.reading_holds += 1
        if self.reading_holds == 1:
            self.wire.pause_reading()

    def release_reading(self) -> None:
        """Undo one :meth:`hold_reading`."""
        self.reading_holds -= 1
        if self.reading_holds == 0:
            self.wire.resume_reading()

    def replay(self) -> None:
        """Take the messages that had to wait."""
        messages, self.queue = self.queue, None
        if messages:
            for message in messages:
                self.received(message)
            self.release_reading()

    def row_operation_done(self) -> None:
        """A row was written or deleted, or the read pointer moved."""
        self.row_operations -= 1
        if not self.row_operations and self.row_waiters:
            waiters, self.row_waiters = self.row_waiters, None
            for waiter in waiters:
                waiter.callback(None)

    def row_operations_done(self) -> Deferred[None]:
        """Fires when no row of ours is being written or deleted, and no pointer moved."""
        if not self.row_operations:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        if self.row_waiters is None:
            self.row_waiters = []
        self.row_waiters.append(waiter)
        return waiter

    def _dispatch(self, message: Message) -> None:
        state = self.state
        if DRAINING_TOPICS <= state <= LIVE:
            kind = message.get("messageType")
            command = COMMANDS.get(kind) if kind.__class__ is str else None
            if command is not None:
                command(self, message)
            elif not message:
                acks.ping(self, message)
            else:
                self.close()
        elif state is UNIDENTIFIED:
            if message.get("messageType") == "hello":
                hello.begin(self, message)
            else:
                self.close()
        elif state < CLOSING:
            self._enqueue(message)

    def _enqueue(self, message: Message) -> None:
        if self.queue is None:
            self.queue = []
            self.hold_reading()
        if len(self.queue) >= MAX_QUEUED:
            self.close()
        else:
            self.queue.append(message)

    def _time_out(self, action: Callable[[Session], None]) -> None:
        self.timer = None
        try:
            action(self)
        except Exception:
            log.failure("Unexpected error")
            self.close()
