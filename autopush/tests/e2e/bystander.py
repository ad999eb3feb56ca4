"""Another client, which must not notice what happens beside it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from autopush.tests.e2e.clients import PATIENCE, UserAgent, send
from autopush.tests.e2e.harness import Server, eventually

MEMORY = 16 * 1024 * 1024
"""Bytes by which the resident memory may grow: the socket buffers and garbage of a moment."""

LATE = 15
"""Seconds after which a message of the other client is late, at the earliest."""

SLOWER = 100
"""As many times longer than before it may take: without an attack it takes milliseconds, on a busy
machine some hundred of them."""


@contextlib.asynccontextmanager
async def unharmed(server: Server, memory: int = MEMORY) -> AsyncIterator[None]:
    """Check that a service does well while and after the block runs: it serves another browser, it
    does not swell, and it lets go of its sockets.

    :param memory: bytes by which it may swell
    """
    agent = await UserAgent.open(server.ws_url)
    subscription = await agent.register()

    async def exchange(number: int, within: float) -> float:
        """Send and receive a message; the seconds that took."""
        text, began = b"%d" % number, time.monotonic()
        async with asyncio.timeout(within):
            answer = await send(subscription, text)
            assert answer.status_code == 201
            frame = await agent.receive("notification")
            assert subscription.decrypt(frame) == text
            await agent.ack(frame)
        return time.monotonic() - began

    late = max(LATE, SLOWER * max([await exchange(number, PATIENCE) for number in range(20)]))
    rss, descriptors = server.rss, server.descriptors
    over = asyncio.Event()

    async def live() -> int:
        peak, number = 0, 0
        while not over.is_set():
            await exchange(number, late)
            number += 1
            peak = max(peak, server.rss)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), 0.02)
        return peak

    living = asyncio.create_task(live())
    try:
        yield
    finally:
        over.set()
        peak = await living
    await exchange(-1, late)
    assert max(peak, server.rss) - rss < memory, (rss, peak, server.rss)
    await asyncio.to_thread(eventually, lambda: server.descriptors <= descriptors)
    await agent.close()
