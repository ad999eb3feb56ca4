"""Log events and metrics of sessions (spec/observability 4.4 and 8)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from twisted.logger import Logger

from autopush.logging import enabled, for_people

if TYPE_CHECKING:
    from autopush.message.notification import WebPushNotification
    from autopush.metrics import IMetrics
    from autopush.useragent import UserAgent

log = Logger(namespace="autopush.websocket.PushServerProtocol")
"""The documented name space of all these events."""

__all__ = [
    "enabled",
    "extract_code",
    "for_people",
    "identity",
    "log",
    "log_ack",
    "redacted",
    "sent",
    "took",
]


class Identified(Protocol):
    """Whom an event is about: a session."""

    @property
    def user_agent(self) -> UserAgent:
        """The other end."""

    @property
    def uaid_hash(self) -> str | None:
        """The UAID for logs."""


class Counting(Protocol):
    """Where notifications are counted: a node."""

    metrics: IMetrics
    histograms: bool
    now: Callable[[], float]


def extract_code(message: dict[str, Any]) -> int:
    """The message's ``code`` if that is an integer, else 0."""
    code = message.get("code")
    return code if type(code) is int else 0  # not isinstance: true is no code


def identity(session: Identified) -> dict[str, Any]:
    """The fields every event of an identified session carries."""
    return {"uaid_hash": session.uaid_hash, **session.user_agent.info}


def took(node: Counting, began: float) -> dict[str, Any]:
    """Fields for people only: how a command that was answered 200 ended, and how soon.

    :param began: when it came, by the node's clock
    """
    return {"status": 200, "took": node.now() - began}


def redacted(endpoint: str) -> str:
    """An endpoint URL without its token: whoever knows the token can send (decisions/secrets)."""
    return endpoint.rpartition("/")[0] + "/..."


def log_ack(
    session: Identified, source: str, version: str, notification: WebPushNotification, code: int
) -> None:
    """Log a matched acknowledgement; callers check the level first."""
    log.debug(
        "Ack",
        router_key="webpush",
        channel_id=str(notification.channel_id),
        message_id=version,
        message_source=source,
        message_size=notification.data_length,
        user_agent=session.user_agent.text,
        code=code,
        **identity(session),
    )


def sent(node: Counting, notification: WebPushNotification, source: str) -> None:
    """Count a notification that goes out; ``source`` is ``Direct`` or ``Stored``."""
    metrics = node.metrics
    if node.histograms:
        metrics.observe("notification.age", max(0.0, node.now() - notification.timestamp))
    if notification.topic:
        metrics.increment("ua.notification.topic")
    metrics.increment("ua.message_data", notification.data_length, tags=["source:" + source])
