"""A message encrypted by somebody else's library reaches the browser and decrypts there."""

from __future__ import annotations

import asyncio
import uuid

import httpx
import pytest
from pywebpush import WebPushException

from autopush.tests.e2e.clients import JSON, Subscription, UserAgent, VapidSender, send
from autopush.tests.e2e.harness import Server

ENCODINGS = ("aesgcm128", "aesgcm", "aes128gcm")
TEXT = "Grüße – 你好".encode()


@pytest.mark.parametrize("delivery", ["direct", "stored"])
@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_message_decrypts_at_the_other_side(
    server: Server, encoding: str, version: str, delivery: str
) -> None:
    sender = VapidSender()
    agent = await UserAgent.open(server.ws_url)
    subscription = await agent.register(sender.public_key if version == "v2" else None)
    assert subscription.endpoint.startswith(f"{server.endpoint_url}/wpush/{version}/")
    if delivery == "stored":
        await agent.close()
    headers = {}
    if encoding == "aesgcm128" and version == "v2":
        headers = sender.rfc8292.sign({"aud": server.endpoint_url, "sub": "mailto:a@example.com"})
    vapid = sender.rfc8292 if version == "v2" else None

    answer = await send(subscription, TEXT, encoding=encoding, vapid=vapid, headers=headers, ttl=60)

    assert (answer.status_code, answer.content, answer.headers["TTL"]) == (201, b"", "60")
    if delivery == "stored":
        agent = await UserAgent.open(server.ws_url, agent.uaid)
    frame = await agent.receive("notification")
    assert frame["channelID"] == subscription.channel
    assert answer.headers["Location"] == f"{server.endpoint_url}/m/{frame['version']}"
    assert subscription.decrypt(frame) == TEXT
    await agent.ack_and_wait(frame)
    await agent.close()
    async with await UserAgent.open(server.ws_url, agent.uaid) as again:
        await again.nothing()


@pytest.mark.parametrize("form", ["draft01", "rfc8292", "quoted"])
@pytest.mark.parametrize("encoding", ENCODINGS[1:])
async def test_vapid_forms(server: Server, form: str, encoding: str) -> None:
    sender = VapidSender()
    async with await UserAgent.open(server.ws_url) as agent:
        subscription = await agent.register(sender.public_key)
        claims = {"aud": server.endpoint_url, "sub": "mailto:a@example.com"}
        if form == "quoted":
            header = sender.rfc8292.sign(claims)["Authorization"]
            token, key = header.removeprefix("vapid t=").split(",k=")
            kwargs = {"headers": {"Authorization": f'vapid t="{token}", k="{key}"'}}
        else:
            kwargs = {"vapid": getattr(sender, form)}
        for text in (b"never seen", b"used before"):
            answer = await send(subscription, text, encoding=encoding, **kwargs)
            assert answer.status_code == 201
            assert subscription.decrypt(await agent.receive("notification")) == text


async def test_other_senders_are_refused(server: Server) -> None:
    async with await UserAgent.open(server.ws_url) as agent:
        subscription = await agent.register(VapidSender().public_key)
        for vapid in (VapidSender().rfc8292, None):
            with pytest.raises(WebPushException) if vapid else _no_error():
                answer = await send(subscription, b"x", vapid=vapid)
                assert answer.status_code == 401
        await agent.nothing()


class _no_error:
    def __enter__(self) -> None: ...
    def __exit__(self, *exc: object) -> None: ...


async def test_restricted_endpoint_needs_its_version_in_the_path(server: Server) -> None:
    """spec/http-endpoint Q2: without the version no VAPID was asked for."""
    async with await UserAgent.open(server.ws_url) as agent:
        subscription = await agent.register(VapidSender().public_key)
        for other in ("", "v1/", "v3/"):
            endpoint = subscription.endpoint.replace("v2/", other)
            answer = await send(Subscription(subscription.channel, endpoint), b"x")
            assert answer.status_code == 404
        await agent.nothing()


async def test_two_browsers_get_their_own(server: Server) -> None:
    one, two = [await UserAgent.open(server.ws_url) for _ in range(2)]
    first, second = await one.register(), await two.register()
    assert one.uaid != two.uaid
    await asyncio.gather(send(first, b"for one"), send(second, b"for two"))
    assert first.decrypt(await one.receive("notification")) == b"for one"
    assert second.decrypt(await two.receive("notification")) == b"for two"
    await asyncio.gather(one.nothing(), two.nothing())
    await one.close()
    await two.close()


async def test_same_browser_twice_the_newer_connection_wins(server: Server) -> None:
    old = await UserAgent.open(server.ws_url)
    subscription = await old.register()
    await asyncio.sleep(0.01)  # "newer" is a matter of milliseconds
    async with await UserAgent.open(server.ws_url, old.uaid) as new:
        assert new.uaid == old.uaid
        assert await old.closed() is None
        await send(subscription, b"x")
        assert subscription.decrypt(await new.receive("notification")) == b"x"


async def test_empty_message_has_no_data(server: Server) -> None:
    async with await UserAgent.open(server.ws_url) as agent:
        subscription = await agent.register()
        assert (await send(subscription, None)).status_code == 201
        frame = await agent.receive("notification")
        assert set(frame) == {"messageType", "channelID", "version"}


# ------------------------------------------------------------------------------------ topics


async def test_stored_topic_message_is_replaced(server: Server) -> None:
    agent = await UserAgent.open(server.ws_url)
    subscription = await agent.register()
    await agent.close()
    for text in (b"old", b"new"):
        await send(subscription, text, headers={"Topic": "weather"})
    await send(subscription, b"other", headers={"Topic": "traffic"})
    async with await UserAgent.open(server.ws_url, agent.uaid) as again:
        frames = await again.receive_all(2)
        assert {subscription.decrypt(frame) for frame in frames} == {b"new", b"other"}
        await again.ack_and_wait(*frames)
        await again.nothing()


async def test_topic_messages_to_a_connected_browser_all_arrive(server: Server) -> None:
    async with await UserAgent.open(server.ws_url) as agent:
        subscription = await agent.register()
        for text in (b"old", b"new"):
            await send(subscription, text, headers={"Topic": "weather"})
        frames = await agent.receive_all(2)
        assert [subscription.decrypt(frame) for frame in frames] == [b"old", b"new"]
        # The ack of the replaced message must not remove its successor.
        await agent.ack_and_wait(frames[0])
        agent.abort()
        async with await UserAgent.open(server.ws_url, agent.uaid) as again:
            assert subscription.decrypt(await again.receive("notification")) == b"new"


# --------------------------------------------------------------------------------------- TTL


async def test_ttl_0_is_dropped_when_nobody_is_there(server: Server) -> None:
    agent = await UserAgent.open(server.ws_url)
    subscription = await agent.register()
    await agent.close()
    answer = await send(subscription, b"now or never", ttl=0)
    assert (answer.status_code, answer.headers["TTL"]) == (201, "0")
    assert answer.text == "Finished Routing"
    async with await UserAgent.open(server.ws_url, agent.uaid) as again:
        await again.nothing()


async def test_ttl_0_reaches_a_connected_browser_once(server: Server) -> None:
    agent = await UserAgent.open(server.ws_url)
    subscription = await agent.register()
    await send(subscription, b"now", ttl=0)
    assert subscription.decrypt(await agent.receive("notification")) == b"now"
    await agent.close()  # without an ack
    async with await UserAgent.open(server.ws_url, agent.uaid) as again:
        await again.nothing()


async def test_expired_message_is_not_delivered(server: Server) -> None:
    agent = await UserAgent.open(server.ws_url)
    subscription = await agent.register()
    await agent.close()
    await send(subscription, b"too late", ttl=1)
    await send(subscription, b"in time", ttl=60)
    await asyncio.sleep(2)
    async with await UserAgent.open(server.ws_url, agent.uaid) as again:
        frame = await again.receive("notification")
        assert subscription.decrypt(frame) == b"in time"
        await again.ack_and_wait(frame)
        await again.nothing()


# ---------------------------------------------------------------- what is acknowledged, what not


async def test_direct_message_without_ack_comes_again(server: Server) -> None:
    agent = await UserAgent.open(server.ws_url)
    subscription = await agent.register()
    await send(subscription, b"x")
    first = await agent.receive("notification")
    agent.abort()
    async with await UserAgent.open(server.ws_url, agent.uaid) as again:
        frame = await again.receive("notification")
        assert frame["version"] == first["version"]
        assert subscription.decrypt(frame) == b"x"


async def test_direct_message_is_not_sent_again_by_a_storage_check(server: Server) -> None:
    async with (
        await UserAgent.open(server.ws_url) as agent,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        subscription = await agent.register()
        for topic in ({}, {"Topic": "t"}):
            await send(subscription, b"x", headers=topic)
        frames = await agent.receive_all(2)
        for _ in range(3):
            check = await client.put(f"{server.router_url}/notif/{agent.uaid}")
            assert check.status_code == 200
        await agent.nothing()
        await agent.ack_and_wait(*frames)
        await client.put(f"{server.router_url}/notif/{agent.uaid}")
        await agent.nothing()


async def test_unregistered_channel_gets_nothing(server: Server) -> None:
    async with await UserAgent.open(server.ws_url) as agent:
        subscription = await agent.register()
        await agent.send({"messageType": "unregister", "channelID": subscription.channel})
        reply = await agent.receive("unregister")
        assert (reply["status"], reply["channelID"]) == (200, subscription.channel)
        assert (await send(subscription, b"x")).status_code == 410


async def test_deleted_message_is_not_delivered(server: Server) -> None:
    agent = await UserAgent.open(server.ws_url)
    subscription = await agent.register()
    await agent.close()
    answers = [await send(subscription, text) for text in (b"taken back", b"kept")]
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.delete(answers[0].headers["Location"])).status_code == 204
    async with await UserAgent.open(server.ws_url, agent.uaid) as again:
        assert subscription.decrypt(await again.receive("notification")) == b"kept"
        await again.nothing()


async def test_unknown_browser_gets_a_new_uaid(server: Server) -> None:
    async with await UserAgent.open(server.ws_url, uuid.uuid4().hex) as agent:
        assert agent.uaid and len(agent.uaid) == 32


async def test_firefox_hello(server: Server) -> None:
    """What Firefox sends today (spec/websocket 23.6)."""
    options: JSON = {"subprotocols": ["push-notification"], "origin": server.ws_url}
    async with await UserAgent.open(server.ws_url, hello=False, **options) as agent:
        assert agent.ws.subprotocol is None
        reply = await agent.hello(broadcasts={"remote-settings/monitor_changes": '"1"'})
        assert (reply["status"], reply["use_webpush"]) == (200, True)
        await agent.send(
            {"messageType": "broadcast_subscribe", "broadcasts": {"remote-settings/x": '"0"'}}
        )
        reply = await agent.receive("broadcast")
        assert reply["broadcasts"] == {"errors": {"remote-settings/x": "Broadcast not found"}}
        await agent.send({})
        assert await agent.receive() == {}
