"""The documented names of small helpers, and :func:`autopush.utils.extract_jwt`
(spec/python-api 2.8)."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidSignature

from autopush import utils
from autopush.message.encoding import base64url_encode
from autopush.tests.message.vapid_support import Sender, claims
from autopush.utils import (
    extract_jwt,
)


def test_documented_names_exist():
    for name in utils.__all__:
        assert hasattr(utils, name), name
    assert (utils.MS_MULT, utils.NS_MULT) == (10**3, 10**6)


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
