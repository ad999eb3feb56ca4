"""Who sends a message: VAPID (RFC 8292), from the ``Authorization`` header to checked claims.

Source: spec/http-endpoint 6.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from functools import lru_cache
from typing import Any, NamedTuple

import orjson
from cryptography.exceptions import InvalidSignature

from autopush import clock
from autopush.exceptions import InvalidRequest, VapidAuthException
from autopush.message.encoding import base64url_decode
from autopush.message.jwt import RAW_SIGNATURE, VerifyJWT
from autopush.types import JSONDict

MAX_LIFE = 86400
"""Seconds a token may be valid from now on (RFC 8292 2)."""

LEEWAY = 60
"""Seconds a sender's clock may be wrong, for ``exp``, ``nbf`` and :data:`MAX_LIFE` (RFC 7519 4.1.4:
"usually no more than a few minutes")."""

CACHED_TOKENS = 4096
"""Verified tokens remembered. A sender uses one for hours, so this serves as many senders."""

MAX_CACHED_LENGTH = 2048
"""Characters; longer tokens are verified every time, which bounds the cache to some 16 MB."""

MALFORMED = "Invalid Authorization Header"
NO_AUDIENCE = "No Audience specified"

CHALLENGE = "vapid, webpush"
"""``WWW-Authenticate`` of the push resources: what RFC 8292 asks for, and what 1.58.3 sent."""


# ---------------------------------------------------------------------------------- the header

DRAFT_01 = frozenset({"bearer", "webpush"})
PARAMETERS = frozenset({"t", "k"})
"""The parameters of a ``vapid`` header that are used; others are allowed (quirk Q23)."""

PARAMETER = re.compile(r'([^=,"]*)=(?:"((?:[^"\\]|\\.)*)"|([^,"]*))(,|$)')
"""One auth-param (RFC 7235 2.1) without blanks, and the comma after it."""

QUOTED_PAIR = re.compile(r"\\(.)")


def parse_auth_header(header: str) -> JSONDict:
    """Parse an ``Authorization`` header (spec/http-endpoint 5.2, 6.2).

    :returns: ``scheme`` (lower case), ``version`` (1 or 2) and, where given, ``t`` (the token)
        and ``k`` (the public key); empty for an unknown scheme
    :raises VapidAuthException: nothing after the scheme, or malformed parameters
    """
    scheme, blank, rest = header.partition(" ")
    if not blank:
        raise VapidAuthException("Missing Auth Token")
    scheme = scheme.lower()
    if scheme == "vapid":
        return {"scheme": scheme, "version": 2, **_parse_parameters(rest)}
    if scheme in DRAFT_01:
        return {"scheme": scheme, "version": 1, "t": rest}
    return {}


def _parse_parameters(text: str) -> dict[str, str]:
    """Return ``t`` and ``k`` out of comma-separated parameters; the last of a name counts."""
    text = text.replace(" ", "").replace("\t", "")
    parse = _quoted_parameters if '"' in text else _plain_parameters
    return {name: value for name, value in parse(text) if name in PARAMETERS}


def _plain_parameters(text: str) -> list[tuple[str, str]]:
    items = [item.partition("=") for item in text.split(",")]
    if not all(equals for _, equals, _ in items):
        raise VapidAuthException("Invalid Auth Token")
    return [(name, value) for name, _, value in items]


def _quoted_parameters(text: str) -> list[tuple[str, str]]:
    items = []
    position = 0
    while True:
        match = PARAMETER.match(text, position)
        if match is None:
            raise VapidAuthException("Invalid Auth Token")
        name, quoted, plain, comma = match.groups()
        items.append((name, plain if quoted is None else QUOTED_PAIR.sub(r"\1", quoted)))
        if not comma:
            return items
        position = match.end()


# --------------------------------------------------------------------------------- the public key

UNCOMPRESSED = b"\x04"
SPKI_P256 = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
"""DER of a P-256 SubjectPublicKeyInfo up to the point (RFC 5480)."""


def decipher_public_key(key_data: str) -> bytes:
    """Return the P-256 point of a key, however the sender writes it.

    :param key_data: base64url of the point (65 bytes), of its coordinates (64), or of the
        SubjectPublicKeyInfo (91)
    :returns: 65 bytes, starting with 4; whether they are a point of the curve isn't checked
    :raises ValueError: none of these
    """
    key = base64url_decode(key_data)
    size = len(key)
    if size == 91 and key.startswith(SPKI_P256):
        key = key[len(SPKI_P256) :]
    elif size == 64:
        key = UNCOMPRESSED + key
    if len(key) == 65 and key.startswith(UNCOMPRESSED):
        return key
    raise ValueError("Unknown public key format specified")


# -------------------------------------------------------------------------------------- the token


class Verified:
    """Claims of a token that is rightly signed, and what else was found out about them.

    :ivar expires: Unix seconds; until then the entry is used, which is :data:`LEEWAY` after ``exp``
    :ivar audience: the one :func:`check_claims` found them good for, if any
    :ivar checked: when that was; they stay good until they expire
    """

    __slots__ = ("audience", "checked", "claims", "expires")

    def __init__(self, expires: float, claims: JSONDict) -> None:
        self.expires = expires
        self.claims = claims
        self.audience: str | None = None
        self.checked = 0.0


class VerifiedTokens:
    """Verified tokens until they expire; at most ``size`` of them.

    Two generations instead of an ordered map: a token used since the last change of generation
    survives the next one, a hit costs one look-up, and no lock is needed.

    :param size: entries kept at most
    """

    def __init__(self, size: int) -> None:
        self._generation = size // 2
        self._young: dict[Hashable, Verified] = {}
        self._old: dict[Hashable, Verified] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: Hashable, now: float) -> Verified | None:
        """Return what is known of a token and key that belong together.

        :param now: Unix seconds
        """
        entry = self._young.get(key)
        if entry is None:
            entry = self._old.pop(key, None)
            if entry is None:
                return None
            self.put(key, entry)
        return entry if now <= entry.expires else None

    def put(self, key: Hashable, entry: Verified) -> None:
        """Remember a token."""
        if len(self._young) >= self._generation:
            self._old, self._young = self._young, {}
        self._young[key] = entry

    def clear(self) -> None:
        """Forget everything."""
        self._young, self._old = {}, {}


verified_tokens = VerifiedTokens(CACHED_TOKENS)

ES256 = "ES256"
"""The only algorithm (RFC 8292 2)."""


class ClaimError(ValueError):
    """A claim that is refused; the text says which, and why."""


def verify(
    token: str, public_key: str, now: float | None = None, lenient: bool = False
) -> JSONDict:
    """Return the claims of a token that was signed with a key.

    The header names ES256 (RFC 7515 4.1.1, quirk Q26), the signature is ``r || s`` (RFC 7518 3.4),
    and of the registered claims ``nbf`` is a number not in the future, ``iat`` a number, ``jti`` a
    text, ``at_hash`` absent (spec/http-endpoint 6.3). ``aud``, ``sub`` and ``exp`` aren't checked.

    :param public_key: as for :func:`decipher_public_key`
    :param now: Unix seconds; None: the present
    :param lenient: what ``--use_cryptography`` asks for: the header may name no algorithm, the
        signature may be in DER, the claims aren't checked
    :raises cryptography.exceptions.InvalidSignature: wrongly signed, or malformed
    :raises ClaimError: one of these claims is refused
    :raises ValueError: unusable key or header
    """
    if now is None:
        now = clock.now()
    claims = _verified(token, public_key, now, lenient).claims
    if not lenient:
        _check_registered_claims(claims, now)
    return dict(claims)


def _verified(token: str, public_key: str, now: float, lenient: bool) -> Verified:
    key = (token, public_key, lenient)
    known = verified_tokens.get(key, now)
    if known is None:
        claims = _verify(token, public_key, lenient)
        expires = _cached_until(claims, now)
        known = Verified(0 if expires is None else expires, claims)
        if expires is not None and len(token) <= MAX_CACHED_LENGTH:
            verified_tokens.put(key, known)
    return known


def _verify(token: str, public_key: str, lenient: bool) -> JSONDict:
    header, *rest = token.split(".")
    if len(rest) != 2:
        raise ValueError("not a JWT")
    algorithm = _algorithm(header)
    if algorithm != ES256 and not (lenient and algorithm is None):
        raise ValueError("not ES256")
    if not lenient and len(base64url_decode(rest[1])) != RAW_SIGNATURE:
        raise InvalidSignature
    claims = VerifyJWT.validate_and_extract_assertion(token, decipher_public_key(public_key))
    if not isinstance(claims, dict):
        raise ValueError("claims are not an object")
    return claims


@lru_cache(maxsize=64)
def _algorithm(header: str) -> Any:
    """Return what a JOSE header names as its algorithm, None if it names none.

    :raises ValueError: not a JOSE header
    """
    content = orjson.loads(base64url_decode(header))
    if not isinstance(content, dict):
        raise ValueError("header is not an object")
    if content.get("alg", ES256) is None:
        raise ValueError("no algorithm")
    return content.get("alg")


def _number(value: Any) -> int:
    """Return a claim as int; numeric texts and fractions count.

    :raises ValueError: it isn't a number
    """
    try:
        return int(value)
    except (TypeError, OverflowError) as exc:
        raise ValueError("not a number") from exc


def _claimed_number(claims: JSONDict, name: str) -> int:
    """:raises ClaimError: the claim isn't a number."""
    try:
        return _number(claims[name])
    except ValueError:
        raise ClaimError(f"{name} is not a number") from None


def _check_registered_claims(claims: JSONDict, now: float) -> None:
    """:raises ClaimError: a claim is of the wrong type, not yet valid, or can't be checked."""
    if "nbf" in claims and _claimed_number(claims, "nbf") > now + LEEWAY:
        raise ClaimError(f"nbf is in the future, it is {int(now)} here")
    if "iat" in claims:
        _claimed_number(claims, "iat")
    if not isinstance(claims.get("jti", ""), str):
        raise ClaimError("jti is not a text")
    if "at_hash" in claims:
        raise ClaimError("at_hash without an access token")


def _cached_until(claims: JSONDict, now: float) -> float | None:
    """Return when to forget a token; None for one that isn't worth keeping."""
    try:
        expires = _number(claims.get("exp")) + LEEWAY
    except ValueError:
        return None
    return expires if now <= expires <= now + MAX_LIFE + 2 * LEEWAY else None


# ----------------------------------------------------------------------------------- the audience

ORIGIN = re.compile(
    r"(https?)://([^\s/?#@:\[\]]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?/?", re.IGNORECASE
)
"""An origin (RFC 6454 6.2) as people write it: in any case, or with a slash behind it."""

MAX_ORIGIN = 300
"""Characters; a host name has 253 at most."""

MAX_AUDIENCES = 16
"""Items of a list that are read as origins; one spelt just as ours is found anywhere."""

DEFAULT_PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """Scheme and host in lower case; ``port`` is None where it isn't written."""

    scheme: str
    host: str
    port: int | None


def parse_origin(text: Any) -> Origin | None:
    """Return the origin a text is; None if it isn't one."""
    if not isinstance(text, str) or len(text) > MAX_ORIGIN:
        return None
    match = ORIGIN.fullmatch(text)
    if match is None:
        return None
    scheme, host, port = match.groups()
    return Origin(scheme.lower(), host.lower(), None if port is None else int(port))


_own_origin = lru_cache(maxsize=16)(parse_origin)


def is_audience(audience: Any, endpoint_url: str) -> bool:
    """Whether an ``aud`` claim is about this service (RFC 7519 4.1.3, RFC 8292 2).

    It is the origin of the endpoint, or a list with that. Several libraries leave out the port
    although it isn't the scheme's own: they mean us, too.

    :param endpoint_url: the origin messages are sent to
    """
    if audience == endpoint_url:
        return True
    own = _own_origin(endpoint_url)
    given = audience if isinstance(audience, list) else [audience]
    return endpoint_url in given or any(
        _same_origin(parse_origin(one), own) for one in given[:MAX_AUDIENCES]
    )


def _same_origin(one: Origin | None, own: Origin | None) -> bool:
    if one is None or own is None or one[:2] != own[:2]:
        return False
    default = DEFAULT_PORTS[own.scheme]
    return one.port is None or one.port == (default if own.port is None else own.port)


# ------------------------------------------------------------------------------------- the verdict


def authenticate(
    auth: JSONDict, public_key: str | None, endpoint_url: str, now: float, lenient: bool = False
) -> JSONDict:
    """Return the claims of a sender that is who it claims to be (spec/http-endpoint 6.4).

    :param auth: from :func:`parse_auth_header`
    :param public_key: from the header's ``k`` or ``Crypto-Key: p256ecdsa=``
    :param endpoint_url: the origin messages are sent to
    :param now: Unix seconds
    :param lenient: as for :func:`verify`
    :returns: not to be changed
    :raises InvalidRequest: 401, errno 109
    """
    token = auth.get("t")
    if token is None:
        raise unauthorized(MALFORMED)
    if not (token and public_key):
        raise refused(NO_AUDIENCE)
    try:
        known = _verified(token, public_key, now, lenient)
    except (InvalidSignature, ValueError) as exc:
        raise unauthorized(MALFORMED) from exc
    if known.audience != endpoint_url or now < known.checked:
        if not lenient:
            try:
                _check_registered_claims(known.claims, now)
            except ClaimError as exc:
                raise refused(str(exc)) from exc
        check_claims(known.claims, endpoint_url, now)
        known.audience, known.checked = endpoint_url, now
    return known.claims


def check_claims(claims: JSONDict, endpoint_url: str, now: float) -> None:
    """Check for whom and how long a token is valid (spec/http-endpoint 6.4).

    :param endpoint_url: the origin messages are sent to
    :param now: Unix seconds
    :raises InvalidRequest: 401, errno 109
    """
    if not isinstance(claims, dict):
        raise unauthorized(MALFORMED)
    if "aud" not in claims:
        raise refused(NO_AUDIENCE)
    if not is_audience(claims["aud"], endpoint_url):
        raise refused(f"Invalid Audience Specified: aud must be {endpoint_url}")
    if "exp" not in claims:
        raise refused("No expiration")
    try:
        expires = _number(claims["exp"])
    except ValueError:
        raise refused("Invalid expiration: exp is not a number") from None
    if now > expires + LEEWAY:
        raise refused(f"Auth expired: exp is in the past, it is {int(now)} here")
    if expires - now > MAX_LIFE + LEEWAY:
        raise refused(f"Auth > 24 hours in the future: exp is too late, it is {int(now)} here")


def refused(text: str) -> InvalidRequest:
    """Return the 401 for a token that was read and isn't good enough."""
    return unauthorized(f"Invalid bearer token: {text}")


def unauthorized(text: str) -> InvalidRequest:
    """Return the 401 of spec/http-endpoint 6.4 with this text."""
    headers = {"www-authenticate": CHALLENGE}
    return InvalidRequest(text, status_code=401, errno=109, headers=headers)


def extract_jwt(
    token: str | None, crypto_key: str | None, is_trusted: bool = False, use_crypto: bool = False
) -> Any:
    """Return the claims of a JWT; nothing to look at makes an empty dict.

    :param crypto_key: the signer's public key, see :func:`decipher_public_key`
    :param is_trusted: take the claims without verifying them; they may be of any JSON type
    :param use_crypto: check nothing but the signature: neither header nor claims
    :raises cryptography.exceptions.InvalidSignature: wrongly signed, or malformed
    :raises ValueError: unusable token or key
    """
    if not token or not crypto_key:
        return {}
    if is_trusted:
        return VerifyJWT.extract_assertion(token)
    if use_crypto:
        return VerifyJWT.validate_and_extract_assertion(token, decipher_public_key(crypto_key))
    return verify(token, crypto_key)
