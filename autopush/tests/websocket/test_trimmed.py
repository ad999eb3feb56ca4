"""The trimmed Autobahn class does what the stock class does: every check runs on both."""

# mypy: disable-error-code="attr-defined,misc"

from __future__ import annotations

import random

import pytest
from autobahn.exception import Disconnected
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.types import ConnectionDeny
from hypothesis import example, given, settings, strategies as st
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock

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
    request,
)
from autopush.websocket import trimmed as slimsocket
from autopush.websocket.trimmed import SlimServerProtocol, StockServerProtocol, bind_options, unmask

LIMIT = 100_000


class Recorder:
    """Notes what the hooks are given."""

    def onConnect(self, request):
        self.factory.requests.append(request)
        if request.headers.get("x-deny"):
            raise ConnectionDeny(403, "go away")

    def onOpen(self):
        self.factory.log.append(("open",))

    def onMessage(self, payload, isBinary):
        self.factory.log.append(("message", payload, isBinary))
        if payload == b"close":
            self.sendClose(4000, "bye")
        elif payload == b"echo":
            self.sendMessage(payload, isBinary)

    def onPong(self, payload):
        self.factory.log.append(("pong", payload))

    def onClose(self, wasClean, code, reason):
        self.factory.log.append(("closed", wasClean, code))


class Slim(Recorder, SlimServerProtocol):
    pass


class Stock(Recorder, WebSocketServerProtocol):
    pass


class Factory(WebSocketServerFactory):
    def __init__(self, protocol, **options):
        super().__init__(reactor=Clock())
        self.setProtocolOptions(
            webStatus=False,
            openHandshakeTimeout=0,
            closeHandshakeTimeout=0,
            maxFramePayloadSize=LIMIT,
            maxMessagePayloadSize=LIMIT,
            **options,
        )
        self.protocol = protocol
        self.protocol = bind_options(self)
        self.log = []
        self.requests = []

    def buildProtocol(self, addr):
        return self.protocol()


@pytest.fixture(params=[Slim, Stock], ids=["slim", "stock"])
def cls(request):
    return request.param


def connect(cls, after_head: bytes = b"", head: bytes | None = None, **options):
    factory = Factory(cls, **options)
    transport = FakeTransport()
    protocol = transport.connect(factory.buildProtocol(None))
    protocol.dataReceived((head or request()) + after_head)
    return factory, protocol, transport


def opened(cls, **options):
    factory, protocol, transport = connect(cls, **options)
    assert transport.take().startswith(b"HTTP/1.1 101 ")
    factory.log.clear()
    return factory, protocol, transport


# ---------------------------------------------------------------------------------- handshake


def test_handshake_accepts(cls):
    factory, _, transport = connect(cls)
    head = transport.take()
    assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\nServer: AutobahnPython/")
    assert b"\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n" in head
    assert f"\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n".encode() in head
    assert factory.log == [("open",)]
    assert factory.requests[0].peer == "tcp4:192.0.2.7:4321"
    assert factory.requests[0].host == "push.example"
    assert "nodelay True" in transport.events


def test_handshake_in_single_bytes(cls):
    factory = Factory(cls)
    transport = FakeTransport()
    protocol = transport.connect(factory.buildProtocol(None))
    for byte in request() + frame(TEXT, b"hi"):
        protocol.dataReceived(bytes([byte]))
    assert factory.log == [("open",), ("message", b"hi", False)]


def test_frames_behind_the_handshake_are_handled(cls):
    factory, protocol, _ = connect(cls, frame(TEXT, b"a") + frame(TEXT, b"b")[:4])
    assert factory.log == [("open",), ("message", b"a", False)]
    del protocol


def test_handshake_refused_by_the_hook(cls):
    factory, _, transport = connect(cls, head=request(x_deny="1"))
    assert transport.take() == b"HTTP/1.1 403 go away\r\n\r\n"
    assert transport.ending == "close"
    transport.end()
    assert factory.log == [("closed", False, 1006)]


def test_connections_are_counted(cls):
    factory, _, transport = opened(cls)
    assert factory.countConnections == 1
    transport.end()
    assert factory.countConnections == 0


def test_the_limit_of_connections(cls):
    factory, _, _ = opened(cls, maxConnections=1)
    transport = FakeTransport()
    second = transport.connect(factory.buildProtocol(None))
    second.dataReceived(request())
    assert transport.take() == b"HTTP/1.1 503 maximum number of connections reached\r\n\r\n"
    assert transport.ending == "close"


# ------------------------------------------------------------------------------------- frames


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, LIMIT])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_whole_messages_of_every_length_form(cls, size, opcode):
    factory, protocol, _ = opened(cls)
    payload = bytes(97 + i % 26 for i in range(size))
    protocol.dataReceived(frame(opcode, payload))
    assert factory.log == [("message", payload, opcode == BINARY)]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_sent_messages_of_every_length_form(cls, size):
    _, protocol, transport = opened(cls)
    protocol.sendMessage(b"x" * size)
    protocol.sendMessage(b"y" * size, True)
    assert transport.take_frames() == [(TEXT, b"x" * size), (BINARY, b"y" * size)]


def test_several_frames_in_one_read(cls):
    factory, protocol, transport = opened(cls)
    protocol.dataReceived(frame(TEXT, b"1") + frame(PING, b"p") + frame(BINARY, b"2"))
    assert factory.log == [("message", b"1", False), ("message", b"2", True)]
    assert transport.take_frames() == [(PONG, b"p")]


def test_fragments_with_a_ping_in_between(cls):
    factory, protocol, transport = opened(cls)
    protocol.dataReceived(
        frame(TEXT, "ä".encode()[:1], fin=False)
        + frame(CONT, b"", fin=False)
        + frame(PING, b"")
        + frame(CONT, "ä".encode()[1:])
        + frame(TEXT, b"next")
    )
    assert factory.log == [("message", "ä".encode(), False), ("message", b"next", False)]
    assert transport.take_frames() == [(PONG, b"")]


def test_binary_fragments(cls):
    factory, protocol, _ = opened(cls)
    protocol.dataReceived(frame(BINARY, b"\xff", fin=False) + frame(CONT, b"\xfe"))
    assert factory.log == [("message", b"\xff\xfe", True)]


def test_pong_reaches_its_hook(cls):
    factory, protocol, _ = opened(cls)
    protocol.dataReceived(frame(PONG, b"abcd"))
    assert factory.log == [("pong", b"abcd")]


VIOLATIONS = {
    "unmasked": frame(TEXT, b"x", masked=False),
    "unmasked ping": frame(PING, b"x", masked=False),
    "reserved bit": frame(TEXT, b"x", rsv=4),
    "reserved bit of a ping": frame(PING, b"x", rsv=1),
    "reserved opcode": frame(3, b"x"),
    "reserved control opcode": frame(11, b"x"),
    "fragmented ping": frame(PING, b"x", fin=False),
    "long ping": frame(PING, b"x" * 126),
    "long pong": frame(PONG, b"x" * 65536),
    "long close": frame(CLOSE, b"\x03\xe8" + b"x" * 130),
    "continuation of nothing": frame(CONT, b"x"),
    "message within a message": frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"),
    "binary within a message": frame(TEXT, b"x", fin=False) + frame(BINARY, b"y", fin=False),
    "16 bit length of 125": frame(TEXT, b"x" * 125, size_field=16),
    "64 bit length of 65535": frame(TEXT, b"x" * 65535, size_field=64),
    "length of 2**63": b"\x81\xff\x80" + b"\0" * 7 + b"mask",
    "invalid UTF-8": frame(TEXT, b"\xff\xfe"),
    "truncated UTF-8": frame(TEXT, "ä".encode()[:1]),
    "surrogate in UTF-8": frame(TEXT, b"\xed\xa0\x80"),
    "invalid UTF-8 in fragments": frame(TEXT, b"a", fin=False) + frame(CONT, b"\xff"),
    "close of one byte": frame(CLOSE, b"\x03"),
    "fragmented close": frame(CLOSE, b"", fin=False),
    "close code 999": close_frame(999),
    "close code 1004": close_frame(1004),
    "close code 1005": close_frame(1005),
    "close code 1006": close_frame(1006),
    "close code 1014": close_frame(1014),
    "close code 1015": close_frame(1015),
    "close code 2999": close_frame(2999),
    "close code 5000": close_frame(5000),
    "close reason not UTF-8": close_frame(1000, b"\xff"),
}


@pytest.mark.parametrize("data", VIOLATIONS.values(), ids=VIOLATIONS)
def test_violations_abort(cls, data):
    factory, protocol, transport = opened(cls)
    protocol.dataReceived(frame(TEXT, b"before") + data + frame(TEXT, b"after"))
    assert transport.take() == b""
    assert transport.ending == "abort"
    assert factory.log == [("message", b"before", False), ("closed", False, 1006)]


@pytest.mark.parametrize("data", VIOLATIONS.values(), ids=VIOLATIONS)
def test_violations_abort_when_they_come_in_single_bytes(cls, data):
    factory, protocol, transport = opened(cls)
    for byte in data:
        protocol.dataReceived(bytes([byte]))
    assert transport.take() == b""
    assert transport.ending == "abort"
    assert factory.log == [("closed", False, 1006)]


@pytest.mark.parametrize("size", [LIMIT + 1, 65536 * 65536, (1 << 63) - 1])
def test_a_frame_over_the_limit_is_refused_from_its_header(cls, size):
    factory, protocol, transport = opened(cls)
    protocol.dataReceived(b"\x81\xff" + size.to_bytes(8, "big") + b"mask")
    assert transport.ending == "abort"
    assert factory.log == [("closed", False, 1006)]


def test_a_fragmented_message_over_the_limit_is_refused(cls):
    factory, protocol, transport = opened(cls)
    protocol.dataReceived(frame(TEXT, b"x" * LIMIT, fin=False))
    assert transport.ending is None
    protocol.dataReceived(frame(CONT, b"", fin=False))
    assert transport.ending is None
    protocol.dataReceived(frame(CONT, b"y"))
    assert transport.ending == "abort"
    assert factory.log == [("closed", False, 1006)]


# -------------------------------------------------------------------------------------- close


@pytest.mark.parametrize("code", [None, 1000, 1001, 1003, 1007, 1011, 1013, 3000, 4999])
def test_the_answer_to_a_close_is_always_1000(cls, code):
    factory, protocol, transport = opened(cls)
    protocol.dataReceived(close_frame(code))
    assert transport.take_frames() == [(CLOSE, b"\x03\xe8")]
    assert transport.ending == "close"
    protocol.dataReceived(frame(TEXT, b"late"))
    transport.end()
    assert factory.log == [("closed", True, code)]


def test_close_in_single_bytes(cls):
    factory, protocol, transport = opened(cls)
    for byte in close_frame(1001, b"leaving"):
        protocol.dataReceived(bytes([byte]))
    assert transport.take_frames() == [(CLOSE, b"\x03\xe8")]
    transport.end()
    assert factory.log == [("closed", True, 1001)]


def test_our_close_frame(cls):
    _, protocol, transport = opened(cls)
    protocol.sendClose(4774)
    assert transport.take_frames() == [(CLOSE, b"\x12\xa6")]
    protocol.sendClose()
    assert transport.take() == b""
    with pytest.raises(Disconnected):
        protocol.sendMessage(b"x")


@pytest.mark.parametrize("code", [1001, 1006, 2999, 5000, "1000"])
def test_our_close_codes_are_checked(cls, code):
    _, protocol, _ = opened(cls)
    with pytest.raises(Exception, match="close code"):
        protocol.sendClose(code)


def test_closing_from_within_a_message_stops_the_dispatch(cls):
    if cls is Stock:
        cls = type("Stock", (Recorder, StockServerProtocol), {})
    factory, protocol, transport = opened(cls)
    protocol.dataReceived(frame(TEXT, b"close"))
    protocol.dataReceived(frame(TEXT, b"late"))
    assert factory.log == [("message", b"close", False)]
    assert transport.take_frames() == [(CLOSE, b"\x0f\xa0bye")]


def test_messages_in_the_read_that_closed_are_dropped():
    factory, protocol, _ = opened(Slim)
    protocol.dataReceived(frame(TEXT, b"close") + frame(TEXT, b"late"))
    assert factory.log == [("message", b"close", False)]


def test_tcp_end_without_close(cls):
    factory, _, transport = opened(cls)
    transport.end(ConnectionDone)
    assert factory.log == [("closed", False, 1006)]


# ------------------------------------------------------------- any stream, cut anywhere, is equal


FRAMES = st.one_of(
    st.builds(frame, st.sampled_from([TEXT, BINARY]), st.binary(max_size=300)),
    st.builds(
        frame, st.just(TEXT), st.text(max_size=100).map(str.encode), st.sampled_from([True, False])
    ),
    st.builds(frame, st.just(CONT), st.binary(max_size=40), st.booleans()),
    st.builds(frame, st.sampled_from([PING, PONG]), st.binary(max_size=125)),
    st.builds(frame, st.integers(0, 15), st.binary(max_size=130), st.booleans()),
    st.sampled_from([close_frame(), close_frame(1000), frame(TEXT, b"echo")]),
    st.binary(min_size=1, max_size=20),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(FRAMES, min_size=1, max_size=12).map(b"".join), st.randoms(use_true_random=False))
@example(frame(TEXT, b"\x80", False) + close_frame(), random.Random(0))
@example(frame(TEXT, b"\x80", False) + frame(PING), random.Random(0))
def test_the_classes_agree_on_any_stream(stream: bytes, rng: random.Random):
    cuts = sorted(rng.randrange(len(stream) + 1) for _ in range(rng.randrange(6)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True) if a < b]
    results = []
    amid_message = False
    for cls in (Slim, Stock):
        factory, protocol, transport = opened(cls)
        for piece in pieces:
            if transport.connected:
                protocol.dataReceived(piece)
        if cls is Slim:
            amid_message = (
                protocol._partial is not None
                or protocol._fragments is not None
                or protocol.inside_message  # the stock class has taken over
            )
        transport.end()
        results.append((factory.log, transport.written, transport.ending))
    ours, stock = results
    if amid_message and stock[2] == "abort":
        # Whether a text is UTF-8 the stock class notices while it arrives, ours when it is there:
        # until then it goes on, with pongs, or with the answer to a close frame amid such a text.
        assert ours[1].startswith(stock[1])
        assert ours[0][: len(stock[0]) - 1] == stock[0][:-1]
        return
    assert ours == stock


def test_invalid_text_in_an_unfinished_message_is_noticed_with_its_end():
    factory, protocol, transport = opened(Slim)
    protocol.dataReceived(frame(TEXT, b"a", False) + frame(CONT, b"\xf5", False))
    assert transport.ending is None
    protocol.dataReceived(frame(CONT, b"b"))
    assert transport.ending == "abort"
    assert factory.log == [("closed", False, 1006)]


# -------------------------------------------------------------------------------- ours only


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 100, 1001])
def test_unmask_is_the_xor_of_rfc_6455(size):
    data, mask = bytes(range(256)) * 4, b"\x00\x7f\x80\xff"
    data = data[:size]
    assert unmask(data, mask) == bytes(b ^ mask[i % 4] for i, b in enumerate(data))


def test_an_open_connection_keeps_nothing_of_its_handshake():
    _, protocol, _ = opened(Slim)
    assert protocol._scratch is None
    assert set(vars(protocol)) <= {"transport", "state", "_scratch"}
    protocol.dataReceived(frame(TEXT, b"a", fin=False))
    last = frame(CONT, b"b")
    protocol.dataReceived(last[:3])
    protocol.dataReceived(last[3:])
    protocol.dataReceived(frame(PING, b"c"))
    kept = {k: v for k, v in vars(protocol).items() if v is not None}
    assert set(kept) == {"transport", "state"}


def test_empty_fragments_occupy_nothing():
    _, protocol, _ = opened(Slim)
    protocol.dataReceived(frame(TEXT, b"", fin=False))
    protocol.dataReceived(frame(CONT, b"", fin=False) * 10_000)
    assert protocol._fragments == (False, b"")


def test_options_are_not_copied_to_instances():
    factory, protocol, _ = opened(Slim)
    assert not set(protocol.CONFIG_ATTRS) & set(vars(protocol))
    assert protocol.maxMessagePayloadSize == LIMIT
    assert protocol.factory is factory


def test_another_autobahn_version_gets_the_stock_class(monkeypatch):
    assert slimsocket.server_protocol() is SlimServerProtocol
    monkeypatch.setattr(slimsocket.autobahn, "__version__", "27.1.1")
    assert slimsocket.server_protocol() is StockServerProtocol
