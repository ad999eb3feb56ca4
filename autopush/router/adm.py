"""Bridge to Amazon devices over Amazon Device Messaging (spec/bridges 8).

::

    → POST <base>/auth/O2/token          grant_type=client_credentials&scope=messaging:push
                                         &client_id=...&client_secret=...
    ← 200 {"access_token": ..., "expires_in": 3600}

    → POST <base>/messaging/registrations/<token>/messages     Authorization: Bearer <token>
      {"data": {...}, "expiresAfter": s[, "consolidationKey": <topic>]}
    ← 200 {"registrationID": <token, perhaps a new one>}
    ← 400, 401, 413, 429, 500, 503 {"reason": ...}             [Retry-After]

Source: spec/bridges 8 and 10; Amazon, "Send a Message via ADM" and "Request an Access Token".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import orjson
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from autopush.constants import DEFAULT_ROUTER_TIMEOUT
from autopush.exceptions import InvalidConfig, RouterException
from autopush.router.bridge import (
    MIN_TTL,
    BridgeRouter,
    accepted,
    clamp_ttl,
    payload_members,
)
from autopush.router.bridgehttp import (
    BridgeClient,
    BridgeError,
    BridgeTimeout,
    Reply,
    Token,
    TokenCache,
    base_url,
    no_answer,
    please_wait,
)
from autopush.router.interface import RouterResponse

if TYPE_CHECKING:
    from autopush.config import AutopushConfig
    from autopush.message.notification import WebPushNotification
    from autopush.metrics import IMetrics
    from autopush.types import JSONDict

ENDPOINT = "api.amazon.com"

RENEW_EARLY = 120
"""Seconds before its end at which a token is renewed."""

MAX_LIFETIME = 86_400
"""Seconds a token is used for, whatever the answer says."""

GONE = frozenset({"Unregistered", "InvalidRegistrationId"})
"""Reasons that say the device no longer exists."""

MAX_DETAIL = 200
"""Characters of an answer that may appear in the log."""


class ADMAuthError(Exception):
    """Amazon gave no access token, or refused a new one."""


class ADMError(Exception):
    """An answer that can't be understood."""


class ADMClient:
    """Sends with one security profile.

    :param credentials: ``client_id`` and ``client_secret``
    :param endpoint: host, or base URL; https unless it starts with ``http://``
    :param timeout: seconds for each request
    :param options: ``ca_file``, see :class:`~autopush.router.bridgehttp.BridgeClient`
    :raises OSError, InvalidConfig: an argument can't be used
    """

    def __init__(
        self,
        credentials: JSONDict | None = None,
        logger: Logger | None = None,
        metrics: IMetrics | None = None,
        endpoint: str = ENDPOINT,
        timeout: float = DEFAULT_ROUTER_TIMEOUT,
        **options: Any,
    ) -> None:
        given = credentials or {}
        self._client_id, self._client_secret = given.get("client_id"), given.get("client_secret")
        if not self._client_id or not self._client_secret:
            raise OSError("Profile info incomplete, missing id or secret")
        self.logger = logger or Logger()
        self.metrics = metrics
        self._base = base_url(endpoint, f"https://{ENDPOINT}", "ADM base_url")
        self._client = BridgeClient(
            timeout=timeout, ca_file=options.get("ca_file"), server=self._base
        )
        self.server, self.proxy = self._client.server, self._client.proxy
        self._request = self._client.post
        self._tokens = TokenCache(self.refresh_key, self._client.reactor.seconds, RENEW_EARLY)

    async def refresh_key(self) -> Token:
        """Get a new access token.

        :raises ADMAuthError: refused
        :raises ADMError: the answer has no token
        :raises BridgeError: no answer came
        """
        form = {
            "grant_type": "client_credentials",
            "scope": "messaging:push",
            "client_id": self._client_id,
            "client_secret": self._client_secret,
        }
        headers = {"content-type": "application/x-www-form-urlencoded"}
        url = f"{self._base}/auth/O2/token"
        reply = await self._request(url, headers, urlencode(form).encode())
        if reply.code != 200:
            text = reply.text[:MAX_DETAIL].replace(str(self._client_secret), "...")
            self.logger.error("Could not get ADM Auth token {text}", text=text)
            raise ADMAuthError(f"status {reply.code}")
        data = reply.json_object() or {}
        token, lifetime = data.get("access_token"), data.get("expires_in", 0)
        if not isinstance(token, str) or not token or not _printable(token):
            raise ADMError("no access token in the answer")
        if not isinstance(lifetime, int | float):
            lifetime = int(lifetime) if str(lifetime).isdigit() else 0
        return Token(token, max(0, min(lifetime, MAX_LIFETIME)))

    def send(
        self,
        reg_id: str,
        payload: JSONDict,
        ttl: int | None = None,
        collapseKey: str | None = None,
    ) -> Deferred[Reply]:
        """Send a message; with a refused token once more, with a new one.

        :param reg_id: the device's token
        :param payload: members and values are texts
        :param ttl: seconds
        :param collapseKey: replaces an earlier message with the same key
        :returns: fires with Amazon's answer; fails with :class:`ADMAuthError`, :class:`ADMError`
            or :class:`~autopush.router.bridgehttp.BridgeError`
        """
        message: JSONDict = {"data": payload}
        if ttl is not None:
            message["expiresAfter"] = ttl
        if collapseKey:
            message["consolidationKey"] = collapseKey
        return Deferred.fromCoroutine(self._send(reg_id, orjson.dumps(message)))

    def close(self) -> Deferred[None]:
        """Close the idle connections."""
        return self._client.close()

    async def _send(self, reg_id: str, body: bytes) -> Reply:
        url = f"{self._base}/messaging/registrations/{quote(reg_id, safe='')}/messages"
        for _ in range(2):
            token = await self._token()
            reply = await self._request(url, self._headers(token), body)
            if reply.code != 401:
                return reply
            self._tokens.invalidate(token)
        raise ADMAuthError("a new access token was refused")

    def access_token(self) -> Deferred[str]:
        """Fires with a valid access token, however long that takes."""
        return self._tokens.get()

    def _token(self) -> Deferred[str]:
        def too_late(_result: object, timeout: float) -> Any:
            raise BridgeTimeout(f"no access token within {timeout:g} s")

        timeout = self._client.timeout
        return self.access_token().addTimeout(timeout, self._client.reactor, too_late)

    def _headers(self, token: str) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "X-Amzn-Type-Version": "com.amazon.device.messaging.ADMMessage@1.0",
            "X-Amzn-Accept-Type": "com.amazon.device.messaging.ADMSendResult@1.0",
            "Accept": "application/json",
        }


def _printable(token: str) -> bool:
    return token.isascii() and token.isprintable() and " " not in token


class ADMRouter(BridgeRouter):
    """Router for ``router_type`` ``adm``.

    :param router_conf: ``{profile: {"client_id", "client_secret"[, "base_url", "ca_file", "ttl",
        "timeout"]}}``; ``ttl`` is the shortest sent, seconds (60)
    :raises OSError: a profile is incomplete
    :raises InvalidConfig: a member can't be used
    """

    platform = "adm"
    account = "profile"

    def __init__(self, conf: AutopushConfig, router_conf: JSONDict, metrics: IMetrics) -> None:
        super().__init__(conf, router_conf, metrics)
        self.min_ttls: dict[str, int] = {}
        self.profiles = self.clients
        for profile, options in router_conf.items():
            self.clients[profile] = self._make_client(profile, options)
        self.log.debug("Starting ADM router...")

    def _make_client(self, profile: str, options: Any) -> ADMClient:
        if not isinstance(options, dict):
            raise OSError("Profile info incomplete, missing id or secret")
        for name, default in (("ttl", MIN_TTL), ("timeout", DEFAULT_ROUTER_TIMEOUT)):
            value = options.get(name, default)
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                raise InvalidConfig(f"Invalid {name} of ADM profile {profile}: {value!r}")
        self.min_ttls[profile] = int(options.get("ttl", MIN_TTL))
        return ADMClient(
            options,
            logger=self.log,
            metrics=self.metrics,
            endpoint=options.get("base_url") or ENDPOINT,
            timeout=options.get("timeout") or DEFAULT_ROUTER_TIMEOUT,
            ca_file=options.get("ca_file"),
        )

    def token_sources(self) -> dict[str, Callable[[], Deferred[str]]]:
        """See :meth:`BridgeRouter.token_sources`."""
        return {profile: client.access_token for profile, client in self.clients.items()}

    # ---- registration

    def register(
        self, uaid: str, router_data: JSONDict, app_id: str, *args: Any, **kwargs: Any
    ) -> None:
        """Check token and profile.

        :raises RouterException: 401, 400
        """
        if not router_data.get("token"):
            raise RouterException("connect info missing ADM Instance 'token'", status_code=401)
        if app_id not in self.profiles:
            raise RouterException("Invalid ADM Profile", status_code=400, errno=105)
        router_data["creds"] = {"profile": app_id}

    # ---- notifications

    async def _route(
        self, notification: WebPushNotification, router_data: JSONDict
    ) -> RouterResponse:
        profile = (router_data.get("creds") or {}).get("profile")
        client = self.profiles.get(str(profile))
        token = router_data.get("token")
        if client is None or not token:
            raise self._unhandled(f"no profile {profile} here, or no token")
        ttl = clamp_ttl(notification.ttl, self.min_ttls[str(profile)])
        data = payload_members(notification, self_contained=False)
        try:
            reply = await client.send(token, data, ttl, notification.topic)
        except ADMAuthError as exc:
            self.log.error("ADM unable to authorize: {text}", text=str(exc))
            self._count.error("auth_failure", error=502, errno=901)
            raise self._refusal(502, 901) from exc
        except ADMError as exc:
            raise self._unhandled(str(exc)) from exc
        except BridgeError as exc:
            what = "Timeout" if isinstance(exc, BridgeTimeout) else "Unavailable"
            self.log.warn("ADM {what}: {text}", what=what, text=str(exc))
            raise no_answer(exc, self._count) from exc
        return self._process_reply(reply, notification, router_data, ttl)

    def _process_reply(
        self, reply: Reply, notification: WebPushNotification, router_data: JSONDict, ttl: int
    ) -> RouterResponse:
        """Return the answer for the sender, by what Amazon said (spec/bridges 10).

        :raises RouterException: it did not take the message
        """
        data = reply.json_object() or {}
        if reply.code != 200:
            raise self._not_taken(reply, str(data.get("reason", ""))[:MAX_DETAIL], router_data)
        self._count.sent(notification)
        response = accepted(self.conf, notification, ttl)
        new = data.get("registrationID")
        if isinstance(new, str) and new and new != router_data["token"]:
            self.log.debug("ADM id changed")
            response.router_data = {**router_data, "token": new}
        return response

    def _not_taken(self, reply: Reply, reason: str, router_data: JSONDict) -> RouterException:
        text = f"{reply.code} {reason}".replace(router_data["token"], "...")
        if reply.code == 400 and reason in GONE:
            self.log.debug("ADM no longer registered: {text}", text=text)
            # Counted where the user is dropped.
            return self._refusal(410, 106, "User is no longer registered")
        if reply.code in (429, 503) or (reply.code >= 500 and reply.retry_after is not None):
            self.log.warn("ADM retry requested: {text}", text=text)
            return please_wait(f"ADM retry requested: {text}", self._count, reply.retry_after)
        self.log.error("Could not send ADM message: {text}", text=text)
        if reply.code == 413:
            self._count.error("too_long", error=413, errno=104)
            return self._refusal(413, 104, "Message is too long for the recipient")
        self._count.error("server_error", error=500, errno=0)
        return self._refusal(500, None)

    def _unhandled(self, text: str) -> RouterException:
        self.log.error("Unhandled exception in ADM Routing: {text}", text=text)
        return self._refusal(500, None)

    def _refusal(
        self, status: int, errno: int | None, body: str = "Server error"
    ) -> RouterException:
        return RouterException(body, status_code=status, errno=errno, log_exception=False)
