"""What the headers of ``POST /wpush`` must look like (spec/http-endpoint 5.4, 5.6).

Field errors are collected by marshmallow; a rule with an error number of its own raises
:class:`~autopush.exceptions.InvalidRequest` and ends the validation at once. The schemas are
stateless, one instance of each serves all requests.
"""

from __future__ import annotations

import re
from functools import lru_cache, partial
from typing import Any, NamedTuple

from marshmallow import EXCLUDE, Schema, ValidationError, fields, validates_schema

from autopush.constants import MAX_TTL
from autopush.exceptions import InvalidRequest
from autopush.message.crypto_key import CryptoKey
from autopush.message.notification import worth_caching
from autopush.message.urgency import NAMES, NORMAL, level_of
from autopush.types import JSONDict

VALID_BASE64_URL = re.compile(r"[0-9A-Za-z_-]+=*")
"""Topic and salt; always used with ``fullmatch`` (Q33)."""

INTEGER = re.compile(r"\s*[+-]?[0-9]+\s*", re.ASCII)
"""``int()`` also takes ``1_000`` and non-ASCII digits, which never were a TTL."""

MAX_TOPIC_LENGTH = 32
"""Characters (RFC 8030 5.4)."""

CACHED_HEADERS = 1024
"""Senders repeat a handful of TTLs; this bounds what a hostile one can make us remember."""


MESSAGE_HEADERS = ("content-encoding", "encryption", "crypto-key", "encryption-key")
"""Headers that tell how a message is encrypted."""


class HeaderInteger(fields.Integer):
    """A decimal integer as text."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if not INTEGER.fullmatch(value):
            raise self.make_error("invalid")
        return super()._deserialize(value, *args, **kwargs)


class HeaderUrgency(fields.Field[int]):
    """One of the four words of RFC 8030 5.3, in any case; loads its level."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> int:
        level = level_of(value.strip().lower())
        if level is None:
            raise ValidationError(f"Must be one of: {', '.join(NAMES)}.")
        return level


class HeaderSchema(Schema):
    """Headers by lower-case name; others are not looked at."""

    class Meta:
        unknown = EXCLUDE


class WebPushBasicHeaderSchema(HeaderSchema):
    """``TTL`` (seconds, None when absent), ``Topic`` and ``Urgency`` (a level)."""

    ttl = HeaderInteger(load_default=None)
    topic = fields.String(load_default=None)
    urgency = HeaderUrgency(load_default=NORMAL)

    @validates_schema(skip_on_field_errors=False)
    def check(self, data: JSONDict, **_kwargs: Any) -> None:
        topic = data.get("topic")
        if topic is not None:
            if len(topic) > MAX_TOPIC_LENGTH:
                raise InvalidRequest("Topic must be no greater than 32 characters", errno=113)
            if not VALID_BASE64_URL.fullmatch(topic):
                raise InvalidRequest(
                    "Topic must be URL and Filename safe Base64 alphabet", errno=113
                )
        ttl = data.get("ttl")
        if ttl is not None and ttl < 0:
            raise InvalidRequest("TTL must be greater than 0", errno=114)


class WebPushCryptoHeaderSchema(HeaderSchema):
    """What all content encodings have in common."""

    content_encoding = fields.String(data_key="content-encoding")
    encryption = fields.String()
    crypto_key = fields.String(data_key="crypto-key")
    encryption_key = fields.String(data_key="encryption-key")

    @validates_schema(skip_on_field_errors=False)
    def check(self, data: JSONDict, **_kwargs: Any) -> None:
        """Check the headers that are present, in the order of section 5.6."""
        crypto_key = data.get("crypto_key")
        if crypto_key is not None:
            self.check_crypto_key(crypto_key)
        encryption = data.get("encryption")
        if encryption is not None:
            self.check_encryption(encryption)
        encryption_key = data.get("encryption_key")
        if encryption_key is not None:
            self.check_encryption_key(encryption_key)

    def check_crypto_key(self, header: str) -> None:
        """Judge a ``Crypto-Key`` header."""

    def check_encryption(self, header: str) -> None:
        """Judge an ``Encryption`` header."""
        salt = CryptoKey.parse_and_get_label(header, "salt")
        if not salt or not VALID_BASE64_URL.fullmatch(salt):
            raise InvalidRequest("Invalid salt value in Encryption header", errno=110)

    def check_encryption_key(self, header: str) -> None:
        """Judge an ``Encryption-Key`` header."""


class WebPushCrypto01HeaderSchema(WebPushCryptoHeaderSchema):
    """``aesgcm128`` (draft-ietf-webpush-encryption-01)."""

    encryption = fields.String(required=True)
    encryption_key = fields.String(required=True, data_key="encryption-key")

    def check_crypto_key(self, header: str) -> None:
        if CryptoKey.parse_and_get_label(header, "dh"):
            raise InvalidRequest(
                "dh value in Crypto-Key header not valid for 01 or earlier webpush-encryption",
                errno=110,
            )

    def check_encryption_key(self, header: str) -> None:
        _require_dh(header)


class WebPushCrypto04HeaderSchema(WebPushCryptoHeaderSchema):
    """``aesgcm`` (draft-ietf-webpush-encryption-04)."""

    encryption = fields.String(required=True)

    def check_crypto_key(self, header: str) -> None:
        _require_dh(header)

    def check_encryption_key(self, header: str) -> None:
        raise InvalidRequest(
            "Encryption-Key header not valid for 02 or later webpush-encryption", errno=110
        )


class WebPushCrypto06HeaderSchema(WebPushCryptoHeaderSchema):
    """``aes128gcm`` (RFC 8188, RFC 8291): everything is in the body."""

    def check_crypto_key(self, header: str) -> None:
        if CryptoKey.parse_and_get_label(header, "dh"):
            raise InvalidRequest("Do not include 'dh' in aes128gcm Crypto-Key header", errno=110)

    def check_encryption(self, header: str) -> None:
        if CryptoKey.parse_and_get_label(header, "salt"):
            raise InvalidRequest("Do not include 'salt' in aes128gcm Encryption header", errno=110)


class WebPushInvalidContentEncodingSchema(WebPushCryptoHeaderSchema):
    """Any other encoding, or none."""

    @validates_schema(skip_on_field_errors=False)
    def check(self, data: JSONDict, **_kwargs: Any) -> None:
        raise InvalidRequest("Unknown Content-Encoding", errno=110)


CRYPTO_SCHEMAS: dict[str | None, WebPushCryptoHeaderSchema] = {
    "aesgcm128": WebPushCrypto01HeaderSchema(),
    "aesgcm": WebPushCrypto04HeaderSchema(),
    "aes128gcm": WebPushCrypto06HeaderSchema(),
}
BASIC_SCHEMA = WebPushBasicHeaderSchema()
INVALID_ENCODING_SCHEMA = WebPushInvalidContentEncodingSchema()


def _require_dh(header: str) -> None:
    # The text names Encryption-Key for both headers, and the alphabet isn't checked: Q9, Q10.
    if not CryptoKey.parse_and_get_label(header, "dh"):
        raise InvalidRequest("Invalid dh value in Encryption-Key header", errno=110)


class BasicHeaders(NamedTuple):
    """``TTL`` in seconds, at most :data:`~autopush.constants.MAX_TTL`; None when absent."""

    ttl: int | None
    topic: str | None
    urgency: int


@lru_cache(CACHED_HEADERS)
def load_basic_headers(
    ttl: str | None, topic: str | None, urgency: str | None = None
) -> BasicHeaders:
    """Check ``TTL``, ``Topic`` (section 5.4) and ``Urgency`` (spec/broadcasts 2).

    :raises InvalidRequest: errno 113, 114
    :raises marshmallow.ValidationError: ``TTL`` is no integer, ``Urgency`` none of the four words
    """
    headers = {"ttl": ttl, "topic": topic, "urgency": urgency}
    data = BASIC_SCHEMA.load({name: value for name, value in headers.items() if value is not None})
    seconds = data["ttl"]
    seconds = None if seconds is None else min(seconds, MAX_TTL)
    return BasicHeaders(seconds, data["topic"], data["urgency"])


def load_crypto_headers(headers: dict[str, str]) -> dict[str, str]:
    """Check the headers that describe a message's encryption (section 5.6).

    :param headers: the request's headers by lower-case name
    :returns: those of :data:`MESSAGE_HEADERS` that were sent; the name of the coding, which may be
        written in any case (RFC 9110 8.4.1), in lower case, as user agents know it
    :raises InvalidRequest: errno 110
    :raises marshmallow.ValidationError: a required header is missing
    """
    encoding, *others = map(partial(dict.get, headers), MESSAGE_HEADERS)
    load = _load_cached if worth_caching(*others) else _load
    return dict(load(encoding and encoding.lower(), *others))


def _load(*values: str | None) -> dict[str, str]:
    named = zip(MESSAGE_HEADERS, values, strict=True)
    sent = {name: value for name, value in named if value is not None}
    CRYPTO_SCHEMAS.get(sent.get("content-encoding"), INVALID_ENCODING_SCHEMA).load(sent)
    return sent


_load_cached = lru_cache(CACHED_HEADERS)(_load)
