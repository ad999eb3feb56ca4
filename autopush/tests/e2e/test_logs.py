"""What the logs say, and what they never say."""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import pty
import random
import re
import socket
import subprocess
import uuid
from collections.abc import Callable

import httpx
import pytest

from autopush.tests.e2e.clients import UserAgent, VapidSender, send
from autopush.tests.e2e.harness import READY, STOP_WITHIN, Server, environment, eventually

MakeServer = Callable[..., Server]
KEY = "k" * 22
"""An access key."""


def hidden(server: Server, ident: str) -> str:
    """The name that a log has for an id."""
    key = (server.data_dir / "log_key").read_bytes().strip()
    return hmac.digest(key, ident.encode(), "sha256").hex()


@pytest.mark.parametrize("form", ["json", "human"])
async def test_secrets_never_reach_the_log(make_server: Callable[..., Server], form: str) -> None:
    options = ["--debug", "--human_logs" if form == "human" else "--no_human_logs"]
    server = await asyncio.to_thread(make_server(*options, router=True).start)
    sender = VapidSender()
    secrets = {"keys": list(server.secrets)}
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
        frames = await agent.receive_all(3)
        assert agent.uaid
        mobile = registered["uaid"]
        uaids = [agent.uaid, mobile]
        secrets["user agents"] = uaids + [str(uuid.UUID(uaid)) for uaid in uaids]
        secrets["messages"] = [frame["version"] for frame in frames]
        url = f"{base}/{uuid.UUID(mobile)}"  # another spelling of the same
        await client.get(url, headers=right)
        await client.request("BREW", url, headers=right)
        for method in ("GET", "PUT"):
            await client.request(method, f"{server.router_url}/push/{agent.uaid}", content="?")
        await agent.send({"messageType": "nack", "version": frames[0]["version"], "code": 301})
        await agent.ack_and_wait(*frames)
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
    for event in ("Register", "Successful delivery", "Ack", "Nack", "Session"):
        assert (event in output) or (form == "human" and f"] {event.lower()} " in output), event
    if form == "json":
        for uaid in uaids:
            assert hidden(server, uaid) in output


def test_standard_output_is_json_lines_and_nothing_else(make_server: MakeServer) -> None:
    """What people want to know at the start is on the other stream."""
    server = make_server("--access_key", KEY)
    with subprocess.Popen(
        server.command,
        cwd=server.home,
        env=environment(server.home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        told = list(iter(process.stderr.readline, f"{READY}\n"))
        process.terminate()
        lines, rest = process.stdout.read().splitlines(), process.stderr.read()
    assert process.returncode == 0
    assert f"    dom.push.serverURL = {server.ws_url}<access key>\n" in told
    assert rest == ""
    assert len(lines) > 3
    for line in lines:
        assert json.loads(line)["Fields"]["message"]
    assert KEY not in "".join([*told, *lines])


def test_the_start_is_told_to_whoever_sits_at_a_terminal(make_server: MakeServer) -> None:
    """Also when the log goes elsewhere."""
    server = make_server("--access_key", KEY)
    ours, theirs = pty.openpty()
    log = server.home / "log"
    with log.open("wb") as file, open(ours, errors="replace") as terminal:
        process = subprocess.Popen(
            server.command,
            cwd=server.home,
            env=environment(server.home),
            stdout=file,
            stderr=theirs,
        )
        os.close(theirs)
        told = [line.strip() for line in iter(terminal.readline, f"{READY}\n")]
        process.terminate()
        assert process.wait(STOP_WITHIN) == 0
    assert f"dom.push.serverURL = {server.ws_url}{KEY}" in told
    for line in log.read_text().splitlines():
        assert json.loads(line)["Fields"]["message"]


async def test_json_lines(make_server: Callable[..., Server]) -> None:
    server = await asyncio.to_thread(make_server("--log_level", "debug").start)
    async with await UserAgent.open(
        server.ws_url, user_agent_header="Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Firefox/140.0"
    ) as agent:
        subscription = await agent.register()
        await send(subscription, b"x")
        frame = await agent.receive("notification")
        await agent.ack_and_wait(frame)
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
    assert agent.uaid
    name = hidden(server, agent.uaid)
    assert session["uaid_hash"] == events["Register"]["uaid_hash"] == name
    assert events["Register"]["channel_id"] == subscription.channel
    assert events["Ack"]["message_source"] == "direct"
    delivered = events["Successful delivery"]
    assert delivered["uaid_hash"] == name
    assert delivered["message_id"] == events["Ack"]["message_id"]
    assert delivered["message_id"] == hidden(server, frame["version"])


async def test_lines_for_people(make_server: MakeServer) -> None:
    """What happened to whom: one line each, at the level that is written by default."""
    server = await asyncio.to_thread(make_server("--human_logs").start)
    begin = len(server.lines)
    agent = await UserAgent.open(server.ws_url)
    first, second = await agent.register(), await agent.register()
    await send(first, b"direct")
    await agent.ack_and_wait(await agent.receive("notification"))
    await agent.send({"messageType": "unregister", "channelID": second.channel})
    await agent.receive("unregister")
    assert (await send(second, b"refused")).status_code == 410
    await agent.close()
    async with httpx.AsyncClient(trust_env=False) as client:
        base = f"{server.endpoint_url}/v1/webpush/app/registration"
        mobile = (await client.post(base, content="{}")).json()
        right = {"Authorization": f"webpush {mobile['secret']}"}
        path = f"{base}/{mobile['uaid']}/subscription/{mobile['channelID']}"
        assert (await client.delete(path, headers=right)).status_code == 200
        assert (await client.delete(path)).status_code == 401
    await asyncio.to_thread(eventually, lambda: any("] session" in line for line in server.lines))
    assert (await send(first, b"stored")).status_code == 201
    assert await asyncio.to_thread(server.stop) == 0
    assert agent.uaid
    whom = f"uaid={hidden(server, agent.uaid)[:16]}"
    one, two = (f"{whom} channel={subscription.channel}" for subscription in (first, second))
    phone = f"uaid={hidden(server, mobile['uaid'])[:16]} channel={uuid.UUID(mobile['channelID'])}"
    said = [
        re.sub(r" in \d+ ms$", "", line.partition("] ")[2])
        for line in server.lines[begin:]
        if " uaid=" in line
    ]
    gone = 'from=127.0.0.1 errno=106 reason="Request did not validate No such subscription" 410'
    size = r"bytes=\d+"
    wanted = [
        f"hello {whom} 200",
        f"register {one} 200",
        f"register {two} 200",
        rf"message {one} {size} delivered 201",
        f"unregister {two} 200",
        f"refused {two} {gone}",
        rf"session {whom} host=127.0.0.1( seconds=\d+)? direct_acked=1 registers=2 unregisters=1",
        f"register {phone} 200",
        f"unregister {phone} 200",
        rf"refused {phone} from=127.0.0.1 errno=109 reason=\".*\" 401",
        rf"message {one} {size} stored 201",
    ]
    assert len(said) == len(wanted), said
    for pattern in wanted:
        assert any(re.fullmatch(pattern, line) for line in said), (pattern, said)


async def test_log_file(make_server: Callable[..., Server]) -> None:
    server = make_server("--debug", "--log_output", "service.log")
    await asyncio.to_thread(server.start)
    async with await UserAgent.open(server.ws_url) as agent:
        await agent.register()
    assert await asyncio.to_thread(server.stop) == 0
    text = (server.home / "service.log").read_text()
    assert "Register" in text
    assert "Register" not in server.output


# ------------------------------------------------------------------------- how much is logged

BUDGET = 2048
"""Bytes of log that one request may cause."""


def mistakes(chance: random.Random) -> bytes:
    """A request that asks for as much in the log as anybody can: long, odd and many things."""

    def text(most: int) -> str:
        length = chance.randint(0, most)
        letters = chance.choice(("x", "ab/", "\xff", "\xe9%00", '"', "\\", "{", "<%s>"))
        return (letters * length)[:length]

    path = chance.choice(
        (
            f"/wpush/v{text(3)}/{text(3000)}",
            f"/v1/{text(100)}/{text(100)}/registration/{text(2000)}",
            "/v1/webpush/app/registration",
            f"/m/{text(3000)}",
            f"/{text(4000)}",
            "/status",
            "/health",
            "/v1/err",
        )
    )
    method = chance.choice(("GET", "POST", "PUT", "DELETE", "PATCH", "BREW", "OPTIONS"))
    body = text(5000).encode("latin-1")
    claims = {text(200) + str(n): text(300) for n in range(12)}
    token = f"eyJ{json.dumps(claims)}.{text(2000)}.{text(80)}".replace("\n", "")
    odd = "".join(letter for letter in text(100) if letter.isascii() and letter.isalnum())
    names = ["User-Agent", "X-Forwarded-For", "TTL", "Topic", "Urgency", "Content-Encoding"]
    names += ["Crypto-Key", "Encryption", odd or "X"]
    head = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}"]
    head.append("Connection: close")
    head += [f"{name}: {text(4000)}" for name in names if chance.random() < 0.7]
    head += [f"Authorization: {chance.choice(('vapid t=', 'WebPush ', 'Bearer '))}{token}"]
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body


def exchange(port: int, request: bytes) -> bytes:
    """Send a request on a connection of its own; the answer."""
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        connection.sendall(request)
        answer = b""
        while data := connection.recv(65536):
            answer += data
        return answer


async def test_one_request_fills_no_log(make_server: Callable[..., Server]) -> None:
    """What anybody sends makes 2 KiB of log at most, nothing that the operator has to look after,
    and nothing for Sentry."""
    server = await asyncio.to_thread(make_server("--no_human_logs").start)
    chance = random.Random(11)
    for number in range(150):
        begin = len(server.lines)
        request = mistakes(chance)
        answer = await asyncio.to_thread(exchange, server.port, request)
        assert answer.startswith(b"HTTP/1.1 "), request
        # A line of ours, behind all that the request has made.
        mark = f"/status?mark={number}."
        last = f"BREW {mark} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
        assert b" 405 " in await asyncio.to_thread(exchange, server.port, last)
        while not any(mark in line for line in server.lines[begin:]):
            await asyncio.sleep(0.01)
        made = [line for line in server.lines[begin:] if mark not in line]
        assert sum(len(line) + 1 for line in made) <= BUDGET, request
        for entry in map(json.loads, made):
            fields = entry["Fields"]
            assert "traceback" not in fields
            if not request.startswith(b"GET /v1/err "):  # which is there to make an error
                assert fields["log_level"] in ("debug", "info", "warn"), fields


async def test_one_user_agent_fills_no_log(make_server: Callable[..., Server]) -> None:
    """Neither do its headers, its connection and its messages, each by itself."""
    server = await asyncio.to_thread(make_server("--no_human_logs").start)
    async with await UserAgent.open(server.ws_url, user_agent_header="Mozilla \\" * 1500) as agent:
        await agent.register()
    async with await UserAgent.open(server.ws_url) as bad:
        await bad.send({"messageType": "x" * 30000, "more": ["\x00" * 5000]})
        await bad.receive("error")
    assert await asyncio.to_thread(server.stop) == 0
    found = [line for line in server.lines if line.startswith("{")]
    texts = [json.loads(line)["Fields"]["message"] for line in found]
    assert {"Register", "Session"} <= set(texts)
    assert max(map(len, found)) <= BUDGET


async def test_whole_requests_at_level_debug(make_server: Callable[..., Server]) -> None:
    """With all that is said then, of an ordinary message: two lines, none of them cut."""
    server = await asyncio.to_thread(make_server("--debug", "--no_human_logs").start)
    sender = VapidSender()
    async with await UserAgent.open(server.ws_url) as agent:
        subscription = await agent.register(sender.public_key)
        begin = len(server.lines)
        claims = {"aud": server.endpoint_url, "sub": "mailto:ops@example.com"}
        await send(subscription, b"x" * 100, headers=sender.rfc8292.sign(claims))
        await agent.ack_and_wait(await agent.receive("notification"))
    assert await asyncio.to_thread(server.stop) == 0
    made = [line for line in server.lines[begin:] if '"request_id"' in line]
    assert [json.loads(line)["Fields"]["message"] for line in made] == [
        "Successful delivery",
        "Request timings",
    ]
    assert "...[+" not in "".join(made)
