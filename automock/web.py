"""A small HTTP/1.1 server on asyncio, for the control API and for stand-ins that speak HTTP/1.1.

It answers one request after the other on a connection, keeps connections open, and can misbehave
as an :class:`~automock.standin.Answer` says.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import httptools

from automock.standin import Answer, Gate

BODY_LIMIT = 1024 * 1024

GARBAGE = b"\xfe\x16garbage, in no protocol at all\r\n\r\n"


@dataclass
class Request:
    """A complete request. ``path`` is decoded, header names are lower case."""

    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query))

    @property
    def form(self) -> dict[str, str]:
        """Members of an ``application/x-www-form-urlencoded`` body."""
        return dict(parse_qsl(self.body.decode("utf-8", "replace")))

    def json(self) -> Any:
        """Return the JSON in the body.

        :raises ValueError: there is none
        """
        return json.loads(self.body)


@dataclass
class Reply:
    """An answer.

    :param json: goes into the body, with its content type
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    json: Any = None

    def encode(self, keep_alive: bool = True) -> bytes:
        """Return the bytes for the wire."""
        headers = {"Content-Type": "text/plain; charset=utf-8", **self.headers}
        body = self.body
        if self.json is not None:
            body = json.dumps(self.json).encode()
            headers["Content-Type"] = "application/json"
        headers["Content-Length"] = str(len(body))
        if not keep_alive:
            headers["Connection"] = "close"
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        with contextlib.suppress(ValueError):
            return (
                f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\n{head}\r\n".encode(
                    "latin-1", "replace"
                )
                + body
            )
        return f"HTTP/1.1 {self.status} Unknown\r\n{head}\r\n".encode("latin-1", "replace") + body


def scripted(reply: Reply, answer: Answer | None) -> Reply:
    """Return the reply with what the script says about it."""
    if answer is None:
        return reply
    if answer.status is not None:
        reply.status = answer.status
    if answer.body is not None:
        reply.body, reply.json = answer.body.encode(), None
    if answer.json is not None:
        reply.json = answer.json
    reply.headers.update(answer.headers)
    return reply


Handler = Callable[[Request], Awaitable[tuple[Reply, Answer | None]] | tuple[Reply, Answer | None]]
"""Returns the vendor's own reply and the script's answer, which is applied to it by the server:
the status and so on, the delay, the action."""


async def _opened(gate: Gate) -> None:
    """Wait until a gate is open."""
    loop, opened = asyncio.get_running_loop(), asyncio.Event()
    gate.pass_through(lambda: loop.call_soon_threadsafe(opened.set))
    await opened.wait()


class Server:
    """Listens and answers.

    :param handler: its exceptions become a 500 with their text
    """

    def __init__(
        self,
        handler: Handler,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.handler = handler
        self.host = host
        self.port = port
        self.tls = tls
        self.connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen; sets :attr:`port`."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self), self.host, self.port, ssl=self.tls, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and cut all connections."""
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.transport.abort()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"


class _Connection(asyncio.Protocol):
    """One connection; also the callbacks of its llhttp parser."""

    transport: Any

    def __init__(self, server: Server) -> None:
        self.server = server
        self._parser = httptools.HttpRequestParser(self)
        self._requests: asyncio.Queue[tuple[Request, bool]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self.on_message_begin()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.server.connections.add(self)
        self._task = asyncio.get_running_loop().create_task(self._answer_all())

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.connections.discard(self)
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.transport.write(Reply(400, body=b"Malformed request\n").encode(False))
            self.transport.close()

    # ---- llhttp

    def on_message_begin(self) -> None:
        self._target = b""
        self._headers: dict[str, str] = {}
        self._body = b""

    def on_url(self, data: bytes) -> None:
        self._target += data

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > BODY_LIMIT:
            raise ValueError("body too long")

    def on_message_complete(self) -> None:
        request = Request(
            self._parser.get_method().decode("latin-1"),
            self._target.decode("latin-1"),
            self._headers,
            self._body,
        )
        self._requests.put_nowait((request, self._parser.should_keep_alive()))

    # ---- answers

    async def _answer_all(self) -> None:
        while True:
            request, keep_alive = await self._requests.get()
            try:
                result = self.server.handler(request)
                reply, answer = await result if isinstance(result, Awaitable) else result
            except Exception as exc:
                reply, answer = Reply(500, body=f"{type(exc).__name__}: {exc}\n".encode()), None
            if answer is not None and answer.held:
                await _opened(answer.gate)
            if answer is not None and answer.delay:
                await asyncio.sleep(answer.delay)
            if answer is not None and answer.action:
                await self._misbehave(answer.action, scripted(reply, answer))
                return
            self.transport.write(scripted(reply, answer).encode(keep_alive))
            if not keep_alive:
                self.transport.close()
                return

    async def _misbehave(self, action: str, reply: Reply) -> None:
        transport = self.transport
        if action == "reset":
            transport.abort()
        elif action == "close":
            transport.close()
        elif action == "close_mid_body":
            reply.body = reply.body or b"x" * 100
            transport.write(reply.encode()[:-10])
            transport.close()
        elif action == "garbage":
            transport.write(GARBAGE)
            transport.close()
        # hang: nothing, for ever
