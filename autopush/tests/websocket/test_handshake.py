"""The shorter ways of a handshake and of a close frame answer what Autobahn answers."""

# mypy: disable-error-code="attr-defined,misc"

from __future__ import annotations

import re
from typing import Any
from unittest import mock

import pytest
from hypothesis import example, given, settings, strategies as st

from autopush.httpserver.connection import HTTPConnection, HTTPServer
from autopush.httpserver.upgrade import plain_head
from autopush.tests.websocket.support import (
    ACCEPT,
    BINARY,
    CLOSE,
    KEY,
    PING,
    TEXT,
    FakeTransport,
    Server,
    close_frame,
    frame,
    request,
)
from autopush.websocket import PushServerProtocol
from autopush.websocket.handshake import accept, opening

LINES = (
    "GET / HTTP/1.1",
    "GET /a/b?key=secret&x=1 HTTP/1.1",
    "GET /wpush/%41;p?key= HTTP/1.1",
    "GET //other/ HTTP/1.1",
    "GET /a#b HTTP/1.1",
    "GET / HTTP/1.0",
    "POST / HTTP/1.1",
    "GET http://push.example/ HTTP/1.1",
    "GET /\xe9 HTTP/1.1",
    "GET  / HTTP/1.1",
)

VALUES: dict[str, tuple[str | list[str] | None, ...]] = {
    "host": ("push.example", "[::1]:80", "[::1]", "a:b", "a b", "", "x:99999", ["a", "b"], None),
    "upgrade": ("WebSocket", "h2c, websocket", "h2c", "", None),
    "connection": ("keep-alive, Upgrade", "upgrade,x", "close", "xupgrade", None),
    "sec_websocket_key": ("a" * 24, "a" * 22 + "==", "a" * 21 + "!==", [KEY, KEY], None),
    "sec_websocket_version": ("8", "9", "13 ", "013", "x", None),
    "sec_websocket_protocol": ("push", "a, a"),
    "sec_websocket_extensions": (
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; foo",
        "foo",
        ["foo", "permessage-deflate"],
    ),
    "origin": ("wss://push.example/", "https://page.example", "null", "x y", ["null", "null"]),
    "sec_websocket_origin": ("null",),
    "user_agent": ("Mozilla/5.0 Firefox/140.0", "\xff", ""),
    "x_forwarded_for": ("192.0.2.1",),
    "content_length": ("0", "5"),
    "x_other": ("1", "a\tb", "  padded  "),
}

HELLO = b'{"messageType":"hello"}'
AFTER = (
    b"",
    frame(TEXT, HELLO),
    frame(TEXT, HELLO)[:7],
    frame(TEXT, HELLO) + close_frame(1001),
    frame(TEXT, HELLO) + close_frame(),
    close_frame(1000) + frame(TEXT, HELLO),
    close_frame(1000, b"bye"),
    close_frame(1005),
    close_frame(4000) + b"\xff" * 9,
    close_frame(999),
    close_frame(5000),
    frame(CLOSE, b"\x03"),
    frame(CLOSE, b"", masked=False),
    frame(TEXT, b"half", fin=False) + close_frame(1000),
    frame(PING, b"x") + frame(BINARY, b"x"),
)

REQUESTS = st.builds(
    lambda line, changes: request(line, **changes),
    st.sampled_from(LINES) | st.just(LINES[0]),
    st.fixed_dictionaries(
        {}, optional={name: st.sampled_from(values) for name, values in VALUES.items()}
    ),
)

SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"max_connections": 1},
    {"allowed_origins": (), "endpoint_url": "https://push.example", "ws_url": "wss://push.example"},
    {"port": 80},
)


class Application(HTTPServer):
    """As far as a WebSocket needs one."""

    def __init__(self, server: Server) -> None:
        super().__init__(server.clock)
        self.upgrade_factory = server.factory

    def wants_upgrade(self, method: str, path: str, headers: Any) -> bool:
        return "websocket" in (dict.get(headers, "upgrade") or "").lower()

    def __call__(self, request: Any) -> Any:
        request.write(b"an answer")
        request.finish()


def build(behind_http: bool, conf: dict[str, Any]) -> tuple[Server, FakeTransport]:
    server = Server(PushServerProtocol, **conf)
    transport = FakeTransport()
    if behind_http:
        connection = HTTPConnection()
        connection.factory = Application(server)
        transport.protocol = connection
        connection.makeConnection(transport)
    else:
        transport.connect(server.factory.buildProtocol(None))
    return server, transport


def talk(pieces: list[bytes], behind_http: bool, short: bool, conf: dict[str, Any]) -> Any:
    """What comes of it on either way: what is sent, how it ends, and what the session is told."""
    server, transport = build(behind_http, conf)
    sessions: list[Any] = []
    new_session = server.factory.new_session
    closes: list[Any] = []

    def noted(*args: Any) -> Any:
        sessions.append(new_session(*args))
        return sessions[-1]

    server.factory.new_session = noted
    if not short:
        server.factory.protocol.short_opening = server.factory.protocol.short_farewell = False
        if not behind_http:
            transport.protocol.__class__ = server.factory.protocol
    blind = mock.patch("autopush.httpserver.connection.plain_head", lambda data: None)
    on_close = PushServerProtocol.onClose

    def closed(self, *args):
        closes.append(args)
        on_close(self, *args)

    hook = mock.patch.object(PushServerProtocol, "onClose", closed)
    with hook, mock.MagicMock() if short else blind:
        for piece in pieces:
            if transport.ending is None:
                transport.protocol.dataReceived(piece)
        before = transport.ending, transport.reading, bool(transport.producer)
        transport.end()
    told = [(s.user_agent, s.host, s.log) for s in sessions]
    written = re.sub(rb"\r\nDate: [^\r]*", b"", transport.written)
    return written, before, told, closes, server.factory.countConnections


@settings(max_examples=300, deadline=None)
@given(
    head=REQUESTS,
    after=st.sampled_from(AFTER),
    cut=st.integers(0, 400) | st.none(),
    behind_http=st.booleans(),
    conf=st.sampled_from(SETTINGS),
)
@example(request(host=None), b"", None, True, {})
@example(request(host="a, b"), b"", None, True, {})
@example(request(), b"", None, True, {"max_connections": 1})
@example(request(origin="https://page.example"), AFTER[3], None, True, SETTINGS[2])
@example(request(origin="wss://push.example/"), AFTER[3], None, True, SETTINGS[2])
def test_both_ways_answer_alike(head, after, cut, behind_http, conf):
    whole = head + after
    pieces = [whole] if cut is None else [piece for piece in (whole[:cut], whole[cut:]) if piece]
    assert talk(pieces, behind_http, True, conf) == talk(pieces, behind_http, False, conf)


@pytest.mark.parametrize("after", AFTER, ids=map(str, range(len(AFTER))))  # the bytes are random
@pytest.mark.parametrize("behind_http", [True, False])
def test_both_ways_of_a_farewell_answer_alike(after, behind_http):
    for pieces in ([request(), after], [request(), frame(TEXT, HELLO), *map(bytes, zip(after))]):
        pieces = [piece for piece in pieces if piece]
        short, long = (talk(pieces, behind_http, way, {}) for way in (True, False))
        assert short == long


def test_what_browsers_send_goes_the_shorter_way():
    for changes in (
        {},
        {"connection": "keep-alive, Upgrade", "origin": "wss://push.example/"},
        {"sec_websocket_extensions": "permessage-deflate", "user_agent": "Mozilla/5.0 (X11)"},
    ):
        server, transport = build(True, {})
        server.factory.protocol._dataReceived = None  # of Autobahn: would be the longer one
        server.factory.protocol.processData = None
        transport.protocol.dataReceived(request(**changes))
        assert transport.written.endswith(f"Accept: {ACCEPT}\r\n\r\n".encode())
        transport.protocol.dataReceived(close_frame(1001))
        assert transport.written.endswith(close_frame(1000)[:1] + b"\x02\x03\xe8")
        assert transport.ending == "close"


@pytest.mark.parametrize("hook", ["onConnect", "onCloseFrame"])
def test_hooks_of_a_program_are_called(hook):
    called = []

    def noted(self, *args):
        called.append(args)
        return getattr(PushServerProtocol, hook)(self, *args)

    server = Server(type("Own", (PushServerProtocol,), {hook: noted}))
    transport = server.open()
    transport.protocol.dataReceived(close_frame(1000))
    assert len(called) == 1 and transport.ending == "close"


def test_headers_of_a_program_are_sent():
    server = Server()
    server.factory.headers = {"X-Own": "1"}
    reply, _ = server.handshake(request())
    assert b"\r\nX-Own: 1\r\n" in reply


def test_opening_tells_what_it_is_asked():
    head = plain_head(request("GET /a?key=b HTTP/1.1", user_agent="me"))
    found = head and opening(head)
    assert found is not None
    assert (found.host, found.path, found.params) == ("push.example", "/a", {"key": ["b"]})
    assert found.headers["user-agent"] == "me"


def test_accept():
    assert accept("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 1.3
