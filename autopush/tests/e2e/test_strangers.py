"""What somebody can hold of the service who has not said who it is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from websockets.exceptions import ConnectionClosed, InvalidHandshake

from autopush.tests.e2e.clients import PATIENCE, UserAgent
from autopush.tests.e2e.harness import Server
from autopush.tests.e2e.raw import CLOSE, PING, RawAgent, client_frame, frame_head, handshake

TOO_BIG = b"\x03\xf1"
STEP = 0.1
"""Seconds between two bytes of one who is in no hurry."""

IN_TIME = "10"
"""Seconds in which a stranger's handshake arrives, also on a busy machine."""


async def test_a_stranger_has_8_kib_for_a_message(server: Server) -> None:
    for size, refused in ((8192, False), (8193, True), (1 << 20, True)):
        stranger = await RawAgent.connect(server)
        await stranger.send_bytes(frame_head(size) + b"x" * 100)
        if refused:
            assert await stranger.frame() == (CLOSE, TOO_BIG)
        else:
            await stranger.send_bytes(b"x" * (size - 100))
            assert await stranger.frame() == (CLOSE, b"")  # it was read: nonsense
        stranger.writer.close()


async def drip(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Send bytes one by one, for ever if they last."""
    for byte in data:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(STEP)


async def until_the_end(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(PATIENCE):
        return await reader.read(-1)


async def test_a_handshake_that_drips_ends(make_server: Callable[..., Server]) -> None:
    server = await asyncio.to_thread(make_server("--hello_timeout", "1").start)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    dripping = asyncio.create_task(drip(writer, handshake(X=("y" * 10_000))))
    assert (await until_the_end(reader)).startswith(b"HTTP/1.1 408 ")
    dripping.cancel()
    writer.close()


async def test_neither_pings_nor_a_message_that_drips_put_the_end_off(
    make_server: Callable[..., Server],
) -> None:
    server = await asyncio.to_thread(make_server("--hello_timeout", IN_TIME).start)
    stranger = await RawAgent.connect(server)
    await stranger.send_bytes(client_frame(b"p", PING))
    dripping = asyncio.create_task(drip(stranger.writer, frame_head(8000) + b"x" * 8000))
    assert (await until_the_end(stranger.reader)).endswith(b"\x88\x00")
    dripping.cancel()
    stranger.writer.close()


async def greeted(server: Server) -> UserAgent:
    """A user agent whose hello came in time: on a busy machine some don't."""
    while True:
        with contextlib.suppress(ConnectionClosed, InvalidHandshake):
            return await UserAgent.open(server.ws_url)


async def test_who_says_hello_stays(make_server: Callable[..., Server]) -> None:
    server = await asyncio.to_thread(make_server("--hello_timeout", "1").start)
    async with await greeted(server) as agent:
        await agent.nothing(2)
        await agent.round_trip()


async def answer(server: Server, origin: str, host: str) -> tuple[bytes, bytes]:
    """Head and body of what a handshake with this Origin is answered, as far as it is refused."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(handshake(host, Origin=origin))
    async with asyncio.timeout(PATIENCE):
        head = await reader.readuntil(b"\r\n\r\n")
        body = b"" if b" 101 " in head else await reader.read(-1)
    writer.close()
    return head, body


async def test_pages_of_other_origins_are_told_why_they_may_not(server: Server) -> None:
    ours = server.endpoint_url.removeprefix("http://")
    for origin, host in (
        ("http://evil.example", ours),
        ("http://evil.example:8080", "evil.example:8080"),
        ("null", ours),
    ):
        head, body = await answer(server, origin, host)
        assert head.startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert b"--allowed_origins" in body
    for origin in (server.ws_url, server.endpoint_url, "moz-extension://0a1b"):
        assert (await answer(server, origin, ours))[0].startswith(b"HTTP/1.1 101 ")
