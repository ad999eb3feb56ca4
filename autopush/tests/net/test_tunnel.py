"""CONNECT (RFC 9110 9.3.6), in memory; time is a Clock."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from autopush.net.environment import Proxy
from autopush.net.tunnel import MAX_HEAD, ProxyError, TunnelEndpoint, way_to

PROXY = Proxy("http", "127.0.0.1", 3128)
OPENED = b"HTTP/1.1 200 Connection established\r\n\r\n"
TIMEOUT = 3.0


class Inside(Protocol):
    """What speaks to the server."""

    def __init__(self):
        self.received = b""
        self.lost = None

    def connectionMade(self):
        self.transport.write(b"hello")

    def dataReceived(self, data):
        self.received += data

    def connectionLost(self, reason):
        self.lost = reason.type


class Attempt:
    """One connection through the proxy."""

    def __init__(self, proxy=PROXY, host="server.example", port=443, factory=None):
        self.reactor = MemoryReactorClock()
        endpoint = TunnelEndpoint(self.reactor, proxy, host, port, TIMEOUT)
        self.results = []
        self.done = endpoint.connect(factory or Factory.forProtocol(Inside))
        self.done.addBoth(self.results.append)

    def connected(self):
        host, port, factory, *_ = self.reactor.tcpClients.pop()
        assert (host, port) == (PROXY.host, PROXY.port)
        self.transport = StringTransport()
        self.protocol = factory.buildProtocol(None)
        self.protocol.makeConnection(self.transport)
        return self

    def says(self, data):
        self.protocol.dataReceived(data)
        return self

    @property
    def inside(self):
        (found,) = self.results
        assert isinstance(found, Inside), found
        return found

    @property
    def error(self):
        (failure,) = self.results
        assert failure.check(ProxyError), failure
        return str(failure.value)

    @property
    def aborted(self):
        return self.transport.disconnecting or self.transport.disconnected


def test_a_tunnel_is_opened():
    attempt = Attempt().connected()
    assert attempt.transport.value() == (
        b"CONNECT server.example:443 HTTP/1.1\r\nHost: server.example:443\r\n\r\n"
    )
    attempt.transport.clear()
    attempt.says(OPENED)
    assert attempt.transport.value() == b"hello"
    attempt.says(b"welcome")
    assert attempt.inside.received == b"welcome"
    attempt.protocol.connectionLost(Failure(ConnectionLost()))
    assert attempt.inside.lost is ConnectionLost
    assert not attempt.reactor.getDelayedCalls()


def test_names_of_servers():
    attempt = Attempt(host="::1", port=8443).connected()
    assert attempt.transport.value().startswith(b"CONNECT [::1]:8443 HTTP/1.1\r\n")


def test_credentials_are_shown():
    proxy = Proxy("http", PROXY.host, PROXY.port, "Basic dTpw")
    attempt = Attempt(proxy).connected()
    assert b"\r\nProxy-Authorization: Basic dTpw\r\n" in attempt.transport.value()
    attempt.says(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
    assert attempt.error == "the proxy http://127.0.0.1:3128 answered CONNECT with 407"


@pytest.mark.parametrize(
    "answer",
    [
        OPENED,
        b"HTTP/1.0 200 Connection established\r\nProxy-agent: some/1.0\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        # A body there is none of, whatever is said of it.
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + OPENED,
    ],
)
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_answers_that_open_it(answer, step):
    attempt = Attempt().connected()
    stream = answer + b"welcome"
    for start in range(0, len(stream), step):
        attempt.says(stream[start : start + step])
    assert attempt.inside.received == b"welcome"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 407 secret\r\nContent-Length: 6\r\n\r\nsecret", "answered CONNECT with 407"),
        (b"HTTP/1.1 302 Found\r\nLocation: https://a\r\n\r\n", "answered CONNECT with 302"),
        (b"HTTP/1.1 503 secret\r\n\r\n", "answered CONNECT with 503"),
        (b"HTTP/1.1 999 secret\r\n\r\n", "answered CONNECT with 999"),
        (
            b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: secret\r\n\r\n",
            "answered CONNECT with 101",
        ),
        (b"secret\r\n\r\n", "doesn't speak HTTP"),
        (b"\r\n\r\n", "doesn't speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nsecret\r\n\r\n", "doesn't speak HTTP"),
        (b"HTTP/1.1 20000 OK\r\n\r\n", "doesn't speak HTTP"),
        (b"SSH-2.0-secret\r\n\r\n", "doesn't speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * MAX_HEAD, "answered too much"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * MAX_HEAD + b"\r\n\r\n", "answered too much"),
    ],
)
def test_answers_that_do_not(answer, reason):
    attempt = Attempt().connected().says(answer)
    assert attempt.error == f"the proxy http://127.0.0.1:3128 {reason}"
    assert attempt.aborted
    attempt.says(b"more")
    attempt.protocol.connectionLost(Failure(ConnectionDone()))
    assert not attempt.reactor.getDelayedCalls()


def test_a_proxy_that_leaves():
    attempt = Attempt().connected().says(b"HTTP/1.1 200")
    attempt.protocol.connectionLost(Failure(ConnectionDone()))
    assert attempt.error.endswith(":3128 closed the connection without an answer")


def test_a_proxy_that_says_nothing():
    attempt = Attempt().connected()
    attempt.reactor.advance(TIMEOUT)
    assert attempt.error.endswith(":3128 opened no way within 3 s")
    assert attempt.aborted


def test_a_proxy_that_never_stops_to_announce():
    attempt = Attempt().connected()
    for _ in range(1000):
        attempt.says(b"HTTP/1.1 102 Processing\r\n\r\n")
    assert attempt.results == []
    attempt.reactor.advance(TIMEOUT)
    assert attempt.error.endswith("opened no way within 3 s")


def test_nobody_listens():
    attempt = Attempt()
    _, _, factory, *_ = attempt.reactor.tcpClients.pop()
    factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))
    attempt.reactor.advance(0)
    attempt.reactor.advance(TIMEOUT)
    assert attempt.error.startswith("can't connect to the proxy http://127.0.0.1:3128: ")


def test_giving_up_cuts_the_connection():
    attempt = Attempt().connected()
    attempt.done.cancel()
    assert attempt.results[0].check(CancelledError)
    assert attempt.aborted
    attempt.says(OPENED)
    attempt.protocol.connectionLost(Failure(ConnectionDone()))
    assert len(attempt.results) == 1 and not attempt.reactor.getDelayedCalls()


def test_nobody_is_inside_any_more():
    class Nobody(Factory):
        def buildProtocol(self, addr):
            return None

    attempt = Attempt(factory=Nobody()).connected().says(OPENED)
    assert attempt.error.endswith("is not needed any more")
    assert attempt.aborted


@given(st.binary(max_size=200))
def test_whatever_comes_is_an_answer_or_none(data):
    attempt = Attempt().connected().says(data)
    attempt.reactor.advance(TIMEOUT)
    (result,) = attempt.results
    assert isinstance(result, Inside) or result.check(ProxyError)


def test_without_a_proxy_there_is_no_tunnel():
    assert not isinstance(way_to(MemoryReactorClock(), "a", 1, 1, None), TunnelEndpoint)
    assert isinstance(way_to(MemoryReactorClock(), "a", 1, 1, PROXY), TunnelEndpoint)
