"""Where nodes are, and how they are written (spec/python-api 2.8)."""

from __future__ import annotations

import socket

import pytest
import requests

from autopush import utils
from autopush.addresses import (
    canonical_url,
    get_amid,
    get_ec2_instance_id,
    is_loopback,
    is_node_url,
    resolve_ip,
    without_password,
)


@pytest.mark.parametrize(
    "value",
    [
        "https://node-1.example",
        "http://[::1]:8081",
        "http://h",
        "http://a_b.c:81",
        "http://10.0.0.1",
    ],
)
def test_nodes_urls(value):
    assert is_node_url(value)


@pytest.mark.parametrize(
    "value",
    [None, 1, b"http://h", "", "h", "ftp://h", "http://h/", "http://-h", "http://.", "http://u@h"],
)
def test_what_is_no_nodes_url(value):
    assert not is_node_url(value)


@pytest.mark.parametrize(
    ("scheme", "port", "url"),
    [
        ("http", None, "http://h"),
        ("http", 80, "http://h"),
        ("https", 443, "https://h"),
        ("ws", 80, "ws://h"),
        ("wss", 443, "wss://h"),
        ("http", 443, "http://h:443"),
        ("https", 80, "https://h:80"),
        ("http", 8082, "http://h:8082"),
        ("odd", 80, "odd://h:80"),
    ],
)
def test_canonical_url_omits_the_default_port(scheme, port, url):
    assert canonical_url(scheme, "h", port) == url


class TestResolveIp:
    def test_first_ipv4_address(self, monkeypatch):
        asked = []

        def getaddrinfo(*args):
            asked.append(args)
            return [(2, 1, 6, "", ("192.0.2.7", 0)), (2, 1, 6, "", ("192.0.2.8", 0))]

        monkeypatch.setattr(utils.socket, "getaddrinfo", getaddrinfo)
        assert resolve_ip("name") == "192.0.2.7"
        assert asked[0][0] == "name"
        assert asked[0][2:] == (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)

    def test_no_address_returns_the_name(self, monkeypatch):
        monkeypatch.setattr(utils.socket, "getaddrinfo", lambda *args: [])
        assert resolve_ip("name") == "name"

    def test_resolver_errors_propagate(self, monkeypatch):
        def getaddrinfo(*args):
            raise socket.gaierror("no such host")

        monkeypatch.setattr(utils.socket, "getaddrinfo", getaddrinfo)
        with pytest.raises(socket.gaierror):
            resolve_ip("name")


class TestMetadata:
    """spec/configuration 4.3."""

    class Answer:
        content = b"i-0123"

    @pytest.mark.parametrize(
        ("function", "path"), [(get_amid, "ami-id"), (get_ec2_instance_id, "instance-id")]
    )
    def test_asks_the_metadata_service(self, monkeypatch, function, path):
        asked = []

        def get(*args, **kwargs):
            asked.append((args, kwargs))
            return self.Answer

        monkeypatch.setattr(requests, "get", get)
        assert function() == "i-0123"
        assert asked == [((f"http://169.254.169.254/latest/meta-data/{path}",), {"timeout": 1})]

    @pytest.mark.parametrize(("status", "found"), [(200, "i-0123"), (403, None), (404, None)])
    def test_c9_an_error_page_is_no_id(self, monkeypatch, status, found):
        answer = requests.Response()
        answer.status_code, answer._content = status, b"i-0123"
        monkeypatch.setattr(requests, "get", lambda *args, **kwargs: answer)
        assert get_amid() == found
        assert get_ec2_instance_id() == found

    @pytest.mark.parametrize(
        "error", [requests.ConnectionError, requests.ConnectTimeout, requests.ReadTimeout]
    )
    def test_failure_is_none(self, monkeypatch, error):
        def get(*args, **kwargs):
            raise error

        monkeypatch.setattr(requests, "get", get)
        assert get_amid() is None
        assert get_ec2_instance_id() is None


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost", "127.0.0.1", "127.200.0.1", "::1", "::ffff:127.0.0.1"]
)
def test_what_leads_to_this_machine(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["", "0.0.0.0", "::", "10.0.0.1", "::ffff:10.0.0.1", "localhost.example", "127.1", "[::1]"],
)
def test_what_may_lead_elsewhere(host):
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:p%40ss@h:5/db?sslmode=x", "postgresql://u:...@h:5/db?sslmode=x"),
        ("postgresql://u:p/s@ss@h/db", "postgresql://u:...@h/db"),
        ("postgresql://u@h/db?password=abc&x=1", "postgresql://u@h/db?password=...&x=1"),
        ("postgresql:///db?sslpassword=q&user=u", "postgresql:///db?sslpassword=...&user=u"),
        ("postgresql://h:5432/db", "postgresql://h:5432/db"),
        ("sqlite:///a:b@c", "sqlite:///a:b@c"),
        ("dynamodb:", "dynamodb:"),
    ],
)
def test_passwords_are_not_shown(url, shown):
    assert without_password(url) == shown
