"""An endpoint node as a process, with all bridges, each to its stand-in."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import http_ece
import httpx
from cryptography.hazmat.primitives.asymmetric import ec

from automock.running import Background
from autopush.tests.daemons import daemons
from autopush.tests.e2e.clients import Subscription, b64decode
from autopush.tests.e2e.harness import free_port

AUTH_KEY = "a-key-of-registration-secrets"
JSON = dict[str, Any]


class Statsd:
    """A statsd server that keeps what it gets."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.lines: list[str] = []
        threading.Thread(target=self._receive, daemon=True).start()

    def _receive(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.lines += self._socket.recv(65536).decode().splitlines()

    def close(self) -> None:
        self._socket.close()


class Bridge(NamedTuple):
    """How to register a device and find its message again.

    :ivar stand_in: name in automock
    :ivar router_type: in the path
    :ivar app_id: in the path
    :ivar token: of a device, from a letter
    :ivar data: the payload of a request the stand-in saw
    :ivar device: the device's token in that request
    :ivar gone: script that says the device is gone, and the answer for the sender
    :ivar moved: script that gives the device a new token, and the answer
    """

    stand_in: str
    router_type: str
    app_id: str
    token: Callable[[str], str]
    data: Callable[[JSON], JSON]
    device: Callable[[JSON], str]
    gone: tuple[JSON, int, int]
    moved: tuple[Callable[[str], JSON], int] | None = None
    version: int = 1


def _adm_token(letter: str) -> str:
    return "amzn1.adm-registration.v3." + letter * 256


BRIDGES: dict[str, Bridge] = {
    "fcm": Bridge(
        "fcm",
        "fcm",
        "fcmapp",
        lambda letter: letter * 100,
        lambda seen: seen["payload"]["message"]["android"]["data"],
        lambda seen: seen["payload"]["message"]["token"],
        ({"error": "UNREGISTERED"}, 404, 106),
    ),
    "fcm_legacy": Bridge(
        "fcm_legacy",
        "fcm",
        "fcmapp",
        lambda letter: letter * 100,
        lambda seen: seen["payload"]["data"],
        lambda seen: seen["payload"]["to"],
        ({"error": "NotRegistered"}, 410, 103),
        (lambda new: {"registration_id": new}, 503),
        version=0,
    ),
    "gcm": Bridge(
        "gcm",
        "gcm",
        "12345",
        lambda letter: letter * 100,
        lambda seen: seen["payload"]["data"],
        lambda seen: seen["payload"]["registration_ids"][0],
        ({"error": "NotRegistered"}, 410, 999),
        (lambda new: {"registration_id": new}, 503),
    ),
    "adm": Bridge(
        "adm",
        "adm",
        "admprofile",
        _adm_token,
        lambda seen: seen["payload"]["data"],
        lambda seen: seen["path"].split("/")[3],
        ({"reason": "Unregistered"}, 410, 106),
        (lambda new: {"registrationID": new}, 201),
    ),
    "apns": Bridge(
        "apns",
        "apns",
        "firefox",
        lambda letter: letter * 64,
        lambda seen: seen["payload"],
        lambda seen: seen["path"].split("/")[3],
        ({"status": 410, "reason": "Unregistered"}, 410, 106),
    ),
}


WAITS = 600
"""Seconds that are enough for anything, on any machine."""

VENDORS_WITHIN = "import autopush.constants as c; c.DEFAULT_ROUTER_TIMEOUT = 10.0"
"""Gives vendors more than the three seconds they have in earnest: ours share a busy machine with
the node. Tests of vendors that hang wait for it."""

PATIENT = BRIDGES["adm"]._replace(app_id="patient")
"""A profile whose router waits so long for the vendor's answers."""


def without_ca_files(options: dict[str, str]) -> dict[str, str]:
    """Leave whom to trust to the environment."""
    shorter = {}
    for name, text in options.items():
        creds = json.loads(text) if text.startswith("{") else {}
        for account in creds.values():
            account.pop("ca_file", None)
        shorter[name] = json.dumps(creds) if creds else text
    return shorter


class Node:
    """The process, its stand-ins and its statsd server.

    :param env: its environment; with one, no bridge has a ``ca_file``
    :param versions: of FCM; there is a process for each
    """

    def __init__(
        self,
        home: Path,
        mock: Background,
        statsd: Statsd,
        make: Any,
        env: Mapping[str, str] | None = None,
        versions: tuple[int, ...] = (0, 1),
    ) -> None:
        self.mock = mock
        self.statsd = statsd
        self.daemons = {}
        self.urls = {}
        for version in versions:
            directory = home / f"fcm{version}"
            directory.mkdir()
            port = free_port()
            self.urls[version] = f"http://127.0.0.1:{port}"
            options = self._options(directory, version, port)
            if env is not None:
                options = without_ca_files(options)
            args = ["--no_aws", *(f"--{name}={value}" for name, value in options.items())]
            daemon = make(directory, "autoendpoint", *args, env=env, before=VENDORS_WITHIN)
            self.daemons[version] = daemon.listens(port)

    def _options(self, directory: Path, version: int, port: int) -> dict[str, str]:
        options = self.mock.automock.options()
        if version == 0:
            options |= {
                name: str(value) if name == "fcm_version" else json.dumps(value)
                for name, value in self.mock["fcm_legacy"].options().items()
            }
        profiles = json.loads(str(options["adm_creds"]))
        profiles[PATIENT.app_id] = {**profiles["admprofile"], "timeout": WAITS}
        options |= {
            "adm_creds": json.dumps(profiles),
            "port": str(port),
            "endpoint_port": str(port),
            "endpoint_hostname": "127.0.0.1",
            "db_dsn": f"sqlite://{directory / 'db.sqlite3'}",
            "auth_key": AUTH_KEY,
            "statsd_host": "127.0.0.1",
            "statsd_port": str(self.statsd.port),
            "log_level": "debug",
        }
        return options

    def stand_in(self, bridge: Bridge) -> Any:
        return self.mock[bridge.stand_in]

    def register(self, bridge: Bridge, letter: str = "a", **body: Any) -> Device:
        """Register a device."""
        base = f"{self.urls[bridge.version]}/v1/{bridge.router_type}/{bridge.app_id}/registration"
        answer = httpx.post(base, json={"token": bridge.token(letter), **body})
        assert answer.status_code == 200, answer.text
        return Device(self, bridge, base, answer.json())


class Device:
    """A registered device, with the keys of one subscription."""

    def __init__(self, node: Node, bridge: Bridge, base: str, answer: JSON) -> None:
        self.node = node
        self.bridge = bridge
        self.answer = answer
        self.url = f"{base}/{answer['uaid']}"
        self.auth = {"Authorization": f"webpush {answer['secret']}"}
        self.subscription = Subscription(answer["channelID"], answer["endpoint"])

    def script(self, content: JSON) -> None:
        """Set the next answer of the bridge."""
        self.node.stand_in(self.bridge).script.add(content)

    def seen(self) -> list[JSON]:
        """The messages the bridge got for our channel."""
        stand_in = self.node.stand_in(self.bridge)
        requests = getattr(stand_in, "messages", None) or list(stand_in.script.requests)
        found = [one for one in requests if "token" not in one["path"].split("/")[-1]]
        channel = self.subscription.channel
        return [one for one in found if self.bridge.data(one)["chid"] == channel]

    def decrypt(self, data: JSON) -> bytes:
        """Decrypt a message as an application does."""
        encoding = data["con"]
        given: JSON = {"auth_secret": self.subscription.auth}
        if encoding != "aes128gcm":
            given["salt"] = _parameter("salt", data["enc"])
            given["dh"] = _parameter("dh", data.get("cryptokey") or data["enckey"])
        if encoding == "aesgcm128":
            del given["auth_secret"]
        return http_ece.decrypt(
            b64decode(data["body"]), private_key=self.private, version=encoding, **given
        )

    @property
    def private(self) -> ec.EllipticCurvePrivateKey:
        return self.subscription.private

    def get(self) -> httpx.Response:
        """Ask for the channels."""
        return httpx.get(self.url, headers=self.auth)

    def post(self, body: bytes = b"", **headers: str) -> httpx.Response:
        """Send a message without encrypting it."""
        given = {"TTL": "60", **headers}
        if body:
            given["Content-Encoding"] = "aes128gcm"
        return httpx.post(self.subscription.endpoint, content=body, headers=given)


def _parameter(name: str, header: str) -> bytes:
    found = re.search(rf"(?:^|[;,])\s*{name}=\"?([A-Za-z0-9_-]+)", header)
    assert found, (name, header)
    return b64decode(found[1])


@contextlib.contextmanager
def running_node(home: Path) -> Iterator[Node]:
    """Start everything."""
    statsd = Statsd()
    with Background() as mock, daemons() as make:
        yield Node(home, mock, statsd, make)
    statsd.close()
