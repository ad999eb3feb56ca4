"""The WebSocket side of a connection node, on both base classes and with a session of paper."""

# mypy: disable-error-code="arg-type,attr-defined,misc,truthy-function,valid-type,var-annotated"

from __future__ import annotations

import json
from collections import Counter
from types import SimpleNamespace

import pytest
from autobahn.websocket.types import ConnectionDeny
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from autopush import websocket as documented
from autopush.logging.floods import LINES
from autopush.metrics.interface import SinkMetrics
from autopush.tests.websocket.support import (
    ACCEPT,
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    FakeTransport,
    close_frame,
    frame,
    parse_frames,
    request,
)
from autopush.websocket import (
    PushServerFactory,
    PushServerProtocol,
    decode_message,
    encode_message,
    log_exception,
    wire as websocket,
)
from autopush.websocket.trimmed import StockServerProtocol
from autopush.websocket.wire import PushWire

UAID = "76dfb18c1eb14f9280a57fdf8d462b5c"


class StockPushProtocol(PushWire, StockServerProtocol):
    """What a node with another Autobahn version runs."""


class PaperSession:
    """Notes what it is told; a message whose ``messageType`` is a command of it is obeyed."""

    def __init__(self, node, wire, connected_at, user_agent, host):
        self.node, self.wire = node, wire
        self.connected_at, self.user_agent, self.host = connected_at, user_agent, host
        self.uaid = None
        self.log = []
        self.saved = succeed(None)

    def received(self, message):
        self.log.append(message)
        if message.get("messageType") == "hello":
            self.uaid = UAID
            self.node.clients[UAID] = self
        elif message.get("messageType") == "echo":
            self.wire.send(message)
        elif message.get("messageType") == "close":
            self.wire.close(message.get("code"))

    def bad_input(self):
        self.log.append("bad input")
        self.wire.close()

    def close(self, code=None):
        self.wire.close(code)

    @property
    def awaiting_hello(self):
        return self.uaid is None and self.wire._holds == 0

    @property
    def registered(self):
        return self.node.clients.get(self.uaid) is self

    def output_resumed(self):
        self.log.append("output resumed")

    def closed(self):
        self.log.append("closed")
        return self.saved


class PaperNode:
    def __init__(self):
        self.clients = {}
        self.checked = []
        self.metrics = SinkMetrics()

    def check(self, uaid):
        self.checked.append(uaid)


def make_conf(**changes):
    conf = SimpleNamespace(
        port=8080,
        public_url=None,
        public_origin=None,
        ssl=SimpleNamespace(key=None),
        max_message_size=10_000,
        access_keys=(),
        allowed_origins=None,
        max_connections=None,
        hello_timeout=0,
        auto_ping_interval=None,
        auto_ping_timeout=4,
        close_handshake_timeout=0,
    )
    for name, value in changes.items():
        setattr(conf, name, value)
    return conf


class Server:
    """A factory and the connections made to it."""

    def __init__(self, cls=PushServerProtocol, **changes):
        class Factory(PushServerFactory):
            protocol = cls

        self.clock = Clock()
        self.node = PaperNode()
        self.factory = Factory(make_conf(**changes), self.node, self.clock, PaperSession)

    def connect(self):
        transport = FakeTransport()
        transport.connect(self.factory.buildProtocol(None))
        return transport

    def handshake(self, data: bytes) -> tuple[bytes, FakeTransport]:
        transport = self.connect()
        transport.protocol.dataReceived(data)
        return transport.take(), transport

    def open(self, hello: bool = False) -> FakeTransport:
        reply, transport = self.handshake(request())
        assert reply.startswith(b"HTTP/1.1 101 ")
        if hello:
            say(transport, {"messageType": "hello"})
        return transport


def say(transport: FakeTransport, *messages) -> None:
    for message in messages:
        transport.protocol.dataReceived(frame(TEXT, json.dumps(message).encode()))


def heard(transport: FakeTransport) -> list:
    """The session's log, emptied."""
    session = transport.protocol.session
    log, session.log = session.log, []
    return log


@pytest.fixture(params=[PushServerProtocol, StockPushProtocol], ids=["slim", "stock"])
def cls(request):
    return request.param


@pytest.fixture
def server(cls):
    return Server(cls)


def test_a_configured_slim_class_is_used():
    assert PushServerProtocol.parent_class.__name__ == "SlimServerProtocol"


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


# ----------------------------------------------------------------- spec/websocket 3: frame level


def test_text_messages_are_dispatched(server):
    transport = server.open()
    say(transport, {"a": 1}, {})
    whole = b'{"b":"\xc3\xa4"}'
    transport.protocol.dataReceived(frame(TEXT, whole[:7], fin=False) + frame(CONT, whole[7:]))
    assert heard(transport) == [{"a": 1}, {}, {"b": "ä"}]


def test_invalid_utf8_aborts(server):
    transport = server.open()
    transport.protocol.dataReceived(frame(TEXT, b'{"a":"\xff"}'))
    assert transport.ending == "abort"
    assert transport.take() == b""


def test_binary_closes_without_aborting(server):
    transport = server.open()
    transport.protocol.dataReceived(frame(BINARY, b"{}"))
    assert heard(transport) == ["bad input"]
    assert transport.take_frames() == [(CLOSE, b"")]
    assert transport.ending == "fin"


def test_a_violation_aborts(server):
    transport = server.open()
    transport.protocol.dataReceived(frame(TEXT, b"{}", masked=False))
    assert transport.ending == "abort"


def test_ping_is_answered_before_hello(server):
    transport = server.open()
    transport.protocol.dataReceived(frame(PING, b"abc"))
    assert transport.take_frames() == [(PONG, b"abc")]


def test_a_close_is_answered_1000_and_tcp_closed(server):
    transport = server.open()
    transport.protocol.dataReceived(close_frame(1001, b"bye"))
    assert transport.take_frames() == [(CLOSE, b"\x03\xe8")]
    assert transport.ending == "close"


def test_a_user_agent_that_closes_but_keeps_tcp_open_is_nuked(server):
    transport = server.open()
    transport.protocol.dataReceived(close_frame(1000))
    server.clock.advance(10.1)
    assert "abort" in transport.events


@pytest.mark.parametrize("first", [TEXT, BINARY])
def test_a_message_over_the_limit_is_refused_with_1009_from_its_header(server, first):
    transport = server.open()
    transport.protocol.dataReceived(bytes([0x80 | first, 0xFF]) + (10**8).to_bytes(8, "big"))
    transport.protocol.dataReceived(b"mask" + b"\xff" * 1000)
    for _ in range(100):
        transport.protocol.dataReceived(b"\xff" * 65536)
    assert transport.take_frames() == [(CLOSE, b"\x03\xf1")]
    assert transport.events[-1] == "fin"
    held = [value for value in vars(transport.protocol).values() if isinstance(value, bytes)]
    assert sum(map(len, held)) < 1000
    server.clock.advance(10.1)
    assert transport.events[-1] == "abort"


def test_fragments_over_the_limit_are_refused_with_1009(server):
    transport = server.open()
    transport.protocol.dataReceived(frame(TEXT, b"x" * 6000, fin=False))
    transport.protocol.dataReceived(frame(CONT, b"x" * 6000))
    assert transport.take_frames() == [(CLOSE, b"\x03\xf1")]


def test_a_message_of_exactly_the_limit_passes(server):
    transport = server.open(hello=True)
    heard(transport)
    transport.protocol.dataReceived(frame(TEXT, b'{"a":"' + b"x" * 9_992 + b'"}'))
    assert len(heard(transport)[0]["a"]) == 9_992


# --------------------------------------------------------------------- spec/websocket 4: decoding


@pytest.mark.parametrize("text", ["", "x", "null", "1", '"hello"', "[]", "[{}]", "{", "{}x"])
def test_what_is_no_object_is_bad_input(server, text):
    transport = server.open()
    transport.protocol.dataReceived(frame(TEXT, text.encode()))
    assert heard(transport) == ["bad input"]


def test_a_depth_bomb_is_bad_input():
    server = Server(max_message_size=1 << 20)
    transport = server.open(hello=True)
    heard(transport)
    transport.protocol.dataReceived(frame(TEXT, b'{"a":' * 200_000))
    assert heard(transport) == ["bad input"]
    assert transport.ending == "fin"


def test_what_python_2_took_as_json():
    assert decode_message(b'{"a":Infinity,"b":-Infinity}') == {
        "a": float("inf"),
        "b": float("-inf"),
    }
    assert decode_message(b'{"a":NaN}')["a"] != decode_message(b'{"a":NaN}')["a"]
    assert decode_message(b'{"a":"\\ud800"}') == {"a": "\ud800"}
    assert decode_message(b'{"a":1,"a":2}') == {"a": 2}
    assert decode_message(b'{"a":18446744073709551616}')["a"] == 2**64


def test_an_integer_of_5000_digits_is_no_json():
    with pytest.raises(ValueError, match=r".*"):
        decode_message(b"9" * 5000)


def test_whatever_was_decoded_can_be_sent(server):
    transport = server.open()
    for text in (
        b'{"messageType":"echo","a":"\\ud800"}',
        b'{"messageType":"echo","a":1e999}',
        b'{"messageType":"echo","a":123456789012345678901234567890}',
        b'{"messageType":"echo","a":' + b"[" * 500 + b"]" * 500 + b"}",
    ):
        transport.protocol.dataReceived(frame(TEXT, text))
    frames = transport.take_frames()
    assert [opcode for opcode, _ in frames] == [TEXT] * 4
    assert all(json.loads(payload)["messageType"] == "echo" for _, payload in frames)


@pytest.mark.parametrize("sizes", [(), (0,), (1, 120, 130, 9000)])
def test_send_all_is_as_send_of_each(cls, sizes):
    messages = [{"data": "x" * size} for size in sizes]
    sent = []
    for together in (True, False):
        transport = Server(cls).open(hello=True)
        transport.take()
        protocol = transport.protocol
        if together:
            protocol.send_all(messages)
        else:
            for message in messages:
                protocol.send(message)
        sent.append((transport.written, protocol.output_paused, protocol._backlog > 0))
        protocol.close()
        protocol.send_all(messages)  # nothing happens
    assert sent[0][0] == sent[1][0] and sent[0][1] == sent[1][1]


def test_send_all_of_one_that_does_not_read_holds_it(server):
    transport = server.open(hello=True)
    transport.protocol.send_all([{"data": "x" * 1000}] * 5)
    assert transport.protocol.output_paused and transport.reading
    transport.protocol.send_all([{"data": "x" * 1000}] * 70)
    assert not transport.reading
    transport.drain()
    assert transport.reading


@pytest.mark.parametrize("name", ["send", "sendMessage", "sendJSON"])
def test_send_all_goes_through_what_a_program_replaces(name):
    called = []

    def noted(self, *args, **kwargs):
        called.append(args)
        return getattr(PushServerProtocol, name)(self, *args, **kwargs)

    transport = Server(type("Own", (PushServerProtocol,), {name: noted})).open()
    transport.protocol.send_all([{"a": 1}, {"a": 2}])
    assert len(called) == 2 and len(transport.take_frames()) == 2


def test_what_is_nested_too_deep_to_send_closes(server):
    transport = server.open()
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    transport.protocol.send({"a": deep})
    assert transport.take_frames() == [(CLOSE, b"")]
    while deep:
        deep = deep.pop()


# ----------------------------------------------------------------------------- the session's wire


def test_send_is_one_text_frame(server):
    transport = server.open()
    transport.protocol.send({"messageType": "notification", "data": "ä" * 100})
    ((opcode, payload),) = transport.take_frames()
    assert opcode == TEXT
    assert json.loads(payload) == {"messageType": "notification", "data": "ä" * 100}


def test_the_ping_reply_is_two_characters():
    assert encode_message({}) == b"{}"


@pytest.mark.parametrize(("code", "body"), [(None, b""), (4774, b"\x12\xa6")])
def test_close_sends_the_frame_and_fin_at_once(server, code, body):
    transport = server.open()
    transport.protocol.close(code)
    assert transport.take_frames() == [(CLOSE, body)]
    assert transport.ending == "fin"
    assert transport.producer is None


def test_nothing_is_said_or_heard_after_a_close(server):
    transport = server.open()
    say(transport, {"messageType": "close"})
    transport.take()
    say(transport, {"late": 1})
    transport.protocol.dataReceived(frame(PING, b"late"))
    transport.protocol.send({"late": 2})
    transport.protocol.close(4774)
    assert transport.take() == b""
    assert heard(transport) == [{"messageType": "close"}]
    transport.end()


@pytest.mark.parametrize("pieces", [1, 3, 50])
def test_3_the_answer_to_our_close_frame_ends_tcp_at_once(server, pieces):
    transport = server.open()
    transport.protocol.close()
    late = frame(TEXT, b'{"messageType":"echo"}') + frame(PING, b"?") + frame(TEXT, b"x" * 70_000)
    data = late + close_frame(1000, b"bye")
    size = -(-len(data) // pieces)
    for start in range(0, len(data), size):
        assert transport.events[-1] == "fin"
        transport.protocol.dataReceived(data[start : start + size])
    assert transport.events[-1] == "close"
    assert heard(transport) == []


def test_3_also_if_it_comes_with_what_made_us_close(server):
    transport = server.open()
    message = frame(TEXT, b'{"messageType":"close"}')
    transport.protocol.dataReceived(message + frame(TEXT, b"{}") + close_frame())
    assert transport.events[-1] in ("close", "abort")  # Autobahn's own takes the harder way


def test_3_also_if_a_message_was_on_its_way():
    transport = Server(PushServerProtocol).open()
    begun = frame(TEXT, b'{"messageType":"echo"}')
    transport.protocol.dataReceived(begun[:9])
    transport.protocol.close()
    transport.protocol.dataReceived(begun[9:] + close_frame())
    assert transport.events[-1] == "close"
    assert heard(transport) == []


def test_messages_in_the_same_read_as_the_one_that_closes_are_ignored(server):
    transport = server.open()
    late = frame(TEXT, b'{"late":1}')
    transport.protocol.dataReceived(frame(TEXT, b'{"messageType":"close"}') + late)
    assert heard(transport) == [{"messageType": "close"}]


def test_tcp_that_does_not_end_is_aborted_after_10_seconds(server):
    transport = server.open()
    transport.protocol.close()
    server.clock.advance(9.9)
    assert "abort" not in transport.events
    server.clock.advance(0.3)
    assert transport.events[-1] == "abort"


def test_close_handshake_timeout_replaces_the_10_seconds(cls):
    server = Server(cls, close_handshake_timeout=3)
    transport = server.open()
    transport.protocol.close()
    server.clock.advance(3.1)
    assert transport.events[-1] == "abort"


def test_no_timer_is_left_when_tcp_has_ended(server):
    transport = server.open()
    transport.protocol.close()
    transport.end()
    assert server.clock.getDelayedCalls() == []
    assert not server.factory.protocols


def test_tls_is_closed_as_a_whole(server):
    transport = server.open()
    transport.getPeerCertificate = lambda: None
    transport.protocol.close()
    assert transport.ending == "close"


# ------------------------------------------------------------ spec/websocket 12: two kinds of pause


def test_reading_pause(server):
    transport = server.open()
    transport.protocol.pause_reading()
    assert transport.reading is False
    say(transport, {"same": "read"})
    assert heard(transport) == [{"same": "read"}]
    transport.protocol.resume_reading()
    assert transport.reading is True


def test_a_close_while_reading_is_paused_notices_the_end(server):
    transport = server.open()
    transport.protocol.pause_reading()
    transport.protocol.close()
    assert transport.reading is True
    transport.protocol.pause_reading()
    assert transport.reading is True


def test_output_is_paused_above_2048_bytes(server):
    transport = server.open()
    protocol = transport.protocol
    transport.drain()
    heard(transport)
    protocol.sendMessage(b"x" * 2044)
    assert protocol.output_paused is False
    protocol.sendMessage(b"x")
    assert protocol.output_paused is True
    assert protocol.paused is True
    transport.drain()
    assert protocol.output_paused is False
    assert heard(transport) == ["output resumed"]


def test_output_is_paused_above_65536_bytes_with_own_tls(server):
    transport = server.connect()
    transport.getPeerCertificate = lambda: None
    transport.protocol.dataReceived(request())
    assert transport.bufferSize == 65536


def test_behind_a_proxy_protocol_wrapper_the_limit_is_set_below(server):
    transport = server.connect()
    transport.transport = SimpleNamespace(bufferSize=65536)
    transport.protocol.dataReceived(request())
    assert transport.transport.bufferSize == 2048


def test_output_stays_paused_when_the_transport_is_lost(server):
    transport = server.open()
    protocol = transport.protocol
    transport.end()
    assert protocol.output_paused is True


def test_one_who_does_not_take_answers_is_not_read(server):
    transport = server.open()
    message = {"messageType": "echo", "data": "x" * 5000}
    for _ in range(12):
        say(transport, message)
    assert transport.reading is True
    for _ in range(4):
        say(transport, message)
    assert transport.reading is False
    transport.drain()
    assert transport.reading is True


def test_the_two_holds_are_independent(server):
    transport = server.open()
    protocol = transport.protocol
    for _ in range(16):
        say(transport, {"messageType": "echo", "data": "x" * 5000})
    protocol.pause_reading()
    protocol.resume_reading()
    assert transport.reading is False
    protocol.pause_reading()
    transport.drain()
    assert transport.reading is False
    protocol.resume_reading()
    assert transport.reading is True


def test_one_who_pings_without_reading_is_owed_one_pong(server):
    transport = server.open()
    transport.protocol.send({"data": "x" * 5000})
    transport.take()
    for number in range(1000):
        transport.protocol.dataReceived(frame(PING, b"%d" % number))
    assert transport.take() == b""
    transport.drain()
    assert transport.take_frames() == [(PONG, b"999")]


# --------------------------------------------------------- spec/websocket 3: automatic ping, idle


def pinging(cls, **changes):
    server = Server(cls, auto_ping_interval=20.0, auto_ping_timeout=4.0, **changes)
    transport = server.open(hello=True)
    transport.take()
    return server, transport


def the_ping(transport) -> bytes:
    ((opcode, payload),) = transport.take_frames()
    assert opcode == PING
    assert len(payload) == 4
    assert payload.isascii()
    return payload


def test_a_ping_every_interval_after_the_last_pong(cls):
    server, transport = pinging(cls)
    server.clock.advance(19.9)
    assert transport.take() == b""
    server.clock.advance(0.3)
    first = the_ping(transport)
    server.clock.advance(3)
    transport.protocol.dataReceived(frame(PONG, first))
    server.clock.advance(19.8)
    assert transport.take() == b""
    server.clock.advance(0.4)
    assert the_ping(transport) != b""
    assert transport.ending is None


def test_no_pong_in_time_aborts(cls):
    server, transport = pinging(cls)
    server.clock.advance(20.1)
    assert the_ping(transport)
    transport.protocol.dataReceived(frame(PONG, b"none"))
    say(transport, {"other": "traffic"})
    server.clock.advance(3.9)
    assert transport.ending is None
    server.clock.advance(0.3)
    assert transport.ending == "abort"
    assert transport.take() == b""


def test_a_ping_timeout_of_0_waits_for_ever(cls):
    server = Server(cls, auto_ping_interval=20, auto_ping_timeout=0)
    transport = server.open(hello=True)
    server.clock.advance(20.1)
    transport.protocol.pause_reading()
    transport.protocol.resume_reading()
    server.clock.pump([10] * 100)
    assert transport.ending is None


def test_a_ping_tick_before_hello_closes_and_aborts(cls):
    server = Server(cls, auto_ping_interval=2, auto_ping_timeout=1)
    transport = server.open()
    server.clock.advance(2.1)
    assert transport.take_frames() == [(CLOSE, b"")]
    server.clock.advance(1.1)
    assert transport.events[-1] == "abort"


def test_a_ping_tick_closes_a_session_that_is_not_registered(cls):
    server, transport = pinging(cls)
    server.node.clients[UAID] = object()
    server.clock.advance(20.1)
    assert transport.take_frames() == [(CLOSE, b"")]


def test_a_ping_tick_while_hello_waits_for_storage_only_pings(cls):
    server = Server(cls, auto_ping_interval=2, auto_ping_timeout=1)
    transport = server.open()
    transport.protocol.pause_reading()
    server.clock.advance(2.1)
    assert the_ping(transport)


def test_a_pong_timeout_does_not_count_while_reading_is_paused(cls):
    server, transport = pinging(cls)
    server.clock.advance(20.1)
    ping = the_ping(transport)
    transport.protocol.pause_reading()
    server.clock.pump([1] * 60)
    assert transport.ending is None
    transport.protocol.resume_reading()
    server.clock.advance(3.8)
    assert transport.ending is None
    transport.protocol.dataReceived(frame(PONG, ping))
    server.clock.advance(5)
    assert transport.ending is None


def test_after_a_reading_pause_the_pong_is_awaited_again(cls):
    server, transport = pinging(cls)
    server.clock.advance(20.1)
    transport.protocol.pause_reading()
    server.clock.pump([1] * 60)
    transport.protocol.resume_reading()
    server.clock.advance(4.3)
    assert transport.ending == "abort"


def test_output_that_resumes_gives_the_pong_no_more_time(cls):
    """Or one who takes what is sent, but answers no ping, would be kept for ever."""
    server, transport = pinging(cls)
    server.clock.advance(20.1)
    for _ in range(4):
        server.clock.advance(0.9)
        transport.drain()
    assert transport.ending is None
    server.clock.advance(0.7)
    assert transport.ending == "abort"


def test_nothing_is_awaited_of_a_connection_that_ended_while_reading_was_paused(cls):
    server, transport = pinging(cls)
    server.clock.advance(20.1)
    transport.protocol.pause_reading()
    transport.end()
    transport.protocol.resume_reading()
    assert transport.protocol not in server.factory.pongs.started
    assert transport.reading is False


def test_no_pings_without_an_interval(server):
    transport = server.open(hello=True)
    server.clock.pump([60] * 60)
    assert transport.take() == b""
    assert server.clock.getDelayedCalls() == []


def test_hello_timeout_closes_one_who_says_no_hello(cls):
    server = Server(cls, hello_timeout=3)
    transport = server.open()
    say(transport, {"no": "hello"})
    server.clock.advance(2.9)
    assert transport.take() == b""
    server.clock.advance(0.3)
    assert transport.take_frames() == [(CLOSE, b"")]


def test_hello_timeout_is_not_put_off_by_anything_but_a_hello(cls):
    server = Server(cls, hello_timeout=3)
    transport = server.open()
    rest = frame(CONT, b"x" * 9)
    for piece in (frame(PING, b"p"), frame(TEXT, b"{", fin=False), rest[:7], rest[7:8]):
        server.clock.advance(0.7)
        transport.protocol.dataReceived(piece)
    assert transport.take_frames() == [(PONG, b"p")]
    server.clock.advance(0.4)
    assert transport.take_frames() == [(CLOSE, b"")]


@pytest.mark.parametrize("spent", [0, 1, 2, 5])
def test_hello_timeout_counts_what_the_request_took(cls, spent):
    server = Server(cls, hello_timeout=3)
    early = server.open()
    slow = server.connect()
    slow.protocol.spent = spent
    slow.protocol.dataReceived(request())
    late = server.open()
    left = max(1, 3 - spent)
    server.clock.advance(left - 0.3)
    assert slow.ending is None
    server.clock.advance(0.5)
    assert slow.ending == "fin"
    if left < 3:
        assert early.ending is late.ending is None
    server.clock.advance(3)
    assert early.ending == late.ending == "fin"


def test_hello_timeout_is_off_after_hello(cls):
    server = Server(cls, hello_timeout=3)
    transport = server.open(hello=True)
    server.clock.pump([1] * 20)
    assert transport.ending is None


def test_hello_timeout_is_off_while_hello_waits_for_storage(cls):
    server = Server(cls, hello_timeout=3)
    transport = server.open()
    transport.protocol.pause_reading()
    server.clock.pump([1] * 20)
    assert transport.ending is None


# --------------------------------------------------------------------------------- the end


def test_the_session_ends_with_tcp(server):
    transport = server.open(hello=True)
    session = transport.protocol.session
    transport.end()
    assert session.log[-1] == "closed"
    assert transport.protocol.session is None


def test_the_session_ends_when_the_handshake_failed_after_it_began(server):
    _, transport = server.handshake(request(sec_websocket_extensions="permessage-deflate; x"))
    session = transport.protocol.session
    transport.end()
    assert session.log == ["closed"]


def test_a_session_that_can_not_save_is_logged(server, monkeypatch):
    transport = server.open(hello=True)
    failures = []
    monkeypatch.setattr(PushWire, "log_failure", lambda self, failure: failures.append(failure))
    transport.protocol.session.saved = fail(RuntimeError("disk full"))
    transport.end()
    assert failures[0].check(RuntimeError)


def test_hooks_after_the_end_do_nothing(server):
    transport = server.open(hello=True)
    protocol = transport.protocol
    transport.end()
    protocol.onMessage(b"{}", False)
    protocol._sendAutoPing()
    protocol.timeoutConnection()
    protocol.process_ping()
    protocol.process_notifications()
    protocol.send({})
    protocol.close()
    assert protocol.base_tags is None


def test_shutdown_sends_1001_and_ends_tcp(server):
    transports = [server.open() for _ in range(3)]
    done = []
    server.factory.shutdown().addCallback(done.append)
    for transport in transports:
        assert transport.take_frames() == [(CLOSE, b"\x03\xe9")]
        assert transport.ending == "fin"
        assert not done
        transport.end()
    assert done == [None]


def test_shutdown_spreads_the_closes(server):
    transports = [server.open() for _ in range(10)]
    server.factory.shutdown(spread=0.5)
    closed = []
    for _ in range(5):
        closed.append(sum(t.ending == "fin" for t in transports))
        server.clock.advance(0.1)
    assert closed == [2, 4, 6, 8, 10]


def test_shutdown_survives_those_who_left_meanwhile(server):
    transports = [server.open() for _ in range(4)]
    done = []
    server.factory.shutdown(spread=1).addCallback(done.append)
    for transport in transports:
        transport.end()
    server.clock.pump([0.1] * 20)
    assert done == [None]


def test_shutdown_aborts_who_stays(server):
    transport = server.open()
    done = []
    server.factory.shutdown().addCallback(done.append)
    server.clock.advance(10.1)
    assert transport.events[-1] == "abort"
    assert done == [None]


def test_shutdown_saves_at_once_and_waits_for_it(server):
    transport = server.open(hello=True)
    session = transport.protocol.session
    session.saved = saved = Deferred()
    done = []
    server.factory.shutdown().addCallback(done.append)
    assert session.log[-1] == "closed"
    assert transport.ending == "fin"
    transport.end()
    assert done == []
    saved.callback(None)
    assert done == [None]


def test_shutdown_waits_for_sessions_that_had_just_ended(server):
    transport = server.open(hello=True)
    transport.protocol.session.saved = saved = Deferred()
    transport.end()
    done = []
    server.factory.shutdown().addCallback(done.append)
    assert done == []
    saved.callback(None)
    assert done == [None]


def test_shutdown_may_be_called_again(server):
    transport = server.open()
    done = []
    for _ in range(2):
        server.factory.shutdown().addCallback(done.append)
    transport.end()
    assert done == [None, None]


def test_shutdown_refuses_new_ones(server):
    done = []
    server.factory.shutdown().addCallback(done.append)
    assert done == [None]
    reply, _ = server.handshake(request())
    assert reply == b"HTTP/1.1 503 shutting down\r\nRetry-After: 10\r\n\r\n"


# ------------------------------------------------------------ spec/python-api 8: documented members


def test_process_members_reach_the_session(server):
    transport = server.open()
    protocol = transport.protocol
    for name in ("hello", "register", "unregister", "ack", "nack"):
        getattr(protocol, f"process_{name}")({"x": name})
    protocol.process_ping()
    assert heard(transport) == [
        *({"x": n, "messageType": n} for n in ("hello", "register", "unregister", "ack", "nack")),
        {},
    ]
    protocol.process_notifications()
    assert server.node.checked == [UAID]


def test_base_tags_are_the_sessions(server):
    transport = server.open()
    assert transport.protocol.base_tags is None
    say(transport, {"messageType": "hello"})
    session = transport.protocol.session
    session.user_agent = SimpleNamespace(tags={"ua_os_family": "Linux"})
    assert transport.protocol.base_tags == [
        "ua_os_family:Linux",
        "host:push.example",
        "use_webpush:True",
    ]


def test_log_exception():
    class Thing:
        _log_exc = True
        failures: list[Failure] = []

        def log_failure(self, failure):
            self.failures.append(failure)

        @log_exception
        def work(self, fails):
            if fails:
                raise RuntimeError("x")
            return 7

    thing = Thing()
    assert thing.work(False) == 7
    assert thing.work(True) is None
    assert thing.failures[0].check(RuntimeError)
    thing._log_exc = False
    with pytest.raises(RuntimeError):
        thing.work(True)


def test_a_hook_may_deny(server):
    class Denying(PushServerFactory.protocol):
        def onConnect(self, request):
            raise ConnectionDeny(403, "no")

    reply, _ = Server(Denying).handshake(request())
    assert reply == b"HTTP/1.1 403 no\r\n\r\n"


def test_log_and_time_are_importable():
    assert documented.ms_time() > 1_600_000_000_000
    assert documented.WebSocketServerProtocol
    assert documented.DEFAULT_WS_ERR.endswith("websocket.html#private-http-endpoint")
    assert documented.NACK_CODES == (301, 302, 303)
    assert documented.USER_RECORD_VERSION == 1


def test_frames_of_ours_are_readable(server):
    """The helper the tests rely on does notice what is wrong with a frame."""
    with pytest.raises(AssertionError):
        parse_frames(frame(TEXT, b"x", fin=False))
