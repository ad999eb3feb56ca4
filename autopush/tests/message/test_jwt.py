"""ES256 tokens (spec/python-api 2.6)."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidSignature
from hypothesis import given, strategies as st

from autopush.message import jwt
from autopush.message.encoding import base64url_encode
from autopush.message.jwt import VerifyJWT, repad
from autopush.tests.message.vapid_support import Sender, part

SENDER = Sender()


def verify(token, key=SENDER.point):
    return VerifyJWT.validate_and_extract_assertion(token, key)


def test_repad_is_documented_here():
    assert repad("abcde") == "abcde==="


class TestExtractSignature:
    def test_splits_at_the_last_dot(self):
        signed, _ = VerifyJWT.extract_signature("a.b.c." + base64url_encode(b"x" * 70))
        assert signed == "a.b.c"

    def test_raw_signature_becomes_der(self):
        raw = (1).to_bytes(32, "big") + (128).to_bytes(32, "big")
        _, signature = VerifyJWT.extract_signature("a." + base64url_encode(raw))
        assert signature == bytes.fromhex("30070201010202" + "0080")

    def test_any_other_length_is_returned_as_is(self):
        for size in 0, 63, 65, 71:
            _, signature = VerifyJWT.extract_signature("a." + base64url_encode(b"x" * size))
            assert signature == b"x" * size

    def test_no_dot_is_an_error(self):
        with pytest.raises(ValueError):
            VerifyJWT.extract_signature("abc")


class TestExtractAssertion:
    @pytest.mark.parametrize("content", [{"a": 1}, [1], "x", None, 5])
    def test_any_json_type_unverified(self, content):
        assert VerifyJWT.extract_assertion(f"x.{part(content)}.y") == content

    @pytest.mark.parametrize(
        "token", ["", "a", "a.!!.c", "a.b.c", "a." + part(b"{") + ".c", "é.é.é"]
    )
    def test_malformed_is_an_error(self, token):
        with pytest.raises(ValueError):
            VerifyJWT.extract_assertion(token)


class TestValidate:
    def test_raw_and_der_signatures_are_accepted(self):
        assert verify(SENDER.token({"a": 1})) == {"a": 1}
        assert verify(SENDER.token({"a": 1}, der=True)) == {"a": 1}

    @pytest.mark.parametrize("header", [{}, {"alg": "HS256"}, b"junk"])
    def test_header_is_not_looked_at(self, header):
        assert verify(SENDER.token({"a": 1}, header)) == {"a": 1}

    def test_another_key_is_invalid(self):
        with pytest.raises(InvalidSignature):
            verify(SENDER.token(), Sender().point)

    def test_changed_content_is_invalid(self):
        header, _, signature = SENDER.token({"a": 1}).split(".")
        with pytest.raises(InvalidSignature):
            verify(f"{header}.{part({'a': 2})}.{signature}")

    @pytest.mark.parametrize(
        "key", [b"", b"\x04", bytes(65), b"\x04" + bytes(64), SENDER.point[1:], SENDER.spki, None]
    )
    def test_unusable_key_is_invalid_signature(self, key):
        with pytest.raises(InvalidSignature):
            verify(SENDER.token(), key)

    @pytest.mark.parametrize("token", ["", "abc", "a.b", "a.b.", "..", "a.b.c", "é.é.é", None, 5])
    def test_malformed_token_is_invalid_signature(self, token):
        with pytest.raises(InvalidSignature):
            verify(token)

    def test_signed_non_json_is_invalid_signature(self):
        with pytest.raises(InvalidSignature):
            verify(SENDER.token(b"not json"))

    @given(st.text(max_size=60))
    def test_any_text_is_invalid_signature(self, token):
        with pytest.raises(InvalidSignature):
            verify(token)

    def test_unexpected_error_is_logged_and_invalid_signature(self, monkeypatch):
        logged = []

        class Broken:
            def verify(self, *args):
                raise RuntimeError("odd")

        class Log:
            def failure(self, text, **kwargs):
                logged.append(text)

        monkeypatch.setattr(jwt, "load_point", lambda key: Broken())
        monkeypatch.setattr(VerifyJWT, "log", Log())
        with pytest.raises(InvalidSignature):
            verify(SENDER.token())
        assert logged == ["Unexpected error processing JWT"]
