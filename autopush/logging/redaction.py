"""What must not be logged: whatever lets anyone send, read a secret, or pose as a user agent.

Source: spec/observability O9, decisions/secrets. The standalone service also replaces the ids that
open a door, those of user agents and of messages, by their HMAC: see :func:`hide_ids`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from autopush.ids import UAID, generate_hash, parse_uuid

SECRET_PATH = re.compile(r"(/wpush/(?:v\d+/)?|/m/)[^?\s\"'<>]+", re.IGNORECASE)
"""What lets anyone send (or recall) a message."""

ACCESS_KEY = re.compile(r"([?&]key=)[^?&\s\"'<>]+|(/)[\w-]{16,}(?=/v1/)", re.ASCII)
"""Where user agents show the key to a private service, a wrong one perhaps."""

JWT = re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)

OPEN_CLAIMS = frozenset(("jwt_aud", "jwt_sub", "jwt_exp", "jwt_crypto_key"))
"""What is logged of a VAPID token: whom to contact about what."""

UAID_PATH = re.compile(
    r"(/registration/)([^/?\s\"'<>]+)|(/(?:push|notif)/)((?:[0-9a-f]-?){32})(?=[/?\s\"'<>]|$)",
    re.IGNORECASE,
)
"""Where paths have a UAID: in any spelling, or something else in its place."""

UAID_TEXT = re.compile(r"(?<![0-9A-Za-z_-])[0-9a-f]{32}(?![0-9A-Za-z_-])")
"""A UAID as the service writes it, which distinguishes it from ids of channels and requests."""

FERNET = re.compile(r"(?<![\w-])gAAAA[\w-]{50,}=*", re.ASCII)
"""An id of a message, or the token of an endpoint."""

HIDDEN = re.compile(r"[0-9a-f]{64}")
"""What :func:`pseudonym` returns."""

REMEMBERED = 1024
"""Names of ids that are kept: who has one event has others soon. Some 300 KB."""

_hiding_key = ""


def hide_ids(key: str) -> None:
    """Replace UAIDs and ids of messages by their HMAC from now on, in this process.

    :param key: what it is made with: the same id has the same name as long as the key stays; empty:
        ids stay as they are
    """
    global _hiding_key
    _hiding_key = key


def pseudonym(ident: str) -> str:
    """Return the name that logs have for an id: its HMAC-SHA256, the same for all spellings of a
    UUID; the id itself where nothing is hidden, and what is such a name already."""
    if not _hiding_key or not ident or HIDDEN.fullmatch(ident):
        return ident
    return _keyed_name(_hiding_key, ident)


@lru_cache(REMEMBERED)
def _keyed_name(key: str, ident: str) -> str:
    if not UAID.fullmatch(ident):
        try:
            ident = parse_uuid(ident).hex
        except ValueError:
            pass  # an id of a message, or something that is none
    return generate_hash(key, ident.encode("utf-8", "backslashreplace"))


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
    uri = SECRET_PATH.sub(r"\1...", uri)
    return _hide(uri) if _hiding_key else uri


def redact_text(text: str) -> str:
    """Return a text without the endpoint URLs, JWTs and access keys in it."""
    if _hidden is not None:
        text = _hidden.sub("...", text)
    if "eyJ" in text:
        text = JWT.sub("...", text)
    if "/" in text:
        return redact_uri(text)
    return _hide(text) if _hiding_key else text


def _hide(text: str) -> str:
    """Hide the ids in a text or URL."""
    if "/" in text:
        text = UAID_PATH.sub(_hidden_path, text)
    text = UAID_TEXT.sub(lambda found: pseudonym(found[0]), text)
    return FERNET.sub(lambda found: pseudonym(found[0]), text) if "gAAAA" in text else text


def _hidden_path(found: re.Match[str]) -> str:
    place, ident = (found[1], found[2]) if found[1] else (found[3], found[4])
    return place + pseudonym(unquote(ident))


_hidden: re.Pattern[str] | None = None


def hide(secrets: Iterable[str]) -> None:
    """Show none of these from now on, wherever they turn up."""
    global _hidden
    words = sorted(map(re.escape, secrets), key=len, reverse=True)
    _hidden = re.compile("|".join(words)) if words else None


def hides_words() -> bool:
    """Whether there are words that are not shown, see :func:`hide`."""
    return _hidden is not None


REDACTORS: dict[str, Callable[[str], str]] = {
    "authorization": redact_authorization,
    "uri": redact_uri,
    "endpoint": redact_uri,
    "uaid_hash": pseudonym,
    "message_id": pseudonym,
    "version": pseudonym,
    **dict.fromkeys(("error", "exc", "info", "reason", "text", "uaid_record"), redact_text),
}
"""Fields that hold secrets, or texts that may."""


def redact(name: str, value: Any) -> Any:
    """Return what may be logged of a field (quirk O9); doing it twice does no harm."""
    if _hidden is not None and isinstance(value, str):
        value = _hidden.sub("...", value)
    if name in REDACTORS:
        return REDACTORS[name](value) if isinstance(value, str) else value
    if name.startswith("jwt_") and name not in OPEN_CLAIMS:
        return "..."
    return value
