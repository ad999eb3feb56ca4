"""Autobahn's WebSocket server protocol, trimmed for many idle connections.

Same class hierarchy, same hooks (``onConnect``, ``onOpen``, ``onMessage``, ``onClose``,
``sendMessage``, ``sendClose`` ...), same handshake and same treatment of violations as the stock
class, for a tenth of the memory and a third of the CPU (decisions/autobahn). What differs:

* options live on a class made per factory, not in a copy per connection;
* attributes that only the handshake, a violation or the end of a connection needs live in one
  scratch dict that is dropped when the connection opens;
* no per-connection timers, statistics, validators, queues or Deferreds;
* complete data, ping and pong frames are handled here; everything else (close frames and every
  kind of violation) goes through Autobahn's own code, and always ends the connection.

It relies on private attributes; a version they are not known in (:mod:`autopush.libraries`) gets
the stock class (:func:`server_protocol`). The test-suite runs the same checks against both.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

import autobahn
from autobahn.exception import Disconnected
from autobahn.twisted.util import peer2str
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.protocol import TrafficStats, WebSocketProtocol
from autobahn.websocket.utf8validator import Utf8Validator
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from autopush.libraries import INSIDES, known
from autopush.websocket.unfinished import STRANGER_MESSAGE

CONNECTING = WebSocketProtocol.STATE_CONNECTING
OPEN = WebSocketProtocol.STATE_OPEN
CLOSING = WebSocketProtocol.STATE_CLOSING
CLOSED = WebSocketProtocol.STATE_CLOSED

TEXT, BINARY = 0x81, 0x82
PING, PONG = 0x89, 0x8A
CLOSE = 0x08
CLOSE_FRAME = 0x80 | CLOSE
MASKED = 0x80

FAST_FRAMES = {
    # first byte: (is control, is continuation, is last fragment, is binary)
    0x01: (False, False, False, False),
    0x02: (False, False, False, True),
    0x00: (False, True, False, False),
    0x80: (False, True, True, False),
    TEXT: (False, False, True, False),
    BINARY: (False, False, True, True),
    PING: (True, False, True, False),
    PONG: (True, False, True, False),
}
"""First bytes of the frames handled without Autobahn. Missing: close, reserved bits and opcodes."""

FAREWELL = b"\x88\x02\x03\xe8"
"""Our answer to a close frame: one with code 1000."""

FAREWELL_HOOKS = (
    "consumeData",
    "dropConnection",
    "onCloseFrame",
    "processData",
    "sendCloseFrame",
    "sendData",
    "sendFrame",
)
"""Members of a protocol without which there is no shorter way to answer a close frame."""

HEADER_16 = struct.Struct("!BBH").pack
HEADER_64 = struct.Struct("!BBQ").pack


def head(first: int, size: int) -> bytes:
    """Return the header of a server's frame.

    :param first: its first byte
    :param size: bytes of its payload
    """
    if size < 126:
        return bytes((first, size))
    return HEADER_16(first, 126, size) if size < 65536 else HEADER_64(first, 127, size)


def unmask(payload: bytes, mask: bytes) -> bytes:
    """Return ``payload`` with the four-byte ``mask`` of RFC 6455 5.3 removed (or applied)."""
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


class QuietLog:
    """Autobahn's logger without its trace and debug calls, which it makes for every frame."""

    def __init__(self, namespace: str) -> None:
        logger = Logger(namespace)
        self.info = logger.info
        self.warn = logger.warn
        self.error = logger.error
        self.critical = logger.critical
        self.failure = logger.failure

    def debug(self, *args: Any, **kwargs: Any) -> None:
        """Say nothing."""

    trace = debug


class Scratch:
    """An attribute kept in the connection's scratch dict, with a default for all others."""

    __slots__ = ("default", "name")

    def __init__(self, name: str, default: Any) -> None:
        self.name = name
        self.default = default

    def __get__(self, instance: SlimServerProtocol | None, owner: type | None = None) -> Any:
        if instance is None or instance._scratch is None:
            return self.default
        return instance._scratch.get(self.name, self.default)

    def __set__(self, instance: SlimServerProtocol, value: Any) -> None:
        if instance._scratch is None:
            instance._scratch = {}
        instance._scratch[self.name] = value


HANDSHAKE = """
    http_request_data http_status_line http_headers http_request_uri http_request_path
    http_request_params http_request_host http_response_data _wskey websocket_protocols
    websocket_extensions websocket_origin websocket_protocol_in_use
    websocket_extensions_in_use openHandshakeTimeoutCall
"""
FRAME = """
    current_frame current_frame_masker control_frame_data frame_length frame_data
    message_data message_data_total_length message_is_binary utf8validateLast
"""
END = """
    wasNotCleanReason localCloseCode localCloseReason remoteCloseCode remoteCloseReason
    closeHandshakeTimeoutCall autoPingTimeoutCall
"""
FLAGS = """
    inside_message utf8validateIncomingCurrentMessage _isMessageCompressed
    wasMaxFramePayloadSizeExceeded wasMaxMessagePayloadSizeExceeded closedByMe failedByMe
    droppedByMe wasClean wasServerConnectionDropTimeout wasOpenHandshakeTimeout
    wasCloseHandshakeTimeout
"""
SCRATCH: dict[str, Any] = {
    "data": b"",
    "websocket_version": 13,
    **dict.fromkeys(f"{HANDSHAKE} {FRAME} {END}".split()),
    **dict.fromkeys(FLAGS.split(), False),
}
"""Autobahn's instance attributes that an idle connection does not need: name → default."""


class _Nobody:
    """Stands for the Deferreds ``is_open`` and ``is_closed``, which nobody waits for here."""

    called = False

    def callback(self, result: Any) -> None:
        """Tell nobody."""

    errback = callback


class Guarded(WebSocketServerProtocol):
    """What others decide about messages that are not here completely; both are hooks."""

    stranger = False
    """Whether messages may have no more than ``STRANGER_MESSAGE`` bytes."""
    _held: int | None = None
    """Bytes of an incomplete message that :meth:`holds` was told of; None: there is none."""

    def holds(self, size: int) -> None:
        """So many bytes of an incomplete message are here; the connection may be closed."""

    def _note(self, size: int) -> None:
        if size != (self._held or 0):
            self._held = size or None
            self.holds(size)


class Farewell(Guarded):
    """What is left to do after our close frame: nothing that comes is processed any more
    (spec/websocket Q26), but the peer's close frame ends the connection."""

    data: bytes
    current_frame: Any
    wasClean: bool
    _partial: tuple[int, bytearray] | None = None
    """A frame that has not arrived completely: its whole length, and what is there."""
    _skip = 0
    """Bytes still to come of a frame that is of no interest."""

    def _after_close(self, data: bytes) -> None:
        """Look for the peer's close frame."""
        if self.current_frame is not None or self.data:
            return  # amid something only Autobahn can take apart: a time-out will end it
        if self._partial is not None:
            data, self._partial = bytes(self._partial[1]) + data, None
        at = min(self._skip, len(data))
        self._skip -= at
        while len(data) - at >= 2:
            length = data[at + 1] & 0x7F
            body = at + (6 if data[at + 1] >= MASKED else 2)
            extra = {126: 2, 127: 8}.get(length, 0)
            if len(data) < at + 2 + extra:
                break
            if data[at] & 0x0F == CLOSE:
                self.wasClean = True
                self.peer_closed()
                return
            if extra:
                length = int.from_bytes(data[at + 2 : at + 2 + extra], "big")
            end = body + extra + length
            self._skip = max(0, end - len(data))
            at = min(end, len(data))
        if at < len(data):
            self._partial = (0, bytearray(data[at:]))

    def peer_closed(self) -> None:
        """Both have sent a close frame: the server ends TCP (RFC 6455, 7.1.1)."""
        self.dropConnection(abort=True)


class SlimServerProtocol(Farewell):
    """See the module. ``is_open``, ``is_closed``, ``fire`` and ``trafficStats`` are inert.

    The constructor takes nothing; ``factory`` and the options are class attributes put there by
    :func:`bind_options`.
    """

    transport: Any
    factory: Any
    data: bytes
    maxFramePayloadSize: int
    maxMessagePayloadSize: int

    log = QuietLog("autopush.websocket.PushServerProtocol")
    is_open = is_closed = _Nobody()
    trafficStats = TrafficStats()
    send_queue: Any = ()
    trackedTimings: Any = None
    _perMessageCompress: Any = None
    autoPingPending = autoPingPendingCall = autoPingPendingSent = None
    wasServingFlashSocketPolicyFile = False
    state = CONNECTING
    connected = 1

    short_farewell = False
    """Whether nothing of a program's own is in the way of :meth:`_bids_farewell`; set on the
    factory's class."""

    _scratch: dict[str, Any] | None = None
    _fragments: tuple[bool, bytearray] | None = None
    """A message that has not arrived completely: whether it is binary, and what is there."""

    def __init__(self) -> None:
        pass

    @property
    def peer(self) -> str:  # type: ignore[override]
        """Address of the other end, as Autobahn writes it (``tcp4:192.0.2.1:1234``)."""
        peer: str = peer2str(self.transport)
        return peer

    @property
    def utf8validator(self) -> Utf8Validator:  # type: ignore[override]
        """A validator for a frame in Autobahn's hands; never more than one frame's worth."""
        return Utf8Validator()

    # ---- Twisted's side

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport
        self.connectionMade()

    def connectionMade(self) -> None:
        self.factory.countConnections += 1
        try:
            self.transport.setTcpNoDelay(True)
        except (AttributeError, OSError):
            pass  # not TCP

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._connectionLost(reason)  # type: ignore[arg-type]

    def _connectionLost(self, reason: str) -> None:
        # Not by way of the server's own, which only counts and tells its log at some length.
        WebSocketProtocol._connectionLost(self, reason)
        self.factory.countConnections -= 1

    def opens_at_once(self, data: bytes, head: Any = None) -> bool:
        """Answer a handshake without Autobahn, if that is possible.

        :param data: all that was received
        :param head: the request, if an HTTP server has read it already
        """
        return False

    def dataReceived(self, data: bytes) -> None:
        if self.state == OPEN:
            self._frames_received(data)
            if self._partial is not None or self._fragments is not None or self._held is not None:
                self._count()
        elif self.state == CONNECTING:
            if self._scratch is not None or not self.opens_at_once(data):
                self._dataReceived(data)
        elif self.state == CLOSING:
            self._after_close(data)

    # ---- Autobahn's side

    def consumeData(self) -> None:
        if self.state == OPEN:
            data, self._scratch = self.data, None
            self._frames_received(data)
            self._count()
        else:
            super().consumeData()

    def _onOpen(self) -> None:
        left_over = self.data
        self._scratch = {"data": left_over} if left_over else None
        self.onOpen()

    def sendMessage(
        self,
        payload: bytes,
        isBinary: bool = False,
        fragmentSize: int | None = None,
        sync: bool = False,
        doNotCompress: bool = False,
    ) -> None:
        """Send one message as one frame; the last three arguments have no effect here.

        :raises Disconnected: the connection is not open
        """
        if self.state != OPEN:
            raise Disconnected("Attempt to send on a closed protocol")
        first, size = BINARY if isBinary else TEXT, len(payload)
        short = 126 <= size < 65536  # what a message is; saves it a call
        header = HEADER_16(first, 126, size) if short else head(first, size)
        self.transport.write(header + payload)

    def send_texts(self, payloads: Sequence[bytes]) -> None:
        """Send messages as one frame each, all in one piece: a system call, and likely a packet,
        for many. The connection must be open."""
        pieces: list[bytes] = []
        for payload in payloads:
            pieces += (head(TEXT, len(payload)), payload)
        self.transport.write(b"".join(pieces))

    # ---- frames

    def _count(self) -> None:
        """Tell how much is kept of a message that is not complete."""
        size = 0
        if self.state == OPEN:
            if self._partial is not None:
                size = len(self._partial[1])
            if self._fragments is not None:
                size += len(self._fragments[1])
        self._note(size)

    def drop_unfinished(self) -> None:
        """After our close frame: let go of a message that is not complete."""
        self._fragments = None
        if self._partial is not None:
            self._after_close(b"")
        self._note(0)

    def _frames_received(self, data: bytes) -> None:
        if self._scratch is not None:
            self._hand_over(data)
            return
        if self._partial is not None:
            wanted, held = self._partial
            held += data
            if len(held) < wanted:
                return
            data = bytes(held)
            self._partial = None
        at, size = 0, len(data)
        while at < size:
            end = self._frame(data, at, size)
            if self.state != OPEN:
                if self.state == CLOSING and self._partial is None:
                    self._after_close(data[end:])
                return
            if end == at:
                return
            at = end

    def _frame(self, data: bytes, at: int, size: int) -> int:
        """Handle the frame at ``at``, or put it aside when it is not complete.

        :returns: where the next one starts; ``at`` when there is nothing more to do here
        """
        if size - at < 2:
            return self._wait(2, data, at)
        first, length = data[at], data[at + 1]
        kind = FAST_FRAMES.get(first)
        if (
            kind is None
            or length < MASKED
            or kind[1] != (self._fragments is not None and not kind[0])
        ):
            if first == CLOSE_FRAME and self._bids_farewell(data, at, size):
                return size
            self._hand_over(data[at:])
            return at
        length &= 0x7F
        body = at + 6
        if length > 125:
            extra = 2 if length == 126 else 8
            body += extra
            if size < body:
                return self._wait(body - at, data, at)
            length = int.from_bytes(data[at + 2 : at + 2 + extra], "big")
            if kind[0] or length < (126 if extra == 2 else 65536) or length >= 1 << 63:
                self._hand_over(data[at:])
                return at
        if not kind[0] and self._too_big(length):
            return at
        end = body + length
        if size < end:
            return self._wait(end - at, data, at)
        payload = unmask(data[body:end], data[body - 4 : body])
        if kind[0]:
            (self._onPing if first == PING else self._onPong)(payload)
        elif first == TEXT:
            self._text(payload)
        else:
            self._fragment(payload, *kind[1:])
        return end

    def _bids_farewell(self, data: bytes, at: int, size: int) -> bool:
        """Answer a close frame as Autobahn does, if it is one of those that browsers send."""
        length = data[at + 1]
        if not self.short_farewell or self._fragments is not None:
            return False
        if length == MASKED and size - at >= 6:
            code: int | None = None
        elif length == MASKED + 2 and size - at >= 8:
            code = int.from_bytes(unmask(data[at + 6 : at + 8], data[at + 2 : at + 6]), "big")
            if code not in (1000, 1001) and not 3000 <= code < 5000:
                return False
        else:
            return False
        closed: Any = self  # Autobahn's types know no codes
        closed.remoteCloseCode, closed.localCloseCode = code, 1000
        self.wasClean = self.droppedByMe = True
        self.transport.write(FAREWELL)
        self.unregisterProducer()
        self.state = CLOSED
        self._closeConnection(False)
        return True

    def _wait(self, wanted: int, data: bytes, at: int) -> int:
        self._partial = (wanted, bytearray(data[at:]))
        return at

    def _hand_over(self, data: bytes) -> None:
        """Let Autobahn look at a close frame or a violation; it keeps the rest of the stream."""
        if self._fragments is not None:
            self._fragments = None
            self.inside_message = True
        self.data += data
        super().consumeData()

    def _too_big(self, length: int) -> bool:
        """Refuse a frame from its header, before any of it is kept.

        :param length: bytes the frame announces
        """
        total = length + (len(self._fragments[1]) if self._fragments is not None else 0)
        if 0 < self.maxFramePayloadSize < length:
            self.wasMaxFramePayloadSizeExceeded = True
            limit = self.maxFramePayloadSize
        elif 0 < self.maxMessagePayloadSize < total:
            self.wasMaxMessagePayloadSizeExceeded = True
            limit = self.maxMessagePayloadSize
        elif total > STRANGER_MESSAGE and self.stranger:
            self.wasMaxMessagePayloadSizeExceeded = True
            limit = STRANGER_MESSAGE
        else:
            return False
        self._max_message_size_exceeded(
            total, limit, f"received WebSocket message of {total} octets, limit is {limit}"
        )
        return True

    def _fragment(
        self, payload: bytes, is_continuation: bool, is_last: bool, is_binary: bool
    ) -> None:
        """Collect a fragment; one buffer, so that empty fragments occupy nothing."""
        if is_continuation:
            assert self._fragments is not None
            is_binary = self._fragments[0]
            self._fragments[1].extend(payload)
        elif not is_last:
            self._fragments = (is_binary, bytearray(payload))
        if not is_last:
            return
        if is_continuation and self._fragments is not None:
            payload = bytes(self._fragments[1])
            self._fragments = None
        if is_binary:
            self._onMessage(payload, True)
        else:
            self._text(payload)

    def _text(self, payload: bytes) -> None:
        if not payload.isascii():
            try:
                payload.decode()
            except UnicodeDecodeError as exc:
                self._invalid_payload(f"text message is not UTF-8: {exc.reason}")
                return
        self._onMessage(payload, False)


class StockServerProtocol(Farewell):
    """Autobahn's own class, but for what comes after our close frame, and incomplete messages."""

    message_data: Any
    frame_data: Any
    _kept = 0

    def dataReceived(self, data: bytes) -> None:
        if self.state == CLOSING:
            self._after_close(data)
            return
        super().dataReceived(data)
        self._note(self._kept if self.state == OPEN else 0)

    def onMessageFrameBegin(self, length: int) -> None:
        """Autobahn's hook: the header of a frame is here."""
        super().onMessageFrameBegin(length)
        total = self.message_data_total_length
        if not self.failedByMe and total > STRANGER_MESSAGE and self.stranger:
            self.wasMaxMessagePayloadSizeExceeded = True
            self._max_message_size_exceeded(
                total, STRANGER_MESSAGE, f"received WebSocket message of {total} octets"
            )

    def onMessageFrameData(self, payload: bytes) -> None:
        """Autobahn's hook: a piece of a frame is here."""
        super().onMessageFrameData(payload)
        self._kept += len(payload)

    def onMessageEnd(self) -> None:
        """Autobahn's hook: a message is complete."""
        self._kept = 0
        super().onMessageEnd()

    def drop_unfinished(self) -> None:
        """After our close frame: let go of a message that is not complete."""
        self.message_data, self.frame_data, self._kept = [], [], 0
        self._note(0)


def bind_options(
    factory: WebSocketServerFactory, members: dict[str, Any] | None = None
) -> type[WebSocketServerProtocol]:
    """Make the protocol class of one factory: its options are class attributes.

    Options changed on the factory later have no effect on it.

    :param members: what else the class has
    """
    base = factory.protocol
    options = {name: getattr(factory, name) for name in base.CONFIG_ATTRS}
    # A function in a class would become a method.
    options["perMessageCompressionAccept"] = staticmethod(options["perMessageCompressionAccept"])
    return type(base.__name__, (base,), {**options, **(members or {}), "factory": factory})


def keeps(protocol: type, base: type, members: Iterable[str]) -> bool:
    """Whether a protocol class has these members as they were in one it is made of."""
    return all(getattr(protocol, name) is getattr(base, name) for name in members)


def server_protocol() -> type[WebSocketServerProtocol]:
    """Choose the class to build on: the trimmed one, or Autobahn's own for another version."""
    if known("autobahn", autobahn.__version__):
        return SlimServerProtocol
    Logger().warn(
        "autobahn {found} instead of {known}: connections will use more memory and CPU",
        found=autobahn.__version__,
        known=", ".join(INSIDES["autobahn"].versions),
    )
    return StockServerProtocol


for _name, _default in SCRATCH.items():
    setattr(SlimServerProtocol, _name, Scratch(_name, _default))
