"""Listener behind HAProxy's PROXY protocol, versions 1 and 2 (spec/configuration 8)."""

from __future__ import annotations

import struct
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.protocols.haproxy._wrapper import HAProxyProtocolWrapper, HAProxyWrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer


class ProxyHeaderProtocol(HAProxyProtocolWrapper):
    """Closes on every malformed header; Twisted's lets some errors of its parsers through."""

    def dataReceived(self, data: bytes) -> None:
        if self._proxyInfo is not None:
            wrapped: Any = self.wrappedProtocol
            wrapped.dataReceived(data)
            return
        try:
            super().dataReceived(data)
        except (ValueError, KeyError, struct.error):
            if self._proxyInfo is not None:  # raised by what follows the header
                raise
            self.loseConnection()


class ProxyHeaderFactory(HAProxyWrappingFactory):
    """Wraps a factory's protocols in :class:`ProxyHeaderProtocol`."""

    protocol = ProxyHeaderProtocol  # type: ignore[assignment]


@implementer(IStreamServerEndpoint)
class HAProxyServerEndpoint:
    """Server endpoint whose connections start with a PROXY header, before any TLS handshake.

    :param port: TCP port
    :param ssl_cf: context factory for TLS inside; None: plain
    :param kwargs: passed to ``listenTCP`` (``interface``, ``backlog``)
    """

    wrapper_factory = ProxyHeaderFactory

    def __init__(self, reactor: Any, port: int, ssl_cf: Any = None, **kwargs: Any) -> None:
        self.reactor = reactor
        self.port = port
        self.ssl_cf = ssl_cf
        self.kwargs = kwargs

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Bind the port.

        :returns: the port; fails with CannotListenError
        """
        return maybeDeferred(self.bind, factory)

    def bind(self, factory: IProtocolFactory) -> IListeningPort:
        """As :meth:`listen`, at once.

        :raises CannotListenError: the port is in use or not ours to use
        """
        inner: Any = factory
        if self.ssl_cf is not None:
            inner = TLSMemoryBIOFactory(self.ssl_cf, False, factory)
        port = self.reactor.listenTCP(self.port, self.wrapper_factory(inner), **self.kwargs)
        if self.ssl_cf is not None:
            port._type = "TLS"  # for the port's log lines, as listenSSL does
        return port
