"""``kill -9`` under load, again and again: nothing that was promised is lost, nothing that was
acknowledged comes back.

What the protocol allows (websocket.md 10): a message of a stored batch may come again, although it
was acknowledged, as long as one of its batch was not. Everything else comes again only if the
server died before the acknowledgement was on disk. That it is there we know

* of a stored message: from the answer to the command after the next (reading pauses while the
  acknowledgement is written, but the next command may have been read together with it);
* of a direct one: from the 2xx of a message sent after that answer (writes reach the disk in their
  order).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from autopush.tests.e2e.clients import JSON, QUIET, Subscription, UserAgent, b64decode
from autopush.tests.e2e.harness import Server
from autopush.tests.e2e.raw import AES128GCM

ROUNDS = 20
SENDERS = 6
BATCH = 10
BACKLOG = 43
"""Messages that wait for the slow reader each round."""

STEP = 4
"""Messages a live browser takes between two looks at whether its acks were handled."""


class Mailbox:
    """What one browser was sent, and what of that it has acknowledged."""

    def __init__(self, uaid: str, subscription: Subscription, topics: int = 0) -> None:
        self.uaid = uaid
        self.subscription = subscription
        self.topics = topics
        self.due: dict[str, str] = {}  # promised and not acknowledged: text by slot, see slot()
        self.maybe: set[str] = set()  # sent, but nobody told us what became of it
        self.mortal: set[str] = set()  # TTL 0: must not survive
        self.acked: set[str] = set()  # the acknowledgement was handled
        self.ack_sent: set[str] = set()  # it was sent

    def slot(self, text: str) -> str:
        """Messages of one topic replace each other in storage."""
        return text.partition("/")[0] if self.topics else text

    def promised(self, text: str) -> None:
        """The server has answered 2xx."""
        self.maybe.discard(text)
        self.due.pop(self.slot(text), None)  # of a topic, it has replaced the last one
        if text not in self.ack_sent | self.mortal:
            self.due[self.slot(text)] = text

    def unknown(self, text: str) -> None:
        """The server died before it answered: the message is there or not, and may have replaced
        another."""
        if self.topics:
            replaced = self.due.pop(self.slot(text), None)
            if replaced is not None:
                self.maybe.add(replaced)

    def acking(self, text: str) -> None:
        """The acknowledgement is on its way."""
        self.ack_sent.add(text)
        if self.due.get(self.slot(text)) == text:
            del self.due[self.slot(text)]

    def arrived(self, text: str) -> None:
        """Check that this message may come (again)."""
        assert text not in self.acked, f"{text} was acknowledged, and comes again"


def text_of(frame: JSON) -> str:
    return b64decode(frame["data"]).decode()


class Load:
    """The senders and browsers of one server."""

    def __init__(self, server: Server, rng: random.Random) -> None:
        self.server = server
        self.rng = rng
        self.live: list[Mailbox] = []
        self.away: list[Mailbox] = []
        self.slow: list[Mailbox] = []
        self.accepted = 0
        self.number = 0
        self.handled: list[tuple[Mailbox, str]] = []  # acks, in the order of their handling

    async def populate(self) -> None:
        """Make the browsers."""
        for group, topics in (
            (self.live, (0, 0, 3)),
            (self.away, (0, 0, 3)),
            (self.slow, (0,)),
        ):
            for count in topics:
                async with await UserAgent.open(self.server.ws_url) as agent:
                    subscription = await agent.register()
                    assert agent.uaid
                    group.append(Mailbox(agent.uaid, subscription, count))

    # ---- senders

    async def post(self, client: httpx.AsyncClient, mailbox: Mailbox) -> bool:
        """Send one message and note what became of it; returns whether the server lives."""
        self.number += 1
        text, headers = str(self.number), dict(AES128GCM)
        if mailbox.topics:
            topic = f"t{self.rng.randrange(mailbox.topics)}"
            text = f"{topic}/{text}"
            headers["Topic"] = topic
        elif self.rng.random() < 0.1:
            headers["TTL"] = "0"
            mailbox.mortal.add(text)
        mailbox.maybe.add(text)
        handled = len(self.handled)
        try:
            answer = await client.post(
                mailbox.subscription.endpoint, content=text.encode(), headers=headers
            )
        except httpx.TransportError:
            mailbox.unknown(text)
            return False
        assert answer.status_code == 201, answer.text
        mailbox.promised(text)
        self.accepted += 1
        if mailbox in self.away and text not in mailbox.mortal:
            # It is stored, and so is all that was to be written before.
            for box, other in self.handled[:handled]:
                box.acked.add(other)
        return True

    async def sender(self, mailboxes: list[Mailbox], stop: int) -> None:
        """Send until the server dies; the one who reaches the mark kills it.

        A sender has topics to itself: two requests of one topic that overtake each other would
        leave us in doubt about which message is the last.
        """
        async with httpx.AsyncClient(trust_env=False) as client:
            while await self.post(client, self.rng.choice(mailboxes)):
                if self.accepted >= stop and self.server.alive:
                    self.server.kill()

    # ---- browsers

    async def live_browser(self, mailbox: Mailbox, agent: UserAgent) -> None:
        """Take and acknowledge messages until the server dies."""
        try:
            while True:
                handled: list[tuple[Mailbox, str]] = []
                for _ in range(STEP):
                    frame = await agent.receive("notification")
                    text = text_of(frame)
                    mailbox.arrived(text)
                    if self.rng.random() < 0.8:
                        mailbox.acking(text)
                        await agent.ack(frame)
                        handled.append((mailbox, text))
                await agent.round_trip()
                await agent.round_trip()
                self.handled += handled
        except ConnectionClosed:
            pass

    async def slow_browser(self, mailbox: Mailbox, seen: list[str]) -> None:
        """Drain the backlog message by message; ``seen`` collects those whose ack was handled."""
        try:
            agent = await UserAgent.open(self.server.ws_url, mailbox.uaid)
            while True:
                frame = await agent.receive("notification")
                text = text_of(frame)
                mailbox.arrived(text)
                mailbox.acking(text)
                await agent.ack(frame)
                await agent.round_trip()
                await agent.round_trip()
                seen.append(text)
        except (ConnectionClosed, OSError):
            pass
        # Whole batches must not come again.
        mailbox.acked.update(seen[: len(seen) // BATCH * BATCH])

    async def drain(self, mailbox: Mailbox) -> UserAgent:
        """Reconnect, take everything, and check that what is due has come."""
        agent = await UserAgent.open(self.server.ws_url, mailbox.uaid)
        assert agent.uaid == mailbox.uaid
        taken = set()
        while True:
            try:
                patience = {} if mailbox.due else {"timeout": QUIET}
                frame = await agent.receive("notification", **patience)
            except TimeoutError:
                break
            text = text_of(frame)
            mailbox.arrived(text)
            assert text not in mailbox.mortal, f"{text} had a TTL of 0"
            known = text in mailbox.maybe | mailbox.ack_sent | set(mailbox.due.values())
            assert known, f"{text}: where does it come from?"
            taken.add(text)
            mailbox.acking(text)
            await agent.ack(frame)
        assert not mailbox.due, f"lost: {mailbox.due}"
        await agent.round_trip()
        await agent.round_trip()
        # What was not there now never will be.
        mailbox.acked |= taken | mailbox.ack_sent | mailbox.maybe
        mailbox.maybe.clear()
        return agent

    # ---- a round

    async def fill(self) -> None:
        """Let messages pile up for the slow browsers."""
        async with httpx.AsyncClient(trust_env=False) as client:
            for mailbox in self.slow:
                for _ in range(BACKLOG):
                    await self.post(client, mailbox)

    async def round(self, live: list[UserAgent]) -> list[UserAgent]:
        """Load, kill, restart, check; returns the connections of the live browsers."""
        await self.fill()
        self.handled.clear()
        stop = self.accepted + self.rng.randrange(30, 300)
        plain = [box for box in self.live + self.away if not box.topics]
        topical = [box for box in self.live + self.away if box.topics]
        tasks = [self.live_browser(box, agent) for box, agent in zip(self.live, live, strict=True)]
        tasks += [self.slow_browser(box, []) for box in self.slow]
        tasks += [self.sender(plain, stop) for _ in range(SENDERS)]
        tasks += [self.sender([box], stop) for box in topical]
        await asyncio.gather(*tasks)
        await asyncio.to_thread(self.server.start)
        boxes = self.live + self.away + self.slow
        agents = await asyncio.gather(*map(self.drain, boxes))
        for agent in agents[len(self.live) :]:
            await agent.close()
        return agents[: len(self.live)]


@pytest.mark.parametrize("seed", [1])
async def test_kill_under_load(make_server: Callable[..., Server], seed: int) -> None:
    limits = ("--max_direct_unacked", "100000", "--max_stored", "0", "--max_stored_bytes", "0")
    server = make_server(*limits)
    await asyncio.to_thread(server.start)
    load = Load(server, random.Random(seed))
    await load.populate()
    live = [await UserAgent.open(server.ws_url, box.uaid) for box in load.live]
    for _ in range(ROUNDS):
        live = await load.round(live)
    for agent in live:
        await agent.close()
    acked = sum(len(box.acked) for box in load.live)
    assert acked > ROUNDS  # there was something to lose and something to repeat
    assert load.accepted > ROUNDS * BACKLOG
