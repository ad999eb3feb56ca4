"""Documented small names that live elsewhere (spec/python-api 2.8)."""

import socket  # noqa: F401  names are resolved through this module's socket

from autopush.addresses import (
    canonical_url,
    default_ports,
    get_amid,
    get_ec2_instance_id,
    resolve_ip,
)
from autopush.clock import MS_MULT, NS_MULT, ms_time, ns_time
from autopush.config import FINGERPRINT as CLIENT_SHA256_RE
from autopush.ids import generate_hash, normalize_id, parse_uuid, validate_uaid
from autopush.message.encoding import base64url_decode, base64url_encode
from autopush.message.notification import STRIP_PADDING, WebPushNotification
from autopush.message.vapid import decipher_public_key, extract_jwt, parse_auth_header
from autopush.useragent import VALID_UA_BROWSER, VALID_UA_OS, parse_user_agent

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
