"""Client of Google Cloud Messaging and of what still speaks its protocol.

::

    → POST https://<endpoint>            Authorization: key=<server key>
      {"registration_ids": [...], "time_to_live": s, "delay_while_idle": false, "dry_run": b,
       "data": {...}}
    ← 200 {"canonical_ids": n, "failure": n, "results":
           [{"message_id": ...[, "registration_id": <new>]} | {"error": <reason>}]}
    ← 200 or 5xx with Retry-After, 400, 401

Google ended the service in 2019; private gateways remain. Source: spec/bridges 4,
spec/python-api 7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from autopush.constants import DEFAULT_ROUTER_TIMEOUT
from autopush.exceptions import RouterException
from autopush.router.bridge import parse_retry_after
from autopush.router.bridgehttp import BridgeClient, BridgeError, BridgeTimeout, Reply, base_url

if TYPE_CHECKING:
    from autopush.metrics import IMetrics
    from autopush.types import JSONDict

ENDPOINT = "gcm-http.googleapis.com/gcm/send"

MAX_DETAIL = 200
"""Characters of an answer that may appear in an error's text."""


class GCMAuthenticationError(Exception):
    """The server key was refused."""


class GCMError(Exception):
    """The answer can't be understood; the text tells what came."""


class JSONMessage:
    """A message to one or more devices.

    :param registration_ids: tokens of the devices
    :param collapse_key: only the last message with a key is kept for a device; None: all are
    :param time_to_live: seconds
    :param dry_run: the message is checked but not delivered
    :param data: members and values are texts
    :raises RouterException: there are no registration ids
    """

    def __init__(
        self,
        registration_ids: str | list[str],
        collapse_key: str | None,
        time_to_live: int,
        dry_run: bool,
        data: JSONDict,
    ) -> None:
        if not registration_ids:
            raise RouterException("No Registration IDs specified")
        if not isinstance(registration_ids, list):
            registration_ids = [registration_ids]
        self.registration_ids = registration_ids
        self.payload: JSONDict = {
            "registration_ids": registration_ids,
            "time_to_live": int(time_to_live),
            "delay_while_idle": False,
            "dry_run": bool(dry_run),
        }
        if collapse_key:
            self.payload["collapse_key"] = collapse_key
        if data:
            self.payload["data"] = data


class Result:
    """What became of a message, by registration id.

    ``success`` has message ids, ``canonicals`` the new registration ids, ``failed`` the reasons;
    ``unavailable`` and ``not_registered`` are lists. ``retry_after`` (seconds) is what the service
    asks to wait; ``retry_message`` is then a message with those ids that may be sent again.

    :param response: the answer: anything with status (``code``, ``status_code`` or ``status``),
        ``headers`` and body (``content`` or ``text``), such as responses of requests. One whose
        body is still to be read, such as treq's, is left to :meth:`parse_response`.
    :raises GCMError: the answer is none of GCM's
    """

    def __init__(self, response: Any, message: JSONMessage) -> None:
        self.message = message
        self.retry_after = parse_retry_after(_header(response.headers, "Retry-After"))
        self._begin()
        content = _body(response)
        if content is not None:
            self.parse_response(content, _status(response), message)

    def _begin(self) -> None:
        self.success: dict[str, Any] = {}
        self.canonicals: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self.unavailable: list[str] = []
        self.not_registered: list[str] = []
        self.retry_message: JSONMessage | None = None

    def parse_response(self, content: bytes | str, code: int, message: JSONMessage) -> None:
        """Sort the registration ids by what became of them.

        :raises GCMError: the answer is none of GCM's
        """
        self._begin()
        if code == 429 or 500 <= code < 600:
            self.retry_message = message
            self.unavailable = list(message.registration_ids)
            return
        try:
            data = orjson.loads(content)
        except ValueError:
            raise GCMError(_detail(content)) from None
        if code != 200 or not isinstance(data, dict) or not isinstance(data.get("results"), list):
            error = data.get("error") if isinstance(data, dict) else None
            raise GCMError(_detail(error) if error else "Recv'd invalid response from GCM")
        if len(data["results"]) != len(message.registration_ids):
            raise GCMError("Recv'd invalid response from GCM")
        for token, result in zip(message.registration_ids, data["results"], strict=True):
            if not isinstance(result, dict):
                raise GCMError("Recv'd invalid response from GCM")
            self._sort(token, result)
        if self.unavailable or (self.retry_after is not None and not self.success):
            self.retry_message = message

    def _sort(self, token: str, result: JSONDict) -> None:
        if "message_id" in result:
            self.success[token] = result["message_id"]
            new = result.get("registration_id")
            if isinstance(new, str) and new:
                self.canonicals[token] = new
            return
        error = str(result.get("error"))[:MAX_DETAIL]
        if error in ("Unavailable", "InternalServerError"):
            self.unavailable.append(token)
        elif error == "NotRegistered":
            self.not_registered.append(token)
        else:
            self.failed[token] = error


def _status(response: Any) -> int:
    for name in ("code", "status_code", "status"):
        found = getattr(response, name, None)
        if isinstance(found, int):
            return found
    raise TypeError("the response has no status")


def _header(headers: Any, name: str) -> str | bytes | None:
    """Return a header of Twisted's headers or of a mapping; in those of requests case is free."""
    found: str | bytes | None
    if hasattr(headers, "getRawHeaders"):
        found = headers.getRawHeaders(name, [None])[0]
    else:
        found = next((headers[key] for key in headers if key.lower() == name.lower()), None)
    return found


def _body(response: Any) -> bytes | str | None:
    """Return the body of an answer; None if it is not there yet."""
    for name in ("content", "text"):
        found = getattr(response, name, None)
        if isinstance(found, bytes | str):
            return found
    return None


def _detail(content: Any) -> str:
    text = content.decode("utf-8", "replace") if isinstance(content, bytes) else str(content)
    return text[:MAX_DETAIL]


class GCM:
    """Sends with one server key.

    :param endpoint: host and path; https unless it starts with ``http://``
    :param options: ``timeout`` in seconds (3); ``ca_file``, see
        :class:`~autopush.router.bridgehttp.BridgeClient`
    :raises InvalidConfig, OSError: endpoint or ``ca_file`` can't be used
    """

    def __init__(
        self,
        api_key: str | None = None,
        logger: Logger | None = None,
        metrics: IMetrics | None = None,
        endpoint: str = ENDPOINT,
        **options: Any,
    ) -> None:
        self._endpoint = base_url(endpoint, f"https://{ENDPOINT}", "GCM endpoint")
        self._api_key = api_key
        self.metrics = metrics
        self.logger = logger or Logger()
        self._client = BridgeClient(
            timeout=options.get("timeout", DEFAULT_ROUTER_TIMEOUT),
            ca_file=options.get("ca_file"),
            server=self._endpoint,
        )
        self.server, self.proxy = self._client.server, self._client.proxy
        self._sender = self._client.post

    def send(self, payload: JSONMessage) -> Deferred[Result]:
        """Send a message.

        :returns: fails with :class:`GCMAuthenticationError`, :class:`GCMError` or
            :class:`~autopush.router.bridgehttp.BridgeError`
        """
        return Deferred.fromCoroutine(self._send(payload))

    def close(self) -> Deferred[None]:
        """Close the idle connections."""
        return self._client.close()

    async def _send(self, payload: JSONMessage) -> Result:
        headers = {"Content-Type": "application/json", "Authorization": f"key={self._api_key}"}
        try:
            reply = await self._sender(self._endpoint, headers, orjson.dumps(payload.payload))
        except BridgeError as exc:
            raise self.error(exc) from exc
        return self.process(reply, payload)

    def process(self, response: Reply, payload: JSONMessage) -> Result:
        """Read an answer.

        :raises GCMAuthenticationError, GCMError: no message was taken
        """
        if response.code == 401:
            raise GCMAuthenticationError("Authentication Error")
        return Result(response, payload)

    def error(self, failure: BridgeError) -> BridgeError:
        """Log that no answer came; returns the failure."""
        what = "Timeout" if isinstance(failure, BridgeTimeout) else "Unavailable"
        self.logger.warn("GCM {what}: {text}", what=what, text=str(failure))
        return failure
