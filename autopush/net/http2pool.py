"""A few HTTP/2 connections to one server, shared by any number of requests.

A request goes to the first connection with room, so that most traffic is on one; another is opened
only when those there are full. One that fails is tried again on another connection: up to
``max_attempts`` times, or a few more if the server certainly did not look at it.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.logger import Logger

from autopush.net.http2 import (
    CLOSE_WITHIN,
    Busy,
    Exchange,
    HeaderList,
    Http2Connection,
    Http2Error,
    Refused,
    Response,
    TimedOut,
    TransportFailed,
    Unprocessed,
)
from autopush.waiters import Waiters

MAX_WAITING = 1000
"""Requests that may wait for room: what a server that hangs can pile up here."""

MAX_REFUSALS = 5
"""Times a request may be turned away unseen before we give up."""

REFUSED_PAUSE = 0.1
"""Seconds before a request that was turned away is sent again; doubles each time."""

ASSUMED_STREAMS = 100
"""Room expected on a connection that is being made (RFC 9113 6.5.2 recommends no less)."""

FIRST_PAUSE = 0.5
"""Seconds without new connections after they failed ``max_attempts`` times; doubles each time."""

LONGEST_PAUSE = 30.0

PATIENCE = 1.0
"""Seconds up to which requests wait for the end of a pause; in a longer one they fail at once."""

SWEEP = 1.0
"""Seconds between looks at deadlines and connections."""


class Http2Pool:
    """Connections to one server.

    :param reactor: clock and timers
    :param endpoint: makes the endpoint to connect to; it must negotiate ``h2`` by ALPN
    :param max_connections: at most this many at a time
    :param max_attempts: times a request is sent before it fails
    :param timeout: seconds from the submission of a request to its complete answer
    :param connect_timeout: seconds until a new connection must be usable
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        endpoint: Callable[[], Any],
        max_connections: int,
        max_attempts: int,
        timeout: float,
        connect_timeout: float,
    ) -> None:
        self.connections: deque[Http2Connection] = deque()
        self._reactor = reactor
        self._endpoint = endpoint
        self._max_connections = max_connections
        self._max_attempts = max_attempts
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._waiting: deque[Exchange] = deque()
        self._pending: dict[Exchange, None] = {}  # ordered by deadline
        self._sockets: set[Http2Connection] = set()
        self._failures = 0
        self._retry_at = 0.0
        self._last_error: Http2Error = TransportFailed("not connected")
        self._sweeper: Any = None
        self._timers: set[Any] = set()
        self._waking = False
        self._closed = False
        self._closing: Waiters[None] = Waiters()

    def send(self, headers: HeaderList, body: bytes) -> Deferred[Response]:
        """Send a request; fires with its answer. May be cancelled.

        :raises Http2Error: (as failure) there was none
        """
        if self._closed:
            return fail(TransportFailed("closed"))
        if len(self._waiting) >= MAX_WAITING:
            return fail(Busy("too many requests are waiting"))
        exchange = Exchange(headers, body, self._reactor.seconds() + self._timeout, self._cancel)
        done = exchange.done
        assert done is not None
        self._pending[exchange] = None
        self._waiting.append(exchange)
        self._keep_sweeping()
        self.dispatch()
        return done

    def close(self) -> Deferred[None]:
        """Fail what is under way; fires when all connections are closed."""
        self._closed = True
        done = self._closing.wait()
        for timer in [*self._timers, *([self._sweeper] if self._sweeper else [])]:
            timer.cancel()
        self._sweeper = None
        self._timers.clear()
        for exchange in list(self._pending):
            self._finish(exchange, TransportFailed("closed"))
        for connection in list(self.connections):
            if connection.ready:
                connection.close()
            else:
                connection.abort(TransportFailed("closed"))
        if self._sockets:
            cut = self._reactor.callLater(CLOSE_WITHIN, self._cut)
            done.addBoth(lambda result: (cut.cancel() if cut.active() else None, result)[1])
        self._tell_closed()
        return done

    def _cut(self) -> None:
        for connection in list(self._sockets):
            connection.transport.abortConnection()

    # ---- what connections tell

    def opened(self, connection: Http2Connection) -> None:
        """A connection has a socket."""
        self._sockets.add(connection)

    def closed(self, connection: Http2Connection) -> None:
        """Its socket has gone."""
        self._sockets.discard(connection)
        self._tell_closed()

    def _tell_closed(self) -> None:
        if self._closed and not self._sockets:
            self._closing.fire(None)

    def retired(self, connection: Http2Connection, error: Http2Error | None) -> None:
        """A connection takes no more requests."""
        self.connections.remove(connection)
        if error is not None:
            self._last_error = error
        # One that never worked counts against the server, also if it left in peace.
        if not connection.has_answered and (connection.used or not connection.ready):
            self._failures += 1
            self._pause()
        if not connection.ready and not self.connections:
            for exchange in list(self._waiting):
                exchange.attempts += 1
                if exchange.attempts >= self._max_attempts:
                    self._waiting.remove(exchange)
                    self._finish(exchange, self._last_error)

    def _pause(self) -> None:
        beyond = self._failures - self._max_attempts
        if beyond >= 0:
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(beyond, 10))
            self._retry_at = self._reactor.seconds() + pause * random.uniform(0.75, 1.25)

    def answered(self, exchange: Exchange, response: Response) -> None:
        """A request got its answer."""
        self._failures = 0
        self._finish(exchange, response)

    def failed(self, exchange: Exchange, error: Http2Error) -> None:
        """A request got no answer on one connection: try another, or give up."""
        exchange.connection = None
        if exchange.done is None:
            return
        if isinstance(error, Unprocessed):
            exchange.refusals += 1
            again = exchange.refusals <= MAX_REFUSALS
        else:
            exchange.attempts += 1
            again = exchange.attempts < self._max_attempts
        if not again:
            self._finish(exchange, error)
        elif isinstance(error, Refused):
            self._later(REFUSED_PAUSE * 2 ** (exchange.refusals - 1), exchange)
        else:
            self._waiting.appendleft(exchange)

    def _later(self, pause: float, exchange: Exchange) -> None:
        def again() -> None:
            self._waiting.appendleft(exchange)
            self.dispatch()

        self._call_later(pause, again)

    def _call_later(self, pause: float, function: Callable[[], None]) -> None:
        def call() -> None:
            self._timers.discard(timer)
            function()

        timer = self._reactor.callLater(pause, call)
        self._timers.add(timer)

    # ---- sending

    def dispatch(self) -> None:
        """Put waiting requests on connections with room; make connections where that is short."""
        waiting = self._waiting
        while waiting:
            if waiting[0].done is None:
                waiting.popleft()
                continue
            connection = next((one for one in self.connections if one.has_room), None)
            if connection is None:
                break
            connection.start(waiting.popleft())
        if waiting and not self._closed:
            self._connect_or_give_up()

    def _connect_or_give_up(self) -> None:
        if self._reactor.seconds() >= self._retry_at:
            opening = sum(not one.ready for one in self.connections)
            while (
                len(self.connections) < self._max_connections
                and len(self._waiting) > opening * ASSUMED_STREAMS
            ):
                opening += 1
                connection = Http2Connection(self, self._reactor, self._connect_timeout)
                self.connections.append(connection)
                connection.connect(self._endpoint())
        elif not self.connections:
            pause = self._retry_at - self._reactor.seconds()
            if pause > PATIENCE:
                while self._waiting:
                    self._finish(self._waiting.popleft(), self._last_error)
            elif not self._waking:
                self._waking = True
                self._call_later(pause, self._wake)

    def _wake(self) -> None:
        self._waking = False
        self.dispatch()

    def _finish(self, exchange: Exchange, result: Response | Http2Error) -> None:
        self._pending.pop(exchange, None)
        done, exchange.done = exchange.done, None
        exchange.body = b""
        if done is None:
            return
        if isinstance(result, Response):
            done.callback(result)
        else:
            done.errback(result)

    def _cancel(self, exchange: Exchange) -> None:
        self._drop(exchange, CancelledError())

    def _drop(self, exchange: Exchange, error: Exception) -> None:
        connection, exchange.connection = exchange.connection, None
        done, exchange.done = exchange.done, None
        self._pending.pop(exchange, None)
        if connection is not None:
            connection.cancel(exchange)
        if done is not None:
            done.errback(error)

    # ---- time

    def _keep_sweeping(self) -> None:
        if self._sweeper is None and not self._closed:
            self._sweeper = self._reactor.callLater(SWEEP, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        try:
            now = self._reactor.seconds()
            for exchange in list(self._pending):
                if exchange.deadline > now:
                    break
                self._drop(exchange, TimedOut("no answer in time"))
            for connection in [*self.connections, *self._sockets - set(self.connections)]:
                connection.check(now)
            self.dispatch()
        except Exception:
            self.log.failure("Unhandled error sweeping HTTP/2 connections")
        if self.connections or self._pending or self._sockets:
            self._keep_sweeping()
