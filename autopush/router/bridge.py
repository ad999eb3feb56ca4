"""What the bridges to the vendors' push services share (spec/bridges 1, 9)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from autopush import clock
from autopush.exceptions import RouterException
from autopush.metrics import make_tags
from autopush.router.interface import IRouter, RouterResponse

if TYPE_CHECKING:
    from autopush.config import AutopushConfig
    from autopush.message.notification import WebPushNotification
    from autopush.metrics import IMetrics
    from autopush.types import JSONDict

MAX_TTL = 2419200
"""Seconds: four weeks, the longest Google keeps a message."""

MIN_TTL = 60
"""Seconds, when nothing else is configured."""

RETRY_AFTER = 60
"""Seconds a sender should wait when the vendor doesn't say how long."""

MAX_RETRY_AFTER = 86400
"""Seconds: no vendor's answer puts a sender off for longer."""

AES128GCM = "aes128gcm"
"""The encoding whose salt and key are in the payload itself (RFC 8188)."""


def clamp_ttl(ttl: int | None, minimum: int = MIN_TTL, maximum: int = MAX_TTL) -> int:
    """Return the TTL for a vendor: the sender's, within bounds; 0 if there is none (9.2)."""
    return min(maximum, max(ttl or 0, minimum))


def payload_members(notification: WebPushNotification, self_contained: bool = True) -> JSONDict:
    """Return the members of a vendor's payload under their short names (9.1).

    :param self_contained: leave salt and key out where the payload has them anyway
    :returns: ``chid`` and, with data, ``con``, ``body`` and where sent ``enc`` and ``cryptokey`` or
        ``enckey``. All values are texts.
    """
    members = {"chid": notification.channel_id.hex}
    if not notification.data:
        return members
    headers = notification.headers or {}
    encoding = headers.get("content-encoding") or headers["encoding"]
    members["con"] = encoding
    if not (self_contained and encoding == AES128GCM):
        if headers.get("encryption"):
            members["enc"] = headers["encryption"]
        if headers.get("crypto_key"):
            members["cryptokey"] = headers["crypto_key"]
        elif headers.get("encryption_key"):
            members["enckey"] = headers["encryption_key"]
    members["body"] = notification.data
    return members


def accepted(
    conf: AutopushConfig, notification: WebPushNotification, ttl: int | None
) -> RouterResponse:
    """Return the answer for a message the vendor took.

    :param ttl: what the vendor was told, seconds; None: nothing
    """
    return RouterResponse(
        status_code=201,
        response_body="",
        headers={
            "TTL": None if ttl is None else str(ttl),
            "Location": f"{conf.endpoint_url}/m/{notification.location}",
        },
        logged_status=200,
    )


def busy(text: str, body: str, retry_after: int | None = None, **kwargs: Any) -> RouterException:
    """Return the refusal of a message that may be sent again later.

    :param text: for the log
    :param body: for the sender
    :param retry_after: seconds; None: :data:`RETRY_AFTER`
    """
    return RouterException(
        text,
        status_code=503,
        response_body=body,
        headers={"Retry-After": str(retry_after or RETRY_AFTER)},
        **kwargs,
    )


def parse_retry_after(value: str | bytes | None, now: float | None = None) -> int | None:
    """Return how many seconds a vendor's ``Retry-After`` means (RFC 9110 10.2.3).

    :param now: Unix seconds; None: now
    :returns: 1 to :data:`MAX_RETRY_AFTER`; None if there is none, or nonsense
    """
    text = (value.decode("latin-1") if isinstance(value, bytes) else value or "").strip()
    if text.isascii() and text.isdigit():
        seconds = int(text[:10])
    else:
        try:
            date = parsedate_to_datetime(text)
            seconds = round(date.timestamp() - (clock.now() if now is None else now))
        except (ValueError, TypeError, OverflowError):
            return None
    return max(1, min(seconds, MAX_RETRY_AFTER))


class BridgeMetrics:
    """The metrics of one bridge (spec/observability 8).

    :param platform: its name in the tags
    """

    def __init__(self, metrics: IMetrics, platform: str) -> None:
        self.metrics = metrics
        self._base = [f"platform:{platform}"]

    def sent(self, notification: WebPushNotification, **tags: Any) -> None:
        """The vendor took a message.

        :param tags: further ones of ``notification.bridge.sent``
        """
        metrics = self.metrics
        if not metrics.active:
            return
        metrics.increment("notification.bridge.sent", tags=make_tags(self._base, **tags))
        metrics.increment(
            "notification.message_data",
            notification.data_length,
            tags=make_tags(self._base, destination="Direct"),
        )

    def error(self, reason: str, **tags: Any) -> None:
        """It did not."""
        if self.metrics.active:
            self.metrics.increment(
                "notification.bridge.error", tags=make_tags(self._base, reason=reason, **tags)
            )


class Check(NamedTuple):
    """What the doctor is to say of credentials that could be used.

    :ivar label: which of the bridge's they are; empty: all
    :ivar certificate: PEM file whose dates are to be looked at
    :ivar warning: it is nothing to be content with
    """

    label: str
    text: str
    certificate: str | None = None
    warning: bool = False


class BridgeRouter(IRouter):
    """A router with one client per credential.

    Subclasses fill ``clients`` and define ``register`` and ``_route``.

    :cvar platform: the bridge's name in the tags of metrics
    :cvar account: what its credentials are of, in the doctor's words
    :ivar clients: by the ``app_id`` of the registration URL. Those that can go through a proxy
        have a ``server`` and a ``proxy``.
    """

    log = Logger()
    MAX_TTL = MAX_TTL
    platform: ClassVar[str]
    account: ClassVar[str] = "app"

    def __init__(self, conf: AutopushConfig, router_conf: JSONDict, metrics: IMetrics) -> None:
        self.conf = conf
        self.router_conf = router_conf
        self.metrics = metrics
        self._count = BridgeMetrics(metrics, self.platform)
        self.clients: dict[str, Any] = {}

    def checks(self) -> Iterable[Check]:
        """What the doctor is to say of the credentials.

        :raises OSError, ValueError: some can't be used after all
        """
        count = len(self.clients)
        accounts = f"{count} {self.account}{'' if count == 1 else 's'}"
        return [Check("", f"credentials of {accounts} are well-formed")]

    def proxies(self) -> dict[str, str]:
        """Which proxy is on the way to a server, where there is one."""
        found = self.clients.values()
        return {one.server: one.proxy.name for one in found if getattr(one, "proxy", None)}

    def token_sources(self) -> dict[str, Callable[[], Deferred[str]]]:
        """What asks the vendor for access tokens, by account."""
        return {}

    def close(self) -> Deferred[Any]:
        """Fires when all connections are closed."""
        return gatherResults([client.close() for client in self.clients.values()])

    def amend_endpoint_response(self, response: JSONDict, router_data: JSONDict) -> None:
        """Add nothing."""

    def route_notification(
        self, notification: WebPushNotification, uaid_data: JSONDict
    ) -> Deferred[RouterResponse]:
        """Send a notification.

        :returns: fails with :class:`~autopush.exceptions.RouterException`
        """
        return Deferred.fromCoroutine(self._route(notification, uaid_data["router_data"]))

    async def _route(
        self, notification: WebPushNotification, router_data: JSONDict
    ) -> RouterResponse:
        raise NotImplementedError
