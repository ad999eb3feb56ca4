"""What the nodes of a cluster do for each other: spec/websocket 7, 14 and 19, spec/bridges 3."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import httpx
import pytest

from autopush.tests.cluster.harness import Cluster, Daemon, kill
from autopush.tests.e2e.clients import UserAgent, send

UAID = "0" * 32


async def connected(cluster, node=0, uaid=None):
    """A user agent with a subscription (a returning one has it already)."""
    return await UserAgent.open(cluster.nodes[node].ws_url, uaid)


# ------------------------------------------------------------------ delivery between processes


@pytest.mark.parametrize("endpoint", [0, 1])
@pytest.mark.parametrize("node", [0, 1])
async def test_message_from_every_endpoint_to_every_node(cluster, endpoint, node):
    async with await connected(cluster, node) as browser:
        subscription = await browser.register()
        subscription.endpoint = cluster.at_endpoint(subscription.endpoint, endpoint)
        answer = await send(subscription, b"hello")
        assert (answer.status_code, answer.headers["ttl"]) == (201, "60")
        frame = await browser.receive("notification")
        assert subscription.decrypt(frame) == b"hello"
        await browser.ack_and_wait(frame)


async def test_stored_message_is_fetched_at_another_node(cluster):
    browser = await connected(cluster, 0)
    subscription = await browser.register()
    await browser.close()
    for text in (b"1", b"2"):
        assert (await send(subscription, text)).status_code == 201
    async with await connected(cluster, 1, browser.uaid) as again:
        assert again.uaid == browser.uaid
        frames = await again.receive_all(2)
        assert [subscription.decrypt(frame) for frame in frames] == [b"1", b"2"]
        await again.ack_and_wait(*frames)
    async with await connected(cluster, 0, browser.uaid) as third:
        await third.nothing()


async def test_unacknowledged_message_follows_to_the_new_node(cluster):
    """Stored at the old node when its connection ends; the new node is told (14 step 5)."""
    browser = await connected(cluster, 0)
    subscription = await browser.register()
    assert (await send(subscription, b"direct")).status_code == 201
    first = await browser.receive("notification")
    async with await connected(cluster, 1, browser.uaid) as again:
        await browser.closed()
        frame = await again.receive("notification")
        assert subscription.decrypt(frame) == b"direct"
        assert frame["version"] == first["version"]
        await again.ack_and_wait(frame)


async def test_newer_connection_ends_the_older_one_on_another_node(cluster):
    """DELETE /notif (7 step 8)."""
    older = await connected(cluster, 0)
    newer = await connected(cluster, 1, (await register_and_uaid(older)))
    assert newer.uaid == older.uaid
    await older.closed()
    assert cluster.storage.user(newer.uaid)["node_id"] == cluster.router_url(1)
    await newer.round_trip()
    await newer.close()


async def register_and_uaid(browser):
    await browser.register()
    return browser.uaid


async def test_node_leaves_the_record_when_the_user_is_not_there(cluster):
    """404 (quirk B22)."""
    browser = await connected(cluster, 0)
    subscription = await browser.register()
    await browser.close()
    # A node believes in a connection for a minute after its start.
    record = cluster.storage.user(browser.uaid)
    cluster.storage.change_user(browser.uaid, connected_at=int(record["connected_at"]) - 60_000)
    assert (await send(subscription, b"x")).status_code == 201
    assert "node_id" not in cluster.storage.user(browser.uaid)
    async with await connected(cluster, 0, browser.uaid) as again:
        await again.ack_and_wait(await again.receive("notification"))
        assert cluster.storage.user(browser.uaid)["node_id"] == cluster.router_url(0)


@pytest.mark.parametrize(
    "url",
    ["http://no-such-host.invalid:8081", "http://127.0.0.1:1", "ftp://x", "http://127.0.0.1:99999"],
)
async def test_node_that_can_t_be_reached(cluster, url):
    """Name not found, refused, no URL of a node: stored, and forgotten (quirk B21)."""
    browser = await connected(cluster, 0)
    subscription = await browser.register()
    await browser.close()
    cluster.storage.change_user(browser.uaid, node_id=url)
    assert (await send(subscription, b"x")).status_code == 201
    assert "node_id" not in cluster.storage.user(browser.uaid)
    async with await connected(cluster, 0, browser.uaid) as again:
        frame = await again.receive("notification")
        assert subscription.decrypt(frame) == b"x"
        await again.ack_and_wait(frame)


async def test_node_that_does_not_answer(cluster):
    """Response time-out: stored after seconds, and fetched at another node."""
    browser = await connected(cluster, 0)
    subscription = await browser.register()
    hanging = cluster.nodes[0].pid
    os.kill(hanging, signal.SIGSTOP)
    try:
        answer = await send(subscription, b"x")
        assert answer.status_code == 201
        async with await connected(cluster, 1, browser.uaid) as again:
            frame = await again.receive("notification")
            assert subscription.decrypt(frame) == b"x"
            await again.ack_and_wait(frame)
    finally:
        os.kill(hanging, signal.SIGCONT)
    await browser.close()


async def test_message_without_ttl_or_with_ttl_0_is_not_stored(cluster):
    browser = await connected(cluster, 0)
    subscription = await browser.register()
    await browser.close()
    async with httpx.AsyncClient() as client:
        assert (await client.post(subscription.endpoint)).status_code == 400
        answer = await client.post(subscription.endpoint, headers={"TTL": "0"})
        assert (answer.status_code, answer.headers["ttl"]) == (201, "0")
    async with await connected(cluster, 1, browser.uaid) as again:
        await again.nothing()


async def test_message_is_cancelled_at_any_endpoint(cluster):
    browser = await connected(cluster, 0)
    subscription = await browser.register()
    await browser.close()
    location = (await send(subscription, b"x")).headers["location"]
    async with httpx.AsyncClient() as client:
        answer = await client.delete(cluster.at_endpoint(location, 1))
        assert answer.status_code == 204
    async with await connected(cluster, 0, browser.uaid) as again:
        await again.nothing()


# ------------------------------------------------------------------- the internal API, section 19


async def test_internal_api(cluster):
    async with httpx.AsyncClient(base_url=cluster.router_url(0)) as client:
        for method, path, status, text in [
            ("PUT", f"/push/{UAID}", 404, "Client not connected."),
            ("PUT", f"/notif/{UAID}", 404, "Client not connected."),
            ("PUT", f"/notif/{UAID}/1", 404, "Client not connected."),
            ("DELETE", f"/notif/{UAID}", 200, ""),
            ("DELETE", f"/notif/{UAID}/1", 200, ""),
            ("POST", f"/push/{UAID}", 405, ""),
        ]:
            answer = await client.request(method, path)
            assert (answer.status_code, answer.text) == (status, text), (method, path)
        assert (await client.get("/status")).json()["status"] == "OK"
        async with await connected(cluster, 0) as browser:
            await browser.register()
            record = cluster.storage.user(browser.uaid)
            assert (await client.put(f"/notif/{browser.uaid}")).text == "Notification check started"
            message = {
                "channelID": "11111111-2222-4333-8444-555555555555",
                "version": "v",
                "ttl": 0,
                "topic": None,
                "timestamp": 1,
            }
            answer = await client.put(f"/push/{browser.uaid}", content=json.dumps(message))
            assert (answer.status_code, answer.text) == (200, "Client accepted for delivery")
            assert (await browser.receive("notification"))["version"] == "v"
            path = f"/notif/{browser.uaid}/{record['connected_at']}"
            assert (await client.delete(path)).text == "Terminated duplicate"
            await browser.closed()


async def test_health_of_every_node(cluster):
    for daemon in cluster.endpoints:
        answer = httpx.get(f"{daemon.url}/health")
        assert answer.status_code == 200, answer.text
    for number in range(2):
        assert httpx.get(f"{cluster.router_url(number)}/health").status_code == 200


# ------------------------------------------------------------------------ clusters of their own


async def test_router_port_with_tls(storage, tmp_path, certificate):
    """``router_ssl_key``: the node's URL is https, endpoints check its certificate."""
    key, cert = certificate
    with Cluster(
        tmp_path,
        storage,
        node_options=("--router_ssl_key", key, "--router_ssl_cert", cert),
        env={"SSL_CERT_FILE": cert},
    ) as cluster:
        async with await connected(cluster, 0) as browser:
            subscription = await browser.register()
            node_id = cluster.storage.user(browser.uaid)["node_id"]
            assert node_id == f"https://127.0.0.1:{cluster.nodes[0].router_port}"
            assert (await send(subscription, b"secret")).status_code == 201
            frame = await browser.receive("notification")
            assert subscription.decrypt(frame) == b"secret"
            assert "node_id" in cluster.storage.user(browser.uaid)
        # Without trust in the certificate the node is as good as gone.
        strict = Daemon("autoendpoint", tmp_path / "strict", env=dict(storage.env))
        strict.words += cluster.endpoints[0].words[5:]
        try:
            strict.start()
            async with await connected(cluster, 0, browser.uaid) as browser:
                await browser.ack_and_wait(await browser.receive("notification"))
                subscription.endpoint = subscription.endpoint.replace(
                    cluster.endpoints[0].url, strict.url
                )
                assert (await send(subscription, b"stored")).status_code == 201
                assert "node_id" not in cluster.storage.user(browser.uaid)
        finally:
            strict.close()


async def test_killed_node(storage, tmp_path):
    """What it had not stored is lost, unless ``store_direct`` is on; the rest is not."""
    with Cluster(tmp_path, storage, "--store_direct") as cluster:
        browser = await connected(cluster, 0)
        subscription = await browser.register()
        assert (await send(subscription, b"direct")).status_code == 201
        await browser.receive("notification")
        kill(cluster.nodes[0])
        assert (await send(subscription, b"stored")).status_code == 201
        assert "node_id" not in storage.user(browser.uaid)
        async with await connected(cluster, 1, browser.uaid) as again:
            frames = await again.receive_all(2)
            assert {subscription.decrypt(frame) for frame in frames} == {b"direct", b"stored"}
            await again.ack_and_wait(*frames)
        cluster.nodes[0].start()
        async with await connected(cluster, 0, browser.uaid) as third:
            await third.nothing()


async def test_stopped_node_saves_and_its_users_move(storage, tmp_path):
    with Cluster(tmp_path, storage) as cluster:
        browser = await connected(cluster, 0)
        subscription = await browser.register()
        assert (await send(subscription, b"direct")).status_code == 201
        await browser.receive("notification")
        stopping = asyncio.create_task(asyncio.to_thread(cluster.nodes[0].end))
        await browser.closed()
        async with await connected(cluster, 1, browser.uaid) as again:
            frame = await again.receive("notification")
            assert subscription.decrypt(frame) == b"direct"
            await again.ack_and_wait(frame)
            assert await stopping == 0
            await again.nothing()


# ------------------------------------------------------------------------------------ urgency


async def least(browser, name, status=200):
    """What the user agent wants at once: spec/broadcasts 2."""
    await browser.send({"messageType": "urgency", "min": name})
    assert (await browser.receive("urgency"))["status"] == status


async def test_what_is_not_urgent_waits_until_it_is_wanted(cluster):
    """Over nodes and reconnects, and whichever endpoint node is asked; then it comes in order."""
    browser = await connected(cluster, 0)
    subscription = await browser.register()
    await least(browser, "normal")
    await least(browser, "urgent", 400)
    texts = [b"1 low", b"2 very-low", b"3 high", b"4", b"5 LOW"]
    for number, text in enumerate(texts):
        urgency = text[2:].decode()
        subscription.endpoint = cluster.at_endpoint(subscription.endpoint, number % 2)
        headers = {"Urgency": urgency} if urgency else {}
        answer = await send(subscription, text, headers=headers)
        assert answer.status_code == 201, answer.text
    frames = await browser.receive_all(2)
    assert [subscription.decrypt(frame) for frame in frames] == [b"3 high", b"4"]
    assert all("urgency" not in frame for frame in frames)
    await browser.ack_and_wait(*frames)
    await browser.close()
    async with await connected(cluster, 1, browser.uaid) as again:
        await again.nothing()
        await least(again, "low")
        frames = await again.receive_all(2)
        assert [subscription.decrypt(frame) for frame in frames] == [b"1 low", b"5 LOW"]
        await again.ack_and_wait(*frames)
    async with await UserAgent.open(cluster.nodes[0].ws_url, hello=False) as third:
        await third.hello(browser.uaid, urgency="very-low")
        frame = await third.receive("notification")
        assert subscription.decrypt(frame) == b"2 very-low"
        await third.ack_and_wait(frame)
        await third.nothing()


async def test_an_urgency_that_is_none_is_a_field_error(cluster):
    async with await connected(cluster) as browser:
        subscription = await browser.register()
        headers = {"TTL": "60", "Urgency": "urgent"}
        answer = httpx.post(subscription.endpoint, headers=headers, trust_env=False)
        assert (answer.status_code, answer.json()["errno"]) == (400, 116)
        assert "urgency" in answer.json()["errors"]["headers"]
        await browser.nothing()
