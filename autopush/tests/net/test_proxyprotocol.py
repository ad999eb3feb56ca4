"""The PROXY protocol listener behind a real HAProxy (spec/configuration 8).

These tests need haproxy (Debian: ``apt-get install haproxy``; ``.ci/run`` does that). Headers made
by hand are in ``test_main.py``.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect

from autopush.tests.daemons import daemons
from autopush.tests.e2e.harness import eventually, free_port
from autopush.tests.tlsfiles import make_certificate

HAPROXY = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or ""
HELLO = json.dumps({"messageType": "hello", "use_webpush": True})

ROUTES = {
    # name: (options of the server line, TLS of our listener)
    "v1": ("send-proxy", False),
    "v2": ("send-proxy-v2", False),
    "v2-tlv": ("send-proxy-v2 proxy-v2-options unique-id,crc32c", False),
    "v1-tls": ("send-proxy", True),
    "v2-tls": ("send-proxy-v2", True),
}

pytestmark = pytest.mark.skipif(
    not HAPROXY, reason="haproxy is not installed (apt-get install haproxy)"
)


class Proxy:
    """HAProxy in front of a standalone service with TLS and of one without."""

    def __init__(self, home: Path, make) -> None:
        self.home = home
        self.key, self.cert, _ = make_certificate(home)
        pem = home / "both.pem"
        pem.write_text(Path(self.cert).read_text() + Path(self.key).read_text())
        self.inside = {False: free_port(), True: free_port()}
        self.servers = {}
        for tls, port in self.inside.items():
            place = home / f"tls-{tls}"
            place.mkdir()
            options = ["--port", str(free_port()), "--proxy_protocol_port", str(port)]
            if tls:
                options += ["--ssl_key", self.key, "--ssl_cert", self.cert]
            self.servers[tls] = make(place, "autopush_standalone", *options).listens(port)
        self.outside = {name: free_port() for name in (*ROUTES, "ends-tls", "ipv6", "checked")}
        config = home / "haproxy.cfg"
        config.write_text(self.config(pem))
        self.process = subprocess.Popen([HAPROXY, "-db", "-f", str(config)], cwd=home)
        for name, port in self.outside.items():
            eventually(functools.partial(self.is_open, name, port))

    def is_open(self, name, port):
        assert self.process.poll() is None
        try:
            socket.create_connection(("::1" if name == "ipv6" else "127.0.0.1", port)).close()
        except OSError:
            return False
        return True

    def config(self, pem):
        lines = ["defaults", "  mode tcp", "  timeout connect 60s", "  timeout check 60s"]
        lines += ["  timeout client 60s", "  timeout server 60s"]

        def listen(name, server, tls, bind="", address="127.0.0.1", extra=()):
            lines.extend(
                [
                    f"listen {name}",
                    f"  bind {address}:{self.outside[name]} {bind}",
                    *extra,
                    f"  server s 127.0.0.1:{self.inside[tls]} {server}",
                ]
            )

        for name, (server, tls) in ROUTES.items():
            listen(name, server, tls, extra=["  unique-id-format %ci:%cp"])
        listen(
            "ends-tls",
            "send-proxy-v2-ssl-cn",
            False,
            f"ssl crt {pem}",
            extra=["  mode http", "  option http-keep-alive"],
        )
        listen("ipv6", "send-proxy-v2", False, address="[::1]")
        listen("checked", "send-proxy-v2 check inter 100", False)
        return "\n".join([*lines, ""])

    def context(self, name):
        """TLS context for the way in; None: plain."""
        if not (name.endswith("-tls")):
            return None
        return ssl.create_default_context(cafile=self.cert)

    def get(self, name, path, address="127.0.0.2"):
        context = self.context(name)
        host = "[::1]" if name == "ipv6" else "localhost" if context else "127.0.0.1"
        url = f"{'https' if context else 'http'}://{host}:{self.outside[name]}{path}"
        transport = httpx.HTTPTransport(verify=context or True, local_address=address)
        with httpx.Client(transport=transport) as client:
            return client.get(url)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory):
    with daemons() as make:
        proxy = Proxy(tmp_path_factory.mktemp("proxy"), make)
        try:
            yield proxy
        finally:
            proxy.process.terminate()
            proxy.process.wait(30)
        for server in proxy.servers.values():
            assert "Traceback" not in server.output
            assert server.stop() == 0


def addresses(proxy, tls=False):
    return [event.get("remote_ip") for event in proxy.servers[tls].events]


@pytest.mark.parametrize("name", [*ROUTES, "ends-tls"])
def test_requests_pass_and_logs_have_the_clients_address(proxy, name):
    tls = ROUTES.get(name, ("", False))[1]
    address = f"127.0.0.{10 + list(proxy.outside).index(name)}"
    assert proxy.get(name, "/status", address).json()["status"] == "OK"
    assert proxy.get(name, "/v1/err/error", address).status_code == 418
    eventually(lambda: address in addresses(proxy, tls))


def test_an_ipv6_client(proxy):
    assert proxy.get("ipv6", "/v1/err/error", "::1").status_code == 418
    eventually(lambda: "::1" in addresses(proxy) or "0:0:0:0:0:0:0:1" in addresses(proxy))


def test_x_forwarded_for_wins(proxy):
    url = f"http://127.0.0.1:{proxy.outside['v2']}/v1/err/error"
    httpx.get(url, headers={"X-Forwarded-For": "203.0.113.5"}, trust_env=False)
    eventually(lambda: "203.0.113.5" in addresses(proxy))


@pytest.mark.parametrize("name", [*ROUTES, "ends-tls"])
def test_a_websocket_passes(proxy, name):
    async def run():
        context = proxy.context(name)
        url = f"{'wss' if context else 'ws'}://localhost:{proxy.outside[name]}/"
        async with connect(url, ssl=context, host="127.0.0.1") as browser:
            await browser.send(HELLO)
            assert json.loads(await browser.recv())["status"] == 200

    asyncio.run(run())


def test_health_checks_of_haproxy_itself_carry_no_address(proxy):
    """They are LOCAL connections: our own end's address counts."""
    assert proxy.get("checked", "/status").status_code == 200
    assert "Traceback" not in proxy.servers[False].output


def test_the_listener_refuses_connections_without_a_header(proxy):
    for port in proxy.inside.values():
        with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
            sock.sendall(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n")
            try:
                assert sock.recv(100) == b""
            except ConnectionResetError:
                pass


def test_tls_is_not_spoken_before_the_header(proxy):
    context = ssl.create_default_context(cafile=proxy.cert)
    with (
        socket.create_connection(("127.0.0.1", proxy.inside[True]), timeout=60) as sock,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        context.wrap_socket(sock, server_hostname="localhost")
