"""The test at start-up: what is written must be there, and go again (spec/storage 6). Blocking."""

from __future__ import annotations

from uuid import UUID, uuid4

from autopush.db.dynamodb import reading
from autopush.db.dynamodb.messages import Messages
from autopush.db.dynamodb.users import Users
from autopush.db.interface import StoreUnusable
from autopush.db.months import today
from autopush.message.notification import WebPushNotification

NODE = "mynode:2020"


def preflight(users: Users, messages: Messages, month: str, uaid: str) -> None:
    """Write, read and delete a message and a user.

    What a write says of itself counts for nothing: its answer may have got lost, and another
    attempt then finds what the first one has done. So each is judged by what can be read after it.

    :param uaid: of a user that nobody else tests with at the same time
    :raises StoreUnusable: something of it was not done
    :raises StoreError: something of it failed
    """
    if not (_keeps_a_message(messages, month, uaid) and _keeps_a_user(users, messages, uaid)):
        raise StoreUnusable("DynamoDB doesn't keep what is written")


def _keeps_a_message(messages: Messages, month: str, uaid: str) -> bool:
    notification = WebPushNotification(
        uaid=UUID(uaid), channel_id=uuid4(), ttl=60, update_id=uuid4().hex
    )

    def is_there() -> bool:
        found = reading.since(messages, month, uaid, None).messages
        return any(message.update_id == notification.update_id for message in found)

    messages.store(month, notification)()
    kept = is_there()
    messages.delete(month, notification)
    return kept and not is_there()


def _keeps_a_user(users: Users, messages: Messages, uaid: str) -> bool:
    users.register(
        {
            "uaid": uaid,
            "node_id": NODE,
            "connected_at": 0,
            "current_month": today(messages.clock()).month,
            "router_type": "webpush",
        }
    )
    registered = users.get(uaid) or {}
    users.clear_node(uaid, NODE, 0)
    cleared = users.get(uaid) or {}
    users.drop(uaid)
    return (
        registered.get("node_id") == NODE
        and cleared == {name: registered[name] for name in registered if name != "node_id"}
        and users.get(uaid) is None
    )
