"""The HTTP side of a socket: requests in, answers out, in order, within limits.

```
   bytes ──► RequestParser ──► factory(request) ──► handler ──► send / finished ──► bytes
                 │ take_over(head)
                 └──────────► upgrade_factory.buildProtocol()   the socket's new owner
```

One request is answered at a time; what a client sends ahead waits in the parser's buffer, and
reading stops when that is full. There are no timers per connection: one sweep a second looks at
the deadlines of all.
"""

from __future__ import annotations

import enum
from email.utils import formatdate
from http import client as http_client
from typing import TYPE_CHECKING, Any

from twisted.internet import interfaces
from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Protocol
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper
from zope.interface import implementer

from autopush import clock
from autopush.httpserver.parser import BODY_LIMIT, BadRequest, RequestParser
from autopush.httpserver.request import Request
from autopush.httpserver.upgrade import PlainHead, plain_head
from autopush.logging.floods import Floods
from autopush.waiters import Waiters

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure

HEAD_TIMEOUT = 20
"""Seconds in which a whole head must arrive, however it drips (408). Apache's RequestReadTimeout
starts with 20, too."""

BODY_TIMEOUT = 30
"""Seconds for a whole body (408). The longest body allowed needs 2 KB/s."""

IDLE_TIMEOUT = 75
"""Seconds a connection may wait for its next request. More than the 60 s after which load
balancers let go, so that they, not we, end the connection."""

WRITE_TIMEOUT = 60
"""Seconds a client may leave our answers unread before the connection is cut."""

LINGER_TIMEOUT = 10
"""Seconds a refused client may go on sending before the connection is cut."""

LINGER_BYTES = 16 * 1024 * 1024
"""Bytes a refused client may go on sending. Closing a socket with unread input resets it, and the
reset may overtake the answer (RFC 9112 9.6)."""

PIPELINE_BYTES = 32 * 1024
"""Bytes read ahead while a request is answered; then reading stops."""

MAX_CONNECTIONS = 20_000
"""HTTP connections at a time of one factory: about 100 MB when all send. Those handed over to
WebSocket are not counted."""

RETRY_AFTER = 10
"""Seconds in ``Retry-After`` where nobody knows better: a lock is gone by then, a start is over,
and whoever sends a lot isn't there again in the same moment."""

RETRY_LATER = frozenset({429, 503})
"""Answers that always say when to come back (RFC 9110 10.2.3): senders who aren't told hammer."""

REASONS: dict[int, str] = {
    **http_client.responses,
    413: "Request Entity Too Large",
    414: "Request-URI Too Long",
    416: "Requested Range Not Satisfiable",
    422: "Unprocessable Entity",
}
"""Reason phrases, the same on every Python version (3.13 renamed some)."""

SERVER = "cyclone/1.2"
"""Value of the Server header, as ever (spec/http-endpoint 1.1)."""

HANDSHAKE = b"GET "
"""What each opening handshake begins with; the header that makes it one may come last."""

_CONTINUE = b"HTTP/1.1 100 (Continue)\r\n\r\n"
"""Its phrase is as ever (spec/http-endpoint 1.1)."""
_NEVER = float("inf")


class _State(enum.Enum):
    IDLE = enum.auto()  # no byte of the next request is here
    READING = enum.auto()  # a request is arriving
    BUSY = enum.auto()  # a handler is at work
    LINGERING = enum.auto()  # refused: input is discarded until the client ends
    CLOSING = enum.auto()  # output is flushed, then the socket closes
    ENDED = enum.auto()  # closed, or handed over


_Idle, _Reading, _Busy = _State.IDLE, _State.READING, _State.BUSY
_Lingering, _Closing, _Ended = _State.LINGERING, _State.CLOSING, _State.ENDED


@implementer(interfaces.IPushProducer, interfaces.IHalfCloseableProtocol)
class HTTPConnection(Protocol):
    """One accepted connection.

    A client may end its side as soon as it has asked: it gets the answers it waits for.

    Its factory is an :class:`HTTPServer`: it is called with each :class:`Request` and answers it
    (now or later) with ``request.write`` and ``request.finish``.
    """

    factory: Any  # an HTTPServer
    transport: Any
    log = Logger()
    xheaders = False
    no_keep_alive = False  # set by a handler: close after this answer
    _input_ended = False

    def connectionMade(self) -> None:
        self._state = _Idle
        self._request: Request | None = None
        self._handler: Any = None
        self._polling = self._output_full = self._reading_paused = False
        self._remote_ip: str | None = None
        self._discarded = 0
        factory = self.factory
        self.deadline = factory.now + IDLE_TIMEOUT
        self._parser: Any = RequestParser(factory.body_limit, factory.take_over)
        factory.connections.add(self)
        transport = self.transport
        try:
            transport.setTcpNoDelay(True)
        except (AttributeError, OSError):
            pass  # not TCP
        transport.registerProducer(self, True)
        if len(factory.connections) > factory.max_http_connections:
            factory.turned_away += 1
            self._refuse(503, "too many connections")

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        self.factory.forget(self)
        self._state = _Ended
        parser, self._parser = self._parser, None
        if parser is not None:
            parser.close()
        request, self._request = self._request, None
        handler, self._handler = self._handler, None
        if request is not None and handler is not None:
            handler.connection_lost(reason)

    def readConnectionLost(self) -> None:
        """The client sends no more, but may still read: what it has asked is answered."""
        self._input_ended = True
        if not self._polling:
            self._close_if_answered()

    def writeConnectionLost(self) -> None:
        """Our side is ended, as :meth:`_linger` wants it."""

    def _close_if_answered(self) -> None:
        """Close where the input has ended, unless an answer is still to be made or to be read."""
        if self._state is _Lingering or (
            self._state in (_Idle, _Reading) and not self._output_full
        ):
            self._close()

    # ---- what handlers see

    @property
    def remote_ip(self) -> str:
        """Address of the peer; the one of the PROXY header where there is one."""
        if self._remote_ip is None:
            peer = self.transport.getPeer()
            host = getattr(peer, "host", None)
            self._remote_ip = host or f"unix:{getattr(peer, 'name', None) or ''}"
        return self._remote_ip

    @property
    def scheme(self) -> str:
        """``https`` if the connection is encrypted, else ``http``."""
        return "https" if interfaces.ISSLTransport.providedBy(self.transport) else "http"

    def send(self, request: Request, data: bytes) -> None:
        """Write a part of the answer; dropped unless ``request`` is the one being answered."""
        if request is self._request:
            self.transport.write(data)

    def finished(self, request: Request) -> None:
        """The answer to ``request`` is complete: go on with the next one."""
        if request is not self._request:
            return  # the client went away
        self._request = self._handler = None
        if not request.keep_alive or self.no_keep_alive or self.factory.draining:
            self._end()
            return
        self._state = _Idle
        self.deadline = self.factory.now + IDLE_TIMEOUT
        if not self._polling and (
            self._reading_paused or self._input_ended or self._parser.buffered
        ):
            self._poll()

    # ---- input

    def dataReceived(self, data: bytes) -> None:
        state = self._state
        if state is _Idle:
            self._state = _Reading
            self.deadline = self.factory.now + HEAD_TIMEOUT
        elif state is not _Reading:
            if state is _Busy:
                self._read_ahead(data)
            elif state is _Lingering:
                self._discarded += len(data)
                if self._discarded > LINGER_BYTES:
                    self._close()
            return
        # A message is spared the look at what no handshake begins with.
        if state is _Idle and data[:4] == HANDSHAKE and self._hands_over_at_once(data):
            return
        self._parser.feed(data)
        if self._output_full:
            self._pause_reading()
        else:
            self._poll()

    def _hands_over_at_once(self, data: bytes) -> bool:
        """Hand over a plain handshake without parsing it twice; whether it was one."""
        factory = self.factory
        if factory.upgrade_factory is None or self._parser.buffered or self._output_full:
            return False
        head = plain_head(data)
        if head is None or not factory.wants_upgrade("GET", head.path, head.headers):
            return False
        self._hand_over(data, head)
        return True

    def _read_ahead(self, data: bytes) -> None:
        parser = self._parser
        parser.feed(data)
        if parser.buffered > PIPELINE_BYTES:
            self._pause_reading()

    def _poll(self) -> None:
        """Answer the requests that are here, until one has to wait for its answer."""
        self._polling = True
        try:
            while not self._output_full and (request := self._next()) is not None:
                try:
                    handler = self.factory(request)
                except Exception:
                    self.log.failure("Unhandled error in the dispatch of a request")
                    self._request = None
                    self._refuse(500, "")
                    break
                if self._request is request:
                    self._handler = handler
                if self._state is not _Idle:
                    break
        except BadRequest as error:
            self._refuse(error.status, str(error))
        finally:
            self._polling = False
        if self._input_ended:
            self._close_if_answered()

    def _next(self) -> Request | None:
        """The request that is to be answered now; None: some of it is still to come.

        :raises BadRequest: it is none
        """
        parser = self._parser
        if self._state is _Idle and parser.buffered:
            self._state = _Reading
            self.deadline = self.factory.now + HEAD_TIMEOUT
        was_in_body = parser.in_body
        request: Request | None = parser.poll()
        if request is None:
            self._await_more(parser, was_in_body)
            return None
        self._state = _Busy
        self.deadline = _NEVER
        self.no_keep_alive = False
        request.connection = self
        self._request = request
        return request

    def _await_more(self, parser: RequestParser, was_in_body: bool) -> None:
        if parser.taken:
            self._hand_over(parser.unread())
            return
        if parser.in_body and not was_in_body:
            self.deadline = self.factory.now + BODY_TIMEOUT
        if parser.wants_continue:
            self.transport.write(_CONTINUE)
        self._resume_reading()

    # ---- back-pressure

    def _pause_reading(self) -> None:
        if not self._reading_paused:
            self._reading_paused = True
            self.transport.pauseProducing()

    def _resume_reading(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            if not self._input_ended:
                self.transport.resumeProducing()

    def pauseProducing(self) -> None:
        """The client does not read its answers: answer nothing more until it does."""
        self._output_full = True
        self.deadline = self.factory.now + WRITE_TIMEOUT

    def resumeProducing(self) -> None:
        """The output buffer is empty again."""
        self._output_full = False
        if self._state is _Busy:
            self.deadline = _NEVER
        elif self._state in (_Idle, _Reading):
            self.deadline = self.factory.now + HEAD_TIMEOUT
            if not self._polling:
                self._poll()

    def stopProducing(self) -> None:
        """The transport is closing; :meth:`connectionLost` follows."""

    # ---- the ends

    def _refuse(self, status: int, reason: str) -> None:
        """Answer an unusable request, then see to it that the answer gets through."""
        take = self.factory.floods.take
        if status in (413, 431):
            what = "much data" if status == 413 else "many headers"
            if take(f"Too {what} sent"):
                self.log.warn("Too {what} sent, terminating connection", what=what)
        elif status not in (408, 500, 503) and take("Malformed HTTP request"):
            self.log.info(
                "Malformed HTTP request from {remote_ip}: {reason}",
                remote_ip=self.remote_ip,
                reason=reason,
            )
        headers, body = self.factory.refusal(status, reason)
        if status in RETRY_LATER:
            headers["Retry-After"] = str(RETRY_AFTER)
        more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = (
            f"HTTP/1.1 {status} {REASONS[status]}\r\nServer: {SERVER}\r\nDate: {http_date()}\r\n"
            f"{more}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        self._linger()

    def _end(self) -> None:
        """The last answer is written."""
        parser = self._parser
        if parser is not None and parser.buffered:
            self._linger()  # more was sent than we answer
        else:
            self._close()

    def _linger(self) -> None:
        """End our side; discard input until the client has seen it and ends its own."""
        self._state = _Lingering
        self.deadline = self.factory.now + LINGER_TIMEOUT
        self._stop_parsing()
        transport = self.transport
        if not isinstance(transport, ProtocolWrapper) and hasattr(transport, "loseWriteConnection"):
            # TLS has no half-close: there, the client goes by Connection: close.
            transport.loseWriteConnection()

    def _close(self) -> None:
        """Flush, then close; :meth:`expire` cuts a client that doesn't read."""
        self._state = _Closing
        self.deadline = self.factory.now + WRITE_TIMEOUT
        self._stop_parsing()
        self.transport.loseConnection()

    def _stop_parsing(self) -> None:
        parser, self._parser = self._parser, None
        if parser is not None:
            parser.close()
            self.transport.unregisterProducer()
            self._resume_reading()

    def _hand_over(self, received: bytes, head: PlainHead | None = None) -> None:
        """Give the socket and everything received to a protocol of the upgrade factory.

        :param head: the request, if it was read the shorter way
        """
        transport = self.transport
        self.factory.forget(self)
        self._state = _Ended
        self._stop_parsing()
        protocol = None
        if not self._input_ended:  # else nobody is left to talk to
            protocol = self.factory.upgrade_factory.buildProtocol(transport.getPeer())
        if protocol is None:
            transport.abortConnection()
            return
        self._remote_ip = self.remote_ip  # for handlers that have answered and are still at work
        self.transport = None
        if isinstance(transport, ProtocolWrapper):
            transport.wrappedProtocol = protocol
        else:
            transport.protocol = protocol
        spent = int(self.factory.now - (self.deadline - HEAD_TIMEOUT))
        if spent:
            protocol.spent = spent
        protocol.makeConnection(transport)
        opens_at_once = getattr(protocol, "opens_at_once", None)
        if head is None or opens_at_once is None or not opens_at_once(received, head):
            protocol.dataReceived(received)

    @property
    def may_be_handshake(self) -> bool:
        """Whether a head is arriving that may become one, as far as it is here."""
        if self._state is not _Reading or self._output_full or self._parser.in_body:
            return False
        return bool(HANDSHAKE.startswith(self._parser.unread()[: len(HANDSHAKE)]))

    def expire(self) -> None:
        """The deadline is over."""
        state = self._state
        if self._output_full or state in (_Closing, _Busy):
            self.transport.abortConnection()
        elif state is _Reading and not self._quiet:
            self._refuse(408, "request not complete in time")
        else:
            self._close()

    def drain(self) -> None:
        """Take no further request: close if idle, else after the answer."""
        if self._state is _Idle or self._quiet:
            self._close()

    @property
    def _quiet(self) -> bool:
        """Whether nothing but empty lines came since the last answer."""
        parser = self._parser
        return self._state is _Reading and not (parser and (parser.buffered or parser.in_body))


class HTTPServer:
    """What an application needs to be the factory of :class:`HTTPConnection`; a mixin.

    :ivar body_limit: bytes a request body may have
    :ivar max_http_connections: connections at a time; more are answered 503
    :ivar upgrade_factory: the factory whose protocols get the connections that
        :meth:`wants_upgrade` picks; None: there is nothing to upgrade to. They may have an
        ``opens_at_once``, which is given the head of a plain request, too, and returns whether that
        was enough. Its ``head_within`` is
        the seconds (0: no other than ``HEAD_TIMEOUT``) in which the head of what may be such a
        request must be here; how many of them it took, its protocols find in their ``spent``.
    :ivar now: seconds, monotonic, as of the last sweep
    """

    protocol: Any = HTTPConnection
    noisy = False
    log = Logger()
    body_limit = BODY_LIMIT
    max_http_connections = MAX_CONNECTIONS

    def __init__(self, clock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.clock = clock
        self.now = clock.seconds()
        self.connections: set[HTTPConnection] = set()
        self.upgrade_factory: Any = None
        self.draining = False
        self.turned_away = 0
        self.floods: Floods[str] = Floods(clock)
        self._drained: Waiters[None] = Waiters()
        self._sweeper: LoopingCall | None = None
        self._listening = False

    if TYPE_CHECKING:

        def __call__(self, request: Request) -> Any:
            """Answer a request; returns its handler."""

    @property
    def take_over(self) -> Callable[[Request], bool] | None:
        """For the parser: which heads end HTTP on their connection."""
        return None if self.upgrade_factory is None else self._wants_upgrade

    def _wants_upgrade(self, request: Request) -> bool:
        return self.wants_upgrade(request.method, request.path, request.headers)

    def wants_upgrade(self, method: str, path: str, headers: Any) -> bool:
        """Whether this request, and with it the connection, is for ``upgrade_factory``."""
        return False

    def refusal(self, status: int, reason: str) -> tuple[dict[str, str], bytes]:
        """Headers and body of the answer to a request that no handler gets to see.

        :param reason: in words of ours or of llhttp, which hold nothing of the request
        """
        return {"Content-Type": "text/html; charset=UTF-8"}, b""

    # ---- life cycle

    def startFactory(self) -> None:
        """Called when the first port starts to listen."""
        self._listening = True
        self.now = self.clock.seconds()
        if self._sweeper is None:
            self._sweeper = LoopingCall(self._sweep)
            self._sweeper.clock = self.clock
            self._sweeper.start(1.0, now=False)

    def stopFactory(self) -> None:
        """Called when the last port has stopped; open connections are still looked after."""
        self._listening = False
        self._stop_sweeper()

    def _stop_sweeper(self) -> None:
        if self._sweeper is not None and not self._listening and not self.connections:
            self._sweeper.stop()
            self._sweeper = None

    def drain(self) -> Deferred[None]:
        """Close idle connections, and the others after the answer they wait for.

        Call it after the ports have stopped listening. Fires when no connection is left.
        """
        self.draining = True
        for connection in list(self.connections):
            connection.drain()
        if not self.connections:
            return succeed(None)
        return self._drained.wait()

    def tell_counted(self) -> None:
        """Log the events that were counted instead of told, at the end of the process."""
        self.floods.stop()

    def forget(self, connection: HTTPConnection) -> None:
        """A connection is closed or handed over."""
        self.connections.discard(connection)
        if not self.connections:
            self._stop_sweeper()
            self._drained.fire(None)

    def _overdue(self, now: float) -> list[HTTPConnection]:
        """Connections whose time is over."""
        within = getattr(self.upgrade_factory, "head_within", 0)
        if not 0 < within < HEAD_TIMEOUT:
            return [c for c in self.connections if c.deadline < now]
        soon = now + HEAD_TIMEOUT - within
        slow = [c for c in self.connections if c.deadline < soon]
        return [c for c in slow if c.deadline < now or c.may_be_handshake]

    def _sweep(self) -> None:
        now = self.now = self.clock.seconds()
        for connection in self._overdue(now):
            try:
                connection.expire()
            except Exception:
                self.log.failure("Unhandled error ending an overdue connection")
        if self.turned_away:
            self.log.warn(
                "{count} HTTP connections refused: {limit} are open",
                count=self.turned_away,
                limit=self.max_http_connections,
            )
            self.turned_away = 0


_date = (0, "")


def http_date() -> str:
    """The time as HTTP writes it; made once a second."""
    global _date
    second = int(clock.now())
    if second != _date[0]:
        _date = (second, formatdate(second, usegmt=True))
    return _date[1]
