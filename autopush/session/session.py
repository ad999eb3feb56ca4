"""The data of a connected user agent and of its node, and what all commands share of them.

Imports no command. What these classes declare and don't define, because it takes commands to do it,
is in :class:`autopush.session.conversation.Session` and :class:`autopush.session.delivery.Node`;
there are no others.
"""

from __future__ import annotations

import enum
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred, succeed

from autopush import addresses, clock as wall_clock, useragent
from autopush.ids import hash_uaid
from autopush.message.urgency import VERY_LOW
from autopush.session.background import Background
from autopush.session.broadcasts import Broadcasts
from autopush.session.errors import Malformed
from autopush.session.events import log
from autopush.session.moves import Moves
from autopush.session.outstanding import Direct, Done, Key
from autopush.session.recent import Recent
from autopush.session.states import State
from autopush.session.timers import Call, Clock
from autopush.session.wire import Wire
from autopush.types import JSONDict
from autopush.waiters import Waiters

if TYPE_CHECKING:
    from autopush.config import AutopushConfig
    from autopush.db.interface import Stock, Store
    from autopush.message.notification import WebPushNotification
    from autopush.metrics import IMetrics

UNIDENTIFIED, CLOSING = State.UNIDENTIFIED, State.CLOSING


class Delivery(enum.Enum):
    """What became of a notification, or of a request to look for stored ones."""

    DELIVERED = "delivered"
    NOT_CONNECTED = "not connected"
    BUSY = "busy"


class Peers(Protocol):
    """How other nodes are reached."""

    def request(self, method: str, url: str, body: bytes = b"") -> Deferred[int]:
        """One HTTP request; fires with the status of the answer."""


class BaseNode(ABC):
    """What all sessions of one connection node share."""

    def __init__(
        self,
        conf: AutopushConfig,
        store: Store,
        metrics: IMetrics,
        clock: Clock,
        peers: Peers | None = None,
        *,
        now: Callable[[], float] | None = None,
        randrange: Callable[[int, int], int] = random.randrange,
    ) -> None:
        self.conf = conf
        self.store = store
        self.metrics = metrics
        self.metered = bool(getattr(metrics, "active", True))
        self.histograms = bool(getattr(metrics, "histograms", False))
        self.clock = clock
        self.peers = peers
        self.now = now or wall_clock.now
        self.randrange = randrange
        self.clients: dict[str, BaseSession] = {}
        """The live session of each UAID."""
        self.broadcasts = Broadcasts(self.clients, clock, metrics)
        self.identifying: Counter[str] = Counter()
        """UAIDs whose hello is under way: their records may lead here already."""
        self.saving: set[BaseSession] = set()
        """Sessions that have ended, but for their notifications being stored."""
        self.background = Background(clock)
        self.recent = Recent()
        self.moves = Moves(clock)
        self.users: int | None = None
        """User agents the store knew when they were last counted, if anybody does."""
        self.stock: Stock | None = None
        """Channels and stored messages there were then."""
        self.latest = 0
        """The largest ``connected_at`` of this process."""
        self.stopping = False
        self.store_direct = conf.store_direct
        self.max_unacked = conf.max_direct_unacked
        self.siblings = frozenset(f"http://{host}" for host in conf.worker_sockets)
        """Node ids of the workers of this service, with ours: they have the same clock."""

    @property
    def router_url(self) -> str:
        """How other nodes reach this one: its ``node_id`` in router records."""
        return self.conf.router_url

    @abstractmethod
    def check(self, uaid: str) -> Delivery:
        """Something was stored for this user: look for it, now or when possible."""


class BaseSession(ABC):
    """What is known of a connection; spec/websocket 8 says of what use each attribute is."""

    __slots__ = (
        "ack_writes",
        "broadcast_seen",
        "broadcasts",
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
        "least",
        "leaving",
        "month",
        "nacks",
        "node",
        "not_understood",
        "passed",
        "position",
        "queue",
        "reading_holds",
        "recorded",
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
        "topics_read",
        "uaid",
        "uaid_reset",
        "unregisters",
        "user_agent",
        "wire",
        "withheld",
    )

    def __init__(
        self, node: BaseNode, wire: Wire, connected_at: int, user_agent: str | None, host: str
    ) -> None:
        self.node = node
        self.wire = wire
        self.connected_at = connected_at
        node.latest = max(node.latest, connected_at)
        self.user_agent = useragent.user_agent(user_agent)
        self.host = addresses.shared_host(host)
        self.state = UNIDENTIFIED
        self.uaid: str | None = None
        self.month = ""
        # Whether the store has a record of the user: that of a new one comes with the first channel
        self.recorded = True
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
        self.row_waiters: Waiters[None] | None = None
        # The conversation
        self.last_ping: float | None = None
        self.queue: list[JSONDict] | None = None
        self.reading_holds = 0
        self.not_understood = 0
        # Broadcasts: names subscribed to, and the number of the last change that was told
        self.broadcasts: frozenset[str] | None = None
        self.broadcast_seen = 0
        self.saved: Deferred[None] | None = None
        self._begin_to_read()

    def _begin_to_read(self) -> None:
        # The stored loop: how far it has read in this pass, and the read pointer in storage, up to
        # which nothing has to be read again, as far as is known here
        self.position: int | None = None
        self.passed: int | None = None
        self.channels: frozenset[str] | None = None
        self.sent_count = 0
        # Urgency: the least level that is sent; of what waits for a lower one, the first timestamp,
        # and the sort key up to which there is nothing else among the topics
        self.least = VERY_LOW
        self.withheld: int | None = None
        self.topics_read = ""
        self.fetching = self.stale = self.check_wanted = False
        self.timer: Call | None = None

    # ---- what takes commands

    @abstractmethod
    def start(self) -> None:
        """Begin a full pass through what is stored for the user agent."""

    @abstractmethod
    def check(self) -> None:
        """Something was stored for the user agent: make sure that a full pass comes."""

    @abstractmethod
    def advance(self) -> None:
        """Go on with what is stored for the user agent, if nothing is in the way."""

    @abstractmethod
    def send_direct(self, notification: WebPushNotification) -> None:
        """Send a notification and remember it until it is acknowledged."""

    @abstractmethod
    def send_and_store(self, notification: WebPushNotification) -> Deferred[Any]:
        """Send and store a notification; fires when the row is durable."""

    @abstractmethod
    def refuse(self, kind: str, reason: str, status: int = 401, **members: Any) -> None:
        """Answer a command of this kind with an error; ``members`` are added to it."""

    @abstractmethod
    def close(self, code: int | None = None) -> None:
        """Close the connection; nothing the user agent sends counts any more."""

    @abstractmethod
    def replay(self) -> None:
        """Take the messages that had to wait."""

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
    def uaid_hash(self) -> str | None:
        """The UAID for logs: hashed where ``key_hash`` is set."""
        return self.uaid and hash_uaid(self.node.conf.key_hash, self.uaid)

    # ---- what the commands share

    def to(self, state: State) -> None:
        """Change the state; :data:`~autopush.session.states.TRANSITIONS` has all that happen."""
        self.state = state

    def complain(self, error: Malformed) -> None:
        """Log a message that makes no sense."""
        log.info("Malformed message", reason=str(error), uaid_hash=self.uaid_hash)

    def start_timer(self, delay: float, action: Callable[[BaseSession], None]) -> None:
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

    def row_operation_done(self) -> None:
        """A row was written or deleted, or the read pointer moved."""
        self.row_operations -= 1
        if not self.row_operations and self.row_waiters:
            waiters, self.row_waiters = self.row_waiters, None
            waiters.fire(None)

    def row_operations_done(self) -> Deferred[None]:
        """Fires when no row of ours is being written or deleted, and no pointer moved."""
        if not self.row_operations:
            return succeed(None)
        if self.row_waiters is None:
            self.row_waiters = Waiters()
        return self.row_waiters.wait()

    def _time_out(self, action: Callable[[BaseSession], None]) -> None:
        self.timer = None
        try:
            action(self)
        except Exception:
            log.failure("Unexpected error")
            self.close()
