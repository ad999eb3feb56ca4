"""The WebSocket side of a connection node: frames in, commands out, replies in, frames out.

What a user agent may say and what it is answered is in :mod:`autopush.session`; here is how it
travels (spec/websocket 2, 3, 12, 13)::

    UA                                        node
    |-- GET <any path>, Upgrade: websocket -->|   no subprotocol, no extension
    |<-- 101 ---------------------------------|   a session begins
    |-- text frame: one JSON object --------->|   Session.received()
    |<-- text frame: one JSON object ---------|   PushServerProtocol.send()
    |<-- ping, 4 characters ------------------|   every auto_ping_interval after the last pong
    |-- pong, the same 4 characters --------->|   within auto_ping_timeout
    |<-- close, FIN --------------------------|   the node does not wait for the answer
    |-- close, or FIN ----------------------->|   within 10 s; else RST
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import orjson
from autobahn.twisted.websocket import WebSocketServerProtocol
from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from twisted.logger import Logger
from twisted.python.failure import Failure

from autopush.clock import ms_time
from autopush.httpserver.connection import RETRY_AFTER, RETRY_LATER
from autopush.session import Session
from autopush.session.stats import base_tags
from autopush.types import JSONDict
from autopush.web.access import REFUSAL, UNAUTHORIZED
from autopush.web.refusals import count_refused
from autopush.websocket.handshake import REASON_TEXTS, normalize_head
from autopush.websocket.origins import FORBIDDEN, MAX_LOGGED, origins_in, show
from autopush.websocket.trimmed import OPEN

log = Logger()

MAX_HEAD = 16_384
"""Bytes of an opening handshake request, when no HTTP server in front limits it (2.5)."""

SEND_BUFFER = 2048
"""Bytes not yet taken by the kernel above which output counts as paused (12)."""

BACKLOG_LIMIT = 65_536
"""Bytes sent while output is paused after which we stop reading the user agent, which would
otherwise make us buffer answers it does not take."""

MESSAGE_TOO_BIG = 1009
TRY_AGAIN_LATER = 1013
SESSION_HOLD = 1
BACKLOG_HOLD = 2


def log_exception(func: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a method so that its exceptions are logged instead of raised.

    They are raised when the instance's ``_log_exc`` is false.
    """

    @functools.wraps(func)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return func(self, *args, **kwargs)
        except Exception:
            if not self._log_exc:
                raise
            self.log_failure(Failure())
            return None

    return wrapper


def decode_message(payload: bytes) -> Any:
    """Decode a text message.

    What Python's own decoder takes and orjson does not (``NaN``, ``Infinity``, lone surrogates)
    is JSON to the original as well (spec/websocket 4).

    :raises ValueError: not JSON, or nested too deep
    """
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        try:
            return json.loads(payload.decode())
        except RecursionError as exc:
            raise ValueError("nested too deep") from exc


def encode_message(message: JSONDict) -> bytes:
    """Encode a reply.

    :raises RecursionError: nested too deep, which only an echo of the user agent's words can be
    """
    try:
        return orjson.dumps(message)
    except TypeError:
        return json.dumps(message).encode()


class PushWire(WebSocketServerProtocol if TYPE_CHECKING else object):  # type: ignore[misc]
    """Everything of :class:`PushServerProtocol` that does not depend on the class below it.

    Implements :class:`autopush.session.Wire` for a session, and ``IPushProducer`` for the
    transport, which is how we learn that the user agent does not keep up.
    """

    factory: Any
    """The :class:`~autopush.websocket.factory.PushServerFactory`, which lies above."""
    transport: Any
    data: bytes
    session: Session | None = None
    output_paused = False
    """Whether more than ``SEND_BUFFER`` bytes wait to be sent (spec/websocket 12)."""

    short_sends = False
    """Whether :meth:`send_all` may join frames; set on the factory's class."""
    send_texts: Callable[[Sequence[bytes]], None]

    spent = 0
    """Seconds the HTTP server has taken to read the request: they count as time to the hello."""

    _log_exc = True
    _holds = 0
    _backlog = 0
    _ping: bytes | None = None
    _owed_pong: bytes | None = None

    # ---- opening

    def connectionMade(self) -> None:
        super().connectionMade()
        self.factory.opening.start(self)

    def processHandshake(self) -> None:
        """Autobahn's handshake, with limits and the original's leniency."""
        end = self.data.find(b"\r\n\r\n") + 4
        if end < 4:
            if len(self.data) > MAX_HEAD:
                self.failHandshake("Bad Request")
            return
        if end > MAX_HEAD:
            self.failHandshake("Bad Request")
            return
        head = self.data[:end]
        found, origins = origins_in(head), self.factory.origins
        refused = origins.refused(found, head) if found and origins is not None else None
        if refused is not None:
            self._refuse_origin(refused)
            return
        self.data = show(normalize_head(head), found) + self.data[end:]
        try:
            super().processHandshake()
        except UnicodeError:
            self.failHandshake("Error reading handshake data")

    def _refuse_origin(self, origin: str) -> None:
        count_refused(self.factory, 403, None)
        if self.factory.floods.take("WebSocket of a page refused"):
            log.info(
                "WebSocket of a page refused", origin=origin[:MAX_LOGGED], shown={"status": 403}
            )
        self.wasNotCleanReason = "origin not allowed"
        self.sendData(FORBIDDEN)
        self._drop_silently()

    def _drop_silently(self) -> None:
        """Close a connection whose end is told or counted already: without a line of Autobahn."""
        self.wasClean = True
        self.dropConnection(abort=False)
        self.wasClean = False

    def onConnect(self, request: ConnectionRequest) -> None:
        """Autobahn's hook: the request is well formed. Begins the session."""
        factory = self.factory
        if factory.stopping:
            raise ConnectionDeny(503, "shutting down")
        if factory.port_required and ":" not in request.headers["host"].rpartition("]")[2]:
            host = request.headers["host"]
            raise ConnectionDeny(400, f"missing port in HTTP Host header '{host}'")
        access = factory.access
        if access is not None and not access.shown(request.path, request.params.get("key", ())):
            peer = getattr(self.transport.getPeer(), "host", "")
            access.refuse(request.headers.get("x-forwarded-for", peer))
            count_refused(factory, 401, 109)
            raise ConnectionDeny(401, UNAUTHORIZED)
        self.session = factory.new_session(
            factory.node, self, ms_time(), request.headers.get("user-agent"), request.host
        )

    def failHandshake(self, reason: str, code: int = 400, responseHeaders: Any = None) -> None:
        if code == 401:  # noted already
            self.wasNotCleanReason = reason
            self.sendData(REFUSAL)
            self._drop_silently()
            return
        for pattern, replacement in REASON_TEXTS:
            reason = pattern.sub(replacement, reason)
        if code in RETRY_LATER:
            responseHeaders = [*(responseHeaders or ()), ("Retry-After", str(RETRY_AFTER))]
        if self.factory.floods.take("failing WebSocket opening handshake"):
            super().failHandshake(reason, code, responseHeaders)
            return
        self.wasNotCleanReason = reason
        self.sendHttpErrorResponse(code, reason, responseHeaders)
        self._drop_silently()

    def onOpen(self) -> None:
        """Autobahn's hook: the 101 is sent."""
        if not self._is_tls:
            # What lies below a PROXY protocol wrapper, or the transport itself.
            getattr(self.transport, "transport", self.transport).bufferSize = SEND_BUFFER
        # One that vanished without a word is noticed within hours even where no pings are sent.
        with contextlib.suppress(AttributeError, OSError):  # not TCP, or gone already
            self.transport.setTcpKeepAlive(True)
        self.transport.registerProducer(self, True)
        self.factory.opened(self)

    @property
    def _is_tls(self) -> bool:
        return hasattr(self.transport, "getPeerCertificate")

    # ---- messages

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """Autobahn's hook: a message is complete; text is valid UTF-8."""
        session = self.session
        if session is None or self.state != OPEN:
            return
        if isBinary:
            session.bad_input()
            return
        try:
            message = decode_message(payload)
        except ValueError:
            message = None
        if type(message) is dict:
            session.received(message)
        else:
            session.bad_input()

    def send(self, message: JSONDict) -> None:
        """Send one JSON object; nothing happens when the connection is closing."""
        if self.state != OPEN:
            return
        try:
            payload = encode_message(message)
        except RecursionError:
            self.close()
            return
        self.sendMessage(payload, False)
        if self.output_paused:
            self._backlog += len(payload)
            if self._backlog > BACKLOG_LIMIT:
                self._hold(BACKLOG_HOLD)

    def send_all(self, messages: Sequence[JSONDict]) -> None:
        """Send JSON objects, in one piece if nothing of a program's own is in the way."""
        if not self.short_sends or self.state != OPEN:
            for message in messages:
                self.send(message)
            return
        payloads = [encode_message(message) for message in messages]
        self.send_texts(payloads)
        if self.output_paused:
            self._backlog += sum(map(len, payloads))
            if self._backlog > BACKLOG_LIMIT:
                self._hold(BACKLOG_HOLD)

    def sendJSON(self, body: JSONDict) -> None:
        """Send a dict as a JSON object; nothing happens when the connection is closing."""
        PushWire.send(self, body)

    @property
    def stranger(self) -> bool:
        """Whether there was no hello, and messages are to be short."""
        return self.session is None or self.session.awaiting_hello

    def holds(self, size: int) -> None:
        """So many bytes of a message that is not complete are kept."""
        self.factory.unfinished.hold(self, size, self.stranger)

    def shed(self) -> None:
        """All messages that are not complete take too much, and this is one of the longest."""
        if self.session is not None:
            self.session.close(TRY_AGAIN_LATER)

    def _max_message_size_exceeded(self, msg_size: int, max_msg_size: int, reason: str) -> None:
        """Autobahn's hook for ``max_message_size``: says why before it closes."""
        log.info("Message too big", size=msg_size, limit=max_msg_size)
        # What has arrived of it must not be looked at any more.
        self.data = b""
        self.failedByMe = True
        if self.session is not None:
            self.session.close(MESSAGE_TOO_BIG)

    # ---- both kinds of pause (spec/websocket 12)

    @property
    def paused(self) -> bool:
        """Same as ``output_paused``."""
        return self.output_paused

    def pause_reading(self) -> None:
        """Stop taking bytes from the user agent; frames already read are still dispatched."""
        self._hold(SESSION_HOLD)

    def resume_reading(self) -> None:
        """Undo :meth:`pause_reading`."""
        self._release(SESSION_HOLD)

    def _hold(self, reason: int) -> None:
        if self.state == OPEN:
            if not self._holds:
                self.transport.pauseProducing()
            self._holds |= reason

    def _release(self, reason: int) -> None:
        if self.state != OPEN or not self._holds & reason:
            return
        self._holds &= ~reason
        if not self._holds:
            self.transport.resumeProducing()
            if self._ping is not None and self.factory.auto_ping_timeout:
                # The pong may have been waiting behind the pause: quirk Q28.
                self.factory.pongs.start(self)

    def pauseProducing(self) -> None:
        """The transport's buffer is above ``SEND_BUFFER``."""
        self.output_paused = True

    def resumeProducing(self) -> None:
        """The transport's buffer is empty."""
        self.output_paused = False
        self._backlog = 0
        if self._owed_pong is not None:
            pong, self._owed_pong = self._owed_pong, None
            self.sendPong(pong)
        self._release(BACKLOG_HOLD)
        if self.session is not None:
            self.session.output_resumed()

    def stopProducing(self) -> None:
        """The transport is lost."""
        self.output_paused = True

    # ---- pings and time-outs

    def onPing(self, payload: bytes) -> None:
        """Autobahn's hook. While output is paused only the last ping is owed a pong (5.5.3)."""
        if self.output_paused:
            self._owed_pong = payload
        else:
            self.sendPong(payload)

    def onPong(self, payload: bytes) -> None:
        """Autobahn's hook."""
        if self._ping is not None and payload == self._ping:
            self._ping = None
            self.factory.pongs.cancel(self)
            self.factory.pings.start(self)

    def _sendAutoPing(self) -> None:
        """The ping interval is over: send one, or close a connection nobody serves."""
        factory = self.factory
        if self.session is None or self.state != OPEN:
            return
        if factory.auto_ping_timeout:
            factory.pongs.start(self)
        if not self._holds & SESSION_HOLD and not self.session.registered:
            self.session.close()
            return
        self._ping = os.urandom(2).hex().encode()
        self.sendPing(self._ping)

    def onAutoPingTimeout(self) -> None:
        """The pong has not come. While we do not read, it could not: quirk Q28."""
        if self._holds & SESSION_HOLD and self.state == OPEN:
            self.factory.pongs.start(self)
        else:
            super().onAutoPingTimeout()

    def timeoutConnection(self) -> None:
        """``hello_timeout`` is over.

        It limits the time to a hello and is off from then on: what it did in the original to
        idle sessions was a mistake (quirk Q4).
        """
        if self.session is None or not self.session.awaiting_hello:
            return
        self.session.close()

    # ---- closing

    def close(self, code: int | None = None) -> None:
        """Close: close frame, flush, FIN. The answer is not waited for (decisions/close).

        :param code: of the close frame; None for an empty one
        """
        if self.state == OPEN:
            self.sendCloseFrame(code=code)
            self._end_tcp()

    def sendClose(self, code: int | None = None, reason: str | None = None) -> None:
        """Autobahn's way to close; does what :meth:`close` does.

        :raises Exception: the code is neither 1000 nor one of 3000 to 4999
        """
        if self.state == OPEN:
            super().sendClose(code, reason)
            self._end_tcp()

    def _end_tcp(self) -> None:
        self.factory.closing.start(self)
        self.drop_unfinished()
        transport = self.transport
        self.unregisterProducer()
        if self._holds:
            # Or the end of the user agent's side would not be noticed.
            self._holds = 0
            transport.resumeProducing()
        if self._is_tls:
            transport.loseConnection()
        else:
            # Half a close: a whole one would be a reset, and lose the close frame, if the user
            # agent is sending something at this moment.
            transport.loseWriteConnection()

    def peer_closed(self) -> None:
        """The user agent has answered our close frame, so that nothing is left to wait for (3)."""
        # TLS would wait for an end of its own.
        self.dropConnection(abort=self._is_tls)

    def _closeConnection(self, abort: bool = False) -> None:
        """Autobahn's hook: end TCP, with or without sending what is buffered."""
        if not abort:
            self.factory.closing.start(self)
        super()._closeConnection(abort)

    def nukeConnection(self) -> None:
        """A closed connection's TCP has not ended: reset it."""
        self.transport.abortConnection()

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        """Autobahn's hook: TCP has ended, whether or not the handshake had been complete."""
        self.cleanUp(wasClean, code, reason)

    def cleanUp(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        """End the session; what it must save is saved in the background."""
        self.end_session()
        self.factory.lost(self)

    def end_session(self) -> None:
        """Let go of the session, which saves what was not acknowledged."""
        session, self.session = self.session, None
        if session is not None:
            saved = session.closed().addErrback(lambda failure: self.log_failure(failure))
            if not saved.called:
                self.factory.saving(saved)

    # ---- documented members (spec/python-api 8)

    @property
    def base_tags(self) -> list[str] | None:
        """Tags of the session's metrics, or None when there are none."""
        session = self.session
        return None if session is None or session.awaiting_hello else base_tags(session)

    def log_failure(self, failure: Failure, **kwargs: Any) -> None:
        """Log an unexpected error."""
        self.log.failure("Unexpected error", failure=failure, **kwargs)

    def _process(self, data: JSONDict) -> None:
        if self.session is not None:
            self.session.received(data)

    def process_hello(self, data: JSONDict) -> None:
        """Handle a hello, whatever its ``messageType`` says."""
        self._process({**data, "messageType": "hello"})

    def process_register(self, data: JSONDict) -> None:
        """Handle a register, whatever its ``messageType`` says."""
        self._process({**data, "messageType": "register"})

    def process_unregister(self, data: JSONDict) -> None:
        """Handle an unregister, whatever its ``messageType`` says."""
        self._process({**data, "messageType": "unregister"})

    def process_ack(self, data: JSONDict) -> None:
        """Handle an ack, whatever its ``messageType`` says."""
        self._process({**data, "messageType": "ack"})

    def process_nack(self, data: JSONDict) -> None:
        """Handle a nack, whatever its ``messageType`` says."""
        self._process({**data, "messageType": "nack"})

    def process_ping(self) -> None:
        """Handle the user agent's ``{}``."""
        self._process({})

    def process_notifications(self) -> None:
        """Look for stored notifications, as PUT /notif does."""
        self._check()

    def _check(self) -> None:
        if self.session is not None and self.session.uaid is not None:
            self.factory.node.check(self.session.uaid)
