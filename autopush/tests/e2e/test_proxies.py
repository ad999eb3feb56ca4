"""The manual's reverse proxies, run with the real programs.

Each test needs its program (Debian: nginx-light, caddy, haproxy; ``.ci/run`` installs them).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, WebSocketException

from autopush.tests.docs.support import blocks
from autopush.tests.docs.test_readme import block
from autopush.tests.e2e.clients import BlockingClient
from autopush.tests.e2e.harness import START_WITHIN, STOP_WITHIN, Server, eventually, free_port
from autopush.tests.tlsfiles import make_certificate

NAME = "push.example.org"
CHANNEL = "11111111-2222-4333-8444-555555555555"
UPSTREAM = "127.0.0.1:8080"

NGINX = """
daemon off;
pid {home}/nginx.pid;
error_log {home}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    {example}
}}
"""
CADDY = """
{{
    admin off
    auto_https off
    storage file_system {home}
}}
{example}
"""


@dataclass(frozen=True)
class Kind:
    """A program, and how the manual's example becomes one that runs here.

    :ivar language: of its example in the manual
    :ivar around: what else has to be in the file; ``{home}`` and ``{example}`` are filled in
    :ivar changes: what of the example is replaced: addresses and files, nothing else
    :ivar patience: the line of the example that lets WebSockets be silent, and the same with little
        patience; None: there is none
    :ivar impatient: other time-outs of the example, which mustn't matter
    """

    program: str
    language: str
    command: tuple[str, ...]
    around: str
    changes: dict[str, str]
    patience: tuple[str, str] | None = None
    impatient: dict[str, str] = field(default_factory=dict)


KINDS = [
    Kind(
        "nginx",
        "nginx",
        ("-p", "{home}", "-c", "{file}"),
        NGINX,
        {
            "listen 443 ssl;": "listen 127.0.0.1:{port} ssl;",
            f"/etc/ssl/{NAME}.crt": "{certificate}",
            f"/etc/ssl/{NAME}.key": "{key}",
        },
        ("proxy_read_timeout 1h;", "proxy_read_timeout 3s;"),
    ),
    Kind(
        "caddy",
        "caddyfile",
        ("run", "--adapter", "caddyfile", "--config", "{file}"),
        CADDY,
        {f"{NAME} {{": f"{NAME}:{{port}} {{\nbind 127.0.0.1\ntls {{certificate}} {{key}}"},
    ),
    Kind(
        "haproxy",
        "text",
        ("-db", "-f", "{file}"),
        "{example}",
        {
            "bind :443": "bind 127.0.0.1:{port}",
            f"/etc/haproxy/{NAME}.pem": "{both}",
        },
        ("timeout tunnel 1h", "timeout tunnel 3s"),
        {"timeout client 1m": "timeout client 3s", "timeout server 1m": "timeout server 3s"},
    ),
]


def program(name: str) -> str:
    """Where a program is; skips the test if it is nowhere."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed (.ci/run does it)")
    return found


def example(kind: Kind) -> str:
    """The manual's configuration for a program."""
    (found,) = blocks(f"code-block:: {kind.language}", "reverse-proxy")
    return found.text


def replaced(text: str, changes: dict[str, str]) -> str:
    """Each of the changes made once."""
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


class Proxy:
    """The program with the manual's configuration, in front of a service.

    :ivar port: where it listens
    :ivar context: for clients that shall trust its certificate
    """

    def __init__(self, kind: Kind, home: Path, port: int, service_port: int, **others: str) -> None:
        self.port = port
        key, certificate, _ = make_certificate(home, NAME)
        both = home / "both.pem"
        both.write_text(Path(certificate).read_text() + Path(key).read_text())
        self.context = ssl.create_default_context(cafile=certificate)
        values = {"home": home, "port": port, "key": key, "certificate": certificate, "both": both}
        changes = {old: _filled(new, values) for old, new in kind.changes.items()}
        text = replaced(example(kind), {UPSTREAM: f"127.0.0.1:{service_port}", **changes, **others})
        file = home / "proxy.conf"
        file.write_text(kind.around.format(home=home, example=text))
        words = [_filled(word, {"home": home, "file": file}) for word in kind.command]
        environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(home)}
        self.process = subprocess.Popen(
            [program(kind.program), *words], env=environment, stderr=subprocess.PIPE
        )

    def __enter__(self) -> Proxy:
        end = time.monotonic() + START_WITHIN
        while time.monotonic() < end:
            assert self.process.poll() is None, self.process.communicate()[1]
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return self
            except ConnectionRefusedError:
                time.sleep(0.05)
        raise AssertionError("it doesn't listen")

    def __exit__(self, *exc: object) -> None:
        self.process.terminate()
        self.process.communicate(timeout=STOP_WITHIN)

    @property
    def origin(self) -> str:
        """What the world calls it."""
        return f"https://{NAME}:{self.port}"

    def browser(self) -> BlockingClient:
        """A WebSocket through it."""
        sock = socket.create_connection(("127.0.0.1", self.port))
        return BlockingClient(f"wss://{NAME}:{self.port}/", sock=sock, ssl=self.context)

    def sender(self, address: str = "127.0.0.1") -> httpx.Client:
        """An application server, whose connections come from an address."""
        return httpx.Client(transport=Loopback(verify=self.context, local_address=address))


def _filled(text: str, values: dict[str, object]) -> str:
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", str(value))
    return text


class Loopback(httpx.HTTPTransport):
    """Connects to loopback whatever the URL's host is, which stays in Host and TLS."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions["sni_hostname"] = NAME
        request.url = request.url.copy_with(host="127.0.0.1")
        return super().handle_request(request)


def named(kind: Kind) -> str:
    """What the tests of a program are called."""
    return kind.program


@pytest.fixture(scope="module", params=KINDS, ids=named)
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Proxy]]:
    """A service behind each of the proxies."""
    kind: Kind = request.param
    program(kind.program)
    port = free_port()
    url = f"https://{NAME}:{port}"
    with (
        Server(tmp_path_factory.mktemp("service"), "--public_url", url) as server,
        Proxy(kind, tmp_path_factory.mktemp("proxy"), port, server.port) as proxy,
    ):
        yield server, proxy


def hello(browser: BlockingClient) -> None:
    """Become a user agent."""
    browser.send(json.dumps({"messageType": "hello", "use_webpush": True}))
    assert json.loads(browser.recv())["status"] == 200


def subscribe(browser: BlockingClient) -> str:
    """Say hello and subscribe; returns the endpoint."""
    hello(browser)
    browser.send(json.dumps({"messageType": "register", "channelID": CHANNEL}))
    endpoint = json.loads(browser.recv())["pushEndpoint"]
    assert isinstance(endpoint, str)
    return endpoint


def test_websocket_and_message(running: tuple[Server, Proxy]) -> None:
    _, proxy = running
    with proxy.browser() as browser, proxy.sender() as sender:
        endpoint = subscribe(browser)
        assert endpoint.startswith(f"{proxy.origin}/wpush/v1/")
        answer = sender.post(endpoint, headers={"TTL": "60"})
        assert answer.status_code == 201
        assert answer.headers["location"].startswith(f"{proxy.origin}/m/")
        message = json.loads(browser.recv())
        assert (message["messageType"], message["channelID"]) == ("notification", CHANNEL)
        browser.ping()


def test_largest_message_and_long_headers(running: tuple[Server, Proxy]) -> None:
    _, proxy = running
    with proxy.browser() as browser, proxy.sender() as sender:
        endpoint = subscribe(browser)
        headers = {"TTL": "60", "Content-Encoding": "aes128gcm", "X-Long": "x" * 7000}
        answer = sender.post(endpoint, content=bytes(4096), headers=headers)
        assert answer.status_code == 201
        assert len(json.loads(browser.recv())["data"]) == 5462


def test_errors_come_from_the_service(running: tuple[Server, Proxy]) -> None:
    _, proxy = running
    with proxy.sender() as sender:
        answer = sender.post(f"{proxy.origin}/wpush/v1/nonsense", headers={"TTL": "60"})
        assert (answer.status_code, answer.json()["errno"]) == (404, 102)
        answer = sender.get(f"{proxy.origin}/health")
        assert (answer.status_code, answer.json()["status"]) == (200, "OK")


def test_addresses_are_forwarded_and_not_believed(running: tuple[Server, Proxy]) -> None:
    server, proxy = running
    with proxy.sender("127.0.0.2") as sender:
        lie = {"X-Forwarded-For": "192.0.2.1"}
        assert sender.get(f"{proxy.origin}/v1/err/crit", headers=lie).status_code == 418
    eventually(lambda: '"remote_ip":"127.0.0.2"' in server.output)
    assert "192.0.2.1" not in server.output


@contextmanager
def behind(kind: Kind, tmp_path: Path, changes: dict[str, str]) -> Iterator[BlockingClient]:
    """A user agent behind a proxy with other time-outs, however long its hello took."""
    program(kind.program)
    port = free_port()
    service, home = tmp_path / "service", tmp_path / "proxy"
    service.mkdir()
    home.mkdir()
    with (
        Server(service, "--public_url", f"https://{NAME}:{port}") as server,
        Proxy(kind, home, port, server.port, **changes) as proxy,
        ExitStack() as stack,
    ):
        found: list[BlockingClient] = []

        def connected() -> bool:
            with suppress(WebSocketException, OSError):
                browser = stack.enter_context(proxy.browser())
                hello(browser)
                found.append(browser)
            return bool(found)

        eventually(connected)
        yield found[0]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.patience], ids=named)
def test_how_long_a_user_agent_may_be_silent_is_said_there(kind: Kind, tmp_path: Path) -> None:
    """With another value in this line the proxy cuts idle WebSockets."""
    assert kind.patience is not None
    with (
        behind(kind, tmp_path, dict([kind.patience])) as browser,
        pytest.raises(ConnectionClosed),
    ):
        browser.recv()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.impatient], ids=named)
def test_other_time_outs_are_not_for_user_agents(kind: Kind, tmp_path: Path) -> None:
    with behind(kind, tmp_path, kind.impatient) as browser:
        with pytest.raises(TimeoutError):
            browser.recv(5)
        browser.ping()


def test_the_readme_has_the_same_example() -> None:
    (kind,) = [kind for kind in KINDS if kind.program == "caddy"]
    assert [line.strip() for line in block("caddyfile").splitlines()] == [
        line.strip() for line in example(kind).splitlines()
    ]
