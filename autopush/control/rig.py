"""What the operations of the control API do with the service around them."""

from __future__ import annotations

from itertools import count
from math import ceil
from typing import TYPE_CHECKING, Any

from cryptography.fernet import InvalidToken
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import deferLater

from autopush import __version__, clock
from autopush.control.agents import Agent, AgentError, Subscription
from autopush.control.observed import ObservedEndpoint
from autopush.exceptions import InvalidTokenException
from autopush.message.endpoint_token import owner_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from autopush.clock import Shift
    from autopush.message.notification import Id
    from autopush.session import Node
    from autopush.types import JSONDict

MAX_AGENTS = 1000
"""User agents at a time: each is two connections of this process."""


STEP = 3600.0
"""Seconds time passes at once, if it isn't to pass for longer than :data:`MAX_STEPS` of them."""

MAX_STEPS = 200
"""Steps in which time passes; each takes a turn of the service and an answer of each browser, so a
test never waits long for it."""

DAY = 86_400


class NotFound(Exception):
    """There is no such thing; the text says what."""


class Rig:
    """A service under test, and the user agents that are made for it.

    :param shift: moves its clock
    :ivar port: loopback port of the listener for user agents
    """

    def __init__(self, endpoint: ObservedEndpoint, node: Node, shift: Shift, reactor: Any) -> None:
        self.endpoint = endpoint
        self.node = node
        self.shift = shift
        self.agents: dict[str, Agent] = {}
        self.port = 0
        self._reactor = reactor
        self._names = count(1)
        self._unattended = 0.0
        self._passing = DeferredLock()
        """Held while time passes: somebody else's step would be in the middle of ours."""

    @property
    def websocket_url(self) -> str:
        """Where user agents connect, with an access key if they need one."""
        keys = self.node.conf.access_keys
        return f"ws://127.0.0.1:{self.port}/{keys[0] if keys else ''}"

    # ---- user agents

    async def add_agent(self) -> Agent:
        """A new user agent that is online.

        :raises AgentError: there are too many
        """
        if len(self.agents) >= MAX_AGENTS:
            raise AgentError(f"there are {MAX_AGENTS} user agents already")
        name = str(next(self._names))
        source = self.endpoint.by_message.get
        agent = Agent(name, self.websocket_url, self.port, self._reactor, source)
        self.agents[name] = agent
        await agent.connect()
        return agent

    def agent(self, name: str) -> Agent:
        """:raises NotFound: there is none of that name."""
        try:
            return self.agents[name]
        except KeyError:
            raise NotFound(f"there is no browser {name}") from None

    async def remove_agent(self, name: str) -> None:
        """Let a user agent go, and the service forget it.

        :raises NotFound: there is none of that name
        """
        agent = self.agent(name)
        await self.offline(agent)
        del self.agents[name]
        if agent.uaid is not None:
            await self.node.store.drop_user(agent.uaid)

    async def offline(self, agent: Agent) -> None:
        """Disconnect, and wait until the service has saved what it owes."""
        await agent.disconnect()
        for session in [s for s in self.node.saving if s.uaid == agent.uaid]:
            await session.saved if session.saved is not None else None

    def subscription(self, channel: str) -> tuple[Agent, Subscription]:
        """:raises NotFound: nobody has it."""
        for agent in self.agents.values():
            if channel in agent.subscriptions:
                return agent, agent.subscriptions[channel]
        raise NotFound(f"there is no subscription {channel}")

    def subscriptions(self) -> Iterable[tuple[Agent, Subscription]]:
        """All there are."""
        return [(agent, s) for agent in self.agents.values() for s in agent.subscriptions.values()]

    def owner(self, endpoint: str) -> tuple[Id, Id]:
        """UAID and channel of an endpoint, also of a real user agent's.

        :raises NotFound: it is none of this service's
        """
        try:
            return owner_of(self.node.conf.fernet, endpoint)
        except (InvalidToken, InvalidTokenException):
            raise NotFound("this is no endpoint of this service") from None

    async def expire(self, endpoint: str) -> None:
        """Let senders get 410 from now on; the user agent hears nothing of it, as ever.

        :param endpoint: of any user agent, also of a real one
        :raises NotFound: it is none of this service's
        """
        uaid, channel = self.owner(endpoint)
        store = self.node.store
        user = await store.get_user(uaid.hex)
        if user is not None:
            await store.remove_channel(user.get("current_month"), uaid.hex, channel.text)

    # ---- time

    async def advance(self, seconds: float) -> None:
        """Let time pass; what becomes due has been begun when this returns.

        In a few long steps: what recurs happens once in each, as on a machine that sleeps now and
        then, and user agents have a moment to answer.
        """
        await self._passing.run(lambda: Deferred.fromCoroutine(self._advance(seconds)))

    async def _advance(self, seconds: float) -> None:
        steps = min(MAX_STEPS, ceil(seconds / STEP))
        for _ in range(steps):
            self.shift.advance(seconds / steps)
            self._look_after_connections(seconds / steps)
            for _ in range(2):  # a timer that is set by what is due may be due, too
                await self.turn()
                for agent in list(self.agents.values()):
                    await agent.caught_up()
            # What is still to be written would have waited for the next step, and be refused.
            await self.node.store.alive()

    def _look_after_connections(self, passed: float) -> None:
        """Do what a node spreads over its days, or subscriptions expire while it is connected."""
        self._unattended += passed
        if self._unattended >= DAY:
            self._unattended = 0.0
            self.node.upkeep.whole_round()

    async def turn(self) -> None:
        """Let the reactor do what is due."""
        await deferLater(self._reactor, 0)

    # ---- all of it

    async def reset(self) -> None:
        """Be as after the start: no user agent, request or fault, and the true time."""
        for name in list(self.agents):
            await self.remove_agent(name)
        await self.endpoint.reset()
        self.shift.reset()

    def stop(self) -> None:
        """The service ends: let go of everything that would wait."""
        for agent in self.agents.values():
            agent.wanted = False
            agent.messages.close()
        self.endpoint.stop()

    def describe(self) -> JSONDict:
        """Where the service is, for those who come to know of this API only."""
        return {
            "version": __version__,
            "url": self.node.conf.endpoint_url,
            "websocket_url": self.websocket_url,
            "firefox_preferences": firefox_preferences(self.websocket_url),
            "time": clock.now(),
            "ahead": self.shift.seconds,
        }


def firefox_preferences(websocket_url: str) -> JSONDict:
    """What Firefox must be told, for its push client to use this service, with nobody to click."""
    return {
        "dom.push.serverURL": websocket_url,
        "dom.push.connection.enabled": True,
        "dom.push.testing.allowInsecureServerURL": True,
        "dom.push.testing.ignorePermission": True,
        "dom.push.retryBaseInterval": 500,
        "permissions.default.desktop-notification": 1,
        "remote.prefs.recommended": False,
    }
