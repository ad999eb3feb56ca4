"""A subscription's keys, and what a user agent decrypts with them.

``aes128gcm`` is :rfc:`8188` with the keys of :rfc:`8291`, ``aesgcm`` what was before it:
draft-ietf-webpush-encryption-04.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from autopush.message.encoding import base64url_decode, base64url_encode

CURVE = ec.SECP256R1()
POINT_SIZE = 65
AUTH_SIZE = SALT_SIZE = 16
TAG_SIZE = 16
NONCE_SIZE = 12
KEY_SIZE = 16
HEAD = struct.Struct(f">{SALT_SIZE}sIB")
"""Of an ``aes128gcm`` body: salt, record size, length of the key's id (:rfc:`8188` 2.1)."""

LAST, MORE = b"\2", b"\1"
"""Delimiters of the last record and of those before it."""


class DecryptionError(Exception):
    """A user agent could not decrypt this; the text says why."""


class Keys:
    """The half of a subscription's keys that never leaves a user agent."""

    def __init__(self) -> None:
        self._private = ec.generate_private_key(CURVE)
        self.public = point_of(self._private.public_key())
        self.auth = os.urandom(AUTH_SIZE)

    def to_json(self) -> dict[str, str]:
        """``keys`` of ``PushSubscription.toJSON()``."""
        return {"p256dh": base64url_encode(self.public), "auth": base64url_encode(self.auth)}

    def decrypt(self, body: bytes, headers: Mapping[str, str]) -> bytes:
        """Decrypt what came in a notification.

        :param headers: of the notification: ``encoding``, and with ``aesgcm`` ``encryption`` and
            ``crypto_key``
        :raises DecryptionError: it can't be done
        """
        encoding = headers.get("encoding")
        try:
            if encoding == "aes128gcm":
                return self._aes128gcm(body)
            if encoding == "aesgcm":
                return self._aesgcm(body, headers)
        except InvalidTag:
            raise DecryptionError(
                "it was encrypted with other keys than those of this subscription, or changed"
            ) from None
        raise DecryptionError(f"unknown Content-Encoding {encoding}")

    # ---- RFC 8291

    def _aes128gcm(self, body: bytes) -> bytes:
        if len(body) < HEAD.size:
            raise DecryptionError("too short for the header of aes128gcm (RFC 8188 2.1)")
        salt, size, id_length = HEAD.unpack_from(body)
        sender, records = body[HEAD.size :][:id_length], body[HEAD.size + id_length :]
        if size <= TAG_SIZE + 1:
            raise DecryptionError(f"record size {size} is too small (RFC 8188 2.1)")
        secret = self._secret(sender)
        key = derive(self.auth, secret, b"WebPush: info\0" + self.public + sender, 32)
        cipher = AESGCM(derive(salt, key, b"Content-Encoding: aes128gcm\0", KEY_SIZE))
        nonce = derive(salt, key, b"Content-Encoding: nonce\0", NONCE_SIZE)
        parts = [records[at : at + size] for at in range(0, len(records), size)]
        plain = []  # without a record there is no text, which browsers take
        for number, record in enumerate(parts):
            end = LAST if number == len(parts) - 1 else MORE
            text = cipher.decrypt(nonce_of(nonce, number), record, None).rstrip(b"\0")
            if text[-1:] != end:
                raise DecryptionError("wrong delimiter of a record (RFC 8188 2)")
            plain.append(text[:-1])
        return b"".join(plain)

    # ---- the draft

    def _aesgcm(self, body: bytes, headers: Mapping[str, str]) -> bytes:
        salt = parameter("salt", headers.get("encryption", ""), "Encryption")
        sender = parameter("dh", headers.get("crypto_key", ""), "Crypto-Key")
        size = re.search(r"(?:^|[;,])\s*rs=(\d+)", headers.get("encryption", ""))
        step = (int(size[1]) if size else 4096) + TAG_SIZE
        secret = derive(self.auth, self._secret(sender), b"Content-Encoding: auth\0", 32)
        context = b"P-256\0" + b"".join(
            len(point).to_bytes(2, "big") + point for point in (self.public, sender)
        )
        cipher = AESGCM(derive(salt, secret, b"Content-Encoding: aesgcm\0" + context, KEY_SIZE))
        nonce = derive(salt, secret, b"Content-Encoding: nonce\0" + context, NONCE_SIZE)
        plain = []
        for number, at in enumerate(range(0, len(body), step)):
            text = cipher.decrypt(nonce_of(nonce, number), body[at : at + step], None)
            padding = 2 + int.from_bytes(text[:2], "big")
            if padding > len(text) or any(text[2:padding]):
                raise DecryptionError("wrong padding of a record")
            plain.append(text[padding:])
        return b"".join(plain)

    def _secret(self, point: bytes) -> bytes:
        """What both sides know, with the sender's public key."""
        try:
            other = ec.EllipticCurvePublicKey.from_encoded_point(CURVE, point)
        except ValueError:
            raise DecryptionError("the sender's key is no P-256 key (RFC 8291 3.1)") from None
        return self._private.exchange(ec.ECDH(), other)


def point_of(key: ec.EllipticCurvePublicKey) -> bytes:
    """A public key as it is sent: the uncompressed point."""
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def derive(salt: bytes, secret: bytes, info: bytes, length: int) -> bytes:
    """HKDF with SHA-256 (:rfc:`5869`)."""
    return HKDF(SHA256(), length, salt, info).derive(secret)


def nonce_of(nonce: bytes, number: int) -> bytes:
    """The nonce of a record (:rfc:`8188` 2.3)."""
    return (int.from_bytes(nonce, "big") ^ number).to_bytes(NONCE_SIZE, "big")


def parameter(name: str, header: str, called: str) -> bytes:
    """A base64url parameter of a header.

    :raises DecryptionError: it isn't there, or isn't base64url
    """
    found = re.search(rf'(?:^|[;,])\s*{name}="?([^";,\s]+)', header)
    if found is None:
        raise DecryptionError(f"there is no {name} in the {called} header")
    try:
        return base64url_decode(found[1])
    except ValueError:
        raise DecryptionError(f"{name} in the {called} header is not base64url") from None
