"""Bridge to Android devices over the GCM protocol (spec/bridges 4).

Google ended the service; this is for gateways that still speak its protocol.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NoReturn

from twisted.internet.defer import Deferred

from autopush.constants import DEFAULT_ROUTER_TIMEOUT
from autopush.exceptions import InvalidConfig, RouterException
from autopush.router.bridge import (
    MAX_TTL,
    MIN_TTL,
    BridgeRouter,
    Check,
    accepted,
    clamp_ttl,
    payload_members,
)
from autopush.router.bridgehttp import BridgeError, no_answer, please_wait
from autopush.router.gcmclient import GCM, GCMAuthenticationError, GCMError, JSONMessage, Result
from autopush.router.interface import RouterResponse

if TYPE_CHECKING:
    from autopush.config import AutopushConfig
    from autopush.message.notification import WebPushNotification
    from autopush.metrics import IMetrics
    from autopush.types import JSONDict

__all__ = ["MAX_TTL", "GCMRouter", "check_size"]


GONE = frozenset({"InvalidRegistration"})
"""Failures that are the device's; others are ours, and no 410, which ends subscriptions."""


def check_size(notification: WebPushNotification, limit: int) -> None:
    """:raises RouterException: 413: the data is longer than ``limit`` base64 characters."""
    excess = notification.data_length - limit
    if excess > 0:
        raise RouterException(
            "This message is intended for a constrained device and is limited to 3070 bytes."
            f" Converted buffer too long by {excess} bytes",
            status_code=413,
            errno=104,
            log_exception=False,
        )


class GCMRouter(BridgeRouter):
    """Router for ``router_type`` ``gcm``.

    :param router_conf: ``senderIDs`` (``{id: {"auth": key[, "endpoint", "ca_file"]}}``),
        ``endpoint``, and optionally ``ttl``, ``dryrun``, ``max_data``, ``timeout``
    :raises OSError: no sender is configured, or a ``ca_file`` can't be read
    :raises InvalidConfig: a member can't be used
    """

    platform = "gcm"

    def __init__(self, conf: AutopushConfig, router_conf: JSONDict, metrics: IMetrics) -> None:
        super().__init__(conf, router_conf, metrics)
        self.min_ttl = router_conf.get("ttl", MIN_TTL)
        self.dryRun = router_conf.get("dryrun", False)
        self.max_data = router_conf.get("max_data", 4096)
        self.senderIDs: JSONDict = router_conf.get("senderIDs") or {}
        if not self.senderIDs:
            raise OSError("SenderIDs not configured.")
        self.gcmclients = self.clients
        for sender, options in self.senderIDs.items():
            self.clients[sender] = self._make_client(sender, options)
        self.log.warn("Google has ended GCM: only private gateways still speak its protocol")
        self.log.debug("Starting GCM router...")

    def _make_client(self, sender: str, options: Any) -> GCM:
        if not isinstance(options, dict) or not isinstance(options.get("auth"), str):
            raise InvalidConfig(f"Missing auth for GCM sender {sender}")
        return GCM(
            options["auth"],
            logger=self.log,
            metrics=self.metrics,
            endpoint=options.get("endpoint") or self.router_conf["endpoint"],
            timeout=self.router_conf.get("timeout", DEFAULT_ROUTER_TIMEOUT),
            ca_file=options.get("ca_file"),
        )

    def checks(self) -> Iterable[Check]:
        """See :meth:`BridgeRouter.checks`."""
        senders = "1 sender" if len(self.clients) == 1 else f"{len(self.clients)} senders"
        return [Check("", f"{senders}; Google has ended this service", warning=True)]

    # ---- registration

    def register(
        self, uaid: str, router_data: JSONDict, app_id: str, *args: Any, **kwargs: Any
    ) -> None:
        """Check token and sender. Only the sender's id is kept, not its key (B26).

        :raises RouterException: 401, 400
        """
        if not router_data.get("token"):
            raise RouterException("connect info missing GCM Instance 'token'", status_code=401)
        if app_id not in self.senderIDs:
            raise RouterException("Invalid SenderID", status_code=400, errno=105)
        router_data["creds"] = {"senderID": app_id}

    def amend_endpoint_response(self, response: JSONDict, router_data: JSONDict) -> None:
        """Tell the device its sender id."""
        response["senderid"] = (router_data.get("creds") or {}).get("senderID")

    # ---- notifications

    def route_notification(
        self, notification: WebPushNotification, uaid_data: JSONDict
    ) -> Deferred[RouterResponse]:
        """See :meth:`BridgeRouter.route_notification`; :meth:`_route` gets the whole record."""
        return Deferred.fromCoroutine(self._route(notification, uaid_data))

    async def _route(
        self, notification: WebPushNotification, uaid_data: JSONDict
    ) -> RouterResponse:
        router_data = uaid_data["router_data"]
        check_size(notification, self.max_data)
        sender = router_data["creds"]["senderID"]
        client = self.gcmclients.get(sender)
        if client is None:
            self.log.critical("Missing GCM bridge credentials")
            raise RouterException("Server error", status_code=500, errno=900, log_exception=False)
        ttl = clamp_ttl(notification.ttl, self.min_ttl)
        # No collapse key: with one, a device that is away loses all messages but the last (B6).
        payload = JSONMessage(
            registration_ids=[router_data["token"]],
            collapse_key=None,
            time_to_live=ttl,
            dry_run=bool(self.dryRun or router_data.get("dryrun")),
            data=payload_members(notification, self_contained=False),
        )
        try:
            result = await client.send(payload)
        except (GCMAuthenticationError, GCMError, BridgeError) as exc:
            raise self._process_error(exc, router_data["token"]) from exc
        return self._process_reply(result, uaid_data, ttl, notification)

    def _process_error(self, failure: Exception, token: str) -> RouterException:
        """Return what the sender is told when the message was not taken.

        :raises RouterException: the same, for an answer that is none of GCM's
        """
        if isinstance(failure, BridgeError):
            return no_answer(failure, self._count)
        if isinstance(failure, GCMAuthenticationError):
            self.log.error("GCM Authentication Error: {text}", text=str(failure))
            self._count.error("auth_failure", error=500, errno=901)
            return RouterException("Server error", status_code=500, errno=901, log_exception=False)
        self._count.error("server_error", error=500, errno=0)
        return self._error(f"Server error: {str(failure).replace(token, '...')}", 500)

    def _error(self, err: str, status: int, **kwargs: Any) -> NoReturn:
        """Log and raise a refusal.

        :raises RouterException: always
        """
        self.log.debug("{text}", text=err, **kwargs)
        raise RouterException(err, status_code=status, response_body=err, **kwargs)

    def _process_reply(
        self, reply: Result, uaid_data: JSONDict, ttl: int, notification: WebPushNotification
    ) -> RouterResponse:
        """Return the answer for the sender, by what became of the message.

        :raises RouterException: 503: to be sent again later
        """
        router_data = uaid_data["router_data"]
        for new in reply.canonicals.values():
            self.log.debug("GCM id changed")
            self._count.error("reregister", error=503, errno=0)
            return RouterResponse(
                status_code=503,
                response_body="Please try request again.",
                router_data={
                    **router_data,
                    "token": new,
                    "creds": {"senderID": router_data["creds"]["senderID"]},
                },
            )
        if reply.not_registered:
            self.log.debug("GCM no longer registered")
            self._count.error("unregistered", error=410, errno=0)
            return RouterResponse(
                status_code=410,
                response_body="Endpoint requires client update",
                router_data={},
            )
        if reply.failed:
            self.log.debug("GCM failures: {reasons}", reasons=list(reply.failed.values()))
            gone = set(reply.failed.values()) <= GONE
            status = 410 if gone else 500
            self._count.error("failure", error=status, errno=0)
            text = "GCM recipient not available." if gone else "Server error"
            return RouterResponse(status_code=status, response_body=text)
        if reply.retry_after is not None or reply.unavailable:
            self.log.warn("GCM retry requested: {seconds}", seconds=reply.retry_after)
            raise please_wait("GCM retry requested", self._count, reply.retry_after)
        self._count.sent(notification)
        return accepted(self.conf, notification, ttl)
