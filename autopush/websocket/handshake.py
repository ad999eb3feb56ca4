"""The opening handshake: where it differs from today's Autobahn's (spec/websocket 2.2), and a
shorter way for requests that leave nothing to be said about them.

Autobahn takes 100 us to look at a request, most of it for messages of its log that nobody sees.
:class:`ShortOpening` takes those that any check would let pass, and answers what Autobahn would.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs

from autobahn.websocket.types import ConnectionDeny

from autopush.httpserver.upgrade import PlainHead, plain_head
from autopush.websocket.origins import read_cached
from autopush.websocket.trimmed import CONNECTING, OPEN

EXTENSIONS = re.compile(rb"\r\nsec-websocket-extensions:([^\r\n]*)", re.IGNORECASE)

REASON_TEXTS = (
    (re.compile(r'\(case-insensitive\): "(.*)"$'), r"(case-insensitive) : \1"),
    (re.compile('"'), "'"),
)
"""From the library's reason phrases to the documented ones: pattern, replacement."""


def normalize_head(head: bytes) -> bytes:
    """Make of a request what Autobahn accepts.

    HTTP/1.0 is taken as 1.1, and repeated ``Sec-WebSocket-Extensions`` are joined (RFC 6455 9.1).

    :param head: request line and headers, up to and including the empty line
    """
    line, _, rest = head.partition(b"\r\n")
    if line.endswith(b" HTTP/1.0"):
        head = line[:-1] + b"1\r\n" + rest
    if head.lower().count(b"\r\nsec-websocket-extensions:") > 1:
        offers: list[bytes] = EXTENSIONS.findall(head)
        joined = b"Sec-WebSocket-Extensions: " + b", ".join(map(bytes.strip, offers))
        head = EXTENSIONS.sub(b"", head)[:-4] + b"\r\n" + joined + b"\r\n\r\n"
    return head


_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")

_HOST = re.compile(r"([\w.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)

_OFFERS = frozenset((None, "permessage-deflate", "permessage-deflate; client_max_window_bits"))
"""What browsers say in ``Sec-WebSocket-Extensions``; we take no offer."""

HOOKS = (
    "consumeData",
    "dataReceived",
    "onConnect",
    "processHandshake",
    "sendData",
    "succeedHandshake",
    "_dataReceived",
    "_onOpen",
)
"""Members of a protocol without which there is no shorter way."""


class Opening(NamedTuple):
    """A handshake, as :meth:`autopush.websocket.wire.PushWire.onConnect` wants to know it."""

    host: str
    """Without the port."""
    path: str
    params: dict[str, list[str]]
    headers: dict[str, str]


@lru_cache(maxsize=1024)
def _host(value: str) -> str | None:
    """What a ``Host`` header says without its port; None if it takes a closer look."""
    found = _HOST.fullmatch(value)
    return found and found[1]


def opening(head: PlainHead) -> Opening | None:
    """Return a handshake that any check of Autobahn's lets pass; None: perhaps it is none."""
    headers = head.headers
    get = headers.get
    host, connection = _host(get("host", "")), get("connection", "").lower()
    if (
        host is None
        or get("upgrade", "").lower() != "websocket"
        or get("sec-websocket-version") != "13"
        or _KEY.fullmatch(get("sec-websocket-key", "")) is None
        or not (connection == "upgrade" or "upgrade" in connection.replace(" ", "").split(","))
        or get("sec-websocket-extensions") not in _OFFERS
        or "sec-websocket-protocol" in headers
    ):
        return None
    path, _, query = head.target.partition("?")
    return Opening(host, path, parse_qs(query) if query else {}, headers)


def accept(key: str) -> str:
    """Return the ``Sec-WebSocket-Accept`` of a ``Sec-WebSocket-Key`` (RFC 6455 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()


class ShortOpening:
    """Mixed into :class:`autopush.websocket.PushServerProtocol`."""

    if TYPE_CHECKING:
        factory: Any
        transport: Any
        data: bytes
        state: int
        maxConnections: int
        onConnect: Any
        onOpen: Any
        consumeData: Any
        failHandshake: Any

    short_opening = False
    """Whether nothing of a program's own is in the way; set on the factory's class."""

    def opens_at_once(self, data: bytes, head: PlainHead | None = None) -> bool:
        """Answer the handshake at the beginning of a connection, if it is a plain one.

        :param data: all that was received
        :param head: the request, if an HTTP server has read it already
        :returns: False: nothing was done, it needs a closer look
        """
        if not self.short_opening:
            return False
        head = head or plain_head(data)
        request = head and opening(head)
        if head is None or request is None or self._is_refused(head, data):
            return False
        try:
            self.onConnect(request)
        except ConnectionDeny as denied:
            self.failHandshake(denied.reason, denied.code)
            return True
        self._answer(request)
        self.state = OPEN
        self.onOpen()
        if len(data) > head.size:
            self.data = data[head.size :]
            self.consumeData()
        return True

    def _is_refused(self, head: PlainHead, data: bytes) -> bool:
        """Whether somebody may have something against the request."""
        factory = self.factory
        if factory.headers or factory.externalPort or self.state != CONNECTING:
            return True
        if 0 < self.maxConnections < factory.countConnections:
            return True
        origin = head.headers.get("origin")
        if origin is None:
            return False
        found = read_cached(origin.encode())
        if not found.plain:
            return True
        origins = factory.origins
        return origins is not None and origins.refused([found], data[: head.size]) is not None

    def _answer(self, request: Opening) -> None:
        server = self.factory.server
        name = f"Server: {server}\r\n" if server else ""
        self.transport.write(
            (
                f"HTTP/1.1 101 Switching Protocols\r\n{name}"
                "Upgrade: WebSocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Accept: {accept(request.headers['sec-websocket-key'])}\r\n\r\n"
            ).encode()
        )
