"""Sockets without a library: browsers that do not read, senders that do not behave."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import struct
import uuid
from collections.abc import Iterable
from typing import Any

import httpx

from autopush.tests.e2e.clients import JSON, PATIENCE, QUIET, Subscription, b64decode
from autopush.tests.e2e.harness import Server

AES128GCM = {
    "TTL": "3600",
    "Content-Encoding": "aes128gcm",
}
"""Headers of a message whose encryption nobody looks at."""

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


async def post_bytes(
    server: Server, subscription: Subscription, bodies: Iterable[bytes], **headers: str
) -> list[int]:
    """POST bodies as they are over one connection; returns the statuses."""
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
        return [
            (
                await client.post(
                    subscription.endpoint, content=body, headers={**AES128GCM, **headers}
                )
            ).status_code
            for body in bodies
        ]


def handshake(host: str = "localhost", **headers: str) -> bytes:
    """An opening handshake request."""
    key = base64.b64encode(os.urandom(16)).decode()
    fields = {
        "Host": host,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key,
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"GET / HTTP/1.1\r\n{head}\r\n".encode()


def frame_head(
    length: int, opcode: int = TEXT, first: int | None = None, mask: bool = True
) -> bytes:
    """The head of a client's frame whose mask is zero (so that the payload stays as it is)."""
    first = 0x80 | opcode if first is None else first
    bit = 0x80 if mask else 0
    if length < 126:
        head = struct.pack("!BB", first, bit | length)
    elif length < 65536:
        head = struct.pack("!BBH", first, bit | 126, length)
    else:
        head = struct.pack("!BBQ", first, bit | 127, length)
    return head + (b"\0\0\0\0" if mask else b"")


def client_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """A client's frame."""
    return frame_head(len(payload), opcode) + payload


class RawAgent:
    """A browser that reads its socket only when told to, with little room in the kernel."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.uaid = ""

    @classmethod
    async def connect(cls, server: Server) -> RawAgent:
        """Finish the opening handshake."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
        agent = cls(reader, writer)
        writer.write(handshake())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        return agent

    @classmethod
    async def open(cls, server: Server) -> RawAgent:
        """Connect and say hello."""
        agent = await cls.connect(server)
        await agent.send({"messageType": "hello", "use_webpush": True})
        agent.uaid = (await agent.receive())["uaid"]
        return agent

    async def send(self, message: Any) -> None:
        self.writer.write(client_frame(json.dumps(message).encode()))
        await self.writer.drain()

    async def send_bytes(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def frame(self) -> tuple[int, bytes]:
        """Return opcode and payload of the next frame."""
        first, length = await self.reader.readexactly(2)
        if length == 126:
            (length,) = struct.unpack("!H", await self.reader.readexactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", await self.reader.readexactly(8))
        return first & 0x0F, await self.reader.readexactly(length)

    async def receive(self, timeout: float = PATIENCE) -> JSON:
        """Return the next message."""
        async with asyncio.timeout(timeout):
            opcode, payload = await self.frame()
        assert opcode == TEXT, (opcode, payload)
        return json.loads(payload)

    async def register(self) -> Subscription:
        channel = str(uuid.uuid4())
        await self.send({"messageType": "register", "channelID": channel})
        return Subscription(channel, (await self.receive())["pushEndpoint"])

    async def ack(self, frame: JSON) -> None:
        update = {"channelID": frame["channelID"], "version": frame["version"], "code": 100}
        await self.send({"messageType": "ack", "updates": [update]})

    @staticmethod
    def body(frame: JSON) -> bytes:
        """The body as it was posted."""
        return b64decode(frame["data"])

    async def nothing(self, seconds: float = QUIET) -> None:
        """Check that no frame comes for a while and the connection stays open."""
        try:
            message = await self.receive(seconds)
        except TimeoutError:
            return
        raise AssertionError(f"unexpected: {message}")

    async def end(self, timeout: float = PATIENCE) -> tuple[int | None, bool]:
        """Wait for the end of the connection; returns the close code (0 for an empty close frame,
        None without one) and whether it was a reset."""
        code = None
        try:
            async with asyncio.timeout(timeout):
                while True:
                    opcode, payload = await self.frame()
                    if opcode == CLOSE:
                        code = struct.unpack("!H", payload[:2])[0] if payload else 0
        except asyncio.IncompleteReadError:
            return code, False
        except ConnectionError:
            return code, True

    def close(self) -> None:
        """Vanish."""
        self.writer.transport.abort()
