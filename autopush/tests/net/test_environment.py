"""Proxies and authorities, as the environment names them and as ``requests`` would take them."""

from __future__ import annotations

import base64

import pytest
import requests
from hypothesis import given, strategies as st
from twisted.internet.ssl import platformTrust

from autopush.exceptions import InvalidConfig
from autopush.net.environment import BUNDLES, ca_bundle, parse_proxy, proxy_for, trust_root
from autopush.tests.tlsfiles import make_certificate

URL = "https://fcm.googleapis.com/fcm/send"
PROXY = "http://proxy.example:3128"
VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in (*VARIABLES, *map(str.lower, VARIABLES), *BUNDLES):
        monkeypatch.delenv(name, raising=False)


def test_none_without_variables():
    assert proxy_for(URL) is None
    assert ca_bundle() is None
    assert type(trust_root()) is type(platformTrust())


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
def test_variables(name, monkeypatch):
    monkeypatch.setenv(name, PROXY)
    assert proxy_for(URL).name == PROXY
    assert proxy_for("https://127.0.0.1:8443").name == PROXY


def test_which_one_wins(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "http://all.example:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://upper.example:1")
    assert proxy_for(URL).host == "upper.example"
    monkeypatch.setenv("https_proxy", "http://lower.example:1")
    assert proxy_for(URL).host == "lower.example"


def test_only_tls_goes_through_proxies(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, PROXY)
    assert proxy_for("http://gateway.example/send") is None
    monkeypatch.delenv("HTTPS_PROXY")
    monkeypatch.delenv("ALL_PROXY")
    assert proxy_for(URL) is None


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
@pytest.mark.parametrize(
    ("exceptions", "url", "proxied"),
    [
        ("googleapis.com", URL, False),
        (".googleapis.com", URL, False),
        ("apis.com.example, fcm.googleapis.com", URL, False),
        ("push.apple.com", URL, True),
        ("*", URL, False),
        ("10.0.0.0/8", "https://10.1.2.3:8443/send", False),
        ("10.0.0.0/8", "https://11.1.2.3:8443/send", True),
        ("127.0.0.1", "https://127.0.0.1:8443", False),
        ("gateway.example:8443", "https://gateway.example:8443/send", False),
        ("gateway.example:8443", "https://gateway.example/send", True),
    ],
)
def test_exceptions(name, exceptions, url, proxied, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    monkeypatch.setenv(name, exceptions)
    assert (proxy_for(url) is not None) is proxied
    session = requests.Session().merge_environment_settings(url, {}, None, None, None)
    assert bool(session["proxies"]) is proxied


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("proxy.example:3128", "http://proxy.example:3128"),
        ("http://proxy.example", "http://proxy.example:80"),
        ("https://proxy.example", "https://proxy.example:443"),
        ("HTTP://Proxy.Example:3128/", "http://proxy.example:3128"),
        ("http://[::1]:3128", "http://[::1]:3128"),
        ("user:word@10.0.0.1:8080", "http://10.0.0.1:8080"),
    ],
)
def test_spellings(text, name):
    proxy = parse_proxy(text)
    assert proxy.name == name
    assert (proxy.tls is not None) is name.startswith("https:")


@pytest.mark.parametrize(
    ("text", "credentials"),
    [
        ("http://user:word@p:1", b"user:word"),
        ("http://us%40er:w%3Ao%2Frd@p:1", b"us@er:w:o/rd"),
        ("http://user@p:1", b"user:"),
        ("http://us%C3%A9r:x@p:1", "us\xe9r:x".encode()),
    ],
)
def test_credentials(text, credentials):
    proxy = parse_proxy(text)
    scheme, encoded = proxy.authorization.split()
    assert (scheme, base64.b64decode(encoded)) == ("Basic", credentials)
    assert encoded not in repr(proxy) and "word" not in f"{proxy!r} {proxy.name}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("socks5://user:word@proxy.example:1080", "it must be http or https, not socks5"),
        ("ftp://user:word@proxy.example", "it must be http or https, not ftp"),
        ("http://user:word@", "that is no URL of a host"),
        ("http://user:word@proxy.example:0", "that is no URL of a host"),
        ("http://user:word@proxy.example:port", "that is no URL"),
        ("http://user:word@[::1", "that is no URL"),
    ],
)
def test_one_that_can_not_be_used_ends_the_start(text, reason, monkeypatch):
    monkeypatch.setenv("https_proxy", text)
    with pytest.raises(InvalidConfig) as caught:
        proxy_for(URL)
    assert str(caught.value) == (
        f"The proxy for fcm.googleapis.com (HTTPS_PROXY or ALL_PROXY) can't be used: {reason}"
    )


@given(st.text(max_size=40))
def test_any_text_is_a_proxy_or_is_refused(text):
    try:
        proxy = parse_proxy(f"http://user:word{text}")
    except ValueError as exc:
        assert "word" not in str(exc)
    else:
        assert proxy.name.isascii() and 0 < proxy.port < 65536
        assert (proxy.authorization or "").isascii()


def test_bundles(monkeypatch, tmp_path):
    monkeypatch.setenv("CURL_CA_BUNDLE", "/second")
    assert ca_bundle() == ("CURL_CA_BUNDLE", "/second")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/first")
    assert ca_bundle() == ("REQUESTS_CA_BUNDLE", "/first")
    with pytest.raises(FileNotFoundError):
        trust_root()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "")
    assert ca_bundle() == ("CURL_CA_BUNDLE", "/second")


def test_one_s_own_file_wins(monkeypatch, tmp_path):
    _, certificate, _ = make_certificate(tmp_path, "own")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none"))
    assert type(trust_root(certificate)) is not type(platformTrust())


@pytest.mark.parametrize(
    "content", [b"", b"text", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_holds_no_certificate_is_refused(content, tmp_path):
    path = tmp_path / "bundle.pem"
    path.write_bytes(content)
    for place in (path, tmp_path):
        with pytest.raises(ValueError, match="it holds no certificate"):
            trust_root(str(place))
