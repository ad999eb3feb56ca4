"""The internal API of a connection node (spec/websocket 19), over a real HTTP connection."""

# mypy: disable-error-code="arg-type,truthy-function,var-annotated"

from __future__ import annotations

import json
from types import SimpleNamespace
from unittest import mock

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher

from autopush.exceptions import StoreBusy, StoreError
from autopush.http import InternalRouterHTTPFactory
from autopush.session import Delivery
from autopush.websocket import NotificationHandler, RouterHandler

UAID = "76dfb18c1eb14f9280a57fdf8d462b5c"
CHID = "0a1b2c3d-1eb1-4f92-80a5-7fdf8d462b5c"
MESSAGE = {
    "channelID": CHID,
    "version": "v1",
    "ttl": 60,
    "topic": None,
    "timestamp": 1700000000,
    "data": "YWJj",
    "headers": {"encoding": "aes128gcm"},
}


class PaperNode:
    """Answers what the test says, and notes what it is asked."""

    router_url = "http://node.example:8081"

    def __init__(self):
        self.clients = {UAID: object()}
        self.identifying = {}
        self.answer = Delivery.DELIVERED
        self.asked = []

    async def deliver(self, uaid, notification):
        self.asked.append((uaid, notification))
        if isinstance(self.answer, Exception):
            raise self.answer
        if isinstance(self.answer, Deferred):
            return await self.answer
        return self.answer

    def check(self, uaid):
        self.asked.append(uaid)
        return self.answer if uaid in self.clients else Delivery.NOT_CONNECTED

    def disconnect(self, uaid, connected_at):
        self.asked.append((uaid, connected_at))
        return uaid in self.clients and connected_at == 1234


@pytest.fixture
def node():
    return PaperNode()


@pytest.fixture
def logged():
    events = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


class Client:
    """One connection to the API."""

    def __init__(self, node):
        conf = SimpleNamespace(
            max_data=4096, sts_max_age=0, cors=False, ami_id=None, client_certs=None
        )
        self.factory = InternalRouterHTTPFactory(conf, None, node.clients, node=node, clock=Clock())
        self.transport = StringTransport()
        self.protocol = self.factory.buildProtocol(None)
        self.protocol.makeConnection(self.transport)

    def ask(self, method: str, path: str, body: bytes = b"") -> None:
        head = f"{method} {path} HTTP/1.1\r\nHost: node\r\nContent-Length: {len(body)}\r\n\r\n"
        self.protocol.dataReceived(head.encode() + body)

    def answer(self) -> tuple[int, str] | None:
        data = self.transport.value().decode()
        self.transport.clear()
        if not data:
            return None
        head, _, body = data.partition("\r\n\r\n")
        return int(head.split()[1]), body

    def __call__(self, method: str, path: str, body: bytes = b"") -> tuple[int, str] | None:
        self.ask(method, path, body)
        return self.answer()


@pytest.fixture
def client(node):
    return Client(node)


def push(client, message, uaid: str = UAID):
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    return client("PUT", f"/push/{uaid}", body)


def failures(logged) -> list:
    return [event for event in logged if event.get("log_failure") is not None]


# ---------------------------------------------------------------------------- PUT /push/{uaid}


def test_push_delivers(client, node):
    assert push(client, MESSAGE) == (200, "Client accepted for delivery")
    ((uaid, notification),) = node.asked
    assert uaid == UAID
    assert notification.uaid.hex == UAID
    assert notification.websocket_format() == {
        "messageType": "notification",
        "channelID": CHID,
        "version": "v1",
        "data": "YWJj",
        "headers": {"encoding": "aes128gcm"},
    }
    assert (notification.ttl, notification.timestamp) == (60, 1700000000)


def test_push_without_data(client):
    message = {"channelID": CHID, "version": "v1", "ttl": None, "timestamp": 1700000000}
    assert push(client, message)[0] == 200


def test_push_is_answered_when_the_node_is_done(client, node):
    node.answer = Deferred()
    waiting = node.answer
    assert push(client, MESSAGE) is None
    waiting.callback(Delivery.DELIVERED)
    assert client.answer()[0] == 200


@pytest.mark.parametrize(
    ("delivery", "answer"),
    [
        (Delivery.NOT_CONNECTED, (404, "Client not connected.")),
        (Delivery.BUSY, (503, "Client busy.")),
    ],
)
def test_push_not_delivered(client, node, delivery, answer):
    node.answer = delivery
    assert push(client, MESSAGE) == answer


@pytest.mark.parametrize("uaid", ["0" * 32, UAID.upper(), "x", "deadbeef-0000"])
def test_push_to_a_uaid_that_is_not_here(client, node, uaid):
    assert push(client, MESSAGE, uaid) == (404, "Client not connected.")
    assert push(client, b"not looked at", uaid)[0] == 404
    client.ask("PUT", f"/push/{uaid}", b"")
    assert b"\r\nX-Not-Connected: sure\r\n" in client.transport.value()
    assert node.asked == []


def test_push_while_a_hello_is_under_way(client, node):
    node.identifying = {"0" * 32: 1}
    node.answer = Delivery.BUSY
    assert push(client, MESSAGE, "0" * 32) == (503, "Client busy.")


BAD_BODIES = {
    "empty": b"",
    "not JSON": b"{",
    "an array": b"[]",
    "no channelID": {k: v for k, v in MESSAGE.items() if k != "channelID"},
    "invalid channelID": {**MESSAGE, "channelID": "x"},
    "channelID no text": {**MESSAGE, "channelID": 7},
    "no version": {k: v for k, v in MESSAGE.items() if k != "version"},
    "data without headers": {k: v for k, v in MESSAGE.items() if k != "headers"},
    "data with other headers": {**MESSAGE, "headers": "x"},
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
def test_push_of_something_else_is_500_empty_and_a_logged_failure(client, node, logged, body):
    assert push(client, body) == (500, "")
    assert node.asked == []
    assert len(failures(logged)) == 1


def test_push_with_members_of_a_wrong_type_is_sent_without_them(client, node):
    body = {**MESSAGE, "ttl": "soon", "topic": ["t"], "timestamp": {}}
    assert push(client, body) == (200, "Client accepted for delivery")
    ((_, notification),) = node.asked
    assert (notification.ttl, notification.topic) == (None, None)
    assert notification.timestamp > 1_700_000_000


def test_push_that_could_not_be_stored_is_503(client, node, logged):
    """The endpoint stores it, or says so to the sender; one line, and none where it will pass."""
    node.answer = StoreError("disk full")
    assert push(client, MESSAGE) == (503, "Storage failed.")
    (event,) = [event for event in logged if event["log_level"].name == "warn"]
    assert event["log_format"] == "Failed to store a direct message"
    assert "disk full" in event["reason"]
    node.answer = StoreBusy("locked")
    assert push(client, MESSAGE) == (503, "Storage failed.")
    assert len([event for event in logged if event["log_level"].name == "warn"]) == 1
    assert failures(logged) == []


# --------------------------------------------------------------------------- PUT /notif/{uaid}


@pytest.mark.parametrize("path", [f"/notif/{UAID}", f"/notif/{UAID}/99"])
def test_notif_starts_a_check(client, node, path):
    assert client("PUT", path, b"ignored") == (200, "Notification check started")
    assert node.asked == [UAID]


def test_notif_counts_the_checks_it_starts(client, node):
    client.factory.metrics = metrics = mock.Mock()
    client("PUT", f"/notif/{UAID}")
    assert metrics.mock_calls == [mock.call.increment("ua.notification_check")]
    node.answer = Delivery.BUSY
    client("PUT", f"/notif/{UAID}")
    assert len(metrics.mock_calls) == 1


def test_notif_when_output_is_paused(client, node):
    node.answer = Delivery.BUSY
    assert client("PUT", f"/notif/{UAID}") == (202, "Flagged for Notification check")


def test_notif_not_connected(client):
    assert client("PUT", "/notif/" + "0" * 32) == (404, "Client not connected.")


# ------------------------------------------------------------------------ DELETE /notif/{uaid}


def test_delete_of_this_connection(client, node):
    assert client("DELETE", f"/notif/{UAID}/1234") == (200, "Terminated duplicate")
    assert node.asked == [(UAID, 1234)]


@pytest.mark.parametrize(
    "path",
    [
        f"/notif/{UAID}/1235",
        f"/notif/{UAID}/{'9' * 5000}",
        "/notif/" + "0" * 32 + "/1234",
        "/notif/" + "0" * 32,
    ],
)
def test_delete_of_another_connection_is_200_and_empty(client, path):
    assert client("DELETE", path) == (200, "")


def test_delete_without_a_number_is_500_when_connected(client):
    assert client("DELETE", f"/notif/{UAID}") == (500, "")


# --------------------------------------------------------------------------------- all others


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"/push/{UAID}"),
        ("POST", f"/push/{UAID}"),
        ("DELETE", f"/push/{UAID}"),
        ("GET", f"/notif/{UAID}"),
        ("POST", f"/notif/{UAID}/1"),
    ],
)
def test_other_methods_are_405_and_empty(client, method, path):
    assert client(method, path) == (405, "")


@pytest.mark.parametrize("path", ["/notif/x/abc", "/push/a/b", "/push/", "/other"])
def test_other_paths_are_404(client, path):
    assert client("PUT", path) == (
        404,
        "<html><title>404: Not Found</title><body>404: Not Found</body></html>",
    )


def test_the_handlers_are_members_of_the_websocket_module():
    assert RouterHandler.put
    assert NotificationHandler.delete
