"""User agents without a browser."""

from __future__ import annotations

import asyncio

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from autopush.control.agents import (
    RETRY,
    Agent,
    AgentError,
    AgentFactory,
    AgentProtocol,
    Received,
    text_of,
)
from autopush.control.observed import Record
from autopush.tests.e2e.clients import UserAgent, VapidSender


def test_text():
    assert text_of("ü".encode()) == "ü"
    assert text_of(b"\xff") is None
    assert text_of(None) is None


def received(**given):
    request = Record(
        1.0, "POST", "e", "/", "r", {"topic": "t", "urgency": "low"}, b"", ttl=5, vapid={"sub": "s"}
    )
    return Received(
        "id",
        "channel",
        2.0,
        **{"data": b"x", "encoding": "aes128gcm", "error": None, "request": request, **given},
    )


def test_as_json():
    assert received().to_json() == {
        "id": "id",
        "subscription": "channel",
        "time": 2.0,
        "data": "eA",
        "text": "x",
        "encoding": "aes128gcm",
        "error": None,
        "ttl": 5,
        "topic": "t",
        "urgency": "low",
        "vapid": {"sub": "s"},
        "headers": {"topic": "t", "urgency": "low"},
    }


def test_without_data_or_request():
    shown = received(data=None, request=None).to_json()
    assert (shown["data"], shown["text"], shown["ttl"], shown["headers"]) == (None, None, None, {})


def test_no_time_outs_of_its_own():
    """They would go off when a test moves the clock."""
    factory = AgentFactory("ws://127.0.0.1:1/", reactor=None)
    assert factory.openHandshakeTimeout == factory.closeHandshakeTimeout == 0
    assert factory.autoPingInterval == 0
    assert factory.protocol is AgentProtocol


def test_comes_back_after_the_service_has_closed_it(push, send):
    """As browsers do. A hello of somebody else with its id is one way to be closed."""
    browser = push.browser()
    subscription = browser.subscribe()

    async def take_over():
        async with await UserAgent.open(push.websocket_url, browser.uaid) as other:
            assert other.uaid == browser.uaid
            await other.closed()  # for it comes back itself

    asyncio.run(take_over())
    send(subscription, "x")
    assert browser.wait(60).text == "x"


def test_a_service_that_does_not_know_it_has_none_of_its_subscriptions(push):
    browser = push.browser()
    browser.subscribe()
    uaid = browser.uaid
    browser.offline()
    # Its record goes, as that of somebody who is away for months.
    push.advance(400 * 86_400)
    browser.online()
    subscriptions = push.control.call("GET", "/subscriptions")["subscriptions"]
    assert (browser.uaid == uaid) == bool(subscriptions)


def test_keys_of_senders_are_checked(push, send):
    browser = push.browser()
    subscription = browser.subscribe(VapidSender().public_key)
    other = VapidSender()
    claims = {"sub": "mailto:ops@example.com"}
    assert send(subscription, "x", vapid_private_key=other.rfc8292, vapid_claims=claims) == 401


@pytest.mark.parametrize("text", ["", "x", "ü" * 1000])
def test_texts(push, send, text):
    browser = push.browser()
    assert send(browser.subscribe(), text) == 201
    assert browser.wait().data in (text.encode(), None)


class Channel(AgentProtocol):
    """A connection that only remembers what is said."""

    def __init__(self):
        super().__init__()
        self.said: list[dict[str, object]] = []

    def say(self, message):
        self.said.append(message)

    def sendClose(self, code=None, reason=None):
        self.onClose(True, code, reason)


class Connections(Clock):
    """A reactor whose connections are made by hand."""

    def __init__(self):
        super().__init__()
        self.factories: list[AgentFactory] = []

    def connectTCP(self, host, port, factory):
        self.factories.append(factory)

    def open(self):
        """Make the next connection."""
        channel = Channel()
        self.factories.pop(0).made.callback(channel)
        channel.onOpen()
        return channel


@pytest.fixture
def reactor():
    return Connections()


@pytest.fixture
def agent(reactor):
    return Agent("1", "ws://127.0.0.1:1/", 1, reactor, lambda message: None)


def begin(coroutine):
    """Results and failures, as they come."""
    found: list[object] = []
    Deferred.fromCoroutine(coroutine).addBoth(found.append)
    return found


def greet(channel, uaid="u"):
    channel.on_message({"messageType": "hello", "uaid": uaid, "status": 200})


@pytest.fixture
def online(agent, reactor):
    """The connection of an agent that is online."""
    connecting = begin(agent.connect())
    channel = reactor.open()
    greet(channel)
    assert connecting == [None] and agent.online
    return channel


def test_hello(agent, online):
    assert online.said == [{"messageType": "hello", "use_webpush": True, "broadcasts": {}}]
    assert agent.uaid == "u"


def test_two_that_wait_for_one_connection(agent, reactor):
    waiting = [begin(agent.connect()) for _ in range(2)]
    greet(reactor.open())
    assert waiting == [[None], [None]]
    assert not reactor.factories
    assert begin(agent.connect()) == [None]


def test_a_service_that_closes_before_hello(agent, reactor):
    waiting = [begin(agent.connect()) for _ in range(2)]
    agent.wanted = False
    reactor.open().onClose(True, 1001, "going away")
    for (failure,) in waiting:
        assert failure.check(AgentError)
    assert not agent.online


def test_no_service(agent, reactor):
    (factory,) = (begin(agent.connect()), reactor.factories)[1]
    waiting = begin(agent.connect())
    factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))
    (failure,) = waiting
    assert failure.check(AgentError)


def test_tries_again_with_its_id(agent, reactor, online):
    online.onClose(False, None, None)
    assert not agent.online
    reactor.advance(RETRY)
    again = reactor.open()
    assert again.said[0]["uaid"] == "u"
    greet(again)
    assert agent.online


def test_stays_away_when_told_to(agent, reactor, online):
    assert begin(agent.disconnect()) == [None]
    reactor.advance(10 * RETRY)
    assert not reactor.factories
    assert begin(agent.disconnect()) == [None]


def test_leaves_when_it_has_just_come(agent, reactor):
    begin(agent.connect())
    leaving = begin(agent.disconnect())
    assert not leaving
    greet(reactor.open())
    assert leaving == [None]
    assert not agent.online


def test_a_command_that_is_never_answered(agent, online):
    asked = begin(agent.subscribe(None))
    online.onClose(False, None, None)
    (failure,) = asked
    assert failure.check(AgentError)


@pytest.mark.parametrize("reply", [{"status": 503}, {"status": 403, "reason": "too many"}])
def test_refused_commands(agent, online, reply):
    asked = begin(agent.subscribe(None))
    channel = online.said[-1]["channelID"]
    online.on_message({"messageType": "register", "channelID": channel, **reply})
    (failure,) = asked
    assert failure.check(AgentError)
    assert str(reply.get("reason", reply["status"])) in failure.getErrorMessage()
    asked = begin(agent.unsubscribe(channel))
    online.on_message({"messageType": "unregister", "channelID": channel, **reply})
    (failure,) = asked
    assert failure.check(AgentError)


def subscribed(agent, online):
    asked = begin(agent.subscribe(None))
    channel = online.said[-1]["channelID"]
    online.on_message(
        {"messageType": "register", "channelID": channel, "status": 200, "pushEndpoint": "e"}
    )
    (made,) = asked
    return made


def test_another_id_means_that_nothing_is_known(agent, reactor, online):
    subscribed(agent, online)
    online.onClose(False, None, None)
    reactor.advance(RETRY)
    greet(reactor.open(), "other")
    assert (agent.uaid, agent.subscriptions) == ("other", {})


def test_acknowledgements(agent, online):
    """100: got it; 101: could not be decrypted. Nobody's messages are acknowledged, too."""
    channel = subscribed(agent, online).channel
    bad = {"data": "AAAA", "headers": {"encoding": "aes128gcm"}}
    for where, content in ((channel, {}), (channel, bad), ("nobody's", {})):
        online.on_message(
            {"messageType": "notification", "channelID": where, "version": "v", **content}
        )
    codes = [said["updates"][0]["code"] for said in online.said if said["messageType"] == "ack"]
    assert codes == [100, 101, 100]
    plain, undecrypted = agent.messages.after(0)
    assert (plain.data, plain.error) == (None, None)
    assert "too short" in undecrypted.error


def test_what_nobody_asked_for(agent, online):
    online.on_message({"messageType": "broadcast", "broadcasts": {}})
    assert agent.online
