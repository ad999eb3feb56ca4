"""A load generator on plain sockets and epoll: application servers and browsers.

One thread, prebuilt requests, and no more parsing than it takes to know what came, so that it needs
a fraction of the CPU of the server it drives.
"""

from __future__ import annotations

import base64
import json
import os
import select
import socket
import ssl
import struct
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

HANDSHAKE = (
    "GET / HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
)
ACK = b'{"messageType":"ack","updates":[{"channelID":"%s","version":"%s","code":100}]}'

CLOSE = b"\x88"
GOING_AWAY = CLOSE + b"\x82\0\0\0\0\x03\xe9"
"""A close frame of a browser that quits, its mask zero."""

BIND_ADDRESS_NO_PORT = 24
"""Linux: choose the port when it is known where the connection leads, so that it only has to be
free for that (ip(7); Python has no name for it before 3.12)."""

STALL = 60
"""Seconds without any progress after which a run is given up."""


class Stalled(Exception):
    """The server has not answered for a long time."""


class Loop:
    """epoll and the connections in it.

    :param source: address that connections come from; None: the kernel's choice, which has ports
        for 28,000 of them
    :param tls: all connections are made with it
    """

    def __init__(self, source: str | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.source = source
        self.tls = tls
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._later: deque[tuple[float, Callable[[], None]]] = deque()

    def later(self, delay: float, action: Callable[[], None]) -> None:
        """Do something in ``delay`` seconds, which must be the same for all that wait."""
        self._later.append((time.monotonic() + delay, action))

    def run_out(self) -> None:
        """Handle events until nothing waits to be done later."""
        self.run(lambda: not self._later)

    def _do_what_is_due(self) -> float:
        """Returns the seconds until more is due."""
        now = time.monotonic()
        while self._later:
            due, action = self._later[0]
            if due > now:
                return due - now
            self._later.popleft()
            action()
        return 1.0

    def add(self, connection: Connection) -> None:
        """Watch a connection that is being made."""
        fd = connection.sock.fileno()
        self._connections[fd] = connection
        self._epoll.register(fd, select.EPOLLOUT)

    def watch(self, connection: Connection, output: bool) -> None:
        """Watch for input, and for room for output."""
        events = select.EPOLLIN | (select.EPOLLOUT if output else 0)
        self._epoll.modify(connection.sock.fileno(), events)

    def remove(self, connection: Connection) -> None:
        """Forget a connection."""
        fd = connection.sock.fileno()
        if self._connections.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def run(self, over: Callable[[], bool], tick: Callable[[], float] | None = None) -> None:
        """Handle events until ``over()``.

        :param tick: called in each turn; returns the seconds until it wants to be called again
        :raises Stalled: nothing has happened for a while
        """
        poll, connections = self._epoll.poll, self._connections
        last = time.monotonic()
        while not over():
            wait = min(self._do_what_is_due(), 1.0 if tick is None else tick())
            events = poll(wait, 512)
            if events:
                last = time.monotonic()
            elif time.monotonic() - last > STALL:
                raise Stalled
            for fd, event in events:
                connection = connections.get(fd)
                if connection is not None:
                    connection.ready(event)


class Connection:
    """A non-blocking TCP connection."""

    __slots__ = ("_opened", "_out", "data", "loop", "sock")

    def __init__(self, loop: Loop, address: tuple[str, int]) -> None:
        self.loop = loop
        self.data = b""
        self._opened = False
        self._out = b""
        self.sock = socket.socket()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if loop.source is not None:
            self.sock.setsockopt(socket.IPPROTO_IP, BIND_ADDRESS_NO_PORT, 1)
            self.sock.bind((loop.source, 0))
        if loop.tls is None:
            self.sock.setblocking(False)
            self.sock.connect_ex(address)
        else:
            # One handshake after another: what the server has to do is the same.
            self.sock.connect(address)
            self.sock = loop.tls.wrap_socket(self.sock)
            self.sock.setblocking(False)
        loop.add(self)

    def ready(self, event: int) -> None:
        """Something can be read or written."""
        if event & select.EPOLLOUT:
            if not self._opened:
                self._opened = True
                self.loop.watch(self, bool(self._out))
                self.opened()
            else:
                self._flush()
        if event & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            try:
                data = self.read()
            except (BlockingIOError, ssl.SSLWantReadError):
                return
            if not data:
                self.ended()
                return
            self.data = self.data + data if self.data else data
            self.received()

    def read(self) -> bytes:
        """What has come."""
        return self.sock.recv(65536)

    def send(self, data: bytes) -> None:
        """Write now, or when there is room."""
        if self._out:
            self._out += data
            return
        try:
            sent = self.sock.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError):
            sent = 0
        if sent < len(data):
            self._out = data[sent:]
            self.loop.watch(self, True)

    def _flush(self) -> None:
        out, self._out = self._out, b""
        if out:
            self.send(out)
        if not self._out:
            self.loop.watch(self, False)

    def close(self) -> None:
        """End the connection."""
        self.loop.remove(self)
        self.sock.close()

    def opened(self) -> None:
        """The connection is made."""

    def ended(self) -> None:
        """The server has ended the connection."""
        raise ConnectionError("the server has closed a connection")

    def received(self) -> None:
        """There is more in ``data``."""
        raise NotImplementedError


class Poster(Connection):
    """A keep-alive connection of an application server; one request at a time.

    It is made again where the server has ended it because nothing was sent for a while.
    """

    __slots__ = ("_address", "_asked", "answered")

    def __init__(self, loop: Loop, address: tuple[str, int]) -> None:
        super().__init__(loop, address)
        self._address = address
        self._asked = False
        self.answered: Callable[[Poster, int], None] = lambda poster, status: None

    def send(self, data: bytes) -> None:
        self._asked = True
        super().send(data)

    def ended(self) -> None:
        if self._asked:
            super().ended()
        self.close()
        super().__init__(self.loop, self._address)

    def received(self) -> None:
        data = self.data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return
        at = data.find(b"Content-Length: ", 0, end)
        length = int(data[at + 16 : data.index(b"\r\n", at)]) if at >= 0 else 0
        if len(data) < end + 4 + length:
            return
        self.data = data[end + 4 + length :]
        self._asked = False
        self.answered(self, int(data[9:12]))


def client_frame(payload: bytes) -> bytes:
    """A text frame whose mask is zero."""
    length = len(payload)
    if length < 126:
        head = struct.pack("!BB", 0x81, 0x80 | length)
    else:
        head = struct.pack("!BBH", 0x81, 0xFE, length)
    return head + b"\0\0\0\0" + payload


class Browser(Connection):
    """A user agent: says hello, subscribes if told to, then acknowledges what comes.

    :param uaid: of a user who returns
    :param key: subscribe, restricted to this application server key (``""``: not restricted)
    :param ready: called when it is set up
    :ivar delay: seconds until it acknowledges, as across a network; None: it leaves that to others
    :ivar ack: frame that acknowledges what came last
    :ivar told: called when it is told of broadcasts
    """

    __slots__ = (
        "_handshake",
        "_key",
        "_ready",
        "ack",
        "channel",
        "delay",
        "endpoint",
        "notified",
        "told",
        "uaid",
    )

    def __init__(
        self,
        loop: Loop,
        address: tuple[str, int],
        ready: Callable[[Browser], None],
        uaid: str | None = None,
        key: str | None = None,
    ) -> None:
        super().__init__(loop, address)
        self.uaid = uaid
        self._key = key
        self._ready = ready
        self._handshake = True
        self.delay: float | None = 0.0
        self.ack = b""
        self.channel = ""
        self.endpoint = ""
        self.notified: Callable[[Browser], None] | None = None
        self.told: Callable[[Browser], None] | None = None

    def opened(self) -> None:
        host = "{}:{}".format(*self.sock.getpeername())
        key = base64.b64encode(os.urandom(16)).decode()
        self.send(HANDSHAKE.format(host=host, key=key).encode())

    def received(self) -> None:
        if self._handshake:
            end = self.data.find(b"\r\n\r\n")
            if end < 0:
                return
            assert self.data.startswith(b"HTTP/1.1 101 "), self.data
            self.data = self.data[end + 4 :]
            self._handshake = False
            hello: dict[str, Any] = {"messageType": "hello", "use_webpush": True}
            if self.uaid is not None:
                hello["uaid"] = self.uaid
            self.say(hello)
        self._frames()

    def _frames(self) -> None:
        data, at = self.data, 0
        while len(data) - at >= 2:
            length, head = data[at + 1], 2
            if length == 126:
                if len(data) - at < 4:
                    break
                length, head = (data[at + 2] << 8) | data[at + 3], 4
            if len(data) - at < head + length:
                break
            assert data[at] == 0x81, data[at : at + head + length]
            self._message(data[at + head : at + head + length])
            at += head + length
        self.data = data[at:]

    def _message(self, payload: bytes) -> None:
        message = json.loads(payload)
        kind = message["messageType"]
        if kind == "notification":
            ids = message["channelID"].encode(), message["version"].encode()
            self.ack = client_frame(ACK % ids)
            if self.delay:
                self.loop.later(self.delay, partial(self.send, self.ack))
            elif self.delay is not None:
                self.send(self.ack)
            if self.notified is not None:
                self.notified(self)
        elif kind == "broadcast":
            if self.told is not None:
                self.told(self)
        elif kind == "hello":
            assert message["status"] == 200, message
            assert self.uaid in (None, message["uaid"]), "a user has been forgotten"
            self.uaid = message["uaid"]
            if self._key is None:
                self._ready(self)
            else:
                self.subscribe(self._key, self._ready)
        elif kind == "register":
            assert message["status"] == 200, message
            self.endpoint = message["pushEndpoint"]
            self._ready(self)

    def subscribe(self, key: str, ready: Callable[[Browser], None]) -> None:
        """Make a subscription; ``ready`` is called when it is there."""
        self._ready = ready
        self.channel = str(uuid.uuid4())
        command = {"messageType": "register", "channelID": self.channel}
        self.say({**command, "key": key} if key else command)

    def say(self, message: dict[str, Any]) -> None:
        """Send a message."""
        self.send(client_frame(json.dumps(message).encode()))


class Visitor(Browser):
    """A user agent that says hello and takes its leave; ``ready`` when the server has ended TCP."""

    __slots__ = ("_left",)

    def __init__(
        self,
        loop: Loop,
        address: tuple[str, int],
        ready: Callable[[Browser], None],
        uaid: str | None = None,
        key: str | None = None,
    ) -> None:
        super().__init__(loop, address, self._leave, uaid, key)
        self._left = ready

    def _leave(self, _: Browser) -> None:
        self.send(GOING_AWAY)

    def _frames(self) -> None:
        if self.data[:1] != CLOSE:
            super()._frames()

    def ended(self) -> None:
        self.close()
        self._left(self)


def connect_browsers(
    loop: Loop,
    address: tuple[str, int],
    count: int,
    uaids: Sequence[str] | None = None,
    key: str | None = None,
    concurrency: int = 32,
    browser: type[Browser] = Browser,
) -> list[Browser]:
    """Connect browsers, so many at a time, and return them when all are ready."""
    done: list[Browser] = []
    started = 0

    def start() -> None:
        nonlocal started
        if started < count:
            uaid = uaids[started] if uaids is not None else None
            started += 1
            browser(loop, address, ready, uaid, key)

    def ready(browser: Browser) -> None:
        done.append(browser)
        start()

    for _ in range(min(concurrency, count)):
        start()
    loop.run(lambda: len(done) == count)
    return done


def subscribe(loop: Loop, browsers: Sequence[Browser], key: str) -> None:
    """Make a subscription for each of some connected browsers."""
    left = len(browsers)

    def ready(browser: Browser) -> None:
        nonlocal left
        left -= 1

    for browser in browsers:
        browser.subscribe(key, ready)
    loop.run(lambda: not left)


class Flow:
    """Notifications: each poster sends one, waits for the answer (and, if its browser is connected,
    for the frame), then sends the next.

    :param requests: request bytes, one by one, and the browser they are for (None: not connected)
    :param rate: notifications a second to start; None: as fast as they are answered
    """

    def __init__(
        self,
        loop: Loop,
        posters: Sequence[Poster],
        requests: Iterable[tuple[bytes, Browser | None]],
        rate: float | None = None,
    ) -> None:
        self._loop = loop
        self._waiting = deque(requests)
        self._free = deque(posters)
        self._rate = rate
        self.count = len(self._waiting)
        self.done = 0
        self.latencies: list[float] = []
        self._busy: dict[Poster, list[Any]] = {}
        self._by_browser: dict[Browser, Poster] = {}
        self._started = 0
        self._start_time = 0.0
        for poster in posters:
            poster.answered = self._answered

    def run(self, over: Callable[[], bool] | None = None) -> float:
        """Run until ``over()``, or all of it; returns seconds."""
        self._start_time = start = time.monotonic()
        self._start_more()
        self._loop.run(over or (lambda: self.done == self.count), self._start_more)
        return time.monotonic() - start

    def _start_more(self) -> float:
        while self._waiting and self._free:
            if self._rate is not None:
                due = self._start_time + self._started / self._rate
                wait = due - time.monotonic()
                if wait > 0:
                    return wait
            if self._waiting[0][1] in self._by_browser:
                self._waiting.rotate(-1)  # its last message is on the way
                if self._waiting[0][1] in self._by_browser:
                    break
            self._start(self._free.popleft(), *self._waiting.popleft())
        return 1.0

    def _start(self, poster: Poster, request: bytes, browser: Browser | None) -> None:
        self._started += 1
        if browser is not None:
            browser.notified = self._notified
            self._by_browser[browser] = poster
        self._busy[poster] = [time.perf_counter(), 1 if browser is None else 2]
        poster.send(request)

    def _answered(self, poster: Poster, status: int) -> None:
        if status != 201:
            raise AssertionError(f"a message was answered {status}")
        self._half(poster)

    def _notified(self, browser: Browser) -> None:
        poster = self._by_browser.pop(browser)
        self.latencies.append(time.perf_counter() - self._busy[poster][0])
        self._half(poster)

    def _half(self, poster: Poster) -> None:
        state = self._busy[poster]
        state[1] -= 1
        if not state[1]:
            del self._busy[poster]
            self._free.append(poster)
            self.done += 1
            self._start_more()
