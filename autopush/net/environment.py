"""What the environment says of the ways out: proxies, and authorities to trust.

The variables are those ``requests`` reads, with which 1.58.3 spoke to Amazon and Google, and with
which access tokens are still fetched; so they mean the same to all:

``HTTPS_PROXY``, else ``ALL_PROXY``
    the proxy for what is sent by TLS; lower case wins over upper case
``NO_PROXY``
    names, domains, addresses and networks that are reached without
``REQUESTS_CA_BUNDLE``, else ``CURL_CA_BUNDLE``
    a PEM file, or a directory of them, with the authorities to trust instead of the system's
"""

from __future__ import annotations

import base64
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import attrs
from OpenSSL import crypto
from requests.utils import get_environ_proxies, select_proxy
from twisted.internet.ssl import (
    Certificate,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)

from autopush.exceptions import InvalidConfig

BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables that name authorities; the first that isn't empty counts."""

CERTIFICATE = re.compile(
    rb"-----BEGIN (?:X509 )?CERTIFICATE-----.+?-----END (?:X509 )?CERTIFICATE-----", re.DOTALL
)
"""One of the many in a PEM file. OpenSSL reads them: among the system's are some that stricter
libraries refuse."""

PORTS = {"http": 80, "https": 443}
"""Schemes of proxies we can use, with their default ports."""


@attrs.frozen
class Proxy:
    """A proxy that opens tunnels.

    :ivar scheme: how to speak to it
    :ivar authorization: value of ``Proxy-Authorization``; a secret
    :ivar tls: what TLS to the proxy is made with; None: it is spoken to without
    """

    scheme: str
    host: str
    port: int
    authorization: str | None = attrs.field(default=None, repr=False)
    tls: Any = attrs.field(default=None, repr=False, eq=False)

    @property
    def name(self) -> str:
        """Its URL without credentials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def proxy_for(url: str) -> Proxy | None:
    """Return the proxy on the way to a server; None: there is none.

    Only what is sent by TLS goes through proxies.

    :raises InvalidConfig: the proxy that the environment names can't be used
    :raises OSError: see :func:`trust_root`
    """
    parts = urlsplit(url)
    if parts.scheme != "https":
        return None
    chosen = select_proxy(url, get_environ_proxies(url))
    if not chosen:
        return None
    try:
        return parse_proxy(chosen)
    except ValueError as exc:
        # The URL itself may hold a password.
        raise InvalidConfig(
            f"The proxy for {parts.hostname} (HTTPS_PROXY or ALL_PROXY) can't be used: {exc}"
        ) from None


def parse_proxy(text: str) -> Proxy:
    """Return the proxy a URL names; one without a scheme is ``http``.

    :raises ValueError: it can't be used. The text holds nothing of the URL but its scheme.
    :raises OSError: see :func:`trust_root`
    """
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("that is no URL") from None
    if parts.scheme not in PORTS:
        raise ValueError(f"it must be http or https, not {parts.scheme[:16]}")
    if not host or not host.isascii() or port == 0:
        raise ValueError("that is no URL of a host")
    authorization = None
    if parts.username:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {base64.b64encode(credentials.encode()).decode()}"
    tls = optionsForClientTLS(host, trustRoot=trust_root()) if parts.scheme == "https" else None
    return Proxy(parts.scheme, host, port or PORTS[parts.scheme], authorization, tls)


def ca_bundle() -> tuple[str, str] | None:
    """Return the variable that names the authorities to trust, and its value."""
    found = ((name, os.environ.get(name)) for name in BUNDLES)
    return next(((name, path) for name, path in found if path), None)


def trust_root(ca_file: str | None = None) -> Any:
    """Return who is trusted to vouch for servers.

    :param ca_file: PEM file; None: what the environment names, or else the system's
    :raises OSError: the file can't be read
    :raises ValueError: it holds no certificate
    """
    bundle = ca_bundle()
    path = ca_file or (bundle and bundle[1])
    if not path:
        return platformTrust()
    return _authorities(path, os.stat(path).st_mtime_ns)


@lru_cache(maxsize=16)
def _authorities(path: str, changed: int) -> Any:
    """Read a file or directory: once, as each credential of each bridge asks.

    :param changed: when it was; nanoseconds
    """
    found: dict[bytes, None] = {}  # c_rehash links each one a second time
    for file in _files(path):
        found.update(dict.fromkeys(CERTIFICATE.findall(file.read_bytes())))
    try:
        authorities = [Certificate.loadPEM(pem) for pem in found]
    except crypto.Error:
        authorities = []
    if not authorities:
        raise ValueError(f"{path}: it holds no certificate")
    return trustRootFromCertificates(authorities)


def _files(path: str) -> list[Path]:
    """Return a file, or those of a directory that can be read: there are links to nothing."""
    if not os.path.isdir(path):
        return [Path(path)]
    files = sorted(Path(path).iterdir())
    return [one for one in files if one.is_file() and os.access(one, os.R_OK)]
