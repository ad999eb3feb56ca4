"""The internal API of a connection node: what endpoints and other nodes ask of it.

Source: spec/websocket 19. The handlers are documented members of ``autopush.websocket``, which
re-exports them; they know nothing of sockets.
"""

from __future__ import annotations

from typing import Any

import orjson
from twisted.logger import Logger

from autopush.exceptions import StoreBusy, StoreError
from autopush.httpserver.handler import BaseHandler, HTTPError
from autopush.message.notification import WebPushNotification
from autopush.net.nodeclient import SURE
from autopush.session import Delivery, Node

NOT_CONNECTED = "Client not connected."
BUSY = "Client busy."
NOT_STORED = "Storage failed."
ACCEPTED = "Client accepted for delivery"
CHECK_STARTED = "Notification check started"
CHECK_LATER = "Flagged for Notification check"
TERMINATED = "Terminated duplicate"

MAX_DIGITS = 20
"""Digits of a ``connected_at`` (ms) that can be one; longer ones match no connection."""


log = Logger("autopush.websocket")


class NodeHandler(BaseHandler):
    """A handler of an application whose ``node`` is the connection node of this process."""

    @property
    def node(self) -> Node:
        """The sessions of this process."""
        node: Node = self.application.node
        return node

    def answer(self, status: int, text: str) -> None:
        """Answer with a plain text."""
        self.set_status(status)
        self.write(text)

    def answer_not_connected(self) -> None:
        """Answer that nobody is connected, nor about to be: else it would be "busy"."""
        self.set_header(*SURE)
        self.answer(404, NOT_CONNECTED)


class RouterHandler(NodeHandler):
    """``/push/{uaid}``: hand a message to a connected user agent."""

    __module__ = "autopush.websocket"  # where it is documented, and the name of its log events

    async def put(self, uaid: str) -> None:
        """200 means sent (and, if the node keeps direct messages, stored).

        Where storing fails it was sent all the same, but whoever asks must not count on that: 503.
        A body that is no notification is answered 500 with an empty body, and logged.
        """
        node = self.node
        if uaid not in node.clients and uaid not in node.identifying:
            self.answer_not_connected()
            return
        notification = parse_notification(uaid, self.request.body)
        try:
            delivery = await node.deliver(uaid, notification)
        except StoreError as exc:
            not_stored(exc)
            self.answer(503, NOT_STORED)
            return
        if delivery is Delivery.DELIVERED:
            self.answer(200, ACCEPTED)
        elif delivery is Delivery.BUSY:
            self.answer(503, BUSY)
        else:
            self.answer_not_connected()


class NotificationHandler(NodeHandler):
    """``/notif/{uaid}``: look for stored messages, or give way to a newer connection."""

    __module__ = "autopush.websocket"  # where it is documented, and the name of its log events

    def put(self, uaid: str, *args: Any) -> None:
        """Start a check for stored messages; a number in the path has no meaning."""
        delivery = self.node.check(uaid)
        if delivery is Delivery.DELIVERED:
            self.metrics.increment("ua.notification_check")
            self.answer(200, CHECK_STARTED)
        elif delivery is Delivery.BUSY:
            self.answer(202, CHECK_LATER)
        else:
            self.answer_not_connected()

    def delete(self, uaid: str, connected_at: str | None = None) -> None:
        """Close the connection of ``uaid`` if it is the one of ``connected_at`` (ms).

        :raises HTTPError: 500, the user agent is connected and no number is given
        """
        if connected_at is None:
            if uaid in self.node.clients:
                raise HTTPError(500)
            return
        number = int(connected_at) if len(connected_at) <= MAX_DIGITS else -1
        if self.node.disconnect(uaid, number):
            self.answer(200, TERMINATED)


def not_stored(reason: StoreError) -> None:
    """Log that what another process handed over was sent and not stored, unless that will pass."""
    if not isinstance(reason, StoreBusy):
        log.warn("Failed to store a direct message", reason=repr(reason))


def parse_notification(uaid: str, body: bytes) -> WebPushNotification:
    """Read the body of PUT /push.

    :raises ValueError: it is no notification
    """
    data = orjson.loads(body)
    if not isinstance(data, dict):
        raise ValueError("not an object")
    return WebPushNotification.from_serialized(uaid, data)
