"""Small helpers with no better home, and the documented names of those that have one.

Source: python-api.md 2.8.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import socket
import uuid
from typing import Any

from autopush.clock import ms_time, ns_time
from autopush.encoding import base64url_decode, base64url_encode
from autopush.jwt import VerifyJWT
from autopush.notification import STRIP_PADDING, WebPushNotification
from autopush.useragent import VALID_UA_BROWSER, VALID_UA_OS, parse_user_agent
from autopush.vapid import decipher_public_key, parse_auth_header, verify

__all__ = [
    "CLIENT_SHA256_RE",
    "MS_MULT",
    "NS_MULT",
    "STRIP_PADDING",
    "VALID_UA_BROWSER",
    "VALID_UA_OS",
    "WebPushNotification",
    "base64url_decode",
    "base64url_encode",
    "canonical_url",
    "decipher_public_key",
    "default_ports",
    "extract_jwt",
    "generate_hash",
    "get_amid",
    "get_ec2_instance_id",
    "ms_time",
    "normalize_id",
    "ns_time",
    "parse_auth_header",
    "parse_user_agent",
    "parse_uuid",
    "resolve_ip",
    "validate_uaid",
]

MS_MULT = 10**3
"""Milliseconds in a second."""
NS_MULT = 10**6
"""Microseconds in a second; see :func:`~autopush.clock.ns_time` for the name."""

CLIENT_SHA256_RE = re.compile(r"([0-9A-F]{2}:){31}[0-9A-F]{2}", re.IGNORECASE)
"""SHA-256 fingerprint of a client certificate; used with ``fullmatch``."""

UAID = re.compile(r"[0-9a-f]{32}")

default_ports = {"ws": 80, "http": 80, "wss": 443, "https": 443}

METADATA_URL = "http://169.254.169.254/latest/meta-data/"
METADATA_TIMEOUT = 1
"""Seconds: the service is on the machine's own link, or it isn't there."""


def canonical_url(scheme: str, hostname: str, port: int | None = None) -> str:
    """Return ``scheme://hostname[:port]``, without the port if it is the scheme's own."""
    if port is None or port == default_ports.get(scheme):
        return f"{scheme}://{hostname}"
    return f"{scheme}://{hostname}:{port}"


def resolve_ip(hostname: str) -> str:
    """Return the name's first IPv4 address, or the name if the resolver knows none. Blocks.

    :raises OSError: the resolver failed
    """
    found = socket.getaddrinfo(hostname, 0, socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    return str(found[0][4][0]) if found else hostname


def validate_uaid(uaid: Any) -> tuple[bool, str]:
    """Tell whether a user agent brought a valid UAID, which is 32 lower-case hex digits.

    :returns: True and the UAID, or False and a new one
    """
    if isinstance(uaid, str) and UAID.fullmatch(uaid):
        return True, uaid
    return False, uuid.uuid4().hex


def generate_hash(key: str | bytes, payload: str | bytes) -> str:
    """Return the hex HMAC-SHA256 of a payload; text is encoded as UTF-8."""
    if isinstance(key, str):
        key = key.encode()
    if isinstance(payload, str):
        payload = payload.encode()
    return hmac.digest(key, payload, hashlib.sha256).hex()


def parse_uuid(text: str) -> uuid.UUID:
    """Return a UUID in any of its spellings.

    :raises ValueError: it is none; also for the underscores and foreign digits ``int`` takes
    """
    found = uuid.UUID(text)
    if found.hex not in text.replace("-", "").lower():
        raise ValueError("not a UUID")
    return found


def normalize_id(ident: uuid.UUID | str) -> str:
    """Return a UUID of any spelling as dashed lower-case text.

    :raises ValueError: not a UUID
    """
    if isinstance(ident, uuid.UUID):
        return str(ident)
    try:
        return str(parse_uuid(ident))
    except (ValueError, TypeError, AttributeError):
        raise ValueError("Invalid UUID") from None


def get_amid() -> str | None:
    """Return the AMI id of the EC2 machine this runs on, or None elsewhere. Blocks up to 2 s."""
    return _ec2_metadata("ami-id")


def get_ec2_instance_id() -> str | None:
    """Return the instance id of the EC2 machine, or None elsewhere. Blocks up to 2 s."""
    return _ec2_metadata("instance-id")


def _ec2_metadata(name: str) -> str | None:
    # Only the cluster's daemons come here; the others are spared the import.
    import requests

    try:
        response = requests.get(METADATA_URL + name, timeout=METADATA_TIMEOUT)
    except requests.RequestException:
        return None
    # Elsewhere something else may answer there (quirk C9). Stand-ins have nothing but a content.
    status = getattr(response, "status_code", None)
    if isinstance(status, int) and status != 200:
        return None
    content = response.content
    return content.decode("utf-8", "replace") if isinstance(content, bytes) else content


def extract_jwt(
    token: str | None, crypto_key: str | None, is_trusted: bool = False, use_crypto: bool = False
) -> Any:
    """Return the claims of a JWT; nothing to look at makes an empty dict.

    :param crypto_key: the signer's public key, see :func:`~autopush.vapid.decipher_public_key`
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
