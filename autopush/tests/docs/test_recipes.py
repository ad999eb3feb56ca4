"""What docs/test.rst tells those who test their own programs works."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests

from autopush.tests.docs.support import pages
from autopush.tests.e2e.harness import Server


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
