"""Text forms of binary values: base64url (RFC 4648 5) and Fernet tokens.

Decoding is strict: a character outside the alphabet is an error, never skipped
(spec/http-endpoint Q39). Only the key a channel is subscribed with is read as 1.58.3 read it.
"""

from __future__ import annotations

import re
from binascii import a2b_base64, b2a_base64

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

AnyFernet = Fernet | MultiFernet

FERNET_TOKEN = re.compile(r"[0-9A-Za-z_-]+={0,2}")
"""Always used with ``fullmatch``. :class:`Fernet` itself skips foreign characters."""

PADDING = ("", "===", "==", "=")
"""What a base64 text lacks, by its length modulo 4."""


def repad(string: str) -> str:
    """Append ``=`` until the length is a multiple of 4."""
    return string + PADDING[len(string) % 4]


def base64url_encode(string: bytes | str) -> str:
    """Return unpadded base64url; text is encoded as UTF-8 first."""
    if isinstance(string, str):
        string = string.encode()
    text = b2a_base64(string, newline=False).decode("ascii")
    return text.rstrip("=").replace("+", "-").replace("/", "_")


def base64url_decode(string: str | bytes) -> bytes:
    """Decode base64url, padded or not.

    ``+`` and ``/`` of the ordinary alphabet are taken too: 1.58.3 did, and some senders rely on
    it for their keys.

    :raises ValueError: foreign characters, or an impossible length
    """
    if isinstance(string, bytes):
        string = string.decode("ascii")
    text = string.rstrip("=").replace("-", "+").replace("_", "/")
    return a2b_base64(text + PADDING[len(text) % 4], strict_mode=True)


def decode_subscription_key(key: str) -> bytes:
    """Decode the ``key`` of a registration; characters outside the alphabet are skipped.

    spec/http-endpoint Q39 is about what senders show. A subscription with a blank in its key has
    always been good for the sender with that key (spec/websocket 5.2).

    :raises ValueError: an impossible length
    """
    text = key.encode().replace(b"-", b"+").replace(b"_", b"/")
    return a2b_base64(text + PADDING[len(text) % 4].encode())


def decrypt(fernet: AnyFernet, token: str) -> bytes:
    """Open a Fernet token that has its padding; keys are tried in order, age doesn't matter.

    :raises cryptography.fernet.InvalidToken: not a token, or sealed with another key
    """
    if len(token) % 4 or not FERNET_TOKEN.fullmatch(token):
        raise InvalidToken
    return fernet.decrypt(token.encode("ascii"))
