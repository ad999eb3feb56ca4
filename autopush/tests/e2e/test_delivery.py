"""Many messages: batches, order, limits, and browsers that do not keep up."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

import httpx
import pytest

from autopush.tests.e2e.clients import (
    JSON,
    Subscription,
    UserAgent,
    VapidSender,
    b64decode,
    send,
)
from autopush.tests.e2e.harness import Server, eventually
from autopush.tests.e2e.raw import AES128GCM, RawAgent, post_bytes

BATCH = 10
"""Timestamped messages a batch holds (spec/websocket 9.1)."""

TOPIC_BATCH = 9
MSG_LIMIT = 100


async def _offline(server: Server) -> tuple[str, Subscription]:
    agent = await UserAgent.open(server.ws_url)
    subscription = await agent.register()
    await agent.close()
    assert agent.uaid
    return agent.uaid, subscription


async def _batch(agent: UserAgent, size: int) -> list[JSON]:
    """Take a batch and make sure that no more comes before it is acknowledged."""
    frames = await agent.receive_all(size)
    await agent.nothing()
    return frames


async def test_stored_messages_come_in_batches_of_ten(server: Server) -> None:
    uaid, subscription = await _offline(server)
    for number in range(23):
        await send(subscription, b"%d" % number)
    seen: list[bytes] = []
    async with await UserAgent.open(server.ws_url, uaid) as agent:
        for size in (BATCH, BATCH, 3):
            frames = await _batch(agent, size)
            seen += [subscription.decrypt(frame) for frame in frames]
            await agent.ack_and_wait(*frames[:-1])
            await agent.nothing()  # one is still missing
            await agent.ack_and_wait(frames[-1])
        await agent.nothing()
    assert seen == [b"%d" % number for number in range(23)]
    async with await UserAgent.open(server.ws_url, uaid) as agent:
        await agent.nothing()


async def test_topic_messages_come_first_and_in_batches_of_nine(server: Server) -> None:
    uaid, subscription = await _offline(server)
    await send(subscription, b"plain")
    for number in range(12):
        await send(subscription, b"topic", headers={"Topic": f"t{number:02}"})
    async with await UserAgent.open(server.ws_url, uaid) as agent:
        for size, text in ((TOPIC_BATCH, b"topic"), (3, b"topic"), (1, b"plain")):
            frames = await _batch(agent, size)
            assert {subscription.decrypt(frame) for frame in frames} == {text}
            await agent.ack_and_wait(*frames)
        await agent.nothing()


@pytest.mark.parametrize("acked", [0, 1, 2])
async def test_only_what_was_acknowledged_of_a_batch_does_not_come_again(
    server: Server, acked: int
) -> None:
    """Quirk Q10, not kept: it lost the others, or brought it again."""
    uaid, subscription = await _offline(server)
    for number in range(3):
        await send(subscription, b"%d" % number)
    agent = await UserAgent.open(server.ws_url, uaid)
    frames = await agent.receive_all(3)
    await agent.ack_and_wait(frames[acked])
    await agent.close()
    rest = [frame["version"] for frame in frames if frame is not frames[acked]]
    async with await UserAgent.open(server.ws_url, uaid) as again:
        assert [frame["version"] for frame in await again.receive_all(2)] == rest
        await again.nothing()


async def test_message_limit_resets_no_browser(make_server: Callable[..., Server]) -> None:
    """Its backlog is bounded where it is accepted, and starts anew with each connection."""
    server = make_server("--msg_limit", "5").start()
    uaid, subscription = await _offline(server)
    for _ in range(2):
        bodies = [b"%d" % number for number in range(7)]
        assert await post_bytes(server, subscription, bodies) == [201] * 5 + [429] * 2
        async with await UserAgent.open(server.ws_url, uaid) as agent:
            assert agent.uaid == uaid
            await agent.ack_and_wait(*await agent.receive_all(5))
            await agent.nothing()


async def test_message_limit_resets_the_browser(make_server: Callable[..., Server]) -> None:
    """Where there are more all the same: a process doesn't know what was stored before it began."""
    server = make_server("--msg_limit", "5").start()
    uaid, subscription = await _offline(server)
    for count in (5, 2):
        assert set(await post_bytes(server, subscription, [b"x"] * count)) == {201}
        server.stop()
        server.start()
    agent = await UserAgent.open(server.ws_url, uaid)
    assert len(await agent.receive_all(5)) == 5
    assert await agent.closed() is None
    # Record gone: the browser must subscribe again.
    async with await UserAgent.open(server.ws_url, uaid) as again:
        assert again.uaid != uaid
    assert await post_bytes(server, subscription, [b"x"]) == [410]


async def test_a_hundred_messages_are_within_the_default_limit(server: Server) -> None:
    uaid, subscription = await _offline(server)
    await post_bytes(server, subscription, [b"%d" % number for number in range(MSG_LIMIT)])
    async with await UserAgent.open(server.ws_url, uaid) as agent:
        for _ in range(MSG_LIMIT // BATCH):
            await agent.ack_and_wait(*await agent.receive_all(BATCH))
        await agent.nothing()
        await send(subscription, b"goes on")
        assert subscription.decrypt(await agent.receive("notification")) == b"goes on"


async def test_messages_while_a_batch_is_out(server: Server) -> None:
    """Direct ones are not held up, stored and direct ones come once each, in one connection."""
    uaid, subscription = await _offline(server)
    for number in range(BATCH + 2):
        await send(subscription, b"stored %d" % number)
    async with await UserAgent.open(server.ws_url, uaid) as agent:
        batch = await agent.receive_all(BATCH)
        await send(subscription, b"direct")
        direct = await agent.receive("notification")
        assert subscription.decrypt(direct) == b"direct"
        await agent.ack_and_wait(*batch)
        rest = await agent.receive_all(2)
        assert {subscription.decrypt(frame) for frame in rest} == {b"stored 10", b"stored 11"}
        await agent.ack_and_wait(*rest)
        await agent.nothing()
        agent.abort()
    async with await UserAgent.open(server.ws_url, uaid) as agent:
        frame = await agent.receive("notification")
        assert frame["version"] == direct["version"]
        await agent.ack_and_wait(frame)
        await agent.nothing()


async def _fill(server: Server, slow: RawAgent, subscription: Subscription) -> list[bytes]:
    """Send to a browser that does not read, until the kernel takes no more from the server."""
    texts: list[bytes] = []
    async with httpx.AsyncClient(trust_env=False) as client:
        while len(texts) < 2000:
            text = b"%06d" % len(texts) + b"." * 3994
            answer = await client.post(subscription.endpoint, content=text, headers=AES128GCM)
            assert answer.status_code == 201
            texts.append(text)
            answer = await client.put(f"{server.router_url}/notif/{slow.uaid}")
            if answer.status_code != 200:
                assert (answer.status_code, answer.text) == (202, "Flagged for Notification check")
                return texts
    raise AssertionError("the kernel takes everything")


async def test_browser_that_does_not_read(make_server: Callable[..., Server]) -> None:
    """Back-pressure: its messages wait in storage instead of our memory, and come when it reads;
    others are not held up (spec/websocket 12, quirks Q1 and Q2)."""
    options = ("--max_direct_unacked", "10000", "--rate_subscription", "0")
    server = make_server(*options, router=True).start()
    slow = await RawAgent.open(server)
    subscription = await slow.register()
    other = await UserAgent.open(server.ws_url)
    other_subscription = await other.register()
    texts = await _fill(server, slow, subscription)
    rss = server.rss
    more = [b"m%05d" % number + b"." * 3994 for number in range(200)]
    assert await post_bytes(server, subscription, more) == [201] * len(more)
    assert server.rss - rss < 2 * 1024 * 1024  # all of them are twice as long in a frame

    await send(other_subscription, b"x")
    assert other_subscription.decrypt(await other.receive("notification")) == b"x"
    await other.close()

    seen: list[bytes] = []
    while len(seen) < len(texts) + len(more):
        frame = await slow.receive()
        seen.append(slow.body(frame))
        await slow.ack(frame)
    assert sorted(seen) == sorted(texts + more)
    await slow.nothing()
    slow.close()


async def test_abandoned_browser_does_not_delay_the_others(
    make_server: Callable[..., Server],
) -> None:
    """What it has not read is kept for its next connection."""
    server = make_server("--rate_subscription", "0", router=True).start()
    slow = await RawAgent.open(server)
    subscription = await slow.register()
    texts = await _fill(server, slow, subscription)
    async with await UserAgent.open(server.ws_url, slow.uaid) as agent:
        assert agent.uaid == slow.uaid
        seen: list[bytes] = []
        while len(seen) < len(texts):
            batch = await agent.receive_all(min(BATCH, len(texts) - len(seen)))
            seen += [RawAgent.body(frame) for frame in batch]
            await agent.ack(*batch)
        assert seen == texts
    slow.close()


async def test_a_stalled_browser_loses_nothing(make_server: Callable[..., Server]) -> None:
    """Neither what was sent to it and not acknowledged, nor what had to be stored besides."""
    server = make_server("--max_direct_unacked", "300", "--rate_subscription", "0").start()
    agent = await UserAgent.open(server.ws_url)
    subscription = await agent.register()
    texts = [b"%04d" % number for number in range(1100)]
    assert set(await post_bytes(server, subscription, texts)) == {201}
    uaid = agent.uaid
    agent.abort()
    seen: set[bytes] = set()
    async with await UserAgent.open(server.ws_url, uaid) as agent:
        assert agent.uaid == uaid
        while len(seen) < len(texts):
            frame = await agent.receive("notification")
            seen.add(RawAgent.body(frame))
            await agent.ack(frame)
    assert seen == set(texts)


async def test_a_sender_that_fills_its_share(make_server: Callable[..., Server]) -> None:
    """It is told which limit and when to come again; other senders are not affected."""
    server = make_server("--max_stored", "20", "--max_stored_share", "50").start()
    agent = await UserAgent.open(server.ws_url)
    greedy, modest = await agent.register(), await agent.register()
    await agent.close()
    bodies = [b"%d" % number for number in range(12)]
    assert await post_bytes(server, greedy, bodies) == [201] * 10 + [429] * 2
    answer = httpx.post(greedy.endpoint, content=b"x", headers=AES128GCM, trust_env=False)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "300")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()["errno"] == 203
    text = "Too much is waiting: 10 messages are waiting for this subscription already"
    assert answer.json()["message"] == text
    assert await post_bytes(server, modest, bodies[:3]) == [201] * 3
    async with await UserAgent.open(server.ws_url, agent.uaid) as agent:
        frames: list[JSON] = []
        while len(frames) < 13:
            frames.append(await agent.receive("notification"))
            await agent.ack_and_wait(frames[-1])
    assert await post_bytes(server, greedy, [b"room again"]) == [201]


async def test_a_sender_that_sends_too_fast(make_server: Callable[..., Server]) -> None:
    """Subscription and key each have a bucket; the answer says when there is room again."""
    server = make_server(
        *("--rate_subscription", "1", "--burst_subscription", "3"),
        *("--rate_sender", "1", "--burst_sender", "4"),
    ).start()
    claims = {"sub": "mailto:ops@example.com", "aud": server.endpoint_url}
    signed = VapidSender().rfc8292.sign(claims)
    async with await UserAgent.open(server.ws_url) as agent:
        first, second, third = [await agent.register() for _ in range(3)]

        async def until_refused(subscription: Subscription, headers: JSON) -> tuple[int, JSON]:
            for accepted in range(20):
                answer = await send(subscription, b"x", headers=headers)
                if answer.status_code != 201:
                    assert answer.status_code == 429
                    assert 1 <= int(answer.headers["Retry-After"]) <= 60
                    return accepted, answer.json()
            raise AssertionError("nothing was refused")

        accepted, body = await until_refused(first, {})
        assert accepted >= 3
        assert (body["errno"], "1 a minute, 3 at once" in body["message"]) == (204, True)
        for subscription in (second, third):
            accepted, body = await until_refused(subscription, signed)
        assert "for this sender's key: 1 a minute, 4 at once" in body["message"]
        assert (await send(third, b"x")).status_code == 201  # who has no key has room here


def test_many_connections_end_at_once(server: Server) -> None:
    """Resets, while the handshake is open or after it, leave nothing behind."""
    before = server.descriptors
    sockets = []
    for number in range(200):
        one = socket.create_connection(("127.0.0.1", server.port))
        if number % 2:
            one.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n")
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sockets.append(one)
    for one in sockets:
        one.close()
    eventually(lambda: server.descriptors <= before + 2)


LONG = 300_000
"""Bytes, far above what RFC 8030 asks for."""


@pytest.mark.parametrize("delivery", ["direct", "stored"])
async def test_max_data_may_be_far_above_4096(
    make_server: Callable[..., Server], delivery: str
) -> None:
    """Nothing else is in the way of a body of this length, and one byte more is refused as ever."""
    server = await asyncio.to_thread(make_server("--max_data", str(LONG)).start)
    agent = await UserAgent.open(server.ws_url)
    subscription = await agent.register()
    if delivery == "stored":
        await agent.close()
    headers = {"TTL": "60", "Content-Encoding": "aes128gcm"}
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        for length, status in ((LONG, 201), (LONG + 1, 413)):
            answer = await client.post(
                subscription.endpoint, content=b"x" * length, headers=headers
            )
            assert answer.status_code == status
    assert answer.json()["message"].endswith(f"Data payload must be smaller than {LONG}")
    if delivery == "stored":
        agent = await UserAgent.open(server.ws_url, agent.uaid)
    frame = await agent.receive("notification")
    assert b64decode(frame["data"]) == b"x" * LONG
    await agent.ack_and_wait(frame)
    await agent.close()
