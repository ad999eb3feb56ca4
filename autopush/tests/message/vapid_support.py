"""A sender for tests: a P-256 key and the tokens it signs."""

from __future__ import annotations

import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from autopush.message.encoding import base64url_encode

NOW = 1_700_000_000
ORIGIN = "https://push.example.com"
ES256 = {"typ": "JWT", "alg": "ES256"}


def claims(**changes: Any) -> dict[str, Any]:
    """Valid claims with some changed; None removes one."""
    content = {"aud": ORIGIN, "exp": NOW + 3600, "sub": "mailto:ops@example.com", **changes}
    return {name: value for name, value in content.items() if value is not None}


def part(content: Any) -> str:
    """One part of a token: JSON, or bytes as they are."""
    return base64url_encode(content if isinstance(content, bytes) else json.dumps(content))


class Sender:
    """An application server."""

    def __init__(self, curve: ec.EllipticCurve | None = None) -> None:
        self.key = ec.generate_private_key(curve or ec.SECP256R1())
        public = self.key.public_key()
        self.point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        self.spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.public_key = base64url_encode(self.point)

    def der_signature(self, signed: str) -> bytes:
        return self.key.sign(signed.encode(), ec.ECDSA(SHA256()))

    def raw_signature(self, signed: str) -> bytes:
        r, s = decode_dss_signature(self.der_signature(signed))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def token(self, content: Any = None, header: Any = ES256, der: bool = False) -> str:
        signed = f"{part(header)}.{part(claims() if content is None else content)}"
        signature = self.der_signature(signed) if der else self.raw_signature(signed)
        return f"{signed}.{base64url_encode(signature)}"
