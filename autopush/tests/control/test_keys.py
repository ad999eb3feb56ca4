"""Decryption, against another implementation of encryption (http-ece)."""

from __future__ import annotations

import os

import http_ece
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings, strategies as st

from autopush.control.keys import CURVE, DecryptionError, Keys, point_of
from autopush.message.encoding import base64url_encode

KEYS = Keys()


def encrypt(keys, data, encoding, record_size=4096):
    """Body and headers of a notification."""
    private, salt = ec.generate_private_key(CURVE), os.urandom(16)
    body = http_ece.encrypt(
        data,
        salt=salt,
        private_key=private,
        dh=keys.public,
        auth_secret=keys.auth,
        version=encoding,
        rs=record_size,
    )
    headers = {"encoding": encoding}
    if encoding == "aesgcm":
        point = base64url_encode(point_of(private.public_key()))
        size = "" if record_size == 4096 else f";rs={record_size}"
        headers["encryption"] = f"keyid=p256dh;salt={base64url_encode(salt)}{size}"
        headers["crypto_key"] = f"keyid=p256dh;dh={point},p256ecdsa=x"
    return body, headers


@settings(max_examples=60, deadline=None)
@given(
    data=st.binary(max_size=3000),
    encoding=st.sampled_from(["aes128gcm", "aesgcm"]),
    record_size=st.sampled_from([4096, 100, 40]),
)
def test_what_others_encrypt(data, encoding, record_size):
    body, headers = encrypt(KEYS, data, encoding, record_size)
    assert KEYS.decrypt(body, headers) == data


@pytest.mark.parametrize("encoding", ["aes128gcm", "aesgcm"])
def test_other_keys(encoding):
    with pytest.raises(DecryptionError, match="other keys"):
        Keys().decrypt(*encrypt(KEYS, b"x", encoding))


@settings(max_examples=100, deadline=None)
@given(body=st.binary(max_size=200), encoding=st.sampled_from(["aes128gcm", "aesgcm", "x", None]))
def test_nonsense(body, encoding):
    with pytest.raises(DecryptionError):
        KEYS.decrypt(body, {"encoding": encoding} if encoding else {})


@settings(max_examples=100, deadline=None)
@given(data=st.data(), encoding=st.sampled_from(["aes128gcm", "aesgcm"]))
def test_what_was_changed(data, encoding):
    body, headers = encrypt(KEYS, b"x" * 50, encoding)
    at = data.draw(st.integers(0, len(body) - 1))
    changed = body[:at] + bytes([body[at] ^ data.draw(st.integers(1, 255))]) + body[at + 1 :]
    try:
        # The record size may be any that is large enough.
        assert KEYS.decrypt(changed, headers) == b"x" * 50
        assert encoding == "aes128gcm" and 16 <= at < 20
    except DecryptionError:
        pass


@pytest.mark.parametrize(
    ("header", "value", "text"),
    [
        ("crypto_key", "", "no dh in the Crypto-Key header"),
        ("crypto_key", "dh=AAAA", "no P-256 key"),
        ("encryption", "", "no salt in the Encryption header"),
        ("encryption", "salt=A", "salt in the Encryption header is not base64url"),
    ],
)
def test_headers_of_the_draft(header, value, text):
    body, headers = encrypt(KEYS, b"x", "aesgcm")
    with pytest.raises(DecryptionError, match=text):
        KEYS.decrypt(body, {**headers, header: value})
