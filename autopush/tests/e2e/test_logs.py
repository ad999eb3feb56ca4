"""What the logs say, and what they never say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import httpx
import pytest

from autopush.tests.e2e.clients import UserAgent, VapidSender, send
from autopush.tests.e2e.harness import Server


@pytest.mark.parametrize("form", ["json", "human"])
async def test_secrets_never_reach_the_log(make_server: Callable[..., Server], form: str) -> None:
    options = ["--debug", "--human_logs" if form == "human" else "--no_human_logs"]
    server = await asyncio.to_thread(make_server(*options, router=True).start)
    sender = VapidSender()
    secrets = {"crypto and auth keys": list(server.secrets)}
    async with httpx.AsyncClient(trust_env=False) as client:
        agent = await UserAgent.open(server.ws_url)
        subscription = await agent.register(sender.public_key)
        plain = await agent.register()
        tokens = [one.endpoint.rpartition("/")[2] for one in (subscription, plain)]
        secrets["endpoint tokens"] = tokens
        claims = {"aud": server.endpoint_url, "sub": "mailto:ops@example.com"}
        headers = [sender.rfc8292.sign(claims), sender.draft01.sign(claims)]
        secrets["VAPID tokens"] = [one["Authorization"].split(",k=")[0][-80:] for one in headers]
        for one in headers:
            await send(subscription, b"direct", headers=one, encoding="aesgcm")
        await send(plain, b"direct")
        bad = {"Authorization": "Bearer hunter2hunter2hunter2"}
        await send(plain, b"refused", headers=bad)
        await client.post(f"{subscription.endpoint}x", headers=bad)
        await client.get(f"{subscription.endpoint}?q=1")
        base = f"{server.endpoint_url}/v1/webpush/app/registration"
        registered = (await client.post(base, content="{}")).json()
        secrets["registration"] = [
            registered["secret"],
            registered["endpoint"].rpartition("/")[2],
            "hunter2hunter2hunter2",
        ]
        url = f"{base}/{registered['uaid']}"
        right = {"Authorization": f"webpush {registered['secret']}"}
        for header in (right, bad):
            await client.get(url, headers=header)
            await client.post(f"{url}/subscription", content="{}", headers=header)
            await client.put(url, content='{"token": "hunter2hunter2hunter2"}', headers=header)
        await agent.ack_and_wait(*await agent.receive_all(3))
        await agent.close()
        await send(plain, b"stored")
    assert await asyncio.to_thread(server.stop) == 0

    output = server.output
    assert "DEBUG" in output.upper()
    for what, values in secrets.items():
        for value in values:
            assert len(value) > 12
            assert value not in output, what
            assert value[:40] not in output, what
    # The lines are there, only without the secrets.
    for event in ("Register", "Successful delivery", "Ack", "Session"):
        assert event in output, event


async def test_json_lines(make_server: Callable[..., Server]) -> None:
    server = await asyncio.to_thread(make_server("--log_level", "debug").start)
    async with await UserAgent.open(
        server.ws_url, user_agent_header="Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Firefox/140.0"
    ) as agent:
        subscription = await agent.register()
        await send(subscription, b"x")
        await agent.ack_and_wait(await agent.receive("notification"))
    assert await asyncio.to_thread(server.stop) == 0
    events = {}
    for line in server.lines:
        if line.startswith("{"):
            entry = json.loads(line)
            assert {"Timestamp", "Type", "Logger", "Hostname", "Severity", "EnvVersion"} <= set(
                entry
            )
            events[entry["Fields"]["message"]] = entry["Fields"]
    session = events["Session"]
    assert (session["registers"], session["direct_acked"]) == (1, 1)
    assert session["uaid_hash"] == agent.uaid
    assert events["Register"]["channel_id"] == subscription.channel
    assert events["Ack"]["message_source"] == "direct"


async def test_log_file(make_server: Callable[..., Server]) -> None:
    server = make_server("--debug", "--log_output", "service.log")
    await asyncio.to_thread(server.start)
    async with await UserAgent.open(server.ws_url) as agent:
        await agent.register()
    assert await asyncio.to_thread(server.stop) == 0
    text = (server.home / "service.log").read_text()
    assert "Register" in text
    assert "Register" not in server.output
