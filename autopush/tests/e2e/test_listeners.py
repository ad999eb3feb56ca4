"""Where the service listens: ports, addresses, sockets, TLS; and what it calls itself."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import requests
from websockets.exceptions import InvalidStatus

from autopush.tests.e2e.clients import Subscription, UserAgent, VapidSender, send
from autopush.tests.e2e.harness import Server

MakeServer = Callable[..., Server]


async def test_shared_port_serves_both(server: Server) -> None:
    async with httpx.AsyncClient(trust_env=False, base_url=server.endpoint_url) as client:
        answer = await client.get("/status")
        assert (answer.status_code, answer.json()["status"]) == (200, "OK")
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/nothing")).status_code == 404
    for path in ("", "some/path?x=1"):
        async with await UserAgent.open(server.ws_url + path) as agent:
            assert agent.uaid


async def test_http_first_then_websocket_on_one_connection_of_the_shared_port(
    server: Server,
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /__lbheartbeat__ HTTP/1.1\r\nHost: x\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    writer.write(
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    writer.close()


async def test_separate_ports(make_server: MakeServer) -> None:
    server = await asyncio.to_thread(make_server(separate=True, router=True).start)
    async with await UserAgent.open(server.ws_url) as agent:
        subscription = await agent.register()
        assert subscription.endpoint.startswith(f"{server.endpoint_url}/wpush/")
        await send(subscription, b"x")
        assert subscription.decrypt(await agent.receive("notification")) == b"x"
    with pytest.raises(InvalidStatus) as refused:
        await UserAgent.open(server.endpoint_url.replace("http:", "ws:") + "/")
    assert refused.value.response.status_code == 404
    async with httpx.AsyncClient(trust_env=False) as client:
        ws_port = server.ws_url.replace("ws:", "http:")
        assert (await client.get(ws_port)).status_code == 426
        assert (await client.get(ws_port + "status")).json()["status"] == "OK"
        for path in ("push", "notif"):
            for port in (server.port, server.endpoint_port):
                url = f"http://127.0.0.1:{port}/{path}/{agent.uaid}"
                assert (await client.put(url)).status_code in (404, 405, 426), url
        internal = await client.put(f"{server.router_url}/notif/{agent.uaid}")
        assert (internal.status_code, internal.text) == (404, "Client not connected.")


async def test_internal_api_is_off_by_default(make_server: MakeServer) -> None:
    server = await asyncio.to_thread(make_server().start)
    async with (
        await UserAgent.open(server.ws_url) as agent,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        for path in ("push", "notif"):
            answer = await client.put(f"{server.endpoint_url}/{path}/{agent.uaid}", content=b"{}")
            assert answer.status_code == 404


async def test_unix_socket(make_server: MakeServer, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    server = make_server("--public_url", "http://push.example", host=f"unix:{path}")
    await asyncio.to_thread(server.start)
    transport = httpx.AsyncHTTPTransport(uds=path)
    async with httpx.AsyncClient(transport=transport, base_url="http://push.example") as client:
        assert (await client.get("/status")).status_code == 200
        async with await UserAgent.open("ws://push.example/", unix=path) as agent:
            subscription = await agent.register()
            assert subscription.endpoint.startswith("http://push.example/wpush/v1/")
            answer = await client.post(
                subscription.endpoint,
                content=b"x" * 100,
                headers={"TTL": "60", "Content-Encoding": "aes128gcm"},
            )
            assert answer.status_code == 201
            assert (await agent.receive("notification"))["channelID"] == subscription.channel
    server.kill()
    await asyncio.to_thread(server.start)  # the socket of a killed process is in nobody's way
    assert await asyncio.to_thread(server.stop) == 0
    assert not Path(path).exists()


async def test_ipv6_wildcard_serves_both_families(make_server: MakeServer) -> None:
    server = await asyncio.to_thread(make_server(host="::").start)
    for host in ("[::1]", "127.0.0.1"):
        async with await UserAgent.open(f"ws://{host}:{server.port}/") as agent:
            subscription = await agent.register()
            path = subscription.endpoint.partition("/wpush/")[2]
            endpoint = f"http://{host}:{server.port}/wpush/{path}"
            await send(Subscription(subscription.channel, endpoint), b"x")
            assert await agent.receive("notification")


async def test_tls(make_server: MakeServer, certificate: tuple[str, str]) -> None:
    key, cert = certificate
    server = await asyncio.to_thread(make_server(tls=(key, cert)).start)
    context = ssl.create_default_context(cafile=cert)
    sender = VapidSender()
    async with await UserAgent.open(server.ws_url, ssl=context) as agent:
        subscription = await agent.register(sender.public_key)
        assert subscription.endpoint.startswith(f"https://127.0.0.1:{server.port}/wpush/v2/")
        await send(subscription, b"x", vapid=sender.rfc8292, verify=cert)
        assert subscription.decrypt(await agent.receive("notification")) == b"x"
        closed = asyncio.create_task(agent.closed())
        assert await asyncio.to_thread(server.stop) == 0
        await closed
        assert agent.got_close_frame
    assert f"wss://127.0.0.1:{server.port}/" in server.output


def test_tls_port_refuses_plain_http(make_server: MakeServer, certificate: tuple[str, str]) -> None:
    server = make_server(tls=certificate).start()
    with pytest.raises(requests.RequestException):
        requests.get(f"http://127.0.0.1:{server.port}/status", timeout=60)
    assert (
        httpx.get(
            f"{server.endpoint_url}/status",
            verify=ssl.create_default_context(cafile=certificate[1]),
            trust_env=False,
        ).status_code
        == 200
    )


async def test_public_url(make_server: MakeServer) -> None:
    """Behind a proxy: endpoint URLs, Location and the VAPID audience are what others see."""
    public = "https://push.example.org"
    server = await asyncio.to_thread(make_server("--public_url", public).start)
    assert public in server.output
    sender = VapidSender()
    async with await UserAgent.open(server.ws_url) as agent:
        subscription = await agent.register(sender.public_key)
        assert subscription.endpoint.startswith(f"{public}/wpush/v2/")
        inside = Subscription(
            subscription.channel, subscription.endpoint.replace(public, server.endpoint_url)
        )
        claims = {"sub": "mailto:a@example.com"}
        for audience, status in ((public, 201), (server.endpoint_url, 401)):
            headers = sender.rfc8292.sign({**claims, "aud": audience})
            answer = await send(inside, b"x", headers=headers)
            assert answer.status_code == status
            if status == 201:
                assert answer.headers["Location"].startswith(f"{public}/m/")
        assert inside.decrypt(await agent.receive("notification")) == b"x"


def test_output_names_the_addresses(server: Server) -> None:
    lines = server.output
    for text in (server.ws_url, server.endpoint_url, "dom.push.serverURL", str(server.data_dir)):
        assert text in lines
