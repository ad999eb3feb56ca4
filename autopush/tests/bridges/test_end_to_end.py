"""From the registration of a phone to the payload its vendor gets, on started services."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from autopush.ids import generate_hash
from autopush.tests.bridges.support import (
    AUTH_KEY,
    BRIDGES,
    PATIENT,
    WAITS,
    Bridge,
    Node,
    running_node,
)
from autopush.tests.e2e.clients import VapidSender, push
from autopush.tests.e2e.harness import eventually

ENCODINGS = ("aes128gcm", "aesgcm", "aesgcm128")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running_node(tmp_path_factory.mktemp("bridges")) as started:
        yield started
        for daemon in started.daemons.values():
            assert daemon.process.poll() is None, daemon.output
            check_secrets(started, daemon.output)


def check_secrets(node: Node, output: str) -> None:
    """Nothing of a device token or a key reaches a log."""
    for bridge in BRIDGES.values():
        for letter in "abcdefgh":
            assert bridge.token(letter)[-60:] not in output, bridge.stand_in
    secrets = [
        node.mock["adm"].client_secret,
        node.mock["gcm"].server_key,
        node.mock["fcm_legacy"].server_key,
        *node.mock["adm"].access_tokens,
        *node.mock["fcm"].access_tokens,
        "PRIVATE KEY",
    ]
    for secret in secrets:
        assert secret not in output


@pytest.fixture(params=BRIDGES)
def bridge(request: pytest.FixtureRequest, node: Node) -> Bridge:
    found = BRIDGES[request.param]
    node.stand_in(found).reset()
    return found


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_payload_arrives(node: Node, bridge: Bridge, encoding: str) -> None:
    device = node.register(bridge)
    answer = push(device.subscription, b"to be or not", encoding=encoding, ttl=300)
    assert answer.status_code == 201, answer.text
    assert answer.headers["TTL"] == "300"
    assert "/m/" in answer.headers["Location"]
    (seen,) = device.seen()
    assert bridge.device(seen) == bridge.token("a")
    assert device.decrypt(bridge.data(seen)) == b"to be or not"


def test_restricted_subscription(node: Node, bridge: Bridge) -> None:
    sender = VapidSender()
    device = node.register(bridge, key=sender.public_key)
    assert "/wpush/v2/" in device.subscription.endpoint
    assert device.post().status_code == 401
    answer = push(device.subscription, b"hello", vapid=sender.rfc8292)
    assert answer.status_code == 201, answer.text
    assert device.decrypt(bridge.data(device.seen()[0])) == b"hello"


def test_registration_answer(node: Node, bridge: Bridge) -> None:
    device = node.register(bridge)
    expected = {"uaid", "secret", "endpoint", "channelID"}
    if bridge.router_type in ("gcm", "fcm"):
        assert device.answer["senderid"] == bridge.app_id
        expected.add("senderid")
    assert set(device.answer) == expected


def test_new_token(node: Node, bridge: Bridge) -> None:
    device = node.register(bridge)
    body = {"token": bridge.token("b")}
    assert httpx.put(device.url, json=body).status_code == 401
    assert httpx.put(device.url, json=body, headers=device.auth).json() == {}
    assert device.post(b"x").status_code == 201
    assert bridge.device(device.seen()[-1]) == bridge.token("b")


def test_more_channels(node: Node, bridge: Bridge) -> None:
    device = node.register(bridge)
    answer = httpx.post(f"{device.url}/subscription", json={}, headers=device.auth)
    channel = answer.json()["channelID"]
    assert httpx.post(answer.json()["endpoint"], headers={"TTL": "60"}).status_code == 201
    ids = {one.replace("-", "") for one in device.get().json()["channelIDs"]}
    assert ids == {channel, device.answer["channelID"]}
    path = f"{device.url}/subscription/{channel}"
    assert httpx.delete(path, headers=device.auth).status_code == 200
    assert httpx.delete(path, headers=device.auth).status_code == 410


def test_unregister(node: Node, bridge: Bridge) -> None:
    device = node.register(bridge)
    assert httpx.delete(device.url, headers=device.auth).status_code == 200
    answer = device.post()
    assert (answer.status_code, answer.json()["errno"]) == (410, 103)


def test_device_that_is_gone_is_dropped(node: Node, bridge: Bridge) -> None:
    """With a real statsd client: spec/http-endpoint Q3, B1"""
    device = node.register(bridge)
    script, status, errno = bridge.gone
    device.script(script)
    answer = device.post(b"x")
    assert (answer.status_code, answer.json()["errno"]) == (status, errno), answer.text
    again = device.post(b"x")
    assert (again.status_code, again.json()["errno"]) == (410, 103)
    if bridge.stand_in in ("apns", "fcm", "adm"):
        wanted = f"platform:{bridge.router_type},reason:unregistered"
        eventually(lambda: [line for line in node.statsd.lines if wanted in line])


TRANSIENT: tuple[dict[str, Any], ...] = (
    {"status": 503, "json": {}},
    {"status": 429, "json": {}},
    {"status": 500, "json": {}},
    {"action": "reset"},
    {"action": "close"},
    {"action": "close_mid_body"},
    {"action": "garbage"},
    {"status": 401, "json": {}, "times": 2},
    {"status": 400, "json": {"reason": "BadTopic"}},
)


@pytest.mark.parametrize("script", TRANSIENT, ids=str)
def test_transient_errors_drop_nobody(node: Node, bridge: Bridge, script: dict[str, Any]) -> None:
    device = node.register(bridge)
    device.script({"times": 3, **script} if bridge.stand_in == "apns" else script)
    answer = device.post(b"x")
    assert answer.status_code in (201, 500, 502, 503), answer.text
    node.stand_in(bridge).script.reset()
    assert device.get().status_code == 200
    eventually(lambda: device.post(b"x").status_code == 201)


def test_hanging_bridge(node: Node, bridge: Bridge) -> None:
    device = node.register(bridge)
    device.script({"action": "hang", "times": 5})
    answer = httpx.post(device.subscription.endpoint, headers={"TTL": "60"})
    assert answer.status_code == 502
    node.stand_in(bridge).script.reset()
    assert device.get().status_code == 200


@pytest.mark.parametrize("bridge", [n for n, b in BRIDGES.items() if b.moved], indirect=True)
def test_canonical_id_keeps_the_credentials(node: Node, bridge: Bridge) -> None:
    """B5: where the vendor renames devices."""
    assert bridge.moved
    device = node.register(bridge)
    script, status = bridge.moved
    device.script(script(bridge.token("c")))
    assert device.post(b"x").status_code == status
    assert device.post(b"x").status_code == 201
    assert bridge.device(device.seen()[-1]) == bridge.token("c")


@pytest.mark.parametrize(
    "bridge", [n for n, b in BRIDGES.items() if b.stand_in != "apns"], indirect=True
)
def test_retry_after(node: Node, bridge: Bridge) -> None:
    """APNs is answered 502 with Retry-After, see test_apnsrouter."""
    device = node.register(bridge)
    device.script({"status": 503, "headers": {"Retry-After": "17"}, "json": {}})
    answer = device.post(b"x")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "17")


def test_metrics(node: Node, bridge: Bridge) -> None:
    platform = {"fcm": "fcmv1", "fcm_legacy": "fcm"}.get(bridge.stand_in, bridge.router_type)
    before = len(node.statsd.lines)
    assert node.register(bridge).post(b"x").status_code == 201
    eventually(
        lambda: [
            line
            for line in node.statsd.lines[before:]
            if line.startswith("autopush.notification.bridge.sent:1|c")
            and f"platform:{platform}" in line
        ]
    )


async def test_slow_bridge_leaves_other_routes_alone(node: Node) -> None:
    """200 sends at once to a bridge that answers nobody until others had their answers."""
    bridge = PATIENT
    stand_in = node.stand_in(bridge)
    stand_in.reset()
    device = node.register(bridge)
    device.post()
    seen = len(stand_in.messages)
    device.script({"held": True, "times": 200})
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=WAITS, limits=limits, trust_env=False) as client:

        async def send() -> int:
            answer = await client.post(device.subscription.endpoint, headers={"TTL": "60"})
            return answer.status_code

        sends = [asyncio.create_task(send()) for _ in range(200)]
        while len(stand_in.messages) == seen:
            await asyncio.sleep(0.01)
        for _ in range(20):
            answer = await client.get(f"{node.urls[bridge.version]}/status")
            assert answer.status_code == 200
        stand_in.script.release()
        statuses = await asyncio.gather(*sends)
    # Those that came when too many were waiting already were turned away.
    assert 201 in statuses and set(statuses) <= {201, 503}, statuses
    assert device.get().status_code == 200


def test_secrets_and_wrong_ones(node: Node, bridge: Bridge) -> None:
    device = node.register(bridge)
    assert device.answer["secret"] == generate_hash(AUTH_KEY, device.answer["uaid"])
    for header in ({}, {"Authorization": "webpush " + "0" * 64}):
        assert httpx.get(device.url, headers=header).status_code == 401
