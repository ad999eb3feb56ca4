"""Talks HTTP to an application without a socket."""

from __future__ import annotations

from typing import Any, NamedTuple

import h11
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure


class Transport(StringTransport):
    """A socket with half-close; feeds a protocol and remembers what it did."""

    protocol: Any
    half_closed = False
    no_delay = False

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled

    def unregisterProducer(self) -> None:
        if self.producer is not None:
            super().unregisterProducer()


class Answer(NamedTuple):
    """One answer: status, reason phrase, headers by lower-case name, body."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes


class Wire:
    """A client's end of one connection to an application.

    :param app: the application, with a ``Clock`` as ``clock``
    """

    def __init__(self, app: Any, transport: Transport | None = None) -> None:
        self.app = app
        self.transport = transport or Transport(peerAddress=IPv4Address("TCP", "192.0.2.7", 4321))
        self.connection = app.buildProtocol(None)
        self.transport.protocol = self.connection
        self.connection.makeConnection(self.transport)

    def send(self, *pieces: bytes) -> Wire:
        """Deliver bytes to whatever protocol the transport has now."""
        for piece in pieces:
            self.transport.protocol.dataReceived(piece)
        return self

    def request(self, method: str, path: str, body: bytes = b"", **headers: Any) -> Answer:
        """Send one request and take its answer; ``_`` in header names becomes ``-``."""
        lines = [f"{method} {path} HTTP/1.1", "Host: h"]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        return self.answers(method)[0]

    def answers(self, *methods: str) -> list[Answer]:
        """Take all answers written so far; ``methods``: of the requests, default all GET."""
        data = self.transport.value()
        self.transport.clear()
        result: list[Answer] = []
        while data:
            answer, data = _parse(data, methods[len(result)] if len(result) < len(methods) else "")
            result.append(answer)
        return result

    def lose(self, reason: Exception | None = None) -> None:
        """The connection is gone."""
        self.transport.producer = None  # as sockets do
        self.transport.protocol.connectionLost(Failure(reason or ConnectionDone()))

    def reset(self) -> None:
        """The connection is gone the hard way."""
        self.lose(ConnectionLost())

    @property
    def open(self) -> bool:
        """Whether the application has done nothing to end the connection."""
        transport = self.transport
        return not (transport.disconnecting or transport.half_closed or transport.disconnected)


def observe(test: Any, observer: Any) -> None:
    """Give a test's observer all log events until the test ends."""
    globalLogPublisher.addObserver(observer)
    test.addCleanup(globalLogPublisher.removeObserver, observer)


def _parse(data: bytes, method: str) -> tuple[Answer, bytes]:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method or "GET", target="/", headers=[("Host", "h")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    head: Any = None
    body = b""
    while True:
        event = client.next_event()
        if event is h11.NEED_DATA:
            client.receive_data(b"")
        elif isinstance(event, h11.InformationalResponse | h11.Response):
            head = event
            if isinstance(event, h11.InformationalResponse):
                return _answer(head, b""), client.trailing_data[0]
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        else:
            assert isinstance(event, h11.EndOfMessage)
            return _answer(head, body), client.trailing_data[0]


def _answer(head: Any, body: bytes) -> Answer:
    headers = {name.decode(): value.decode("utf-8") for name, value in head.headers}
    assert len(headers) == len(head.headers), "a header is there twice"
    return Answer(head.status_code, head.reason.decode(), headers, body)


def advance(app: Any, seconds: float) -> None:
    """Let time pass, with a sweep of the connections every second."""
    clock: Clock = app.clock
    clock.pump([1.0] * int(seconds))
