"""JSON Web Tokens signed with ES256 (RFC 7515, RFC 7518 3.4), the only kind VAPID knows."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from twisted.logger import Logger

from autopush.message.encoding import base64url_decode, repad

__all__ = ["VerifyJWT", "load_point", "repad"]

ES256 = ec.ECDSA(SHA256())
P256 = ec.SECP256R1()

RAW_SIGNATURE = 64
"""Bytes of ``r || s``."""

POINT = 65
"""Bytes of an uncompressed point."""

LOADED_KEYS = 1024
"""Public keys kept ready for use (some 2 KB each): loading costs a third of a verification."""

CHECKED_POINTS = 1024
"""Keys of subscriptions known to be points, 150 bytes each: users of one site bring the same."""


@lru_cache(maxsize=LOADED_KEYS)
def load_point(point: bytes) -> ec.EllipticCurvePublicKey:
    """Return the key of an encoded P-256 point.

    :param point: 65 bytes, starting with 4
    :raises ValueError: not a point of the curve
    """
    return ec.EllipticCurvePublicKey.from_encoded_point(P256, point)


@lru_cache(maxsize=CHECKED_POINTS)
def check_point(point: bytes) -> None:
    """Tell whether these bytes are a P-256 key as it is written in VAPID (RFC 8292 3.2).

    The keys that senders are about to use are not pushed out by those that others subscribe with.

    :raises ValueError: not a point of the curve, or compressed
    """
    if len(point) != POINT:
        raise ValueError("not an uncompressed point")
    load_point.__wrapped__(point)


def _point(key: bytes | bytearray | memoryview | str) -> bytes:
    if isinstance(key, str):
        # No base64 text has the length of a point.
        return key.encode("latin-1") if len(key) == POINT else base64url_decode(key)
    return bytes(key)


class VerifyJWT:
    """The steps of reading a token; there is nothing to instantiate."""

    __module__ = "autopush.jwt"  # where it is documented, and what its log events are filtered by
    log = Logger()

    @staticmethod
    def extract_signature(auth: str) -> tuple[str, bytes]:
        """Split a token into what is signed and the signature in DER.

        A signature of 64 bytes is converted, any other is taken to be DER already.

        :raises ValueError: no ``.``, or the signature isn't base64url
        """
        signed, dot, text = auth.rpartition(".")
        if not dot:
            raise ValueError("not a JWT")
        signature = base64url_decode(text)
        if len(signature) == RAW_SIGNATURE:
            r, s = signature[:32], signature[32:]
            signature = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
        return signed, signature

    @staticmethod
    def extract_assertion(token: str) -> Any:
        """Return the claims without verifying anything; may be of any JSON type.

        :raises ValueError: no second part, or it isn't base64url of JSON
        """
        parts = token.split(".", 2)
        if len(parts) < 2:
            raise ValueError("not a JWT")
        return orjson.loads(base64url_decode(parts[1]))

    @classmethod
    def validate_and_extract_assertion(
        cls, token: str, key: bytes | bytearray | memoryview | str
    ) -> Any:
        """Return the claims of a token signed with ``key``. Its header isn't looked at.

        :param key: P-256 point, 65 bytes starting with 4; as text a character a byte, or base64url
        :raises cryptography.exceptions.InvalidSignature: wrongly signed, or malformed
        """
        try:
            signed, signature = cls.extract_signature(token)
            load_point(_point(key)).verify(signature, signed.encode("ascii"), ES256)
            return cls.extract_assertion(token)
        except InvalidSignature:
            raise
        except (ValueError, TypeError) as exc:
            raise InvalidSignature from exc
        except Exception as exc:
            cls.log.failure("Unexpected error processing JWT")
            raise InvalidSignature from exc
