"""What must not be logged: whatever lets anyone send, or read a secret (spec/observability O9)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

SECRET_PATH = re.compile(r"(/wpush/(?:v\d+/)?|/m/)[^?\s\"'<>]+", re.IGNORECASE)
"""What lets anyone send (or recall) a message."""

ACCESS_KEY = re.compile(r"([?&]key=)[^?&\s\"'<>]+|(/)[\w-]{16,}(?=/v1/)", re.ASCII)
"""Where user agents show the key to a private service, a wrong one perhaps."""

JWT = re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)

OPEN_CLAIMS = frozenset(("jwt_aud", "jwt_sub", "jwt_exp", "jwt_crypto_key"))
"""What is logged of a VAPID token: whom to contact about what."""


def redact_authorization(header: str) -> str:
    """Return an ``Authorization`` header's scheme, followed by dots for the rest."""
    scheme, _, secret = header.partition(" ")
    if secret and scheme.isalpha() and len(scheme) <= 12:
        return f"{scheme} ..."
    return "..." if header else ""


def redact_uri(uri: str) -> str:
    """Return a URL or path with the token of an endpoint or message replaced by dots."""
    if "key=" in uri or "/v1/" in uri:
        uri = ACCESS_KEY.sub(r"\1\2...", uri)
    return SECRET_PATH.sub(r"\1...", uri)


def redact_text(text: str) -> str:
    """Return a text without the endpoint URLs, JWTs and access keys in it."""
    if _hidden is not None:
        text = _hidden.sub("...", text)
    if "eyJ" in text:
        text = JWT.sub("...", text)
    return redact_uri(text) if "/" in text else text


_hidden: re.Pattern[str] | None = None


def hide(secrets: Iterable[str]) -> None:
    """Show none of these from now on, wherever they turn up."""
    global _hidden
    words = sorted(map(re.escape, secrets), key=len, reverse=True)
    _hidden = re.compile("|".join(words)) if words else None


REDACTORS: dict[str, Callable[[str], str]] = {
    "authorization": redact_authorization,
    "uri": redact_uri,
    "endpoint": redact_uri,
}
"""Fields that hold secrets."""


def redact(name: str, value: Any) -> Any:
    """Return what may be logged of a field (quirk O9); doing it twice does no harm."""
    if _hidden is not None and isinstance(value, str):
        value = _hidden.sub("...", value)
    if name in REDACTORS:
        return REDACTORS[name](value) if isinstance(value, str) else value
    if name.startswith("jwt_") and name not in OPEN_CLAIMS:
        return "..."
    return value
