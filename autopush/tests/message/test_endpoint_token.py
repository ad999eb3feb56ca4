"""Endpoint URLs (spec/http-endpoint 4 and 5.2)."""

from __future__ import annotations

import uuid
from hashlib import sha256

import pytest
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from hypothesis import given, strategies as st

from autopush.exceptions import InvalidTokenException, VapidAuthException
from autopush.message.crypto_key import CryptoKeyException
from autopush.message.encoding import base64url_encode
from autopush.message.endpoint_token import (
    EndpointToken,
    check_subscription_key,
    make_endpoint,
    parse_endpoint,
)
from autopush.tests.message.vapid_support import Sender

OLD, NEW = Fernet(Fernet.generate_key()), Fernet(Fernet.generate_key())
FERNET = MultiFernet([NEW, OLD])
URL = "https://push.example.com"
UAID, CHID = uuid.uuid4(), uuid.uuid4()
KEY = base64url_encode(b"\x04" + bytes(range(64)))
V1 = bytes(range(32))
V2 = V1 + sha256(b"\x04" + bytes(range(64))).digest()


def seal(content: bytes, fernet=NEW) -> str:
    return fernet.encrypt(content).decode().rstrip("=")


def parse(token, version="v1", ckey=None, auth=None):
    return parse_endpoint(FERNET, token, version, ckey, auth)


def refusal(*args) -> str:
    with pytest.raises(VapidAuthException) as caught:
        parse(*args)
    return str(caught.value)


class TestMakeEndpoint:
    def test_v1_url(self):
        base, token = make_endpoint(FERNET, URL, UAID.hex, CHID.hex).rsplit("/", 1)
        assert base == URL + "/wpush/v1"
        assert len(token) == 140
        assert NEW.decrypt(token + "=" * (-len(token) % 4)) == UAID.bytes + CHID.bytes

    def test_v2_url(self):
        base, token = make_endpoint(FERNET, URL, UAID.hex, CHID.hex, KEY).rsplit("/", 1)
        assert base == URL + "/wpush/v2"
        assert len(token) == 183
        digest = sha256(b"\x04" + bytes(range(64))).digest()
        assert NEW.decrypt(token + "=") == UAID.bytes + CHID.bytes + digest

    def test_ids_with_and_without_dashes(self):
        url = make_endpoint(FERNET, URL, str(UAID), str(CHID))
        assert parse(url.rsplit("/", 1)[1])[:2] == (UAID.hex, CHID.hex)

    def test_hash_covers_whatever_the_key_decodes_to(self):
        key = base64url_encode(b"any bytes")
        url = make_endpoint(FERNET, URL, UAID.hex, CHID.hex, key)
        assert parse(url.rsplit("/", 1)[1], "v2", "p256ecdsa=" + key, "bearer x").public_key == key

    def test_q38_empty_key_is_no_key(self):
        assert "/wpush/v1/" in make_endpoint(FERNET, URL, UAID.hex, CHID.hex, "")

    @pytest.mark.parametrize("key", ["A", "abcde", "!abc", "é\n a"])
    def test_undecodable_key_is_an_error(self, key):
        with pytest.raises(ValueError):
            make_endpoint(FERNET, URL, UAID.hex, CHID.hex, key)

    def test_foreign_characters_in_a_key_are_skipped(self):
        """spec/websocket 5.2: the sender with that key may use the endpoint."""
        key = base64url_encode(b"any bytes")
        url = make_endpoint(FERNET, URL, UAID.hex, CHID.hex, f" {key[:5]}\r\n{key[5:]}é")
        header = f"p256ecdsa={key}"
        assert parse(url.rsplit("/", 1)[1], "v2", header, "bearer x").public_key == key

    @pytest.mark.parametrize("key", ["!!!!", "é", " ", "\u20ac"])
    def test_a_key_of_nothing_else_makes_an_endpoint_nobody_can_use(self, key):
        base, token = make_endpoint(FERNET, URL, UAID.hex, CHID.hex, key).rsplit("/", 1)
        assert base == URL + "/wpush/v2"
        assert NEW.decrypt(token + "=") == UAID.bytes + CHID.bytes + sha256(b"").digest()

    @pytest.mark.parametrize("bad", ["", "abc", "x" * 32, "ab" * 15, "ab" * 17])
    def test_malformed_id_is_an_error(self, bad):
        with pytest.raises(ValueError):
            make_endpoint(FERNET, URL, bad, CHID.hex)
        with pytest.raises(ValueError):
            make_endpoint(FERNET, URL, UAID.hex, bad)


class TestCheckSubscriptionKey:
    """RFC 8292 4.1: a P-256 point, uncompressed."""

    @pytest.mark.parametrize("wrap", ["{}", "{}=", " {}\n"])
    def test_a_key(self, wrap):
        check_subscription_key(wrap.format(Sender().public_key))

    @given(st.binary(max_size=70) | st.binary(min_size=64, max_size=64).map(b"\x04".__add__))
    def test_what_is_no_point(self, key):
        with pytest.raises(ValueError):
            check_subscription_key(base64url_encode(key))


@given(st.uuids(), st.uuids(), st.none() | st.binary(min_size=1, max_size=100))
def test_parse_reverses_make(uaid, chid, key_bytes):
    key = key_bytes and base64url_encode(key_bytes)
    url = make_endpoint(FERNET, URL, uaid.hex, chid.hex, key)
    assert url.startswith(URL + "/wpush/")
    version, token = url.split("/")[-2:]
    if key is None:
        expected = EndpointToken(uaid.hex, chid.hex, "v1", None, None, uaid, chid)
        assert parse(token, version) == expected
    else:
        auth = {"scheme": "vapid", "version": 2, "t": "T", "k": key}
        expected = EndpointToken(uaid.hex, chid.hex, "v2", key, auth, uaid, chid)
        assert parse(token, version, None, f"vapid t=T,k={key}") == expected


@given(st.text(max_size=200))
def test_any_text_is_an_invalid_token(text):
    with pytest.raises(InvalidToken):
        parse(text)


@given(st.integers(0, 139), st.sampled_from("ABCXYZabcxyz0189-_"))
def test_changed_token_is_an_invalid_token(at, character):
    token = seal(V1)
    changed = token[:at] + character + token[at + 1 :]
    if changed == token:
        assert parse(changed).uaid == V1[:16].hex()
    else:
        with pytest.raises(InvalidToken):
            parse(changed)


class TestToken:
    def test_every_key_opens(self):
        assert parse(seal(V1, OLD)).chid == V1[16:].hex()
        with pytest.raises(InvalidToken):
            parse(seal(V1, Fernet(Fernet.generate_key())))

    def test_padding_is_optional(self):
        token = NEW.encrypt(V2).decode()
        assert token.endswith("=")
        for text in token, token.rstrip("="):
            assert parse(text, "v2", "p256ecdsa=" + KEY, "bearer x").version == "v2"

    @pytest.mark.parametrize("junk", ["!!", "====", "%", "\n", " "])
    def test_q39_foreign_characters_are_refused(self, junk):
        with pytest.raises(InvalidToken):
            parse(seal(V1) + junk)

    @pytest.mark.parametrize("size", [0, 16, 31, 33, 63, 64, 65])
    def test_v1_needs_32_bytes(self, size):
        with pytest.raises(InvalidTokenException):
            parse(seal(bytes(size)))

    @pytest.mark.parametrize("size", [0, 32, 63, 65])
    def test_v2_needs_64_bytes(self, size):
        with pytest.raises(InvalidTokenException):
            parse(seal(bytes(size)), "v2", "p256ecdsa=" + KEY, "bearer x")

    @pytest.mark.parametrize("version", [None, ""])
    def test_q2_missing_version_is_v1(self, version):
        assert parse(seal(V1), version).version == "v1"
        with pytest.raises(InvalidTokenException):
            parse(seal(V2), version)

    @pytest.mark.parametrize("version", ["v0", "v3", "v99", "v01", "V1"])
    @pytest.mark.parametrize("content", [V1, V2])
    def test_q2_unknown_version_is_refused(self, version, content):
        with pytest.raises(InvalidTokenException):
            parse(seal(content), version, "p256ecdsa=" + KEY, "bearer x")


class TestHeaders:
    """The rows of the table in 5.2, by number."""

    def test_2_crypto_key_must_parse(self):
        with pytest.raises(CryptoKeyException):
            parse(seal(V1), "v1", "garbage")
        assert parse(seal(V1), "v1", "").public_key is None

    def test_3_authorization_needs_a_space(self):
        assert refusal(seal(V1), "v1", None, "vapid") == "Missing Auth Token"
        assert parse(seal(V1), "v1", None, "").auth is None

    def test_4_scheme_must_be_known_even_for_v1(self):
        assert refusal(seal(V1), "v1", None, "Basic abc") == "Invalid Auth token"

    def test_5_parameters_need_equals_signs(self):
        assert refusal(seal(V1), "v1", None, "vapid t=a,k=b,") == "Invalid Auth Token"

    def test_6_vapid_needs_k(self):
        text = refusal(seal(V2), "v2", "p256ecdsa=" + KEY, "vapid t=a")
        assert text == "Missing Public Key"

    def test_6_k_replaces_the_crypto_key(self):
        token = parse(seal(V2), "v2", "p256ecdsa=AAAA", f"vapid t=a,k={KEY}")
        assert token.public_key == KEY

    def test_8_v2_needs_authorization(self):
        text = refusal(seal(V2), "v2", "p256ecdsa=" + KEY)
        assert text == "Missing Authorization Header"
        assert refusal(seal(V1), "v2") == "Missing Authorization Header"

    @pytest.mark.parametrize("ckey", [None, "dh=abc", "p256ecdsa="])
    def test_10_v2_needs_a_key(self, ckey):
        assert refusal(seal(V2), "v2", ckey, "bearer x") == "Invalid key data"
        assert refusal(seal(V2), "v2", ckey, "vapid t=x,k=") == "Invalid key data"

    @pytest.mark.parametrize("key", ["A", KEY[:-1] + "!", KEY + "é"])
    def test_11_key_must_decode(self, key):
        assert refusal(seal(V2), "v2", "p256ecdsa=" + key, "bearer x") == "Invalid key data"

    def test_12_key_must_be_the_one_subscribed_with(self):
        other = base64url_encode(b"\x04" + bytes(64))
        assert refusal(seal(V2), "v2", None, f"vapid t=x,k={other}") == "Key mismatch"
        unprefixed = base64url_encode(bytes(range(64)))
        assert refusal(seal(V2), "v2", None, f"vapid t=x,k={unprefixed}") == "Key mismatch"

    def test_authorization_is_judged_before_size_and_version(self):
        assert refusal(seal(b""), "v9", None, "Basic abc") == "Invalid Auth token"

    def test_token_is_judged_before_headers(self):
        with pytest.raises(InvalidToken):
            parse("junk", "v1", "garbage", "Basic abc")

    def test_v1_reports_key_and_auth_unchecked(self):
        token = parse(seal(V1), "v1", "dh=x,p256ecdsa=abc", "WebPush jwt")
        assert token.public_key == "abc"
        assert token.auth == {"scheme": "webpush", "version": 1, "t": "jwt"}

    def test_q23_internal_names_in_the_header_change_nothing(self):
        token = parse(seal(V1), "v1", None, "vapid t=x,k=y,version=7,scheme=evil")
        assert token.auth == {"scheme": "vapid", "version": 2, "t": "x", "k": "y"}
