"""Delivery to browsers, through the connection node they are connected to (spec/bridges 3).

::

    node_id in the record? ──no──────────┐
          │ yes                          ▼
    deliver: PUT <node>/push/<uaid> ─▶ store ─▶ node_id in the record now? ──no──▶ stored
          │ 200              not 200     │ no TTL, TTL 0    │ yes
          ▼                              ▼                  ▼
      delivered                      400, 201   check: PUT <node>/notif/<uaid> ─not 200─▶ stored
          ▲                                                 │ 200
          └─────────────────────────────────────────────────┘

What is less urgent than the record asks for is only stored. A connection node in this process is
called directly instead. Before a message is stored, it is seen whether there is room for it: 429 if
not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import orjson
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from autopush import clock
from autopush.addresses import is_node_url
from autopush.exceptions import RouterException, StoreBusy, StoreError, UserFull
from autopush.message.urgency import least_of
from autopush.metrics import SinkMetrics
from autopush.net.nodeclient import GONE, NodeBusy, NodeGone
from autopush.router.backlog import Backlogs
from autopush.router.interface import IRouter, RouterResponse
from autopush.session import Delivery

if TYPE_CHECKING:
    from autopush.config import AutopushConfig
    from autopush.db.interface import Store, Stored, User
    from autopush.message.notification import WebPushNotification
    from autopush.metrics import IMetrics
    from autopush.net.nodeclient import NodeClient
    from autopush.session import Node
    from autopush.types import JSONDict

TTL_URL = "https://webpush-wg.github.io/webpush-protocol/#rfc.section.6.2"
MISSING_TTL = f"Missing TTL Header, see: {TTL_URL}"

RETRY_AFTER = 300
"""Seconds after which a sender may look again whether a user agent has read what waits for it."""

SETTLED = 60
"""Seconds after the start of a connection from which on the 404 of any node is believed. Our nodes
say "busy" while they finish a hello, and that they are sure otherwise; those of 1.58.3 say 404: to
forget the node then would leave a live connection that nobody finds."""


class WebPushRouter(IRouter):
    """Router for ``router_type`` ``webpush`` (and the obsolete ``simplepush``).

    :param router_conf: not used
    :param agent: client for the other nodes' internal API; None: there are no other nodes
    :param node: the connection node in this process, if there is one
    :param metrics: default: the node's, if there is one
    :param now: wall clock, seconds since the epoch
    """

    log = Logger()

    def __init__(
        self,
        conf: AutopushConfig,
        router_conf: JSONDict | None,
        db: Store,
        agent: NodeClient | None,
        node: Node | None = None,
        metrics: IMetrics | None = None,
        *,
        now: Callable[[], float] | None = None,
    ) -> None:
        self.conf = conf
        self._now = now or clock.now
        self.db = db
        self.agent = agent
        self.node = node
        if metrics is None:
            metrics = node.metrics if node is not None else SinkMetrics()
        self.metrics = metrics
        self.backlogs = Backlogs(conf.msg_limit, self._now)

    def register(
        self, uaid: str, router_data: JSONDict, app_id: str, *args: object, **kwargs: object
    ) -> None:
        """Accept everything."""

    def amend_endpoint_response(self, response: JSONDict, router_data: JSONDict) -> None:
        """Add nothing."""

    def route_notification(
        self, notification: WebPushNotification, uaid_data: User
    ) -> Deferred[RouterResponse]:
        """Deliver a notification, or store it for later.

        :param uaid_data: the user's record
        :returns: fires with the answer for the sender; fails with
            :class:`~autopush.exceptions.RouterException` when it was neither delivered nor stored
        """
        return Deferred.fromCoroutine(self.route(notification, uaid_data))

    async def route(self, notification: WebPushNotification, uaid_data: User) -> RouterResponse:
        """Deliver a notification, or store it for later; see :meth:`route_notification`."""
        user = uaid_data
        node_id = user.get("node_id")
        if "urgency" in user and _withheld(notification, user):
            notification.live = bool(node_id)
        elif node_id and await self._send_notification(notification, user, node_id):
            return self.delivered_response(notification)
        fresh, was_read = await self._save_notification(notification, user)
        if not was_read:
            return self.stored_response(notification)
        if fresh is None:
            self.metrics.increment("updates.client.deleted")
            raise RouterException(
                "User was deleted",
                status_code=410,
                response_body="Invalid UAID",
                log_exception=False,
                errno=105,
            )
        if fresh.get("current_month") != user["current_month"] and fresh.get("current_month"):
            # Moved meanwhile: nobody may be reading the old month any more (spec/storage S17).
            await self._follow(notification, user["current_month"], fresh["current_month"])
        node_id = fresh.get("node_id")
        if "urgency" in fresh and _withheld(notification, fresh):
            node_id = None  # its user agent will look for it itself when it wants it
        if node_id and await self._send_notification_check(fresh, node_id):
            return self.delivered_response(notification)
        return self.stored_response(notification)

    # ---- talking to nodes

    async def _send_notification(
        self, notification: WebPushNotification, user: User, node_id: str
    ) -> bool:
        """Hand the notification to the user's node; whether its user agent got it."""
        uaid = notification.uaid.hex
        node = self.node
        if node is not None and node_id == node.router_url:
            try:
                delivery = await node.deliver(uaid, notification)
            except StoreError as exc:
                raise not_saved(exc) from exc
            if delivery is Delivery.NOT_CONNECTED:
                user.pop("node_id")
            return delivery is Delivery.DELIVERED
        body = orjson.dumps(notification.serialize())
        try:
            status = await self._request(f"/push/{uaid}", user, node_id, body)
        except NodeGone as exc:
            await self._node_gone(user, node_id, exc)
            return False
        if status == 503:
            # Busy: connected, but can't take it at the moment.
            notification.live = True
        return status == 200

    async def _send_notification_check(self, user: User, node_id: str) -> bool:
        """Tell the user's node that there is something to fetch; whether it does so at once."""
        uaid = user["uaid"]
        node = self.node
        if node is not None and node_id == node.router_url:
            if node.check(uaid) is not Delivery.DELIVERED:
                return False
            self.metrics.increment("ua.notification_check")
            return True
        try:
            return await self._request(f"/notif/{uaid}", user, node_id) == 200
        except NodeGone as exc:
            await self._node_gone(user, node_id, exc)
            return False

    async def _request(self, path: str, user: User, node_id: str, body: bytes = b"") -> int:
        """PUT something to a user's node, and forget that node if the user isn't there (B22).

        :returns: HTTP status
        :raises NodeGone: nobody answers there, or it is no address of a node (B21)
        """
        if self.agent is None or not is_node_url(node_id):
            raise NodeGone("not a node")
        status = await self.agent.request("PUT", node_id + path, body)
        if status == GONE or (status == 404 and self._settled(user)):
            await self._clear_node(user, node_id)
        return status

    def _settled(self, user: User) -> bool:
        """Whether the connection in the record can't be one that is just being made."""
        connected_at = user.get("connected_at")
        return connected_at is not None and self._now() - int(connected_at) / 1000 >= SETTLED

    async def _node_gone(self, user: User, node_id: str, reason: NodeGone) -> None:
        """Forget a node that can't be reached (3.4)."""
        if isinstance(reason, NodeBusy):
            return
        self.metrics.increment("updates.client.host_gone")
        self.log.debug("Could not route message: {exc}", exc=reason)
        await self._clear_node(user, node_id)

    async def _clear_node(self, user: User, node_id: str) -> None:
        """Remove the node from the record, unless the record is about another connection now."""
        user.pop("node_id", None)
        connected_at = user.get("connected_at")
        if connected_at is None:
            return
        try:
            await self.db.clear_node(user["uaid"], node_id, int(connected_at))
        except StoreError:
            pass  # the next sender finds the node gone, too

    # ---- storing

    def forget(self, notification: WebPushNotification) -> None:
        """Don't count a notification any more that was taken back by its sender."""
        self.backlogs.forget(notification)

    async def _save_notification(self, notification: WebPushNotification, user: User) -> Stored:
        """Store the notification in the message table of the user's month, and read the record.

        :raises RouterException: no TTL, nothing to store (TTL 0), no room, or the store failed
        """
        if notification.ttl is None:
            raise RouterException(
                "Missing TTL Header",
                status_code=400,
                response_body=MISSING_TTL,
                log_exception=False,
                errno=111,
            )
        if notification.ttl == 0:
            raise RouterException(
                "Finished Routing",
                status_code=201,
                headers={"TTL": "0", "Location": self._location(notification)},
                log_exception=False,
                logged_status=204,
            )
        try:
            full = self.db.refusal(notification)
            if full is None and not self.backlogs.take(notification, user):
                full = UserFull(
                    f"{self.backlogs.limit} messages are waiting for this user agent already"
                )
            if full is not None:
                raise no_room(full)
            return await self.db.store_and_look(user["current_month"], notification)
        except StoreError as exc:
            self.backlogs.forget(notification)
            raise not_saved(exc) from exc

    async def _follow(self, notification: WebPushNotification, old: str, new: str) -> None:
        """Take what was just stored to the month of a user who has moved.

        Carried, not stored once more: the copy left behind would be carried over, too, some time.

        :raises RouterException: the store failed
        """
        try:
            await self.db.carry_late(notification.uaid.hex, old, new)
        except StoreError as exc:
            raise not_saved(exc) from exc

    # ---- answers

    def delivered_response(self, notification: WebPushNotification) -> RouterResponse:
        """The user agent got it, or is told to fetch it."""
        return self._response(notification, "Direct", 200)

    def stored_response(self, notification: WebPushNotification) -> RouterResponse:
        """It waits for the user agent."""
        return self._response(notification, "Stored", 201)

    def _response(
        self, notification: WebPushNotification, destination: str, logged_status: int
    ) -> RouterResponse:
        metrics = self.metrics
        if metrics.active:
            metrics.increment(
                "notification.message_data",
                notification.data_length,
                tags=[f"destination:{destination}"],
            )
        return RouterResponse(
            status_code=201,
            response_body="",
            headers={
                "Location": self._location(notification),
                "TTL": str(notification.ttl or 0),
            },
            logged_status=logged_status,
        )

    def _location(self, notification: WebPushNotification) -> str:
        return f"{self.conf.endpoint_url}/m/{notification.message_id}"


def _withheld(notification: WebPushNotification, user: User) -> bool:
    """Whether a message is less urgent than what its user agent wants (spec/broadcasts 2)."""
    return notification.urgency < least_of(user)


def not_saved(reason: StoreError) -> RouterException:
    """Return the refusal of a message that may get lost; logged unless the store is just busy."""
    return RouterException(
        "Error saving to database",
        status_code=503,
        response_body="Retry Request",
        log_exception=not isinstance(reason, StoreBusy),
        errno=201,
    )


def no_room(reason: UserFull) -> RouterException:
    """Return the refusal of a message for which too much is waiting already."""
    return RouterException(
        "Too much is waiting",
        status_code=429,
        response_body=f"Too much is waiting: {reason}",
        headers={"Retry-After": str(RETRY_AFTER)},
        log_exception=False,
        errno=203,
    )
