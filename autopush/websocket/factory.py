"""All WebSockets of a connection node: their factory, their time-outs, their end."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from operator import methodcaller
from typing import TYPE_CHECKING, Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from autopush.httpserver.connection import HEAD_TIMEOUT
from autopush.logging.floods import Floods
from autopush.session import Node, Session
from autopush.waiters import Waiters
from autopush.web.access import Access
from autopush.websocket import overrides
from autopush.websocket.handshake import HOOKS, ShortOpening
from autopush.websocket.members import ProtocolMembers
from autopush.websocket.origins import Origins
from autopush.websocket.timeouts import Timeouts
from autopush.websocket.trimmed import (
    FAREWELL_HOOKS,
    SlimServerProtocol,
    bind_options,
    keeps,
    server_protocol,
)
from autopush.websocket.unfinished import Unfinished
from autopush.websocket.wire import PushWire

if TYPE_CHECKING:
    from autopush.config import AutopushConfig
    from autopush.metrics.interface import IMetrics

OPEN_HANDSHAKE_TIMEOUT = 5
"""Seconds from the connection to a complete opening handshake (2.5)."""

NUKE_DELAY = 10
"""Seconds a closed connection's TCP may linger when ``close_handshake_timeout`` is 0 (3)."""

GOING_AWAY = 1001

CLOSE_STEP = 0.1
"""Seconds between two groups of connections closed by :meth:`PushServerFactory.shutdown`."""

BASE = server_protocol()


class PushServerProtocol(ProtocolMembers, ShortOpening, PushWire, BASE):  # type: ignore[misc,valid-type]
    """The WebSocket of one user agent."""

    parent_class = BASE


def _shorter(protocol: type) -> dict[str, bool]:
    """Return which shorter ways a program's class of connections leaves open."""
    slim = issubclass(protocol, PushServerProtocol) and BASE is SlimServerProtocol
    return {
        "short_opening": slim and keeps(protocol, PushServerProtocol, HOOKS),
        "short_sends": slim and keeps(protocol, PushServerProtocol, ("send", "sendMessage")),
        "short_farewell": slim and keeps(protocol, PushServerProtocol, FAREWELL_HOOKS),
    }


class PushServerFactory(WebSocketServerFactory):
    """All WebSockets of a connection node; listens itself or takes over from an HTTP server.

    :param conf: limits and time-outs: ``max_message_size`` (bytes), ``max_connections``,
        ``hello_timeout``, ``auto_ping_interval``, ``auto_ping_timeout``,
        ``close_handshake_timeout`` (s); None counts as 0
    :param node: what the sessions share
    :param reactor: clock of the time-outs
    :param session: makes a session, see :class:`autopush.session.Session`
    :ivar refused: handshakes that were refused, by status and errno
    :cvar protocol: class of the connections. What it replaces of the documented members of
        :class:`PushServerProtocol` takes effect (:mod:`autopush.websocket.overrides`).
    """

    protocol: type[WebSocketServerProtocol] = PushServerProtocol
    noisy = False

    def __init__(
        self,
        conf: AutopushConfig,
        node: Node,
        reactor: IReactorTime,
        session: Callable[..., Session] = Session,
    ) -> None:
        # 80 and 443 are the only ports whose absence in Host means something (2.3); behind a
        # public URL the port others see is not ours.
        checked = conf.port if conf.port in (80, 443) and not conf.public_url else None
        super().__init__(externalPort=checked, reactor=reactor)
        self.port_required = checked is not None and (checked == 443) != bool(conf.ssl.key)
        self.conf = conf
        self.node = node
        self.clients = node.clients
        clock: Any = reactor
        self.access = Access.of(conf, clock.seconds)
        self._session = session
        self.floods: Floods[str] = Floods(clock)
        self.refused: Counter[tuple[int, int]] = Counter()
        self.stopping = False
        self.protocols: set[PushWire] = set()
        self.origins = None if conf.allowed_origins is None else Origins(conf)
        self.unfinished = Unfinished(methodcaller("shed"), conf.max_message_size)
        self._unsaved = 0
        self._drained: Waiters[None] = Waiters()
        self.setProtocolOptions(
            webStatus=False,
            maxFramePayloadSize=conf.max_message_size,
            maxMessagePayloadSize=conf.max_message_size,
            maxConnections=conf.max_connections or 0,
            openHandshakeTimeout=0,
            closeHandshakeTimeout=0,
            allowNullOrigin=False,
        )
        self._make_queues(conf, reactor)
        self._bind()

    def _make_queues(self, conf: AutopushConfig, reactor: IReactorTime) -> None:
        self.auto_ping_interval = conf.auto_ping_interval or 0
        self.auto_ping_timeout = conf.auto_ping_timeout or 0
        self.timeouts = Timeouts(reactor)
        # By name: a program's own class may replace them.
        queue, call = self.timeouts.queue, methodcaller
        self.opening = queue(OPEN_HANDSHAKE_TIMEOUT, call("onOpenHandshakeTimeout"))
        self.head_within = conf.hello_timeout or 0
        self.hellos = queue(self.head_within, call("timeoutConnection"))
        # By the seconds that were spent before: a queue has one length.
        self.late_hellos = [
            queue(self.head_within - spent, call("timeoutConnection"))
            for spent in range(1, min(self.head_within, HEAD_TIMEOUT))
        ]
        self.pings = queue(self.auto_ping_interval, call("_sendAutoPing"))
        self.pongs = queue(self.auto_ping_timeout, call("onAutoPingTimeout"))
        self.closing = queue(conf.close_handshake_timeout or NUKE_DELAY, call("nukeConnection"))

    def _bind(self) -> None:
        """Decide by the class of the connections which way they take."""
        own = overrides.replaced(self.protocol)
        self.new_session = overrides.session_class(self._session, own)
        self.protocol = bind_options(self, {**_shorter(self.protocol), **overrides.routes(own)})

    def buildProtocol(self, addr: Any) -> Any:
        """Return the protocol of a new connection; its options are those of the constructor."""
        if self.protocol.factory is not self:  # assigned later
            self._bind()
        return self.protocol()

    @property
    def metrics(self) -> IMetrics:
        """Those of the node."""
        return self.node.metrics

    def opened(self, protocol: PushWire) -> None:
        """The handshake is complete."""
        self.opening.cancel(protocol)
        self.protocols.add(protocol)
        if self.hellos.seconds > 0:
            self._await_hello(protocol)
        if self.auto_ping_interval > 0:
            self.pings.start(protocol)

    def _await_hello(self, protocol: PushWire) -> None:
        late = self.late_hellos[: protocol.spent]
        (late[-1] if late else self.hellos).start(protocol)

    def lost(self, protocol: PushWire) -> None:
        """TCP has ended."""
        for queue in (self.opening, self.hellos, self.pings, self.pongs, self.closing):
            queue.cancel(protocol)
        if protocol.spent:
            for queue in self.late_hellos:
                queue.cancel(protocol)
        self.timeouts.settle()
        self.unfinished.release(protocol)
        self.protocols.discard(protocol)
        self._check_drained()

    def saving(self, saved: Deferred[None]) -> None:
        """A session that has ended is saved when this fires."""
        self._unsaved += 1
        saved.addCallback(self._saved)

    def _saved(self, _: None) -> None:
        self._unsaved -= 1
        self._check_drained()

    def _check_drained(self) -> None:
        if not self.protocols and not self._unsaved:
            self._drained.fire(None)

    def shutdown(self, spread: float = 0) -> Deferred[None]:
        """Close every connection with 1001 (going away); new ones are answered 503.

        :param spread: seconds over which the closes are spread evenly in random order, so that
            the user agents do not all reconnect at once
        :returns: fires when every TCP connection has ended, which the nuke delay limits, and
            what was not acknowledged is saved
        """
        self.stopping = True
        self.floods.stop()
        if self.access is not None:
            self.access.tell_counted()
        drained = self._drained.wait()
        self._check_drained()
        order = list(self.protocols)
        random.shuffle(order)
        steps = max(1, int(spread / CLOSE_STEP))
        size = max(1, -(-len(order) // steps))
        for step, start in enumerate(range(0, len(order), size)):
            group = order[start : start + size]
            if step == 0:
                self._go_away(group)
            else:
                self.reactor.callLater(step * CLOSE_STEP, self._go_away, group)
        return drained

    def _go_away(self, protocols: Iterable[PushWire]) -> None:
        for protocol in protocols:
            if protocol.session is not None:
                protocol.session.close(GOING_AWAY)
                # Now, because TCP may outlive the process's patience.
                protocol.end_session()
