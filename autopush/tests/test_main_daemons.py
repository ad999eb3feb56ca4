"""The two nodes as processes of their own, on one SQLite file: spec/python-api 2.13."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time

import httpx
import pytest
from cryptography.fernet import Fernet
from websockets.sync.client import connect

from autopush.tests.e2e.harness import environment, free_port

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
        end = time.monotonic() + 30
        while True:
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(url)
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < end
            time.sleep(0.05)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        output = self.process.communicate(timeout=30)[0]
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

    with connect(f"ws://127.0.0.1:{public}/") as browser:
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


def test_configuration_errors_are_one_critical_log_line(start):
    node = start("EndpointApplication", "--apns_creds", "{", "--human_logs")
    output = node.process.communicate(timeout=30)[0]
    assert node.process.returncode == 1
    (line,) = output.splitlines()
    assert line.endswith("[autopush.main#critical] Invalid JSON specified for APNS config options")


def test_bad_log_level_is_a_configuration_error(start):
    node = start("ConnectionApplication", "--log_level", "loud", "--human_logs")
    output = node.process.communicate(timeout=30)[0]
    assert node.process.returncode == 1
    assert "Invalid log_level: 'loud'" in output
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
    output = second.process.communicate(timeout=30)[0]
    assert second.process.returncode == 1
    assert "Address already in use" in output
    assert "Traceback" not in output
