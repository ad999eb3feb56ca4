"""A shorter way for opening handshakes that nobody could misread.

Nearly every connection of a user agent begins with the same kind of request: complete, in one
piece, GET, no body, each header once, printable ASCII. To take that apart is a split and a dict.
Everything else, and all that is no handshake, goes the whole way through
:mod:`~autopush.httpserver.parser`; what comes out must not depend on the way.
"""

from __future__ import annotations

import re
from typing import NamedTuple

LIMIT = 2048
"""Bytes of such a head; those of browsers have 300 to 700."""

_TARGET = re.compile(r"/(?!/)[\w/.~%=&?+-]*", re.ASCII)

_OTHER = frozenset(
    ("content-length", "expect", "sec-websocket-origin", "te", "trailer", "transfer-encoding")
)
"""Headers that need a closer look."""


class PlainHead(NamedTuple):
    """A request without a body."""

    target: str
    """Path and query."""
    headers: dict[str, str]
    """By names in lower case; none was there twice."""
    size: int
    """Bytes it takes."""

    @property
    def path(self) -> str:
        """Path without the query."""
        return self.target.partition("?")[0]


def plain_head(data: bytes) -> PlainHead | None:
    """Read the head at the beginning of what was received, if it is as plain as that.

    :returns: None: it is not, or not complete, or doesn't ask for an upgrade
    """
    if data[:5] != b"GET /":
        return None
    end = data.find(b"\r\n\r\n", 0, LIMIT)
    if end < 0 or not data.isascii():
        return None
    first, *lines = data[:end].decode("ascii").split("\r\n")
    if not (first[-9:] == " HTTP/1.1" and "".join(lines).isprintable()):
        return None
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if not value or not name.replace("-", "").isalnum():
            return None
        headers[name.lower()] = value.strip(" ")
    if len(headers) != len(lines) or "upgrade" not in headers or not _OTHER.isdisjoint(headers):
        return None
    if "," in headers.get("host", ","):
        return None
    target = first[4:-9]
    return PlainHead(target, headers, end + 4) if _TARGET.fullmatch(target) else None
