"""What all sessions of one connection node share."""

from __future__ import annotations

import enum
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import Deferred

from autopush.session.background import Background
from autopush.session.clock import Clock
from autopush.session.recent import Recent
from autopush.session.states import State
from autopush.session.upkeep import Upkeep

if TYPE_CHECKING:
    from autopush.config import AutopushConfig
    from autopush.db.interface import Store
    from autopush.message.notification import WebPushNotification
    from autopush.metrics import IMetrics
    from autopush.session.session import Session

MOVING_MONTH = State.MOVING_MONTH


class Delivery(enum.Enum):
    """What became of a notification, or of a request to look for stored ones."""

    DELIVERED = "delivered"
    NOT_CONNECTED = "not connected"
    BUSY = "busy"


DELIVERED, NOT_CONNECTED, BUSY = Delivery.DELIVERED, Delivery.NOT_CONNECTED, Delivery.BUSY


class Peers(Protocol):
    """How other nodes are reached."""

    def request(self, method: str, url: str, body: bytes = b"") -> Deferred[int]:
        """One HTTP request; fires with the status of the answer."""


class Node:
    """The user agents connected to this process.

    :param conf: configuration
    :param store: storage back end
    :param metrics: where to count
    :param clock: delays come from here
    :param peers: way to other connection nodes; None if there are none
    :param now: wall clock, seconds since the epoch
    :param randrange: source of randomness for delays
    """

    def __init__(
        self,
        conf: AutopushConfig,
        store: Store,
        metrics: IMetrics,
        clock: Clock,
        peers: Peers | None = None,
        *,
        now: Callable[[], float] = time.time,
        randrange: Callable[[int, int], int] = random.randrange,
    ) -> None:
        self.conf = conf
        self.store = store
        self.metrics = metrics
        self.metered = bool(getattr(metrics, "active", True))
        self.histograms = bool(getattr(metrics, "histograms", False))
        self.clock = clock
        self.peers = peers
        self.now = now
        self.randrange = randrange
        self.clients: dict[str, Session] = {}
        """The live session of each UAID."""
        self.identifying: Counter[str] = Counter()
        """UAIDs whose hello is under way: their records may lead here already."""
        self.saving: set[Session] = set()
        """Sessions that have ended, but for their notifications being stored."""
        self.background = Background(clock)
        self.recent = Recent()
        self.upkeep = Upkeep(self)
        self.latest = 0
        """The largest ``connected_at`` of this process."""
        self.stopping = False
        self._store_direct = conf.store_direct
        self._max_unacked = conf.max_direct_unacked

    @property
    def router_url(self) -> str:
        """How other nodes reach this one: its ``node_id`` in router records."""
        return self.conf.router_url

    async def deliver(self, uaid: str, notification: WebPushNotification) -> Delivery:
        """Send a notification at once if the user is here (spec/websocket 11).

        With ``store_direct`` a notification with a TTL is stored as well, and this returns when
        that is durable.

        :raises StoreError: it could not be stored (it was sent all the same).
        :raises ValueError: it can't be sent as it is.
        """
        session = self.clients.get(uaid)
        if session is None:
            return BUSY if uaid in self.identifying else NOT_CONNECTED
        notification.live = True
        unacked = session.direct
        if (
            session.wire.output_paused
            or session.state is MOVING_MONTH
            or (unacked is not None and len(unacked) >= self._max_unacked)
        ):
            return BUSY
        if self._store_direct and notification.ttl:
            if self.store.refusal(notification) is not None:
                return BUSY
            await session.send_and_store(notification)
        else:
            session.send_direct(notification)
        return DELIVERED

    def check(self, uaid: str) -> Delivery:
        """Something was stored for this user (PUT /notif): look for it, now or when possible."""
        session = self.clients.get(uaid)
        if session is None:
            return BUSY if uaid in self.identifying else NOT_CONNECTED
        if session.wire.output_paused:
            session.check_wanted = True
            return BUSY
        session.check()
        return DELIVERED

    def disconnect(self, uaid: str, connected_at: int) -> bool:
        """The user connected elsewhere (DELETE /notif); whether that connection was here."""
        session = self.clients.get(uaid)
        if session is None or session.connected_at != connected_at:
            return False
        session.close()
        return True

    def shutdown(self) -> Deferred[None]:
        """End every session that is left: close it and save what was not acknowledged.

        The store must stay open for as long as this takes. To cancel it is to give up what the
        store has refused until then.

        :returns: fires when everything is saved, also of sessions that ended before, and nothing
            waits in the background for another attempt
        """
        self.stopping = True
        return Deferred.fromCoroutine(self._shut_down())

    def idle(self) -> Deferred[None]:
        """Fires when no background work is left."""
        return self.background.idle()

    async def _shut_down(self) -> None:
        self.background.hurry()
        try:
            for session in list(self.clients.values()):
                session.close()
                session.closed()
            while self.saving:
                await next(iter(self.saving)).closed()
            self.upkeep.finish()
            await self.background.idle()
        finally:
            self.background.stop()

    def __repr__(self) -> str:
        return f"<Node {self.router_url} with {len(self.clients)} clients>"
