"""One HTTP/2 connection to a server, for many small requests at a time (RFC 9113).

::

    connecting ──handshake, SETTINGS──▶ ready ──GOAWAY──▶ draining ──last stream ended──▶ ended
        └──────────── refused, no h2, too slow, lost, garbage, PING not answered ───────────▲

Requests above the peer's SETTINGS_MAX_CONCURRENT_STREAMS are not put on the connection; bodies
follow the peer's flow control windows. What becomes of a request that failed here is for the owner
to decide: :class:`Unprocessed` ones were certainly not acted on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import FrameTooLargeError, H2Error, NoAvailableStreamIDError
from h2.settings import SettingCodes, Settings
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol as TwistedProtocol
from twisted.logger import Logger
from zope.interface import implementer

if TYPE_CHECKING:
    from hyperframe.frame import Frame, GoAwayFrame
    from twisted.python.failure import Failure

STREAMS_PER_CONNECTION = 1000
"""Requests under way on one connection, whatever more the peer allows: Apple's own limit, and a
bound of what a dead connection can hold."""

BODY_LIMIT = 64 * 1024
"""Bytes of an answer's body; errors are a line of JSON."""

HEADER_LIMIT = 16 * 1024
"""Bytes of an answer's headers, announced as SETTINGS_MAX_HEADER_LIST_SIZE."""

PING_IDLE = 60.0
"""Seconds of silence after which an unused connection is tried: middle boxes forget idle ones."""

PING_BUSY = 2.5
"""Seconds of silence after which a connection with requests under way is tried."""

PING_TIMEOUT = 2.5
"""Seconds within which something must come back after that."""

CLOSE_WITHIN = 1.0
"""Seconds the peer gets to close its end before we cut the connection."""

HeaderList = Sequence[tuple[str, str]]


class Http2Error(Exception):
    """Why a request got no answer. ``reason`` is its name in metrics."""

    reason = "http2_error"


class ConnectionFailed(Http2Error):
    """The peer gave the connection up, or broke the protocol."""

    reason = "connection_error"


class TransportFailed(Http2Error):
    """Not connected, or the connection was lost: TCP, TLS, name look-up."""


class StreamFailed(Http2Error):
    """The peer reset this request only, or its answer is unusable."""


class Unprocessed(StreamFailed):
    """The peer did not and will not look at the request (RFC 9113 8.7)."""


class Refused(Unprocessed):
    """It has too much to do for now."""


class TimedOut(Http2Error):
    """No answer, or no connection, in time."""

    reason = "timeout"


class Busy(Http2Error):
    """Too many requests are waiting."""

    reason = "busy"


class Response(NamedTuple):
    """A complete answer. Header names are lower case."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


class Exchange:
    """A request from its submission until :attr:`done` has fired.

    :param headers: with the pseudo headers first
    :param deadline: on the clock of the reactor, seconds
    """

    __slots__ = ("attempts", "body", "connection", "deadline", "done", "headers", "refusals")

    def __init__(
        self,
        headers: HeaderList,
        body: bytes,
        deadline: float,
        cancel: Callable[[Exchange], None] | None = None,
    ) -> None:
        self.headers = headers
        self.body = body
        self.deadline = deadline
        self.attempts = 0
        self.refusals = 0
        self.connection: Http2Connection | None = None
        self.done: Deferred[Response] | None = Deferred(lambda _: cancel(self) if cancel else None)


class Owner(Protocol):
    """What a connection tells whoever uses it."""

    def opened(self, connection: Http2Connection) -> None:
        """There is a socket."""

    def answered(self, exchange: Exchange, response: Response) -> None:
        """A request got its answer."""

    def failed(self, exchange: Exchange, error: Http2Error) -> None:
        """A request got none on this connection."""

    def retired(self, connection: Http2Connection, error: Http2Error | None) -> None:
        """The connection takes no more requests; called once.

        :param error: None: it said so in peace
        """

    def closed(self, connection: Http2Connection) -> None:
        """The socket has gone."""

    def dispatch(self) -> None:
        """There may be room for requests, or requests that need another connection."""


class _H2(H2Connection):
    """h2, but for two things.

    It takes a GOAWAY for the end of the connection and answers what follows with a protocol
    error. It is the announcement of the end: requests up to its last stream id still get their
    answers (RFC 9113 6.8).

    It looks at the length of a frame only when all of it has come, so that what is not HTTP/2 at
    all looks like the beginning of a frame of some megabytes (RFC 9113 4.2).
    """

    def receive_data(self, data: Any) -> list[Event]:
        events = super().receive_data(data)
        waiting = self.incoming_buffer._data
        if len(waiting) >= 3 and int.from_bytes(waiting[:3], "big") > self.max_inbound_frame_size:
            raise FrameTooLargeError("frame too long")
        return events

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[Event]]:
        result = super()._receive_goaway_frame(frame)
        self.state_machine.state = ConnectionState.CLIENT_OPEN
        return result


CONFIG = H2Configuration(
    client_side=True,
    header_encoding=None,
    # Ours are made in one place and tested; this halves the cost of sending them.
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
)

LOCAL_SETTINGS = {SettingCodes.ENABLE_PUSH: 0, SettingCodes.MAX_HEADER_LIST_SIZE: HEADER_LIMIT}


class _Stream:
    """One exchange on the wire."""

    __slots__ = ("chunks", "exchange", "headers", "rest", "size", "status")

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.rest = exchange.body
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.chunks: list[bytes] = []
        self.size = 0


@implementer(IHandshakeListener)
class Http2Connection(TwistedProtocol):
    """One connection, from the attempt to make it on.

    :param connect_timeout: seconds until the peer's SETTINGS must have come
    """

    log = Logger()
    transport: Any

    def __init__(self, owner: Owner, clock: Any, connect_timeout: float) -> None:
        self.owner = owner
        self.ready = False
        self.draining = False
        self.has_answered = False
        self.used = False
        self._clock = clock
        self._connect_by = clock.seconds() + connect_timeout
        self._attempt: Deferred[Any] | None = None
        self._ended = False
        self._cut_at = 0.0
        self._retired = False
        self._limit = 0
        self._streams: dict[int, _Stream] = {}
        self._blocked: dict[int, _Stream] = {}
        self._quiet_since = clock.seconds()
        self._pinged_at: float | None = None
        self._goodbye: Http2Error | None = None
        self._h2 = _H2(config=CONFIG)
        self._h2.local_settings = Settings(client=True, initial_values=LOCAL_SETTINGS)

    # ---- opening and closing

    def connect(self, endpoint: Any) -> None:
        """Start to connect; how it ends is told to the owner."""
        factory = Factory.forProtocol(lambda: self)
        factory.noisy = False
        self._attempt = endpoint.connect(factory)
        self._attempt.addCallbacks(self._connected, self._connect_failed)

    def _connected(self, _protocol: Any) -> None:
        self._attempt = None

    def _connect_failed(self, failure: Failure) -> None:
        self._attempt = None
        self._end(TransportFailed(failure.getErrorMessage()))

    def connectionMade(self) -> None:
        self.owner.opened(self)
        if self._ended:
            self.transport.abortConnection()
            return
        try:
            self.transport.setTcpNoDelay(True)
        except (AttributeError, OSError):
            pass  # not TCP

    def handshakeCompleted(self) -> None:
        """TLS is up; called by Twisted (RFC 9113 3.2)."""
        if self.transport.negotiatedProtocol != b"h2":
            self.abort(ConnectionFailed("the server does not speak HTTP/2"))
            return
        self._h2.initiate_connection()
        self._flush()

    def close(self) -> None:
        """Say goodbye; there must be no streams left that anybody waits for."""
        self._end(ConnectionFailed("closed"), peaceful=True)
        if self.transport is None:
            return
        try:
            self._h2.close_connection()
            self._flush()
        except H2Error:
            pass  # nothing was agreed yet
        self.transport.loseConnection()

    def abort(self, error: Http2Error) -> None:
        """Cut the connection; what is under way fails with ``error``."""
        self._end(error)
        if self.transport is not None:
            self.transport.abortConnection()
        elif self._attempt is not None:
            self._attempt.cancel()

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        self._end(self._goodbye or TransportFailed(reason.getErrorMessage()))
        self.owner.closed(self)

    def _end(self, error: Http2Error, peaceful: bool = False) -> None:
        if self._ended:
            return
        self._ended = True
        self._cut_at = self._clock.seconds() + CLOSE_WITHIN
        streams, self._streams, self._blocked = self._streams, {}, {}
        self._retire(None if peaceful else error)
        for stream in streams.values():
            self.owner.failed(stream.exchange, error)
        self.owner.dispatch()

    def _retire(self, error: Http2Error | None) -> None:
        self.draining = True
        if not self._retired:
            self._retired = True
            self.owner.retired(self, error)

    # ---- sending

    @property
    def has_room(self) -> bool:
        """Whether the peer takes one more request now."""
        return self.ready and not self.draining and len(self._streams) < self._limit

    @property
    def busy(self) -> bool:
        """Whether requests are under way."""
        return bool(self._streams)

    def start(self, exchange: Exchange) -> None:
        """Put a request on the connection, which must have room."""
        try:
            stream_id = self._h2.get_next_available_stream_id()
        except NoAvailableStreamIDError:
            # After 2^30 requests. The owner makes a new connection.
            self._retire(None)
            self.owner.failed(exchange, Unprocessed("no stream id left"))
            self._close_if_drained()
            return
        if not self._streams:
            self._quiet_since = self._clock.seconds()
        self.used = True
        exchange.connection = self
        stream = self._streams[stream_id] = _Stream(exchange)
        try:
            self._h2.send_headers(stream_id, exchange.headers, end_stream=not stream.rest)
            self._send_body(stream_id, stream)
        except H2Error as exc:
            self.abort(ConnectionFailed(type(exc).__name__))
            return
        self._flush()

    def _send_body(self, stream_id: int, stream: _Stream) -> None:
        """Send as much as the peer's windows let us."""
        h2 = self._h2
        while stream.rest:
            size = min(h2.local_flow_control_window(stream_id), h2.max_outbound_frame_size)
            if size <= 0:
                self._blocked[stream_id] = stream
                return
            chunk, stream.rest = stream.rest[:size], stream.rest[size:]
            h2.send_data(stream_id, chunk, end_stream=not stream.rest)
        self._blocked.pop(stream_id, None)

    def cancel(self, exchange: Exchange) -> None:
        """Nobody waits for this answer any more."""
        for stream_id, stream in self._streams.items():
            if stream.exchange is exchange:
                self._reset(stream_id)
                break
        self._flush()
        self._close_if_drained()

    def _reset(self, stream_id: int) -> None:
        self._streams.pop(stream_id, None)
        self._blocked.pop(stream_id, None)
        try:
            self._h2.reset_stream(stream_id, ErrorCodes.CANCEL)
        except H2Error:
            pass  # it has ended by itself

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and self.transport is not None:
            self.transport.write(data)

    # ---- receiving

    def dataReceived(self, data: bytes) -> None:
        if self._ended:
            return
        try:
            events = self._h2.receive_data(data)
            if events:  # complete frames; other bytes may be anything
                self._quiet_since = self._clock.seconds()
                self._pinged_at = None
            for event in events:
                handler = self._HANDLERS.get(type(event))
                if handler is not None:
                    handler(self, event)
        except H2Error as exc:
            self._flush()  # h2 has prepared a GOAWAY that says why
            self.abort(ConnectionFailed(type(exc).__name__))
            return
        except Exception as exc:
            self.log.failure("Unhandled error in an HTTP/2 connection")
            self.abort(ConnectionFailed(type(exc).__name__))
            return
        if self._ended:
            return
        self._flush()
        self._close_if_drained()
        self.owner.dispatch()

    def _settings_changed(self, event: RemoteSettingsChanged) -> None:
        self.ready = True
        remote = self._h2.remote_settings
        self._limit = min(remote.max_concurrent_streams, STREAMS_PER_CONNECTION)
        self._unblock()

    def _window_updated(self, event: WindowUpdated) -> None:
        self._unblock()

    def _unblock(self) -> None:
        for stream_id, stream in list(self._blocked.items()):
            self._send_body(stream_id, stream)

    def _response_received(self, event: ResponseReceived) -> None:
        stream = self._streams.get(event.stream_id or 0)
        if stream is None:
            return
        stream.headers = {bytes(name): bytes(value) for name, value in event.headers or ()}
        status = stream.headers.get(b":status", b"")
        if not (status.isdigit() and len(status) == 3):
            self._reset(event.stream_id or 0)
            self.owner.failed(stream.exchange, StreamFailed("malformed status"))
            return
        stream.status = int(status)

    def _data_received(self, event: DataReceived) -> None:
        stream_id = event.stream_id or 0
        self._h2.acknowledge_received_data(event.flow_controlled_length or 0, stream_id)
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        data = event.data or b""
        stream.size += len(data)
        if stream.size > BODY_LIMIT:
            self._reset(stream_id)
            self.owner.failed(stream.exchange, StreamFailed("answer too long"))
            return
        stream.chunks.append(data)

    def _stream_ended(self, event: StreamEnded) -> None:
        stream_id = event.stream_id or 0
        stream = self._streams.pop(stream_id, None)
        if stream is None:
            return
        if self._blocked.pop(stream_id, None) is not None:
            self._reset(stream_id)  # answered before it had seen everything
        self.has_answered = True
        self.owner.answered(
            stream.exchange, Response(stream.status, stream.headers, b"".join(stream.chunks))
        )

    def _stream_reset(self, event: StreamReset) -> None:
        stream = self._streams.pop(event.stream_id or 0, None)
        self._blocked.pop(event.stream_id or 0, None)
        if stream is None:
            return
        code = event.error_code
        kind = Refused if code == ErrorCodes.REFUSED_STREAM else StreamFailed
        self.owner.failed(stream.exchange, kind(f"stream reset: {error_name(code)}"))

    def _terminated(self, event: ConnectionTerminated) -> None:
        """A GOAWAY came. There may be several, with falling last stream ids."""
        code, last = event.error_code, event.last_stream_id or 0
        error = ConnectionFailed(f"GOAWAY: {error_name(code)}")
        if code != ErrorCodes.NO_ERROR:
            self._goodbye = error
        self._retire(self._goodbye)
        for stream_id in [number for number in self._streams if number > last]:
            stream = self._streams.pop(stream_id)
            self._blocked.pop(stream_id, None)
            self.owner.failed(stream.exchange, Unprocessed(str(error)))

    _HANDLERS: dict[type, Callable[[Http2Connection, Any], None]] = {
        RemoteSettingsChanged: _settings_changed,
        WindowUpdated: _window_updated,
        ResponseReceived: _response_received,
        DataReceived: _data_received,
        StreamEnded: _stream_ended,
        StreamReset: _stream_reset,
        ConnectionTerminated: _terminated,
    }

    def _close_if_drained(self) -> None:
        if self.draining and not self._streams and not self._ended:
            self.close()

    # ---- time

    def check(self, now: float) -> None:
        """Look after the connection; to be called about every second."""
        if self._ended:
            if now >= self._cut_at and self.transport is not None:
                self.transport.abortConnection()
        elif not self.ready:
            if now >= self._connect_by:
                self.abort(TimedOut("no connection in time"))
        elif self._pinged_at is not None:
            if now - self._pinged_at >= PING_TIMEOUT:
                self.abort(ConnectionFailed("PING not answered"))
        elif now - self._quiet_since >= (PING_BUSY if self._streams else PING_IDLE):
            self._pinged_at = now
            self._h2.ping(b"autopush")
            self._flush()


def error_name(code: Any) -> str:
    """Return the name of an HTTP/2 error code, or its number."""
    return str(getattr(code, "name", code))
