"""Token authentication to APNs (spec/bridges 10): an addition."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from autopush.router.apnstoken import KEEP_FOR, REFRESH_AFTER, ProviderToken


def pem_of(key, encryption=None):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


def new_key(curve=None):
    key = ec.generate_private_key(curve or ec.SECP256R1())
    return key, pem_of(key)


class Rig:
    def __init__(self):
        self.now = 1_700_000_000.5
        self.key, pem = new_key()
        self.token = ProviderToken("ABC123DEFG", "TEAM456789", pem, lambda: self.now)


@pytest.fixture
def rig():
    return Rig()


def part(token, number):
    text = token.split(".")[number]
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_token_is_an_es256_jwt(rig):
    token = rig.token.get()
    assert json.loads(part(token, 0)) == {"alg": "ES256", "kid": "ABC123DEFG"}
    assert json.loads(part(token, 1)) == {"iss": "TEAM456789", "iat": 1_700_000_000}
    signature = part(token, 2)
    assert len(signature) == 64
    numbers = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    rig.key.public_key().verify(
        encode_dss_signature(*numbers),
        token.rpartition(".")[0].encode(),
        ec.ECDSA(hashes.SHA256()),
    )
    assert "=" not in token


def test_token_is_kept_then_refreshed_within_the_hour(rig):
    first = rig.token.get()
    rig.now += REFRESH_AFTER - 1
    assert rig.token.get() == first
    rig.now += 2
    assert rig.token.get() != first
    assert KEEP_FOR < REFRESH_AFTER < 3600


def test_token_from_the_future_is_made_again(rig):
    first = rig.token.get()
    rig.now -= 3600  # the clock was set back
    assert rig.token.get() != first


def test_renewing_no_more_often_than_every_20_minutes(rig):
    first = rig.token.get()
    rig.now += KEEP_FOR - 1
    assert rig.token.renew(first) is False
    assert rig.token.get() == first
    rig.now += 1
    assert rig.token.renew(first) is True
    second = rig.token.get()
    assert second != first


def test_many_requests_with_one_expired_token_renew_it_once(rig):
    first = rig.token.get()
    rig.now += KEEP_FOR
    assert rig.token.renew(first) is True
    second = rig.token.get()
    rig.now += 1
    assert rig.token.renew(first) is True
    assert rig.token.get() == second


@pytest.mark.parametrize(
    "pem",
    [
        b"junk",
        new_key(ec.SECP384R1())[1],
        pem_of(ed25519.Ed25519PrivateKey.generate()),
        pem_of(new_key()[0], BestAvailableEncryption(b"secret")),
    ],
    ids=["junk", "curve", "ed25519", "encrypted"],
)
def test_unusable_keys(pem):
    with pytest.raises(ValueError):
        ProviderToken("K", "T", pem)


def test_repr_shows_no_secret(rig):
    assert rig.token.get() not in repr(rig.token)
