"""Input that no decent client sends: a clear answer or the end of the connection, flat memory, and
other clients that notice nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import struct
from collections.abc import AsyncIterator, Callable
from itertools import count

import pytest

from autopush.tests.conformance.driver import read_answer
from autopush.tests.e2e.bystander import unharmed
from autopush.tests.e2e.clients import UserAgent
from autopush.tests.e2e.harness import Server
from autopush.tests.e2e.raw import (
    BINARY,
    CLOSE,
    PING,
    TEXT,
    RawAgent,
    client_frame,
    frame_head,
    handshake,
)

GIGABYTE = 1 << 30
CHUNK = bytes(1 << 16)
TOO_BIG = 1009
RESET = (None, True)
EMPTY_CLOSE = (0, False)

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def connection(server: Server) -> AsyncIterator[Stream]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def pour(writer: asyncio.StreamWriter, size: int, piece: bytes = CHUNK) -> int:
    """Send ``size`` bytes as fast as they are taken; returns how many were, if that is fewer."""
    sent = 0
    with contextlib.suppress(ConnectionError):
        while sent < size:
            writer.write(piece)
            await writer.drain()
            # drain() alone lets nobody else run while the socket takes all: the answer would not
            # be read before the service has ended the connection.
            await asyncio.sleep(0)
            sent += len(piece)
    return sent


async def status_of(server: Server, request: bytes) -> int | None:
    """Send bytes; return the status of the answer, None if the connection ends without one."""
    async with connection(server) as (reader, writer):
        with contextlib.suppress(ConnectionError):
            writer.write(request)
            await writer.drain()
        try:
            return (await read_answer(reader)).get("status")
        except ConnectionError:
            return None


# ------------------------------------------------------------------------------ too much of it


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_body_of_a_gigabyte(server: Server, framing: str) -> None:
    how = f"Content-Length: {GIGABYTE}" if framing == "length" else "Transfer-Encoding: chunked"
    piece = CHUNK if framing == "length" else b"10000\r\n" + CHUNK + b"\r\n"
    async with unharmed(server), connection(server) as (reader, writer):
        writer.write(f"POST /wpush/v1/x HTTP/1.1\r\nHost: x\r\n{how}\r\n\r\n".encode())
        pouring = asyncio.create_task(pour(writer, GIGABYTE, piece))
        answer = await read_answer(reader)
        assert answer["status"] == 413
        body = json.loads(answer["text"])
        assert (body["code"], body["errno"]) == (413, 104)
        # It stops listening long before the end.
        assert await pouring < GIGABYTE // 8


async def test_length_no_computer_has(server: Server) -> None:
    for length in ("9" * 18, "9" * 30, "-1", "+5", "0x10", "5, 6"):
        request = f"POST /wpush/v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
        assert await status_of(server, request.encode()) in (400, 413), length


@pytest.mark.parametrize("number", [101, 10_000])
async def test_too_many_headers(server: Server, number: int) -> None:
    lines = "".join(f"X-{n}: {n}\r\n" for n in range(number))
    async with unharmed(server):
        for method in ("GET", "POST"):
            request = f"{method} /status HTTP/1.1\r\nHost: x\r\n{lines}\r\n"
            assert await status_of(server, request.encode()) == 431


async def test_header_without_end(server: Server) -> None:
    async with unharmed(server), connection(server) as (reader, writer):
        writer.write(b"GET /status HTTP/1.1\r\nHost: x\r\nX-Long: ")
        pouring = asyncio.create_task(pour(writer, GIGABYTE, b"x" * 65536))
        assert (await read_answer(reader))["status"] == 431
        assert await pouring < GIGABYTE // 8


async def test_path_without_end(server: Server) -> None:
    async with unharmed(server), connection(server) as (reader, writer):
        writer.write(b"GET /")
        pouring = asyncio.create_task(pour(writer, GIGABYTE, b"x" * 65536))
        assert (await read_answer(reader))["status"] == 414
        assert await pouring < GIGABYTE // 8


@pytest.mark.slow
async def test_drips_of_a_byte_a_second(server: Server) -> None:
    """Request heads, handshakes and bodies have a time limit as a whole."""

    async def drip(start: bytes) -> int | None:
        async with connection(server) as (reader, writer):
            writer.write(start)
            answer = asyncio.create_task(read_answer(reader, 120))
            with contextlib.suppress(ConnectionError):
                for _ in count():
                    writer.write(b"x")
                    await writer.drain()
                    done, _ = await asyncio.wait([answer], timeout=1)
                    if done:
                        break
            return (await answer).get("status")

    async with unharmed(server):
        statuses = await asyncio.gather(
            drip(b"GET /status HTTP/1.1\r\nX-Slow: "),
            drip(handshake()[:-2] + b"X-Slow: "),
            drip(b"POST /wpush/v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\n"),
        )
    assert statuses == [408, 408, 408]


async def test_answers_nobody_reads(server: Server) -> None:
    """Requests without end from a client that does not read: it is not read either."""
    request = b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n" * 1000
    async with unharmed(server), connection(server) as (_, writer):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(3):
                sent = await pour(writer, GIGABYTE, request)
                raise AssertionError(f"{sent} bytes were taken")


async def test_frame_of_a_hundred_megabytes(server: Server) -> None:
    size = 100 * 1024 * 1024
    for opcode in (TEXT, BINARY):
        async with unharmed(server):
            agent = await RawAgent.open(server)
            ending = asyncio.create_task(agent.end())
            agent.writer.write(frame_head(size, opcode))
            await pour(agent.writer, size)
            assert (await ending)[0] == TOO_BIG
            agent.close()


async def test_message_of_a_hundred_megabytes_in_fragments(server: Server) -> None:
    async with unharmed(server):
        agent = await RawAgent.open(server)
        ending = asyncio.create_task(agent.end())
        piece = frame_head(len(CHUNK), first=0) + CHUNK
        agent.writer.write(frame_head(1, first=TEXT) + b"x")
        await pour(agent.writer, 100 << 20, piece)
        assert (await ending)[0] == TOO_BIG
        agent.close()


async def test_fragments_without_content(server: Server) -> None:
    async with unharmed(server):
        agent = await RawAgent.open(server)
        agent.writer.write(frame_head(0, first=TEXT))
        piece = frame_head(0, first=0) * 1000
        with contextlib.suppress(ConnectionError):
            await pour(agent.writer, len(piece) * 1000, piece)
        agent.close()


async def test_commands_whose_answers_nobody_reads(server: Server) -> None:
    command = client_frame(b'{"messageType":"unregister","channelID":"x"}')
    for piece in (command * 100, client_frame(b"x" * 125, PING) * 100):
        async with unharmed(server):
            agent = await RawAgent.open(server)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(4):
                    await pour(agent.writer, 100 << 20, piece)
            agent.close()


# ------------------------------------------------------------------------------------------ acks


async def test_a_hundred_thousand_acks_in_one_message(make_server: Callable[..., Server]) -> None:
    server = make_server("--max_message_size", str(32 << 20))
    await asyncio.to_thread(server.start)
    async with await UserAgent.open(server.ws_url) as agent:
        subscription = await agent.register()
        updates = [
            {"channelID": subscription.channel, "version": f"gAAAAAB{number}", "code": 100}
            for number in range(100_000)
        ]

        async def ack() -> None:
            await agent.send({"messageType": "ack", "updates": updates})
            await agent.round_trip()

        await ack()
        # What one takes while it is handled is what it is (50 MB); it must not stay.
        async with unharmed(server, 80 << 20):
            for _ in range(8):
                await ack()


async def test_a_hundred_thousand_short_acks_within_the_default_limit(server: Server) -> None:
    updates: list[object] = [{}] * 50_000 + [0] * 50_000
    async with unharmed(server), await UserAgent.open(server.ws_url) as agent:
        await agent.send({"messageType": "ack", "updates": updates})
        await agent.round_trip()


async def test_acks_above_the_default_limit(server: Server) -> None:
    update = {"channelID": "x" * 36, "version": "y" * 40}
    async with unharmed(server):
        agent = await UserAgent.open(server.ws_url)
        await agent.send({"messageType": "ack", "updates": [update] * 100_000})
        assert await agent.closed() in (TOO_BIG, None)


async def test_acks_of_nothing_take_no_memory(server: Server) -> None:
    """spec/websocket Q24: look-ups never insert."""
    async with unharmed(server), await UserAgent.open(server.ws_url) as agent:
        for part in range(20):
            updates = [{"channelID": f"{part}-{n}", "version": "v"} for n in range(10_000)]
            await agent.send({"messageType": "ack", "updates": updates})
        await agent.round_trip()


# -------------------------------------------------------------------------------------- nonsense


async def test_garbage_bytes(server: Server) -> None:
    rng = random.Random(7)
    async with unharmed(server):
        for number in range(100):
            blob = rng.randbytes(rng.randrange(1, 3000)) + b"\r\n\r\n"
            assert await status_of(server, blob) in (400, 505, None), number
        tls_hello = bytes.fromhex("16030100a5010000a10303") + bytes(160)
        assert await status_of(server, tls_hello + b"\r\n\r\n") in (400, None)


async def test_garbage_after_the_handshake(server: Server) -> None:
    rng = random.Random(8)
    async with unharmed(server):
        for _ in range(50):
            agent = await RawAgent.open(server)
            # 0x83...: a reserved opcode, so that it can't be a frame by chance.
            with contextlib.suppress(ConnectionError):
                await agent.send_bytes(b"\x83" + rng.randbytes(rng.randrange(10, 2000)))
            assert await agent.end() == RESET
            agent.close()


FRAME_VIOLATIONS = {
    "unmasked": frame_head(2, mask=False) + b"{}",
    "rsv1": frame_head(2, first=0xC1) + b"{}",
    "rsv3": frame_head(2, first=0x91) + b"{}",
    "reserved opcode": frame_head(2, 3) + b"{}",
    "reserved control opcode": frame_head(0, 11),
    "long ping": frame_head(126, PING) + bytes(126),
    "fragmented ping": frame_head(0, first=PING),
    "continuation of nothing": frame_head(2, first=0x80) + b"{}",
    "text within a fragmented text": frame_head(1, first=TEXT) + b"{" + frame_head(1) + b"}",
    "close of one byte": frame_head(1, CLOSE) + b"\x03",
    "close code 1005": client_frame(struct.pack("!H", 1005), CLOSE),
    "close code 999": client_frame(struct.pack("!H", 999), CLOSE),
    "close reason that is not UTF-8": client_frame(struct.pack("!H", 1000) + b"\xff", CLOSE),
    "text that is not UTF-8": client_frame(b'{"messageType":"\xff"}'),
    "text cut inside a character": client_frame("ü".encode()[:1]),
    "surrogate in UTF-8": client_frame(b'{"x":"\xed\xa0\x80"}'),
}


@pytest.mark.parametrize("what", FRAME_VIOLATIONS)
async def test_frame_violations_are_reset(server: Server, what: str) -> None:
    for hello in (True, False):
        agent = await (RawAgent.open(server) if hello else RawAgent.connect(server))
        await agent.send_bytes(FRAME_VIOLATIONS[what])
        assert await agent.end() == RESET
        agent.close()


NOT_MESSAGES = ["", "null", "1", '"x"', "[]", "{", "{]", "[1", "\x00", "{'a':1}", "[" * 100_000]


@pytest.mark.parametrize("text", NOT_MESSAGES, ids=lambda text: repr(text[:10]))
async def test_what_is_no_object_closes(server: Server, text: str) -> None:
    for hello in (True, False):
        agent = await (RawAgent.open(server) if hello else RawAgent.connect(server))
        await agent.send_bytes(client_frame(text.encode()))
        too_long = not hello and len(text) > 8192
        assert await agent.end() == ((TOO_BIG, False) if too_long else EMPTY_CLOSE)
        agent.close()


# -------------------------------------------------------------------------------------- nesting

DEPTHS = (500, 5_000, 100_000)


def nested(depth: int, open_: str = "[", close: str = "]") -> str:
    return open_ * depth + close * depth


@pytest.mark.parametrize("depth", DEPTHS)
async def test_deeply_nested_messages(server: Server, depth: int) -> None:
    objects = '{"a":' * depth + "1" + "}" * depth
    async with unharmed(server):
        for value in (nested(depth), objects):
            for message in (
                f'{{"messageType":"hello","use_webpush":true,"x":{value}}}',
                f'{{"messageType":"hello","use_webpush":true,"uaid":{value}}}',
                f'{{"messageType":"register","channelID":{value}}}',
                f'{{"messageType":"unregister","channelID":"{nested(0)}","x":{value}}}',
                f'{{"messageType":"unregister","channelID":"{"0" * 32}","x":{value}}}',
                f'{{"messageType":"ack","updates":[{value}]}}',
                f'{{"messageType":"nack","version":{value}}}',
                f'{{"messageType":"broadcast_subscribe","broadcasts":{{"x":{value}}}}}',
                value,
            ):
                first = "hello" in message
                agent = await UserAgent.open(server.ws_url, hello=not first)
                await agent.ws.send(message)
                with contextlib.suppress(TimeoutError):
                    # An answer, a close or silence; what follows shows that it is alive.
                    await agent.closed(0.1)
                agent.abort()


@pytest.mark.parametrize("depth", DEPTHS)
async def test_deeply_nested_registration(server: Server, depth: int) -> None:
    async with unharmed(server):
        for value in (nested(min(depth, 30_000)), '{"a":' * 6_000 + "1" + "}" * 6_000):
            body = f'{{"token":{value}}}'
            head = "POST /v1/webpush/app/registration HTTP/1.1\r\nHost: x\r\n"
            request = f"{head}Content-Length: {len(body)}\r\n\r\n{body}"
            assert await status_of(server, request.encode()) == 400


# ----------------------------------------------------------------------------------- not UTF-8

BAD = b"\xff\xfe\x80"


async def test_headers_that_are_not_utf8(server: Server) -> None:
    async with unharmed(server), await UserAgent.open(server.ws_url) as agent:
        subscription = await agent.register()
        path = subscription.endpoint.removeprefix(server.endpoint_url).encode()
        good = {
            b"Host": b"x",
            b"TTL": b"60",
            b"Content-Encoding": b"aesgcm",
            b"Encryption": b"salt=S3Y5cEV0Y0pWcGZFRFFrSA",
            b"Crypto-Key": b"dh=BDHk5ldLLsdHqTlkZbbQCSLRW0dBTBBbyM6z8Jk9e5Q",
            b"Content-Length": b"3",
        }
        headers = (
            *good,
            b"Topic",
            b"Authorization",
            b"Encryption-Key",
            b"Host",
            b"User-Agent",
            b"X-Forwarded-For",
            b"X-Other",
            b"If-None-Match",
        )
        for name in headers:
            for value in (BAD, b"vapid t=" + BAD + b",k=x", b"salt=" + BAD, b"dh=" + BAD):
                fields = b"".join(b"%s: %s\r\n" % one for one in {**good, name: value}.items())
                request = b"POST " + path + b" HTTP/1.1\r\n" + fields + b"\r\nabc"
                status = await status_of(server, request)
                assert status is not None and status < 500, (name, value)
                if name not in (
                    b"Host",
                    b"User-Agent",
                    b"X-Forwarded-For",
                    b"X-Other",
                    b"If-None-Match",
                    b"Encryption-Key",
                    b"Crypto-Key",
                ):
                    assert status >= 400, (name, value)


async def test_paths_that_are_not_utf8(server: Server) -> None:
    async with unharmed(server):
        for bad in (b"%FF%FE", b"%ED%A0%80", b"%00", BAD, b"%", b"%zz"):
            for method, path in (
                (b"POST", b"/wpush/v1/"),
                (b"POST", b"/wpush/"),
                (b"DELETE", b"/m/"),
                (b"GET", b"/v1/webpush/app/registration/"),
                (b"POST", b"/v1/"),
                (b"GET", b"/"),
            ):
                tail = b"/app/registration" if path == b"/v1/" else b""
                request = method + b" " + path + bad + tail + b" HTTP/1.1\r\nHost: x\r\n\r\n"
                status = await status_of(server, request)
                assert status is not None and 400 <= status < 500, request


async def test_registration_that_is_not_utf8(server: Server) -> None:
    for body in (BAD, b'{"token": "' + BAD + b'"}', b'{"' + BAD + b'": 1}', b"\xed\xa0\x80"):
        head = b"POST /v1/webpush/app/registration HTTP/1.1\r\nHost: x\r\n"
        request = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        assert await status_of(server, request) == 400, body


async def test_handshakes_that_are_not_utf8(server: Server) -> None:
    bad = BAD.decode("latin-1")
    for name in (
        "User-Agent",
        "Origin",
        "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Key",
        "Host",
        "Sec-WebSocket-Version",
        "Sec-WebSocket-Extensions",
        "Connection",
        "X-Other",
    ):
        request = handshake(**{name.replace("-", "_"): bad}).decode().encode("latin-1")
        status = await status_of(server, request)
        assert status in (101, 400, 404, 426), name


async def test_strings_no_utf8_can_hold(server: Server) -> None:
    """JSON can name lone surrogates, which are no text."""
    lone = "\\ud800"
    async with unharmed(server), await UserAgent.open(server.ws_url) as agent:
        for message in (
            f'{{"messageType":"register","channelID":"{lone}"}}',
            f'{{"messageType":"register","channelID":"{os.urandom(16).hex()}","key":"{lone}"}}',
            f'{{"messageType":"unregister","channelID":"{lone}"}}',
        ):
            await agent.ws.send(message)
            assert (await agent.receive())["status"] in (401, 500)
        for message in (
            f'{{"messageType":"ack","updates":[{{"channelID":"{lone}","version":"{lone}"}}]}}',
            f'{{"messageType":"nack","version":"{lone}"}}',
        ):
            await agent.ws.send(message)
        await agent.round_trip()
    async with await UserAgent.open(server.ws_url, hello=False) as agent:
        await agent.ws.send(f'{{"messageType":"hello","use_webpush":true,"uaid":"{lone}"}}')
        assert (await agent.receive())["status"] == 200
