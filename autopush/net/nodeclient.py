"""The client of the node-to-node hop: small HTTP/1.1 requests over kept connections.

A request costs a quarter of what twisted.web's Agent needs, and only its status comes back
(spec/websocket 19). One request at a time is on a connection; a node gets a bounded number of
connections, and requests beyond that wait their turn.
"""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import httptools
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from autopush.addresses import NODE_ORIGIN
from autopush.net.answer import Answer
from autopush.net.eager import send_now
from autopush.waiters import Waiters

if TYPE_CHECKING:
    from twisted.python.failure import Failure

CONNECTIONS_PER_NODE = 20
"""Connections to one node. With answers in a few milliseconds that is thousands a second."""

WAITING_PER_NODE = 1000
"""Requests that may wait for a connection to one node: what a node that hangs can pile up here."""

IDLE_TIMEOUT = 60
"""Seconds an unused connection is kept: less than the 75 after which a node closes it."""

GONE = 410
"""What :meth:`NodeClient.request` returns for the 404 of a node that says it is sure: nobody is
connected there, and nobody is about to be. Nodes before version 2 can't tell."""

SURE = ("X-Not-Connected", "sure")
"""The header by which a node says so."""

BODY_LIMIT = 64 * 1024
"""Bytes of an answer's body. Nodes send a sentence; the body is read and dropped."""

_URL = re.compile(NODE_ORIGIN + r"(?P<path>/[!-~]*)?")
_SURE = SURE[0].lower().encode()
_METHOD = re.compile(r"[A-Z]{1,16}")


class NodeGone(Exception):
    """The node can't be reached, or the connection failed before its answer was complete."""


class NodeBusy(NodeGone):
    """The node is alive as far as we know, but too many requests are waiting for it."""


class Address(NamedTuple):
    """Where a node listens."""

    secure: bool
    host: str
    port: int


def parse_url(url: str) -> tuple[Address, str, str]:
    """Split a URL into address, value of the Host header, and path with query.

    :raises NodeGone: it hasn't the shape of a node's URL
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise NodeGone("malformed node URL")
    scheme, host, port, path = match.groups()
    secure = scheme == "https"
    number = int(port) if port else 443 if secure else 80
    if not 0 < number < 65536:
        raise NodeGone("malformed node URL")
    authority = f"{host}:{port}" if port else host
    return Address(secure, host.strip("[]"), number), authority, path or "/"


class _Request:
    """A request from :meth:`NodeClient.request` until its Deferred fires."""

    __slots__ = ("data", "deadline", "done", "retried")

    def __init__(self, data: bytes, deadline: float) -> None:
        self.data = data
        self.deadline = deadline
        self.retried = False
        self.done: Deferred[int] | None = Deferred()

    def answer(self, status: int) -> None:
        done, self.done = self.done, None
        if done is not None:
            done.callback(status)

    def fail(self, error: Exception) -> None:
        done, self.done = self.done, None
        if done is not None:
            done.errback(error)


class _NodeAnswer(Answer):
    """An answer of a node.

    :ivar sure: its 404 is to be believed
    """

    def reset(self) -> None:
        super().reset()
        self.sure = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header has arrived."""
        if name.lower() == _SURE:
            self.sure = True
        else:
            super().on_header(name, value)


class _Connection(Protocol):
    """One connection to a node."""

    def __init__(self, pool: _Pool) -> None:
        self.pool = pool
        self.request: _Request | None = None
        self.used = False
        self.idle_since = 0.0
        self.transport: Any
        self._received = False
        self._answer: _NodeAnswer | None = None

    def connectionMade(self) -> None:
        try:
            self.transport.setTcpNoDelay(True)
        except (AttributeError, OSError):
            pass  # not TCP
        self._answer = _NodeAnswer()

    def send(self, request: _Request) -> None:
        """Put a request on the idle connection."""
        self.request = request
        self._received = False
        if self._answer is not None:
            self._answer.reset()
        rest = send_now(self.transport, request.data)
        if rest:
            self.transport.write(rest)

    def abort(self) -> None:
        """Cut the connection."""
        self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        answer = self._answer
        if self.request is None or answer is None:
            self.abort()  # nobody asked
            return
        self._received = True
        try:
            answer.feed(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail("malformed answer")
            return
        if answer.size > BODY_LIMIT:
            self._fail("answer too long")
        elif answer.complete:
            sure = answer.status == 404 and answer.sure
            self._answered(GONE if sure else answer.status, answer.keep)

    def _answered(self, status: int, keep: bool) -> None:
        request, self.request = self.request, None
        self.used = True
        if keep:
            self.pool.release(self)
        else:
            self.pool.discard(self)
            self.transport.loseConnection()
        if request is not None:
            request.answer(status)

    def _fail(self, reason: str) -> None:
        request, self.request = self.request, None
        self.pool.discard(self)
        self.abort()
        if request is not None:
            request.fail(NodeGone(reason))

    def expire(self) -> None:
        """The answer did not come in time."""
        self._fail("no answer in time")

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        answer, self._answer = self._answer, None
        request, self.request = self.request, None
        self.pool.discard(self)
        self.pool.closed(self)
        if request is None or request.done is None:
            return
        if answer is not None and answer.status >= 200 and not answer.framed:
            request.answer(answer.status)  # its body ended with the connection
        elif self.used and not self._received and not request.retried:
            # The node closed the idle connection just as we used it (RFC 9112 9.3.1).
            request.retried = True
            self.pool.submit(request)
        else:
            request.fail(NodeGone(reason.getErrorMessage()))


class _Pool:
    """The connections to one node, and the requests that wait for one."""

    def __init__(self, client: NodeClient, address: Address) -> None:
        self.client = client
        self.idle: list[_Connection] = []
        self.busy: set[_Connection] = set()
        self.open: set[_Connection] = set()
        self.connecting: dict[Deferred[Any], _Request] = {}
        self.waiting: deque[_Request] = deque()
        self._endpoint = client.endpoint(address)
        self._factory = Factory.forProtocol(lambda: _Connection(self))
        self._factory.noisy = False

    def submit(self, request: _Request) -> None:
        """Send the request, or let it wait its turn."""
        if self.client.closed:
            request.fail(NodeGone("client closed"))
        elif self.idle:
            self._use(self.idle.pop(), request)
        elif len(self.busy) + len(self.connecting) < CONNECTIONS_PER_NODE:
            self._connect(request)
        elif len(self.waiting) < WAITING_PER_NODE:
            self.waiting.append(request)
        else:
            request.fail(NodeBusy("too many requests are waiting for the node"))

    def _use(self, connection: _Connection, request: _Request) -> None:
        self.busy.add(connection)
        connection.send(request)

    def _connect(self, request: _Request) -> None:
        attempt = self._endpoint.connect(self._factory)
        self.connecting[attempt] = request
        attempt.addCallbacks(self._connected, self._failed, (attempt,), None, (attempt,), None)
        attempt.addErrback(self.client.log_unexpected)

    def _connected(self, connection: _Connection, attempt: Deferred[Any]) -> None:
        request = self.connecting.pop(attempt)
        self.open.add(connection)
        if request.done is None:
            self.release(connection)
        else:
            self._use(connection, request)

    def _failed(self, failure: Failure, attempt: Deferred[Any]) -> None:
        request = self.connecting.pop(attempt)
        request.fail(NodeGone(failure.getErrorMessage()))
        self._next()

    def release(self, connection: _Connection) -> None:
        """The connection may be used again."""
        self.busy.discard(connection)
        if self.client.closed:
            connection.abort()
            return
        while self.waiting:
            request = self.waiting.popleft()
            if request.done is not None:
                self._use(connection, request)
                return
        connection.idle_since = self.client.now()
        self.idle.append(connection)

    def discard(self, connection: _Connection) -> None:
        """The connection must not be used again."""
        if connection in self.busy:
            self.busy.discard(connection)
            self._next()
        elif connection in self.idle:
            self.idle.remove(connection)

    def closed(self, connection: _Connection) -> None:
        """The connection is closed."""
        self.open.discard(connection)
        self.client.connection_closed()

    def _next(self) -> None:
        if self.waiting:
            self.submit(self.waiting.popleft())

    def sweep(self, now: float) -> None:
        """End what takes too long, and connections nobody used for long."""
        while self.waiting and self.waiting[0].deadline < now:
            self.waiting.popleft().fail(NodeBusy("no connection to the node in time"))
        for attempt, request in list(self.connecting.items()):
            if request.deadline < now:
                attempt.cancel()
        for connection in list(self.busy):
            if connection.request is not None and connection.request.deadline < now:
                connection.expire()
        for connection in list(self.idle):
            if connection.idle_since + IDLE_TIMEOUT < now:
                self.idle.remove(connection)
                connection.transport.loseConnection()

    def close(self) -> None:
        """Fail what is under way and cut all connections."""
        waiting, self.waiting = self.waiting, deque()
        for request in waiting:
            request.fail(NodeGone("client closed"))
        for attempt in list(self.connecting):
            attempt.cancel()
        for connection in list(self.open):
            connection.abort()

    @property
    def empty(self) -> bool:
        return not (self.open or self.connecting or self.waiting)


class NodeClient:
    """Asks other connection nodes; shared by everything in the process.

    :param connect_timeout: seconds for the name look-up and for each connection attempt
    :param response_timeout: seconds from the request to its complete answer, on top of that
    :param trust_root: certificates to trust for https; default: the platform's

    Host names of https nodes are verified. Names are resolved off the reactor.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        connect_timeout: float = 1.0,
        response_timeout: float = 10.0,
        trust_root: Any = None,
    ) -> None:
        self.closed = False
        self._reactor = reactor
        self._connect_timeout = connect_timeout
        self._timeout = connect_timeout + response_timeout
        self._trust_root = trust_root
        self._pools: dict[Address, _Pool] = {}
        self._closing: Waiters[None] = Waiters()
        self._sweeper = LoopingCall(self._sweep)
        self._sweeper.clock = reactor

    def now(self) -> float:
        """Seconds on the reactor's clock."""
        seconds: float = self._reactor.seconds()
        return seconds

    def request(self, method: str, url: str, body: bytes = b"") -> Deferred[int]:
        """Send one request; fires with the status of the answer.

        :raises NodeGone: (as failure) no complete answer: malformed URL, name not found, no
            connection, connection lost, answer malformed or not in time. The node may have
            acted on the request all the same.
        :raises NodeBusy: (as failure) the request was never sent
        """
        try:
            address, authority, path = parse_url(url)
        except NodeGone as error:
            return fail(error)
        if _METHOD.fullmatch(method) is None:
            return fail(ValueError("malformed method"))
        head = f"{method} {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Length: {len(body)}\r\n"
        request = _Request(head.encode("ascii") + b"\r\n" + body, self.now() + self._timeout)
        done = request.done
        assert done is not None
        pool = self._pools.get(address)
        if pool is None:
            pool = self._pools[address] = _Pool(self, address)
        pool.submit(request)
        if not self._sweeper.running and not self.closed:
            self._sweeper.start(1.0, now=False)
        return done

    def endpoint(self, address: Address) -> Any:
        """How to connect to a node."""
        endpoint: Any = HostnameEndpoint(
            self._reactor, address.host, address.port, timeout=self._connect_timeout
        )
        if not address.secure:
            return endpoint
        options = optionsForClientTLS(address.host, trustRoot=self._trust_root)
        return wrapClientTLS(options, endpoint)

    def log_unexpected(self, failure: Failure) -> None:
        """Log what should not happen."""
        self.log.failure("Unhandled error in the node client", failure)

    def _sweep(self) -> None:
        try:
            now = self.now()
            for address, pool in list(self._pools.items()):
                pool.sweep(now)
                if pool.empty:
                    del self._pools[address]
        except Exception:
            self.log.failure("Unhandled error sweeping node connections")
        if not self._pools and self._sweeper.running:
            self._sweeper.stop()

    def close(self) -> Deferred[None]:
        """Fail what is under way; fires when all connections are closed."""
        self.closed = True
        if self._sweeper.running:
            self._sweeper.stop()
        for pool in list(self._pools.values()):
            pool.close()
        done = self._closing.wait()
        self.connection_closed()
        return done

    def connection_closed(self) -> None:
        """A pool has one connection less."""
        if self.closed and not any(pool.open for pool in self._pools.values()):
            self._closing.fire(None)


__all__ = ["NodeBusy", "NodeClient", "NodeGone", "parse_url"]
