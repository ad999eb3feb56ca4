"""Who may come in, and how it is answered."""

from __future__ import annotations

import pytest
import requests


@pytest.fixture
def origin(push):
    """The control API without its token, and that."""
    return push.control_url.rsplit("/", 1)


def get(url, **headers):
    return requests.get(url, headers=headers, timeout=60)


def test_the_token_is_in_the_path_or_in_a_header(origin):
    url, token = origin
    assert get(f"{url}/{token}/clock").status_code == 200
    assert get(f"{url}/clock", Authorization=f"Bearer {token}").status_code == 200
    assert get(f"{url}/", Authorization=f"bearer  {token}").json()["url"]
    assert get(f"{url}/{token}").json()["url"]


def test_without_it_nothing_is_told(origin):
    url, token = origin
    attempts = [
        get(f"{url}/clock"),
        get(f"{url}/"),
        get(f"{url}/{token[:-1]}/clock"),
        get(f"{url}/{token}x/clock"),
        get(f"{url}/no/such/path"),
        get(f"{url}/clock", Authorization=f"Basic {token}"),
        get(f"{url}/clock", Authorization="Bearer"),
        get(f"{url}/openapi.json"),
        requests.post(f"{url}/reset", timeout=60),
    ]
    for answer in attempts:
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.json()["error"] == "the token is missing or wrong"


def test_what_is_not_there(push):
    answer = get(f"{push.control_url}/nowhere")
    assert answer.status_code == 404
    assert "/openapi.json" in answer.json()["error"]


def test_other_methods(push):
    answer = requests.delete(f"{push.control_url}/clock", timeout=60)
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "GET, POST"
    assert answer.json() == {"error": "Method Not Allowed"}


def test_refusals_say_why(push):
    answer = requests.post(f"{push.control_url}/clock", data="{", timeout=60)
    assert answer.status_code == 400
    assert answer.json() == {"error": "the body is not JSON"}
    answer = requests.post(f"{push.control_url}/clock", json={"advance": -1}, timeout=60)
    assert answer.json() == {"error": "advance must not be less than 0"}


def test_only_on_loopback(push):
    assert push.control_url.startswith("http://127.0.0.1:")
