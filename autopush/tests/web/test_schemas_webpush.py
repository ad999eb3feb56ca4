"""spec/http-endpoint 5.4 to 5.6: what the headers and the body of a message must be like."""

import json

import pytest

from autopush.message.urgency import HIGH, LOW, NAMES, NORMAL, VERY_LOW, to_store
from autopush.tests.web.support import (
    AES128GCM,
    AESGCM,
    UAID,
    Endpoint,
    error,
    field_errors,
    refused,
)

SALT = "salt=S3Y5cEV0Y0pWcGZFRFFrSA"


@pytest.fixture
def endpoint():
    endpoint = Endpoint()
    endpoint.add_user()
    return endpoint


@pytest.fixture
def offline(endpoint):
    del endpoint.store.users[UAID]["node_id"]
    return endpoint


class TestUrgency:
    """spec/broadcasts 2"""

    @pytest.mark.parametrize(
        ("header", "level"),
        [
            *(("very-low", VERY_LOW), ("low", LOW), ("normal", NORMAL), ("high", HIGH)),
            *(("HIGH", HIGH), ("Very-Low", VERY_LOW), (" low ", LOW)),
        ],
    )
    def test_words(self, endpoint, header, level):
        assert endpoint.push(urgency=header).status == 201
        assert endpoint.node.delivered[0][1].urgency == level

    def test_none_is_normal(self, endpoint):
        endpoint.push()
        assert endpoint.node.delivered[0][1].urgency == NORMAL

    @pytest.mark.parametrize(
        "header", ["", "soon", "3", "low, high", "verylow", "very_low", "\xb2"]
    )
    def test_anything_else(self, endpoint, header):
        answer = endpoint.push(urgency=header)
        text = "Must be one of: very-low, low, normal, high."
        assert field_errors(answer) == {"headers": {"urgency": [text]}}
        assert json.loads(answer.body)["errno"] == 116
        assert endpoint.node.delivered == []

    @pytest.mark.parametrize("level", range(4))
    def test_stored(self, offline, level):
        assert offline.push(urgency=NAMES[level]).status == 201
        (row,) = offline.store.messages[offline.store.months.current, UAID].values()
        assert row.urgency == to_store(level)


class TestTTL:
    """Section 5.4"""

    @pytest.mark.parametrize("ttl", ["abc", "1.5", "", "5,6", "1_000", "0x10", "\xb2", "--1"])
    def test_not_an_integer(self, endpoint, ttl):
        answer = endpoint.push(ttl=ttl)
        assert field_errors(answer) == {"headers": {"ttl": ["Not a valid integer."]}}
        assert endpoint.node.delivered == []

    @pytest.mark.parametrize(
        ("ttl", "seconds"),
        [
            ("0", 0),
            ("+5", 5),
            ("007", 7),
            ("2592000", 2592000),
            ("2592001", 2592000),
            ("5184000", 2592000),
        ],
    )
    def test_integer(self, endpoint, ttl, seconds):
        assert endpoint.push(ttl=ttl).headers["ttl"] == str(seconds)
        assert endpoint.node.delivered[0][1].ttl == seconds

    def test_huge(self, endpoint):
        assert endpoint.push(ttl="9" * 100).headers["ttl"] == "2592000"

    def test_negative(self, endpoint):
        assert refused(endpoint.push(ttl="-1")) == (400, 114, "TTL must be greater than 0")

    def test_absent_and_connected(self, endpoint):
        """Q32"""
        assert endpoint.push(ttl=None).headers["ttl"] == "0"
        assert endpoint.node.delivered[0][1].ttl is None

    def test_absent_and_not_connected(self, offline):
        answer = offline.push(ttl=None)
        url = "https://webpush-wg.github.io/webpush-protocol/#rfc.section.6.2"
        assert error(answer) == (400, 111, f"Missing TTL Header, see: {url}")


class TestRequireTTL:
    """RFC 8030 5.2, ``--require_ttl``"""

    @pytest.fixture(params=["connected", "away"])
    def strict(self, request):
        endpoint = Endpoint(require_ttl=True)
        endpoint.add_user(connected=request.param == "connected")
        return endpoint

    @pytest.mark.parametrize("headers", [{}, {"topic": "a"}])
    def test_absent(self, strict, headers):
        url = "https://webpush-wg.github.io/webpush-protocol/#rfc.section.6.2"
        answer = strict.push(ttl=None, **headers)
        assert refused(answer) == (400, 111, f"Missing TTL Header, see: {url}")
        assert strict.node.delivered == strict.messages() == []

    @pytest.mark.parametrize("ttl", ["0", "60"])
    def test_present(self, strict, ttl):
        assert strict.push(ttl=ttl).status == 201

    def test_subscription_that_has_ended(self, strict):
        """Comes first: who is to forget it need not learn about TTL before."""
        assert refused(strict.push(path=strict.endpoint(uaid="b1" * 16), ttl=None))[0] == 410


class TestTopic:
    """Section 5.4"""

    @pytest.mark.parametrize("topic", ["a", "a" * 32, "aZ0-_", "ab=="])
    def test_valid(self, endpoint, topic):
        assert endpoint.push(topic=topic).status == 201
        assert endpoint.node.delivered[0][1].topic == topic

    def test_too_long(self, endpoint):
        expected = (400, 113, "Topic must be no greater than 32 characters")
        assert refused(endpoint.push(topic="a" * 33)) == expected

    @pytest.mark.parametrize("topic", ["", "a=b", "a b", "a+b", "\xe9", "="])
    def test_alphabet(self, endpoint, topic):
        expected = (400, 113, "Topic must be URL and Filename safe Base64 alphabet")
        assert refused(endpoint.push(topic=topic)) == expected

    def test_comes_before_ttl(self, endpoint):
        assert refused(endpoint.push(topic="!", ttl="-1"))[1] == 113
        assert refused(endpoint.push(topic="!", ttl="x"))[1] == 113


class TestSize:
    """Section 5.5, with status 413 (Q6)"""

    def test_limit(self, endpoint):
        assert endpoint.push(b"x" * 4096, **AES128GCM).status == 201
        answer = endpoint.push(b"x" * 4097, **AES128GCM)
        assert refused(answer) == (413, 104, "Data payload must be smaller than 4096")

    def test_configured_limit(self):
        """Q1"""
        endpoint = Endpoint(max_data=10)
        endpoint.add_user()
        assert endpoint.push(b"x" * 10, **AES128GCM).status == 201
        answer = endpoint.push(b"x" * 11, **AES128GCM)
        assert refused(answer) == (413, 104, "Data payload must be smaller than 10")

    def test_comes_after_other_rules_and_before_field_errors(self, endpoint):
        assert refused(endpoint.push(b"x" * 5000))[1] == 110
        assert refused(endpoint.push(b"x" * 5000, ttl="x", **AES128GCM))[1] == 104


class TestContentEncoding:
    """Section 5.6"""

    def refused_text(self, endpoint, **headers):
        status, errno, text = refused(endpoint.push(b"body", **headers))
        assert (status, errno) == (400, 110)
        return text

    @pytest.mark.parametrize("encoding", [None, "", "gzip", "aes128gcm,aesgcm"])
    def test_unknown(self, endpoint, encoding):
        assert self.refused_text(endpoint, content_encoding=encoding) == "Unknown Content-Encoding"

    @pytest.mark.parametrize("encoding", ["AES128GCM", "Aes128Gcm", "aes128GCM"])
    def test_in_any_case(self, endpoint, encoding):
        """RFC 9110 8.4.1; user agents are told the name as they know it."""
        assert endpoint.push(b"body", content_encoding=encoding).status == 201
        assert endpoint.node.delivered[0][1].headers["encoding"] == "aes128gcm"
        text = self.refused_text(endpoint, content_encoding=encoding, encryption=SALT)
        assert text == "Do not include 'salt' in aes128gcm Encryption header"

    def test_nothing_is_checked_without_a_body(self, endpoint):
        answer = endpoint.push(content_encoding="gzip", encryption="x", encryption_key="y")
        assert answer.status == 201
        assert endpoint.node.delivered[0][1].headers is None

    # ---- aesgcm128

    def test_aesgcm128(self, endpoint):
        headers = {"content_encoding": "aesgcm128", "encryption": SALT}
        assert endpoint.push(b"body", encryption_key="dh=abc", **headers).status == 201
        text = self.refused_text(endpoint, encryption_key="garbage", **headers)
        assert text == "Invalid dh value in Encryption-Key header"
        text = self.refused_text(endpoint, encryption_key="dh=", **headers)
        assert text == "Invalid dh value in Encryption-Key header"

    def test_aesgcm128_needs_both_headers(self, endpoint):
        missing = ["Missing data for required field."]
        answer = endpoint.push(b"body", content_encoding="aesgcm128")
        assert field_errors(answer) == {
            "headers": {"encryption": missing, "encryption-key": missing}
        }
        answer = endpoint.push(b"body", content_encoding="aesgcm128", encryption=SALT)
        assert field_errors(answer) == {"headers": {"encryption-key": missing}}

    def test_aesgcm128_with_dh_in_crypto_key(self, endpoint):
        """Also when other headers are missing: a rule with its own number comes first."""
        text = self.refused_text(endpoint, content_encoding="aesgcm128", crypto_key="dh=abc")
        assert (
            text == "dh value in Crypto-Key header not valid for 01 or earlier webpush-encryption"
        )

    # ---- aesgcm

    def test_aesgcm(self, endpoint):
        assert endpoint.push(b"body", **AESGCM).status == 201

    @pytest.mark.parametrize(
        "encryption", ["", "garbage", "salt=", "SALT=abc", "salt=a+b", "salt=a=b", "keyid=x"]
    )
    def test_aesgcm_salt(self, endpoint, encryption):
        text = self.refused_text(endpoint, **{**AESGCM, "encryption": encryption})
        assert text == "Invalid salt value in Encryption header"

    def test_aesgcm_without_encryption(self, endpoint):
        answer = endpoint.push(b"body", content_encoding="aesgcm", ttl="x")
        assert field_errors(answer) == {
            "headers": {
                "ttl": ["Not a valid integer."],
                "encryption": ["Missing data for required field."],
            }
        }

    def test_aesgcm_without_crypto_key(self, endpoint):
        """Q10"""
        assert endpoint.push(b"body", **{**AESGCM, "crypto_key": None}).status == 201

    @pytest.mark.parametrize("crypto_key", ["", "dh=", "keyid=x"])
    def test_aesgcm_without_dh(self, endpoint, crypto_key):
        text = self.refused_text(endpoint, **{**AESGCM, "crypto_key": crypto_key})
        assert text == "Invalid dh value in Encryption-Key header"

    def test_aesgcm_with_any_dh(self, endpoint):
        """Q9"""
        assert endpoint.push(b"body", **{**AESGCM, "crypto_key": "dh=!!"}).status == 201

    def test_aesgcm_with_encryption_key(self, endpoint):
        text = self.refused_text(endpoint, **AESGCM, encryption_key="dh=abc")
        assert text == "Encryption-Key header not valid for 02 or later webpush-encryption"

    def test_order_within_an_encoding(self, endpoint):
        headers = {"crypto_key": "dh=", "encryption": "x", "encryption_key": "x"}
        text = self.refused_text(endpoint, content_encoding="aesgcm", **headers)
        assert text == "Invalid dh value in Encryption-Key header"
        headers["crypto_key"] = "dh=x"
        text = self.refused_text(endpoint, content_encoding="aesgcm", **headers)
        assert text == "Invalid salt value in Encryption header"

    # ---- aes128gcm

    def test_aes128gcm(self, endpoint):
        assert endpoint.push(b"body", **AES128GCM).status == 201
        headers = {"encryption": "garbage", "crypto_key": "p256ecdsa=abc", "encryption_key": "x"}
        assert endpoint.push(b"body", **AES128GCM, **headers).status == 201

    def test_aes128gcm_with_salt_or_dh(self, endpoint):
        text = self.refused_text(endpoint, **AES128GCM, encryption="salt=abc")
        assert text == "Do not include 'salt' in aes128gcm Encryption header"
        text = self.refused_text(endpoint, **AES128GCM, crypto_key="dh=abc")
        assert text == "Do not include 'dh' in aes128gcm Crypto-Key header"

    # ---- all

    def test_underscores_in_header_names(self, endpoint):
        """Q34"""
        head = "\r\n".join(
            [
                f"POST {endpoint.endpoint()} HTTP/1.1",
                "Host: h",
                "TTL: 60",
                "Content-Length: 4",
                "content_encoding: gzip",
                "Content-Encoding: aes128gcm",
                "crypto_key: dh=abc",
            ]
        )
        endpoint.wire.send(f"{head}\r\n\r\nbody".encode())
        assert endpoint.wire.answers("POST")[0].status == 201
        headers = endpoint.node.delivered[0][1].headers
        assert headers == {"encoding": "aes128gcm"}

    @pytest.mark.parametrize("name", ["encryption", "crypto_key"])
    def test_non_ascii(self, endpoint, name):
        """Q12"""
        headers = {**AESGCM, name: AESGCM[name] + ";x=\xe9"}
        assert "Invalid characters" in self.refused_text(endpoint, **headers)
