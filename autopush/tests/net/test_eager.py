"""TCP that writes at once, and what another Twisted gets instead."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import Any
from unittest import mock

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from autopush.net import eager, newcomers

reactor: Any = _reactor

BIG = bytes(range(256)) * 16384
"""More than the kernel takes at once."""


class Greeter(Protocol):
    """Sends a word, much, and another word."""

    transport: Any

    def connectionMade(self) -> None:
        self.transport.write(b"hello")
        self.transport.write(BIG)
        self.transport.write(b"bye")
        self.transport.loseConnection()


class Reader(Protocol):
    def __init__(self) -> None:
        self.data = b""
        self.done: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Any = None) -> None:
        self.done.callback(self.data)


class EagerTest(TestCase):
    async def check(self) -> None:
        port = eager.listen_tcp(reactor, 0, Factory.forProtocol(Greeter), 50, "127.0.0.1")
        self.addCleanup(port.stopListening)
        await self.read(TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port))

    async def read(self, endpoint: Any) -> None:
        reader = Reader()
        await connectProtocol(endpoint, reader)
        assert await reader.done == b"hello" + BIG + b"bye"

    async def test_unix_socket(self):
        path = self.mktemp()[-90:].replace("/", "-")
        port = eager.listen_unix(reactor, path, Factory.forProtocol(Greeter), 50)
        await self.read(UNIXClientEndpoint(reactor, path))
        assert issubclass(port.transport, eager.EagerUnixServer)
        await port.stopListening()
        assert not os.path.exists(path)

    async def test_a_socket_that_others_have_too(self):
        given = socket.create_server(("127.0.0.1", 0))
        given.setblocking(False)
        address = given.getsockname()
        ports = [eager.adopt(reactor, given.dup(), Factory.forProtocol(Greeter)) for _ in range(2)]
        await self.still_served(ports, TCP4ClientEndpoint(reactor, *address))
        given.close()

    async def test_a_unix_socket_that_others_have_too(self):
        path = self.mktemp()[-90:].replace("/", "-")
        given = socket.socket(socket.AF_UNIX)
        given.bind(path)
        given.listen()
        given.setblocking(False)
        ports = [eager.adopt(reactor, given.dup(), Factory.forProtocol(Greeter)) for _ in range(2)]
        await self.still_served(ports, UNIXClientEndpoint(reactor, path))
        given.close()
        os.unlink(path)

    async def still_served(self, ports: Any, endpoint: Any) -> None:
        """One that stops leaves the socket to the other."""
        await self.read(endpoint)
        await ports[0].stopListening()
        await self.read(endpoint)
        await ports[1].stopListening()

    def test_all_arrives_in_order(self):
        assert eager.send_now is eager.write_through
        return Deferred.fromCoroutine(self.check())

    def test_all_arrives_in_order_with_another_twisted(self):
        self.patch(eager.twisted, "__version__", "27.1.1")
        assert eager.writer() is eager.write_later
        self.patch(eager, "send_now", eager.writer())
        return Deferred.fromCoroutine(self.check())

    def test_what_is_no_tcp_takes_nothing_now(self):
        transport = mock.Mock()
        for send in (eager.write_through, eager.write_later):
            assert send(transport, b"data") == b"data"
        assert transport.mock_calls == []


class Counter(Protocol):
    """Answers each byte, in the order of coming."""

    transport: Any

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


class Sender(Protocol):
    """Sends a byte, and another when it is answered, so that each is read for itself."""

    transport: Any
    WORDS = 2 * eager.FIRST_READS

    def __init__(self) -> None:
        self.sent = 0
        self.done: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.send()

    def send(self) -> None:
        self.sent += 1
        self.transport.write(b"x")

    def dataReceived(self, data: bytes) -> None:
        if self.sent == self.WORDS:
            self.done.callback(None)
        else:
            self.send()


class NewcomersTest(TestCase):
    """Everybody is served, however little a turn does for newcomers."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(newcomers, "A_TURN", 1)
        self.patch(newcomers, "PER_SECOND", 0)
        self.patch(eager, "newcomers", {reactor: newcomers.Newcomers(reactor)}.__getitem__)

    async def talk(self, listening: Any, endpoint: Any, known: type) -> None:
        accepted: list[Any] = []

        def build() -> Counter:
            accepted.append(Counter())
            return accepted[-1]

        port = listening(Factory.forProtocol(build))
        self.addCleanup(port.stopListening)
        senders = [Sender() for _ in range(20)]
        connected = [connectProtocol(endpoint(port), sender) for sender in senders]
        await gatherResults([*connected, *(sender.done for sender in senders)])
        assert len(accepted) == len(senders)
        for protocol in accepted:
            assert type(protocol.transport) is known
        for sender in senders:
            sender.transport.loseConnection()

    async def test_tcp(self):
        def listening(factory: Any) -> Any:
            return eager.listen_tcp(reactor, 0, factory, 50, "127.0.0.1")

        def endpoint(port: Any) -> Any:
            return TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)

        await self.talk(listening, endpoint, eager.EagerServer)

    async def test_unix_socket(self):
        path = self.mktemp()[-90:].replace("/", "-")
        await self.talk(
            lambda factory: eager.listen_unix(reactor, path, factory, 50),
            lambda port: UNIXClientEndpoint(reactor, path),
            eager.EagerUnixServer,
        )

    async def test_a_socket_that_others_have_too(self):
        given = socket.create_server(("127.0.0.1", 0), backlog=50)
        given.setblocking(False)
        await self.talk(
            lambda factory: eager.adopt(reactor, given, factory),
            lambda port: TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port),
            eager.EagerServer,
        )


MANY = """
import socket, sys
from twisted.internet import reactor
from twisted.internet.protocol import Protocol
from autopush.net import eager

pairs = [socket.socketpair() for _ in range(100)]
made = [
    eager.EagerServer(one, Protocol(), ("127.0.0.1", 1), None, number, reactor)
    for number, (one, _) in enumerate(pairs)
]
for connection in made:
    connection._count_reads(eager.FIRST_READS)
    connection.bufferSize = 4096
    connection.registerProducer(object(), True)
    connection.stopReading()
print(max(sys.getsizeof(vars(connection)) for connection in made))
"""


def test_connections_share_the_names_of_their_attributes():
    """In a process of its own, for what a class's first objects do counts: that many are accepted
    before one of them says anything makes none of them larger."""
    done = subprocess.run([sys.executable, "-c", MANY], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 400


async def turns(count: int) -> None:
    """Wait for so many turns of the event loop."""
    for _ in range(count):
        await deferLater(reactor, 0, lambda: None)


class PutOffTest(TestCase):
    """A connection that waits for its turn stays what its protocol wants it to be."""

    async def put_off(self) -> Any:
        made: Deferred[Protocol] = Deferred()

        class Made(Protocol):
            def connectionMade(self) -> None:
                made.callback(self)

        port = eager.listen_tcp(reactor, 0, Factory.forProtocol(Made), 50, "127.0.0.1")
        self.addCleanup(port.stopListening)
        client = socket.create_connection(("127.0.0.1", port.getHost().port))
        self.addCleanup(client.close)
        protocol: Any = await made
        await deferLater(reactor, 0, lambda: None)
        transport = protocol.transport
        new = newcomers.Newcomers(reactor)
        self.patch(eager, "newcomers", lambda _: new)
        new.take(newcomers.A_TURN)
        assert transport.doRead() is None
        assert transport not in reactor.getReaders()
        return transport

    async def test_it_is_read_from_in_a_later_turn(self):
        transport = await self.put_off()
        while transport not in reactor.getReaders():
            await deferLater(reactor, 0, lambda: None)
        transport.abortConnection()

    async def test_one_that_is_paused_meanwhile_stays_paused(self):
        transport = await self.put_off()
        transport.pauseProducing()
        await turns(5)
        assert transport not in reactor.getReaders()
        transport.resumeProducing()
        assert transport in reactor.getReaders()
        transport.abortConnection()

    async def test_one_that_is_resumed_meanwhile_does_not_get_ahead(self):
        transport = await self.put_off()
        transport.resumeProducing()
        assert transport not in reactor.getReaders()
        transport.abortConnection()

    async def test_one_that_has_ended_meanwhile_is_forgotten(self):
        transport = await self.put_off()
        transport.abortConnection()
        await turns(5)
        assert transport not in reactor.getReaders()
        assert "doRead" not in vars(transport)  # which keeps the connection


class Echo(Protocol):
    """Does what it is told, and notes how it ended."""

    transport: Any
    ends: list[Any]

    def dataReceived(self, data: bytes) -> None:
        for word in data.split():
            if word == b"big":
                self.transport.write(BIG)
            elif word == b"close":
                self.transport.loseConnection()
                self.transport.loseConnection()
            elif word == b"fin":
                self.transport.loseWriteConnection()
            elif word == b"abort":
                self.transport.abortConnection()
            elif word == b"fail":
                self.transport.loseConnection()
                raise ZeroDivisionError("on purpose")
            else:
                self.transport.write(word)

    def connectionLost(self, reason: Any = None) -> None:
        self.ends.append(reason.type)


class EndTest(TestCase):
    """What is written before the end arrives, and the protocol hears of the end once."""

    async def talk(self, words: bytes) -> tuple[bytes, list[Any]]:
        factory = Factory.forProtocol(Echo)
        ends: list[Any] = []
        Echo.ends = ends
        port = eager.listen_tcp(reactor, 0, factory, 50, "127.0.0.1")
        self.addCleanup(port.stopListening)
        reader = Reader()
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        (await connectProtocol(endpoint, reader)).transport.write(words)
        return await reader.done, ends

    async def check(self) -> None:
        for words, expected, end in (
            (b"hello close", b"hello", ConnectionDone),
            (b"close", b"", ConnectionDone),
            (b"close late", b"late", ConnectionDone),
            (b"hello close big", b"hello" + BIG, ConnectionDone),
            (b"big close more", BIG + b"more", ConnectionDone),
            (b"close abort", b"", ConnectionAborted),
            (b"hello fin close", b"hello", ConnectionDone),
            (b"fail", b"", ZeroDivisionError),
        ):
            data, ends = await self.talk(words)
            assert data == expected, words
            assert ends == [end], words
        assert len(self.flushLoggedErrors(ZeroDivisionError)) == 1

    def test_at_once(self):
        return Deferred.fromCoroutine(self.check())

    def test_with_another_twisted(self):
        self.patch(eager, "send_now", eager.write_later)
        return Deferred.fromCoroutine(self.check())
