"""Each connection node of a cluster knows what is broadcast, by asking for itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from automock.running import Background
from autopush.tests.cluster.harness import Daemon, SqliteStorage
from autopush.tests.e2e.clients import UserAgent
from autopush.tests.e2e.harness import UNEXPECTED

NAME = "remote-settings/monitor_changes"


@pytest.fixture
def megaphone() -> Iterator[Background]:
    with Background("megaphone") as mock:
        yield mock


def knows(node: Daemon) -> bool:
    """Whether it has heard of anything."""
    return "Broadcasts changed" in node.output


@pytest.fixture
def nodes(tmp_path: Path, megaphone: Background) -> Iterator[list[Daemon]]:
    """Two of them, which know of the source from variables, on one store."""
    storage = SqliteStorage(tmp_path)
    env = {**megaphone["megaphone"].environment(), "MEGAPHONE_POLL_INTERVAL": "1"}
    found = [Daemon("autopush", tmp_path / f"node{number}", env=env) for number in range(2)]
    try:
        for node in found:
            node.words += [
                *("--hostname", "127.0.0.1", "--no_aws", "--statsd_host", ""),
                *("--crypto_key", "0" * 43 + "=", *storage.options),
            ]
            node.start()
            node.wait_for(partial(knows, node), "the source")
        yield found
    finally:
        for node in found:
            node.close()
    lines = [line for node in found for line in node.lines]
    assert not [line for line in lines if any(sign in line for sign in UNEXPECTED)]
    assert not [line for line in lines if megaphone["megaphone"].token in line]


def change(mock: Background, **versions: str) -> None:
    url = f"{mock.automock.control.url}/megaphone/settings"
    answer = httpx.post(url, json={"broadcasts": versions}, trust_env=False)
    assert answer.status_code == 200


async def test_every_node_tells_its_own(nodes: list[Daemon], megaphone: Background) -> None:
    agents = [await UserAgent.open(node.ws_url, hello=False) for node in nodes]
    for agent in agents:
        reply = await agent.hello(broadcasts={NAME: '"0"'})
        assert reply["broadcasts"] == {NAME: '"1"'}
    # The source fails once, at one or the other: that is no change.
    megaphone["megaphone"].script.add({"status": 500})
    await asyncio.to_thread(change, megaphone, **{NAME: '"2"', "other": "1"})
    for agent in agents:
        assert (await agent.receive("broadcast"))["broadcasts"] == {NAME: '"2"'}
    # Who comes back, to the other node, is told nothing twice.
    for agent, node in zip(agents, reversed(nodes), strict=True):
        await agent.close()
        async with await UserAgent.open(node.ws_url, hello=False) as again:
            assert (await again.hello(broadcasts={NAME: '"2"'}))["broadcasts"] == {}
            await again.send(
                {"messageType": "broadcast_subscribe", "broadcasts": {"other": "0", "x": ""}}
            )
            assert (await again.receive("broadcast"))["broadcasts"] == {
                "other": "1",
                "errors": {"x": "Broadcast not found"},
            }
