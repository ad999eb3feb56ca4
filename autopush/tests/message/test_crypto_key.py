"""Parameter headers (spec/python-api 2.7, spec/http-endpoint 5.6)."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from autopush.message.crypto_key import CryptoKey, CryptoKeyException

NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=10)
VALUES = st.text("ABCDEFabcdef0123456789-_=", max_size=20)
GROUPS = st.lists(st.dictionaries(NAMES, VALUES, min_size=1, max_size=4), min_size=1, max_size=4)


def test_groups_are_split_at_commas_and_parameters_at_semicolons():
    key = CryptoKey('keyid="p256dh";dh="abc==",p256ecdsa=xyz')
    assert key.get_keyid("p256dh") == {"keyid": "p256dh", "dh": "abc=="}
    assert key.get_label("dh") == "abc=="
    assert key.get_label("p256ecdsa") == "xyz"


def test_first_group_with_the_label_wins():
    assert CryptoKey("a=1,dh=2,dh=3").get_label("dh") == "2"


def test_first_group_with_the_keyid_wins():
    assert CryptoKey("keyid=k;v=1,keyid=k;v=2").get_keyid("k") == {"keyid": "k", "v": "1"}


def test_last_duplicate_in_a_group_wins():
    assert CryptoKey("dh=1;dh=2").get_label("dh") == "2"


def test_what_is_not_there_is_none():
    assert CryptoKey("a=1").get_label("b") is None
    assert CryptoKey("a=1").get_keyid("b") is None


def test_names_and_values_are_stripped():
    assert CryptoKey(' dh \t= " x " ; a = b ').get_label("dh") == "x"
    assert CryptoKey("dh=x; keyid = k").get_keyid("k") == {"dh": "x", "keyid": "k"}


def test_labels_are_case_sensitive():
    assert CryptoKey("DH=x").get_label("dh") is None


@pytest.mark.parametrize(
    "header", ["", "garbage", ",", " ;, ", "a=1,b", "a;b=1", "a=1;b;", "a=1;;b"]
)
def test_parameter_without_equals_sign_is_malformed(header):
    with pytest.raises(CryptoKeyException, match="Invalid Crypto Key value"):
        CryptoKey(header)
    assert CryptoKey.parse_and_get_label(header, "a") is None


@pytest.mark.parametrize("header", ["a=1,", "a=1;", ";a=1", ",a=1", "a=1,,", "a=1; ;,", " , a=1"])
def test_nothing_between_separators_is_nothing(header):
    """RFC 9110 5.6.1; what some libraries send"""
    assert CryptoKey(header).to_string() == 'a="1"'


@given(GROUPS, st.sampled_from([",", ", ,", ";,", ",;"]), st.sampled_from([";", ";;", "; ;"]))
def test_empty_items_change_nothing(groups, between, inside):
    items = [[f"{name}={value}" for name, value in group.items()] for group in groups]
    plain = ",".join(map(";".join, items))
    padded = between.join(map(inside.join, items)) + between
    assert CryptoKey(padded).to_string() == CryptoKey(plain).to_string()


def test_parse_and_get_label():
    assert CryptoKey.parse_and_get_label("a=1;b=2", "b") == "2"
    assert CryptoKey.parse_and_get_label("a=1;b=2", "c") is None


def test_to_string_is_in_order_and_quoted():
    assert CryptoKey('b=2; a="1" ,c=3').to_string() == 'b="2";a="1",c="3"'


@given(GROUPS)
def test_to_string_parses_to_the_same(groups):
    text = ",".join(";".join(f"{n}={v}" for n, v in group.items()) for group in groups)
    key = CryptoKey(text)
    again = CryptoKey(key.to_string())
    assert again.to_string() == key.to_string()
    for label in {name for group in groups for name in group}:
        first = next(group[label] for group in groups if label in group)
        assert key.get_label(label) == again.get_label(label) == first


@given(st.text(max_size=100), st.text(max_size=5))
def test_any_text_parses_or_is_malformed(header, label):
    value = CryptoKey.parse_and_get_label(header, label)
    assert value is None or value in header
    items = [item for group in header.split(",") for item in group.split(";")]
    if any(item.strip() and "=" not in item for item in items):  # empty ones mean nothing
        with pytest.raises(CryptoKeyException):
            CryptoKey(header)
