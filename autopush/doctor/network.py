"""Checks over the network: the URLs we announce, and what time others have."""

from __future__ import annotations

import ipaddress
import json
import ssl
from collections.abc import Iterator
from datetime import UTC
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import NamedTuple
from urllib.parse import urlsplit

import requests

from autopush import clock
from autopush.app.megaphone import NoAnswer, broadcasts_in, usable
from autopush.doctor.report import Result, Subject, fail, ok, plural, warn

TIMEOUT = 5
"""Seconds for each step of a request."""

SKEW_WARN = 60
"""Seconds. VAPID tokens may be refused or live too long; nothing breaks."""

SKEW_FAIL = 300
"""Seconds beyond which AWS and Google refuse what we sign."""


class Status(NamedTuple):
    """What ``/status`` under some URL says."""

    version: str | None
    """Of the autopush there; None: there is none."""
    error: str | None
    """Why there is no answer of autopush."""
    refused: bool = False
    """Nobody listens."""
    untrusted: bool = False
    """Its certificate was not accepted."""


def status_of(url: str, verify: bool = True) -> Status:
    """Ask who serves an origin, or what is below a path of one.

    :param verify: whether its certificate must be trusted, as by other nodes
    """
    try:
        answer, body = _get(url, verify)
    except ConnectionRefusedError:
        return Status(None, "connection refused", refused=True)
    except ssl.SSLCertVerificationError as exc:
        text = f"its certificate is not accepted here: {exc.verify_message}"
        return Status(None, text, untrusted=True)
    except (OSError, HTTPException, ValueError) as exc:
        return Status(None, getattr(exc, "strerror", None) or f"{type(exc).__name__} {exc}")
    try:
        version = json.loads(body)["version"]
    except (ValueError, TypeError, KeyError):
        return Status(None, f"something else answers there (status {answer})")
    return Status(str(version), None)


def _get(url: str, verify: bool) -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection: HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        if not verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = HTTPSConnection(
            parts.hostname or "", parts.port, timeout=TIMEOUT, context=context
        )
    else:
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT)
    try:
        connection.request("GET", f"{parts.path}/status")
        answer = connection.getresponse()
        return answer.status, answer.read(65536)
    finally:
        connection.close()


def internal_url(subject: Subject) -> Iterator[Result]:
    """Whether other nodes reach this one, as far as that can be seen from here."""
    if not subject.has_internal_url:
        return
    url = subject.conf.router_url
    status = status_of(url)
    if status.version:
        yield ok("internal URL", f"{url} answers, autopush {status.version}")
    elif status.untrusted:
        yield fail("internal URL", f"{url}: {status.error}; other nodes won't send to it")
    elif status.refused:
        yield warn("internal URL", f"{url}: nothing listens; well if the service doesn't run now")
    else:
        yield fail("internal URL", f"{url}: {status.error}")


def broadcasts(subject: Subject) -> Iterator[Result]:
    """Whether there are some where they are to be fetched."""
    conf = subject.conf
    if not conf.megaphone_api_url:
        return
    name, token = "megaphone_api_url", conf.megaphone_api_token
    try:
        answer = requests.get(
            conf.megaphone_api_url,
            headers={"Authorization": token} if token else {},
            timeout=TIMEOUT,
        )
        if not answer.ok:
            raise NoAnswer(f"status {answer.status_code}")
        found = broadcasts_in(answer.content)
    except (requests.RequestException, NoAnswer) as exc:
        text = str(exc) if isinstance(exc, NoAnswer) else type(exc).__name__
        yield fail(name, f"no broadcasts: {text}")
        return
    good = usable(found)
    if len(good) < len(found):
        yield warn(name, f"{len(found) - len(good)} of {len(found)} can't be told to user agents")
    yield (ok if good else warn)(name, plural(len(good), "broadcast"))


def public_url(subject: Subject) -> Iterator[Result]:
    """Whether endpoint URLs make sense, and lead to us."""
    url = subject.conf.endpoint_url
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        yield fail("public URL", f"{url}: no sender can use the scheme {parts.scheme}")
        return
    if parts.port == 0 or not parts.hostname:
        yield ok("public URL", "known when the service runs (port 0)")
        return
    local = _is_local(parts.hostname)
    if local and subject.is_standalone:
        yield ok("public URL", f"{url}: for senders on this machine only")
    elif local:
        yield warn("public URL", f"{url}: only senders on this machine can reach it")
    elif parts.scheme == "http":
        yield warn("public URL", f"{url}: senders reach it without TLS")
    status = status_of(url)
    if status.version:
        yield ok("public URL", f"{url} answers, autopush {status.version}")
    elif status.refused and subject.has_api:
        yield warn("public URL", f"{url}: nothing listens; well if the service doesn't run now")
    else:
        yield warn("public URL", f"{url} can't be reached from here: {status.error}")


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def skew(name: str, date: str | None, now: float | None = None) -> Result | None:
    """Compare our clock with a ``Date`` header.

    :param name: whose it is
    :param now: Unix seconds; None: now
    """
    try:
        theirs = parsedate_to_datetime(date or "").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
    seconds = (clock.now() if now is None else now) - theirs
    # The header has whole seconds, and took its time to get here.
    off = max(0, round(abs(seconds)) - 2)
    text = f"{off} s {'ahead of' if seconds > 0 else 'behind'} {name}"
    if off >= SKEW_FAIL:
        return fail("clock", f"{text}: what we sign is refused")
    if off >= SKEW_WARN:
        return warn("clock", text)
    return ok("clock", f"as that of {name}")
