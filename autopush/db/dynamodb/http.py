"""How requests get to DynamoDB: thinner than botocore's own way, which is half of a call's cost.

botocore asks handlers of its public event ``before-send`` whether one of them has the answer; what
it builds, signs and reads stays as it is. (:mod:`~autopush.db.dynamodb.direct` does even that.)
Each thread of the pool keeps a connection. Nothing is sent twice: whether to try again is for the
caller to say.
"""

from __future__ import annotations

import functools
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httptools
from botocore import exceptions as boto
from botocore.awsrequest import AWSResponse, HeadersDict
from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies

from autopush.net.answer import Answer

UNUSED = 60
"""Seconds after which an unused connection is not trusted any more: somebody on the way may have
forgotten it without a word."""

READ_SIZE = 65536

HEADERS_OF_OURS = frozenset({"host", "content-length", "connection", "expect"})


class Address(NamedTuple):
    """Where a request goes."""

    secure: bool
    host: str
    port: int
    authority: str


class Limits(NamedTuple):
    """Seconds to connect, and to wait for data."""

    connect: float
    read: float


@functools.lru_cache(64)
def address_of(origin: str) -> Address:
    """Take apart ``scheme://authority``."""
    parts = urlsplit(origin)
    secure = parts.scheme == "https"
    return Address(
        secure, parts.hostname or "", parts.port or (443 if secure else 80), parts.netloc
    )


def split_url(url: str) -> tuple[str, str]:
    """Return ``scheme://authority``, and the path with the query."""
    at = url.find("/", url.index("://") + 3)
    return (url, "/") if at < 0 else (url[:at], url[at:])


class Body:
    """The answer's body, as botocore reads it."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def stream(self, *args: Any, **kwargs: Any) -> Iterator[bytes]:
        """Yield the body."""
        yield self._data


class WholeAnswer(Answer):
    """An answer with its headers and its body."""

    def reset(self) -> None:
        super().reset()
        self.headers: list[tuple[str, str]] = []
        self.body: list[bytes] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_body(self, data: bytes) -> None:
        self.body.append(data)


class Connection:
    """A connection of one thread; one request at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._used = time.monotonic()

    def usable(self) -> bool:
        """Whether the other end has neither closed it nor said anything nobody asked for."""
        return time.monotonic() - self._used < UNUSED and not self._poll.poll(0)

    def exchange(self, request: bytes) -> WholeAnswer:
        """Send a request and read its answer.

        :raises OSError: as the name says; the request may have been carried out
        :raises httptools.HttpParserError: that is no HTTP
        """
        self._sock.sendall(request)
        answer = WholeAnswer()
        while not answer.complete:
            data = self._sock.recv(READ_SIZE)
            if not data:
                raise ConnectionResetError("the connection was closed without an answer")
            answer.feed(data)
        self._used = time.monotonic()
        return answer

    def close(self) -> None:
        """End it."""
        self._sock.close()


class ThinTransport:
    """A handler of botocore's ``before-send``.

    :param limits: time-outs
    :param tls: for https
    :ivar observe: is told about each prepared request
    """

    def __init__(self, limits: Limits, tls: ssl.SSLContext | None) -> None:
        self._limits = limits
        self._tls = tls
        self._kept = threading.local()
        self.observe: Callable[[Any], None] | None = None

    def __call__(self, request: Any, **kwargs: Any) -> AWSResponse:
        """Send the prepared request.

        :raises botocore.exceptions.HTTPClientError: as botocore's own way does
        """
        if self.observe is not None:
            self.observe(request)
        origin, path = split_url(request.url)
        address = address_of(origin)
        data = message(request, address.authority, path)
        status, headers, body = self.exchange(address, request.url, data)
        return AWSResponse(request.url, status, HeadersDict(headers), Body(body))

    def exchange(
        self, address: Address, url: str, request: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """Send a request on this thread's connection; returns status, headers and body.

        :param url: for errors
        :raises botocore.exceptions.HTTPClientError: as botocore's own way does
        """
        connection = self._connection(address, url)
        try:
            answer = connection.exchange(request)
        except BaseException as error:
            connection.close()
            if isinstance(error, TimeoutError):
                raise boto.ReadTimeoutError(endpoint_url=url, error=error) from error
            if isinstance(error, OSError | httptools.HttpParserError):
                raise boto.ConnectionClosedError(endpoint_url=url, error=error) from error
            raise
        if answer.keep:
            self._kept.connection = (address, connection)
        else:
            connection.close()
        body = answer.body
        return answer.status, answer.headers, body[0] if len(body) == 1 else b"".join(body)

    def _connection(self, address: Address, url: str) -> Connection:
        """The thread's connection, or a new one; it is the thread's again once it is free."""
        kept = getattr(self._kept, "connection", None)
        self._kept.connection = None
        if kept is not None:
            if kept[0] == address and kept[1].usable():
                connection: Connection = kept[1]
                return connection
            kept[1].close()
        try:
            return self._connect(address)
        except TimeoutError as error:
            raise boto.ConnectTimeoutError(endpoint_url=url, error=error) from error
        except ssl.SSLError as error:
            raise boto.SSLError(endpoint_url=url, error=error) from error
        except OSError as error:
            raise boto.EndpointConnectionError(endpoint_url=url, error=error) from error

    def _connect(self, address: Address) -> Connection:
        sock = socket.create_connection((address.host, address.port), self._limits.connect)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if address.secure:
                assert self._tls is not None
                sock = self._tls.wrap_socket(sock, server_hostname=address.host)
            sock.settimeout(self._limits.read)
        except BaseException:
            sock.close()
            raise
        return Connection(sock)


def message(request: Any, authority: str, path: str) -> bytes:
    """The request as HTTP/1.1."""
    body = request.body or b""
    if isinstance(body, str):
        body = body.encode()
    lines = [
        f"{request.method} {path} HTTP/1.1",
        f"Host: {authority}",
        f"Content-Length: {len(body)}",
    ]
    for name, value in request.headers.items():
        if name.lower() not in HEADERS_OF_OURS:
            text = value if isinstance(value, str) else value.decode("latin-1")
            lines.append(f"{name}: {text}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def use_thin_transport(client: Any, ca_bundle: str | None = None) -> ThinTransport | None:
    """Let a boto3 client send its requests this way.

    :param ca_bundle: file with the authorities to trust; None: botocore's
    :returns: None if a proxy is in the way: then it stays with its own
    """
    url = client.meta.endpoint_url
    if get_environ_proxies(url):
        return None
    tls = None
    if url.startswith("https:"):
        tls = ssl.create_default_context(cafile=ca_bundle or get_cert_path(True))
        tls.minimum_version = ssl.TLSVersion.TLSv1_2
    config = client.meta.config
    transport = ThinTransport(Limits(config.connect_timeout, config.read_timeout), tls)
    client.meta.events.register_last("before-send", transport)
    return transport
