"""What the libraries that people send with make of the service: each sends as its manual shows, a
browser decrypts what comes, and of each refusal the library says what its user needs to know.

The status decides what senders do: with 404 or 410 they forget the subscription, with 429 and 5xx
they come again later, the others are mistakes of theirs (spec/http-endpoint 3).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from autopush.tests.e2e.clients import Subscription, UserAgent, VapidSender, b64encode
from autopush.tests.e2e.harness import Server
from autopush.tests.senders.programs import PROGRAMS, Program, Sender

TEXT = "Grüße, 🐈"

LONG = "x" * 5000
"""Longer than what a message may have: 4096 bytes encrypted."""


class Application:
    """An application server: a library, its key, and the service its subscriptions are at."""

    def __init__(self, program: Program, sender: Sender, server: Server) -> None:
        self.program = program
        self.sender = sender
        self.server = server
        self.key = VapidSender()

    async def send(
        self,
        subscription: Subscription,
        text: str = TEXT,
        key: VapidSender | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """Send a message; what the library says."""
        key = key or self.key
        number = key.private.private_numbers().private_value
        order = {
            "subscription": subscription.info,
            "vapid": {
                "public": key.public_key,
                "private": b64encode(number.to_bytes(32)),
                "subject": "mailto:ops@example.com",
            },
            "text": text,
            "ttl": 600,
            **more,
        }
        return await asyncio.to_thread(self.sender.send, order)

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
def server(
    program: Program, tmp_path_factory: pytest.TempPathFactory, certificate: tuple[str, str]
) -> Iterator[Server]:
    """The service as it is without options, but for a quota that is soon used up."""
    home = tmp_path_factory.mktemp("server")
    quota = ("--max_stored", "4", "--max_stored_share", "100")
    with Server(home, *quota, tls=certificate if program.https_only else None) as running:
        yield running
        assert running.alive, running.output
        assert "Traceback" not in running.output


@pytest.fixture(scope="module")
def application(
    program: Program, server: Server, certificate: tuple[str, str]
) -> Iterator[Application]:
    sender = Sender(program, {"NODE_EXTRA_CA_CERTS": certificate[1]})
    yield Application(program, sender, server)
    sender.close()


async def browser(server: Server, certificate: tuple[str, str]) -> UserAgent:
    if server.tls:
        import ssl

        context = ssl.create_default_context(cafile=certificate[1])
        return await UserAgent.open(server.ws_url, ssl=context)
    return await UserAgent.open(server.ws_url)


async def test_browser_reads_what_was_sent(
    application: Application, certificate: tuple[str, str]
) -> None:
    async with await browser(application.server, certificate) as agent:
        subscription = await agent.register(application.key.public_key)
        report = await application.send(subscription)
        assert report["said"] == "ok", report
        frame = await agent.receive("notification")
        assert frame["headers"]["encoding"] == "aes128gcm"
        # webpush-go pads with zeros, which the browser takes away.
        assert subscription.decrypt(frame).decode() == TEXT
        await agent.ack(frame)
        if "status" in report:  # web-push for Rust says no more than that it went well
            assert report["status"] == 201
            assert report["headers"]["location"].startswith(application.server.endpoint_url + "/m/")
            assert report["headers"]["ttl"] == "600"


async def test_end_of_a_subscription(
    application: Application, certificate: tuple[str, str]
) -> None:
    async with await browser(application.server, certificate) as agent:
        subscription = await agent.register(application.key.public_key)
        await agent.send({"messageType": "unregister", "channelID": subscription.channel})
        assert (await agent.receive("unregister"))["status"] == 200
    report = await application.send(subscription)
    application.check(report, 410, 106)
    if application.program.name == "rust":
        assert report["said"] == "endpoint_not_valid"


async def test_key_of_somebody_else(application: Application, certificate: tuple[str, str]) -> None:
    async with await browser(application.server, certificate) as agent:
        subscription = await agent.register(VapidSender().public_key)
        report = await application.send(subscription)
        application.check(report, 401, 109)
        if application.program.name == "rust":
            assert report["said"] == "unauthorized"
        else:
            assert "vapid" in report["headers"]["www-authenticate"].split(", ")
        await agent.nothing()


async def test_message_that_is_too_long(
    application: Application, certificate: tuple[str, str]
) -> None:
    async with await browser(application.server, certificate) as agent:
        subscription = await agent.register(application.key.public_key)
        report = await application.send(subscription, LONG)
        if application.program.name == "go":
            assert report["said"] == "payload has exceeded the maximum length"
            report = await application.send(subscription, LONG, record_size=8192)
        if application.program.name == "rust":
            # Its own refusal, and what it makes of ours.
            assert report["said"] == "payload_too_large"
            report = await application.send(subscription, body_size=5000)
            assert report["said"] == "payload_too_large"
        else:
            application.check(report, 413, 104)
        await agent.nothing()


async def test_user_for_whom_enough_is_waiting(
    application: Application, certificate: tuple[str, str]
) -> None:
    async with await browser(application.server, certificate) as agent:
        subscription = await agent.register(application.key.public_key)
    reports = [await application.send(subscription) for _ in range(5)]
    assert [report["said"] for report in reports[:4]] == ["ok"] * 4
    report = reports[-1]
    application.check(report, 429, 203)
    if application.program.name == "rust":
        assert report["said"] == "other"
    else:
        assert int(report["headers"]["retry-after"]) > 0
