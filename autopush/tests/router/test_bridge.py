"""What the bridges share (spec/bridges 9)."""

from __future__ import annotations

import uuid

import pytest

from autopush.config import AutopushConfig
from autopush.message.notification import WebPushNotification
from autopush.metrics import SinkMetrics
from autopush.router.bridge import (
    MAX_RETRY_AFTER,
    RETRY_AFTER,
    BridgeMetrics,
    accepted,
    busy,
    clamp_ttl,
    parse_retry_after,
    payload_members,
)
from autopush.tests.web.support import CHID, UAID, Metrics

NOW = 1_700_000_000
ALL = {
    "encoding": "aesgcm",
    "encryption": "salt=a",
    "crypto_key": "dh=b",
    "encryption_key": "dh=c",
}


def notification(**kwargs):
    return WebPushNotification(
        uaid=uuid.UUID(UAID), channel_id=uuid.UUID(CHID), ttl=60, message_id="id", **kwargs
    )


@pytest.mark.parametrize(
    ("ttl", "sent"),
    [(None, 60), (0, 60), (59, 60), (61, 61), (2419200, 2419200), (5184000, 2419200)],
)
def test_ttl_clamps(ttl, sent):
    assert clamp_ttl(ttl) == sent


def test_minimum_ttl_can_be_set():
    assert clamp_ttl(None, 0) == 0
    assert clamp_ttl(10, 100) == 100
    assert clamp_ttl(10**7, 60, 2678400) == 2678400


def test_member_names_without_data():
    assert payload_members(notification()) == {"chid": CHID.replace("-", "")}


def test_member_names_with_data():
    members = payload_members(notification(data="AAAA", headers=ALL))
    assert members == {
        "chid": CHID.replace("-", ""),
        "con": "aesgcm",
        "enc": "salt=a",
        "cryptokey": "dh=b",
        "body": "AAAA",
    }


def test_encryption_key_only_without_crypto_key():
    headers = {name: value for name, value in ALL.items() if name != "crypto_key"}
    members = payload_members(notification(data="AAAA", headers=headers))
    assert members["enckey"] == "dh=c"


def test_aes128gcm_needs_no_keys_but_some_bridges_send_them():
    headers = {**ALL, "encoding": "aes128gcm"}
    assert set(payload_members(notification(data="A", headers=headers))) == {"chid", "con", "body"}
    everything = payload_members(notification(data="A", headers=headers), self_contained=False)
    assert set(everything) == {"chid", "con", "body", "enc", "cryptokey"}


def test_accepted():
    conf = AutopushConfig(hostname="push.example", endpoint_port=8082)
    response = accepted(conf, notification(), 60)
    assert response.headers == {"TTL": "60", "Location": "http://push.example:8082/m/id"}
    assert (response.status_code, response.logged_status) == (201, 200)
    assert response.router_data is None


def test_busy_has_retry_after():
    exc = busy("text", "body", 5, errno=1)
    assert (exc.status_code, str(exc), exc.response_body, exc.errno) == (503, "text", "body", 1)
    assert exc.headers == {"Retry-After": "5"}
    assert busy("text", "body").headers == {"Retry-After": str(RETRY_AFTER)}


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("17", 17),
        (b"17", 17),
        (" 17 ", 17),
        ("0", 1),
        ("9" * 400, MAX_RETRY_AFTER),
        ("-5", None),
        ("1.5", None),
        ("١", None),
        ("soon", None),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60),
        ("Tue, 14 Nov 2023 22:00:00 GMT", 1),
        ("Tue, 99 Nov 2023 22:00:00 GMT", None),
    ],
)
def test_retry_after(value, seconds):
    assert parse_retry_after(value, NOW) == seconds


def test_metrics():
    metrics = Metrics()
    bridge = BridgeMetrics(metrics, "x")
    bridge.sent(notification(data="AAAA", headers=ALL), application="y")
    bridge.error("timeout", error=502, errno=903)
    assert metrics.calls == [
        ("notification.bridge.sent", 1, ["platform:x", "application:y"]),
        ("notification.message_data", 4, ["platform:x", "destination:Direct"]),
        (
            "notification.bridge.error",
            1,
            ["platform:x", "reason:timeout", "error:502", "errno:903"],
        ),
    ]


def test_no_tags_are_made_when_nobody_listens():
    class Deaf(SinkMetrics):
        def increment(self, *args, **kwargs):
            raise AssertionError("called")

    bridge = BridgeMetrics(Deaf(), "x")
    bridge.sent(notification())
    bridge.error("timeout")
