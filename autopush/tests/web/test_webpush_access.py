"""spec/http-endpoint 4, 5.2 and 6: who may send to which endpoint."""

import pytest
from hypothesis import given, strategies as st

from autopush.tests.message.vapid_support import Sender
from autopush.tests.web.support import (
    ORIGIN,
    SENDER,
    Endpoint,
    bytes_of,
    error,
    field_errors,
    refused,
    token_for,
    vapid,
)
from autopush.web.webpush import WebPushHandler

CHALLENGE = "vapid, webpush"
WRONG_AUDIENCE = f"Invalid Audience Specified: aud must be {ORIGIN}"
NO_TOKEN = (404, 102, "invalid token")


@pytest.fixture
def endpoint():
    endpoint = Endpoint()
    endpoint.add_user()
    return endpoint


class TestToken:
    """Section 5.2, steps 1 and 7 to 9; quirks Q2, Q39"""

    def push_sealed(self, endpoint, content, version="v1/", **headers):
        return endpoint.push(path=f"/wpush/{version}{endpoint.sealed(content)}", **headers)

    def test_version_1(self, endpoint):
        assert endpoint.push().status == 201

    def test_missing_version_is_version_1(self, endpoint):
        assert endpoint.push(path=endpoint.endpoint().replace("/v1", "")).status == 201

    @pytest.mark.parametrize("size", [31, 33, 63, 64])
    @pytest.mark.parametrize("version", ["v1/", ""])
    def test_version_1_has_32_bytes(self, endpoint, size, version):
        content = (bytes_of() + bytes(32))[:size]
        assert refused(self.push_sealed(endpoint, content, version)) == NO_TOKEN

    @pytest.mark.parametrize("version", ["v0/", "v3/", "v99/", "v01/"])
    def test_unknown_versions(self, endpoint, version):
        assert refused(self.push_sealed(endpoint, bytes_of(), version)) == NO_TOKEN

    def test_restricted_endpoint_without_its_version(self, endpoint):
        path = endpoint.endpoint(SENDER.public_key).replace("/v2", "")
        assert refused(endpoint.push(path=path)) == NO_TOKEN

    @pytest.mark.parametrize("size", [32, 63, 65])
    def test_version_2_has_64_bytes(self, endpoint, size):
        content = (bytes_of() + bytes(64))[:size]
        answer = self.push_sealed(endpoint, content, "v2/", authorization=vapid())
        assert refused(answer) == NO_TOKEN

    def test_foreign_token(self, endpoint):
        other = Endpoint()
        assert refused(endpoint.push(path=other.endpoint())) == NO_TOKEN

    def test_truncated_token(self, endpoint):
        assert refused(endpoint.push(path=endpoint.endpoint()[:-1])) == NO_TOKEN

    @pytest.mark.parametrize("token", ["v1", "!!", "a", "%C3%A9", "%00"])
    def test_garbage(self, endpoint, token):
        assert refused(endpoint.push(path=f"/wpush/{token}")) == NO_TOKEN

    def test_foreign_characters_are_not_skipped(self, endpoint):
        assert refused(endpoint.push(path=endpoint.endpoint() + "!!")) == NO_TOKEN

    def test_padding_and_escapes(self, endpoint):
        path = endpoint.endpoint()
        padding = "=" * (-len(path.rpartition("/")[2]) % 4)
        assert endpoint.push(path=path + padding).status == 201
        assert endpoint.push(path=path + padding.replace("=", "%3D")).status == 201
        assert endpoint.push(path=path.replace("gAAA", "%67AAA")).status == 201

    @pytest.mark.parametrize("header", ["garbage", "dh", "hello world", "dh=A;b", ",", " ; "])
    def test_malformed_crypto_key(self, endpoint, header):
        """The subscription is alive: a sender told 404 would forget it."""
        answer = endpoint.push(crypto_key=header)
        assert refused(answer) == (400, 110, "Invalid Crypto-Key header")
        assert endpoint.push().status == 201

    def test_malformed_crypto_key_on_no_endpoint(self, endpoint):
        path = endpoint.endpoint()[:-1]
        assert refused(endpoint.push(path=path, crypto_key="garbage")) == NO_TOKEN

    def test_empty_crypto_key(self, endpoint):
        assert endpoint.push(crypto_key="").status == 201

    @given(
        st.fixed_dictionaries(
            {},
            optional={
                name: st.text(st.characters(codec="latin-1", min_codepoint=32), max_size=40)
                for name in ("crypto_key", "encryption", "encryption_key", "authorization")
            },
        ),
        st.sampled_from(["aesgcm", "aesgcm128", "aes128gcm", "AESGCM", None]),
        st.booleans(),
    )
    def test_no_header_ends_a_subscription(self, headers, encoding, restricted):
        """404 and 410 make senders forget it: never said because of what a request is like."""
        endpoint = Endpoint()
        endpoint.add_user()
        path = endpoint.endpoint(SENDER.public_key if restricted else None)
        answer = endpoint.push(b"x", path, content_encoding=encoding, **headers)
        assert answer.status in (201, 400, 401)
        if answer.status > 201:
            error(answer)


class TestAuthorizationHeader:
    """Section 5.2, steps 3 to 6 and 8 to 12"""

    @pytest.mark.parametrize(
        ("header", "text"),
        [
            ("abc", "Missing Auth Token"),
            ("basic abc", "Invalid Auth token"),
            ("vapid t", "Invalid Auth Token"),
            ("vapid t=a,k=b,", "Invalid Auth Token"),
            ("vapid t=a", "Missing Public Key"),
        ],
    )
    def test_malformed(self, endpoint, header, text):
        """Also on an endpoint that needs none."""
        expected = (401, 109, f"missing authorization header: {text}")
        answer = endpoint.push(authorization=header)
        assert refused(answer) == expected
        assert answer.headers["www-authenticate"] == CHALLENGE

    def test_version_2_needs_it(self, endpoint):
        answer = endpoint.push(path=endpoint.endpoint(SENDER.public_key))
        expected = (401, 109, "missing authorization header: Missing Authorization Header")
        assert refused(answer) == expected
        assert answer.headers["www-authenticate"] == CHALLENGE

    @pytest.mark.parametrize(
        ("authorization", "crypto_key", "text"),
        [
            ("webpush t", None, "Invalid key data"),
            ("webpush t", "p256ecdsa=!", "Invalid key data"),
            ("vapid t=a,k=abcde", None, "Invalid key data"),
            (f"vapid t=a,k={Sender().public_key}", None, "Key mismatch"),
        ],
    )
    def test_key_of_the_subscription(self, endpoint, authorization, crypto_key, text):
        answer = endpoint.push(
            path=endpoint.endpoint(SENDER.public_key),
            authorization=authorization,
            crypto_key=crypto_key,
        )
        assert refused(answer) == (401, 109, f"missing authorization header: {text}")
        assert answer.headers["www-authenticate"] == CHALLENGE

    @pytest.mark.parametrize(
        ("header", "tags"),
        [
            (f"WebPush {token_for(SENDER)}", ["vapid:1", "scheme:webpush"]),
            (vapid(), ["vapid:2", "scheme:vapid"]),
            (vapid() + ",version=x,scheme=y", ["vapid:2", "scheme:vapid"]),
        ],
    )
    def test_metric(self, endpoint, header, tags):
        """Parameters don't get into tags: Q23, O14"""
        endpoint.push(authorization=header, crypto_key=f"p256ecdsa={SENDER.public_key}")
        assert endpoint.metrics.of("notification.auth") == [(1, tags)]

    @pytest.mark.parametrize(
        ("version", "authorization"),
        [(1, "vapid t=a"), (2, "vapid t=a,k=b"), (3, "vapid t=a,k=b")],
    )
    def test_metric_counts_what_does_not_fit_the_token(self, endpoint, version, authorization):
        """It is parsed after row 5, before rows 6 to 12 are looked at."""
        path = endpoint.endpoint(SENDER.public_key).replace("/v2/", f"/v{version}/")
        assert endpoint.push(path=path, authorization=authorization).status in (401, 404)
        assert endpoint.metrics.of("notification.auth") == [(1, ["vapid:2", "scheme:vapid"])]

    @pytest.mark.parametrize("authorization", ["vapid", "basic x", "vapid t"])
    def test_no_metric_for_what_cannot_be_parsed(self, endpoint, authorization):
        """Rows 3 to 5"""
        assert endpoint.push(authorization=authorization).status == 401
        assert endpoint.metrics.of("notification.auth") == []


class TestVapid:
    """Section 6"""

    def push(self, endpoint, authorization, version=1, **headers):
        path = endpoint.endpoint(SENDER.public_key if version == 2 else None)
        return endpoint.push(path=path, authorization=authorization, **headers)

    def refused_text(self, answer):
        status, errno, text = refused(answer)
        assert (status, errno) == (401, 109)
        assert answer.headers["www-authenticate"] == CHALLENGE
        return text

    @pytest.mark.parametrize("version", [1, 2])
    def test_draft_02(self, endpoint, version):
        assert self.push(endpoint, vapid(), version).status == 201
        assert endpoint.metrics.of("updates.vapid.draft02") == [(1, None)]

    @pytest.mark.parametrize("version", [1, 2])
    @pytest.mark.parametrize("scheme", ["Bearer", "webpush"])
    def test_draft_01(self, endpoint, version, scheme):
        header = f"{scheme} {token_for(SENDER)}"
        key = f"p256ecdsa={SENDER.public_key}"
        assert self.push(endpoint, header, version, crypto_key=key).status == 201
        assert endpoint.metrics.of("updates.vapid.draft01") == [(1, None)]

    def test_no_key_means_no_claims(self, endpoint):
        text = self.refused_text(self.push(endpoint, f"webpush {token_for(SENDER)}"))
        assert text == "Invalid bearer token: No Audience specified"

    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            ({"aud": None}, "No Audience specified"),
            ({"aud": ""}, WRONG_AUDIENCE),
            ({"aud": "https://example.com"}, WRONG_AUDIENCE),
            ({"aud": ["https://example.com"]}, WRONG_AUDIENCE),
            ({"exp": None}, "No expiration"),
            ({"exp": "soon"}, "Invalid expiration: exp is not a number"),
            ({"exp": 1}, "Auth expired: exp is in the past, it is "),
            ({"exp": 9_999_999_999}, "Auth > 24 hours in the future: exp is too late, it is "),
            ({"nbf": 9_999_999_999}, "nbf is in the future, it is "),
        ],
    )
    @pytest.mark.parametrize("version", [1, 2])
    def test_claims(self, endpoint, version, changes, text):
        answer = self.push(endpoint, vapid(**changes), version)
        assert self.refused_text(answer).startswith(f"Invalid bearer token: {text}")
        assert endpoint.node.delivered == []

    @pytest.mark.parametrize("aud", ["http://push.example", [ORIGIN], ORIGIN.upper() + "/"])
    def test_audiences_that_mean_us(self, endpoint, aud):
        assert self.push(endpoint, vapid(aud=aud)).status == 201

    @pytest.mark.parametrize(
        ("aud", "status"),
        [
            ("https://example.org", 201),
            ("https://EXAMPLE.org/", 201),
            ("https://example.org/push", 401),
            ("https://example.org/push/", 401),
            ("https://example.com", 401),
        ],
    )
    def test_with_a_path_in_the_public_url_the_audience_is_its_origin(self, aud, status):
        endpoint = Endpoint(public_url="https://example.org/push")
        endpoint.add_user()
        path = endpoint.endpoint(SENDER.public_key)
        answer = endpoint.push(path=path, authorization=vapid(aud=aud))
        assert answer.status == status
        if status == 201:
            assert answer.headers["location"].startswith("https://example.org/push/m/")
        else:
            assert b'aud must be https://example.org"' in answer.body

    @pytest.mark.parametrize(
        "token",
        [
            "x",
            "a.b.c",
            token_for(Sender()),
            SENDER.token([1]),
            SENDER.token(header={"alg": "HS256"}),
            token_for(SENDER, header={}),
            token_for(SENDER, der=True),
        ],
        ids=["no dots", "garbage", "wrong key", "list", "algorithm", "no algorithm", "DER"],
    )
    def test_token(self, endpoint, token):
        answer = self.push(endpoint, f"vapid t={token},k={SENDER.public_key}")
        assert self.refused_text(answer) == "Invalid Authorization Header"

    @pytest.mark.parametrize("form", [{"header": {}}, {"der": True}, {"nbf": 9_999_999_999}])
    def test_use_cryptography(self, endpoint, form):
        """The option lets through what its back end let through (section 6.3)."""
        endpoint.conf.use_cryptography = True
        header = f"vapid t={token_for(SENDER, **form)},k={SENDER.public_key}"
        assert self.push(endpoint, header).status == 201

    def test_missing_token(self, endpoint):
        answer = self.push(endpoint, f"vapid k={SENDER.public_key}")
        assert self.refused_text(answer) == "Invalid Authorization Header"

    def test_client_certificates_don_t_replace_it(self, endpoint):
        """Q27"""
        endpoint.conf.client_certs = {}
        header = f"vapid t={token_for(Sender())},k={SENDER.public_key}"

        class Open(WebPushHandler):
            def authenticate_peer_cert(self):
                return True

        endpoint.app._routes["wpush"][0].handler_class = Open
        assert self.refused_text(self.push(endpoint, header)) == "Invalid Authorization Header"

    def test_comes_last(self, endpoint):
        answer = self.push(endpoint, vapid(aud="x"), ttl="x")
        assert field_errors(answer)
        assert refused(self.push(endpoint, vapid(aud="x"), topic="!"))[1] == 113
