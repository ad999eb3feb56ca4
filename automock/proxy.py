"""An HTTP proxy that opens tunnels, with and without TLS, as squid and tinyproxy do.

It notes each request and then does as it is scripted, or else asks for the credentials that are
set and connects. ``status`` answers instead of connecting; the actions are ``hang``, ``reset``,
``close`` and ``garbage``.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Mapping
from typing import Any

from automock.standin import Answer, StandIn
from automock.web import GARBAGE

HEAD_LIMIT = 64 * 1024
"""Bytes of a request."""


class Proxy(StandIn):
    """Tunnels to anywhere.

    :ivar tls_port: where it is spoken to by TLS
    """

    name = "proxy"
    actions = frozenset(("hang", "reset", "close", "garbage"))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tls_port = 0
        self._authorization: str | None = None
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        context = self.authority.server_context("proxy-server", self.host)
        for port, tls in ((self.port, None), (self.tls_port, context)):
            server = await asyncio.start_server(
                self._accept, self.host, port, ssl=tls, limit=HEAD_LIMIT
            )
            self._servers.append(server)
        self.port, self.tls_port = (one.sockets[0].getsockname()[1] for one in self._servers)

    async def stop(self) -> None:
        for server in self._servers:
            server.close()
        await self.cut()

    async def cut(self) -> None:
        """End all connections."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def tls_url(self) -> str:
        """Where it is spoken to by TLS."""
        return f"https://{self.host}:{self.tls_port}"

    def options(self) -> dict[str, Any]:
        return {}

    def environment(self) -> dict[str, str]:
        return {"HTTPS_PROXY": self.url}

    def configure(self, settings: Mapping[str, Any]) -> None:
        """``credentials``: ``user:password`` to ask for; empty: none."""
        if set(settings) - {"credentials"} or not isinstance(settings.get("credentials", ""), str):
            raise ValueError("proxy has only the setting credentials, a text")
        given = settings.get("credentials", "")
        encoded = base64.b64encode(given.encode()).decode()
        self._authorization = f"Basic {encoded}" if given else None

    def reset(self) -> None:
        super().reset()
        self._authorization = None

    @property
    def targets(self) -> list[str]:
        """What tunnels were asked for, ``host:port``."""
        return [one["target"] for one in list(self.script.requests) if one["method"] == "CONNECT"]

    # ---- connections

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass  # the client left, or speaks something else
        except asyncio.CancelledError:
            pass  # cut; asyncio would report it
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = head.rstrip("\r\n").split("\r\n")
        method, target, _ = line.split(" ")
        pairs = (field.partition(":") for field in fields)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        self.script.saw({"method": method, "target": target, "headers": headers})
        answer = self.script.next()
        if answer is not None and await self._scripted(answer, writer):
            return
        if self._authorization not in (None, headers.get("proxy-authorization")):
            await _say(writer, 407, 'Proxy-Authenticate: Basic realm="automock"\r\n')
        elif method != "CONNECT":
            await _say(writer, 405)
        else:
            await self._tunnel(target, reader, writer)

    async def _scripted(self, answer: Answer, writer: asyncio.StreamWriter) -> bool:
        """Do as the script says; False: it says nothing but when."""
        await asyncio.sleep(answer.delay)
        if answer.action == "hang":
            await asyncio.Event().wait()
        elif answer.action == "reset":
            writer.transport.abort()
        elif answer.action == "garbage":
            writer.write(GARBAGE)
            await writer.drain()
        elif answer.action != "close" and answer.status is not None:
            more = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
            await _say(writer, answer.status, more, answer.body or "")
        return bool(answer.action or answer.status)

    async def _tunnel(
        self, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        host, _, port = target.rpartition(":")
        try:
            there, back = await asyncio.open_connection(host.strip("[]"), int(port))
        except OSError:
            await _say(writer, 502)
            return
        try:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(_pump(reader, back), _pump(there, writer))
        finally:
            back.close()


async def _say(writer: asyncio.StreamWriter, status: int, more: str = "", body: str = "") -> None:
    head = f"HTTP/1.1 {status} Scripted\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    writer.write(head.encode("latin-1") + body.encode())
    await writer.drain()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Carry bytes until one of the ends closes."""
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    sink.close()
