"""Bridge to Android devices over the legacy protocol of Firebase Cloud Messaging (spec/bridges 5).

::

    → POST https://<endpoint>            Authorization: key=<server key>
      {"collapse_key": "webpush", "data": {...}, "notification": {}, "priority": "high",
       "time_to_live": s, "to": <token>[, "dry_run": true]}
    ← 200 {"canonical_ids": n, "failure": n, "results":
           [{"message_id": ...[, "registration_id": <new>]} | {"error": <reason>}]}

Google ended it in 2024; this is for gateways that still speak the protocol.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from twisted.internet.defer import Deferred

from autopush.constants import DEFAULT_ROUTER_TIMEOUT
from autopush.exceptions import InvalidConfig, RouterException
from autopush.message.urgency import NORMAL
from autopush.router.bridge import (
    MIN_TTL,
    BridgeRouter,
    accepted,
    clamp_ttl,
    payload_members,
)
from autopush.router.bridgehttp import (
    BridgeBusy,
    BridgeClient,
    BridgeError,
    Reply,
    base_url,
    please_wait,
)
from autopush.router.gcm import check_size
from autopush.router.interface import RouterResponse

if TYPE_CHECKING:
    from autopush.config import AutopushConfig
    from autopush.message.notification import WebPushNotification
    from autopush.metrics import IMetrics
    from autopush.types import JSONDict

ENDPOINT = "fcm.googleapis.com/fcm/send"

COLLAPSE_KEY = "webpush"
"""What 1.58.3 always sent, whatever its option said (B6)."""


class Reason(NamedTuple):
    """What a failure means to the sender, and to the device's record."""

    status: int
    errno: int | None
    message: str
    crit: bool = False
    """Logged for the operator, who has something to repair; the sender is only told to wait."""
    gone: bool = False
    """The device is: its record is dropped."""
    retry: bool = False
    """The sender is told when to try again."""


LATER = "Please try request later."

REASONS: dict[str, Reason] = {
    "MissingRegistration": Reason(500, 1, "'to' or 'registration_id' is blank or invalid"),
    "InvalidRegistration": Reason(410, 105, "registration_id is invalid", gone=True),
    "NotRegistered": Reason(410, 103, "device has unregistered with FCM", gone=True),
    "InvalidPackageName": Reason(500, None, "Invalid Package Name specified", crit=True),
    "MismatchSenderid": Reason(500, 900, "Invalid SenderID used", crit=True),
    "MessageTooBig": Reason(413, 104, "Message length was too big: {nlen}"),
    "InvalidDataKey": Reason(
        500, None, "Payload contains an invalid or restricted key value", crit=True
    ),
    "InvalidTtl": Reason(400, 111, "Invalid TimeToLive {ttl}"),
    "Unavailable": Reason(503, None, "Message has timed out or device is unavailable", retry=True),
    "InternalServerError": Reason(500, None, "FCM internal server error"),
    "DeviceMessageRateExceeded": Reason(503, 4, "Too many messages for this device"),
    "TopicsMessageRateExceeded": Reason(
        503, None, "Too many subscribers for this topic", crit=True
    ),
    "Unreported": Reason(500, None, "Error has no reported reason.", crit=True),
}
"""By the ``error`` of a result. Only a device that is gone is dropped (B3). One that is another
project's may be ours again once the credentials are put right: no 410, which ends subscriptions."""


class FCMClient:
    """Sends with one server key of the legacy protocol.

    :param endpoint: host and path; https unless it starts with ``http://``
    :raises InvalidConfig, OSError: endpoint or ``ca_file`` can't be used
    """

    def __init__(self, api_key: str, endpoint: str | None = None, **options: Any) -> None:
        if not api_key:
            raise InvalidConfig("Missing auth for FCM config options")
        self._endpoint = base_url(endpoint, f"https://{ENDPOINT}", "FCM endpoint")
        self._api_key = api_key
        self._client = BridgeClient(
            timeout=options.get("timeout", DEFAULT_ROUTER_TIMEOUT),
            ca_file=options.get("ca_file"),
            server=self._endpoint,
        )
        self.server, self.proxy = self._client.server, self._client.proxy

    def close(self) -> Deferred[None]:
        """Close the idle connections."""
        return self._client.close()

    def send(self, message: JSONDict) -> Deferred[Reply]:
        """Send a message; fails with :class:`~autopush.router.bridgehttp.BridgeError`."""
        headers = {"Content-Type": "application/json", "Authorization": f"key={self._api_key}"}
        body = orjson.dumps(message, option=orjson.OPT_SORT_KEYS)
        return self._client.post(self._endpoint, headers, body)


class FCMRouter(BridgeRouter):
    """Router for ``router_type`` ``fcm`` with ``fcm_version`` 0.

    :param router_conf: ``creds`` (``{app_id: {"auth": key[, "endpoint", "ca_file"]}}``), and
        optionally ``ttl``, ``dryrun``, ``max_data``, ``endpoint``, ``timeout``
    :raises OSError: no client can be made
    """

    reasonTable = REASONS
    platform = "fcm"

    def __init__(self, conf: AutopushConfig, router_conf: JSONDict, metrics: IMetrics) -> None:
        super().__init__(conf, router_conf, metrics)
        self.min_ttl = router_conf.get("ttl", MIN_TTL)
        self.dryRun = router_conf.get("dryrun", False)
        self.max_data = router_conf.get("max_data", 4096)
        self.timeout = router_conf.get("timeout", DEFAULT_ROUTER_TIMEOUT)
        self._make_clients()

    def _make_clients(self) -> None:
        try:
            for app_id, options in self.router_conf["creds"].items():
                self.clients[app_id] = FCMClient(
                    options["auth"] or os.environ.get("FCM_API_KEY", ""),
                    options.get("endpoint") or self.router_conf.get("endpoint"),
                    timeout=self.timeout,
                    ca_file=options.get("ca_file"),
                )
        except Exception as exc:
            self.log.error("Could not instantiate FCM {text}", text=str(exc))
            raise OSError("FCM Bridge not initiated in main") from exc
        self.log.warn(
            "Google has ended the legacy FCM protocol: use fcm_version 1, unless this is for a"
            " private gateway"
        )
        self.log.debug("Starting FCM router...")

    # ---- registration

    def register(
        self, uaid: str, router_data: JSONDict, app_id: str, *args: Any, **kwargs: Any
    ) -> None:
        """Check token and application.

        :raises RouterException: 401, 400
        """
        if not router_data.get("token"):
            raise RouterException("connect info missing FCM Instance 'token'", status_code=401)
        if app_id not in self.clients:
            raise RouterException("Invalid SenderID", status_code=400, errno=105)
        router_data["app_id"] = app_id

    def amend_endpoint_response(self, response: JSONDict, router_data: JSONDict) -> None:
        """Tell the device its sender id."""
        response["senderid"] = router_data.get("app_id")

    # ---- notifications

    async def _route(
        self, notification: WebPushNotification, router_data: JSONDict
    ) -> RouterResponse:
        token = self._token(router_data)
        check_size(notification, self.max_data)
        client = self._client(router_data, errno=None)
        ttl = clamp_ttl(notification.ttl, self.min_ttl)
        message: JSONDict = {
            "collapse_key": COLLAPSE_KEY,
            "data": payload_members(notification, self_contained=False),
            "notification": {},
            "priority": "high" if notification.urgency >= NORMAL else "normal",
            "time_to_live": ttl,
            "to": token,
        }
        if self.dryRun or router_data.get("dryrun"):
            message["dry_run"] = True
        try:
            reply = await client.send(message)
        except BridgeError as exc:
            raise self._unreachable(exc) from exc
        return self._process_reply(reply, notification, router_data, ttl)

    def _token(self, router_data: JSONDict) -> str:
        """Return the device's token.

        :raises RouterException: 410: it has none, so it is dropped
        """
        token = router_data.get("token")
        if not token:
            text = "No registration token found. Rejecting message."
            raise RouterException(
                text, status_code=410, errno=106, response_body=text, log_exception=False
            )
        return str(token)

    def _client(self, router_data: JSONDict, errno: int | None) -> Any:
        """Return the client of the device's application.

        :raises RouterException: 500: this node has no credentials for it; an operator can change
            that, so the record is kept (B8)
        """
        app_id = router_data.get("app_id")
        client = self.clients.get(str(app_id))
        if client is None:
            self.log.critical("Missing FCM bridge credentials for {id}", id=app_id)
            raise RouterException("Server error", status_code=500, errno=errno, log_exception=False)
        return client

    def _unreachable(self, exc: BridgeError) -> RouterException:
        self.log.warn("Could not connect to FCM server: {text}", text=str(exc))
        if isinstance(exc, BridgeBusy):
            return please_wait(str(exc), self._count, None)
        self._count.error("connection_unavailable", error=502, errno=0)
        return RouterException(
            f"Server error: {exc}",
            status_code=502,
            response_body="Server error",
            log_exception=False,
        )

    def _process_reply(
        self, reply: Reply, notification: WebPushNotification, router_data: JSONDict, ttl: int
    ) -> RouterResponse:
        """Return the answer for the sender, by what became of the message.

        :raises RouterException: it was not taken
        """
        data = self._parse(reply)
        results = data.get("results")
        result = results[0] if isinstance(results, list) and results else {}
        if not isinstance(result, dict):
            result = {}
        new = result.get("registration_id")
        if data.get("canonical_ids") and isinstance(new, str) and new:
            self.log.debug("FCM id changed")
            self._count.error("reregister", error=502, errno=0)
            return RouterResponse(
                status_code=503,
                response_body="Please try request again.",
                router_data={**router_data, "token": new},
            )
        if data.get("failure") or "error" in result or not (result or data.get("success")):
            return self._failed(str(result.get("error", "Unreported")), reply, notification, ttl)
        self._count.sent(notification)
        return accepted(self.conf, notification, ttl)

    def _parse(self, reply: Reply) -> JSONDict:
        """Return the body of a good answer.

        :raises RouterException: there is none
        """
        if reply.code == 401:
            self.log.error("Authentication Error: the server key was refused")
        elif reply.retry_after is not None and reply.code != 200:
            # The original slept in a worker thread (B31).
            raise please_wait("FCM retry requested", self._count, reply.retry_after)
        else:
            try:
                data = reply.json()
                if reply.code == 200 and isinstance(data, dict):
                    return data
            except ValueError:
                pass
            self.log.error("Unhandled FCM Error: status {status}", status=reply.code)
        raise RouterException("Server error", status_code=500, log_exception=False)

    def _failed(
        self, name: str, reply: Reply, notification: WebPushNotification, ttl: int
    ) -> RouterResponse:
        """Return the answer for a failure (spec/bridges 5, reason table)."""
        reason = self.reasonTable.get(name) or self.reasonTable["Unreported"]
        text = reason.message.format(nlen=notification.data_length, ttl=ttl)
        if reason.crit:
            self.log.critical("{text}", text=text, reason=name[:100])
        else:
            self.log.debug("{text} : {info}", text=text, info=name)
        if reason.retry:
            raise please_wait(text, self._count, reply.retry_after)
        self._count.error("failure", error=502, errno=0)
        # An answer, not an exception: a 410 among those would drop the record.
        return RouterResponse(
            status_code=reason.status,
            response_body=LATER if reason.crit else text,
            errno=reason.errno,
            router_data={} if reason.gone else None,
        )
