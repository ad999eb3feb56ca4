"""Application servers that never stop sending to user agents that never stay."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
from cryptography.fernet import Fernet
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from autopush.message.notification import WebPushNotification
from autopush.tests.cluster.harness import Cluster, DynamoStorage
from autopush.tests.e2e.clients import JSON, UserAgent, b64decode

SETTLED = 2.0
"""Seconds after which an acknowledgement that the node has read is on disk, too."""

QUIET = 0.3
"""Seconds without a frame after which a batch of stored messages has come completely. That is what
acknowledgements are remembered by: those of a part of a batch don't count (spec/websocket 10)."""

REPEATS = 3
"""How often the users of missing messages come back for them: on a busy machine a node may still
be saving what the connection before had left."""

GONE = (ConnectionClosed, OSError, InvalidHandshake, TimeoutError)


@dataclass
class Sent:
    """One accepted message."""

    user: int
    at: float
    """When its answer came."""
    location: str = ""
    """Its message id."""


@dataclass
class User:
    """One user agent."""

    number: int
    endpoint: str = ""
    uaid: str | None = None
    node: int | None = None
    """Where it is connected, or about to be."""
    connected: float = 0.0
    """Since when."""
    nodes: set[int] = field(default_factory=set)
    """Where it has been."""
    received: set[str] = field(default_factory=set)
    acked: dict[str, float] = field(default_factory=dict)
    """From when on the acknowledgement counts."""
    story: list[str] = field(default_factory=list)
    """What happened, to be read when a test fails."""

    def settle(self, acked: list[str]) -> None:
        """All that the user agent knows of is acknowledged."""
        now = time.monotonic()
        for text in acked:
            self.acked.setdefault(text, now)

    def tell(self, what: str) -> None:
        self.story.append(f"{time.monotonic():.3f} node{self.node}: {what}")


class Traffic:
    """Senders, users, and a record of what happened.

    :param cluster: where
    :param users: number of user agents
    :param seed: makes the run repeatable, as far as two processes allow
    """

    def __init__(self, cluster: Cluster, users: int, seed: int) -> None:
        self.cluster = cluster
        self.users = [User(number) for number in range(users)]
        self.sent: dict[str, Sent] = {}
        self.refused: list[str] = []
        self.late: list[str] = []
        """Messages that came after their acknowledgement."""
        self.again: list[str] = []
        """Those that may have, with DynamoDB: see :meth:`_has_moved`."""
        self.alive = {0, 1}
        self.endpoints = {0, 1}
        self.kills: list[tuple[int, float]] = []
        self._random = random.Random(seed)
        self._count = 0
        self._sending = self._moving = True

    async def run(self, seconds: float, *disturbances: Any) -> None:
        """Send and move while coroutines disturb, for so long or until there was enough to see;
        then let everybody fetch the rest."""
        await asyncio.gather(*(self._subscribe(user) for user in self.users))
        async with httpx.AsyncClient(timeout=60) as client:
            senders = [asyncio.create_task(self._send(client)) for _ in range(3)]
            lives = [asyncio.create_task(self._live(user)) for user in self.users]
            others = [asyncio.create_task(work) for work in disturbances]
            await asyncio.sleep(seconds)
            await asyncio.gather(*others)
            while not (self._enough() or any(sender.done() for sender in senders)):
                await asyncio.sleep(1)
            self._sending = False
            await asyncio.gather(*senders)
            self._moving = False
            await asyncio.gather(*lives)
        await asyncio.gather(*(self._fetch_rest(user, 3) for user in self.users))
        for _ in range(REPEATS):
            missing = {sent.user for sent in self.lost().values()}
            await asyncio.gather(*(self._fetch_rest(self.users[number], 10) for number in missing))

    def _enough(self) -> bool:
        """An emulator under load is slow."""
        count = len(self.users)
        return (
            len(self.sent) > 3 * count
            and sum(len(user.acked) for user in self.users) > count
            and sum(len(user.nodes) == 2 for user in self.users) > count / 2
        )

    # ---- application servers

    async def _send(self, client: httpx.AsyncClient) -> None:
        while self._sending:
            user = self._random.choice(self.users)
            self._count += 1
            text = f"message-{self._count:06}"
            number = self._random.choice(sorted(self.endpoints))
            url = self.cluster.at_endpoint(user.endpoint, number)
            headers = {"TTL": "600", "Content-Encoding": "aes128gcm"}
            try:
                answer = await client.post(url, content=text.encode(), headers=headers)
            except httpx.TransportError:
                assert number not in self.endpoints, "an endpoint node cut the connection"
                continue
            if answer.status_code == 201:
                location = answer.headers["location"].rpartition("/")[2]
                self.sent[text] = Sent(user.number, time.monotonic(), location)
            else:
                self.refused.append(f"{answer.status_code} {answer.text}")
            await asyncio.sleep(self._random.random() * 0.03)

    # ---- user agents

    async def _subscribe(self, user: User) -> None:
        async with await UserAgent.open(self.cluster.nodes[user.number % 2].ws_url) as agent:
            user.endpoint = (await agent.register()).endpoint
            user.uaid = agent.uaid

    async def _live(self, user: User) -> None:
        while self._moving:
            number = self._random.choice(sorted(self.alive))
            with contextlib.suppress(*GONE):
                user.node, user.connected = number, time.monotonic()
                agent = await UserAgent.open(self.cluster.nodes[number].ws_url, user.uaid)
                assert agent.uaid == user.uaid, "the user was forgotten"
                user.nodes.add(number)
                user.tell("connected")
                await self._stay(user, agent, self._random.random() * 3)
            await asyncio.sleep(self._random.random() * 0.3)

    async def _stay(self, user: User, agent: UserAgent, seconds: float) -> None:
        end = time.monotonic() + seconds
        waiting: list[JSON] = []
        acked: list[str] = []
        try:
            while (left := end - time.monotonic()) > 0 and self._moving:
                try:
                    frame = await agent.receive("notification", min(left, QUIET))
                except TimeoutError:
                    if not waiting:
                        user.settle(acked)
                    continue
                waiting.append(frame)
                self._note(user, frame, acked)
                if self._random.random() < 0.4:
                    await agent.ack_and_wait(*waiting)
                    # The node may have read both at once. It reads no more before the
                    # acknowledgements are written, however slow the store is.
                    await agent.round_trip()
                    acked += map(text_of, waiting)
                    user.tell(f"acknowledged {' '.join(map(text_of, waiting))}")
                    waiting.clear()
        finally:
            user.tell("leaves")
            if self._random.random() < 0.5:
                agent.abort()
            else:
                # Not waited for: the next connection may come first.
                asyncio.get_running_loop().create_task(agent.ws.close())

    def _note(self, user: User, frame: JSON, acked: list[str]) -> None:
        text = text_of(frame)
        user.tell(f"received {text} {frame['version'][-12:]}")
        user.received.add(text)
        done = user.acked.get(text)
        if text in acked:
            self._late(user, text, "on the connection that had acknowledged it")
        elif done is not None and self._is_late(done):
            if self._has_moved(user, frame["version"]):
                self.again.append(text)
            else:
                self._late(user, text, f"{time.monotonic() - done:.1f} s after its acknowledgement")

    def _late(self, user: User, text: str, how: str) -> None:
        story = [line for line in user.story if text in line or "message" not in line]
        self.late.append("\n".join([f"{text}: {how}", *story]))

    def _is_late(self, acked: float) -> bool:
        """Whether the acknowledgement must have been kept: not when a node died just after it."""
        if any(acked <= when < acked + SETTLED for _, when in self.kills):
            return False
        return time.monotonic() - acked > SETTLED

    def _has_moved(self, user: User, version: str) -> bool:
        """Whether a message is not in its first place any more.

        With DynamoDB the acknowledgement of such a one may be lost: while it moves to a later place
        (spec/storage 17.6) it has two rows for some requests' time, and a connection may
        acknowledge the first one and be gone before the second one is there.
        """
        storage = self.cluster.storage
        if not isinstance(storage, DynamoStorage):
            return False
        assert user.uaid is not None
        first = WebPushNotification.from_message_id(version, Fernet(self.cluster.crypto_key))
        return bool(storage.sort_keys(user.uaid, version) - {first.sort_key})

    async def _fetch_rest(self, user: User, within: float) -> None:
        """:param within: seconds after which no more messages are waited for"""
        async with await UserAgent.open(self.cluster.nodes[0].ws_url, user.uaid) as agent:
            with contextlib.suppress(TimeoutError):
                while True:
                    frame = await agent.receive("notification", within)
                    self._note(user, frame, [])
                    await agent.ack_and_wait(frame)
        async with await UserAgent.open(self.cluster.nodes[1].ws_url, user.uaid) as agent:
            await agent.nothing(0.5)

    # ---- the result

    def tale(self, messages: dict[str, Sent]) -> str:
        """What happened to the users of these messages."""
        lines = []
        for text, sent in messages.items():
            user = self.users[sent.user]
            lines += [f"{text}: accepted {sent.at:.3f} for {user.uaid}", *user.story]
        return "\n".join(lines)

    def lost(self) -> dict[str, Sent]:
        """Accepted messages that never came."""
        return {
            text: sent
            for text, sent in self.sent.items()
            if text not in self.users[sent.user].received
        }


def text_of(frame: JSON) -> str:
    """The body of a message."""
    return b64decode(frame["data"]).decode()
