"""The door of a private service: who may become a user agent of it.

With access keys (``--access_key``, or the file ``access_keys`` of the data directory) only those
who show one may open a WebSocket, and only they may register over HTTP. It is shown in the URL,
because that is all that user agents let their users set::

    ws://push.example.org/<key>              WebSocket; below other parts of a path, too
    ws://push.example.org/?key=<key>
    http://push.example.org/<key>/v1/...     registration
    http://push.example.org/v1/...?key=<key>

Senders show none, and neither do requests about a registration, which have the secret of that.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from twisted.logger import Logger

from autopush.web.base import PREF_SCHEME, BaseWebHandler, standard_error

if TYPE_CHECKING:
    from autopush.config import AutopushConfig
    from autopush.httpserver.request import Request

LOG_INTERVAL = 10
"""Seconds between two lines about those who have no access key: whoever tries many fills no log."""

MAX_ADDRESS = 100
"""Characters logged of where somebody comes from: a header may say so, which anybody can write."""

UNAUTHORIZED = "An access key is needed: this is a private service"

PREFIXED = re.compile(r"/([^/]+)(/v1/.*)")
NEW_REGISTRATION = re.compile(r"/v1/[^/]+/[^/]+/registration")


REFUSAL_BODY = json.dumps(standard_error(401, 109, UNAUTHORIZED)).encode()
REFUSAL = (
    f"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\n"
    f"Content-Length: {len(REFUSAL_BODY)}\r\nWWW-Authenticate: {PREF_SCHEME}\r\n"
    "Connection: close\r\n\r\n"
).encode() + REFUSAL_BODY
"""What a WebSocket handshake without a key is answered."""


class Access:
    """Knows the keys.

    :param keys: any of these opens the door
    :param now: seconds, monotonic
    """

    log = Logger()

    def __init__(self, keys: Iterable[str], now: Callable[[], float]) -> None:
        self._digests = [_digest(key) for key in keys]
        self._now = now
        self._refused = 0
        self._last = ""
        self._logged: float | None = None

    @classmethod
    def of(cls, conf: AutopushConfig, now: Callable[[], float]) -> Access | None:
        """Of a configuration; None: it asks for no key."""
        return cls(conf.access_keys, now) if conf.access_keys else None

    def opens(self, text: str) -> bool:
        """Whether it is one of the keys. All are tried, so that the time taken tells nothing."""
        given = _digest(text)
        same = [hmac.compare_digest(given, digest) for digest in self._digests]
        return any(same)

    def shown(self, path: str, query: str | Iterable[str] = ()) -> bool:
        """Whether the first or the last part of a path is a key, or a value of ``key``.

        :param path: undecoded, without the query
        :param query: undecoded, or the values of ``key`` in it
        """
        parts = path.strip("/").split("/")
        if isinstance(query, str):
            query = parse_qs(query).get("key", ()) if "key" in query else ()
        return any(map(self.opens, (parts[0], parts[-1], *list(query)[:1])))

    def enter(self, request: Request) -> bool:
        """Whether a request may pass; a key before its path is taken off."""
        path = request.path
        if path.startswith("/wpush/"):
            return True
        prefixed = PREFIXED.fullmatch(path)
        shown = False
        if prefixed is not None:
            key, rest = prefixed.groups()
            shown = self.opens(key)
            if shown or NEW_REGISTRATION.fullmatch(rest):
                request.path = path = rest
                request.uri = request.uri.replace(f"/{key}/v1/", "/v1/", 1)
        if request.method != "POST" or NEW_REGISTRATION.fullmatch(path) is None:
            return True
        return shown or self.shown("", request.query)

    def refuse(self, remote_ip: str) -> None:
        """Note that somebody had no key."""
        self._refused += 1
        self._last = remote_ip[:MAX_ADDRESS]
        now = self._now()
        if self._logged is None or now - self._logged >= LOG_INTERVAL:
            self._logged = now
            self.tell_counted()

    def tell_counted(self) -> None:
        """Log how many were refused since the last line, if any."""
        if self._refused:
            self.log.info(
                "Refused without an access key: {count} times, last from {remote_ip}",
                count=self._refused,
                remote_ip=self._last,
            )
            self._refused = 0


def _digest(text: str) -> bytes:
    """What is compared instead of keys: all have the same length."""
    return sha256(text.encode("utf-8", "surrogatepass")).digest()


class NoAccessHandler(BaseWebHandler):
    """The answer to a registration without a key."""

    cors_methods = "POST"
    _refusal_told = True

    def post(self, *_args: Any, **_kwargs: Any) -> None:
        """401."""
        self.application.access.refuse(self._client_info["remote_ip"])
        self._write_response(401, 109, message=UNAUTHORIZED)
