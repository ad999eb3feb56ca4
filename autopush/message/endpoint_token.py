"""Endpoint URLs: a sealed user agent and channel, optionally bound to one sender's key.

Source: spec/http-endpoint 4 and 5.2. The token is a Fernet token without padding of UAID and CHID
(16 bytes each) and, in version 2, the SHA-256 of the application server's key.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

from autopush.exceptions import InvalidTokenException, VapidAuthException
from autopush.message.crypto_key import CryptoKey
from autopush.message.encoding import (
    AnyFernet,
    base64url_decode,
    decode_subscription_key,
    decrypt,
    repad,
)
from autopush.message.jwt import check_point
from autopush.message.notification import Id
from autopush.message.vapid import parse_auth_header
from autopush.types import JSONDict

ID_SIZE = 16
V1_SIZE = 2 * ID_SIZE
V2_SIZE = V1_SIZE + sha256().digest_size

REMEMBERED = 4096
"""Opened tokens kept, also together with the headers they came with, some 2.4 KB each: who was
sent one message is likely to get more from the same sender, and opening and parsing cost more than
all other checks of a request."""

MAX_REMEMBERED_LENGTH = 2048
"""Characters of the headers; longer ones are parsed every time, which bounds the memory."""


class EndpointToken(NamedTuple):
    """What an endpoint URL and the headers of a request to it say."""

    uaid: str
    """32 hex digits."""
    chid: str
    """32 hex digits."""
    version: str
    """``v1`` or ``v2``."""
    public_key: str | None
    """Key the sender shows, as base64url text; in version 2 it is the key subscribed with."""
    auth: JSONDict | None
    """Parsed ``Authorization`` (see :func:`~autopush.message.vapid.parse_auth_header`), if any;
    not to be changed."""
    user: Id
    """``uaid`` as a UUID."""
    channel: Id
    """``chid`` as a UUID."""


def make_endpoint(
    fernet: AnyFernet, endpoint_url: str, uaid: str, chid: str, key: str | None = None
) -> str:
    """Return the URL at which messages for a channel are accepted.

    :param endpoint_url: origin of the endpoint node
    :param uaid: user agent id, with or without dashes
    :param chid: channel id, with or without dashes
    :param key: base64url of the only sender's public key; None or empty: anyone may send
        (quirk Q38)
    :raises ValueError: ``key`` can't be base64url, or an id isn't 32 hex digits
    """
    content = _id_bytes(uaid) + _id_bytes(chid)
    version = "v1"
    if key:
        content += sha256(decode_subscription_key(key)).digest()
        version = "v2"
    token = fernet.encrypt(content).decode("ascii").rstrip("=")
    return f"{endpoint_url}/wpush/{version}/{token}"


def check_subscription_key(key: str) -> None:
    """Refuse the ``key`` of a registration if no sender can have it.

    A sender proves that it is meant with a P-256 key (RFC 8292 4.1), so an endpoint bound to
    anything else is one nobody can use.

    :raises ValueError: not base64url of a point of the curve, 65 bytes, uncompressed
    """
    check_point(decode_subscription_key(key))


def _id_bytes(text: str) -> bytes:
    content = bytes.fromhex(text.replace("-", ""))
    if len(content) != ID_SIZE:
        raise ValueError("not an id")
    return content


def parse_endpoint(
    fernet: AnyFernet,
    token: str,
    version: str | None = "v1",
    ckey_header: str | None = None,
    auth_header: str | None = None,
    on_auth: Callable[[JSONDict], None] | None = None,
) -> EndpointToken:
    """Open an endpoint's token and check that the request may use it (spec/http-endpoint 5.2).

    The checks come in the order of that section; the sender's signature isn't among them.

    :param token: padded or not
    :param version: ``v1``, ``v2`` or none, which is version 1 (quirk Q2)
    :param ckey_header: ``Crypto-Key``
    :param auth_header: ``Authorization``
    :param on_auth: called with the parsed ``Authorization``, whether or not it fits the token
    :raises cryptography.fernet.InvalidToken: not our token
    :raises InvalidTokenException: ours, but malformed or of an unknown version
    :raises CryptoKeyException: the token is ours, but ``Crypto-Key`` is malformed
    :raises VapidAuthException: ``Authorization`` is missing, malformed or for another key
    """
    length = len(ckey_header or "") + len(auth_header or "")
    parse = _parse_cached if length <= MAX_REMEMBERED_LENGTH else _parse
    try:
        parsed = parse(fernet, token, version, ckey_header, auth_header)
    except (InvalidTokenException, VapidAuthException) as exc:
        if on_auth is not None and exc.auth:
            on_auth(exc.auth)
        raise
    if on_auth is not None and parsed.auth:
        on_auth(parsed.auth)
    return parsed


def owner_of(fernet: AnyFernet, endpoint: str) -> tuple[Id, Id]:
    """Return the user agent and the channel an endpoint belongs to, whoever may send to it.

    :param endpoint: URL
    :raises cryptography.fernet.InvalidToken: not ours
    :raises InvalidTokenException: ours, but malformed
    """
    content = _open(fernet, endpoint.rpartition("/")[2])
    if len(content) not in (V1_SIZE, V2_SIZE):
        raise InvalidTokenException("Corrupted push token")
    return Id(content[:ID_SIZE].hex()), Id(content[ID_SIZE:V1_SIZE].hex())


def _parse(
    fernet: AnyFernet,
    token: str,
    version: str | None,
    ckey_header: str | None,
    auth_header: str | None,
) -> EndpointToken:
    content = _open(fernet, token)
    public_key = CryptoKey(ckey_header).get_label("p256ecdsa") if ckey_header else None
    auth = None
    if auth_header:
        auth = parse_auth_header(auth_header)
        if not auth:
            raise VapidAuthException("Invalid Auth token")
    try:
        return _match(content, version or "v1", public_key, auth)
    except (InvalidTokenException, VapidAuthException) as exc:
        exc.auth = auth
        raise


def _match(
    content: bytes, version: str, public_key: str | None, auth: JSONDict | None
) -> EndpointToken:
    """Check that token, version of the URL and sender belong together."""
    if auth and auth["version"] == 2:
        if "k" not in auth:
            raise VapidAuthException("Missing Public Key")
        public_key = auth["k"]
    if version == "v2":
        if auth is None:
            raise VapidAuthException("Missing Authorization Header")
        _check_size(content, V2_SIZE)
        _check_sender(public_key, content[V1_SIZE:])
    elif version == "v1":
        _check_size(content, V1_SIZE)
    else:
        raise InvalidTokenException("Unknown endpoint version")
    uaid, chid = content[:ID_SIZE].hex(), content[ID_SIZE:V1_SIZE].hex()
    return EndpointToken(uaid, chid, version, public_key, auth, Id(uaid), Id(chid))


_parse_cached = lru_cache(maxsize=REMEMBERED)(_parse)


@lru_cache(maxsize=REMEMBERED)
def _open(fernet: AnyFernet, token: str) -> bytes:
    return decrypt(fernet, repad(token))


def _check_size(content: bytes, size: int) -> None:
    if len(content) != size:
        raise InvalidTokenException("Corrupted push token")


def _check_sender(public_key: str | None, digest: bytes) -> None:
    """:raises VapidAuthException: the sender's key isn't the one subscribed with."""
    if not public_key:
        raise VapidAuthException("Invalid key data")
    try:
        key = base64url_decode(public_key)
    except ValueError as exc:
        raise VapidAuthException("Invalid key data") from exc
    if not hmac.compare_digest(sha256(key).digest(), digest):
        raise VapidAuthException("Key mismatch")
