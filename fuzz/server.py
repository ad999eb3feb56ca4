"""A running ``autopush_standalone`` under what strangers send: HTTP requests and WebSocket frames.

    python -m fuzz.server --requests 100000 --frames 100000 --seed 1

Sound requests and frames with a few changes (fuzz/mutation.py), from many connections at a time.
What must hold:

* no answer is a 5xx, but for 503 (no room) and 505 (a version of HTTP nobody speaks);
* the log tells of nothing unexpected;
* afterwards the service is well, no connection is left open, and from the first fifth on it has
  not grown.

Exits 1 if something does not hold, and prints what was sent last on that connection.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx

from autopush.tests.e2e.clients import UserAgent, VapidSender
from autopush.tests.e2e.harness import Server, eventually
from autopush.tests.e2e.raw import client_frame, handshake
from fuzz.mutation import mutated, pieces
from fuzz.parsers import HTTP_WORDS, TEXT_WORDS, WS_WORDS
from fuzz.running import home, log_faults

CONNECTIONS = 24
"""Connections at a time."""

SILENCE = 0.05
"""Seconds without a byte after which a connection is given up: what was sent may be unfinished."""

FRAMES_EACH = 25
"""Frames on one connection, if it lives that long."""

ALLOWED = {503, 505}
STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3}) ")

MAY_GROW = 8 * 1024 * 1024
"""Bytes: pages of the database, and what allocators keep."""

LAST = 3000
"""Bytes of what was sent that are shown."""

METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "BREW")
COMMANDS = (
    *("hello", "register", "unregister", "ack", "nack", "ping", "broadcast_subscribe", "urgency"),
    "x",
)


class Fuzzer:
    """One server, and what it is sent.

    :param where: an empty directory
    :ivar faults: what did not hold, one text each
    :ivar answers: how often each status was answered; 0 is none
    """

    def __init__(self, where: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.server = Server(where)
        self.faults: list[str] = []
        self.answers: Counter[int] = Counter()
        self.sent = {"requests": 0, "frames": 0}
        self._samples: list[bytes] = []
        self._uaid = ""
        self._channels: list[str] = []

    async def run(self, requests: int, frames: int) -> None:
        """Send so many of each, and look at the service afterwards."""
        await asyncio.to_thread(self.server.start)
        await self._subscribe()
        before = self.server.descriptors
        sizes = []
        for part in (5, 1):
            await self._until("requests", requests // part, self._request)
            await self._until("frames", frames // part, self._frames)
            sizes.append(self.server.rss)
        if sizes[1] - sizes[0] > MAY_GROW:
            self.faults.append(f"grew from {sizes[0] >> 10} to {sizes[1] >> 10} KiB")
        await asyncio.to_thread(self._look, before)
        self.faults += log_faults(list(self.server.lines))

    def _look(self, descriptors: int) -> None:
        answer = httpx.get(f"{self.server.endpoint_url}/health", trust_env=False, timeout=60)
        if answer.status_code != 200:
            self.faults.append(f"/health: {answer.status_code} {answer.text}")
        try:
            eventually(lambda: self.server.descriptors <= descriptors)
        except AssertionError:
            self.faults.append(f"{self.server.descriptors} descriptors, {descriptors} at the start")
        if self.server.stop() != 0:
            self.faults.append("it did not end in order")

    async def _subscribe(self) -> None:
        """What is sound: requests about a user that exists."""
        sender = VapidSender()
        async with await UserAgent.open(self.server.ws_url) as agent:
            assert agent.uaid is not None
            self._uaid = agent.uaid
            open_, restricted = [await agent.register() for _ in range(2)]
            self._channels = [open_.channel, restricted.channel]
        claims = {
            "aud": self.server.endpoint_url,
            "exp": int(time.time()) + 3600,
            "sub": "mailto:a@b.example",
        }
        auth = sender.rfc8292.sign(claims)["Authorization"]
        self._samples = list(self._sound(open_.endpoint, auth))

    def _sound(self, endpoint: str, auth: str) -> Iterator[bytes]:
        path = "/" + endpoint.split("/", 3)[3]
        old = "Content-Encoding: aesgcm\r\nEncryption: salt=AAAA\r\nCrypto-Key: dh=BBBB\r\n"
        yield self._message(path, "TTL: 60\r\nContent-Encoding: aes128gcm\r\n", b"x" * 100)
        yield self._message(
            path, f"TTL: 0\r\nTopic: t\r\nAuthorization: {auth}\r\n{old}", b"y" * 50
        )
        yield self._message(path, "TTL: 1\r\nUrgency: low\r\nTransfer-Encoding: chunked\r\n", None)
        user = "/v1/webpush/x/registration"
        yield self._message(user, "Content-Type: application/json\r\n", b"{}")
        yield self._message(
            f"{user}/{self._uaid}/subscription", "Authorization: Bearer x\r\n", b"{}"
        )
        yield self._message("/v1/gcm/x/registration", "", json.dumps({"token": "x"}).encode())
        for other in (
            "/status",
            "/health",
            "/__version__",
            "/v1/err/x",
            "/m/gAAAAAB",
            "/",
            "//",
        ):
            method = self.rng.choice(METHODS)
            yield f"{method} {other} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
        yield handshake()

    def _message(self, path: str, headers: str, body: bytes | None) -> bytes:
        head = f"POST {path} HTTP/1.1\r\nHost: h\r\n{headers}"
        if body is None:
            return f"{head}\r\n3\r\nabc\r\n0\r\n\r\n".encode()
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    # ---- many at a time

    async def _until(self, kind: str, number: int, one: Callable[[], object]) -> None:
        async def worker() -> None:
            while self.sent[kind] < number:
                await one()  # type: ignore[misc]

        await asyncio.gather(*(worker() for _ in range(CONNECTIONS)))

    async def _request(self) -> None:
        sound = b"".join(self.rng.choices(self._samples, k=self.rng.randrange(1, 4)))
        data = mutated(self.rng, sound, (*HTTP_WORDS, *TEXT_WORDS))
        self.sent["requests"] += max(1, data.count(b" HTTP/1."))
        await self._exchange(data, b"")

    async def _frames(self) -> None:
        """Half of the connections say hello before."""
        opening = [client_frame(self._command("hello"))] if self.rng.random() < 0.5 else []
        sound = [client_frame(self._command()) for _ in range(self.rng.randrange(1, FRAMES_EACH))]
        self.sent["frames"] += len(sound)
        at = self.rng.randrange(len(sound))
        sound[at] = mutated(self.rng, sound[at], WS_WORDS)
        await self._exchange(b"".join((*opening, *sound)), handshake())

    def _command(self, kind: str | None = None) -> bytes:
        """A message of a user agent, sound or nearly so."""
        kind = kind or self.rng.choice(COMMANDS)
        channel = self.rng.choice((*self._channels, str(uuid.UUID(int=self.rng.getrandbits(128)))))
        message = {"messageType": kind, "use_webpush": True, "channelID": channel, "code": 200}
        message["uaid"] = self.rng.choice((self._uaid, "", None, 1))
        message["updates"] = [{"channelID": channel, "version": self.rng.choice(("x", 1, ""))}]
        message["broadcasts"] = self.rng.choice(({}, {"a": "b"}, {"a": 1}, [], None))
        message["min"] = self.rng.choice(("low", "very-low", "x", 1, None))
        text = json.dumps(message).encode()
        return mutated(self.rng, text, TEXT_WORDS) if self.rng.random() < 0.5 else text

    # ---- one connection

    async def _exchange(self, data: bytes, opening: bytes) -> None:
        """Send it in pieces, and read until there is silence or an end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        heard = b""
        try:
            for piece in (*([opening] if opening else ()), *pieces(self.rng, data)):
                writer.write(piece)
                await writer.drain()
            while more := await asyncio.wait_for(reader.read(65536), SILENCE):
                heard += more
        except (TimeoutError, ConnectionError):
            pass
        finally:
            writer.transport.abort()
        self._judge(opening + data, heard)

    def _judge(self, sent: bytes, heard: bytes) -> None:
        statuses = [int(status) for status in STATUS.findall(heard)] or [0]
        self.answers.update(statuses)
        for status in statuses:
            if status >= 500 and status not in ALLOWED:
                self.faults.append(f"{status} for {sent[-LAST:]!r}\n{heard[-LAST:]!r}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.server", description=__doc__)
    parser.add_argument("--requests", type=int, default=5000, help="default: 5000")
    parser.add_argument("--frames", type=int, default=5000, help="default: 5000")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--home", type=Path, help="where to run and leave the data")
    given = parser.parse_args(arguments)
    with home(given.home) as where:
        fuzzer = Fuzzer(where, given.seed)
        try:
            asyncio.run(fuzzer.run(given.requests, given.frames))
        finally:
            fuzzer.server.close()
    print(f"{fuzzer.sent}, answers {dict(sorted(fuzzer.answers.items()))}")
    for fault in fuzzer.faults[:20]:
        print(fault[: 3 * LAST])
    return 1 if fuzzer.faults else 0


if __name__ == "__main__":
    sys.exit(main())
