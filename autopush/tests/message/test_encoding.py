"""Base64url and Fernet token texts (RFC 4648 5, spec/http-endpoint Q39)."""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from hypothesis import given, strategies as st

from autopush.message.encoding import base64url_decode, base64url_encode, decrypt, repad

FOREIGN = st.characters(min_codepoint=0, max_codepoint=0x2FF).filter(
    lambda c: not (c.isascii() and c.isalnum()) and c not in "-_+/="
)


@given(st.binary(max_size=200))
def test_decode_reverses_encode_with_and_without_padding(content):
    text = base64url_encode(content)
    assert "=" not in text
    assert base64url_decode(text) == content
    assert base64url_decode(repad(text)) == content
    assert base64url_decode(text.encode()) == content


def test_encode_takes_text_as_utf8():
    assert base64url_encode("é?>") == base64url_encode("é?>".encode())


def test_encode_uses_the_url_alphabet():
    assert base64url_encode(b"\xfb\xff\xfe") == "-__-"


def test_decode_takes_the_ordinary_alphabet_too():
    assert base64url_decode("+//+") == b"\xfb\xff\xfe"


@given(st.binary(min_size=3, max_size=30), FOREIGN, st.data())
def test_decode_refuses_foreign_characters(content, foreign, data):
    text = base64url_encode(content)
    at = data.draw(st.integers(0, len(text)))
    with pytest.raises(ValueError):
        base64url_decode(text[:at] + foreign + text[at:])


@pytest.mark.parametrize("text", ["A", "AAAAA", "AA=A", "=AAA"])
def test_decode_refuses_impossible_lengths_and_inner_padding(text):
    with pytest.raises(ValueError):
        base64url_decode(text)


@pytest.mark.parametrize(
    ("text", "padded"), [("", ""), ("a", "a==="), ("ab", "ab=="), ("abc", "abc="), ("abcd", "abcd")]
)
def test_repad(text, padded):
    assert repad(text) == padded


class TestDecrypt:
    old, new = Fernet(Fernet.generate_key()), Fernet(Fernet.generate_key())
    fernet = MultiFernet([new, old])

    def test_every_key_opens(self):
        for key in self.old, self.new:
            assert decrypt(self.fernet, key.encrypt(b"x").decode()) == b"x"

    def test_another_key_does_not(self):
        token = Fernet(Fernet.generate_key()).encrypt(b"x").decode()
        with pytest.raises(InvalidToken):
            decrypt(self.fernet, token)

    @pytest.mark.parametrize("junk", ["!!", "!!!!", "\n", "é", "====", "\u0661\u0661\u0661\u0661"])
    def test_q39_foreign_characters_are_refused(self, junk):
        token = self.new.encrypt(b"x").decode()
        for spoilt in token + junk, junk + token, token[:9] + junk + token[9:]:
            with pytest.raises(InvalidToken):
                decrypt(self.fernet, spoilt)

    def test_padding_is_required(self):
        token = self.new.encrypt(bytes(16)).decode()
        assert token.endswith("=")
        with pytest.raises(InvalidToken):
            decrypt(self.fernet, token.rstrip("="))

    @given(st.text(max_size=100))
    def test_any_text_is_judged_without_another_error(self, text):
        with pytest.raises(InvalidToken):
            decrypt(self.fernet, text)
