"""Delivery to Apple devices (spec/bridges 7).

What 1.58.3 did not do, and why it is done: every message has an ``aps`` member, a push type and an
expiration, because Apple doesn't show or keep it else (B13). Only behind a key of the credentials:
``collapse_id``, token authentication, another host or port.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import attrs
from OpenSSL import SSL

from autopush import clock
from autopush.exceptions import InvalidConfig, RouterException
from autopush.message.urgency import NORMAL
from autopush.net.http2 import Busy, Http2Error
from autopush.router.apns2 import (
    APNS_MAX_CONNECTIONS,
    MAX_RETRY,
    TIMEOUT,
    APNSClient,
    APNSException,
)
from autopush.router.apnstoken import ProviderToken
from autopush.router.bridge import BridgeRouter, Check, accepted, busy, payload_members
from autopush.router.interface import RouterResponse

if TYPE_CHECKING:
    from autopush.config import AutopushConfig
    from autopush.message.notification import WebPushNotification
    from autopush.metrics import IMetrics
    from autopush.types import JSONDict

DEFAULT_APS: JSONDict = {
    "mutable-content": 1,
    "alert": {
        "loc-key": "SentTab.NoTabArrivingNotification.body",
        "title-loc-key": "SentTab.NoTabArrivingNotification.title",
    },
}
"""What the app shows if its extension can't decrypt the message."""

VISIBLE = ("alert", "badge", "sound")
"""Members of ``aps`` the user notices; without any of them a push is a background one."""

GONE = frozenset(("Unregistered", "ExpiredToken", "BadDeviceToken", "DeviceTokenNotForTopic"))
"""Reasons that say that nothing will ever reach this device under this token (B12)."""

NOT_THE_DEVICE = frozenset(
    """
    BadCertificate BadCertificateEnvironment BadCollapseId BadExpirationDate BadMessageId BadPath
    BadPriority BadTopic DuplicateHeaders ExpiredProviderToken Forbidden IdleTimeout
    InternalServerError InvalidProviderToken InvalidPushType MethodNotAllowed MissingDeviceToken
    MissingProviderToken MissingTopic PayloadEmpty PayloadTooLarge ServiceUnavailable Shutdown
    TooManyProviderTokenUpdates TooManyRequests TopicDisallowed
    """.split()  # noqa: SIM905
)
"""Reasons that are our mistake or Apple's trouble: the user stays, whatever the status."""

FAILED = "APNS returned an error processing request"


@attrs.frozen
class Channel:
    """The settings of a release channel; times in seconds."""

    name: str
    topic: str
    cert: str | None = None
    key: str | None = None
    sandbox: bool = False
    max_connections: int = APNS_MAX_CONNECTIONS
    max_retry: int = MAX_RETRY
    host: str | None = None
    port: int | None = None
    ca_file: str | None = None
    key_id: str | None = None
    team_id: str | None = None
    p8: str | None = None
    timeout: float = TIMEOUT
    collapse_id: bool = False

    @classmethod
    def from_conf(cls, name: str, conf: Any) -> Channel:
        """Check the settings; members of other names are ignored, as ever.

        :raises InvalidConfig: what is wrong
        """
        if not isinstance(conf, dict):
            raise InvalidConfig("Invalid JSON specified for APNS config options")
        given: JSONDict = {}
        for member, (check, wanted) in MEMBERS.items():
            value = conf.get(member)
            if value is None or value == "":
                continue
            if not check(value):
                raise InvalidConfig(f"Invalid {member} of APNS channel {name}: must be {wanted}")
            given[member] = value
        token = [member for member in ("key_id", "team_id", "p8") if member in given]
        if token and len(token) < 3:
            raise InvalidConfig(f"APNS channel {name} needs all of key_id, team_id and p8")
        given.setdefault("topic", f"com.mozilla.org.{name}")
        return cls(name=name, **given)


def _text(value: Any) -> bool:
    return isinstance(value, str) and value.isascii() and value.isprintable()


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


_FILE = (lambda value: isinstance(value, str) and "\0" not in value, "a file name")
_TEXT = (_text, "a text")
_SWITCH = (lambda value: value in (True, False), "true or false")

MEMBERS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "cert": _FILE,
    "key": _FILE,
    "topic": _TEXT,
    "sandbox": _SWITCH,
    "max_connections": (_whole(1, 1000), "a number from 1 to 1000"),
    "max_retry": (_whole(1, 100), "a number from 1 to 100"),
    "host": _TEXT,
    "port": (_whole(1, 65535), "a port number"),
    "ca_file": _FILE,
    "key_id": _TEXT,
    "team_id": _TEXT,
    "p8": _FILE,
    "timeout": (
        lambda value: type(value) in (int, float) and 0 < value <= 600,
        "seconds, at most 600",
    ),
    "collapse_id": _SWITCH,
}
"""How each setting is checked, and what the error calls the right values."""


class APNSRouter(BridgeRouter):
    """Router for ``router_type`` ``apns``.

    :param router_conf: settings by release channel
    :param load_connections: False: read no files and never connect
    :raises InvalidConfig: settings or files can't be used
    """

    platform = "apns"

    def __init__(
        self,
        conf: AutopushConfig,
        router_conf: JSONDict,
        metrics: IMetrics,
        load_connections: bool = True,
    ) -> None:
        super().__init__(conf, router_conf, metrics)
        self._channels = {
            name: Channel.from_conf(name, settings) for name, settings in router_conf.items()
        }
        self._tokens: dict[tuple[str | None, ...], ProviderToken] = {}
        self.apns = self.clients
        for name in self._channels:
            self.clients[name] = self._connect(name, load_connections)
        self.log.debug("Starting APNS router...")

    def _connect(self, rel_channel: str, load_connections: bool = True) -> APNSClient:
        """Return the client of a release channel; connections are made when needed."""
        channel = self._channels[rel_channel]
        if load_connections and not (channel.cert or channel.p8):
            raise InvalidConfig(
                f"APNS channel {channel.name} needs cert and key, or key_id, team_id and p8"
            )
        try:
            client = APNSClient(
                channel.cert,
                channel.key,
                channel.topic,
                use_sandbox=channel.sandbox,
                max_connections=channel.max_connections,
                max_retry=channel.max_retry,
                load_connections=load_connections,
                logger=self.log,
                metrics=self.metrics,
                host=channel.host,
                port=channel.port,
                ca_file=channel.ca_file,
                token=self._provider_token(channel) if load_connections else None,
                timeout=channel.timeout,
            )
        except OSError as exc:
            raise InvalidConfig(
                f"Can't read {exc.filename} of APNS channel {channel.name}: {exc.strerror}"
            ) from exc
        except (ValueError, SSL.Error) as exc:
            text = "they don't fit" if isinstance(exc, SSL.Error) else exc
            raise InvalidConfig(
                f"Unusable certificate or key of APNS channel {channel.name}: {text}"
            ) from exc
        self.log.debug("Starting APNS connection")
        return client

    def _provider_token(self, channel: Channel) -> ProviderToken | None:
        """Return the token of a channel. Channels with one key share it: Apple counts renewals."""
        if channel.p8 is None or channel.key_id is None or channel.team_id is None:
            return None
        names = (channel.key_id, channel.team_id, channel.p8)
        if names not in self._tokens:
            with open(channel.p8, "rb") as file:
                pem = file.read()
            self._tokens[names] = ProviderToken(channel.key_id, channel.team_id, pem)
        return self._tokens[names]

    def checks(self) -> Iterator[Check]:
        """See :meth:`BridgeRouter.checks`."""
        for name, channel in self._channels.items():
            token = self._provider_token(channel)
            if token is None:
                yield Check(name, "", certificate=channel.cert)
            else:
                token.get()
                yield Check(name, f"token of key {channel.key_id} for {channel.topic} was made")

    # ---- registration

    def register(
        self, uaid: str, router_data: JSONDict, app_id: str, *args: object, **kwargs: object
    ) -> None:
        """Check the channel and the token, and note the channel (7.2).

        :raises RouterException: 400
        """
        if app_id not in self.apns:
            raise RouterException(
                "Unknown release channel specified",
                status_code=400,
                response_body="Unknown release channel",
            )
        if not router_data.get("token"):
            raise RouterException("No token registered", status_code=400)
        router_data["rel_channel"] = app_id

    # ---- messages

    async def _route(
        self, notification: WebPushNotification, router_data: JSONDict
    ) -> RouterResponse:
        token, name = router_data.get("token"), router_data.get("rel_channel")
        if not (isinstance(token, str) and token and isinstance(name, str) and name in self.apns):
            raise self._misconfigured(name)
        payload = self._payload(notification, router_data)
        background = is_background(payload["aps"])
        try:
            await self.apns[name].send(
                token,
                payload,
                str(uuid.uuid4()),
                priority=not background and notification.urgency >= NORMAL,
                exp=expiration(notification.ttl, clock.now()),
                push_type="background" if background else "alert",
                collapse_id=self._collapse_id(notification, name),
            )
        except APNSException as exc:
            raise self._refused(exc, name) from None
        except Busy:
            raise self._busy(name) from None
        except Http2Error as exc:
            raise self._failed(name, exc.reason, f"{exc.reason} {exc}") from None
        if self.metrics.active:
            self._count.sent(notification, application=name)
            self.metrics.increment(
                f"updates.client.bridge.apns.{name}.sent", tags=["platform:apns"]
            )
        return accepted(self.conf, notification, notification.ttl)

    def _payload(self, notification: WebPushNotification, router_data: JSONDict) -> JSONDict:
        members = payload_members(notification)
        return {
            "chid": members.pop("chid"),
            "ver": notification.version,
            **members,
            "aps": router_data.get("aps", DEFAULT_APS),
        }

    def _collapse_id(self, notification: WebPushNotification, name: str) -> str | None:
        """Topics belong to a subscription, collapse ids to the device."""
        if not notification.topic or not self._channels[name].collapse_id:
            return None
        text = f"{notification.channel_id.hex}:{notification.topic}"
        return hashlib.sha256(text.encode()).hexdigest()

    # ---- what goes wrong (7.5)

    def _refused(self, exc: APNSException, name: str) -> RouterException:
        reason, status = exc.reason, exc.status
        gone = reason in GONE or (
            status in (404, 410) and reason is not None and reason not in NOT_THE_DEVICE
        )
        if gone:
            return RouterException(
                "APNS device is gone",
                status_code=status if status in (404, 410) else 410,
                response_body="User is no longer registered",
                log_exception=False,
                errno=106,
            )
        headers = {"Retry-After": str(exc.retry_after)} if exc.retry_after else {}
        return self._failed(name, reason or "unknown", str(exc), headers)

    def _failed(
        self, name: str, reason: str, text: str, headers: dict[str, str] | None = None
    ) -> RouterException:
        self._count.error(reason, application=name, error=502, errno=0)
        return RouterException(
            f"APNS Transmit Error {text}",
            status_code=502,
            response_body=FAILED,
            headers=headers,
            reason=reason,
        )

    def _busy(self, name: str) -> RouterException:
        self._count.error("busy", application=name, error=503, errno=0)
        limit = self.apns[name].max_connections
        return busy(
            f"Too many APNS requests, increase pool from {limit}",
            "APNS busy, please retry",
            retry_after=BUSY_RETRY_AFTER,
        )

    def _misconfigured(self, name: Any) -> RouterException:
        """The record was made for a channel this node doesn't have, or is damaged; it is kept."""
        self.log.critical("Missing APNS bridge credentials for {channel}", channel=str(name)[:64])
        return RouterException(
            "Missing APNS bridge credentials",
            status_code=500,
            response_body="An unexpected server error occurred.",
            log_exception=False,
        )


BUSY_RETRY_AFTER = 10
"""Seconds: the queue is that of one message's time limit."""


def is_background(aps: Any) -> bool:
    """Whether a push only wakes the app; Apple wants those with priority 5."""
    return (
        isinstance(aps, dict)
        and bool(aps.get("content-available"))
        and not any(member in aps for member in VISIBLE)
        and not aps.get("mutable-content")
    )


def expiration(ttl: int | None, now: float) -> int | None:
    """Return until when Apple is to keep a message, as ``apns-expiration``.

    :param now: Unix seconds
    :returns: None for no TTL: Apple's own default; 0: deliver now or never
    """
    if ttl is None:
        return None
    return int(now) + ttl if ttl else 0
