"""User agents without a browser: WebSocket clients of this very service, with keys of their own.

They speak the protocol as Firefox does (spec/websocket), over a loopback port only they use, so
that they are connected, stored for, and forgotten as any other user agent is.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs
import orjson
from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError

from autopush import clock
from autopush.control.journal import Journal
from autopush.control.keys import DecryptionError, Keys
from autopush.message.encoding import base64url_decode, base64url_encode
from autopush.waiters import Waiters

if TYPE_CHECKING:
    from autopush.control.observed import Record
    from autopush.types import JSONDict

RETRY = 0.1
"""Seconds until an agent that lost its connection tries again."""

ACKNOWLEDGED, NOT_DECRYPTED = 100, 101
"""Codes of an acknowledgement (spec/websocket 5.6)."""


class AgentError(Exception):
    """An agent can't do this now, or the service refused it; the text says why."""


@attrs.define(eq=False)
class Subscription:
    """What a page gets from ``PushManager.subscribe()``."""

    channel: str
    endpoint: str
    keys: Keys

    def to_json(self) -> JSONDict:
        """As ``PushSubscription.toJSON()``."""
        return {"endpoint": self.endpoint, "expirationTime": None, "keys": self.keys.to_json()}


@attrs.define
class Received:
    """A message that came to an agent.

    :ivar data: plain text; None: it had none, or could not be decrypted
    :ivar error: why it could not be decrypted
    :ivar request: what brought it; None if that is forgotten
    """

    id: str
    subscription: str
    time: float
    data: bytes | None
    encoding: str | None
    error: str | None
    request: Record | None

    def to_json(self) -> JSONDict:
        """As the API shows it."""
        headers = self.request.headers if self.request else {}
        return {
            "id": self.id,
            "subscription": self.subscription,
            "time": self.time,
            "data": None if self.data is None else base64url_encode(self.data),
            "text": text_of(self.data),
            "encoding": self.encoding,
            "error": self.error,
            "ttl": self.request.ttl if self.request else None,
            "topic": headers.get("topic"),
            "urgency": headers.get("urgency"),
            "vapid": self.request.vapid if self.request else None,
            "headers": headers,
        }


def text_of(data: bytes | None) -> str | None:
    """Data as text, if it is that."""
    try:
        return None if data is None else data.decode("utf-8")
    except UnicodeDecodeError:
        return None


class AgentProtocol(WebSocketClientProtocol):
    """One connection of an agent."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: Deferred[None] = Deferred()
        self.ended: Deferred[None] = Deferred()
        self.on_message: Callable[[JSONDict], None] = lambda message: None
        self._pings: list[Deferred[None]] = []

    def onOpen(self) -> None:
        self.opened.callback(None)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.on_message(orjson.loads(payload))

    def onPong(self, payload: bytes) -> None:
        if self._pings:
            self._pings.pop(0).callback(None)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        error = AgentError(f"the service closed the connection: {code} {reason or ''}".rstrip())
        if not self.opened.called:
            self.opened.errback(error)
        for waiting in self._pings:
            waiting.callback(None)
        self._pings = []
        if not self.ended.called:
            self.ended.callback(None)

    def say(self, message: JSONDict) -> None:
        """Send a command."""
        self.sendMessage(orjson.dumps(message))

    def caught_up(self) -> Deferred[None]:
        """Fires when everything has arrived that the service had sent by now."""
        answered: Deferred[None] = Deferred()
        self._pings.append(answered)
        self.sendPing(b"")
        return answered


class AgentFactory(WebSocketClientFactory):
    """Makes connections to one address, without time-outs: those would not know of moved clocks."""

    protocol = AgentProtocol
    noisy = False

    def __init__(self, url: str, reactor: Any) -> None:
        super().__init__(url, reactor=reactor)
        self.setProtocolOptions(openHandshakeTimeout=0, closeHandshakeTimeout=0, tcpNoDelay=True)
        self.made: Deferred[AgentProtocol] = Deferred()

    def buildProtocol(self, addr: Any) -> Any:
        protocol: Any = super().buildProtocol(addr)
        self.made.callback(protocol)
        return protocol

    def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
        """There is nobody, as while the service ends."""
        self.made.errback(reason)


class Agent:
    """One user agent.

    :param name: how the API calls it
    :param url: where to connect
    :param port: of that
    :param source: finds the request that brought a message
    """

    def __init__(
        self,
        name: str,
        url: str,
        port: int,
        reactor: Any,
        source: Callable[[str], Record | None],
    ) -> None:
        self.name = name
        self.uaid: str | None = None
        self.subscriptions: dict[str, Subscription] = {}
        self.messages: Journal[Received] = Journal(reactor)
        self.wanted = False
        """Whether it is to be connected."""
        self._url, self._port, self._reactor, self._source = url, port, reactor, source
        self._connection: AgentProtocol | None = None
        self._connecting = False
        self._tried: Waiters[None] = Waiters()
        self._replies: dict[tuple[str, str], Deferred[JSONDict]] = {}

    @property
    def online(self) -> bool:
        """Whether it is connected."""
        return self._connection is not None

    # ---- connection

    async def connect(self) -> None:
        """Go online: connect and say hello.

        :raises AgentError: the service does not want it
        """
        self.wanted = True
        if self._connecting:
            await self._tried.wait()
        elif self._connection is None:
            self._connecting = True
            try:
                await self._connect()
            finally:
                self._connecting = False
                self._tried.fire(None)
        if self._connection is None:
            raise AgentError("the service closed the connection")

    async def _connect(self) -> None:
        factory = AgentFactory(self._url, self._reactor)
        self._reactor.connectTCP("127.0.0.1", self._port, factory)
        try:
            protocol = await factory.made
        except ConnectError as exc:
            raise AgentError(f"there is no service: {exc}") from exc
        protocol.on_message = self._received
        await protocol.opened
        self._connection = protocol
        protocol.ended.addCallback(self._lost, protocol)
        hello: JSONDict = {"messageType": "hello", "use_webpush": True, "broadcasts": {}}
        if self.uaid is not None:
            hello["uaid"] = self.uaid
        reply = await self._ask(hello)
        if reply.get("uaid") != self.uaid:
            # As Firefox does: a service that does not know us has none of our subscriptions.
            self.subscriptions.clear()
            self.uaid = reply["uaid"]

    async def disconnect(self) -> None:
        """Go offline, as a browser that is closed."""
        if self._connecting:
            await self._tried.wait()
        self.wanted = False
        connection = self._connection
        if connection is not None:
            ended: Deferred[None] = Deferred()
            connection.ended.addCallback(lambda _: ended.callback(None))
            connection.sendClose(1000)
            await ended

    def _lost(self, _: None, connection: AgentProtocol) -> None:
        if self._connection is connection:
            self._connection = None
        replies, self._replies = self._replies, {}
        for reply in replies.values():
            reply.errback(AgentError("the service closed the connection"))
        if self.wanted:
            self._reactor.callLater(RETRY, self._return)

    def _return(self) -> None:
        if self.wanted and not self.online:
            # What can't be is seen by who asks for the browser: it is offline.
            Deferred.fromCoroutine(self.connect()).addErrback(lambda failure: None)

    async def caught_up(self) -> None:
        """Wait for what the service has sent already."""
        if self._connection is not None:
            await self._connection.caught_up()

    # ---- commands

    async def subscribe(self, key: str | None) -> Subscription:
        """Make a subscription.

        :param key: of the only sender that may use it, base64url; None: anybody
        :raises AgentError: offline, or refused
        """
        channel, keys = str(uuid.uuid4()), Keys()
        reply = await self._ask({"messageType": "register", "channelID": channel, "key": key})
        if reply.get("status") != 200:
            raise AgentError(f"the service refused it: {reply.get('reason') or reply['status']}")
        made = self.subscriptions[channel] = Subscription(channel, reply["pushEndpoint"], keys)
        return made

    async def unsubscribe(self, channel: str) -> None:
        """End a subscription, as ``PushSubscription.unsubscribe()``.

        :raises AgentError: offline, or refused
        """
        reply = await self._ask({"messageType": "unregister", "channelID": channel})
        if reply.get("status") != 200:
            raise AgentError(f"the service refused it: {reply.get('status')}")
        self.subscriptions.pop(channel, None)

    async def _ask(self, message: JSONDict) -> JSONDict:
        if self._connection is None:
            raise AgentError("this user agent is offline")
        reply: Deferred[JSONDict] = Deferred()
        self._replies[message["messageType"], message.get("channelID", "")] = reply
        self._connection.say(message)
        return await reply

    # ---- what the service says

    def _received(self, message: JSONDict) -> None:
        kind = message["messageType"]
        if kind == "notification":
            self._notified(message)
            return
        reply = self._replies.pop((kind, message.get("channelID", "")), None)
        if reply is not None:
            reply.callback(message)

    def _notified(self, frame: JSONDict) -> None:
        channel, version = frame["channelID"], frame["version"]
        subscription = self.subscriptions.get(channel)
        data, error, code = None, None, ACKNOWLEDGED
        encoding = frame.get("headers", {}).get("encoding")
        if subscription is not None and frame.get("data"):
            try:
                data = subscription.keys.decrypt(base64url_decode(frame["data"]), frame["headers"])
            except DecryptionError as exc:
                error, code = str(exc), NOT_DECRYPTED
        if subscription is not None:
            received = Received(
                version, channel, clock.now(), data, encoding, error, self._source(version)
            )
            self.messages.append(received)
        assert self._connection is not None
        update = {"channelID": channel, "version": version, "code": code}
        self._connection.say({"messageType": "ack", "updates": [update]})
