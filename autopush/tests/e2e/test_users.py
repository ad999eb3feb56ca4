"""Users are counted, and those who have nothing and don't come back are forgotten."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from typing import Any

import httpx

from autopush.tests.e2e.clients import UserAgent
from autopush.tests.e2e.harness import Server, eventually


def health(server: Server) -> Any:
    return httpx.get(f"{server.endpoint_url}/health").json()


async def test_users_without_a_subscription_are_forgotten(
    make_server: Callable[..., Server],
) -> None:
    server = await asyncio.to_thread(make_server().start)
    with_channel = await UserAgent.open(server.ws_url)
    await with_channel.register()
    without, lately = [await UserAgent.open(server.ws_url) for _ in range(2)]
    for agent in (without, lately):
        channel = (await agent.register()).channel
        await agent.send({"messageType": "unregister", "channelID": channel})
        await agent.receive("unregister")
    assert await asyncio.to_thread(server.stop) == 0
    with sqlite3.connect(server.data_dir / "autopush.sqlite3") as file:
        for agent, days in ((with_channel, 200), (without, 181), (lately, 179)):
            then = int((time.time() - days * 86_400) * 1000)
            file.execute(
                "UPDATE users SET record = json_set(record, '$.connected_at', ?) WHERE uaid = ?",
                (then, agent.uaid),
            )
            if agent is not with_channel:
                file.execute(
                    "UPDATE channel_rows SET expiry = ? WHERE uaid = ?", (then // 1000, agent.uaid)
                )
    file.close()
    await asyncio.to_thread(server.start)
    assert await asyncio.to_thread(eventually, lambda: health(server).get("users") == 2, every=0.2)
    forgot = "Forgot 1 user agents without a channel"
    assert await asyncio.to_thread(eventually, lambda: forgot in server.output)
    for agent, known in ((with_channel, True), (without, False), (lately, True)):
        async with await UserAgent.open(server.ws_url, uaid=agent.uaid) as again:
            assert (again.uaid == agent.uaid) is known
