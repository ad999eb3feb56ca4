"""Stand-in for Amazon Device Messaging and Login with Amazon.

A script may name reasons, ``{"reason": "Unregistered"}``, or a new id,
``{"registrationID": "new"}``; with ``"on": "token"`` it is about the access tokens.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import unquote

from automock.httpstandin import HTTPStandIn, size_of, texts
from automock.web import Reply, Request

TYPE_VERSION = "com.amazon.device.messaging.ADMMessage@1.0"
ACCEPT_TYPE = "com.amazon.device.messaging.ADMSendResult@1.0"
PAYLOAD_LIMIT = 6 * 1024
MAX_EXPIRES = 2_678_400

REASONS = {
    "InvalidRegistrationId": 400,
    "InvalidData": 400,
    "InvalidConsolidationKey": 400,
    "InvalidExpiration": 400,
    "InvalidChecksum": 400,
    "InvalidType": 400,
    "Unregistered": 400,
    "AccessTokenExpired": 401,
    "MessageTooLarge": 413,
    "MaxRateExceeded": 429,
    "InternalServerError": 500,
    "ServiceUnavailable": 503,
}
"""Statuses of the documented reasons."""


class ADM(HTTPStandIn):
    """The service, with one security profile."""

    name = "adm"
    profile = "admprofile"
    client_id = "amzn1.application-oa2-client.automock"
    client_secret = "automock-adm-secret"
    token_path = "/auth/O2/token"
    DEFAULTS: ClassVar[dict[str, Any]] = {"unregistered": [], "moved": {}, "token_lifetime": 3600}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.access_tokens: dict[str, float] = {}

    def options(self) -> dict[str, Any]:
        profile = {
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "base_url": self.url,
            "ca_file": str(self.authority.ca_file),
        }
        return {"adm_creds": {self.profile: profile}}

    # ---- tokens

    def token(self, request: Request) -> Reply:
        form = request.form
        content_type = request.headers.get("content-type", "")
        if not content_type.startswith("application/x-www-form-urlencoded"):
            return Reply(400, json={"error": "invalid_request"})
        if form.get("grant_type") != "client_credentials":
            return Reply(400, json={"error": "unsupported_grant_type"})
        if form.get("scope") != "messaging:push":
            return Reply(400, json={"error": "invalid_scope"})
        if (form.get("client_id"), form.get("client_secret")) != (
            self.client_id,
            self.client_secret,
        ):
            return Reply(401, json={"error": "invalid_client"})
        token = f"Atc|{secrets.token_urlsafe(48)}"
        lifetime = self.settings["token_lifetime"]
        self.access_tokens[token] = time.time() + lifetime
        return Reply(
            json={
                "access_token": token,
                "expires_in": lifetime,
                "scope": "messaging:push",
                "token_type": "bearer",
            }
        )

    # ---- messages

    def message(self, request: Request) -> Reply:
        path = request.target.partition("?")[0]
        device = re.fullmatch(r"/messaging/registrations/([^/]+)/messages", path)
        if device is None or request.method != "POST":
            return Reply(404)
        reason = self._refusal(request)
        if reason is not None:
            return reason_reply(reason)
        token = unquote(device[1])
        if token in self.settings["unregistered"]:
            return reason_reply("Unregistered")
        return Reply(json={"registrationID": self.settings["moved"].get(token, token)})

    def named(self, more: Mapping[str, Any]) -> Reply | None:
        if "reason" in more:
            return reason_reply(more["reason"])
        return Reply(json=dict(more)) if "registrationID" in more else None

    def _refusal(self, request: Request) -> str | None:
        headers = request.headers
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or self.access_tokens.get(token, 0) <= time.time():
            return "AccessTokenExpired"
        if (headers.get("x-amzn-type-version"), headers.get("x-amzn-accept-type")) != (
            TYPE_VERSION,
            ACCEPT_TYPE,
        ):
            return "InvalidType"
        try:
            content = request.json()
        except ValueError:
            return "InvalidData"
        data = content.get("data") if isinstance(content, dict) else None
        if not texts(data) or data is None:
            return "InvalidData"
        expires = content.get("expiresAfter", 604_800)
        if type(expires) is not int or not 60 <= expires <= MAX_EXPIRES:
            return "InvalidExpiration"
        key = content.get("consolidationKey", "x")
        if not isinstance(key, str) or not 1 <= len(key) <= 64:
            return "InvalidConsolidationKey"
        return "MessageTooLarge" if size_of(data) > PAYLOAD_LIMIT else None


def reason_reply(reason: str) -> Reply:
    """Return Amazon's answer for a reason."""
    return Reply(REASONS.get(reason, 400), json={"reason": reason})
