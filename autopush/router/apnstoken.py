"""Token-based authentication to APNs: an addition, 1.58.3 only had certificates.

Source: Apple, "Establishing a token-based connection to APNs"; spec/bridges 10.
"""

from __future__ import annotations

from collections.abc import Callable

import orjson
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from autopush import clock
from autopush.message.encoding import base64url_encode
from autopush.ssl import parse_private_key

REFRESH_AFTER = 40 * 60
"""Seconds. Apple refuses tokens older than an hour; clocks differ."""

KEEP_FOR = 20 * 60
"""Seconds a token is kept at least: Apple refuses those who make new ones more often."""


class ProviderToken:
    """The JWT all requests with one key carry; made again when it gets old.

    :param key_id: of the key, 10 characters
    :param team_id: of the developer account
    :param pem: content of the ``.p8`` file
    :param now: wall clock, Unix seconds
    :raises ValueError: not a P-256 private key
    """

    def __init__(
        self, key_id: str, team_id: str, pem: bytes, now: Callable[[], float] | None = None
    ) -> None:
        self.key_id = key_id
        self.team_id = team_id
        self._now = now or clock.now
        self._token = ""
        self._made_at = 0.0
        key = parse_private_key(pem)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
            raise ValueError("not a P-256 key")
        self._key = key

    def get(self) -> str:
        """Return a token that is good for some time yet. Signing takes about 50 µs."""
        if not 0 <= self._now() - self._made_at < REFRESH_AFTER or not self._token:
            self._make()
        return self._token

    def renew(self, refused: str) -> bool:
        """Apple says that a token has expired; whether there is another one now."""
        if refused == self._token:
            if self._now() - self._made_at < KEEP_FOR:
                return False
            self._make()
        return True

    def _make(self) -> None:
        self._made_at = self._now()
        head = base64url_encode(orjson.dumps({"alg": "ES256", "kid": self.key_id}))
        claims = {"iss": self.team_id, "iat": int(self._made_at)}
        text = f"{head}.{base64url_encode(orjson.dumps(claims))}"
        r, s = decode_dss_signature(self._key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        self._token = f"{text}.{base64url_encode(signature)}"
