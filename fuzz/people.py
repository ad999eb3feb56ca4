"""User agents and application servers that behave as real ones do at their worst."""

from __future__ import annotations

import asyncio
import contextlib
import random
import uuid
from typing import Protocol

import httpx
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from autopush.tests.e2e.clients import JSON, PATIENCE, QUIET, UserAgent, b64decode
from autopush.tests.e2e.raw import AES128GCM
from fuzz.ledger import Channel, Ledger, Mailbox, Message

GONE = (ConnectionClosed, OSError, InvalidHandshake, TimeoutError, EOFError)
"""How a connection ends that the server, or its node, has left."""

MAX_CHANNELS = 5
TOPICS = 2
TTL = "86400"

REFUSED = (429, 503)
"""Statuses that promise nothing and break nothing."""

COMES = PATIENCE
"""Seconds after which a message that is due is lost."""

MOMENT = 0.05
"""Seconds to wait for more before some of what is there is acknowledged."""

LINGERS = 0.5
"""Seconds for which a connection that was left without a word may stay open."""


class World(Protocol):
    """The service that is being hurt."""

    rng: random.Random
    ledger: Ledger
    moves: bool
    """See :class:`fuzz.ledger.Mailbox`."""

    def pick_node(self) -> tuple[int, str]:
        """Number and WebSocket URL of a connection node that should be there."""

    def pick_url(self, endpoint: str) -> tuple[int, str]:
        """Number of an endpoint node that should be there, and an endpoint URL led to it."""

    def may_be_gone(self, endpoint_node: int) -> bool:
        """Whether it is no wonder that an endpoint node cut a connection."""

    @property
    def shaky(self) -> bool:
        """Whether storage is failing, so that acknowledgements may be waiting in memory."""


class Refused(Exception):
    """A command was refused for now."""


class Person:
    """A user agent with its channels; it has at most one connection it listens to.

    :param name: for the stories
    """

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.rng = world.rng
        self.mailbox = Mailbox(world.ledger, name, world.moves)
        self.uaid: str | None = None
        self._ending: list[Channel] = []
        self._agent: UserAgent | None = None
        self._node = 0
        self._held: list[tuple[JSON, Message]] = []
        self._done: list[JSON] = []
        self._acked: list[Message] = []
        """On this connection, and not proven yet."""
        self._shaky = False

    # ---- a connection

    async def connect(self) -> None:
        """Say hello somewhere; end the channels whose end was not answered.

        :raises Refused: not now
        """
        await self._close()
        self._node, url = self.world.pick_node()
        agent = await UserAgent.open(url, hello=False)
        self._agent = agent
        self._held, self._done, self._acked, self._shaky = [], [], [], False
        self.mailbox.tell(f"-- connected to node {self._node}")
        self.world.ledger.count("connections")
        hello = {"messageType": "hello", "use_webpush": True, "uaid": self.uaid or ""}
        answer = await self._ask(hello)
        if self.uaid is None:
            self.uaid = answer["uaid"]
        elif answer["uaid"] != self.uaid:
            self._forgotten(answer["uaid"])
        for channel in list(self._ending):
            await self._unregister(channel)

    def _forgotten(self, uaid: str) -> None:
        story = "\n    ".join([f"hello of {self.mailbox.name} got another UAID, {uaid}"])
        self.world.ledger.breach("registration lost", story)
        # As a browser does: what it had is void.
        self.uaid = uaid
        self.mailbox.due.clear()
        self.mailbox.channels.clear()
        self._ending.clear()

    async def _ask(self, message: JSON) -> JSON:
        """Send a command and return its answer; notifications before it are taken.

        :raises Refused: the service is overloaded, or so it says
        """
        agent = self._agent
        assert agent is not None
        await agent.send(message)
        async with asyncio.timeout(PATIENCE):
            while True:
                frame = await agent.receive()
                kind = frame.get("messageType")
                if kind == "notification":
                    self._arrived(frame)
                    continue
                if frame.get("status") not in (200, 401):
                    raise Refused(frame)
                assert kind == message["messageType"], frame
                return frame

    async def _take(self, seconds: float) -> bool:
        """Take the next notification, if one comes within this time."""
        assert self._agent is not None
        try:
            frame = await self._agent.receive(timeout=seconds)
        except TimeoutError:
            return False
        if frame.get("messageType") == "notification":
            self._arrived(frame)
        return True

    def _arrived(self, frame: JSON) -> None:
        text = b64decode(frame["data"]).partition(b".")[0].decode()
        self._held.append((frame, self.mailbox.arrived(text, frame["channelID"])))
        self.world.ledger.count("notifications")

    async def _close(self) -> None:
        """Leave: with a close frame, without one, or so that the server finds out later."""
        agent, self._agent = self._agent, None
        if agent is None:
            return
        self.mailbox.tell("-- left")
        self.mailbox.left(message for _, message in self._held)
        how = self.rng.random()
        if how < 0.4:
            with contextlib.suppress(*GONE):
                await agent.close()
        elif how < 0.8:
            agent.abort()
        else:
            asyncio.get_running_loop().call_later(self.rng.random() * LINGERS, agent.abort)

    # ---- commands

    async def register(self) -> Channel:
        """Subscribe to a channel of any kind."""
        identity = str(uuid.UUID(int=self.rng.getrandbits(128), version=4))
        answer = await self._ask({"messageType": "register", "channelID": identity})
        topics = self.rng.choice((0, 0, TOPICS))
        channel = Channel(identity, answer["pushEndpoint"], topics)
        self.mailbox.channels.append(channel)
        self.world.ledger.count("channels registered")
        return channel

    async def _unregister(self, channel: Channel) -> None:
        if not channel.ending:
            self.mailbox.ending(channel)
            self._ending.append(channel)
        self.mailbox.tell(f"{channel.id[:8]} unregister")
        await self._ask({"messageType": "unregister", "channelID": channel.id})
        self._ending.remove(channel)
        self.mailbox.ended(channel)
        self.mailbox.tell(f"{channel.id[:8]} unregistered")

    async def _ack(self, chosen: list[tuple[JSON, Message]]) -> None:
        """Acknowledge in this order, in one message or several."""
        assert self._agent is not None
        self._shaky = self._shaky or self.world.shaky
        step = self.rng.choice((1, 3, len(chosen)))
        for start in range(0, len(chosen), step):
            part = chosen[start : start + step]
            for entry in part:
                if entry in self._held:
                    self._held.remove(entry)
                message = entry[1]
                self.mailbox.acking(message, self._node)
                self.mailbox.tell(f"{message.channel.id[:8]} ack {message.text}")
                self._acked.append(message)
                self._done.append(entry[0])
            await self._agent.ack(*(frame for frame, _ in part))

    async def prove(self) -> None:
        """Make sure that all acknowledgements of this connection were processed.

        The service stops reading while it writes one, but may have read one more command with it.
        So the answer to the second command proves that the writing is over; that a registration
        was written proves the same where writes are done in their order.
        """
        acked, self._acked = self._acked, []
        await self._ask({"messageType": "unregister", "channelID": "nothing"})
        channel = await self.register()
        self.mailbox.tell(f"-- proven: {' '.join(message.text for message in acked)}")
        self.mailbox.proven(acked, self._shaky or self.world.shaky)
        if len(self.mailbox.channels) > 1:
            await self._unregister(channel)

    async def ack_again(self) -> None:
        """Acknowledge what was acknowledged on this connection already."""
        if self._done and self._agent is not None:
            await self._agent.ack(self.rng.choice(self._done))

    async def nack(self) -> None:
        """Complain about something; it still has to be acknowledged."""
        if self._held and self._agent is not None:
            frame, _ = self.rng.choice(self._held)
            await self._agent.send(
                {"messageType": "nack", "version": frame["version"], "code": 302}
            )

    # ---- a life

    async def subscribe(self) -> None:
        """The first connection."""
        await self.connect()
        for _ in range(self.rng.randrange(1, 4)):
            await self.register()

    async def live(self, over: asyncio.Event, gap: float) -> None:
        """Come and go until it is over.

        :param gap: seconds between two connections, at most
        """
        while not over.is_set():
            with contextlib.suppress(*GONE, Refused):
                await self.connect()
                for _ in range(self.rng.randrange(40)):
                    if over.is_set():
                        return
                    await self._act()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), self.rng.random() * gap)

    async def _act(self) -> None:
        """Do something a user agent may do."""
        choice = self.rng.random()
        if choice < 0.55 or not self._held:
            await self._take(self.rng.random() * 0.1)
        elif choice < 0.85:
            await self._ack(self._some())
        elif choice < 0.88:
            await self.nack()
        elif choice < 0.9:
            await self.ack_again()
        elif choice < 0.96:
            await self.prove()
        elif choice < 0.98 and len(self.mailbox.channels) > 1:
            await self._unregister(self.rng.choice(self.mailbox.channels))
        elif len(self.mailbox.channels) < MAX_CHANNELS:
            await self.register()

    def _some(self) -> list[tuple[JSON, Message]]:
        """Some of the messages at hand, in any order."""
        return self.rng.sample(self._held, self.rng.randrange(1, len(self._held) + 1))

    # ---- the reckoning

    async def settle(self) -> None:
        """Fetch all that is due and acknowledge it in any order; close the books on it.

        :raises Refused: not now
        """
        await self.connect()
        while True:
            must_come = bool(self.mailbox.due) and not self._held
            came = await self._take(COMES if must_come else MOMENT if self._held else QUIET)
            if came and self.rng.random() < 0.8:
                continue
            if self._held:
                await self._ack(self._some())
            elif not came:
                break
        await self.prove()
        self.mailbox.drained()
        if self.rng.random() < 0.5:
            # Nothing more may come, wherever.
            await self.connect()
            while await self._take(QUIET):
                await self._ack(list(self._held))

    async def leave(self) -> None:
        """End the connection."""
        await self._close()


class Senders:
    """Application servers of all the people."""

    def __init__(self, world: World, people: list[Person], client: httpx.AsyncClient) -> None:
        self.world = world
        self.rng = world.rng
        self.people = people
        self.client = client
        self._count = 0
        self._busy: set[str] = set()

    async def send(self, over: asyncio.Event, pause: float) -> None:
        """Post to anybody until it is over.

        :param pause: seconds between two messages, at most
        """
        while not over.is_set():
            person = self.rng.choice(self.people)
            if person.mailbox.channels:
                await self.post(person.mailbox, self.rng.choice(person.mailbox.channels))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), self.rng.random() * pause)

    async def knock(self) -> None:
        """One message to every channel there should be."""
        for person in self.people:
            for channel in list(person.mailbox.channels):
                await self.post(person.mailbox, channel)

    async def knock_at_ended(self, mailbox: Mailbox) -> None:
        """One to a channel there should not be any more."""
        ended = [message.channel for message in mailbox.messages.values() if message.channel.ended]
        if ended:
            await self.post(mailbox, self.rng.choice(ended))

    async def post(self, mailbox: Mailbox, channel: Channel) -> None:
        """Send one message, and write down what became of it."""
        message, headers = self._compose(channel)
        if message.slot in self._busy:
            # Of two requests of one topic at a time nobody can tell which was the later.
            return
        self._busy.add(message.slot)
        try:
            await self._post(mailbox, message, headers)
        finally:
            self._busy.discard(message.slot)

    def _compose(self, channel: Channel) -> tuple[Message, dict[str, str]]:
        self._count += 1
        text = f"m{self._count:06}"
        headers = {**AES128GCM, "TTL": TTL}
        if channel.topics:
            headers["Topic"] = f"t{self.rng.randrange(channel.topics)}"
            return Message(text, channel, f"{channel.id}/{headers['Topic']}"), headers
        mortal = self.rng.random() < 0.1
        if mortal:
            headers["TTL"] = self.rng.choice(("0", "1"))
        return Message(text, channel, text, mortal), headers

    async def _post(self, mailbox: Mailbox, message: Message, headers: dict[str, str]) -> None:
        mailbox.posted(message)
        channel, ended = message.channel, message.channel.ended
        node, url = self.world.pick_url(channel.endpoint)
        body = message.text + "." * self.rng.choice((1, 100, 3000))
        try:
            answer = await self.client.post(url, content=body, headers=headers)
        except httpx.TransportError as error:
            mailbox.unknown(message)
            if not self.world.may_be_gone(node):
                self._wrong(message, f"no answer: {error!r}")
            return
        mailbox.tell(f"{channel.id[:8]} POST {message.text} {answer.status_code}")
        self._judge(mailbox, message, answer, ended)

    def _judge(
        self, mailbox: Mailbox, message: Message, answer: httpx.Response, ended: bool
    ) -> None:
        """:param ended: the channel had been unregistered when the request began"""
        channel, status = message.channel, answer.status_code
        if status == 201:
            if ended:
                mailbox.breach("ended channel", message, "was accepted")
            mailbox.accepted(message)
        elif status in (404, 410) and not channel.ending:
            mailbox.breach("registration lost", message, f"got {status} {answer.text}")
            mailbox.ending(channel)
        elif status not in (404, 410):
            mailbox.unknown(message)
            self.world.ledger.count(f"messages refused with {status}")
            if status not in REFUSED:
                self._wrong(message, f"{status} {answer.text}")

    def _wrong(self, message: Message, what: str) -> None:
        self.world.ledger.breach("unexpected answer", f"POST of {message.text}: {what}")
