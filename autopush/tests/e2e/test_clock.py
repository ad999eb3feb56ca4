"""The machine's clock is set forth or back while the service runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from autopush.tests import TREE
from autopush.tests.e2e.clients import UserAgent, send
from autopush.tests.e2e.harness import Server

HOUR = 3600
DAY = 86_400

SHIFT = """
import os, time

_path = os.environ["CLOCK_SHIFT_FILE"]
_time, _time_ns = time.time, time.time_ns

def _shift():
    with open(_path) as file:
        return int(file.read() or 0)

time.time = lambda: _time() + _shift()
time.time_ns = lambda: _time_ns() + _shift() * 1_000_000_000
"""
"""Run by the server's interpreter before anything else: its wall clock, but not its monotonic one,
is off by what a file says. That is what a step of the system's clock looks like to a process."""


class Clock:
    """The wall clock of a server."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "shift"
        (directory / "sitecustomize.py").write_text(SHIFT)
        self.step(0)

    def step(self, seconds: int) -> None:
        """Set the clock to so many seconds from the true time."""
        draft = self.file.with_suffix(".new")
        draft.write_text(str(seconds))
        draft.replace(self.file)

    @property
    def env(self) -> dict[str, str]:
        """What the server needs in its environment."""
        return {
            "PYTHONPATH": f"{self.directory}:{TREE}",
            "CLOCK_SHIFT_FILE": str(self.file),
        }


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


@pytest.fixture
def server(make_server: Callable[..., Server], clock: Clock) -> Server:
    return make_server(env=clock.env).start()


@pytest.mark.parametrize("step", [-HOUR, -1, HOUR])
async def test_stored_messages_across_a_step(server: Server, clock: Clock, step: int) -> None:
    """All come, each once, in the order in which they were sent."""
    agent = await UserAgent.open(server.ws_url)
    subscription = await agent.register()
    await agent.close()
    ttl = 2 * HOUR
    for text in (b"1", b"2"):
        await send(subscription, text, ttl=ttl)
    clock.step(step)
    for text in (b"3", b"4"):
        await send(subscription, text, ttl=ttl)
    async with await UserAgent.open(server.ws_url, agent.uaid) as again:
        assert again.uaid == agent.uaid
        frames = await again.receive_all(4)
        assert [subscription.decrypt(frame) for frame in frames] == [b"1", b"2", b"3", b"4"]
        await again.ack_and_wait(*frames)
        await again.nothing()
    async with await UserAgent.open(server.ws_url, agent.uaid) as again:
        await again.nothing()


@pytest.mark.parametrize("step", [-HOUR, -1, HOUR])
async def test_acknowledged_then_step_then_more(server: Server, clock: Clock, step: int) -> None:
    """The read pointer is ahead of the clock after a step back: newer messages still come."""
    agent = await UserAgent.open(server.ws_url)
    subscription = await agent.register()
    await agent.close()
    await send(subscription, b"before", ttl=2 * HOUR)
    async with await UserAgent.open(server.ws_url, agent.uaid) as again:
        await again.ack_and_wait(await again.receive("notification"))
    clock.step(step)
    await send(subscription, b"after", ttl=2 * HOUR)
    async with await UserAgent.open(server.ws_url, agent.uaid) as again:
        frame = await again.receive("notification")
        assert subscription.decrypt(frame) == b"after"
        await again.ack_and_wait(frame)
        await again.nothing()


async def test_restart_after_a_step_back(server: Server, clock: Clock) -> None:
    """The new process has not seen the clock of the old one."""
    agent = await UserAgent.open(server.ws_url)
    subscription = await agent.register()
    await agent.close()
    await send(subscription, b"before", ttl=2 * HOUR)
    async with await UserAgent.open(server.ws_url, agent.uaid) as again:
        await again.ack_and_wait(await again.receive("notification"))
    clock.step(-HOUR)
    await asyncio.to_thread(server.restart)
    await send(subscription, b"after", ttl=2 * HOUR)
    async with await UserAgent.open(server.ws_url, agent.uaid) as again:
        assert again.uaid == agent.uaid
        assert subscription.decrypt(await again.receive("notification")) == b"after"


async def test_connected_browser_across_steps(server: Server, clock: Clock) -> None:
    async with await UserAgent.open(server.ws_url) as agent:
        subscription = await agent.register()
        for step in (-DAY, 0, DAY, -HOUR, -DAY):
            clock.step(step)
            await send(subscription, b"%d" % step, ttl=60)
            frame = await agent.receive("notification")
            assert subscription.decrypt(frame) == b"%d" % step
            await agent.ack_and_wait(frame)
        await agent.nothing()


async def test_browser_returns_after_a_step_back(server: Server, clock: Clock) -> None:
    """Its record says that it connected in the future (spec/websocket Q34, on one node)."""
    agent = await UserAgent.open(server.ws_url)
    subscription = await agent.register()
    await agent.close()
    for step in (-1, -HOUR, -DAY):
        clock.step(step)
        async with await UserAgent.open(server.ws_url, agent.uaid) as again:
            assert again.uaid == agent.uaid
            await send(subscription, b"x")
            frame = await again.receive("notification")
            await again.ack_and_wait(frame)


async def test_newer_connection_wins_after_a_step_back(server: Server, clock: Clock) -> None:
    old = await UserAgent.open(server.ws_url)
    subscription = await old.register()
    clock.step(-HOUR)
    async with await UserAgent.open(server.ws_url, old.uaid) as new:
        assert await old.closed() is None
        await send(subscription, b"x")
        assert subscription.decrypt(await new.receive("notification")) == b"x"


async def test_step_forth_expires_what_is_due(server: Server, clock: Clock) -> None:
    agent = await UserAgent.open(server.ws_url)
    subscription = await agent.register()
    await agent.close()
    await send(subscription, b"short", ttl=60)
    await send(subscription, b"long", ttl=3 * HOUR)
    clock.step(HOUR)
    async with await UserAgent.open(server.ws_url, agent.uaid) as again:
        assert subscription.decrypt(await again.receive("notification")) == b"long"
        await again.nothing()


async def test_timeouts_go_on_after_a_step_back(
    make_server: Callable[..., Server], clock: Clock
) -> None:
    # As many seconds as a handshake may take on a busy machine.
    server = await asyncio.to_thread(make_server("--hello_timeout", "10", env=clock.env).start)
    before = await UserAgent.open(server.ws_url, hello=False)
    clock.step(-HOUR)
    after = await UserAgent.open(server.ws_url, hello=False)
    for silent in (before, after):
        assert await silent.closed() is None


async def test_step_forth_is_no_time_out(make_server: Callable[..., Server], clock: Clock) -> None:
    server = await asyncio.to_thread(make_server("--hello_timeout", "600", env=clock.env).start)
    async with await UserAgent.open(server.ws_url, hello=False) as patient:
        clock.step(HOUR)
        await patient.nothing(2)
        await patient.hello()
