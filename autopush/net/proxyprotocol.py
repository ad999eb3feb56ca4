"""Listener behind HAProxy's PROXY protocol, versions 1 and 2 (spec/configuration 8)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, ClassVar, cast

import twisted
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.protocols.haproxy import proxyEndpoint
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from autopush.libraries import known


@implementer(IStreamServerEndpoint)
class _Taken:
    """Stands for an endpoint; returns the factory that was to listen."""

    def listen(self, factory: IProtocolFactory) -> Any:
        return succeed(factory)


def plain_wrapper(factory: IProtocolFactory) -> IProtocolFactory:
    """Wrap a factory's protocols in Twisted's own, which lets some errors of its parsers through:
    they are logged, and end the connection."""
    taken: list[IProtocolFactory] = []
    nowhere: Any = _Taken()
    proxyEndpoint(nowhere).listen(factory).addCallback(taken.append)
    return taken[0]


def careful_wrapper() -> Callable[[IProtocolFactory], IProtocolFactory]:
    """Return what wraps a factory's protocols in ones that close on every malformed header."""
    from twisted.protocols.haproxy import _wrapper

    @implementer(IHalfCloseableProtocol)
    class ProxyHeaderProtocol(_wrapper.HAProxyProtocolWrapper):
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

        def readConnectionLost(self) -> None:
            # As the socket does it for a protocol that isn't wrapped. TLS seems to provide what
            # is below it, but has no half-close.
            wrapped: Any = self.wrappedProtocol
            transport: Any = self.transport
            tls = isinstance(wrapped, ProtocolWrapper)
            if tls or self._proxyInfo is None or not IHalfCloseableProtocol.providedBy(wrapped):
                transport.connectionLost(Failure(ConnectionDone()))
            else:
                wrapped.readConnectionLost()

        def writeConnectionLost(self) -> None:
            """Our side is ended, as whoever is wrapped wants it."""

    class ProxyHeaderFactory(_wrapper.HAProxyWrappingFactory):
        protocol = ProxyHeaderProtocol  # type: ignore[assignment]

    factory: Any = ProxyHeaderFactory
    return cast(Callable[[IProtocolFactory], IProtocolFactory], factory)


def wrapper() -> Callable[[IProtocolFactory], IProtocolFactory]:
    """Choose the careful way, or Twisted's own where we don't know its insides."""
    return careful_wrapper() if known("Twisted", twisted.__version__) else plain_wrapper


@implementer(IStreamServerEndpoint)
class HAProxyServerEndpoint:
    """Server endpoint whose connections start with a PROXY header, before any TLS handshake.

    :param port: TCP port
    :param ssl_cf: context factory for TLS inside; None: plain
    :param kwargs: passed to ``listenTCP`` (``interface``, ``backlog``)
    """

    wrapper_factory: ClassVar[Any] = staticmethod(wrapper())

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

    def bind(
        self,
        factory: IProtocolFactory,
        listen: Callable[[IProtocolFactory], IListeningPort] | None = None,
    ) -> IListeningPort:
        """As :meth:`listen`, at once.

        :param listen: listens where it is to be, in place of the port
        :raises CannotListenError: the port is in use or not ours to use
        """
        inner: Any = factory
        if self.ssl_cf is not None:
            inner = TLSMemoryBIOFactory(self.ssl_cf, False, factory)
        wrapped = self.wrapper_factory(inner)
        port: Any = (
            self.reactor.listenTCP(self.port, wrapped, **self.kwargs)
            if listen is None
            else listen(wrapped)
        )
        if self.ssl_cf is not None and known("Twisted", twisted.__version__):
            port._type = "TLS"  # for the port's log lines, as listenSSL does
        listening: IListeningPort = port
        return listening
