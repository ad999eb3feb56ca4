"""Small helpers (spec/python-api 2.8)."""

from __future__ import annotations

import socket
import uuid

import pytest
import requests
from cryptography.exceptions import InvalidSignature

from autopush import utils
from autopush.addresses import is_node_url
from autopush.ids import hash_uaid
from autopush.message.encoding import base64url_encode
from autopush.tests.message.vapid_support import Sender, claims
from autopush.utils import (
    canonical_url,
    extract_jwt,
    generate_hash,
    get_amid,
    get_ec2_instance_id,
    normalize_id,
    resolve_ip,
    validate_uaid,
)

UUID = uuid.UUID("0123abcd-0123-4012-8012-0123456789ab")


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


def test_documented_names_exist():
    for name in utils.__all__:
        assert hasattr(utils, name), name
    assert (utils.MS_MULT, utils.NS_MULT) == (10**3, 10**6)


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


class TestValidateUaid:
    def test_valid(self):
        assert validate_uaid(UUID.hex) == (True, UUID.hex)
        assert validate_uaid("deadbeef" + "0" * 24) == (True, "deadbeef" + "0" * 24)

    @pytest.mark.parametrize(
        "uaid",
        [None, "", "x", str(UUID), UUID.hex.upper(), UUID.hex + "0", UUID.hex[1:], UUID.hex + "\n",
         "g" * 32, "٣" * 32, 5, [UUID.hex], {}, True, UUID],
    )  # fmt: skip
    def test_anything_else_gets_a_new_one(self, uaid):
        valid, new = validate_uaid(uaid)
        assert not valid
        assert validate_uaid(new) == (True, new)
        assert validate_uaid(uaid)[1] != new


def test_generate_hash_test_vector():
    # spec/storage 5
    digest = "0530bb351921e7b4be66831e4c126c6d8f614d06cdd592cb8470f31177c8331a"
    message = "01234567123401234123456789ABCDEF"
    assert generate_hash("SuperSikkret", message) == digest
    assert generate_hash(b"SuperSikkret", message.encode()) == digest
    assert hash_uaid("SuperSikkret", message) == digest and hash_uaid("", message) == message
    assert generate_hash("é", "é") == generate_hash("é".encode(), "é".encode())


class TestNormalizeId:
    @pytest.mark.parametrize(
        "ident", [UUID, UUID.hex, str(UUID), str(UUID).upper(), f"{{{UUID}}}", f"urn:uuid:{UUID}"]
    )
    def test_any_spelling(self, ident):
        assert normalize_id(ident) == str(UUID)

    @pytest.mark.parametrize("ident", ["", "x", UUID.hex[1:], "1_2" + "0" * 29, None, 5])
    def test_anything_else(self, ident):
        with pytest.raises(ValueError, match=r"^Invalid UUID$"):
            normalize_id(ident)


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


class TestExtractJwt:
    sender = Sender()
    content = claims(exp=9_999_999_999)

    @pytest.mark.parametrize(("token", "key"), [("", "k"), (None, "k"), ("t", ""), ("t", None)])
    def test_nothing_to_look_at_is_empty(self, token, key):
        assert extract_jwt(token, key) == {}
        assert extract_jwt(token, key, is_trusted=True) == {}

    def test_verifies(self):
        key = self.sender.public_key
        for use_crypto in False, True:
            assert (
                extract_jwt(self.sender.token(self.content), key, use_crypto=use_crypto)
                == self.content
            )
            with pytest.raises(InvalidSignature):
                extract_jwt(Sender().token(self.content), key, use_crypto=use_crypto)

    def test_trusted_is_not_verified(self):
        assert extract_jwt(self.sender.token([1]), "any key", is_trusted=True) == [1]

    def test_header_and_claims_only_count_without_use_crypto(self):
        token = self.sender.token(claims(nbf=9_999_999_999), {"alg": "HS256"})
        assert extract_jwt(token, self.sender.public_key, use_crypto=True)["nbf"] == 9_999_999_999
        with pytest.raises(ValueError):
            extract_jwt(token, self.sender.public_key)

    def test_unknown_key_format(self):
        key = base64url_encode(b"short")
        for use_crypto in False, True:
            with pytest.raises(ValueError, match="Unknown public key format specified"):
                extract_jwt(self.sender.token(), key, use_crypto=use_crypto)
