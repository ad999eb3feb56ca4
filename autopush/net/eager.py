"""TCP connections that write at once.

Twisted's own transport keeps what is written until the next turn of the event loop, and asks the
kernel twice (``epoll_ctl``) for each answer whether the socket is writable, which it nearly always
is. Writing first and waiting only if the kernel takes no more saves a tenth of a notification's
cost, and means that the send buffer is only in use when the peer really doesn't read. In the same
way a connection that is to end, and has nothing left to write, ends without that question.

What is new is accepted and read from a little at a time (:mod:`autopush.net.newcomers`).
"""

from __future__ import annotations

import os
import socket
import types
from collections.abc import Callable
from enum import Enum, auto
from operator import attrgetter
from typing import Any

import twisted
from twisted.internet import tcp, unix
from twisted.internet.main import CONNECTION_DONE
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from autopush.libraries import known
from autopush.net.newcomers import newcomers

FIRST_READS = 3
"""Reads after which a connection is not new any more: handshake and hello, or TLS and handshake."""


def write_through(transport: Any, data: bytes) -> bytes:
    """Write what the kernel takes now.

    :param transport: any; only plain TCP can do that
    :returns: what is left, for the transport's ``write``
    """
    if (
        isinstance(transport, tcp.Connection)
        and data
        and transport.connected
        and not (
            transport.TLS
            or transport._writeDisconnected
            or transport._tempDataBuffer
            or transport.dataBuffer
        )
    ):
        sent = transport.writeSomeData(data)
        if sent.__class__ is int:
            return data[sent:]
        # Else the connection is lost: the reactor will see that when it tries.
    return data


def write_later(_transport: Any, data: bytes) -> bytes:
    """Leave all to the transport; as :func:`write_through`."""
    return data


def writer() -> Callable[[Any, bytes], bytes]:
    """Choose how to write: at once, or as a Twisted does whose insides we don't know."""
    return write_through if known("Twisted", twisted.__version__) else write_later


send_now = writer()


class _Turn(Enum):
    """When something new is read from."""

    NONE = auto()
    """As soon as there is something."""
    IS_WAITED_FOR = auto()
    """It is put off."""
    IS_NOT_WANTED = auto()
    """It is put off, and its protocol wants nothing meanwhile."""
    HAS_COME = auto()
    """It was put off, and may read once."""


def _keep_nothing(*_: Any) -> None:
    """What is assigned, or deleted, is the socket's own method."""


class _Eager(tcp.Connection):
    """An accepted connection that writes at once, and is new for its first reads.

    It is kept small: most connections do nothing most of the time.
    """

    fileno: Any = property(attrgetter("socket.fileno"), _keep_nothing, _keep_nothing)
    """Twisted keeps an object for each connection. This is asked in each turn, hence all in C."""
    doRead: Any

    def __init__(self, *args: Any) -> None:
        # Python keeps the names of attributes once for all objects of a class, but only of those
        # that its first few objects have: any other costs each connection 640 bytes.
        self._reads = 0  # up to FIRST_READS
        self._turn = _Turn.NONE
        self.doRead = self._read_as_new
        self.bufferSize = tcp.Connection.bufferSize
        self.producer = None
        self.streamingProducer = False
        super().__init__(*args)
        # Of these, which are for debugging, each has two of its own.
        self.logstr = self.repstr = type(self.protocol).__name__

    def write(self, data: bytes) -> None:
        """Write now what the kernel takes; the rest when it takes more."""
        rest = send_now(self, data)
        if rest:
            super().write(rest)

    def _read_as_new(self) -> Any:
        """Read, if the turn of the event loop has something left for newcomers."""
        if self._turn is not _Turn.HAS_COME and not newcomers(self.reactor).take():
            super().stopReading()
            self._turn = _Turn.IS_WAITED_FOR
            newcomers(self.reactor).put_off(self)
            return None
        self._turn = _Turn.NONE
        self._count_reads(1)
        return super().doRead()

    def _count_reads(self, count: int) -> None:
        was_new = self._reads < FIRST_READS
        self._reads += count
        if was_new and self._reads >= FIRST_READS:
            del self.doRead  # Twisted's own from now on

    def connectionLost(self, reason: Any) -> None:
        self._count_reads(FIRST_READS)  # or the connection and its method would keep each other
        super().connectionLost(reason)

    def admit(self) -> None:
        """Read in this turn."""
        wanted = self._turn is _Turn.IS_WAITED_FOR
        self._turn = _Turn.HAS_COME if wanted else _Turn.NONE
        if wanted:
            super().startReading()

    def startReading(self) -> None:
        if self._turn is _Turn.IS_NOT_WANTED:
            self._turn = _Turn.IS_WAITED_FOR
        elif self._turn is not _Turn.IS_WAITED_FOR:
            super().startReading()

    def stopReading(self) -> None:
        if self._turn is _Turn.IS_WAITED_FOR:
            self._turn = _Turn.IS_NOT_WANTED
        elif self._turn is not _Turn.IS_NOT_WANTED:
            super().stopReading()


class EagerServer(_Eager, tcp.Server):
    """An accepted connection; see the module."""

    _shouldShutdown = not known("Twisted", twisted.__version__)
    """To close a socket that no other process has is enough, says Twisted itself."""

    def loseConnection(self) -> None:
        """End when all is written: in the next turn of the event loop, if that is so."""
        if self.connected and not self.disconnecting and self._has_nothing_to_write():
            self.stopReading()
            self.disconnecting = True
            self.reactor.callLater(0, self._end)
        else:
            super().loseConnection()

    def _end(self) -> None:
        # What was written meanwhile is written first: then it ends by itself.
        if self.connected and not self._aborting and self._has_nothing_to_write():
            self.connectionLost(Failure(CONNECTION_DONE))

    def _has_nothing_to_write(self) -> bool:
        return send_now is write_through and not (
            self.TLS
            or self.producer
            or self._writeDisconnecting
            or self._writeDisconnected
            or self._tempDataBuffer
            or self.dataBuffer
        )


class EagerUnixServer(_Eager, unix.Server):
    """As :class:`EagerServer`, on a Unix socket."""


def _accept(port: Any) -> None:
    """Accept, if the turn of the event loop has something left for newcomers; if not, the port is
    readable in the next one, too."""
    port.numberAccepts = newcomers(port.reactor).accepts()
    if port.numberAccepts:
        tcp.Port.doRead(port)


class EagerPort(tcp.Port):
    """A listening TCP port whose connections are :class:`EagerServer`."""

    transport: Any = EagerServer

    def doRead(self) -> None:
        _accept(self)


class EagerUnixPort(unix.Port):
    """A listening Unix socket whose connections are :class:`EagerUnixServer`."""

    transport: Any = EagerUnixServer

    def doRead(self) -> None:
        _accept(self)


def listen_tcp(
    reactor: Any, port: int, factory: Any, backlog: int, interface: str, ssl_cf: Any = None
) -> Any:
    """Listen, with TLS if there is a context factory.

    :raises CannotListenError: in use or not ours to use
    """
    if ssl_cf is not None:
        factory = TLSMemoryBIOFactory(ssl_cf, False, factory)
    listening = EagerPort(port, factory, backlog, interface, reactor)
    listening.startListening()
    return listening


def listen_unix(reactor: Any, path: str, factory: Any, backlog: int) -> Any:
    """Listen on a Unix socket, one that was left by a crash removed.

    Who may connect is for the directory's permissions to say.

    :raises CannotListenError: in use or not ours to use
    """
    # The lock file beside the socket tells one left by a crash from one in use.
    listening = EagerUnixPort(os.fsencode(path), factory, backlog, 0o666, reactor, wantPID=1)
    listening.startListening()
    return listening


def adopt(reactor: Any, listening: socket.socket, factory: Any, ssl_cf: Any = None) -> Any:
    """Listen on a socket that listens already, and which others have, too.

    :param listening: is closed
    :param ssl_cf: context factory for TLS; None: plain
    """
    if ssl_cf is not None:
        factory = TLSMemoryBIOFactory(ssl_cf, False, factory)
    family = listening.family
    port: Any = reactor.adoptStreamPort(listening.fileno(), family, factory)
    listening.close()  # the port has a descriptor of its own
    if family == socket.AF_UNIX:
        port.transport = EagerUnixServer
        port.connectionLost = types.MethodType(_leave_to_others, port)
    else:
        port.transport = EagerServer
    port.doRead = types.MethodType(_accept, port)
    return port


def _leave_to_others(port: Any, reason: Any) -> None:
    """Let go of a Unix socket. The port would end it for all, and remove its file."""
    port.socket.close()
    port.socket = socket.socket(socket.AF_UNIX)
    tcp.Port.connectionLost(port, reason)
