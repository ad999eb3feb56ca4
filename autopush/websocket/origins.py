"""Which web pages may open a WebSocket here (RFC 6455 10.2, RFC 6454).

A browser lets any page connect to any server, one on the visitor's own machine or network among
them, and says in ``Origin`` where the page is from. User agents of Web Push are no pages: most send
no ``Origin``, and Firefox's push client sends the URL of the service, which begins with ``ws`` or
``wss``, as that of no page does. The standalone service lets those in, its own pages, and those it
is told of; the daemons let everybody in.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from twisted.logger import Logger

from autopush.addresses import origin_of

if TYPE_CHECKING:
    from autopush.config import AutopushConfig

log = Logger()

HEADER = re.compile(rb"\r\n(?:sec-websocket-)?origin:([^\r\n]*)", re.IGNORECASE)

PLAIN = re.compile(
    rb"(?!file:)[a-z][a-z0-9+.-]*://[a-z0-9_.-]+(?::[0-9]{1,4}|:[1-5][0-9]{4})?(?:/[!-~]*)?",
    re.IGNORECASE,
)
"""What Autobahn surely takes for an origin. Firefox's has a path, which may be a secret."""

HOST = re.compile(rb"\r\nhost:([^\r\n]*)", re.IGNORECASE)

WEB = re.compile(r"(?:https?:.*|null|file:.*)", re.IGNORECASE)
"""What the ``Origin`` of a page looks like: ``null`` for one in a sandbox or from a file."""

MAX_LOGGED = 300
"""Characters of a refused ``Origin`` that go into the log; a host name has 253 at most."""

REMEMBERED = 256
"""``Origin`` headers remembered, for nearly all are the same few."""

MAX_REMEMBERED = 500
"""Bytes of those."""

ANY = "*"

BODY = (
    b"Pages of other origins may not connect to this service."
    b" Its operator can let some in with --allowed_origins.\n"
)
FORBIDDEN = (
    b"HTTP/1.1 403 Forbidden\r\n"
    b"Content-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(BODY)
) + BODY


class Found(NamedTuple):
    """What an ``Origin`` header says."""

    plain: bool
    """Whether Autobahn surely takes it for an origin."""
    pages: tuple[str, ...]
    """Origins of web pages in it, without what may come behind an origin."""


def read(value: bytes) -> Found:
    """Take an ``Origin`` header apart."""
    items = value.decode("latin-1").replace(",", " ").split()
    # A path says nothing, and belongs into no log.
    origins = ("/".join(item.split("/")[:3]) for item in items)
    pages = tuple(origin for origin in origins if WEB.fullmatch(origin))
    return Found(PLAIN.fullmatch(value.strip()) is not None, pages)


_remembered = lru_cache(maxsize=REMEMBERED)(read)


def read_cached(value: bytes) -> Found:
    """As :func:`read`; what is not too long is remembered."""
    return _remembered(value) if len(value) <= MAX_REMEMBERED else read(value)


def origins_in(head: bytes) -> list[Found]:
    """Return what the ``Origin`` headers of a handshake say.

    :param head: request line and headers, up to and including the empty line
    """
    return [read_cached(value) for value in HEADER.findall(head)]


def show(head: bytes, found: list[Found]) -> bytes:
    """Return a handshake as Autobahn is to see it: it refuses ``null`` and what it can't read.

    :param found: what its ``Origin`` headers say
    """
    if not found or (len(found) == 1 and found[0].plain):
        return head
    return HEADER.sub(b"", head)


class Origins:
    """Those that are let in.

    :param conf: those of ``endpoint_url`` and ``ws_url`` are ours; ``allowed_origins`` are so, too
    """

    def __init__(self, conf: AutopushConfig) -> None:
        self._conf = conf
        self._allowed = frozenset(conf.allowed_origins or ())

    def refused(self, found: list[Found], head: bytes) -> str | None:
        """Return the origin because of which a handshake is refused; None: it is not.

        :param found: what its ``Origin`` headers say
        :param head: request line and headers
        """
        for header in found:
            for page in header.pages:
                if not self._is_allowed(page, head):
                    return page
        return None

    def _is_allowed(self, text: str, head: bytes) -> bool:
        if ANY in self._allowed:
            return True
        origin = origin_of(text)
        if origin is None:
            return False
        return origin in self._allowed or origin in self._own() or _is_its_host(origin, head)

    def _own(self) -> set[str | None]:
        """Our pages' origins; ports may be known only since the start."""
        conf = self._conf
        endpoint = conf.public_origin or conf.endpoint_url
        return {origin_of(endpoint), origin_of(conf.ws_url.replace("ws", "http", 1))}


def _is_its_host(origin: str, head: bytes) -> bool:
    """Whether a page came from where it connects to, and from an address.

    Whose name it is, somebody else decides, and may let it lead here as soon as the page is loaded
    (DNS rebinding): a name in ``Host`` says nothing. An address is what the browser has connected
    to, for the page and for the WebSocket.
    """
    scheme, _, place = origin.partition("://")
    hosts = HOST.findall(head)
    if len(hosts) != 1 or not _is_address(place):
        return False
    return origin_of(f"{scheme}://{hosts[0].decode('latin-1').strip()}") == origin


def _is_address(place: str) -> bool:
    host = re.sub(r":[0-9]+$", "", place)
    if host == "localhost":
        return True
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
