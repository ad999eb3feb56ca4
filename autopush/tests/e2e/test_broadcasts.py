"""Broadcasts, from their source to user agents (spec/broadcasts 1)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import httpx
import pytest

from automock.running import Background
from autopush.tests.daemons import Daemon
from autopush.tests.e2e.clients import JSON, UserAgent
from autopush.tests.e2e.harness import Server, free_port

NAME = "remote-settings/monitor_changes"


@pytest.fixture
def megaphone() -> Iterator[Background]:
    with Background("megaphone") as mock:
        yield mock


def options(mock: Background, path: str = "/v1/broadcasts", interval: int = 1) -> list[str]:
    """Those of a service that asks every so many seconds."""
    source = mock["megaphone"]
    return [
        *("--megaphone_api_url", source.url + path, "--megaphone_api_token", source.token),
        *("--megaphone_poll_interval", str(interval)),
    ]


def change(mock: Background, **versions: str) -> None:
    """Through the control API, as a person would."""
    url = f"{mock.automock.control.url}/megaphone/settings"
    body: JSON = {"broadcasts": {NAME: '"1"', **versions}}
    assert httpx.post(url, json=body, trust_env=False).status_code == 200


async def said(server: Server | Daemon, text: str, times: int = 1) -> None:
    """Wait until there are lines with this text in the log."""
    while sum(text in line for line in list(server.lines)) < times:
        await asyncio.sleep(0.05)


async def test_a_change_reaches_who_subscribed(
    make_server: Callable[..., Server], megaphone: Background
) -> None:
    server = await asyncio.to_thread(make_server(*options(megaphone)).start)
    await said(server, "Broadcasts changed")
    async with await UserAgent.open(server.ws_url, hello=False) as agent:
        reply = await agent.hello(broadcasts={NAME: '"0"', "x": "1"})
        assert reply["broadcasts"] == {NAME: '"1"', "errors": {"x": "Broadcast not found"}}
        async with await UserAgent.open(server.ws_url) as other:
            await asyncio.to_thread(change, megaphone, **{NAME: '"2"', "y": "1"})
            assert (await agent.receive("broadcast"))["broadcasts"] == {NAME: '"2"'}
            wanted = {"y": "0", NAME: '"2"'}
            await other.send({"messageType": "broadcast_subscribe", "broadcasts": wanted})
            assert (await other.receive("broadcast"))["broadcasts"] == {"y": "1"}
            await asyncio.to_thread(change, megaphone, **{NAME: '"3"', "y": "2"})
            news = {NAME: '"3"', "y": "2"}
            assert (await other.receive("broadcast"))["broadcasts"] == news
            assert (await agent.receive("broadcast"))["broadcasts"] == {NAME: '"3"'}
    assert megaphone["megaphone"].token not in server.output


async def test_every_worker_tells_its_own(
    make_server: Callable[..., Server], megaphone: Background
) -> None:
    server = await asyncio.to_thread(make_server("--workers", "2", *options(megaphone)).start)
    await said(server, "Broadcasts changed", 2)
    agents: list[UserAgent] = []
    while not all(clients_of_workers(server)):
        agents.append(await UserAgent.open(server.ws_url, hello=False))
        assert (await agents[-1].hello(broadcasts={NAME: '"0"'}))["broadcasts"] == {NAME: '"1"'}
    await asyncio.to_thread(change, megaphone, **{NAME: '"2"'})
    for agent in agents:
        assert (await agent.receive("broadcast"))["broadcasts"] == {NAME: '"2"'}
        await agent.close()


def clients_of_workers(server: Server) -> list[int]:
    """How many user agents each has; the kernel chooses whose somebody is."""
    health = httpx.get(f"{server.endpoint_url}/health", trust_env=False).json()
    return [worker["clients"] for worker in health["workers"].values()]


async def test_a_redirect_is_followed(
    make_server: Callable[..., Server], megaphone: Background
) -> None:
    server = await asyncio.to_thread(make_server(*options(megaphone, "/v1/broadcasts/")).start)
    await said(server, "Broadcasts changed")


FAULTS: dict[str, tuple[JSON, str]] = {
    "status": ({"status": 500}, "io: NoAnswer: status 500"),
    "token": ({"status": 401, "json": {"broadcasts": {"x": "1"}}}, "io: NoAnswer: status 401"),
    "no JSON": ({"body": "<html>"}, "io: NoAnswer: no JSON"),
    "too long": ({"body": "x" * (1024 * 1024 + 1)}, "io: "),
    "cut": ({"action": "close_mid_body"}, "io: "),
    "reset": ({"action": "reset"}, "io: "),
    "garbage": ({"action": "garbage"}, "io: "),
    "nothing": ({"action": "hang"}, "timeout: "),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_failure_at_the_start_ends_neither_start_nor_polling(
    make_server: Callable[..., Server], megaphone: Background, fault: str
) -> None:
    answer, reason = FAULTS[fault]
    megaphone["megaphone"].script.add(answer)
    # An answer may take most of the interval: on a busy machine all of a short one, and then its
    # being late would be the failure.
    interval = 1 if fault == "nothing" else 10
    server = await asyncio.to_thread(make_server(*options(megaphone, interval=interval)).start)
    await said(server, "Broadcasts are fetched again")
    (line,) = [line for line in server.lines if "Broadcasts could not be fetched" in line]
    assert reason in line
    async with await UserAgent.open(server.ws_url, hello=False) as agent:
        assert (await agent.hello(broadcasts={NAME: '"0"'}))["broadcasts"] == {NAME: '"1"'}


async def test_nobody_listens_there(make_server: Callable[..., Server]) -> None:
    url = f"http://127.0.0.1:{free_port()}/"
    server = await asyncio.to_thread(make_server("--megaphone_api_url", url).start)
    await said(server, "connect: ConnectionRefusedError")
    await asyncio.to_thread(server.stop)
