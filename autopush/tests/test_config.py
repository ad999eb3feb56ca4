"""The configuration object: spec/python-api 2.2, spec/configuration 4 and 5."""

from __future__ import annotations

import json
import re
import socket
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.fernet import Fernet, InvalidToken

import autopush.db
from autopush import ids
from autopush.app.standalone import has_own_endpoint_port, standalone_config
from autopush.config import (
    OWN_SEGMENTS,
    AutopushConfig,
    DDBTableConfig,
    SSLConfig,
    _init_crypto_key,
    announced_host,
    bracketed,
    normalize_public_url,
)
from autopush.exceptions import InvalidConfig, VapidAuthException
from autopush.http import StandaloneHTTPFactory
from autopush.metrics import SinkMetrics
from autopush.options.parser import parse_connection, parse_endpoint, parse_standalone
from autopush.tests.tlsfiles import make_certificate

UAID = "deadbeef0000000000000000deadbeef"
CHID = "11111111-2222-4333-8444-555555555555"
FINGERPRINT = ":".join(["AB"] * 32)


@pytest.fixture(autouse=True)
def fixed_host_name(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "machine")


def endpoint_config(*args):
    return AutopushConfig.from_argparse(parse_endpoint([], ["--no_aws", *args]), port=8082)


def standalone(*args):
    return standalone_config(parse_standalone([], list(args)))


# ----------------------------------------------------------------------------- 2.2 the object


def test_positional_order_and_defaults():
    conf = AutopushConfig(True, Fernet.generate_key().decode(), ["k"], False, "host", 1234)
    assert (conf.debug, conf.bear_hash_key, conf.human_logs) == (True, ["k"], False)
    assert (conf.hostname, conf.port) == ("host", 1234)
    assert conf.router_table == DDBTableConfig("router", 5, 5)
    assert conf.message_table.tablename == "message"
    assert (conf.connect_timeout, conf.max_data, conf.msg_limit) == (0.5, 4096, 100)
    assert conf.preflight_uaid == "deadbeef00000000deadbeef00000000"
    assert conf.cors is False
    assert conf.enable_tls_auth is False
    assert conf.allow_table_rotation is True


def test_nested_values_may_be_dicts():
    values: dict[str, Any] = {
        "router_table": {"tablename": "r", "read_throughput": 1},
        "ssl": {"key": "k", "cert": "c"},
    }
    conf = AutopushConfig(**values)
    assert conf.router_table == DDBTableConfig("r", 1, 5)
    assert conf.ssl == SSLConfig("k", "c")
    assert AutopushConfig(ssl=SSLConfig("k")).ssl.key == "k"


def test_private_attributes_lose_their_underscore_in_keywords():
    conf = AutopushConfig(notification_legacy=True, resolve_hostname=False)
    assert conf._notification_legacy is True
    conf.cors = True
    conf.bear_hash_key = ["later"]
    assert conf.bear_hash_key == ["later"]


def test_mutable_defaults_are_not_shared():
    AutopushConfig().bear_hash_key.append("x")
    assert AutopushConfig().bear_hash_key == []


def test_secrets_do_not_show():
    key = Fernet.generate_key().decode()
    text = repr(AutopushConfig(crypto_key=key, bear_hash_key=["hush"], key_hash="quiet"))
    assert key not in text
    assert "hush" not in text
    assert "quiet" not in text


@pytest.mark.parametrize("given", [None, [], [""], ""])
def test_no_crypto_key_means_a_fresh_random_one(given):
    first, second = _init_crypto_key(given), _init_crypto_key(given)
    assert len(first) == 1
    assert first != second
    Fernet(first[0])


def test_crypto_key_list_and_text():
    assert _init_crypto_key(["a", "b"]) == ["a", "b"]
    assert _init_crypto_key("a") == ["a"]


def test_crypto_keys_may_be_bytes_as_fernet_makes_them():
    keys = [Fernet.generate_key(), Fernet.generate_key()]
    assert AutopushConfig(crypto_key=keys)._crypto_key == [key.decode() for key in keys]
    one = AutopushConfig(crypto_key=keys[0])
    assert Fernet(keys[0]).decrypt(one.fernet.encrypt(b"x")) == b"x"


def test_first_crypto_key_encrypts_and_all_decrypt():
    new, old = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    conf = AutopushConfig(crypto_key=[new, old])
    assert conf.fernet.decrypt(Fernet(old).encrypt(b"x")) == b"x"
    assert Fernet(new).decrypt(conf.fernet.encrypt(b"x")) == b"x"


def test_ssl_config_without_key_makes_no_factory(tmp_path):
    assert SSLConfig().cf() is None
    assert SSLConfig(key="", cert="x").cf() is None
    key, cert, _ = make_certificate(tmp_path)
    factory = SSLConfig(key, cert).cf(require_peer_certs=True)
    assert factory is not None
    assert factory.require_peer_certs is True


# ----------------------------------------------------------------- spec/configuration 4.1: the URLs


def test_host_names_default_to_the_system_host_name():
    conf = AutopushConfig(port=8080, router_port=8081, endpoint_port=8082)
    assert conf.router_url == "http://machine:8081"
    assert conf.endpoint_url == "http://machine:8082"
    assert conf.ws_url == "ws://machine:8080/"


def test_empty_host_name_counts_as_not_given():
    assert AutopushConfig(hostname="").hostname == "machine"


def test_default_ports_are_left_out_except_in_the_websocket_url():
    conf = AutopushConfig(
        hostname="h", port=443, endpoint_scheme="https", endpoint_port=443, ssl=SSLConfig("k")
    )
    assert conf.endpoint_url == "https://h"
    assert conf.ws_url == "wss://h:443/"
    assert conf.router_url == "http://h"


def test_resolved_host_name_is_used_everywhere(monkeypatch):
    """Fix C11: the endpoint node used the unresolved one in URLs."""
    monkeypatch.setattr("autopush.config.resolve_ip", lambda name: "192.0.2.1")
    conf = AutopushConfig(
        hostname="h", resolve_hostname=True, router_port=1, endpoint_port=2, port=3
    )
    assert conf.endpoint_url == "http://192.0.2.1:2"
    assert conf.router_url == "http://192.0.2.1:1"
    assert conf.ws_url == "ws://192.0.2.1:3/"


def test_unresolvable_host_name_is_a_configuration_error(monkeypatch):
    def fail(name):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("autopush.config.resolve_ip", fail)
    with pytest.raises(InvalidConfig, match="Can't resolve hostname"):
        endpoint_config("--resolve_hostname")


def test_ipv6_addresses_are_bracketed():
    assert bracketed("::1") == "[::1]"
    assert bracketed("[::1]") == "[::1]"
    assert AutopushConfig(hostname="2001:db8::1", port=1, endpoint_port=2).endpoint_url == (
        "http://[2001:db8::1]:2"
    )


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://push.example.org", "https://push.example.org"),
        ("https://push.example.org/", "https://push.example.org"),
        ("HTTPS://Push.Example.ORG:443/", "https://push.example.org"),
        ("http://push.example.org:80", "http://push.example.org"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        (" https://bücher.example ", "https://xn--bcher-kva.example"),
    ],
)
def test_public_url_is_normalised(url, origin):
    assert normalize_public_url(url) == (origin, "")
    assert AutopushConfig(public_url=url, endpoint_port=1).endpoint_url == origin


@pytest.mark.parametrize(
    "url",
    [
        "push.example.org",
        "ftp://push.example.org",
        "https://",
        "https://example.org/pa th",
        "https://example.org/a//b",
        "https://example.org/../b",
        "https://example.org/a/.",
        "https://example.org/%41",
        "https://example.org/päth",
        "https://example.org/wpush",
        "https://example.org/v1/push",
        "https://example.org/path;x",
        "https://push.example.org?x=1",
        "https://push.example.org#x",
        "https://user@push.example.org",
        "https://push.example.org:99999",
        "https://push.example.org:0",
        "https://push.example.org:x",
        "https://pu sh.example.org",
        'https://push".example.org',
        "https://[::1",
        "https://" + "a" * 70 + ".example",
        "",
    ],
)
def test_bad_public_url(url):
    with pytest.raises(InvalidConfig, match="Invalid public_url"):
        normalize_public_url(url)


@pytest.mark.parametrize(
    ("url", "origin", "path"),
    [
        ("https://example.org/push", "https://example.org", "/push"),
        ("HTTPS://Example.ORG:443/Push/", "https://example.org", "/Push"),
        ("http://localhost:8080/a/b.c/~d_e-f", "http://localhost:8080", "/a/b.c/~d_e-f"),
        ("https://example.org/pages", "https://example.org", "/pages"),
        ("https://example.org/...", "https://example.org", "/..."),
    ],
)
def test_public_url_may_have_a_path(url, origin, path):
    conf = AutopushConfig(public_url=url, endpoint_port=1)
    assert (conf.public_origin, conf.public_path) == (origin, path)
    assert conf.endpoint_url == conf.public_url == origin + path
    conf.compute_urls()
    assert conf.endpoint_url == origin + path


def test_public_url_without_a_path_is_the_origin():
    conf = AutopushConfig(public_url="https://push.example.org", endpoint_port=1)
    assert (conf.public_origin, conf.public_path) == (None, "")


def test_public_url_begins_with_no_path_of_the_service():
    """Where a proxy takes the path off, nothing could tell them apart."""
    patterns = (*StandaloneHTTPFactory.ap_handlers, *StandaloneHTTPFactory.health_ap_handlers)
    first = {re.match(r"\^?/(\w+)", pattern) for pattern, _ in patterns}
    assert {match[1] for match in first if match} == OWN_SEGMENTS


def test_a_service_below_a_path_says_nothing_about_its_host():
    assert standalone("--public_url", "https://example.org/push").sts_max_age == 0
    assert standalone("--public_url", "https://example.org").sts_max_age == 31536000


# ------------------------------------------------------------------------------- from_argparse


def test_options_become_attributes():
    key = Fernet.generate_key().decode()
    conf = endpoint_config(
        *("--crypto_key", key, "--auth_key", "a", "--connection_timeout", "7"),
        *("--max_data", "5000", "--router_tablename", "r", "--message_write_throughput", "9"),
        *("--hostname", "h", "--endpoint_port", "80", "--sts_max_age", "0"),
    )
    assert conf._crypto_key == [key]
    assert (conf.bear_hash_key, conf.connect_timeout, conf.max_data) == (["a"], 7, 5000)
    assert conf.router_table.tablename == "r"
    assert conf.message_table == DDBTableConfig("message", 5, 9)
    assert (conf.endpoint_url, conf.sts_max_age, conf.cors) == ("http://h", 0, True)


def test_negated_options():
    conf = endpoint_config("--no_cors", "--no_table_rotation", "--_no_sslcontext_cache")
    assert (conf.cors, conf.allow_table_rotation, conf.no_sslcontext_cache) == (False, False, True)


def test_router_ssl_makes_the_node_url_https():
    ns = parse_connection([], ["--no_aws", "--router_ssl_key", "k", "--hostname", "h"])
    assert AutopushConfig.from_argparse(ns).router_url == "https://h:8081"


def test_namespace_may_be_any_object_and_keywords_win():
    ns = SimpleNamespace(port=1, no_aws=True)
    assert AutopushConfig.from_argparse(ns, port=2, preflight_uaid="x").port == 2


def test_key_hash_is_also_set_where_storage_looks(monkeypatch):
    monkeypatch.setattr(ids, "key_hash", "")
    assert endpoint_config("--key_hash", "secret").key_hash == "secret"
    assert autopush.db.key_hash == "secret"


def test_ami_id(monkeypatch):
    monkeypatch.setattr("autopush.config.get_amid", lambda: "ami-1")
    assert endpoint_config().ami_id is None
    assert AutopushConfig.from_argparse(parse_endpoint([], [])).ami_id == "ami-1"
    monkeypatch.setattr("autopush.config.get_amid", lambda: None)
    assert AutopushConfig.from_argparse(parse_endpoint([], [])).ami_id == "Unknown"


def test_empty_auth_keys_are_dropped():
    """Fix C6: secrets made with an empty key can be forged by anybody."""
    assert endpoint_config("--auth_key", "", "--auth_key", "a").bear_hash_key == ["a"]
    assert endpoint_config("--auth_key", "").bear_hash_key == []


def test_router_settings():
    conf = endpoint_config(
        *("--senderid_list", '{"1": {"auth": "a"}}', "--gcm_ttl", "9"),
        *("--fcm_creds", '{"1": {"auth": "a", "projectid": "p"}}', "--fcm_version", "0"),
        *("--apns_creds", '{"c": {"cert": "f"}}', "--adm_creds", '{"d": {"client_id": "i"}}'),
    )
    assert conf.router_conf == {
        "gcm": {
            "ttl": 9,
            "dryrun": False,
            "max_data": 4096,
            "collapsekey": "simplepush",
            "senderIDs": {"1": {"auth": "a"}},
            "endpoint": "gcm-http.googleapis.com/gcm/send",
        },
        "fcm": {
            "version": 0,
            "ttl": 60,
            "dryrun": False,
            "max_data": 4096,
            "collapsekey": "simplepush",
            "creds": {"1": {"auth": "a", "projectid": "p"}},
        },
        "apns": {"c": {"cert": "f"}},
        "adm": {"d": {"client_id": "i"}},
    }


def test_endpoint_of_legacy_fcm():
    creds = ("--fcm_creds", '{"1": {"auth": "a"}}', "--fcm_version", "0")
    conf = endpoint_config(*creds, "--fcm_endpoint", "gateway.example/send")
    assert conf.router_conf["fcm"]["endpoint"] == "gateway.example/send"


def test_client_certs_are_inverted():
    value = json.dumps({"one": [FINGERPRINT.lower()]})
    conf = endpoint_config("--ssl_key", "k", "--client_certs", value)
    assert conf.client_certs == {FINGERPRINT: "one"}
    assert conf.enable_tls_auth is True


@pytest.mark.parametrize("value", ["{}", "[]", "null", ""])
def test_client_certs_off(value):
    assert endpoint_config("--client_certs", value).client_certs is None


# --------------------------------------------------------------------- 5 validation errors

TLS = ("--ssl_key", "k")
TWICE = json.dumps({"a": [FINGERPRINT], "b": [FINGERPRINT.lower()]})
NAMELESS = json.dumps({"": [FINGERPRINT]})
LINE_END = json.dumps({"a": [FINGERPRINT + "\n"]})


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--apns_creds", "{"], "Invalid JSON specified for APNS config options"),
        (["--apns_creds", "[1]"], "Invalid JSON specified for APNS config options"),
        (["--apns_creds", '{"a": 1}'], "Invalid JSON specified for APNS config options"),
        (["--senderid_list", "x"], "Invalid JSON specified for senderid_list"),
        (["--senderid_list", "[1]"], "Invalid JSON specified for senderid_list"),
        (["--senderid_list", '{"a": "key"}'], "Invalid JSON specified for senderid_list"),
        (["--senderid_list", "{}"], "No GCM SenderIDs specified or found."),
        (["--client_certs", "x"], "Invalid JSON specified for client_certs"),
        (["--client_certs", '{"a": "b"}', *TLS], "Invalid JSON specified for client_certs"),
        (["--client_certs", "[1]", *TLS], "Invalid JSON specified for client_certs"),
        (["--client_certs", "false", *TLS], "Invalid JSON specified for client_certs"),
        (
            ["--client_certs", '{"a": []}'],
            "client_certs specified without SSL enabled (no ssl_key specified)",
        ),
        (["--client_certs", '{"a": ["AB:CD"]}', *TLS], "Invalid client_certs argument"),
        (["--client_certs", '{"a": [1]}', *TLS], "Invalid client_certs argument"),
        (["--client_certs", NAMELESS, *TLS], "Invalid client_certs argument"),
        (
            ["--client_certs", LINE_END, *TLS],
            "Invalid client_certs argument",
        ),
        (["--client_certs", TWICE, *TLS], "Invalid client_certs argument"),
        (["--fcm_creds", "{}"], "Empty credentials for FCM config options"),
        (["--fcm_creds", '{"a": {}}'], "Missing auth for FCM config options"),
        (["--fcm_creds", "x"], "Invalid JSON specified for FCM config options"),
        (["--fcm_creds", '{"a": 1}'], "Invalid JSON specified for FCM config options"),
        (["--fcm_creds", '{"a": null}'], "Invalid JSON specified for FCM config options"),
        (["--fcm_creds", "[1]"], "Invalid JSON specified for FCM config options"),
        (
            ["--fcm_creds", '{"a": {"auth": "x"}}', "--fcm_version", "2"],
            "Invalid fcm_version: must be 0 (legacy) or 1 (HTTP v1)",
        ),
        (["--adm_creds", "x"], "Invalid JSON specified for ADM config options"),
        (["--adm_creds", "[1]"], "Invalid JSON specified for ADM config options"),
        (["--adm_creds", '{"a": 1}'], "Invalid JSON specified for ADM config options"),
        (["--adm_creds", "[" * 100_000], "Invalid JSON specified for ADM config options"),
    ],
)
def test_validation_error(args, text):
    with pytest.raises(InvalidConfig) as caught:
        endpoint_config(*args)
    assert str(caught.value) == text


@pytest.mark.parametrize("key", ["short", "é" * 44, "A" * 44, "===="])
def test_bad_crypto_key_is_a_configuration_error(key):
    with pytest.raises(InvalidConfig, match="Invalid crypto_key") as caught:
        endpoint_config("--crypto_key", key)
    assert key not in str(caught.value)


def test_checks_follow_the_documented_order():
    args = ["--adm_creds", "x", "--fcm_creds", "x", "--client_certs", "x", "--apns_creds", "x"]
    with pytest.raises(InvalidConfig, match="APNS"):
        endpoint_config(*args)
    with pytest.raises(InvalidConfig, match="client_certs"):
        endpoint_config(*args[:6])
    with pytest.raises(InvalidConfig, match="FCM"):
        endpoint_config(*args[:4])


# ---------------------------------------------------------------------------------- endpoints


class Counter(SinkMetrics):
    def __init__(self):
        self.calls: list[Any] = []

    def increment(self, name, count=1, **kwargs):
        self.calls.append((name, kwargs.get("tags")))


def test_endpoint_round_trip():
    conf = AutopushConfig(hostname="h", endpoint_port=1)
    url = conf.make_endpoint(UAID, CHID)
    prefix, token = url.rsplit("/", 1)
    assert prefix == "http://h:1/wpush/v1"
    metrics = Counter()
    assert conf.parse_endpoint(metrics, token) == {
        "uaid": UAID,
        "chid": CHID.replace("-", ""),
        "version": "v1",
        "public_key": None,
    }
    assert metrics.calls == []


def test_parse_endpoint_counts_authorization():
    conf = AutopushConfig()
    token = conf.make_endpoint(UAID, CHID).rsplit("/", 1)[1]
    metrics = Counter()
    conf.parse_endpoint(metrics, token, auth_header="WebPush a.b.c")
    assert metrics.calls == [("notification.auth", ["vapid:1", "scheme:webpush"])]
    with pytest.raises(VapidAuthException, match="Missing Public Key"):
        conf.parse_endpoint(metrics, token, auth_header="vapid t=a.b.c")
    assert metrics.calls[1] == ("notification.auth", ["vapid:2", "scheme:vapid"])


def test_parse_endpoint_counts_no_unusable_authorization():
    conf = AutopushConfig()
    token = conf.make_endpoint(UAID, CHID).rsplit("/", 1)[1]
    metrics = Counter()
    for header in ("nospace", "basic abc", "vapid nonsense"):
        with pytest.raises(VapidAuthException):
            conf.parse_endpoint(metrics, token, auth_header=header)
    assert metrics.calls == []


def test_parse_endpoint_of_other_keys():
    token = AutopushConfig().make_endpoint(UAID, CHID).rsplit("/", 1)[1]
    with pytest.raises(InvalidToken):
        AutopushConfig().parse_endpoint(Counter(), token)


# --------------------------------------------------------------------------------- standalone


@pytest.mark.parametrize(
    ("args", "endpoint_url", "ws_url"),
    [
        ([], "http://127.0.0.1:8080", "ws://127.0.0.1:8080/"),
        (["--port", "80"], "http://127.0.0.1", "ws://127.0.0.1:80/"),
        (["--host", "::1"], "http://[::1]:8080", "ws://[::1]:8080/"),
        (["--host", "localhost"], "http://localhost:8080", "ws://localhost:8080/"),
        (["--host", "::"], "http://machine:8080", "ws://machine:8080/"),
        (["--host", "0.0.0.0"], "http://machine:8080", "ws://machine:8080/"),
        (["--host", "192.0.2.1"], "http://192.0.2.1:8080", "ws://192.0.2.1:8080/"),
        (["--host", "2001:db8::1"], "http://[2001:db8::1]:8080", "ws://[2001:db8::1]:8080/"),
        (["--host", "unix:/run/x"], "http://localhost", "ws://localhost/"),
        (["--hostname", "push"], "http://push:8080", "ws://push:8080/"),
        (["--endpoint_port", "9"], "http://127.0.0.1:9", "ws://127.0.0.1:8080/"),
        (["--ssl_key", "k"], "https://127.0.0.1:8080", "wss://127.0.0.1:8080/"),
        (["--endpoint_hostname", "e"], "http://e:8080", "ws://127.0.0.1:8080/"),
        (["--endpoint_scheme", "https"], "https://127.0.0.1:8080", "ws://127.0.0.1:8080/"),
        (["--public_url", "https://p/"], "https://p", "ws://127.0.0.1:8080/"),
    ],
)
def test_standalone_urls(args, endpoint_url, ws_url):
    conf = standalone(*args)
    assert (conf.endpoint_url, conf.ws_url) == (endpoint_url, ws_url)


def test_public_url_wins_over_endpoint_options():
    conf = standalone("--public_url", "https://p", "--endpoint_hostname", "e", "--hostname", "h")
    assert conf.endpoint_url == "https://p"


def test_standalone_node_id_survives_changes_of_names_and_ports():
    first = standalone("--port", "1")
    second = standalone("--port", "2", "--hostname", "h", "--public_url", "https://p")
    assert first.router_url == second.router_url


def test_standalone_settings():
    conf = standalone("--data_dir", "some/where", "--max_message_size", "99")
    assert conf.data_dir.startswith("/")
    assert conf.data_dir.endswith("/some/where")
    assert conf.db_dsn == f"sqlite://{conf.data_dir}/autopush.sqlite3"
    assert (conf.store_direct, conf.cors, conf.max_message_size) == (True, True, 99)
    assert conf.require_ttl
    assert conf.hello_timeout == 10
    assert conf.allowed_origins == [] and endpoint_config().allowed_origins is None
    assert not standalone("--no_require_ttl").require_ttl
    assert not endpoint_config().require_ttl
    assert endpoint_config("--require_ttl").require_ttl
    assert conf.max_direct_unacked == 1000
    assert (conf.statsd_host, conf.ami_id, conf.router_conf) == ("", None, {})


@pytest.mark.parametrize(
    ("args", "own"),
    [
        ([], False),
        (["--endpoint_port", "8080"], False),
        (["--endpoint_port", "8081"], True),
        (["--port", "0"], False),
        (["--port", "0", "--endpoint_port", "0"], True),
    ],
)
def test_own_endpoint_port(args, own):
    assert has_own_endpoint_port(parse_standalone([], args)) is own


@pytest.mark.parametrize(
    "args",
    [
        ["--host", "unix:"],
        ["--host", "unix:/x", "--endpoint_port", "1"],
        ["--data_dir", ""],
        ["--public_url", "nonsense"],
    ],
)
def test_standalone_contradictions(args):
    with pytest.raises(InvalidConfig):
        standalone(*args)


def test_announced_host_prefers_the_option():
    assert announced_host("::", "name") == "name"
    assert announced_host("", None) == "machine"


def test_allowed_origins():
    given = ("https://A.example:443, null", "http://localhost:3000 *")
    conf = standalone(*(part for one in given for part in ("--allowed_origins", one)))
    assert conf.allowed_origins == ["https://a.example", "null", "http://localhost:3000", "*"]


@pytest.mark.parametrize("bad", ["a.example", "https://a.example/path", "https://", "https://a,b"])
def test_malformed_allowed_origins(bad):
    with pytest.raises(InvalidConfig, match="allowed_origins"):
        standalone("--allowed_origins", bad)


@pytest.mark.parametrize(
    "url",
    [
        *("megaphone.example", "ftp://a/", "http:///x", "http://a:0/", "http://a:x/", "http://[a/"),
        *("http://user:secret@a/", "http://a/b c", "http://a\u00e4/"),
    ],
)
def test_a_source_of_broadcasts_that_cant_be_one(url):
    with pytest.raises(InvalidConfig, match="megaphone_api_url") as caught:
        AutopushConfig(megaphone_api_url=url)
    assert "secret" not in str(caught.value)


def test_a_source_of_broadcasts():
    conf = AutopushConfig(
        megaphone_api_url="https://a.example:8/b/?c", megaphone_api_token="secret"
    )
    assert conf.megaphone_api_url == "https://a.example:8/b/?c"
    assert "secret" not in repr(conf)
