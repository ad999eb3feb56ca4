"""Phones with Apple's push service, end to end: registration, message, what the vendor sees.

The service is the real command with a statsd client; Apple is its stand-in.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx
import pytest

from automock.running import Background
from autopush.tests.e2e.clients import JSON, PATIENCE, Subscription, push
from autopush.tests.e2e.harness import Server

TOKEN = "0123456789abcdef" * 4
CHANNEL = "firefox"


@pytest.fixture(scope="module")
def mock() -> Iterator[Background]:
    with Background("apns") as running:
        yield running


@pytest.fixture
def apns(mock: Background) -> Iterator[Any]:
    yield mock["apns"]
    mock["apns"].reset()


def credentials(mock: Background) -> str:
    """The option for a service that waits for Apple as long as tests wait: the usual ten seconds
    may be over before a busy machine has answered."""
    channels = json.loads(mock.automock.options()["apns_creds"])
    return json.dumps({name: {**one, "timeout": PATIENCE} for name, one in channels.items()})


@pytest.fixture(scope="module")
def phones(mock: Background, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service with APNs switched on, and metrics on."""
    creds = credentials(mock)
    options = ("--apns_creds", creds, "--statsd_host", "127.0.0.1", "--log_level", "debug")
    with Server(tmp_path_factory.mktemp("phones"), *options) as server:
        yield server
        assert server.alive, server.output


class Phone:
    """An app on a phone."""

    def __init__(self, server: Server, channel: str = CHANNEL, token: str = TOKEN) -> None:
        self.client = httpx.Client(base_url=server.endpoint_url, trust_env=False)
        self.path = f"/v1/apns/{channel}/registration"
        answer = self.client.post(self.path, json={"token": token})
        assert answer.status_code == 200, answer.text
        self.registered = answer.json()
        self.auth = {"Authorization": f"bearer {self.registered['secret']}"}
        self.subscription = Subscription(self.registered["channelID"], self.registered["endpoint"])

    def known(self) -> bool:
        """Whether the service still knows it."""
        answer = self.client.get(f"{self.path}/{self.registered['uaid']}", headers=self.auth)
        return answer.status_code == 200


def frame(payload: Mapping[str, Any]) -> JSON:
    """The app's extension puts the members back under their names."""
    names = {
        "con": "encoding",
        "enc": "encryption",
        "cryptokey": "crypto_key",
        "enckey": "encryption_key",
    }
    headers = {names[name]: payload[name] for name in names if name in payload}
    return {"data": payload["body"], "headers": headers}


@pytest.mark.parametrize("encoding", ["aes128gcm", "aesgcm", "aesgcm128"])
def test_from_registration_to_payload(phones: Server, apns: Any, encoding: str) -> None:
    phone = Phone(phones)
    assert set(phone.registered) == {"uaid", "secret", "endpoint", "channelID"}
    text = os.urandom(500)
    answer = push(phone.subscription, text, ttl=300, encoding=encoding)
    assert (answer.status_code, answer.headers["TTL"]) == (201, "300")
    (request,) = apns.script.requests
    assert request["path"] == f"/3/device/{TOKEN}"
    assert request["reason"] is None
    payload = request["payload"]
    assert payload["chid"] == phone.registered["channelID"]
    assert answer.headers["Location"].endswith(f"/m/{payload['ver']}")
    assert phone.subscription.decrypt(frame(payload)) == text


def test_token_authentication(phones: Server, apns: Any) -> None:
    phone = Phone(phones, "token")
    assert push(phone.subscription, b"x").status_code == 201
    (request,) = apns.script.requests
    assert request["headers"]["apns-topic"] == "com.mozilla.org.token"
    assert request["certificate"] is False


def test_aps_of_the_registration(phones: Server, apns: Any) -> None:
    with httpx.Client(base_url=phones.endpoint_url, trust_env=False) as client:
        body = {"token": TOKEN, "aps": {"content-available": 1, "custom": [1.5, None]}}
        registered = client.post(f"/v1/apns/{CHANNEL}/registration", json=body).json()
        assert client.post(registered["endpoint"], headers={"TTL": "0"}).status_code == 201
    (request,) = apns.script.requests
    assert request["payload"]["aps"] == body["aps"]
    assert request["headers"]["apns-expiration"] == "0"


def test_unknown_channel(phones: Server) -> None:
    with httpx.Client(base_url=phones.endpoint_url, trust_env=False) as client:
        answer = client.post("/v1/apns/unknown/registration", json={"token": TOKEN})
    assert answer.status_code == 400
    message = "Request did not validate Unknown release channel specified"
    assert (answer.json()["message"], answer.json()["errno"]) == (message, None)


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 410, "reason": "Unregistered"},
        {"status": 404, "reason": "Unregistered"},
        {"status": 400, "reason": "BadDeviceToken"},
    ],
)
def test_a_device_that_is_gone_is_dropped(
    phones: Server, apns: Any, answer: Mapping[str, Any]
) -> None:
    """spec/http-endpoint Q3, B1: also with a real metrics client."""
    phone = Phone(phones)
    apns.script.add(answer)
    refused = push_raw(phone)
    status = answer["status"] if answer["status"] in (404, 410) else 410
    assert (refused.status_code, refused.json()["errno"]) == (status, 106)
    assert refused.json()["message"] == "User is no longer registered"
    assert not phone.known()
    assert push_raw(phone).status_code == 410  # for good, without asking Apple
    assert len(apns.script.requests) == 1


def push_raw(phone: Phone) -> httpx.Response:
    return phone.client.post(
        phone.registered["endpoint"], headers={"TTL": "60"}, timeout=2 * PATIENCE
    )


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 500, "reason": "InternalServerError"},
        {"status": 503, "reason": "ServiceUnavailable"},
        {"status": 429, "reason": "TooManyRequests"},
        {"status": 404, "reason": "BadPath"},
        {"status": 410, "body": "<html>proxy</html>"},
        {"action": "reset", "times": 2},
        {"action": "rst_stream", "code": "INTERNAL_ERROR", "times": 2},
        {"action": "garbage", "times": 2},
        {"action": "close_mid_body", "times": 2},
    ],
    ids=lambda answer: json.dumps(answer)[:60],
)
def test_a_transient_error_drops_nobody(
    phones: Server, apns: Any, answer: Mapping[str, Any]
) -> None:
    phone = Phone(phones)
    apns.script.add(answer)
    refused = push_raw(phone)
    assert refused.status_code == 502
    assert refused.json()["message"] == "APNS returned an error processing request"
    assert refused.json()["errno"] == 999
    assert phone.known()
    assert push_raw(phone).status_code == 201


def test_a_slow_vendor_delays_no_other_route(phones: Server, apns: Any) -> None:
    """50 messages wait for Apple; meanwhile everything else is answered."""

    phone = Phone(phones)
    apns.script.add({"held": True, "times": 50})

    async def run() -> None:
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(
            trust_env=False, timeout=2 * PATIENCE, limits=limits
        ) as client:

            def send() -> Any:
                return client.post(phone.registered["endpoint"], headers={"TTL": "60"})

            slow = [asyncio.ensure_future(send()) for _ in range(50)]
            while len(apns.script.requests) < 50:
                await asyncio.sleep(0.02)
            for _ in range(20):
                answer = await client.get(f"{phones.endpoint_url}/health")
                assert answer.status_code == 200
            assert not any(task.done() for task in slow)
            apns.script.release()
            answers = await asyncio.gather(*slow)
            assert [answer.status_code for answer in answers] == [201] * 50

    asyncio.run(run())


def test_nothing_of_tokens_or_keys_is_logged(
    mock: Background, make_server: Callable[..., Server]
) -> None:
    apns = mock["apns"]
    creds = credentials(mock)
    server = make_server("--apns_creds", creds, "--log_level", "debug").start()
    phone = Phone(server, "token")
    for answer in (
        {},
        {"status": 400, "reason": "BadTopic"},
        {"action": "reset", "times": 2},
        {"status": 410, "reason": "Unregistered"},
    ):
        if answer:
            apns.script.add(answer)
        push_raw(phone)
    authorization = apns.script.requests[0]["headers"]["authorization"].removeprefix("bearer ")
    apns.reset()
    assert server.stop() == 0
    assert "APNS Transmit Error 400:BadTopic" in server.output
    for secret in (TOKEN, authorization, authorization.rpartition(".")[2]):
        assert secret not in server.output
    key = apns.p8_file.read_text().splitlines()[1]
    assert key not in server.output


@pytest.mark.parametrize(
    ("creds", "text"),
    [
        ("{", "Invalid JSON specified for APNS config options"),
        ('{"firefox": 1}', "Invalid JSON specified for APNS config options"),
        ('{"firefox": {"cert": "/nonexistent.pem"}}', "Can't read /nonexistent.pem"),
        ('{"firefox": {"port": 0}}', "Invalid port of APNS channel firefox"),
    ],
)
def test_bad_credentials_end_the_start(
    make_server: Callable[..., Server], creds: str, text: str
) -> None:
    server = make_server("--apns_creds", creds)
    server.spawn()
    assert server.wait() == 1
    assert text in server.output
    assert "Traceback" not in server.output
