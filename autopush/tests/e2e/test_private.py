"""A private service (``--access_key``): who gets in, and where its keys never are."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from autopush.scripts.autokey import access_key
from autopush.tests.e2e.clients import UserAgent, VapidSender, send
from autopush.tests.e2e.harness import READY, Server, environment, run

MakeServer = Callable[..., Server]
NEW = "/v1/webpush/app/registration"


async def refused(url: str, **kwargs: Any) -> InvalidStatus:
    with pytest.raises(InvalidStatus) as caught:
        await UserAgent.open(url, **kwargs)
    return caught.value


async def test_only_who_shows_a_key_gets_in(make_server: MakeServer) -> None:
    """By WebSocket and HTTP; senders need none; and it is in no log, whatever it is written for."""
    keys = [access_key(), access_key()]
    server = make_server("--debug", "--no_human_logs", router=True)
    server.data_dir.mkdir(mode=0o700)
    (server.data_dir / "access_keys").write_text("# mine\n{}\n\n# yours\n{}\n".format(*keys))
    await asyncio.to_thread(server.start)
    wrong = [access_key(), keys[0][:-1], f"{keys[0]}x"]
    sender = VapidSender()
    for path in (keys[0], f"{keys[1]}/", f"some/prefix/{keys[0]}", f"?a=b&key={keys[1]}"):
        async with await UserAgent.open(server.ws_url + path) as agent:
            subscription = await agent.register(sender.public_key)
            assert subscription.endpoint.startswith(f"{server.endpoint_url}/wpush/v2/")
            await send(subscription, b"x", vapid=sender.rfc8292)
            assert subscription.decrypt(await agent.receive("notification")) == b"x"
    for key in wrong:
        for path in (key, f"?key={key}", f"{key}/{key}", ""):
            response = (await refused(server.ws_url + path)).response
            assert response.status_code == 401
            body = json.loads(response.body)
            assert (body["code"], body["errno"]) == (401, 109)
            assert "access key" in body["message"]
    async with httpx.AsyncClient(trust_env=False, base_url=server.endpoint_url) as client:
        for path in (f"/{keys[0]}{NEW}", f"{NEW}?key={keys[1]}"):
            answer = await client.post(path, content="{}")
            assert answer.status_code == 200
            assert not any(key in answer.text for key in keys)
        for path in (NEW, f"/{wrong[0]}{NEW}", f"{NEW}?key={wrong[0]}"):
            assert (await client.post(path, content="{}")).status_code == 401
        registration = f"/{keys[0]}{NEW}/{agent.uaid}"
        await client.get(registration, headers={"Authorization": "Bearer x"})
        await client.put(f"{NEW}/{agent.uaid}?key={wrong[0]}", content="{")
        await client.get(f"/{wrong[0]}/v1/err/crit")
        await client.get(f"/{keys[0]}/v1/err/crit?key={keys[1]}")
        await client.patch(f"/{keys[0]}{NEW}?key={keys[1]}")
        await client.get("/status", headers={"User-Agent": keys[0], "X-Forwarded-For": keys[1]})
        await client.post(f"{NEW}/{keys[0]}/subscription", headers={"User-Agent": keys[1]})
    assert await asyncio.to_thread(server.stop) == 0
    assert "Refused without an access key" in server.output
    assert "Test Critical Message" in server.output
    assert f"dom.push.serverURL = {server.ws_url}<access key>" in server.output
    for key in (*keys, wrong[0]):
        assert key not in server.output


async def test_key_of_the_command_line_on_two_ports(make_server: MakeServer) -> None:
    key = access_key()
    server = make_server("--access_key", key, separate=True)
    await asyncio.to_thread(server.start)
    async with await UserAgent.open(server.ws_url + key) as agent:
        assert agent.uaid
    assert (await refused(server.ws_url)).response.status_code == 401
    answer = await asyncio.to_thread(httpx.post, server.endpoint_url + NEW, content="{}")
    assert answer.status_code == 401
    assert key not in server.output


async def test_private_service_with_tls(
    make_server: MakeServer, certificate: tuple[str, str]
) -> None:
    key = access_key()
    server = make_server(tls=certificate, env={"ACCESS_KEY": f"[{access_key()}, {key}]"})
    await asyncio.to_thread(server.start)
    context = ssl.create_default_context(cafile=certificate[1])
    async with await UserAgent.open(f"{server.ws_url}?key={key}", ssl=context) as agent:
        assert agent.uaid
    assert (await refused(server.ws_url, ssl=context)).response.status_code == 401


def test_addresses_are_shown_to_a_terminal(make_server: MakeServer) -> None:
    key = access_key()
    server = make_server("--access_key", key)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        server.command, cwd=server.home, env=environment(server.home), stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    try:
        with open(ours, errors="replace") as terminal:
            lines = []
            for line in terminal:
                lines.append(line.strip())
                if READY in line:
                    break
    finally:
        process.kill()
        process.wait()
    assert f"dom.push.serverURL = {server.ws_url}{key}" in lines
    assert f"Registration over HTTP: {server.endpoint_url}/{key}/v1/..." in lines


@pytest.mark.parametrize("key", ["short", "with a blank in it, though long", "é" * 30, "a/b" * 10])
def test_bad_key_ends_the_start(tmp_path: Path, key: str) -> None:
    done = run("--port", "0", "--access_key", key, home=tmp_path)
    assert done.returncode == 1
    assert "Invalid access_key: must have 22 to 128 letters, digits, - or _" in done.stderr
    assert key not in done.stdout + done.stderr
    data = tmp_path / "autopush-data"
    data.mkdir(mode=0o700)
    (data / "access_keys").write_text(f"# a comment\n{key}\n")
    done = run("--port", "0", home=tmp_path)
    assert done.returncode == 1
    assert "access_keys: line 2 is not a key" in done.stderr
    assert key not in done.stdout + done.stderr


def test_file_without_a_key_opens_no_door(tmp_path: Path) -> None:
    data = tmp_path / "autopush-data"
    data.mkdir(mode=0o700)
    (data / "access_keys").write_text("# to be made\n")
    done = run("--port", "0", home=tmp_path)
    assert done.returncode == 1
    assert "access_keys: it holds no key" in done.stderr
