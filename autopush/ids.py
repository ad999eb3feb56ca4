"""The names of user agents and channels: what they look like and how logs name them."""

from __future__ import annotations

import hmac
import re
import uuid
from functools import lru_cache
from typing import Any

UAID = re.compile(r"[0-9a-f]{32}")

key_hash = ""
"""The process's ``key_hash`` option, set by :class:`autopush.config.AutopushConfig`; documented as
``autopush.db.key_hash``."""


def validate_uaid(uaid: Any) -> tuple[bool, str]:
    """Tell whether a user agent brought a valid UAID, which is 32 lower-case hex digits.

    :returns: True and the UAID, or False and a new one
    """
    if isinstance(uaid, str) and UAID.fullmatch(uaid):
        return True, uaid
    return False, uuid.uuid4().hex


def generate_hash(key: str | bytes, payload: str | bytes) -> str:
    """Return the hex HMAC-SHA256 of a payload; text is encoded as UTF-8."""
    digest = _keyed(key.encode() if isinstance(key, str) else key).copy()
    digest.update(payload.encode() if isinstance(payload, str) else payload)
    return digest.hexdigest()


@lru_cache(16)  # of keys there are few: to begin with one takes longer than a payload
def _keyed(key: bytes) -> hmac.HMAC:
    return hmac.new(key, digestmod="sha256")


def hash_uaid(key: str, uaid: str) -> str:
    """Return a UAID as storage and logs have it (spec/storage 5).

    :param key: the ``key_hash`` option; empty: the UAID stays as it is
    """
    return generate_hash(key, uaid) if key else uaid


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
