"""The shorter way to read a request reads what the parser reads, or nothing."""

from __future__ import annotations

import pytest
from hypothesis import example, given, strategies as st

from autopush.httpserver.parser import RequestParser
from autopush.httpserver.request import Request
from autopush.httpserver.upgrade import LIMIT, plain_head

PLAIN = b"GET /a?b=c HTTP/1.1\r\nHost: h:1\r\nUpgrade: websocket\r\nX-Some: a, b\r\n\r\n"

PIECES = (
    b"GET / HTTP/1.1\r\n",
    b"GET /x HTTP/1.0\r\n",
    b"GET / HTTP/1.1\n",
    b"GET /\t HTTP/1.1\r\n",
    b"Host: h\r\n",
    b"Host:h\r\n",
    b"host: h \r\n",
    b"Upgrade: websocket\r\n",
    b"Upgrade : websocket\r\n",
    b" folded: x\r\n",
    b"X: \x00\r\n",
    b"X: a\rb\r\n",
    b"X: a\nHost: b\r\n",
    b"X: a\tb\r\n",
    b"X: \xff\r\n",
    b"X:\r\n",
    b": x\r\n",
    b"X-\xb2: 1\r\n",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n",
    b"\r\n",
    b"more",
)


def parsed(data: bytes) -> Request | None:
    """What the parser makes of it."""
    requests: list[Request] = []

    def take(request: Request) -> bool:
        requests.append(request)
        return True

    parser = RequestParser(take_over=take)
    parser.feed(data)
    parser.poll()
    assert len(requests) <= 1
    return requests[0] if requests else None


@given(st.lists(st.sampled_from(PIECES), max_size=9).map(b"".join))
@example(PLAIN)
@example(PLAIN + b"more")
@example(PLAIN.replace(b"Host: h:1\r\n", b""))
@example(PLAIN.replace(b"h:1", b"h:1, i"))
def test_it_reads_what_the_parser_reads(data):
    head = plain_head(data)
    if head is None:
        return  # whatever the parser says
    request = parsed(data)
    assert request is not None
    assert (request.method, request.version) == ("GET", "HTTP/1.1")
    assert (request.uri, request.path) == (head.target, head.path)
    assert dict(request.headers) == head.headers
    assert data[: head.size].endswith(b"\r\n\r\n") and b"\r\n\r\n" not in data[: head.size - 1]


def test_plain():
    head = plain_head(PLAIN + b"more")
    assert head is not None
    assert (head.target, head.path, head.size) == ("/a?b=c", "/a", len(PLAIN))
    assert head.headers == {"host": "h:1", "upgrade": "websocket", "x-some": "a, b"}


@pytest.mark.parametrize(
    "data",
    [
        PLAIN[:-1],
        PLAIN.replace(b"GET", b"PUT"),
        PLAIN.replace(b"Upgrade", b"Update"),
        PLAIN.replace(b"X-Some: a", b"Host: a"),
        PLAIN.replace(b"a, b", b"a" * LIMIT),
        PLAIN.replace(b"/a", b"//a"),
        b"",
    ],
)
def test_not_plain(data):
    assert plain_head(data) is None
