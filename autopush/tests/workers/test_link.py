"""The way from one worker to another."""

from __future__ import annotations

import os
import tempfile
import uuid
from typing import Any

import orjson
import pytest
from hypothesis import given, strategies as st
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import TestCase

from autopush.exceptions import StoreBusy, StoreError
from autopush.message.notification import WebPushNotification
from autopush.net.eager import listen_unix
from autopush.net.nodeclient import GONE, NodeBusy, NodeGone
from autopush.session import Delivery
from autopush.tests.session.support import Events
from autopush.workers import link
from autopush.workers.link import Answering, Asking, WorkerClient, link_factory

reactor: Any = _reactor

UAID = "deadbeef0000000000000000deadbeef"
HERE = "worker-2.localhost"


class FakeNode:
    """A node with one user; notes what it is asked."""

    def __init__(self) -> None:
        self.clients = {UAID: object()}
        self.identifying: dict[str, int] = {}
        self.metrics = self
        self.events: list[Any] = []
        self.delivery: Any = Delivery.DELIVERED
        self.waits: Deferred[None] | None = None

    async def deliver(self, uaid: str, notification: WebPushNotification) -> Delivery:
        self.events.append(("deliver", uaid, notification.data, notification.ttl))
        if self.waits is not None:
            await self.waits
        if isinstance(self.delivery, Exception):
            raise self.delivery
        delivery: Delivery = self.delivery
        return delivery

    def check(self, uaid: str) -> Delivery:
        self.events.append(("check", uaid))
        delivery: Delivery = self.delivery
        return delivery

    def disconnect(self, uaid: str, connected_at: int) -> bool:
        self.events.append(("disconnect", uaid, connected_at))
        return False

    def increment(self, name: str) -> None:
        self.events.append(name)


class Pair:
    """Both ends, and the wires between them."""

    def __init__(self, max_data: int = 4096) -> None:
        self.clock = Clock()
        self.node = FakeNode()
        node: Any = self.node
        self.asking = Asking(self.clock, lambda: None)
        self.answering = Answering(self.clock, node, max_data)
        self.there, self.back = StringTransport(), StringTransport()
        self.asking.makeConnection(self.there)
        self.answering.makeConnection(self.back)

    def ask(self, line: str, body: bytes = b"") -> list[Any]:
        done: Deferred[int] = Deferred()
        results: list[Any] = []
        done.addBoth(results.append)
        self.asking.ask(f"{line}\n".encode() + body, 10.0, done)
        return results

    def turn(self, size: int = 1 << 20) -> None:
        """Let a turn of the loop end, and carry what was written, in pieces."""
        for wire, other in ((self.there, self.answering), (self.back, self.asking)):
            self.clock.advance(0)
            data = wire.value()
            wire.clear()
            for at in range(0, len(data), size):
                other.dataReceived(data[at : at + size])


def body(text: str = "x") -> bytes:
    headers = {"encoding": "aes128gcm"}
    notification = WebPushNotification(
        uuid.UUID(UAID), uuid.uuid4(), 60, data=text, headers=headers, message_id="m"
    )
    return orjson.dumps(notification.serialize())


@pytest.mark.parametrize(
    ("delivery", "pushed", "checked"),
    [
        (Delivery.DELIVERED, 200, 200),
        (Delivery.BUSY, 503, 202),
        (Delivery.NOT_CONNECTED, GONE, GONE),
    ],
)
def test_what_the_internal_api_answers(delivery: Delivery, pushed: int, checked: int) -> None:
    pair = Pair()
    pair.node.delivery = delivery
    results = [pair.ask(f"PUT /push/{UAID}", body()), pair.ask(f"PUT /notif/{UAID}")]
    results.append(pair.ask(f"DELETE /notif/{UAID}/17"))
    pair.turn()
    assert results == [[pushed], [checked], [200]]
    counted = ["ua.notification_check"] if checked == 200 else []
    expected = [("deliver", UAID, "x", 60), ("check", UAID), *counted, ("disconnect", UAID, 17)]
    assert pair.node.events == expected


def test_nobody_is_asked_about_a_user_who_is_not_here() -> None:
    pair = Pair()
    pair.node.clients.clear()
    results = pair.ask(f"PUT /push/{UAID}", b"not even read")
    pair.turn()
    assert results == [GONE] and pair.node.events == []


@pytest.mark.parametrize(
    ("line", "content"),
    [
        (f"PUT /push/{UAID}", b"no JSON"),
        (f"PUT /push/{UAID}", b"[]"),
        ("GET /", b""),
        ("", b""),
        (f"DELETE /notif/{UAID}", b""),
        (f"DELETE /notif/{UAID}/x", b""),
        (f"DELETE /notif/{UAID}/{'1' * 30}", b""),
        ("PUT /push/\u00e4", b""),
    ],
)
def test_what_is_no_request_is_answered_500(line: str, content: bytes) -> None:
    pair = Pair()
    results = pair.ask(line, content)
    pair.turn()
    assert results == [500] and pair.node.events == []
    again = pair.ask(f"PUT /notif/{UAID}")
    pair.turn()
    assert again == [200]


def test_a_delivery_that_fails_is_answered_500() -> None:
    pair = Pair()
    pair.node.delivery = ValueError("mistake")
    results = pair.ask(f"PUT /push/{UAID}", body())
    pair.turn()
    assert results == [500]


def test_a_message_that_was_sent_and_could_not_be_stored_is_answered_503() -> None:
    """As by the internal API: whoever asks stores it, or says so to the sender."""
    pair = Pair()
    with Events() as events:
        for pair.node.delivery in (StoreError("disk full"), StoreBusy("locked")):
            results = pair.ask(f"PUT /push/{UAID}", body())
            pair.turn()
            assert results == [503]
    (event,) = events.of("Failed to store a direct message")
    assert "disk full" in event["reason"]
    assert not events.of("Unexpected error")


@pytest.mark.parametrize("max_data", [4096, 2_000_000])
def test_the_longest_message_gets_through(max_data: int) -> None:
    pair = Pair(max_data)
    text = "x" * (max_data * 4 // 3)
    results = pair.ask(f"PUT /push/{UAID}", body(text))
    pair.turn()
    assert results == [200]
    assert pair.node.events == [("deliver", UAID, text, 60)]
    # And what could be none is not waited for.
    pair.answering.dataReceived((max(1 << 20, 2 * max_data) + 1).to_bytes(4, "big"))
    assert pair.back.disconnecting


@given(st.lists(st.sampled_from(["push", "notif"]), min_size=1), st.integers(1, 40))
def test_many_at_a_time_in_any_pieces(whats: list[str], size: int) -> None:
    pair = Pair()
    results = [pair.ask(f"PUT /{what}/{UAID}", body() * (what == "push")) for what in whats]
    assert not pair.there.value(), "nothing is written before the turn ends"
    pair.turn(size)
    assert results == [[200]] * len(whats)
    assert not pair.asking.waiting


def test_a_slow_one_holds_up_nobody() -> None:
    pair = Pair()
    pair.node.waits = Deferred()
    slow = pair.ask(f"PUT /push/{UAID}", body())
    quick = pair.ask(f"PUT /notif/{UAID}")
    pair.turn()
    assert (slow, quick) == ([], [200])
    pair.node.waits.callback(None)
    pair.turn()
    assert slow == [200]


def test_an_answer_that_comes_too_late_is_ignored() -> None:
    pair = Pair()
    pair.node.waits = Deferred()
    results = pair.ask(f"PUT /push/{UAID}", body())
    pair.turn()
    pair.asking.fail_before(10.0, "no answer in time")
    assert results == []
    pair.asking.fail_before(10.1, "no answer in time")
    assert results[0].check(NodeGone)
    pair.node.waits.callback(None)
    pair.turn()
    assert len(results) == 1


class ClientTest(TestCase):
    """Over a Unix socket."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = f"{folder.name}/worker"
        self.node = FakeNode()
        node: Any = self.node
        self.port = listen_unix(reactor, self.path, link_factory(reactor, node), 50)
        self.client = WorkerClient(reactor, {HERE: self.path, "localhost": "/none/s"})
        self.addCleanup(self.port.stopListening)
        self.addCleanup(self.client.close)

    async def events(self, count: int) -> None:
        """Wait until the node has been asked so often."""
        while len(self.node.events) < count:
            turn: Deferred[None] = Deferred()
            reactor.callLater(0.001, turn.callback, None)
            await turn

    async def test_requests_share_a_connection(self) -> None:
        urls = [f"http://{HERE}/notif/{UAID}"] * 20
        statuses = await gatherResults([self.client.request("PUT", url) for url in urls])
        assert statuses == [200] * 20
        assert await self.client.request("PUT", f"http://{HERE}/push/{UAID}", body()) == 200

    async def test_nobody_else_is_asked(self) -> None:
        for url in ("http://worker-9.localhost/x", "http://10.0.0.1:80/x", "http://x", "nonsense"):
            with pytest.raises(NodeGone):
                await self.client.request("PUT", url)

    async def test_one_that_is_away(self) -> None:
        url = f"http://localhost/notif/{UAID}"
        for _ in range(2):
            gone = [self.client.request("PUT", url) for _ in range(3)]
            for one in gone:
                with pytest.raises(NodeGone):
                    await one

    async def test_too_many(self) -> None:
        self.patch(link, "WAITING_PER_NODE", 3)
        self.node.waits = Deferred()
        url = f"http://{HERE}/push/{UAID}"
        asked = [self.client.request("PUT", url, body()) for _ in range(3)]
        with pytest.raises(NodeBusy):
            await self.client.request("PUT", url, body())
        await self.events(3)
        with pytest.raises(NodeBusy):
            await self.client.request("PUT", url, body())
        self.node.waits.callback(None)
        assert await gatherResults(asked) == [200] * 3

    async def test_the_end(self) -> None:
        self.node.waits = Deferred()
        asked = self.client.request("PUT", f"http://{HERE}/push/{UAID}", body())
        await self.events(1)
        await self.client.close()
        with pytest.raises(NodeGone):
            await asked
        with pytest.raises(NodeGone):
            await self.client.request("PUT", f"http://{HERE}/push/{UAID}", body())
        self.node.waits.callback(None)
        assert os.path.exists(self.path)

    async def test_the_end_while_it_connects(self) -> None:
        asked = [self.client.request("PUT", f"http://{HERE}/push/{UAID}", body()) for _ in range(2)]
        await self.client.close()
        for one in asked:
            with pytest.raises(NodeGone):
                await one
        assert not self.node.events
