"""The opening handshake, on both base classes and with a session of paper (spec/websocket 2)."""

# mypy: disable-error-code="arg-type,attr-defined,misc,truthy-function,valid-type,var-annotated"

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
from twisted.logger import capturedLogs

from autopush.logging.floods import LINES
from autopush.tests.websocket.support import (
    ACCEPT,
    Server,
    request,
)
from autopush.websocket import wire as websocket
from autopush.websocket.wire import PushWire


def test_a_handshake_without_the_access_key_is_counted(cls):
    server = Server(cls, access_keys=["k" * 22])
    counted = []
    server.node.metrics = SimpleNamespace(
        active=True, increment=lambda name, tags: counted.append((name, *tags))
    )
    reply, _ = server.handshake(request())
    assert reply.startswith(b"HTTP/1.1 401 ")
    assert counted == [("requests.refused", "errno:109", "code:401")]
    assert server.factory.refused == {(401, 109): 1}
    reply, _ = server.handshake(request(f"GET /{'k' * 22} HTTP/1.1"))
    assert reply.startswith(b"HTTP/1.1 101 ")
    assert len(counted) == 1


def test_floods_of_bad_handshakes_fill_no_log(cls):
    server = Server(cls, access_keys=["k" * 22])
    with capturedLogs() as logs:
        for _ in range(LINES + 3):
            reply, transport = server.handshake(request("GET / HTTP/9.9"))
            assert reply.startswith(b"HTTP/1.1 505 ") and transport.ending == "close"
            transport.end()
            assert server.handshake(request())[0].startswith(b"HTTP/1.1 401 ")
        server.factory.shutdown()
    shown = Counter(e["log_format"] for e in logs if e["log_level"].name != "debug")
    assert shown == {
        "failing WebSocket opening handshake ('{reason}')": LINES,
        "dropping connection to peer {peer} with abort={abort}: {reason}": LINES,
        "Refused without an access key: {count} times, last from {remote_ip}": 2,
        "{count} more of these: {text}": 1,
    }


# -------------------------------------------------------------------- spec/websocket 2: handshake

REFUSED = {
    "1 method": (request("POST / HTTP/1.1"), "405 HTTP method 'POST' not allowed"),
    "2 fragment": (
        request("GET /a#frag HTTP/1.1"),
        "400 HTTP requested resource contains a fragment identifier 'frag'",
    ),
    "3 no host": (
        request(host=None),
        "400 HTTP Host header missing in opening handshake request",
    ),
    "4 port": (
        request(host="push.example:x"),
        "400 invalid port 'x' in HTTP Host header 'push.example:x'",
    ),
    "6 no upgrade": (request(upgrade=None), "426 HTTP Upgrade header missing"),
    "7 other upgrade": (
        request(upgrade="h2c, foo"),
        "400 HTTP Upgrade headers do not include 'websocket' value (case-insensitive) : h2c, foo",
    ),
    "8 no connection": (request(connection=None), "400 HTTP Connection header missing"),
    "8 other connection": (
        request(connection="close"),
        "400 HTTP Connection headers do not include 'upgrade' value (case-insensitive) : close",
    ),
    "9 no version": (
        request(sec_websocket_version=None),
        "400 WebSocket connection denied - Hixie76 protocol not supported.",
    ),
    "10 version": (
        request(sec_websocket_version="9"),
        (
            "400 WebSocket version 9 not supported (supported versions: 13,8)\r\n"
            "Sec-WebSocket-Version: 13,8"
        ),
    ),
    "11 protocol twice": (
        request(sec_websocket_protocol="a, b, a"),
        "400 duplicate protocol 'a' specified in HTTP Sec-WebSocket-Protocol header",
    ),
    "14 no key": (
        request(sec_websocket_key=None),
        "400 HTTP Sec-WebSocket-Key header missing",
    ),
    "14 short key": (
        request(sec_websocket_key="abc=="),
        "400 bad Sec-WebSocket-Key (length must be 24 ASCII chars) 'abc=='",
    ),
    "14 key without padding": (
        request(sec_websocket_key="a" * 24),
        f"400 bad Sec-WebSocket-Key (invalid base64 encoding) '{'a' * 24}'",
    ),
    "14 key with another character": (
        request(sec_websocket_key="a" * 21 + "!=="),
        f"400 bad character '!' in Sec-WebSocket-Key (invalid base64 encoding) '{'a' * 21}!=='",
    ),
    "16 extension parameter": (
        request(sec_websocket_extensions="permessage-deflate; foo=1"),
        "400 illegal extension parameter 'foo' for extension 'permessage-deflate'",
    ),
    "16 in the second of two headers": (
        request(sec_websocket_extensions=["foo", "permessage-deflate; bar"]),
        "400 illegal extension parameter 'bar' for extension 'permessage-deflate'",
    ),
}


@pytest.mark.parametrize(("data", "status"), REFUSED.values(), ids=REFUSED)
def test_refused_handshakes(server, data, status):
    reply, transport = server.handshake(data)
    assert reply.decode() == f"HTTP/1.1 {status}\r\n\r\n"
    assert transport.ending == "close"
    assert transport.protocol.session is None or transport.protocol.session.uaid is None
    transport.end()
    assert not server.factory.protocols
    assert server.factory.countConnections == 0


ACCEPTED = {
    "plain": request(),
    "any path and query": request("GET /foo/bar?x=1&y HTTP/1.1"),
    "HTTP/1.0": request("GET / HTTP/1.0"),
    "no port in Host": request(host="push.example"),
    "other port in Host": request(host="push.example:99"),
    "upgrade among others": request(upgrade="h2c, WebSocket"),
    "keep-alive, Upgrade": request(connection="keep-alive, Upgrade"),
    "version 8": request(sec_websocket_version="8"),
    "12 origin without host": request(origin="http://"),
    "12 empty origin": request(origin=""),
    "12 origin of version 8": request(sec_websocket_version="8", sec_websocket_origin="x"),
    "13 null origin": request(origin="NULL"),
    "13 file origin": request(origin="file:///a"),
    "http origin": request(origin="http://evil.example"),
    "wss origin": request(origin="wss://push.services.mozilla.com/"),
    "extension origin": request(origin="moz-extension://0a1b"),
    "origin with port": request(origin="https://push.example:8443"),
    "what Firefox offers": request(
        sec_websocket_protocol="push-notification",
        sec_websocket_extensions="permessage-deflate",
    ),
    "extensions in two headers": request(
        sec_websocket_extensions=["permessage-deflate", "foo; bar=1"]
    ),
}


@pytest.mark.parametrize("data", ACCEPTED.values(), ids=ACCEPTED)
def test_accepted_handshakes_have_no_protocol_and_no_extension(server, data):
    reply, transport = server.handshake(data)
    head = reply.decode().split("\r\n")
    assert head[0] == "HTTP/1.1 101 Switching Protocols"
    assert sorted(line.split(":")[0] for line in head[1:-2]) == [
        "Connection",
        "Sec-WebSocket-Accept",
        "Server",
        "Upgrade",
    ]
    assert f"Sec-WebSocket-Accept: {ACCEPT}" in head
    assert transport.ending is None


@pytest.mark.parametrize(
    ("port", "key", "host", "status"),
    [
        (80, None, "push.example", "101"),
        (80, None, "push.example:80", "101"),
        (80, "key", "push.example", "400 missing port in HTTP Host header 'push.example'"),
        (443, "key", "push.example", "101"),
        (443, "key", "[::1]", "101"),
        (443, None, "push.example", "400 missing port in HTTP Host header 'push.example'"),
        (443, None, "[::1]", "400 missing port in HTTP Host header '[::1]'"),
        (443, None, "push.example:443", "101"),
        (
            443,
            "key",
            "push.example:8443",
            (
                "400 port 8443 in HTTP Host header 'push.example:8443'"
                " does not match server listening port 443"
            ),
        ),
    ],
)
def test_the_host_port_counts_on_ports_80_and_443(cls, port, key, host, status):
    server = Server(cls, port=port, ssl=SimpleNamespace(key=key))
    reply, _ = server.handshake(request(host=host))
    assert reply.decode().split("\r\n")[0].startswith(f"HTTP/1.1 {status}")


def test_the_host_port_does_not_count_behind_a_public_url(cls):
    server = Server(cls, port=443, public_url="https://push.example")
    assert server.handshake(request(host="push.example"))[0].startswith(b"HTTP/1.1 101 ")


def test_max_connections_counts_this_one(cls):
    server = Server(cls, max_connections=2)
    first, _ = server.open(), server.open()
    reply, third = server.handshake(request())
    assert reply == (
        b"HTTP/1.1 503 maximum number of connections reached\r\nRetry-After: 10\r\n\r\n"
    )
    third.end()
    first.end()
    server.open()


def test_a_session_begins_at_the_handshake(server, monkeypatch):
    monkeypatch.setattr(websocket, "ms_time", lambda: 1234567890123)
    _, transport = server.handshake(request(user_agent="Mozilla/5.0 (X11)"))
    session = transport.protocol.session
    assert session.wire is transport.protocol
    assert session.node is server.node
    assert session.connected_at == 1234567890123
    assert session.user_agent == "Mozilla/5.0 (X11)"
    assert session.host == "push.example"


def test_the_kernel_looks_after_idle_connections(server):
    assert "keepalive True" in server.open().events


def test_no_user_agent_is_none(server):
    assert server.open().protocol.session.user_agent is None


def test_an_overlong_head_is_refused(server):
    reply, transport = server.handshake(request(x_long="x" * 17_000))
    assert reply == b"HTTP/1.1 400 Bad Request\r\n\r\n"
    reply, transport = server.handshake(request(x_long="x" * 17_000)[:16_500])
    assert reply == b"HTTP/1.1 400 Bad Request\r\n\r\n"
    assert transport.ending == "close"


def test_an_encoding_error_is_answered_400(server, monkeypatch):
    def fail_to_decode(self, request):
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")

    order = type(server.factory).protocol.__mro__
    base = order[order.index(PushWire) + 1]
    monkeypatch.setattr(base, "processHandshake", lambda self: fail_to_decode(self, None))
    reply, _ = server.handshake(request(sec_websocket_protocol="x"))
    assert reply == b"HTTP/1.1 400 Error reading handshake data\r\n\r\n"


def test_an_unfinished_handshake_is_aborted_after_5_seconds(server):
    transport = server.connect()
    transport.protocol.dataReceived(request()[:20])
    server.clock.advance(4.9)
    assert transport.ending is None
    server.clock.advance(0.3)
    assert transport.ending == "abort"
    opened = server.open()
    server.clock.pump([1] * 10)
    assert opened.ending is None
