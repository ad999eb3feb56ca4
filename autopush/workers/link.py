"""The way from one worker to another: one connection, many requests at a time.

The same requests as those of the internal API (spec/websocket 19), without HTTP around them. A
request has a length (4 bytes), a number (4 bytes), a line such as ``PUT /push/<uaid>``, and what
HTTP would have as its body; the answer a length, the number, and HTTP's status (2 bytes). What is
written in one turn of the event loop goes into one ``send``: at full load a turn has several
requests for the same worker, and several answers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure

from autopush.exceptions import StoreError
from autopush.net.eager import send_now
from autopush.net.nodeclient import GONE, WAITING_PER_NODE, NodeBusy, NodeClient, NodeGone
from autopush.session import Delivery, Node
from autopush.web.nodes import MAX_DIGITS, not_stored, parse_notification

MAX_LENGTH = 1024 * 1024
"""Bytes of a request, at least; twice ``max_data`` where that is more, since base64 takes a third
and the rest is headers. Only workers of this service connect."""

NUMBER = struct.Struct("!I")
ANSWER = struct.Struct("!IIH")
"""Length of what follows, number of the request, status."""

PUSHED = {Delivery.DELIVERED: 200, Delivery.BUSY: 503, Delivery.NOT_CONNECTED: GONE}
CHECKED = {Delivery.DELIVERED: 200, Delivery.BUSY: 202, Delivery.NOT_CONNECTED: GONE}

log = Logger()


class Link(Int32StringReceiver):
    """One end: writes at the end of a turn.

    :param clock: IReactorTime
    """

    MAX_LENGTH = MAX_LENGTH
    transport: Any

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._out: list[bytes] = []

    def put(self, data: bytes) -> None:
        """Write with whatever else this turn brings."""
        if not self._out:
            self._clock.callLater(0, self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        data, self._out = b"".join(self._out), []
        rest = send_now(self.transport, data)
        if rest:
            self.transport.write(rest)


class Answering(Link):
    """The end of the worker that is asked.

    :param node: its sessions
    :param max_data: bytes of the longest message
    """

    def __init__(self, clock: Any, node: Node, max_data: int = 0) -> None:
        super().__init__(clock)
        self._node = node
        self.MAX_LENGTH = max(MAX_LENGTH, 2 * max_data)

    def stringReceived(self, string: bytes) -> None:
        line, _, body = string[4:].partition(b"\n")
        (number,) = NUMBER.unpack_from(string)
        try:
            status = answer(self._node, line.decode("ascii"), body)
            if isinstance(status, int):
                self._answer(status, number)
            else:
                status.addErrback(_failed).addCallback(self._answer, number)
        except Exception:
            self._answer(_failed(Failure()), number)

    def _answer(self, status: int, number: int) -> None:
        self.put(ANSWER.pack(6, number, status))


def _failed(failure: Failure) -> int:
    if isinstance(failure.value, StoreError):
        not_stored(failure.value)
        return 503
    log.failure("Unexpected error", failure)
    return 500


def answer(node: Node, line: str, body: bytes) -> int | Deferred[int]:
    """Do what a request asks for; returns HTTP's status.

    :param line: method and path
    :raises ValueError: it is no request, or not about a notification
    """
    method, _, path = line.partition(" ")
    _, what, uaid, *rest = path.split("/")
    if (method, what) == ("PUT", "push"):
        if uaid not in node.clients and uaid not in node.identifying:
            return GONE
        delivering = Deferred.fromCoroutine(node.deliver(uaid, parse_notification(uaid, body)))
        return delivering.addCallback(PUSHED.__getitem__)
    if (method, what) == ("PUT", "notif"):
        delivery = node.check(uaid)
        if delivery is Delivery.DELIVERED:
            node.metrics.increment("ua.notification_check")
        return CHECKED[delivery]
    if (method, what) == ("DELETE", "notif") and len(rest[0]) <= MAX_DIGITS:
        node.disconnect(uaid, int(rest[0]))
        return 200
    raise ValueError("malformed request")


class Asking(Link):
    """The end of the worker that asks."""

    def __init__(self, clock: Any, ended: Callable[[], None]) -> None:
        super().__init__(clock)
        self._ended = ended
        self.waiting: dict[int, tuple[Deferred[int], float]] = {}
        """Requests that are not answered, by number: with when it is too late."""
        self._number = 0

    def ask(self, data: bytes, deadline: float, done: Deferred[int]) -> None:
        """Send a request.

        :param data: its line and body
        """
        self._number = number = self._number + 1 & 0xFFFFFFFF
        self.waiting[number] = done, deadline
        self.put(NUMBER.pack(len(data) + 4) + NUMBER.pack(number) + data)

    def stringReceived(self, string: bytes) -> None:
        _, number, status = ANSWER.unpack(NUMBER.pack(6) + string)
        waiting = self.waiting.pop(number, None)
        if waiting is not None:  # else it came too late
            waiting[0].callback(status)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._ended()
        self.fail_before(float("inf"), reason.getErrorMessage())

    def fail_before(self, now: float, reason: str) -> None:
        """Give up requests whose deadline has come."""
        late = [number for number, (_, deadline) in self.waiting.items() if deadline < now]
        for number in late:
            self.waiting.pop(number)[0].errback(NodeGone(reason))


class _Way:
    """The way to one worker: its connection, made when it is needed."""

    def __init__(self, reactor: Any, path: str, timeout: float) -> None:
        self._reactor = reactor
        self._endpoint = UNIXClientEndpoint(reactor, path, timeout)
        self._factory = Factory.forProtocol(self._build)
        self._factory.noisy = False
        self._link: Asking | None = None
        self._attempt: Deferred[Any] | None = None
        """While it connects."""
        self._connecting: list[tuple[bytes, float, Deferred[int]]] = []

    def ask(self, data: bytes, deadline: float) -> Deferred[int]:
        """Send a request; fires with the status."""
        done: Deferred[int] = Deferred()
        if self._link is not None:
            if len(self._link.waiting) >= WAITING_PER_NODE:
                return fail(NodeBusy("too many requests are waiting for the worker"))
            self._link.ask(data, deadline, done)
            return done
        if len(self._connecting) >= WAITING_PER_NODE:
            return fail(NodeBusy("too many requests are waiting for the worker"))
        self._connecting.append((data, deadline, done))
        if len(self._connecting) == 1:
            self._attempt = self._endpoint.connect(self._factory)
            self._attempt.addCallbacks(self._connected, self._refused)
        return done

    def sweep(self, now: float) -> None:
        """End what takes too long."""
        if self._link is not None:
            self._link.fail_before(now, "no answer in time")

    def close(self) -> None:
        """Cut the connection, or give up making it."""
        if self._attempt is not None:
            self._attempt.cancel()
        if self._link is not None:
            self._link.transport.abortConnection()

    def _build(self) -> Asking:
        return Asking(self._reactor, self._lost)

    def _connected(self, link: Asking) -> None:
        self._link, self._attempt = link, None
        waiting, self._connecting = self._connecting, []
        for request in waiting:
            link.ask(*request)

    def _refused(self, failure: Failure) -> None:
        self._attempt = None
        waiting, self._connecting = self._connecting, []
        for _, _, done in waiting:
            done.errback(NodeGone(failure.getErrorMessage()))

    def _lost(self) -> None:
        self._link = None


class WorkerClient(NodeClient):
    """Asks the other workers, and nobody else.

    :param sockets: where they listen, by the host in their node ids
    :param connect_timeout: seconds
    :param response_timeout: seconds until the answer, on top of that
    """

    def __init__(
        self,
        reactor: Any,
        sockets: Mapping[str, str],
        connect_timeout: float = 1.0,
        response_timeout: float = 10.0,
    ) -> None:
        super().__init__(reactor, connect_timeout, response_timeout)
        self._within = connect_timeout + response_timeout
        self._ways = {
            f"http://{host}": _Way(reactor, path, connect_timeout) for host, path in sockets.items()
        }
        self._sweeping = LoopingCall(self._sweep_ways)
        self._sweeping.clock = reactor

    def request(self, method: str, url: str, body: bytes = b"") -> Deferred[int]:
        """Send one request; as :meth:`NodeClient.request`."""
        way = self._ways.get(url[: url.find("/", 7)])
        if way is None or self.closed:
            return fail(NodeGone("not a worker of this service"))
        if not self._sweeping.running:
            self._sweeping.start(1.0, now=False)
        line = f"{method} {url[url.find('/', 7) :]}\n".encode("ascii")
        return way.ask(line + body, self.now() + self._within)

    def _sweep_ways(self) -> None:
        now = self.now()
        for way in self._ways.values():
            way.sweep(now)

    def close(self) -> Deferred[None]:
        """Fail what is under way."""
        self.closed = True
        if self._sweeping.running:
            self._sweeping.stop()
        for way in self._ways.values():
            way.close()
        return succeed(None)


def link_factory(clock: Any, node: Node, max_data: int = 0) -> Factory[Answering]:
    """Return what answers the other workers; see :class:`Answering`."""
    factory = Factory.forProtocol(lambda: Answering(clock, node, max_data))
    factory.noisy = False
    return factory
