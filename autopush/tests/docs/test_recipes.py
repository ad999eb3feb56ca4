"""What the manual tells those who try things out works: docs/test.rst, docs/cluster.rst."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from cryptography.fernet import Fernet

from autopush.tests.docs.support import pages
from autopush.tests.e2e.harness import Server, environment, eventually, free_port


def subscribe(server: Server) -> str:
    """An endpoint nobody listens to."""
    url = f"{server.endpoint_url}/v1/webpush/test/registration"
    endpoint = requests.post(url, json={}, timeout=60).json()["endpoint"]
    assert isinstance(endpoint, str)
    return endpoint


def push(endpoint: str, body: bytes = b"x") -> requests.Response:
    headers = {"TTL": "60", "Content-Encoding": "aes128gcm"}
    return requests.post(endpoint, body, headers=headers, timeout=60)


@pytest.mark.parametrize(
    ("options", "errno"),
    [
        (("--rate_subscription", "1", "--burst_subscription", "1"), 204),
        (("--max_stored", "4"), 203),
    ],
)
def test_too_much(tmp_path: Path, options: tuple[str, ...], errno: int) -> None:
    for name, value in zip(options[::2], options[1::2], strict=True):
        assert f"{name}>` {value}" in " ".join(pages()["test"].split())
    with Server(tmp_path, *options) as server:
        endpoint = subscribe(server)
        assert push(endpoint).status_code == 201
        answer = push(endpoint)
        assert (answer.status_code, answer.json()["errno"]) == (429, errno)
        assert int(answer.headers["Retry-After"]) > 0


def test_endpoints_are_good_again_after_a_restart(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        endpoint = subscribe(server)
        server.stop()
        server.start()
        assert push(endpoint).status_code == 201
        too_long = push(endpoint, bytes(4097))
        assert (too_long.status_code, too_long.json()["errno"]) == (413, 104)
        unknown = push(f"{server.endpoint_url}/wpush/v1/anything")
        assert (unknown.status_code, unknown.json()["errno"]) == (404, 102)


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_dynamodb_on_this_machine(tmp_path: Path) -> None:
    """moto, as the page on clusters starts it, is one a node can work with."""
    text = pages()["cluster"]
    assert "``.venv-test/bin/moto_server -p 8000``" in text
    assert "``export AWS_LOCAL_DYNAMODB=http://127.0.0.1:8000``" in text
    port = free_port()
    command = [str(Path(sys.executable).parent / "moto_server"), "-p", str(port)]
    env = {"CRYPTO_KEY": Fernet.generate_key().decode(), "STATSD_HOST": "", "NO_AWS": "true"}
    env |= {"AWS_LOCAL_DYNAMODB": f"http://127.0.0.1:{port}", "ENDPOINT_HOSTNAME": "localhost"}
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as server:
        try:
            eventually(lambda: listens(port))
            code = "from autopush.__main__ import endpoint; endpoint()"
            done = subprocess.run(
                [sys.executable, "-c", code, "--check"],
                env=environment(tmp_path, env),
                capture_output=True,
                text=True,
                timeout=300,
            )
        finally:
            server.terminate()
    assert f"ok    store: DynamoDB at http://127.0.0.1:{port}" in done.stdout
    assert "FAIL  store" not in done.stdout
