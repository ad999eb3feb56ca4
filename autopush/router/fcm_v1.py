"""Bridge to Android devices over the HTTP v1 protocol of Firebase Cloud Messaging (spec/bridges 6).

The record of a device does not tell which protocol it is reached by: ``router_type`` is ``fcm``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from autopush.exceptions import RouterException
from autopush.message.urgency import NORMAL
from autopush.router.bridge import AES128GCM, accepted, clamp_ttl, payload_members
from autopush.router.bridgehttp import BridgeError, no_answer, please_wait
from autopush.router.fcm import FCMRouter
from autopush.router.fcmv1client import (
    FCMAuthenticationError,
    FCMInternalError,
    FCMNotFoundError,
    FCMSenderIdMismatch,
    FCMServerError,
    FCMv1,
    Result,
)
from autopush.router.interface import RouterResponse

if TYPE_CHECKING:
    from autopush.message.notification import WebPushNotification
    from autopush.types import JSONDict

MAX_FCM_DATA = 3015
"""Base64 characters of data where the configuration doesn't say (it does)."""

MAX_PAYLOAD = 4096
"""Characters of the data object as JSON: what FCM takes."""


class FCMv1Router(FCMRouter):
    """Router for ``router_type`` ``fcm`` with ``fcm_version`` 1.

    :param router_conf: ``creds`` (``{app_id: {"projectid", "auth"[, "base_url", "ca_file"]}}``,
        where ``auth`` is a service account's key file), and optionally ``ttl``, ``dryrun``,
        ``max_data``, ``timeout``
    :raises OSError: no client can be made
    """

    platform = "fcmv1"

    def _make_clients(self) -> None:
        self.max_data = self.router_conf.get("max_data", MAX_FCM_DATA)
        try:
            for app_id, options in self.router_conf["creds"].items():
                self.clients[app_id] = FCMv1(
                    options["projectid"],
                    options["auth"],
                    logger=self.log,
                    metrics=self.metrics,
                    dryrun=self.dryRun,
                    timeout=self.timeout,
                    base_url=options.get("base_url"),
                    ca_file=options.get("ca_file"),
                )
        except Exception as exc:
            self.log.error(
                "Could not instantiate FCMv1: missing credentials, {text}", text=str(exc)
            )
            raise OSError("FCMv1 Bridge not initiated in main") from exc
        self.log.debug("Starting FCMv1 router...")

    def token_sources(self) -> dict[str, Callable[[], Deferred[str]]]:
        """See :meth:`BridgeRouter.token_sources`."""
        return {app_id: client.access_token for app_id, client in self.clients.items()}

    async def _route(
        self, notification: WebPushNotification, router_data: JSONDict
    ) -> RouterResponse:
        token = self._token(router_data)
        data = payload_members(notification)
        self._check_size(notification, data)
        client = self._client(router_data, errno=900)
        ttl = clamp_ttl(notification.ttl, self.min_ttl)
        payload = {
            "ttl": ttl,
            "payload": data,
            "dryrun": router_data.get("dryrun"),
            # The other one waits while the device dozes.
            "priority": "HIGH" if notification.urgency >= NORMAL else "NORMAL",
        }
        try:
            result = await client.send(token, payload)
        except FCMSenderIdMismatch as exc:
            return self._mismatched(str(exc).replace(token, "..."))
        except Exception as exc:
            raise self._refused(exc, token) from exc
        return self._sent(result, notification, ttl)

    def _check_size(self, notification: WebPushNotification, data: JSONDict) -> None:
        """:raises RouterException: 413: FCM would not take it."""
        if not notification.data:
            return
        limit = self.max_data
        if data["con"] != AES128GCM:
            limit -= len(json.dumps({**data, "body": ""}))
        excess = notification.data_length - limit
        if excess > 0:
            raise _too_long(
                "This message is intended for a constrained device and is limited to"
                f" {limit} bytes. Message too long by about {math.ceil(excess / 1.3)} bytes"
            )
        size = len(json.dumps(data))
        if size > MAX_PAYLOAD:
            raise _too_long(
                f"Final composed message payload too long for recipient: {size} bytes."
                " Please try a shorter message."
            )

    def _sent(self, result: Result, notification: WebPushNotification, ttl: int) -> RouterResponse:
        """:raises RouterException: 503: to be sent again later"""
        if not result.success:
            text = f"FCM retry requested: {result.retry_message}"
            raise please_wait(text, self._count, result.retry_after)
        self._count.sent(notification)
        return accepted(self.conf, notification, ttl)

    def _refused(self, exc: Exception, token: str) -> Exception:
        """Return the answer for a message that was not taken (spec/bridges 6.3, 10)."""
        if isinstance(exc, BridgeError):
            return no_answer(exc, self._count)
        text = str(exc).replace(token, "...")
        if isinstance(exc, FCMAuthenticationError):
            status = 500 if exc.refused else 502
            self.log.error("FCM Authentication Error: {text}", text=text)
            self._count.error("auth_failure", error=status, errno=901)
            return _refusal("Server error", status, 901)
        if isinstance(exc, FCMNotFoundError):
            self.log.debug("FCM Recipient not found: {text}", text=text)
            self._count.error("recipient_gone", error=exc.status_code, errno=106)
            return _refusal(text, exc.status_code, 106)
        if isinstance(exc, FCMServerError):
            self.log.warn("FCM Error: {text}", text=text)
            self._count.error("server_error", error=502, errno=0)
            if isinstance(exc, FCMInternalError):
                return _refusal("Server error", 502, None)
            return _refusal(f"Server error: {text}", 500, None)
        return exc

    def _mismatched(self, text: str) -> RouterResponse:
        """The device registered with another project than the credentials are for.

        It is the device or the credentials that were mixed up. Once the latter are put right, the
        subscription is good again: nobody is told that it has ended.
        """
        self.log.error("FCM Error: {text}", text=text)
        self._count.error("sender_id_mismatch", error=500, errno=900)
        return RouterResponse(status_code=500, response_body="Invalid SenderID", errno=900)


def _refusal(text: str, status: int, errno: int | None) -> RouterException:
    return RouterException(text, status_code=status, errno=errno, log_exception=False)


def _too_long(text: str) -> RouterException:
    return _refusal(text, 413, 104)
