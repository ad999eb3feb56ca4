"""Log events and metrics of sessions (spec/observability 4.4 and 8)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from autopush.logging import enabled

if TYPE_CHECKING:
    from autopush.message.notification import WebPushNotification
    from autopush.session.session import Session

log = Logger(namespace="autopush.websocket.PushServerProtocol")
"""The documented name space of all these events."""

__all__ = ["enabled", "extract_code", "identity", "log", "log_ack", "redacted", "sent"]


def extract_code(message: dict[str, Any]) -> int:
    """The message's ``code`` if that is an integer, else 0."""
    code = message.get("code")
    return code if type(code) is int else 0  # not isinstance: true is no code


def identity(session: Session) -> dict[str, Any]:
    """The fields every event of an identified session carries."""
    return {"uaid_hash": session.uaid_hash, **session.agent.info}


def redacted(endpoint: str) -> str:
    """An endpoint URL without its token: whoever knows the token can send (decisions/secrets)."""
    return endpoint.rpartition("/")[0] + "/..."


def log_ack(
    session: Session, source: str, version: str, notification: WebPushNotification, code: int
) -> None:
    """Log a matched acknowledgement; callers check the level first."""
    log.debug(
        "Ack",
        router_key="webpush",
        channel_id=str(notification.channel_id),
        message_id=version,
        message_source=source,
        message_size=notification.data_length,
        user_agent=session.agent.text,
        code=code,
        **identity(session),
    )


def sent(session: Session, notification: WebPushNotification, source: str) -> None:
    """Count a notification that goes out; ``source`` is ``Direct`` or ``Stored``."""
    node = session.node
    metrics = node.metrics
    if node.histograms:
        metrics.observe("notification.age", max(0.0, node.now() - notification.timestamp))
    if notification.topic:
        metrics.increment("ua.notification.topic")
    metrics.increment("ua.message_data", notification.data_length, tags=["source:" + source])
