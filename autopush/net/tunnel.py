"""Connections through an HTTP proxy: CONNECT, and TLS to the server inside (RFC 9110 9.3.6).

::

    → CONNECT api.example:443 HTTP/1.1    Host: api.example:443    [Proxy-Authorization: Basic ...]
    ← HTTP/1.1 200 Connection established
    ⇄ what the server is told and says

Of the proxy's answer only the status counts, and only it is ever told: a proxy may say anything.
"""

from __future__ import annotations

from typing import Any

import httptools
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from autopush.net.answer import Answer
from autopush.net.environment import Proxy

MAX_HEAD = 16 * 1024
"""Bytes of a proxy's answer. Common ones have less than 200."""

END = b"\r\n\r\n"


class ProxyError(Exception):
    """There is no way through the proxy. The text holds no secret."""


def way_to(reactor: Any, host: str, port: int, timeout: float, proxy: Proxy | None) -> Any:
    """Return the endpoint of a TCP connection to a server, through a proxy if there is one.

    :param timeout: seconds until there must be a connection
    """
    if proxy is None:
        return HostnameEndpoint(reactor, host, port, timeout=timeout)
    return TunnelEndpoint(reactor, proxy, host, port, timeout)


@implementer(IStreamClientEndpoint)
class TunnelEndpoint:
    """Connects to a server through a proxy.

    :param timeout: seconds until the tunnel must be open
    """

    def __init__(self, reactor: Any, proxy: Proxy, host: str, port: int, timeout: float) -> None:
        self._reactor = reactor
        self._proxy = proxy
        self._timeout = timeout
        server = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {server} HTTP/1.1", f"Host: {server}"]
        if proxy.authorization:
            lines.append(f"Proxy-Authorization: {proxy.authorization}")
        self._request = "\r\n".join(lines).encode("ascii") + END
        tcp: Any = HostnameEndpoint(reactor, proxy.host, proxy.port, timeout=timeout)
        self._endpoint: Any = tcp if proxy.tls is None else wrapClientTLS(proxy.tls, tcp)

    def connect(self, factory: Any) -> Deferred[Any]:
        """Open a tunnel; fires with the protocol of ``factory`` that speaks through it.

        :raises ProxyError: (as failure) there is none
        """
        name = self._proxy.name

        def unreachable(failure: Failure) -> Failure:
            text = f"{type(failure.value).__name__} {failure.getErrorMessage()}"
            return Failure(ProxyError(f"can't connect to the proxy {name}: {text[:200]}"))

        def too_late(_result: object, timeout: float) -> Failure:
            return Failure(ProxyError(f"the proxy {name} opened no way within {timeout:g} s"))

        tunnels = Factory.forProtocol(lambda: Tunnel(name, self._request, factory))
        tunnels.noisy = False
        opened: Deferred[Any] = self._endpoint.connect(tunnels)
        opened.addCallbacks(lambda tunnel: tunnel.opened, unreachable)
        return opened.addTimeout(self._timeout, self._reactor, too_late)


class Tunnel(Protocol):
    """Asks for a tunnel, and gets out of its way.

    :param name: the proxy's, for errors
    :param factory: makes the protocol that speaks to the server
    :ivar opened: fires with that protocol, or fails with :class:`ProxyError`. Cancelling it cuts
        the connection.
    """

    def __init__(self, name: str, request: bytes, factory: Any) -> None:
        self.opened: Deferred[Any] = Deferred(lambda _: self._transport.abortConnection())
        self._name = name
        self._request = request
        self._factory = factory
        self._received = b""
        self._inner: Any = None

    @property
    def _transport(self) -> Any:
        return self.transport

    def connectionMade(self) -> None:
        self._transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        """Read the proxy's answer; what comes later goes to the protocol inside."""
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        if self.opened.called:
            return
        self._received += data
        status = 100
        while 100 <= status < 200 and status != 101:  # another follows (RFC 9110 15.2)
            head, end, rest = self._received.partition(END)
            if len(head) > MAX_HEAD:
                self._fail("answered too much")
                return
            if not end:
                return
            status = _status(head + end)
            self._received = rest
        if 200 <= status < 300:
            self._open()
        else:
            self._fail(f"answered CONNECT with {status}" if status else "doesn't speak HTTP")

    def _open(self) -> None:
        rest, self._received = self._received, b""
        inner = self._factory.buildProtocol(self._transport.getPeer())
        if inner is None:
            self._fail("is not needed any more")
            return
        self._inner = inner
        inner.makeConnection(self._transport)
        self.opened.callback(inner)
        if rest:
            inner.dataReceived(rest)

    def _fail(self, text: str) -> None:
        self.opened.errback(ProxyError(f"the proxy {self._name} {text}"))
        self._transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the protocol inside, or that there won't be one."""
        if self._inner is not None:
            self._inner.connectionLost(reason)
        elif not self.opened.called:
            text = "closed the connection without an answer"
            self.opened.errback(ProxyError(f"the proxy {self._name} {text}"))


class _Head(Answer):
    """The head of an answer; to CONNECT, it has no body whatever it says (RFC 9110 9.3.6)."""

    found = 0

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self.found = self.status


def _status(head: bytes) -> int:
    """Return the status of an answer; 0: it is none."""
    answer = _Head()
    try:
        answer.feed(head)
    except httptools.HttpParserUpgrade:
        pass  # 101: the status is there
    except (httptools.HttpParserError, ValueError):
        return 0
    return answer.found
