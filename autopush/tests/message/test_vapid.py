"""VAPID (spec/http-endpoint 6)."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, strategies as st

from autopush.exceptions import InvalidRequest, VapidAuthException
from autopush.message import vapid
from autopush.message.encoding import base64url_encode
from autopush.message.jwt import VerifyJWT
from autopush.message.vapid import (
    LEEWAY,
    Verified,
    VerifiedTokens,
    authenticate,
    check_claims,
    decipher_public_key,
    is_audience,
    parse_auth_header,
    verify,
)
from autopush.tests.message.vapid_support import ES256, NOW, ORIGIN, Sender, claims, part

SENDER = Sender()
KEY = SENDER.public_key


@pytest.fixture(autouse=True)
def empty_cache():
    vapid.verified_tokens.clear()


# ------------------------------------------------------------------------ 5.2, 6.2: the header


class TestParseAuthHeader:
    @pytest.mark.parametrize("header", ["", "vapid", "vapid;t=a", "sometoken"])
    def test_no_space_is_a_missing_token(self, header):
        with pytest.raises(VapidAuthException, match=r"^Missing Auth Token$"):
            parse_auth_header(header)

    @pytest.mark.parametrize("header", ["Basic abc", "aesgcm t=a,k=b", " vapid t=a"])
    def test_unknown_scheme_is_empty(self, header):
        assert parse_auth_header(header) == {}

    @pytest.mark.parametrize("scheme", ["bearer", "WebPush", "BEARER", "webpush"])
    def test_draft_01_token_is_everything_after_the_first_space(self, scheme):
        assert parse_auth_header(f"{scheme} a.b, c") == {
            "scheme": scheme.lower(),
            "version": 1,
            "t": "a.b, c",
        }

    @pytest.mark.parametrize(
        "header",
        [
            "vapid t=T,k=K",
            "Vapid  k=K ,  t=T,  foo=bar",
            "VAPID t=T,\tk=K",
            'vapid t="T",k="K"',
            'vapid t="T", k=K, foo="a, b=c \\" d"',
            'vapid foo="",t=T,k=K',
            "vapid t=old,t=T,k=K",
        ],
    )
    def test_draft_02_forms(self, header):
        assert parse_auth_header(header) == {"scheme": "vapid", "version": 2, "t": "T", "k": "K"}

    def test_values_are_split_at_the_first_equals_sign(self):
        assert parse_auth_header("vapid t=a==,k=b=c=")["k"] == "b=c="

    @pytest.mark.parametrize(
        "header",
        [
            "vapid t=T,k=K,",
            "vapid ,t=T,k=K",
            "vapid t",
            "vapid ",
            'vapid t="T',
            'vapid t="T"x,k=K',
            'vapid t=T",k=K',
            'vapid t="T",',
            'vapid "t"=T',
            'vapid t="T\\"',
        ],
    )
    def test_malformed_parameters(self, header):
        with pytest.raises(VapidAuthException, match=r"^Invalid Auth Token$"):
            parse_auth_header(header)

    def test_q23_only_t_and_k_are_read(self):
        header = "vapid t=T,k=K,version=9,scheme=x,aud=y"
        assert parse_auth_header(header) == {"scheme": "vapid", "version": 2, "t": "T", "k": "K"}

    def test_names_are_case_sensitive(self):
        assert "k" not in parse_auth_header("vapid t=T,K=K")

    @given(st.text(max_size=80))
    def test_any_parameters_parse_or_are_malformed(self, text):
        try:
            auth = parse_auth_header("vapid " + text)
        except VapidAuthException as exc:
            assert str(exc) == "Invalid Auth Token"
        else:
            assert auth["version"] == 2
            assert set(auth) <= {"scheme", "version", "t", "k"}

    @given(
        st.text("abcXYZ019-_.", max_size=20),
        st.text("abcXYZ019-_=", max_size=20),
        st.booleans(),
        st.booleans(),
        st.text(st.characters(codec="ascii", exclude_characters='"\\\x00\r\n'), max_size=10),
    )
    def test_what_is_written_is_read(self, token, key, quote_t, quote_k, other):
        t = f'"{token}"' if quote_t else token
        k = f'"{key}"' if quote_k else key
        auth = parse_auth_header(f'vapid t={t}, k={k} , x="{other}"')
        assert (auth["t"], auth["k"]) == (token, key)

    def test_long_headers_take_linear_time(self):
        for text in '"' * 16000, 'a="' * 5000, "\\" * 16000, 'a="\\' * 4000, " " * 16000 + '"':
            with pytest.raises(VapidAuthException):
                parse_auth_header("vapid " + text)


# -------------------------------------------------------------------------- 6.3: public keys


class TestDecipherPublicKey:
    def test_q25_raw_65_raw_64_and_spki_are_the_same_key(self):
        for form in SENDER.point, SENDER.point[1:], SENDER.spki:
            assert decipher_public_key(base64url_encode(form)) == SENDER.point

    def test_padding_is_optional(self):
        assert decipher_public_key(KEY + "=") == SENDER.point

    @pytest.mark.parametrize(
        "key",
        [
            b"",
            SENDER.point[:-2],
            b"\x05" + SENDER.point[1:],
            SENDER.point + b"x",
            SENDER.spki[:-1],
            b"0V0" + bytes(85),
            Sender(ec.SECP256K1()).spki,
            Sender(ec.SECP384R1()).spki,
            b"\x31" + SENDER.spki[1:],
        ],
    )
    def test_anything_else_is_unknown(self, key):
        with pytest.raises(ValueError, match="Unknown public key format specified"):
            decipher_public_key(base64url_encode(key))

    def test_q39_foreign_characters_are_refused(self):
        for key in KEY[:5] + "!" + KEY[5:], KEY + "!!", "\n" + KEY:
            with pytest.raises(ValueError):
                decipher_public_key(key)


# ------------------------------------------------------------------------------- 6.3: tokens


class TestVerify:
    def test_returns_the_claims(self):
        assert verify(SENDER.token(), KEY, NOW) == claims()

    def test_uses_the_present_by_default(self):
        with pytest.raises(ValueError):
            verify(SENDER.token(claims(nbf=9_999_999_999)), KEY)
        assert verify(SENDER.token(claims(nbf=NOW)), KEY) == claims(nbf=NOW)

    @pytest.mark.parametrize("form", [SENDER.point, SENDER.point[1:], SENDER.spki])
    def test_every_key_form_verifies(self, form):
        assert verify(SENDER.token(), base64url_encode(form), NOW) == claims()

    def test_der_signature_is_refused(self):
        with pytest.raises(InvalidSignature):
            verify(SENDER.token(der=True), KEY, NOW)

    def test_another_key_is_refused_although_the_token_is_cached(self):
        token = SENDER.token()
        verify(token, KEY, NOW)
        with pytest.raises(InvalidSignature):
            verify(token, Sender().public_key, NOW)

    def test_changed_token_is_refused_although_the_original_is_cached(self):
        token = SENDER.token()
        verify(token, KEY, NOW)
        header, _, signature = token.split(".")
        with pytest.raises(InvalidSignature):
            verify(f"{header}.{part(claims(aud='x'))}.{signature}", KEY, NOW)

    @pytest.mark.parametrize("alg", ["HS256", "none", "es256", "RS256", None, ["ES256"]])
    def test_q26_other_algorithms_are_refused(self, alg):
        with pytest.raises(ValueError):
            verify(SENDER.token(header={"typ": "JWT", "alg": alg}), KEY, NOW)

    def test_header_without_algorithm_is_refused(self):
        with pytest.raises(ValueError):
            verify(SENDER.token(header={}), KEY, NOW)

    @pytest.mark.parametrize("header", [b"junk", [], "ES256", None])
    def test_header_must_be_a_json_object(self, header):
        with pytest.raises(ValueError):
            verify(SENDER.token(header=header), KEY, NOW)

    @pytest.mark.parametrize("content", [[], "x", 5, None, b"junk", b'{"a": NaN}', b"\xff"])
    def test_claims_must_be_a_json_object(self, content):
        signed = f"{part(ES256)}.{part(content)}"
        token = f"{signed}.{base64url_encode(SENDER.raw_signature(signed))}"
        with pytest.raises((ValueError, InvalidSignature)):
            verify(token, KEY, NOW)

    @pytest.mark.parametrize("token", ["a", "a.b", "a.b.c.d", "", "..", SENDER.token() + ".x"])
    def test_token_must_have_three_parts(self, token):
        with pytest.raises((ValueError, InvalidSignature)):
            verify(token, KEY, NOW)

    def test_empty_signature_is_refused(self):
        token = SENDER.token().rpartition(".")[0] + "."
        with pytest.raises(InvalidSignature):
            verify(token, KEY, NOW)

    @pytest.mark.parametrize(
        "changes",
        [
            *({"nbf": NOW}, {"nbf": 0}, {"nbf": str(NOW)}, {"nbf": NOW + LEEWAY}),
            *({"iat": NOW + 5}, {"iat": 1.5}, {"jti": "x"}),
        ],
    )
    def test_registered_claims_that_are_well(self, changes):
        assert verify(SENDER.token(claims(**changes)), KEY, NOW) == claims(**changes)

    @pytest.mark.parametrize(
        "changes",
        [
            {"nbf": NOW + LEEWAY + 1},
            {"nbf": "soon"},
            {"nbf": [1]},
            {"nbf": {}},
            {"iat": "now"},
            {"iat": []},
            {"jti": 5},
            {"jti": []},
            {"at_hash": "x"},
            {"at_hash": False},
        ],
    )
    def test_registered_claims_that_fail(self, changes):
        with pytest.raises(ValueError):
            verify(SENDER.token(claims(**changes)), KEY, NOW)

    @pytest.mark.parametrize("name", ["nbf", "iat", "jti"])
    def test_registered_claim_null_fails(self, name):
        with pytest.raises(ValueError):
            verify(SENDER.token({**claims(), name: None}), KEY, NOW)

    @given(st.text(max_size=60), st.text(max_size=60))
    def test_any_texts_are_refused_with_the_documented_errors(self, token, key):
        with pytest.raises((ValueError, InvalidSignature)):
            verify(token, key, NOW)


class TestLenient:
    """What ``--use_cryptography`` lets through (section 6.3)."""

    @pytest.mark.parametrize(
        "token",
        [
            SENDER.token(),
            SENDER.token(der=True),
            SENDER.token(header={}),
            SENDER.token(header={"typ": "JWT"}),
        ],
    )
    def test_signature_forms_and_headers(self, token):
        assert verify(token, KEY, NOW, lenient=True) == claims()

    @pytest.mark.parametrize(
        "changes", [{"nbf": NOW + 100}, {"iat": "now"}, {"jti": 5}, {"at_hash": "x"}]
    )
    def test_registered_claims_are_not_checked(self, changes):
        content = claims(**changes)
        assert verify(SENDER.token(content), KEY, NOW, lenient=True) == content

    @pytest.mark.parametrize("alg", ["HS256", "none", "es256", None])
    def test_q26_other_algorithms_are_refused(self, alg):
        with pytest.raises(ValueError):
            verify(SENDER.token(header={"alg": alg}), KEY, NOW, lenient=True)

    def test_signature_counts(self):
        with pytest.raises(InvalidSignature):
            verify(SENDER.token(), Sender().public_key, NOW, lenient=True)

    def test_what_was_let_through_is_not_good_for_others(self):
        token = SENDER.token(der=True)
        verify(token, KEY, NOW, lenient=True)
        with pytest.raises(InvalidSignature):
            verify(token, KEY, NOW)


class TestCache:
    @pytest.fixture
    def verified(self, monkeypatch):
        """The tokens whose signature was really checked."""
        seen = []
        real = VerifyJWT.validate_and_extract_assertion

        def spy(token, key):
            seen.append(token)
            return real(token, key)

        monkeypatch.setattr(VerifyJWT, "validate_and_extract_assertion", staticmethod(spy))
        return seen

    def test_verified_once_until_it_expires(self, verified):
        token = SENDER.token(claims(exp=NOW + 10))
        for now in NOW, NOW + 5, NOW + 10 + LEEWAY:
            assert verify(token, KEY, now) == claims(exp=NOW + 10)
        assert len(verified) == 1
        verify(token, KEY, NOW + 11 + LEEWAY)
        assert len(verified) == 2

    def test_changes_to_the_result_are_not_remembered(self, verified):
        token = SENDER.token()
        verify(token, KEY, NOW)["aud"] = "x"
        verify(token, KEY, NOW)["aud"] = "y"
        assert verify(token, KEY, NOW) == claims()

    @pytest.mark.parametrize("exp", [None, "x", [], NOW - LEEWAY - 1, NOW + 86401 + LEEWAY])
    def test_token_without_usable_expiry_is_not_kept(self, verified, exp):
        token = SENDER.token(claims(exp=exp))
        verify(token, KEY, NOW)
        verify(token, KEY, NOW)
        assert len(verified) == 2
        assert len(vapid.verified_tokens) == 0

    def test_claims_of_a_kept_token_are_judged_anew(self, verified):
        """Kept is that the signature is right; the time is another one each time."""
        token = SENDER.token(claims(nbf=NOW + 100))
        for _ in range(2):
            with pytest.raises(ValueError, match="nbf is in the future"):
                verify(token, KEY, NOW)
        assert verify(token, KEY, NOW + 40)
        assert len(verified) == 1

    def test_long_token_is_not_kept(self):
        token = SENDER.token(claims(sub="x" * vapid.MAX_CACHED_LENGTH))
        verify(token, KEY, NOW)
        assert len(vapid.verified_tokens) == 0

    def test_is_bounded_and_keeps_what_is_used(self):
        cache = VerifiedTokens(100)
        busy, other = Verified(NOW, {"sub": "busy"}), Verified(NOW, {})
        cache.put(("busy", "k"), busy)
        for i in range(10_000):
            cache.put((str(i), "k"), other)
            assert cache.get(("busy", "k"), NOW) is busy
            assert len(cache) <= 100
        assert cache.get(("0", "k"), NOW) is None
        assert cache.get(("9999", "k"), NOW) is other


# ------------------------------------------------------------------- 6.4: checks after decoding


def refusal(function, *args):
    with pytest.raises(InvalidRequest) as caught:
        function(*args)
    error = caught.value
    assert error.status_code == 401
    assert error.errno == 109
    assert error.headers == {"www-authenticate": "vapid, webpush"}
    return str(error)


class TestCheckClaims:
    def test_valid_claims_pass(self):
        check_claims(claims(), ORIGIN, NOW)

    @pytest.mark.parametrize("content", [None, [], "x", 5])
    def test_claims_must_be_an_object(self, content):
        assert refusal(check_claims, content, ORIGIN, NOW) == "Invalid Authorization Header"

    def test_no_audience(self):
        text = "Invalid bearer token: No Audience specified"
        assert refusal(check_claims, claims(aud=None), ORIGIN, NOW) == text
        assert refusal(check_claims, {}, ORIGIN, NOW) == text

    @pytest.mark.parametrize(
        "aud",
        [
            *("", "https://example.com", ORIGIN + "//", ORIGIN + "/x", ORIGIN + ":8443", 5, {}, []),
            *("http" + ORIGIN[5:], ORIGIN + "?", ORIGIN + "#", ORIGIN[:8] + "u@" + ORIGIN[8:]),
            *(ORIGIN + ".", ORIGIN + ".evil.example", " " + ORIGIN, ORIGIN + "\n", ORIGIN + ":"),
            *(["https://example.com", 5, None, [ORIGIN]], ORIGIN[8:], "//" + ORIGIN[8:], True),
        ],
    )
    def test_wrong_audience(self, aud):
        """Who is refused is told what is expected, and nothing of what came."""
        text = f"Invalid bearer token: Invalid Audience Specified: aud must be {ORIGIN}"
        assert refusal(check_claims, {**claims(), "aud": aud}, ORIGIN, NOW) == text

    def test_no_expiration(self):
        text = "Invalid bearer token: No expiration"
        assert refusal(check_claims, claims(exp=None), ORIGIN, NOW) == text

    @pytest.mark.parametrize("exp", ["soon", [], {}, "", "1e9", float("inf"), float("nan")])
    def test_invalid_expiration(self, exp):
        text = "Invalid bearer token: Invalid expiration: exp is not a number"
        assert refusal(check_claims, claims(exp=exp), ORIGIN, NOW) == text

    def test_null_expiration(self):
        text = "Invalid bearer token: Invalid expiration: exp is not a number"
        assert refusal(check_claims, {**claims(), "exp": None}, ORIGIN, NOW) == text

    @pytest.mark.parametrize("exp", [NOW + 60, str(NOW + 60), NOW + 60.9, f" {NOW + 60} "])
    def test_numeric_texts_and_fractions_are_expirations(self, exp):
        check_claims(claims(exp=exp), ORIGIN, NOW)

    def test_expired(self):
        text = f"Invalid bearer token: Auth expired: exp is in the past, it is {NOW} here"
        assert refusal(check_claims, claims(exp=NOW - LEEWAY - 1), ORIGIN, NOW) == text
        assert refusal(check_claims, claims(exp=NOW - LEEWAY), ORIGIN, NOW + 0.5) == text
        check_claims(claims(exp=NOW - LEEWAY), ORIGIN, NOW)

    def test_too_far_ahead(self):
        text = "Invalid bearer token: Auth > 24 hours in the future: exp is too late"
        late = claims(exp=NOW + 86401 + LEEWAY)
        assert refusal(check_claims, late, ORIGIN, NOW) == f"{text}, it is {NOW} here"
        check_claims(claims(exp=NOW + 86400 + LEEWAY), ORIGIN, NOW)

    def test_audience_is_judged_before_expiration(self):
        text = refusal(check_claims, claims(aud="x", exp=None), ORIGIN, NOW)
        assert "Invalid Audience Specified" in text

    @pytest.mark.parametrize("exp", ["9" * 4000, 1e300, "-" + "9" * 4000])
    def test_refusals_are_short(self, exp):
        """Nothing a sender wrote is in them."""
        assert len(refusal(check_claims, claims(exp=exp), ORIGIN, NOW)) < 120
        aud = ["https://" + "a" * 10_000] * 10
        assert len(refusal(check_claims, claims(aud=aud), ORIGIN, NOW)) < 120


SCHEMES = st.sampled_from(["http", "https"])
HOSTS = st.sampled_from(["push.example", "127.0.0.1", "localhost", "[::1]", "xn--caf-dma.example"])
PORTS = st.sampled_from([None, 80, 443, 8080])


def spelt(scheme, host, port):
    return f"{scheme}://{host}" + (f":{port}" if port else "")


class TestAudience:
    """RFC 7519 4.1.3, RFC 8292 2, RFC 6454 4"""

    @pytest.mark.parametrize(
        ("aud", "own"),
        [
            ("https://push.example", "https://push.example:8443"),
            ("http://127.0.0.1/", "http://127.0.0.1:8080"),
            ("https://push.example:443", "https://push.example"),
            ("HTTPS://Push.Example/", "https://push.example"),
            (["https://other.example", "https://push.example"], "https://push.example:8443"),
            (["x"] * 100 + ["https://push.example"], "https://push.example"),
        ],
    )
    def test_means_us(self, aud, own):
        assert is_audience(aud, own)

    @pytest.mark.parametrize(
        ("aud", "own"),
        [
            ("https://push.example:8443", "https://push.example"),
            ("https://push.example:443", "https://push.example:8443"),
            ("http://push.example", "https://push.example:8443"),
            ("http://push.example:443", "https://push.example"),
            ("https://push.example:99999999", "https://push.example"),
        ],
    )
    def test_means_others(self, aud, own):
        assert not is_audience(aud, own)

    @given(SCHEMES, HOSTS, PORTS, SCHEMES, HOSTS, PORTS, st.booleans(), st.booleans())
    def test_same_scheme_and_host_and_no_other_port(
        self, scheme, host, port, own_scheme, own_host, own_port, shout, slash
    ):
        own = spelt(own_scheme, own_host, own_port)
        aud = spelt(scheme, host, port)
        aud = (aud.upper() if shout else aud) + ("/" if slash else "")
        standard = {"http": 80, "https": 443}[own_scheme]
        means_us = (scheme, host) == (own_scheme, own_host) and port in (None, own_port or standard)
        assert is_audience(aud, own) is means_us
        assert is_audience(["https://else.example", aud], own) is means_us

    @given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
    def test_anything_else_is_not_ours(self, aud):
        assert not is_audience(aud, ORIGIN)


class TestAuthenticate:
    def authenticate(self, header, public_key=KEY):
        return authenticate(parse_auth_header(header), public_key, ORIGIN, NOW)

    def test_draft_01_and_draft_02_return_the_claims(self):
        token = SENDER.token()
        assert self.authenticate(f"WebPush {token}") == claims()
        assert self.authenticate(f"vapid t={token},k={KEY}") == claims()

    def test_missing_t(self):
        text = refusal(self.authenticate, f"vapid k={KEY}")
        assert text == "Invalid Authorization Header"

    @pytest.mark.parametrize("header", ["vapid t=,k=x", "bearer "])
    def test_empty_token_has_no_audience(self, header):
        text = refusal(self.authenticate, header)
        assert text == "Invalid bearer token: No Audience specified"

    @pytest.mark.parametrize("key", [None, ""])
    def test_no_key_has_no_audience(self, key):
        text = refusal(self.authenticate, f"bearer {SENDER.token()}", key)
        assert text == "Invalid bearer token: No Audience specified"

    def test_unparsable_key(self):
        text = refusal(self.authenticate, f"bearer {SENDER.token()}", "AAAA")
        assert text == "Invalid Authorization Header"

    def test_bad_signature(self):
        text = refusal(self.authenticate, f"bearer {Sender().token()}")
        assert text == "Invalid Authorization Header"

    def test_q27_token_without_dot(self):
        assert refusal(self.authenticate, "bearer abc") == "Invalid Authorization Header"

    def test_claims_list(self):
        text = refusal(self.authenticate, f"bearer {SENDER.token([1])}")
        assert text == "Invalid Authorization Header"

    def test_library_claim_failure(self):
        token = SENDER.token(claims(nbf=NOW + 100))
        text = f"Invalid bearer token: nbf is in the future, it is {NOW} here"
        assert refusal(self.authenticate, f"bearer {token}") == text

    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            ({"nbf": "soon"}, "nbf is not a number"),
            ({"iat": []}, "iat is not a number"),
            ({"jti": 5}, "jti is not a text"),
            ({"at_hash": "x"}, "at_hash without an access token"),
        ],
    )
    def test_refusal_names_the_claim(self, changes, text):
        header = f"bearer {SENDER.token(claims(**changes))}"
        assert refusal(self.authenticate, header) == f"Invalid bearer token: {text}"

    @given(st.integers(-400, 400), st.lists(st.integers(-400, 400), min_size=1, max_size=6))
    def test_a_verdict_is_the_same_whenever_it_is_asked_for(self, offset, times):
        """Also from the cache, and when the clock is set back."""
        content = claims(exp=NOW + offset + 200, nbf=NOW + offset)
        token = SENDER.token(content)
        auth = {"scheme": "bearer", "version": 1, "t": token}
        for now in (NOW + time for time in times):
            good = content["nbf"] - LEEWAY <= now <= content["exp"] + LEEWAY
            if good:
                assert authenticate(auth, KEY, ORIGIN, now) == content
            else:
                refusal(authenticate, auth, KEY, ORIGIN, now)

    @given(st.lists(st.integers(-200, 200), min_size=1, max_size=6))
    def test_so_is_the_one_about_24_hours(self, times):
        content = claims(exp=NOW + vapid.MAX_LIFE)
        auth = {"scheme": "bearer", "version": 1, "t": SENDER.token(content)}
        for now in (NOW + time for time in times):
            if content["exp"] - now <= vapid.MAX_LIFE + LEEWAY:
                assert authenticate(auth, KEY, ORIGIN, now) == content
            else:
                assert "24 hours" in refusal(authenticate, auth, KEY, ORIGIN, now)

    def test_claims_are_checked_for_cached_tokens_too(self):
        header = f"bearer {SENDER.token()}"
        assert self.authenticate(header) == claims()
        auth = parse_auth_header(header)
        text = refusal(authenticate, auth, KEY, "https://other.example", NOW)
        assert text.endswith("aud must be https://other.example")
        text = refusal(authenticate, auth, KEY, ORIGIN, NOW + 3661)
        assert text.startswith("Invalid bearer token: Auth expired")
