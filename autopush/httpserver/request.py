"""A request as handlers see it (spec/http-endpoint 1)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http.cookies import CookieError, SimpleCookie
from typing import Any, Protocol
from urllib.parse import parse_qs

from autopush import clock

_ABSOLUTE_URI = re.compile(r"[Hh][Tt][Tt][Pp][Ss]?://([^/?#]*)")


class Connection(Protocol):
    """Where a request came from, and its answer goes."""

    @property
    def remote_ip(self) -> str:
        """Address of the peer."""

    @property
    def scheme(self) -> str:
        """``http`` or ``https``."""

    def send(self, request: Request, data: bytes) -> None:
        """Write a piece of the answer."""

    def finished(self, request: Request) -> None:
        """The answer is complete."""


class Headers(dict[str, str]):
    """Request headers: lower-case names, look-ups in any case.

    Values are latin-1 text, stripped; repeated headers are joined with ``,`` (spec/http-endpoint
    1.1). ``dict(headers)`` gives the lower-case names.
    """

    __slots__ = ()

    find = dict[str, str].get
    """As :meth:`get`, for a name in lower case: what is looked for in every request."""

    def __getitem__(self, name: str) -> str:
        return dict.__getitem__(self, name.lower())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and dict.__contains__(self, name.lower())

    def get(self, name: str, default: Any = None) -> Any:
        return dict.get(self, name.lower(), default)

    def get_list(self, name: str) -> list[str]:
        """The values of a list header; empty when it is absent."""
        value = dict.get(self, name.lower())
        return [] if value is None else value.split(",")

    def get_all(self) -> Iterator[tuple[str, str]]:
        """All (lower-case name, value) pairs."""
        return iter(self.items())


class Request:
    """One request, with the attributes cyclone's handlers know from its HTTPRequest.

    ``uri`` is the request target as sent; ``path`` and ``query`` are its undecoded parts (without
    scheme and host if it was in absolute form, RFC 9112 3.2.2); ``body`` is bytes.
    """

    __slots__ = (
        "_arguments",
        "_cookies",
        "_start_time",
        "body",
        "connection",
        "end_time",
        "headers",
        "host",
        "keep_alive",
        "method",
        "path",
        "query",
        "uri",
        "version",
    )
    files: dict[str, Any] = {}

    def __init__(self, method: str, uri: str, version: str, headers: Headers) -> None:
        self.method = method
        self.uri = uri
        self.version = version
        self.headers = headers
        self.body = b""
        self.keep_alive = False
        self.connection: Connection | None = None
        self.end_time: float | None = None
        self._arguments: dict[str, list[str]] | None = None
        self._cookies: SimpleCookie | None = None
        self._start_time = clock.now()
        self.host: str = dict.get(headers, "host") or "127.0.0.1"
        target = uri
        if uri[0] != "/":
            absolute = _ABSOLUTE_URI.match(uri)
            if absolute is not None:
                self.host = absolute[1] or self.host
                target = uri[absolute.end() :]
                if target[:1] != "/":
                    target = "/" + target
        self.path, _, self.query = target.partition("?")

    @property
    def remote_ip(self) -> str:
        """Address of the peer, or the one a PROXY header announced."""
        return self.connection.remote_ip if self.connection is not None else ""

    @property
    def protocol(self) -> str:
        """``http`` or ``https``."""
        return self.connection.scheme if self.connection is not None else "http"

    @property
    def arguments(self) -> dict[str, list[str]]:
        """Query arguments, then those of a form body; decoded, what is not UTF-8 replaced."""
        if self._arguments is None:
            arguments = parse_qs(self.query, keep_blank_values=True) if self.query else {}
            content_type = self.headers.get("content-type", "")
            if content_type.startswith("application/x-www-form-urlencoded"):
                for name, values in parse_qs(self.body.decode("latin-1")).items():
                    arguments.setdefault(name, []).extend(values)
            self._arguments = arguments
        return self._arguments

    @property
    def cookies(self) -> SimpleCookie:
        """Cookies sent; empty if they can't be parsed."""
        if self._cookies is None:
            self._cookies = SimpleCookie()
            try:
                self._cookies.load(self.headers.get("cookie", ""))
            except CookieError:
                self._cookies = SimpleCookie()
        return self._cookies

    def supports_http_1_1(self) -> bool:
        """Whether the client speaks HTTP/1.1."""
        return self.version == "HTTP/1.1"

    def full_url(self) -> str:
        """Scheme, host and target."""
        return f"{self.protocol}://{self.host}{self.uri}"

    def request_time(self) -> float:
        """Seconds from the end of the head to the end of the answer (or to now)."""
        return (self.end_time or clock.now()) - self._start_time

    def write(self, data: bytes) -> None:
        """Send bytes of the answer; dropped when the client is gone."""
        if self.connection is not None:
            self.connection.send(self, data)

    def finish(self) -> None:
        """The answer is complete."""
        self.end_time = clock.now()
        if self.connection is not None:
            self.connection.finished(self)

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.path}>"
