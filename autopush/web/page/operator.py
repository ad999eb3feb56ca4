"""Who the operator is: whoever sits at the machine itself, or has the token.

A connection from loopback is not enough. A proxy on the machine brings all the world over loopback;
it says so in headers, hands on the ``Host`` it was asked for, or speaks HTTP/1.0, which no browser
does. A web page may have let the name of its host lead here after it was loaded (DNS rebinding);
then ``Host`` is that name. So all of these must be those of a browser on this machine.
"""

from __future__ import annotations

import hmac
import re
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from autopush.addresses import is_loopback

if TYPE_CHECKING:
    from autopush.httpserver.request import Request

FORWARDED = frozenset(
    {
        "cf-connecting-ip",
        "forwarded",
        "true-client-ip",
        "via",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-real-ip",
    }
)
"""Headers that proxies add, beside all that begin with ``x-forwarded``."""

HOST = re.compile(r"(localhost|[0-9.]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", re.IGNORECASE)

BEARER = re.compile(r"Bearer +(\S+)", re.IGNORECASE)


def is_operator(request: Request, token: str | None) -> bool:
    """Whether a request is the operator's.

    :param token: what is also accepted, as ``Authorization: Bearer``; None: nothing is
    """
    shown = BEARER.fullmatch(request.headers.get("authorization", ""))
    if shown is not None:
        return token is not None and _same(shown[1], token)
    return is_local(request)


def is_local(request: Request) -> bool:
    """Whether a request comes from a program on this machine, and through no proxy."""
    if not request.supports_http_1_1() or _is_forwarded(request):
        return False
    hosts = (request.headers.get("host", ""), request.host)
    if not all(map(_is_loopback_host, hosts)):
        return False
    return is_loopback(request.remote_ip) and _is_direct(request)


def _is_direct(request: Request) -> bool:
    """Whether the socket itself is from loopback, whatever a PROXY header said."""
    transport: Any = getattr(request.connection, "transport", None)
    while getattr(transport, "wrappedProtocol", None) is not None:
        transport = transport.transport
    peer = getattr(transport, "getPeer", None)
    return peer is not None and is_loopback(getattr(peer(), "host", ""))


def _is_forwarded(request: Request) -> bool:
    return any(
        name in FORWARDED or name.startswith("x-forwarded") for name, _ in request.headers.get_all()
    )


def _is_loopback_host(text: str) -> bool:
    match = HOST.fullmatch(text)
    return match is not None and is_loopback(match[1].strip("[]"))


def _same(one: str, other: str) -> bool:
    """Whether two texts are equal; the time taken tells nothing."""
    digests = [sha256(text.encode("utf-8", "surrogatepass")).digest() for text in (one, other)]
    return hmac.compare_digest(*digests)
