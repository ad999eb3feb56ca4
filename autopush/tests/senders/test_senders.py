"""What the libraries that people send with make of the service: each sends as its manual shows, a
browser decrypts what comes, and of each refusal the library says what its user needs to know.

The status decides what senders do: with 404 or 410 they forget the subscription, with 429 and 5xx
they come again later, the others are mistakes of theirs (spec/http-endpoint 3).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from autopush.testing import Browser, Push, PushService
from autopush.tests.e2e.clients import PATIENCE, VapidSender, b64encode
from autopush.tests.senders.programs import PROGRAMS, Program, Sender

TEXT = "Grüße, 🐈"

LONG = "x" * 5000
"""Longer than what a message may have: 4096 bytes encrypted."""

QUOTA = ("--max_stored=4", "--max_stored_share=100")
"""Soon used up."""


class Application:
    """An application server: a library, and its key."""

    def __init__(self, program: Program, sender: Sender) -> None:
        self.program = program
        self.sender = sender
        self.key = VapidSender()

    def send(self, subscription: dict[str, Any], text: str = TEXT, **more: Any) -> dict[str, Any]:
        """Send a message; what the library says."""
        number = self.key.private.private_numbers().private_value
        order = {
            "subscription": {name: subscription[name] for name in ("endpoint", "keys")},
            "vapid": {
                "public": self.key.public_key,
                "private": b64encode(number.to_bytes(32)),
                "subject": "mailto:ops@example.com",
            },
            "text": text,
            "ttl": 600,
            **more,
        }
        return self.sender.send(order)

    def check(self, report: dict[str, Any], status: int, errno: int) -> None:
        """Check that a refusal arrives as the service has it, as far as the library lets it."""
        if self.program.name == "rust":
            assert (report["status"], report["errno"]) == (status, errno), report
            return
        assert report["status"] == status, report
        body = json.loads(report["body"])
        assert (body["code"], body["errno"]) == (status, errno), report
        assert body["message"]


@pytest.fixture(scope="module", params=PROGRAMS, ids=str)
def program(request: pytest.FixtureRequest) -> Program:
    return request.param


@pytest.fixture(scope="module")
def service(program: Program) -> Iterator[PushService]:
    """The push service, over TLS where the library insists on it."""
    running = PushService(QUOTA, tls=program.https_only)
    with running:
        yield running
        assert "Traceback" not in running.output


@pytest.fixture(scope="module")
def push(service: PushService) -> Push:
    return Push(service.facts["control_url"])


@pytest.fixture(scope="module")
def application(program: Program, service: PushService) -> Iterator[Application]:
    certificate = service.facts["certificate"]
    sender = Sender(program, {"NODE_EXTRA_CA_CERTS": certificate} if certificate else {})
    yield Application(program, sender)
    sender.close()


@pytest.fixture
def browser(push: Push) -> Browser:
    return push.browser()


def test_browser_reads_what_was_sent(
    application: Application, push: Push, browser: Browser
) -> None:
    report = application.send(browser.subscribe(application.key.public_key))
    assert report["said"] == "ok", report
    message = browser.wait(PATIENCE)
    # webpush-go pads with zeros, which the browser takes away.
    assert (message.text, message.encoding, message.ttl) == (TEXT, "aes128gcm", 600)
    assert message.vapid is not None and message.vapid["key"] == application.key.public_key
    if "status" in report:  # web-push for Rust says no more than that it went well
        assert report["status"] == 201
        assert report["headers"]["location"].startswith(push.url + "/m/")
        assert report["headers"]["ttl"] == "600"


def test_end_of_a_subscription(application: Application, browser: Browser) -> None:
    subscription = browser.subscribe(application.key.public_key)
    browser.unsubscribe(subscription)
    report = application.send(subscription)
    application.check(report, 410, 106)
    if application.program.name == "rust":
        assert report["said"] == "endpoint_not_valid"


def test_key_of_somebody_else(application: Application, browser: Browser) -> None:
    report = application.send(browser.subscribe(VapidSender().public_key))
    application.check(report, 401, 109)
    if application.program.name == "rust":
        assert report["said"] == "unauthorized"
    else:
        assert "vapid" in report["headers"]["www-authenticate"].split(", ")
    assert browser.messages == []


def test_message_that_is_too_long(application: Application, browser: Browser) -> None:
    subscription = browser.subscribe(application.key.public_key)
    report = application.send(subscription, LONG)
    if application.program.name == "go":
        assert report["said"] == "payload has exceeded the maximum length"
        report = application.send(subscription, LONG, record_size=8192)
    if application.program.name == "rust":
        # Its own refusal, and what it makes of ours.
        assert report["said"] == "payload_too_large"
        report = application.send(subscription, body_size=5000)
        assert report["said"] == "payload_too_large"
    else:
        application.check(report, 413, 104)
    assert browser.messages == []


def test_user_for_whom_enough_is_waiting(application: Application, browser: Browser) -> None:
    subscription = browser.subscribe(application.key.public_key)
    browser.offline()
    reports = [application.send(subscription) for _ in range(5)]
    assert [report["said"] for report in reports[:4]] == ["ok"] * 4
    report = reports[-1]
    application.check(report, 429, 203)
    if application.program.name == "rust":
        assert report["said"] == "other"
    else:
        assert int(report["headers"]["retry-after"]) > 0
