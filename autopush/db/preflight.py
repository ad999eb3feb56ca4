"""The test at start-up: what is written must be there, and go again (storage.md 6). Blocking."""

from __future__ import annotations

from uuid import UUID, uuid4

from autopush.db.dynamodb_messages import Messages
from autopush.db.dynamodb_users import Users
from autopush.db.interface import StoreUnusable
from autopush.db.months import today
from autopush.notification import WebPushNotification

NODE = "mynode:2020"


def preflight(users: Users, messages: Messages, month: str, uaid: str) -> None:
    """Write, read and delete a message and a user.

    :param uaid: of a user that nobody else tests with at the same time
    :raises StoreUnusable: something of it was not done
    :raises StoreError: something of it failed
    """
    notification = WebPushNotification(
        uaid=UUID(uaid), channel_id=uuid4(), ttl=60, update_id=uuid4().hex
    )
    messages.store(month, notification)()
    kept = messages.delete(month, notification)
    users.register(
        {
            "uaid": uaid,
            "node_id": NODE,
            "connected_at": 0,
            "current_month": today(messages.clock()).month,
            "router_type": "webpush",
        }
    )
    user = users.get(uaid) or {}
    cleared = users.clear_node(uaid, NODE, 0)
    dropped = users.drop(uaid)
    if not (kept and cleared and dropped and user.get("node_id") == NODE):
        raise StoreUnusable("DynamoDB doesn't keep what is written")
