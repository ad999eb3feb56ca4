"""A WebSocket client and a transport made of bytes, and a node with sessions of paper, for tests of
the server side."""

# mypy: disable-error-code="arg-type,attr-defined,misc,truthy-function,valid-type,var-annotated"

from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
from types import SimpleNamespace
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import ITransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from autopush.metrics.interface import SinkMetrics
from autopush.websocket import PushServerFactory, PushServerProtocol
from autopush.websocket.trimmed import StockServerProtocol
from autopush.websocket.wire import PushWire

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

KEY = base64.b64encode(b"0123456789abcdef").decode()
ACCEPT = base64.b64encode(
    hashlib.sha1((KEY + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
).decode()

UAID = "76dfb18c1eb14f9280a57fdf8d462b5c"

HEADERS = {
    "Host": "push.example:8080",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def request(line: str = "GET / HTTP/1.1", **changes: str | list[str] | None) -> bytes:
    """An opening handshake; ``changes`` replace headers (``_`` for ``-``), None drops them."""
    headers: dict[str, str | list[str] | None] = dict(HEADERS)
    for name, value in changes.items():
        wanted = name.replace("_", "-").lower()
        match = next((known for known in headers if known.lower() == wanted), wanted)
        headers[match] = value
    lines = [line]
    for name, value in headers.items():
        for item in value if isinstance(value, list) else [value]:
            if item is not None:
                lines.append(f"{name}: {item}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def frame(
    opcode: int,
    payload: bytes = b"",
    fin: bool = True,
    rsv: int = 0,
    masked: bool = True,
    size_field: int | None = None,
) -> bytes:
    """A client's frame; ``size_field`` forces the 7 (0), 16 or 64 bit length."""
    size = len(payload)
    if size_field is None:
        size_field = 0 if size < 126 else 16 if size < 65536 else 64
    mask_bit = 0x80 if masked else 0
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if size_field == 0:
        head += bytes([mask_bit | size])
    elif size_field == 16:
        head += bytes([mask_bit | 126]) + struct.pack("!H", size)
    else:
        head += bytes([mask_bit | 127]) + struct.pack("!Q", size)
    if not masked:
        return head + payload
    mask = os.urandom(4)
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def close_frame(code: int | None = None, reason: bytes = b"") -> bytes:
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


def parse_frames(data: bytes) -> list[tuple[int, bytes]]:
    """A server's frames as (opcode, payload); all are whole, final and unmasked."""
    frames = []
    while data:
        first, size = data[0], data[1]
        assert first & 0xF0 == 0x80, f"not a plain final frame: {first:#x}"
        at = 2
        if size == 126:
            size, at = struct.unpack("!H", data[2:4])[0], 4
        elif size == 127:
            size, at = struct.unpack("!Q", data[2:10])[0], 10
        assert len(data) >= at + size, "incomplete frame"
        frames.append((first & 15, data[at : at + size]))
        data = data[at + size :]
    return frames


@implementer(ITransport)
class FakeTransport:
    """A TCP transport. What the test calls ``drain`` is the kernel taking what is buffered."""

    def __init__(self) -> None:
        self.protocol: Any = None
        self.written = b""
        self.events: list[str] = []
        self.reading = True
        self.producer: Any = None
        self.bufferSize = 65536
        self.buffered = 0
        self.connected = True

    def connect(self, protocol):
        self.protocol = protocol
        protocol.makeConnection(self)
        return protocol

    def take(self) -> bytes:
        data, self.written = self.written, b""
        return data

    def take_frames(self) -> list[tuple[int, bytes]]:
        return parse_frames(self.take())

    def drain(self) -> None:
        self.buffered = 0
        if self.producer is not None:
            self.producer.resumeProducing()

    def end(self, reason: type[Exception] = ConnectionDone) -> None:
        """TCP ends."""
        if self.connected:
            self.connected = False
            if self.producer is not None:
                self.producer.stopProducing()
                self.producer = None
            self.protocol.connectionLost(Failure(reason()))

    # ---- what a protocol calls

    def write(self, data: bytes) -> None:
        assert isinstance(data, bytes)
        self.written += data
        self.buffered += len(data)
        if self.producer is not None and self.buffered > self.bufferSize:
            self.producer.pauseProducing()

    def registerProducer(self, producer, streaming: bool) -> None:
        assert streaming
        assert self.producer is None
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = True

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.events.append(f"nodelay {enabled}")

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self.events.append(f"keepalive {enabled}")

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.7", 4321)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.1", 8080)

    def loseConnection(self) -> None:
        self.events.append("close")

    def loseWriteConnection(self) -> None:
        self.events.append("fin")

    def abortConnection(self) -> None:
        self.events.append("abort")
        self.end(ConnectionAborted)

    @property
    def ending(self) -> str | None:
        """How the node ended TCP: ``abort``, ``close``, ``fin`` or None."""
        return next((e for e in self.events if e in ("abort", "close", "fin")), None)


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
