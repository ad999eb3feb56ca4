"""The two nodes as processes of their own, on one SQLite file: spec/python-api 2.13."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest
from cryptography.fernet import Fernet
from websockets.sync.client import connect

from autopush.tests.e2e.clients import PATIENCE
from autopush.tests.e2e.harness import (
    START_WITHIN,
    STOP_WITHIN,
    environment,
    eventually,
    free_port,
)

CHANNEL = "11111111-2222-4333-8444-555555555555"


class Node:
    """One daemon."""

    def __init__(self, home, name, *options):
        script = f"import sys, autopush.main as m; sys.exit(m.{name}.main())"
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, "--no_aws", "--hostname", "127.0.0.1", *options],
            cwd=home,
            env=environment(home),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_for(self, url):
        end = time.monotonic() + START_WITHIN
        while True:
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(url)
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < end
            time.sleep(0.05)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        output = self.process.communicate(timeout=STOP_WITHIN)[0]
        return self.process.returncode, output


@pytest.fixture
def start(tmp_path):
    nodes = []

    def make(name, *options):
        nodes.append(Node(tmp_path, name, *options))
        return nodes[-1]

    yield make
    for node in nodes:
        if node.process.poll() is None:
            node.process.kill()
            node.process.communicate()


def test_message_from_one_node_to_the_other(start, tmp_path):
    public, internal, api = free_port(), free_port(), free_port()
    common = (
        *("--db_dsn", f"sqlite://{tmp_path}/db.sqlite3", "--endpoint_port", str(api)),
        *("--crypto_key", Fernet.generate_key().decode()),
    )
    connection = start(
        "ConnectionApplication", "--port", str(public), "--router_port", str(internal), *common
    )
    assert connection.wait_for(f"http://127.0.0.1:{public}/status").status_code == 200
    endpoint = start("EndpointApplication", "--port", str(api), "--auth_key", "k" * 20, *common)
    assert endpoint.wait_for(f"http://127.0.0.1:{api}/status").status_code == 200

    with connect(f"ws://127.0.0.1:{public}/", open_timeout=PATIENCE) as browser:
        browser.send(json.dumps({"messageType": "hello", "use_webpush": True}))
        assert json.loads(browser.recv())["status"] == 200
        browser.send(json.dumps({"messageType": "register", "channelID": CHANNEL}))
        url = json.loads(browser.recv())["pushEndpoint"]
        assert url.startswith(f"http://127.0.0.1:{api}/wpush/v1/")
        assert httpx.post(url, headers={"TTL": "60"}).status_code == 201
        message = json.loads(browser.recv())
        assert message["channelID"] == CHANNEL
        status, output = connection.stop()
        assert status == 0
    assert "Received SIGTERM, shutting down." in output
    # Not acknowledged, so it was saved; the node has gone, so the next one is stored as well.
    assert httpx.post(url, headers={"TTL": "60"}).status_code == 201
    status, output = endpoint.stop()
    assert status == 0
    assert "No auth_key" not in output
    assert "No crypto_key" not in output


def refuses(host, port):
    with pytest.raises(ConnectionRefusedError), socket.create_connection((host, port)):
        pass


def test_ports_are_bound_to_the_addresses_given(start, tmp_path):
    public, internal, api = free_port(), free_port("127.0.0.2"), free_port()
    dsn = ("--db_dsn", f"sqlite://{tmp_path}/db.sqlite3")
    node = start(
        "ConnectionApplication",
        *("--host", "127.0.0.1", "--port", str(public)),
        *("--router_host", "127.0.0.2", "--router_port", str(internal)),
        *dsn,
    )
    assert node.wait_for(f"http://127.0.0.1:{public}/status").status_code == 200
    assert node.wait_for(f"http://127.0.0.2:{internal}/status").status_code == 200
    refuses("127.0.0.2", public)
    refuses("127.0.0.1", internal)
    endpoint = start("EndpointApplication", "--host", "127.0.0.2", "--port", str(api), *dsn)
    assert endpoint.wait_for(f"http://127.0.0.2:{api}/status").status_code == 200
    refuses("127.0.0.1", api)
    for one, lines in (
        (node, [f"127.0.0.1:{public} (port)", f"127.0.0.2:{internal} (router_port)"]),
        (endpoint, [f"127.0.0.2:{api} (port)"]),
    ):
        status, output = one.stop()
        assert status == 0
        for line in lines:
            assert f"Listening on {line}" in output


def test_public_port_is_a_unix_socket(start, tmp_path):
    path, internal = tmp_path / "socket", free_port()
    options = ("--host", f"unix:{path}", "--router_host", "127.0.0.1")
    node = start(
        "ConnectionApplication",
        *(*options, "--router_port", str(internal)),
        *("--db_dsn", f"sqlite://{tmp_path}/db.sqlite3"),
    )
    node.wait_for(f"http://127.0.0.1:{internal}/status")
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
        eventually(path.exists)
        assert client.get("http://localhost/status").status_code == 200
    status, output = node.stop()
    assert status == 0
    assert f"Listening on unix:{path} (port)" in output
    refused = start("ConnectionApplication", "--host", f"unix:{path}", "--human_logs")
    output = refused.process.communicate(timeout=START_WITHIN)[0]
    assert "host unix:<path> needs a router_host beside router_port" in output


HANDSHAKE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)


def status_of(port, *lines):
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall("\r\n".join((*lines, "Connection: close", "", "")).encode())
        return sock.makefile("rb").readline().split()[1]


def test_missing_or_repeated_host_is_400_on_every_port(start, tmp_path):
    """RFC 9112 3.2; HTTP/1.0 has no Host."""
    public, internal, api = free_port(), free_port(), free_port()
    dsn = ("--db_dsn", f"sqlite://{tmp_path}/db.sqlite3")
    ports = ("--port", str(public), "--router_port", str(internal))
    start("ConnectionApplication", *ports, *dsn).wait_for(f"http://127.0.0.1:{public}/status")
    start("EndpointApplication", "--port", str(api), *dsn).wait_for(
        f"http://127.0.0.1:{api}/status"
    )
    for port in (public, internal, api):
        assert status_of(port, "GET /status HTTP/1.1", "Host: a") == b"200"
        assert status_of(port, "GET /status HTTP/1.0") == b"200"
        assert status_of(port, "GET /status HTTP/1.1") == b"400"
        assert status_of(port, "GET /status HTTP/1.1", "Host: a", "Host: a") == b"400"
    assert status_of(public, "GET / HTTP/1.1", "Host: a", *HANDSHAKE) == b"101"
    assert status_of(public, "GET / HTTP/1.1", *HANDSHAKE) == b"400"
    assert status_of(public, "GET / HTTP/1.1", "Host: a", "Host: b", *HANDSHAKE) == b"400"


def test_configuration_errors_are_one_critical_log_line(start):
    node = start("EndpointApplication", "--apns_creds", "{", "--human_logs")
    output = node.process.communicate(timeout=START_WITHIN)[0]
    assert node.process.returncode == 1
    (line,) = output.splitlines()
    assert line.endswith(
        "[autopush.main#critical] Invalid JSON specified for APNS config options"
        " (apns_creds, command line)"
    )


def test_bad_log_level_is_a_wrong_option(start):
    node = start("ConnectionApplication", "--log_level", "wran", "--human_logs")
    output = node.process.communicate(timeout=START_WITHIN)[0]
    assert node.process.returncode == 2
    assert "--log_level: 'wran' is none of debug, info, warn, error, critical" in output
    assert "Traceback" not in output


def test_daemons_warn_of_missing_keys(start, tmp_path):
    """Quirk C1, spec/http-endpoint Q17."""
    port = free_port()
    dsn = f"sqlite://{tmp_path}/db.sqlite3"
    node = start("EndpointApplication", "--port", str(port), "--db_dsn", dsn)
    node.wait_for(f"http://127.0.0.1:{port}/status")
    status, output = node.stop()
    assert status == 0
    assert "No crypto_key" in output
    assert "No auth_key" in output


def test_port_in_use_ends_the_start(start, tmp_path):
    port = free_port()
    options = ("--port", str(port), "--db_dsn", f"sqlite://{tmp_path}/db.sqlite3")
    start("EndpointApplication", *options).wait_for(f"http://127.0.0.1:{port}/status")
    second = start("EndpointApplication", *options)
    output = second.process.communicate(timeout=START_WITHIN)[0]
    assert second.process.returncode == 1
    assert "Address already in use" in output
    assert "Traceback" not in output
