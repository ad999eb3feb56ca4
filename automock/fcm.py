"""Stand-ins for Firebase Cloud Messaging: HTTP v1 with its token endpoint, and the legacy protocol.

FCM v1 answers scripted errors by name as Google documents them, e.g. ``{"error": "UNREGISTERED"}``
or ``{"error": "QUOTA_EXCEEDED", "headers": {"Retry-After": "7"}}``, with ``"on": "token"`` those of
the token endpoint. The legacy protocol is scripted like GCM.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from automock.certs import private_pem, write_private
from automock.gcm import GCM
from automock.httpstandin import HTTPStandIn, json_size, texts
from automock.web import Reply, Request

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
PAYLOAD_LIMIT = 4096

ERRORS: dict[str, tuple[int, str, str]] = {
    "UNSPECIFIED_ERROR": (500, "UNKNOWN", "Unspecified error."),
    "INVALID_ARGUMENT": (400, "INVALID_ARGUMENT", "Request contains an invalid argument."),
    "UNREGISTERED": (404, "NOT_FOUND", "Requested entity was not found."),
    "SENDER_ID_MISMATCH": (403, "PERMISSION_DENIED", "SenderId mismatch"),
    "QUOTA_EXCEEDED": (429, "RESOURCE_EXHAUSTED", "Quota exceeded."),
    "UNAVAILABLE": (503, "UNAVAILABLE", "The service is currently unavailable."),
    "INTERNAL": (500, "INTERNAL", "Internal error encountered."),
    "THIRD_PARTY_AUTH_ERROR": (401, "UNAUTHENTICATED", "Auth error from APNS or Web Push Service"),
}
"""Status, gRPC status and text of FCM's error codes."""

MESSAGE_MEMBERS = frozenset(
    "name data notification android webpush apns fcm_options token topic condition".split()  # noqa: SIM905
)
ANDROID_MEMBERS = frozenset(
    """
    collapse_key priority ttl restricted_package_name data notification fcm_options direct_boot_ok
    """.split()  # noqa: SIM905
)


def error_reply(name: str, violations: list[dict[str, str]] | None = None) -> Reply:
    """Return Google's answer for one of :data:`ERRORS`."""
    status, grpc_status, text = ERRORS[name]
    details: list[dict[str, Any]] = [{"@type": FCM_ERROR, "errorCode": name}]
    if violations:
        details.append({"@type": BAD_REQUEST, "fieldViolations": violations})
    return plain_error(status, grpc_status, text, details)


def plain_error(status: int, grpc_status: str, text: str, details: Any = None) -> Reply:
    """Return an error of Google's front end."""
    error = {"code": status, "message": text, "status": grpc_status}
    return Reply(status, json={"error": error | ({"details": details} if details else {})})


class FCM(HTTPStandIn):
    """FCM v1 and OAuth, with one project and one service account."""

    name = "fcm"
    app_id = "fcmapp"
    project_id = "automock"
    token_path = "/token"
    DEFAULTS: ClassVar[dict[str, Any]] = {"unregistered": [], "token_lifetime": 3600}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._key = rsa.generate_private_key(65537, 2048)
        self.email = f"push@{self.project_id}.iam.gserviceaccount.com"
        self.key_id = secrets.token_hex(20)
        self.account_file = self.directory / "fcm-service-account.json"
        self.access_tokens: dict[str, float] = {}
        self._ids = itertools.count(1)

    async def start(self) -> None:
        await super().start()
        self.write_account()

    def write_account(self) -> None:
        """Write the key file of the service account."""
        account = {
            "type": "service_account",
            "project_id": self.project_id,
            "private_key_id": self.key_id,
            "private_key": private_pem(self._key).decode(),
            "client_email": self.email,
            "client_id": "1",
            "token_uri": f"{self.url}{self.token_path}",
        }
        write_private(self.account_file, json.dumps(account).encode())

    def options(self) -> dict[str, Any]:
        credential = {
            "projectid": self.project_id,
            "auth": str(self.account_file),
            "base_url": self.url,
            "ca_file": str(self.authority.ca_file),
        }
        return {"fcm_creds": {self.app_id: credential}, "fcm_version": 1}

    # ---- tokens

    def token(self, request: Request) -> Reply:
        form = request.form
        if form.get("grant_type") != GRANT:
            return Reply(400, json={"error": "unsupported_grant_type"})
        fault = self._check_assertion(form.get("assertion", ""))
        if fault is not None:
            return Reply(400, json={"error": "invalid_grant", "error_description": fault})
        token = f"ya29.{secrets.token_urlsafe(64)}"
        lifetime = self.settings["token_lifetime"]
        self.access_tokens[token] = time.time() + lifetime
        return Reply(json={"access_token": token, "expires_in": lifetime, "token_type": "Bearer"})

    def _check_assertion(self, assertion: str) -> str | None:
        try:
            text, _, signature = assertion.rpartition(".")
            self._key.public_key().verify(
                _b64decode(signature), text.encode(), padding.PKCS1v15(), hashes.SHA256()
            )
            head, claims = (json.loads(_b64decode(part)) for part in text.split("."))
        except (ValueError, InvalidSignature):
            return "Invalid JWT Signature."
        now = time.time()
        good = (
            head.get("kid") == self.key_id
            and claims.get("iss") == self.email
            and claims.get("aud") == f"{self.url}{self.token_path}"
            and SCOPE in claims.get("scope", "").split()
            and claims["iat"] - 60 <= now < claims["exp"] <= claims["iat"] + 3600
        )
        return None if good else "Invalid JWT."

    # ---- messages

    def message(self, request: Request) -> Reply:
        project = re.fullmatch(r"/v1/projects/([^/]+)/messages:send", request.path)
        if project is None or request.method != "POST":
            return Reply(
                404, {"Content-Type": "text/html"}, b"<title>Error 404 (Not Found)</title>"
            )
        if not self._authorized(request):
            return plain_error(
                401, "UNAUTHENTICATED", "Request had invalid authentication credentials."
            )
        if project[1] != self.project_id:
            return plain_error(403, "PERMISSION_DENIED", "Permission denied on resource project.")
        try:
            content = request.json()
        except ValueError:
            return plain_error(400, "INVALID_ARGUMENT", "Invalid JSON payload received.")
        violations = list(violated(content))
        if violations:
            return error_reply("INVALID_ARGUMENT", violations)
        message = content["message"]
        if message["token"] in self.settings["unregistered"]:
            return error_reply("UNREGISTERED")
        number = "fake_message_id" if content.get("validate_only") else f"0:{next(self._ids)}"
        return Reply(json={"name": f"projects/{self.project_id}/messages/{number}"})

    def named(self, more: Mapping[str, Any]) -> Reply | None:
        if "error" not in more:
            return None
        violations = (
            [{"field": more["field"], "description": "Invalid"}] if "field" in more else None
        )
        return error_reply(more["error"], violations)

    def _authorized(self, request: Request) -> bool:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return scheme == "Bearer" and self.access_tokens.get(token, 0) > time.time()


def violated(content: Any) -> Any:
    """Yield what Google would object to in a request."""

    def violation(field: str, text: str) -> dict[str, str]:
        return {"field": field, "description": text}

    message = content.get("message") if isinstance(content, dict) else None
    if not isinstance(message, dict):
        yield violation("message", "Message is missing")
        return
    for name in set(content) - {"message", "validate_only"}:
        yield violation(name, f"Unknown name {name}")
    for name in set(message) - MESSAGE_MEMBERS:
        yield violation(f"message.{name}", f"Unknown name {name}")
    if not isinstance(message.get("token"), str) or not message["token"]:
        yield violation("message.token", "The registration token is not a valid FCM token")
    android = message.get("android", {})
    for name in set(android) - ANDROID_MEMBERS:
        yield violation(f"message.android.{name}", f"Unknown name {name}")
    ttl = re.fullmatch(r"(\d+)(?:\.\d+)?s", str(android.get("ttl", "0s")))
    if ttl is None or int(ttl[1]) > 2_419_200:
        yield violation("message.android.ttl", "Invalid TTL")
    if android.get("priority", "NORMAL") not in ("NORMAL", "HIGH"):
        yield violation("message.android.priority", "Invalid priority")
    data = android.get("data", {})
    if not texts(data):
        yield violation("message.android.data", "Values must be strings")
    elif json_size(data) > PAYLOAD_LIMIT:
        yield violation("message", "Android message is too big")


def _b64decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class LegacyFCM(GCM):
    """The legacy protocol of FCM: GCM's, for one device at a time."""

    name = "fcm_legacy"
    path = "/fcm/send"
    app_id = "fcmapp"
    server_key = "automock-fcm-key"

    def options(self) -> dict[str, Any]:
        credential = {
            "auth": self.server_key,
            "endpoint": f"{self.host}:{self.port}{self.path}",
            "ca_file": str(self.authority.ca_file),
        }
        return {"fcm_creds": {self.app_id: credential}, "fcm_version": 0}

    def check_content(self, content: Any) -> Reply | None:
        if not isinstance(content, dict) or not isinstance(content.get("to"), str):
            return Reply(400, body=b"MissingRegistration")
        unknown = set(content) - {
            "to", "collapse_key", "time_to_live", "priority", "dry_run", "data", "notification",
        }  # fmt: skip
        if unknown or content.get("priority") not in ("normal", "high"):
            return Reply(400, body=f"Unknown fields {unknown}".encode())
        return None
