"""HTTP/1.1 requests from bytes: limits and framing, no I/O (RFC 9112, spec/http-endpoint 1).

Two parsers must agree on every request. :class:`RequestParser` looks for the ends of the head,
of the body and of each chunk, and never hands on a byte beyond them; llhttp (the parser of
Node.js, through httptools) gets exactly those bytes, checks every character and says what they
mean. A request either of them dislikes, or whose end they see in different places, is refused and
ends the connection: after such bytes nobody knows where the next request starts.

What llhttp cannot do is hidden from it: method names it does not know are shown to it as POST, and
an ``Upgrade`` header (which makes it stop reading) under another name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import httptools

from autopush.httpserver.request import Headers, Request

HEAD_LIMIT = 32 * 1024
"""Bytes of request line and headers: 431 above. Room for a line of the longest kind beside others;
nginx takes as much, Node.js half of it."""

LINE_LIMIT = 16 * 1024
"""Bytes of one line of the head: 431 above. As in 1.58.3. Also the limit of all trailers."""

HEADERS_LIMIT = 100
"""Header fields: 431 above. As in 1.58.3 and Apache's LimitRequestFields."""

URI_LIMIT = LINE_LIMIT - 64
"""Bytes of the request target: 414 above. What 1.58.3 took, with room for method and version; RFC
9110 4.1 asks for 8000 at least."""

BODY_LIMIT = 64 * 1024
"""Bytes of a decoded body: 413 above. Far above ``max_data`` (4096), so that the handlers answer
bodies which are a little too long in their own words."""

CHUNK_LINE_LIMIT = 256
"""Bytes of a chunk's size line: 400 above. Sizes need 16 digits, nobody sends extensions."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb"{1,64}) ([!-~]+) HTTP/(\d\.\d)\r\n")
_METHOD_START = re.compile(_TOKEN + rb"{0,64}")
_URI_START = re.compile(rb"[^ \r\n]*")
# What may follow the target while the request line is still incomplete.
_VERSION_START = re.compile(
    rb"(?:H(?:T(?:T(?:P(?:/(?:\d(?:\.(?:\d(?:\r\n?)?)?)?)?)?)?)?)?)?",
)
_BLANK_LINES = re.compile(rb"(?:\r\n)+")
# Spelt out instead of IGNORECASE, which would cost the fast search for the line end.
_UPGRADE_NAME = re.compile(rb"\r\n[Uu][Pp][Gg][Rr][Aa][Dd][Ee](?=:)")
_HIDDEN_UPGRADE = b"\r\n*pgrade"
_CONTENT_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t !-~\x80-\xff]*)?")

_KNOWN_METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"))

_COMMON_NAMES = (
    "accept",
    "accept-encoding",
    "accept-language",
    "api-key",
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "crypto-key",
    "encryption",
    "encryption-key",
    "expect",
    "host",
    "if-none-match",
    "origin",
    "pragma",
    "prefer",
    "referer",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-version",
    "te",
    "topic",
    "transfer-encoding",
    "ttl",
    "upgrade",
    "urgency",
    "user-agent",
    "via",
    "x-amzn-trace-id",
    "x-forwarded-for",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
)
# Wire spelling -> lower-case text. Fixed, so that remote input cannot make it grow.
_NAMES = {
    spelling.encode(): name
    for name in _COMMON_NAMES
    for spelling in (name, name.title(), name.upper())
}

_HEAD, _BODY, _CHUNK_SIZE, _CHUNK_DATA, _TRAILERS, _TAKEN = range(6)


class BadRequest(Exception):
    """A request that is refused before any handler sees it; the connection ends after the answer.

    :ivar status: HTTP status (400, 408, 413, 414, 431 or 505)
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class RequestParser:
    """Requests from a stream of bytes, one at a time.

    :param body_limit: bytes a decoded body may have
    :param take_over: asked with every complete head, before its body is read; True ends the
        parsing of this connection: :meth:`poll` returns None from then on, :attr:`taken` is set
        and :meth:`unread` gives all bytes from this head on

    Feed bytes with :meth:`feed`, then call :meth:`poll` until it returns None. The result does
    not depend on how the bytes are cut into pieces.
    """

    __slots__ = (
        "_body",
        "_body_limit",
        "_buffer",
        "_complete",
        "_headers",
        "_keep_alive",
        "_left",
        "_llhttp",
        "_received",
        "_request",
        "_scanned",
        "_stage",
        "_take_over",
        "_trailer_left",
    )

    def __init__(
        self,
        body_limit: int = BODY_LIMIT,
        take_over: Callable[[Request], bool] | None = None,
    ) -> None:
        self._body_limit = body_limit
        self._take_over = take_over
        self._buffer = b""
        self._scanned = 0
        self._stage = _HEAD
        self._headers: Headers | None = None
        self._request: Request | None = None
        self._llhttp: Any = httptools.HttpRequestParser(self)

    # ---- driving it

    def feed(self, data: bytes) -> None:
        """Append received bytes."""
        self._buffer = self._buffer + data if self._buffer else data

    def poll(self) -> Request | None:
        """The next complete request, or None when more bytes are needed.

        :raises BadRequest: nothing after it can be trusted; don't call again.
        """
        if self._stage == _HEAD and not (self._buffer and self._read_head()):
            return None
        if self._stage == _BODY:
            done = self._read_body()
        elif self._stage == _TAKEN:
            return None
        else:
            done = self._read_chunks()
        return self._finish() if done else None

    def close(self) -> None:
        """Break the reference cycle with llhttp; the parser is unusable afterwards."""
        self._llhttp = None
        self._take_over = None
        self._buffer = b""
        self._request = None

    def unread(self) -> bytes:
        """The bytes no returned request has used."""
        return self._buffer

    @property
    def buffered(self) -> int:
        """Bytes held that no returned request has used."""
        return len(self._buffer)

    @property
    def taken(self) -> bool:
        """Whether ``take_over`` has claimed the connection."""
        return self._stage == _TAKEN

    @property
    def in_body(self) -> bool:
        """Whether a head is complete and its body isn't."""
        return self._stage != _HEAD

    @property
    def wants_continue(self) -> bool:
        """Whether the client waits for ``100 Continue`` before it sends the body."""
        request = self._request
        return (
            request is not None
            and not self._received
            and not self._buffer
            and self._stage in (_BODY, _CHUNK_SIZE)
            and request.version == "HTTP/1.1"
            and dict.get(request.headers, "expect", "").lower() == "100-continue"
        )

    # ---- head

    def _read_head(self) -> bool:
        buffer = self._buffer
        if buffer[0] == 13:
            # RFC 9112 2.2: empty lines before the request line are ignored.
            blank = _BLANK_LINES.match(buffer)
            if blank is not None:
                self._buffer = buffer = buffer[blank.end() :]
                self._scanned = 0
            if not buffer or buffer == b"\r":
                return False
        end = buffer.find(b"\r\n\r\n", self._scanned) + 4
        if end < 4 or end > HEAD_LIMIT:
            self._check_incomplete(buffer)
            self._scanned = max(0, len(buffer) - 3)
            return False
        self._scanned = 0
        self._parse_head(buffer if end == len(buffer) else buffer[:end])
        if self._stage != _TAKEN:
            self._buffer = buffer[end:]
        return True

    @staticmethod
    def _check_incomplete(buffer: bytes) -> None:
        """Refuse a head as soon as it can't become a good one.

        Looks at the request line and the size only, so that the verdict is the same as for the
        complete head.
        """
        _check_request_line(buffer)
        if len(buffer) >= HEAD_LIMIT:
            raise BadRequest(431, "head too long")

    def _parse_head(self, head: bytes) -> None:
        line = _REQUEST_LINE.match(head)
        if line is None:
            _check_request_line(head)
            raise BadRequest(400, "malformed request line")
        method, uri, version = line.groups()
        if len(uri) > URI_LIMIT:
            raise BadRequest(414, "request target too long")
        if version not in (b"1.1", b"1.0"):
            raise BadRequest(505, "HTTP version not supported")
        if head.count(b"\r\n") - 2 > HEADERS_LIMIT:
            raise BadRequest(431, "too many headers")
        if len(head) > LINE_LIMIT and max(map(len, head.split(b"\r\n"))) > LINE_LIMIT:
            raise BadRequest(431, "header too long")
        if method not in _KNOWN_METHODS:
            head = b"POST / HTTP/" + head[line.start(3) :]
        hidden = _UPGRADE_NAME.search(head) is not None
        if hidden:
            head = _UPGRADE_NAME.sub(_HIDDEN_UPGRADE, head)

        self._headers = headers = Headers()
        self._body: Any = None
        self._received = 0
        self._complete = self._keep_alive = False
        self._feed_llhttp(head)
        self._headers = None  # what follows are trailers, which are dropped
        _check_host(dict.get(headers, "host"), version)
        if hidden:
            dict.__setitem__(headers, "upgrade", dict.pop(headers, "*pgrade"))
        request = Request(
            method.decode("ascii"), uri.decode("ascii"), "HTTP/" + version.decode("ascii"), headers
        )
        self._request = request
        self._frame(request)
        if self._take_over is not None and self._take_over(request):
            self._stage = _TAKEN
            self._request = None

    def _frame(self, request: Request) -> None:
        """Decide how long the body is (RFC 9112 6)."""
        length = dict.get(request.headers, "content-length")
        coding = dict.get(request.headers, "transfer-encoding")
        if coding is not None:
            if length is not None or coding.lower() != "chunked" or request.version != "HTTP/1.1":
                raise BadRequest(400, "ambiguous or unknown Transfer-Encoding")
            self._stage = _CHUNK_SIZE
            self._trailer_left = LINE_LIMIT
        elif length is not None:
            if _CONTENT_LENGTH.fullmatch(length) is None:
                raise BadRequest(400, "malformed Content-Length")
            self._left = int(length)
            if self._left > self._body_limit:
                raise BadRequest(413, "body too long")
            self._stage = _BODY
        else:
            self._left = 0
            self._stage = _BODY

    # ---- body

    def _read_body(self) -> bool:
        left = self._left
        if not left:
            return True
        buffer = self._buffer
        if not buffer:
            return False
        if len(buffer) <= left:
            self._buffer = b""
        else:
            self._buffer = buffer[left:]
            buffer = buffer[:left]
        self._left = left - len(buffer)
        self._feed_llhttp(buffer)
        return not self._left

    def _read_chunks(self) -> bool:
        while True:
            if self._stage == _CHUNK_DATA:
                if not self._read_body():
                    return False
                self._stage = _CHUNK_SIZE
            if self._stage == _CHUNK_SIZE:
                line = self._read_line(CHUNK_LINE_LIMIT, 400)
                if line is None:
                    return False
                self._start_chunk(line)
                self._feed_llhttp(line)
            else:
                line = self._read_line(self._trailer_left, 431)
                if line is None:
                    return False
                self._trailer_left -= len(line)
                self._feed_llhttp(line)
                if line == b"\r\n":
                    return True

    def _read_line(self, limit: int, status: int) -> bytes | None:
        """A line with its end, or None; more than ``limit`` bytes before the end are refused."""
        buffer = self._buffer
        end = buffer.find(b"\r\n")
        if end > limit or (end < 0 and len(buffer) > limit + 1):
            raise BadRequest(status, "line of a chunked body too long")
        if end < 0:
            return None
        self._buffer = buffer[end + 2 :]
        return buffer[: end + 2]

    def _start_chunk(self, line: bytes) -> None:
        match = _CHUNK_LINE.fullmatch(line, 0, len(line) - 2)
        if match is None:
            raise BadRequest(400, "malformed chunk size")
        size = int(match[1], 16)
        if self._received + size > self._body_limit:
            raise BadRequest(413, "body too long")
        if size:
            self._left = size + 2
            self._stage = _CHUNK_DATA
        else:
            self._stage = _TRAILERS

    def _finish(self) -> Request:
        if not self._complete:
            raise BadRequest(400, "ambiguous framing")
        request, self._request = self._request, None
        assert request is not None
        if self._body is not None:
            request.body = bytes(self._body)
            self._body = None
        request.keep_alive = self._keep_alive
        self._stage = _HEAD
        return request

    # ---- llhttp

    def _feed_llhttp(self, data: bytes) -> None:
        if self._complete:
            raise BadRequest(400, "ambiguous framing")
        try:
            self._llhttp.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise BadRequest(400, str(error)) from None

    def on_header(self, name: bytes, value: bytes) -> None:
        """llhttp: a header, or a trailer after the body."""
        headers = self._headers
        if headers is None:
            return
        key = _NAMES.get(name) or name.decode("latin-1").lower()
        text = value.decode("latin-1").strip(" \t")
        if dict.__contains__(headers, key):
            text = dict.__getitem__(headers, key) + "," + text
        dict.__setitem__(headers, key, text)

    def on_body(self, data: bytes) -> None:
        """llhttp: a piece of the decoded body."""
        self._received += len(data)
        if self._body is None:
            self._body = data
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += data

    def on_message_complete(self) -> None:
        """llhttp: the message ends with the byte it has just seen."""
        self._complete = True
        self._keep_alive = self._llhttp.should_keep_alive()


def _check_host(host: str | None, version: bytes) -> None:
    """Refuse a request without Host, or with several (RFC 9112 3.2).

    Whoever stands in front of us may have gone by another one than those behind.

    :param host: all of them, joined with ``,``
    """
    if host is None:
        if version == b"1.1":
            raise BadRequest(400, "Host is missing")
    elif "," in host:
        raise BadRequest(400, "more than one Host")


def _check_request_line(buffer: bytes) -> None:
    """Refuse the start of a request line that no further byte can make a good one."""
    method = _METHOD_START.match(buffer)
    assert method is not None
    at = method.end()
    if at == len(buffer):
        return
    if at == 0 or buffer[at] != 32:
        raise BadRequest(400, "malformed request line")
    uri = _URI_START.match(buffer, at + 1)
    assert uri is not None
    length = uri.end() - at - 1
    if length > URI_LIMIT:
        raise BadRequest(414, "request target too long")
    if uri.end() == len(buffer):
        return
    at = uri.end()
    if not length or buffer[at] != 32 or not _VERSION_START.fullmatch(buffer[at + 1 : at + 11]):
        raise BadRequest(400, "malformed request line")
