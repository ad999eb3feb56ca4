"""spec/bridges 7: the APNs router, with a client that notes what it is asked to send."""

from __future__ import annotations

import hashlib
import json
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import capturedLogs

from autopush.config import AutopushConfig
from autopush.exceptions import InvalidConfig, RouterException
from autopush.message.notification import WebPushNotification
from autopush.message.urgency import NORMAL
from autopush.net.http2 import Busy, ConnectionFailed, StreamFailed, TimedOut, TransportFailed
from autopush.router import APNSRouter, apnsrouter, routers_from_config
from autopush.router.apns2 import (
    ALTERNATE_PORT,
    APNS_MAX_CONNECTIONS,
    APNSClient,
    APNSException,
    ComplexEncoder,
)
from autopush.router.apnsrouter import (
    DEFAULT_APS,
    GONE,
    NOT_THE_DEVICE,
    Channel,
    expiration,
    is_background,
)
from autopush.router.interface import IRouter
from autopush.tests.router.test_apnstoken import new_key
from autopush.tests.tlsfiles import make_certificate
from autopush.tests.web.support import CHID, ORIGIN, UAID, Metrics

TOKEN = "ab" * 32
NOW = 1_700_000_000
FAILED = "APNS returned an error processing request"


class Client:
    """Notes messages; answers as the test says."""

    max_connections = 20

    def __init__(self):
        self.sent = []
        self.result: Any = None

    def send(self, router_token, payload, apns_id, **kwargs):
        self.sent.append((router_token, payload, apns_id, kwargs))
        if isinstance(self.result, Deferred):
            return self.result
        return fail(self.result) if self.result else succeed(None)


class Rig:
    def __init__(self, **settings):
        self.conf = AutopushConfig(hostname="push.example", endpoint_port=8082)
        self.metrics: Any = Metrics()
        self.router = APNSRouter(
            self.conf, {"firefox": settings}, self.metrics, load_connections=False
        )
        self.client: Any = Client()
        self.router.apns["firefox"] = self.client
        self.router_data: dict[str, Any] = {"token": TOKEN, "rel_channel": "firefox"}

    def start(self, ttl=60, **kwargs):
        self.notification = WebPushNotification(
            uaid=uuid.UUID(UAID), channel_id=uuid.UUID(CHID), ttl=ttl, **kwargs
        )
        self.notification.generate_message_id(self.conf.fernet)
        user = {"uaid": UAID, "router_type": "apns", "router_data": self.router_data}
        results: list[Any] = []
        with mock.patch("autopush.clock.now", lambda: NOW + 0.7):
            self.router.route_notification(self.notification, user).addBoth(results.append)
        return results

    def route(self, **kwargs):
        (result,) = self.start(**kwargs)
        if hasattr(result, "value"):
            raise result.value
        return result

    def refused(self, error=None, **kwargs):
        self.client.result = error
        with pytest.raises(RouterException) as caught:
            self.route(**kwargs)
        return caught.value

    @property
    def payload(self):
        return self.client.sent[-1][1]

    @property
    def sent_with(self):
        return self.client.sent[-1][3]


@pytest.fixture
def rig():
    return Rig()


def described(exc):
    return exc.status_code, exc.errno, exc.response_body


# ------------------------------------------------------------------------------ 7.1 settings


def test_defaults_of_a_channel():
    channel = Channel.from_conf("nightly", {})
    assert channel.topic == "com.mozilla.org.nightly"
    assert (channel.sandbox, channel.max_connections, channel.max_retry) == (False, 20, 2)
    assert (channel.host, channel.port, channel.ca_file, channel.p8) == (None,) * 4
    assert channel.collapse_id is False


def test_other_members_are_ignored():
    assert Channel.from_conf("a", {"cert": "x", "unknown": 1}).cert == "x"


def test_empty_and_null_members_count_as_absent():
    assert Channel.from_conf("a", {"topic": "", "port": None}) == Channel.from_conf("a", {})


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("cert", 1),
        ("key", ["x"]),
        ("topic", "t\r\nx: y"),
        ("sandbox", "yes"),
        ("max_connections", 0),
        ("max_connections", True),
        ("max_connections", "20"),
        ("max_retry", 0),
        ("host", "a\nb"),
        ("port", 0),
        ("port", 65536),
        ("ca_file", False),
        ("timeout", 0),
        ("timeout", "3"),
        ("timeout", True),
        ("collapse_id", "x"),
    ],
)
def test_wrong_members_are_configuration_errors(member, value):
    with pytest.raises(InvalidConfig, match=f"Invalid {member} of APNS channel firefox"):
        Channel.from_conf("firefox", {member: value})


def test_a_channel_must_be_an_object():
    with pytest.raises(InvalidConfig, match=r"^Invalid JSON specified for APNS config options$"):
        Channel.from_conf("firefox", [])


@pytest.mark.parametrize("missing", ["key_id", "team_id", "p8"])
def test_token_authentication_needs_three_members(missing):
    given = {"key_id": "K", "team_id": "T", "p8": "f"}
    del given[missing]
    with pytest.raises(InvalidConfig, match="needs all of key_id, team_id and p8"):
        Channel.from_conf("firefox", given)


def make_router(settings, **others):
    return APNSRouter(
        AutopushConfig(),
        {"firefox": settings, **others},
        Metrics(),
    )


def test_a_channel_without_credentials_is_a_configuration_error():
    with pytest.raises(InvalidConfig, match="APNS channel firefox needs cert and key, or key_id"):
        make_router({"topic": "x"})


def test_certificate_is_loaded_at_start(tmp_path):
    key, cert, _ = make_certificate(tmp_path)
    router = make_router({"cert": cert, "key": key})
    client = router.apns["firefox"]
    assert (client.server, client.port) == ("api.push.apple.com", 443)
    assert client.topic == "com.mozilla.org.firefox"
    assert len(client.connections) == 0


def test_one_file_may_hold_certificate_and_key(tmp_path):
    key, cert, _ = make_certificate(tmp_path)
    both = tmp_path / "both.pem"
    both.write_bytes(Path(cert).read_bytes() + Path(key).read_bytes())
    assert make_router({"cert": str(both)}).apns


def test_sandbox_host_and_port(tmp_path):
    key, cert, _ = make_certificate(tmp_path)
    files = {"cert": cert, "key": key}
    sandbox = make_router({**files, "sandbox": True}).apns["firefox"]
    assert sandbox.server == "api.development.push.apple.com"
    own = make_router({**files, "host": "gw.example", "port": 2197, "ca_file": cert})
    assert (own.apns["firefox"].server, own.apns["firefox"].port) == ("gw.example", 2197)


def test_unreadable_and_unusable_files_are_configuration_errors(tmp_path):
    key, cert, _ = make_certificate(tmp_path)
    other, _, _ = make_certificate(tmp_path, "other")
    junk = tmp_path / "junk"
    junk.write_text("junk")
    p8 = {"key_id": "K", "team_id": "T"}
    for settings, text in [
        ({"cert": str(tmp_path / "none"), "key": key}, "Can't read .*none of APNS channel firefox"),
        ({"cert": cert, "key": str(tmp_path / "none")}, "Can't read .*none of"),
        ({"cert": str(junk), "key": key}, "Unusable certificate or key of APNS channel firefox"),
        ({"cert": cert, "key": str(junk)}, "Unusable certificate or key of"),
        ({"cert": cert, "key": other}, "they don't fit"),
        ({"cert": cert, "key": key, "ca_file": str(junk)}, "Unusable certificate"),
        ({**p8, "p8": str(tmp_path / "none")}, "Can't read .*none of"),
        ({**p8, "p8": str(junk)}, "Unusable certificate or key of"),
    ]:
        with pytest.raises(InvalidConfig, match=text):
            make_router(settings)


def test_channels_with_one_key_share_its_token(tmp_path):
    pem = tmp_path / "k.p8"
    pem.write_bytes(new_key()[1])
    settings = {"key_id": "K", "team_id": "T", "p8": str(pem)}
    router = make_router(settings, beta=settings, other={**settings, "key_id": "L"})
    tokens = [client._token for client in router.apns.values()]
    assert tokens[0] is tokens[1]
    assert tokens[0] is not tokens[2]


def test_start_is_logged():
    with capturedLogs() as events:
        Rig()
    texts = [event["log_format"] for event in events]
    assert texts == ["Starting APNS connection", "Starting APNS router..."]


def test_router_is_made_if_configured():
    conf = AutopushConfig()
    assert "apns" not in routers_from_config(conf, None, None)
    conf.router_conf = {"apns": {"firefox": {"max_retry": 0}}}
    with pytest.raises(InvalidConfig):
        routers_from_config(conf, None, None)


def test_documented_names():
    assert issubclass(APNSRouter, IRouter)
    assert (APNSClient.__init__.__defaults__ or ())[:3] == (False, False, APNS_MAX_CONNECTIONS)
    client = APNSClient("cert", "key", "topic", True, True, 7, None, None, False, 3)
    assert (client.port, client.max_connections) == (ALTERNATE_PORT, 7)
    assert len(client.connections) == 0


# ------------------------------------------------------------------------------ 7.2 registration


def test_register_adds_the_channel(rig):
    data = {"token": TOKEN, "aps": {"badge": 1}}
    rig.router.register("", data, "firefox")
    assert data == {"token": TOKEN, "aps": {"badge": 1}, "rel_channel": "firefox"}


def test_register_unknown_channel(rig):
    with pytest.raises(RouterException) as caught:
        rig.router.register("", {"token": TOKEN}, "unknown")
    assert (caught.value.status_code, caught.value.errno) == (400, None)
    assert str(caught.value) == "Unknown release channel specified"
    assert caught.value.response_body == "Unknown release channel"


@pytest.mark.parametrize("data", [{}, {"token": ""}, {"token": None}])
def test_register_without_token(rig, data):
    with pytest.raises(RouterException, match=r"^No token registered$") as caught:
        rig.router.register("", data, "firefox")
    assert (caught.value.status_code, caught.value.errno) == (400, None)


def test_registration_answer_gets_nothing(rig):
    response: dict[str, Any] = {}
    rig.router.amend_endpoint_response(response, rig.router_data)
    assert response == {}


# ------------------------------------------------------------------------------ 7.3 request

AESGCM = {"encoding": "aesgcm", "encryption": "salt=abc", "crypto_key": "dh=def"}


def test_payload_without_data(rig):
    rig.route()
    assert rig.payload == {
        "chid": CHID.replace("-", ""),
        "ver": rig.notification.version,
        "aps": DEFAULT_APS,  # fix B13
    }


def test_payload_aes128gcm(rig):
    headers = {"encoding": "aes128gcm", "encryption": "salt=x", "crypto_key": "dh=y"}
    rig.route(data="AAAA", headers=headers)
    assert rig.payload == {
        "chid": CHID.replace("-", ""),
        "ver": rig.notification.version,
        "con": "aes128gcm",
        "body": "AAAA",
        "aps": DEFAULT_APS,
    }


def test_payload_aesgcm(rig):
    rig.route(data="AAAA", headers=AESGCM)
    members = {name: rig.payload[name] for name in ("con", "enc", "cryptokey", "body")}
    assert members == {"con": "aesgcm", "enc": "salt=abc", "cryptokey": "dh=def", "body": "AAAA"}
    assert "enckey" not in rig.payload


def test_payload_aesgcm128(rig):
    headers = {"encoding": "aesgcm128", "encryption": "salt=abc", "encryption_key": "dh=def"}
    rig.route(data="AAAA", headers=headers)
    assert rig.payload["enckey"] == "dh=def"
    assert "cryptokey" not in rig.payload


def test_crypto_key_wins_over_encryption_key(rig):
    rig.route(data="AAAA", headers={**AESGCM, "encryption_key": "no"})
    assert rig.payload["cryptokey"] == "dh=def"
    assert "enckey" not in rig.payload


def test_content_encoding_wins_over_encoding(rig):
    rig.route(data="AAAA", headers={**AESGCM, "content-encoding": "aes128gcm"})
    assert rig.payload["con"] == "aes128gcm"


@pytest.mark.parametrize("aps", [{"alert": "hi"}, {}, None])
def test_aps_of_the_record_is_sent_even_null(rig, aps):
    rig.router_data["aps"] = aps
    rig.route(data="AAAA", headers=AESGCM)
    assert rig.payload["aps"] == aps


def test_decimals_are_written_as_integers():
    assert json.dumps({"a": Decimal(5)}, cls=ComplexEncoder) == '{"a": 5}'
    assert json.dumps({"a": Decimal("0.5")}, cls=ComplexEncoder) == '{"a": 0.5}'
    with pytest.raises(TypeError):
        json.dumps({"a": b""}, cls=ComplexEncoder)


def test_every_message_has_an_id_of_its_own(rig):
    rig.route()
    rig.route()
    first, second = (sent[2] for sent in rig.client.sent)
    assert first != second
    assert str(uuid.UUID(first)) == first


def test_alerts_are_sent_with_priority_10(rig):
    rig.route()
    assert (rig.sent_with["priority"], rig.sent_with["push_type"]) == (True, "alert")


@pytest.mark.parametrize("level", range(4))
def test_what_is_not_urgent_is_sent_with_priority_5(rig, level):
    rig.route(urgency=level)
    assert (rig.sent_with["priority"], rig.sent_with["push_type"]) == (level >= NORMAL, "alert")


def test_background_pushes_are_sent_with_priority_5(rig):
    rig.router_data["aps"] = {"content-available": 1}
    rig.route()
    assert (rig.sent_with["priority"], rig.sent_with["push_type"]) == (False, "background")


@pytest.mark.parametrize(
    ("aps", "background"),
    [
        ({"content-available": 1}, True),
        ({"content-available": Decimal(1), "thread-id": "x"}, True),
        ({"content-available": 0}, False),
        ({"content-available": 1, "alert": "x"}, False),
        ({"content-available": 1, "badge": 0}, False),
        ({"content-available": 1, "sound": "x"}, False),
        ({"content-available": 1, "mutable-content": 1}, False),
        ({}, False),
        (None, False),
    ],
)
def test_what_is_a_background_push(aps, background):
    assert is_background(aps) is background


@pytest.mark.parametrize(("ttl", "exp"), [(None, None), (0, 0), (1, NOW + 1), (60, NOW + 60)])
def test_expiration_is_now_plus_ttl(rig, ttl, exp):
    rig.route(ttl=ttl)
    assert rig.sent_with["exp"] == exp
    assert expiration(ttl, NOW) == exp


def test_topic_is_no_collapse_id_unless_asked_for(rig):
    rig.route(topic="news")
    assert rig.sent_with["collapse_id"] is None


def test_collapse_id_belongs_to_channel_and_topic():
    rig = Rig(collapse_id=True)
    rig.route(topic="news")
    wanted = hashlib.sha256(f"{CHID.replace('-', '')}:news".encode()).hexdigest()
    assert rig.sent_with["collapse_id"] == wanted
    assert len(wanted) <= 64
    rig.route()
    assert rig.sent_with["collapse_id"] is None


# ------------------------------------------------------------------------------ 7.5 outcomes


def test_success(rig):
    response = rig.route(data="A" * 100, headers=AESGCM)
    location = f"{ORIGIN}/m/{rig.notification.message_id}"
    assert (response.status_code, response.response_body) == (201, "")
    assert response.headers == {"TTL": "60", "Location": location}
    assert (response.logged_status, response.router_data) == (200, None)
    assert rig.metrics.calls == [
        ("notification.bridge.sent", 1, ["platform:apns", "application:firefox"]),
        ("notification.message_data", 100, ["platform:apns", "destination:Direct"]),
        ("updates.client.bridge.apns.firefox.sent", 1, ["platform:apns"]),
    ]


def test_ttl_of_the_answer_is_the_senders(rig):
    assert rig.route(ttl=2592000).headers["TTL"] == "2592000"
    assert rig.route(ttl=0).headers["TTL"] == "0"
    assert rig.route(ttl=None).headers["TTL"] is None  # left out


def test_the_answer_waits_for_apple(rig):
    rig.client.result = Deferred()
    results = rig.start()
    assert results == []
    rig.client.result.callback(None)
    assert results[0].status_code == 201


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize("reason", ["Unregistered", "SomethingNew"])
def test_404_and_410_mean_that_the_device_is_gone(rig, status, reason):
    exc = rig.refused(APNSException(status, reason))
    assert described(exc) == (status, 106, "User is no longer registered")
    assert exc.log_exception is False
    assert rig.metrics.calls == []


@pytest.mark.parametrize("reason", sorted(GONE))
@pytest.mark.parametrize("status", [400, 410])
def test_reasons_that_say_that_the_token_is_no_good(rig, reason, status):
    exc = rig.refused(APNSException(status, reason))
    assert described(exc) == (410, 106, "User is no longer registered")


@pytest.mark.parametrize("reason", sorted(NOT_THE_DEVICE))
@pytest.mark.parametrize("status", [400, 403, 404, 410, 413, 429, 500, 503])
def test_other_reasons_keep_the_user_whatever_the_status(rig, reason, status):
    exc = rig.refused(APNSException(status, reason))
    assert described(exc) == (502, None, FAILED)
    assert str(exc) == f"APNS Transmit Error {status}:{reason}"
    assert exc.log_exception is True
    assert exc.headers == {}
    tags = ["platform:apns", f"reason:{reason}", "application:firefox", "error:502", "errno:0"]
    assert rig.metrics.calls == [("notification.bridge.error", 1, tags)]


@pytest.mark.parametrize("status", [400, 404, 410, 500])
def test_answers_without_reason(rig, status):
    exc = rig.refused(APNSException(status, None))
    assert described(exc) == (502, None, FAILED)
    assert "reason:unknown" in rig.metrics.calls[0][2]


def test_retry_after_is_passed_on(rig):
    exc = rig.refused(APNSException(429, "TooManyRequests", 17))
    assert exc.headers == {"Retry-After": "17"}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionFailed("GOAWAY: INTERNAL_ERROR"), "connection_error"),
        (StreamFailed("stream reset: CANCEL"), "http2_error"),
        (TransportFailed("refused"), "http2_error"),
        (TimedOut("no answer in time"), "timeout"),
    ],
)
def test_no_answer(rig, error, reason):
    exc = rig.refused(error)
    assert described(exc) == (502, None, FAILED)
    tags = ["platform:apns", f"reason:{reason}", "application:firefox", "error:502", "errno:0"]
    assert rig.metrics.calls == [("notification.bridge.error", 1, tags)]


def test_busy(rig):
    exc = rig.refused(Busy("x"))
    assert described(exc) == (503, None, "APNS busy, please retry")
    assert str(exc) == "Too many APNS requests, increase pool from 20"
    assert exc.headers == {"Retry-After": str(apnsrouter.BUSY_RETRY_AFTER)}


def test_a_client_without_connections_is_busy(rig):
    rig.router.apns["firefox"] = rig.router._connect("firefox", load_connections=False)
    exc = rig.refused()
    assert described(exc) == (503, None, "APNS busy, please retry")


@pytest.mark.parametrize(
    "change",
    [
        {"token": None},
        {"token": ""},
        {"token": 5},
        {"rel_channel": None},
        {"rel_channel": "gone"},
        {"rel_channel": {}},
    ],
)
def test_records_no_channel_here_can_use_are_kept(rig, change):
    rig.router_data.update(change)
    with capturedLogs() as events:
        exc = rig.refused()
    assert described(exc) == (500, None, "An unexpected server error occurred.")
    assert [event["log_level"].name for event in events] == ["critical"]
    assert TOKEN not in str(events)


def test_errors_never_show_the_token(rig):
    for error in (APNSException(400, "BadTopic"), TransportFailed("lost"), Busy("x")):
        exc = rig.refused(error)
        assert TOKEN not in f"{exc} {exc.response_body} {exc.extra} {exc.__cause__}"
