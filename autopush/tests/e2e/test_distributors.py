"""Distributors of UnifiedPush, each with the messages it sends, word for word."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest
import requests

from autopush.tests.e2e.clients import (
    JSON,
    Subscription,
    UserAgent,
    VapidSender,
    b64decode,
    send,
)
from autopush.tests.e2e.harness import Server


class Distributor:
    """What a distributor says.

    :cvar first: its hello as long as it has no UAID
    :cvar code: what its acknowledgements have beside channel and version
    """

    first: JSON
    code: JSON = {}

    def __init__(self) -> None:
        self.uaid: str | None = None

    async def connect(self, server: Server) -> UserAgent:
        """Open a WebSocket, say hello, and take over what the answer says."""
        agent = await UserAgent.open(server.ws_url, hello=False)
        known = {} if self.uaid is None else {"uaid": self.uaid}
        await agent.send({**self.first, **known})
        reply = await agent.receive("hello")
        assert reply["status"] == 200
        self.uaid = reply["uaid"]
        return agent

    async def subscribe(self, agent: UserAgent, **key: str) -> Subscription:
        """Register a channel, with the application's key if it has one."""
        channel = str(uuid.uuid4())
        await agent.send({"messageType": "register", "channelID": channel, **key})
        reply = await agent.receive("register")
        assert (reply["status"], reply["channelID"]) == (200, channel)
        return Subscription(channel, reply["pushEndpoint"])

    async def acknowledge(self, agent: UserAgent, frame: JSON) -> None:
        """Acknowledge one notification, and wait until that is seen."""
        update = {"channelID": frame["channelID"], "version": frame["version"], **self.code}
        await agent.send({"messageType": "ack", "updates": [update]})
        await agent.round_trip()


class KUnifiedPush(Distributor):
    """KDE's: a hello of nothing, or of the UAID and nothing."""

    first = {"messageType": "hello"}


class Sunup(Distributor):
    """The Android one: its serializer writes what there is not as null."""

    first = {"messageType": "hello", "uaid": None}
    code = {"code": 100}


@pytest.mark.parametrize("kind", [KUnifiedPush, Sunup])
@pytest.mark.parametrize("restricted", [False, True])
async def test_a_distributor_subscribes_receives_and_comes_back(
    server: Server, kind: type[Distributor], restricted: bool
) -> None:
    distributor, sender = kind(), VapidSender()
    key: dict[str, str] = {"key": sender.public_key} if restricted else {}
    options: dict[str, Any] = {"vapid": sender.rfc8292} if restricted else {}
    agent = await distributor.connect(server)
    subscription = await distributor.subscribe(agent, **key)
    for text in (b"one", b"two"):
        assert (await send(subscription, text, **options)).status_code == 201
        frame = await agent.receive("notification")
        assert subscription.decrypt(frame) == text
        await distributor.acknowledge(agent, frame)
    await agent.close()

    assert (await send(subscription, b"while it was away", **options)).status_code == 201
    uaid = distributor.uaid
    agent = await distributor.connect(server)
    assert distributor.uaid == uaid
    frame = await agent.receive("notification")
    assert subscription.decrypt(frame) == b"while it was away"
    await distributor.acknowledge(agent, frame)
    await agent.close()

    agent = await distributor.connect(server)
    await agent.nothing()
    await agent.close()


async def test_mastodon_and_a_gateway_send(server: Server) -> None:
    """The older encryption and signature; a body that is only called encrypted."""
    distributor, sender = Sunup(), VapidSender()
    agent = await distributor.connect(server)
    subscription = await distributor.subscribe(agent, key=sender.public_key)
    mastodon: dict[str, Any] = {"encoding": "aesgcm", "vapid": sender.draft01, "ttl": 172800}
    answer = await send(subscription, b"mentioned", headers={"Urgency": "normal"}, **mastodon)
    assert answer.status_code == 201
    frame = await agent.receive("notification")
    assert subscription.decrypt(frame) == b"mentioned"
    await distributor.acknowledge(agent, frame)

    open_to_all = await distributor.subscribe(agent)
    plain = b'{"notification": {"event_id": "$x", "room_id": "!y"}}'
    headers = {"TTL": "86400", "Content-Encoding": "aes128gcm", "Urgency": "high"}
    answer = await asyncio.to_thread(
        requests.post, open_to_all.endpoint, plain, headers=headers, timeout=60
    )
    assert answer.status_code == 201
    frame = await agent.receive("notification")
    assert b64decode(frame["data"]) == plain
    await distributor.acknowledge(agent, frame)
    await agent.close()
