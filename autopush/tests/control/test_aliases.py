"""The calls of web-push-testing; autopush/tests/testing/test___main__.py does so with web-push."""

from __future__ import annotations

import requests
from pywebpush import webpush


def call(push, path, body=None):
    return requests.post(f"{push.control_url}{path}", json=body, timeout=60)


def test_its_calls(push):
    assert call(push, "/status").status_code == 200
    assert requests.get(f"{push.control_url}/status", timeout=60).status_code == 200
    subscription = call(push, "/subscribe", {"userVisibleOnly": True}).json()["data"]
    client = {"clientHash": subscription.pop("clientHash")}
    assert subscription.keys() == {"endpoint", "expirationTime", "keys"}
    webpush(subscription, "one", ttl=60)
    found = call(push, "/get-notifications", client)
    assert (found.status_code, found.json()) == (200, {"data": {"messages": ["one"]}})
    assert call(push, f"/expire-subscription/{client['clientHash']}").status_code == 200
    assert requests.post(subscription["endpoint"], timeout=60).status_code == 410


def test_each_subscription_has_its_own_messages(push):
    one, other = (call(push, "/subscribe", {}).json()["data"] for _ in range(2))
    webpush({name: one[name] for name in ("endpoint", "keys")}, "one", ttl=60)
    found = call(push, "/get-notifications", {"clientHash": other["clientHash"]})
    assert found.json() == {"data": {"messages": []}}


def test_nobodys(push):
    for path, body in (
        ("/get-notifications", {"clientHash": "x"}),
        ("/expire-subscription/x", None),
    ):
        answer = call(push, path, body)
        assert answer.status_code == 400
        assert answer.json() == {"error": "there is no subscription x"}
