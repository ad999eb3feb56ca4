"""What a connection node does with its sessions."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from autopush.session import cleanup
from autopush.session.session import BaseNode, Delivery
from autopush.session.states import State
from autopush.session.upkeep import Upkeep

if TYPE_CHECKING:
    from autopush.message.notification import WebPushNotification

MOVING_MONTH = State.MOVING_MONTH

DELIVERED, NOT_CONNECTED, BUSY = Delivery.DELIVERED, Delivery.NOT_CONNECTED, Delivery.BUSY


class Node(BaseNode):
    """The user agents connected to this process.

    :param conf: configuration
    :param store: storage back end
    :param metrics: where to count
    :param clock: delays come from here
    :param peers: way to other connection nodes; None if there are none
    :param now: wall clock, seconds since the epoch
    :param randrange: source of randomness for delays
    """

    @cached_property
    def upkeep(self) -> Upkeep:
        """What is done now and then for those who are connected."""
        return Upkeep(self)

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
            or (unacked is not None and len(unacked) >= self.max_unacked)
            or notification.urgency < session.least
        ):
            return BUSY
        if self.store_direct and notification.ttl:
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
        self.broadcasts.stop()
        try:
            for session in list(self.clients.values()):
                session.close()
                cleanup.closed(session)
            while self.saving:
                await cleanup.closed(next(iter(self.saving)))
            self.upkeep.finish()
            await self.background.idle()
        finally:
            self.background.stop()

    def __repr__(self) -> str:
        return f"<Node {self.router_url} with {len(self.clients)} clients>"
