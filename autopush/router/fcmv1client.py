"""Client of the HTTP v1 protocol of Firebase Cloud Messaging.

::

    → POST <token_uri>                   grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer
                                         assertion=<JWT signed by the service account>
    ← 200 {"access_token": ..., "expires_in": 3600}

    → POST <base>/v1/projects/<project>/messages:send          Authorization: Bearer <token>
      {"message": {"token": <device>, "android": {"ttl": "60s", "priority": "HIGH", "data": {...}}}
       [, "validate_only": true]}
    ← 200 {"name": "projects/<project>/messages/<id>"}
    ← 4xx, 5xx {"error": {"code", "status", "message", "details": [{"@type": ..FcmError,
       "errorCode": ...}]}}                                    [Retry-After]

Source: spec/bridges 6 and 10; Google, "FCM REST API v1" and its error codes.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import google.auth.exceptions
import google.auth.transport
import orjson
import requests
from google.oauth2.service_account import Credentials as ServiceAccountCredentials
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

from autopush import clock
from autopush.constants import DEFAULT_ROUTER_TIMEOUT
from autopush.exceptions import InvalidConfig
from autopush.router.bridgehttp import (
    BODY_LIMIT,
    BridgeClient,
    BridgeError,
    BridgeTimeout,
    Reply,
    Token,
    TokenCache,
    base_url,
)

if TYPE_CHECKING:
    from autopush.metrics import IMetrics
    from autopush.types import JSONDict

BASE_URL = "https://fcm.googleapis.com"
TOKEN_URI = "https://oauth2.googleapis.com/token"
SCOPE = "https://www.googleapis.com/auth/firebase.messaging"

FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"

RENEW_EARLY = 225
"""Seconds before its end at which google-auth calls a token stale."""

TOKEN_TIMEOUT = 10.0
"""Seconds for one request for a token, with the reading of the answer."""

ACCEPTABLE_AGE = 10.0
"""Seconds: a token that is refused younger than this isn't refused for its age."""

MAX_DETAIL = 1000
"""Characters of an answer that may appear in an error's text."""


class FCMAuthenticationError(Exception):
    """No access token was to be had, or it was refused.

    :param refused: whether FCM itself refused it
    """

    def __init__(self, text: str, refused: bool = False) -> None:
        super().__init__(text)
        self.refused = refused


class FCMNotFoundError(Exception):
    """The device's token is no longer valid.

    :param status_code: for the sender: 404, or 410 where FCM's own status was another
    """

    def __init__(self, text: str, status_code: int = 404) -> None:
        super().__init__(text)
        self.status_code = status_code


class FCMSenderIdMismatch(Exception):
    """The device's token belongs to another project."""


class FCMServerError(Exception):
    """FCM did not take the message."""


class FCMInternalError(FCMServerError):
    """Something went wrong inside FCM; trying again later makes sense."""


class Result:
    """What became of a message.

    :param response: the answer
    """

    def __init__(self, response: Reply) -> None:
        self.code = response.code
        self.success = 0
        self.retry_after: int | None = response.retry_after
        self.retry_message: str | None = None


# --------------------------------------------------------------------------------- access tokens


def load_credentials(path: str) -> Any:
    """Read the key file of a service account.

    :raises OSError, ValueError: it can't be used
    """
    with open(path, "rb") as file:
        info = json.load(file)
    if not isinstance(info, dict):
        raise ValueError("the key file of the service account is not a JSON object")
    info.setdefault("token_uri", TOKEN_URI)
    # google-auth would name Google's address as the audience whatever the file says.
    return ServiceAccountCredentials.from_service_account_info(
        info, scopes=[SCOPE], additional_claims={"aud": info["token_uri"]}
    )


class TokenTransport(google.auth.transport.Request):
    """HTTP for google-auth in a worker thread: with time-outs and limits, without redirects.

    Proxies and authorities are the environment's, as :mod:`autopush.net.environment` reads them.

    :param ca_file: PEM file; None: those, or the CA bundle ``requests`` comes with
    """

    def __init__(self, ca_file: str | None, timeout: float) -> None:
        self._verify = ca_file or True
        self._timeout = timeout

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
        **_kwargs: Any,
    ) -> google.auth.transport.Response:
        """:raises google.auth.exceptions.TransportError: no complete answer came"""
        end = time.monotonic() + TOKEN_TIMEOUT
        try:
            with requests.request(
                method,
                url,
                data=body,
                headers=headers,
                timeout=timeout or self._timeout,
                verify=self._verify,
                allow_redirects=False,
                stream=True,
            ) as response:
                content = b""
                for part in response.iter_content(4096):
                    content += part
                    if len(content) > BODY_LIMIT or time.monotonic() > end:
                        raise requests.ConnectionError("the answer is too long")
                return _TokenReply(response.status_code, response.headers, content)
        except (requests.RequestException, OSError) as exc:
            raise google.auth.exceptions.TransportError(type(exc).__name__) from exc


class _TokenReply(google.auth.transport.Response):
    def __init__(self, status: int, headers: Any, data: bytes) -> None:
        self._answer = (status, headers, data)

    status = property(lambda self: self._answer[0])
    headers = property(lambda self: self._answer[1])
    data = property(lambda self: self._answer[2])


# --------------------------------------------------------------------------------------- client


class FCMv1:
    """Sends for one Firebase project.

    :param project_id: Firebase project id
    :param service_cred_path: JSON key file of a service account
    :param options: ``timeout`` in seconds (3), ``base_url``, ``ca_file``, ``dryrun``
    :raises OSError, ValueError, InvalidConfig: the key file or an option can't be used
    """

    def __init__(
        self,
        project_id: str,
        service_cred_path: str | None = None,
        logger: Logger | None = None,
        metrics: IMetrics | None = None,
        **options: Any,
    ) -> None:
        if not project_id or not isinstance(project_id, str):
            raise InvalidConfig("Missing projectid for FCM config options")
        self.project_id = project_id
        self.logger = logger or Logger()
        self.metrics = metrics
        self.dry_run = bool(options.get("dryrun"))
        timeout = options.get("timeout", DEFAULT_ROUTER_TIMEOUT)
        ca_file = options.get("ca_file")
        base = base_url(options.get("base_url"), BASE_URL, "FCM base_url")
        self._endpoint = f"{base}/v1/projects/{quote(project_id, safe='')}/messages:send"
        if not service_cred_path:
            raise InvalidConfig("Missing auth for FCM config options")
        self.svc_cred = load_credentials(service_cred_path)
        self._client = BridgeClient(timeout=timeout, ca_file=ca_file, server=base)
        self.server, self.proxy = self._client.server, self._client.proxy
        self._sender = self._client.post
        self._timeout = timeout
        self._transport = TokenTransport(ca_file, timeout)
        self._tokens = TokenCache(self._fetch_token, self._client.reactor.seconds, RENEW_EARLY)

    # ---- access token

    def access_token(self) -> Deferred[str]:
        """Fires with a valid access token; at most one is being fetched at a time."""
        return self._tokens.get()

    _get_access_token = access_token

    async def _fetch_token(self) -> Token:
        """Get a token, in a worker thread."""
        credentials = self.svc_cred
        await deferToThread(credentials.refresh, self._transport)
        if credentials.expiry is None:
            return Token(credentials.token, 0)
        ends = credentials.expiry  # in UTC, naive
        left = ends.replace(tzinfo=UTC) - datetime.fromtimestamp(clock.now(), UTC)
        return Token(credentials.token, max(0.0, left.total_seconds()))

    async def _token(self) -> str:
        """Return an access token.

        :raises FCMAuthenticationError: none was to be had in time
        """

        def too_late(_result: object, timeout: float) -> Failure:
            return Failure(FCMAuthenticationError(f"no access token within {timeout:g} s"))

        waiting = self.access_token()
        try:
            return await waiting.addTimeout(self._timeout, self._client.reactor, too_late)
        except FCMAuthenticationError:
            raise
        except Exception as exc:
            # The first argument is google-auth's text; the others hold the whole answer.
            text = str(exc.args[0] if exc.args else "")[:MAX_DETAIL]
            raise FCMAuthenticationError(f"{type(exc).__name__}: {text}") from exc

    # ---- messages

    def _build_message(self, token: str, notif: JSONDict) -> JSONDict:
        """Return the body of a request.

        :param token: the device's
        :param notif: ``ttl`` (seconds) and ``payload``, a map of texts; perhaps ``priority`` and
            ``dryrun``
        """
        # Without it Android keeps messages back while the device sleeps (B7).
        android = {
            "ttl": f"{int(notif['ttl'])}s",
            "priority": notif.get("priority", "HIGH"),
            "data": notif["payload"],
        }
        body: JSONDict = {"message": {"token": token, "android": android}}
        if self.dry_run or notif.get("dryrun"):
            body["validate_only"] = True
        return body

    def send(self, token: str, payload: JSONDict) -> Deferred[Result]:
        """Send a message.

        :param payload: see :meth:`_build_message`
        :returns: fails with the errors of this module, or
            :class:`~autopush.router.bridgehttp.BridgeError`
        """
        return Deferred.fromCoroutine(self._send(token, payload))

    def close(self) -> Deferred[None]:
        """Close the idle connections."""
        return self._client.close()

    async def _send(self, token: str, payload: JSONDict) -> Result:
        access_token = await self._token()
        headers = {
            "Authorization": f"Bearer {access_token}",
            "Content-Type": "application/json; UTF-8",
        }
        body = orjson.dumps(self._build_message(token, payload))
        try:
            reply = await self._sender(self._endpoint, headers, body)
        except BridgeError as exc:
            raise self.error(exc) from exc
        try:
            return self.process(reply)
        except FCMAuthenticationError:
            self._tokens.invalidate(access_token, ACCEPTABLE_AGE)
            raise

    def process(self, response: Reply, payload: JSONDict | None = None) -> Result:
        """Read an answer.

        :returns: ``success`` is 1 if the message was taken; if it was not, it may be sent again
            after ``retry_after`` seconds
        :raises FCMAuthenticationError, FCMNotFoundError, FCMSenderIdMismatch, FCMServerError:
            it was not taken
        """
        result = Result(response)
        code = response.code
        if code == 401:
            raise FCMAuthenticationError("Authentication Error", refused=True)
        data = response.json_object()
        error = data.get("error") if data is not None else None
        if 200 <= code < 300 and data is not None and not error:
            result.success = 1
            return result
        error = error if isinstance(error, dict) else None
        name = error_code(error)
        if name not in PERMANENT and (
            code in (429, 503) or name in RETRIED or (code >= 500 and result.retry_after)
        ):
            result.retry_message = name or str(code)
            return result
        if error is None:
            if code >= 500:
                raise FCMInternalError(f"status {code}")
            raise FCMServerError(f"Unknown error response: {response.text[:MAX_DETAIL]}")
        raise self._refusal(code, name, error)

    def _refusal(self, code: int, name: str, error: JSONDict) -> Exception:
        if name == "UNREGISTERED":
            return FCMNotFoundError("FCM Recipient no longer available")
        if name == "INVALID_ARGUMENT" and names_token(error):
            return FCMNotFoundError("FCM Recipient no longer available", 410)
        details = error.get("details") or "No Details"
        text = f"{error.get('status')}: {error.get('message')} {details}"[:MAX_DETAIL]
        if name == "SENDER_ID_MISMATCH":
            return FCMSenderIdMismatch(text)
        if code >= 500 or name == "INTERNAL":
            return FCMInternalError(text)
        return FCMServerError(text)

    def error(self, failure: BridgeError) -> BridgeError:
        """Log that no answer came; returns the failure."""
        what = "Timeout" if isinstance(failure, BridgeTimeout) else "Unavailable"
        self.logger.warn("FCM {what}: {text}", what=what, text=str(failure))
        return failure


PERMANENT = frozenset({"UNREGISTERED", "NOT_FOUND", "SENDER_ID_MISMATCH", "INVALID_ARGUMENT"})
"""Errors that no waiting cures, whatever the status. ``NOT_FOUND`` by itself may mean the project,
which is the operator's mistake and ends no subscription."""

RETRIED = frozenset({"QUOTA_EXCEEDED", "UNAVAILABLE", "RESOURCE_EXHAUSTED"})
"""Errors after which the same message may be sent again."""


def _details(error: JSONDict) -> list[JSONDict]:
    details = error.get("details")
    return [one for one in details if isinstance(one, dict)] if isinstance(details, list) else []


def error_code(error: JSONDict | None) -> str:
    """Return FCM's code of an error, or else its gRPC status; empty if there is neither."""
    if error is None:
        return ""
    for detail in _details(error):
        code = detail.get("errorCode")
        if detail.get("@type") == FCM_ERROR and isinstance(code, str):
            return code
    return str(error.get("status") or "")


def names_token(error: JSONDict) -> bool:
    """Whether it is the device's token that is invalid, and not something of the message."""
    for detail in _details(error):
        if detail.get("@type") == BAD_REQUEST:
            violations = detail.get("fieldViolations")
            for violation in violations if isinstance(violations, list) else []:
                if isinstance(violation, dict) and violation.get("field") == "message.token":
                    return True
    return False
