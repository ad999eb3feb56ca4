"""UAIDs and channel ids, and their hashes (spec/python-api 2.8)."""

from __future__ import annotations

import uuid

import pytest

from autopush.ids import (
    generate_hash,
    hash_uaid,
    normalize_id,
    validate_uaid,
)

UUID = uuid.UUID("0123abcd-0123-4012-8012-0123456789ab")


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
