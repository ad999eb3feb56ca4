"""The PROXY protocol, read by our protocol and by the one another Twisted gets."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport

from autopush.net import proxyprotocol
from autopush.net.proxyprotocol import HAProxyServerEndpoint, plain_wrapper, wrapper

V1 = b"PROXY TCP4 192.0.2.7 192.0.2.8 1234 80\r\n"
BAD_PORT = b"PROXY TCP4 192.0.2.7 192.0.2.8 many 80\r\n"


class Inner(Protocol):
    def __init__(self):
        self.data = b""

    def dataReceived(self, data):
        self.data += data


class Closing(StringTransport):
    def abortConnection(self):
        self.loseConnection()


def connect(wrap) -> Any:
    inner = Inner()
    protocol = wrap(Factory.forProtocol(lambda: inner)).buildProtocol(None)
    protocol.makeConnection(Closing())
    return protocol, inner


@pytest.fixture(params=["known", "another"])
def wrap(request, monkeypatch):
    if request.param == "another":
        monkeypatch.setattr(proxyprotocol.twisted, "__version__", "27.1.1")
    chosen = wrapper()
    assert (chosen is plain_wrapper) == (request.param == "another")
    return chosen


def test_what_follows_the_header_comes_through(wrap):
    protocol, inner = connect(wrap)
    protocol.dataReceived(V1 + b"hel")
    protocol.dataReceived(b"lo")
    assert inner.data == b"hello"
    assert inner.transport.getPeer() == IPv4Address("TCP", "192.0.2.7", 1234)


def test_what_is_no_header_closes(wrap):
    protocol, inner = connect(wrap)
    protocol.dataReceived(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert protocol.transport.disconnecting
    assert inner.data == b""


def test_a_malformed_header_closes():
    protocol, inner = connect(HAProxyServerEndpoint.wrapper_factory)
    protocol.dataReceived(BAD_PORT)
    assert protocol.transport.disconnecting
    assert inner.data == b""


def test_another_twisted_may_raise_which_closes_too():
    protocol, inner = connect(plain_wrapper)
    with pytest.raises(ValueError, match="many"):
        protocol.dataReceived(BAD_PORT)
    assert inner.data == b""


def test_errors_of_what_is_inside_are_not_the_headers():
    protocol, inner = connect(HAProxyServerEndpoint.wrapper_factory)

    def refuse(data):
        raise ValueError(data)

    inner.dataReceived = refuse
    with pytest.raises(ValueError, match="hello"):
        protocol.dataReceived(V1 + b"hello")
