"""How a visitor of the page reaches the service, and so what user agents are to be told."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import attrs

from autopush.addresses import is_loopback, origin_of
from autopush.config import PUBLIC_PATH

if TYPE_CHECKING:
    from autopush.config import AutopushConfig
    from autopush.httpserver.request import Request

SCHEMES = ("http", "https")


@attrs.frozen
class Addresses:
    """What the page says of addresses.

    :ivar root: path before those of the page, beginning with a slash and not ending with one; empty
        at the root of the host
    :ivar base: where the service is, as this visitor or the public URL has it, without a slash
    :ivar websocket: where user agents connect, without an access key
    :ivar api: what endpoint URLs begin with
    :ivar key: the access key the visitor has shown; empty: none
    """

    root: str
    base: str
    websocket: str
    api: str
    key: str = attrs.field(default="", repr=False)

    @property
    def push_server(self) -> str:
        """What Firefox is given."""
        return self.websocket + self.key

    @property
    def distributor(self) -> str:
        """The same for those who ask for an address of the web."""
        scheme, _, rest = self.push_server.partition("://")
        return f"{'https' if scheme == 'wss' else 'http'}://{rest}".rstrip("/")

    @property
    def is_secure(self) -> bool:
        """Whether user agents connect over TLS."""
        return self.websocket.startswith("wss:")

    @property
    def is_local(self) -> bool:
        """Whether no other machine can reach the service under this name."""
        return _leads_here(self.base)

    @property
    def differs(self) -> bool:
        """Whether endpoint URLs lead elsewhere than the visitor has come."""
        return self.base != self.api

    @property
    def misleads(self) -> bool:
        """Whether they may lead nowhere, for other names of this machine itself do not."""
        return self.differs and not all(map(_leads_here, (self.base, self.api)))


def addresses_for(
    conf: AutopushConfig, request: Request, key: str = "", separate: bool = False
) -> Addresses:
    """Return the addresses for the visitor who has sent this request.

    The public URL is what all are told. Without one it is what the request says, which is shown to
    nobody but who has sent it: ``X-Forwarded-Proto``, ``-Host`` and ``-Prefix``, else ``Host``.

    :param key: the access key the visitor has shown
    :param separate: whether user agents connect to a port of their own
    """
    root, base = conf.public_path, conf.public_url
    if not base:
        root = _forwarded_prefix(request)
        base = (_visited(request) or conf.endpoint_url) + root
    scheme, _, place = base.partition("://")
    websocket = f"{'wss' if scheme == 'https' else 'ws'}://{place}/"
    if separate:
        websocket = _on_own_port(conf, base)
    return Addresses(root, base, websocket, conf.endpoint_url, key)


def _visited(request: Request) -> str | None:
    """The origin the visitor's browser shows; None: it can't be one."""
    headers = request.headers
    scheme = _first(headers.get("x-forwarded-proto")).lower()
    host = _first(headers.get("x-forwarded-host")) or request.host
    origin = origin_of(f"{scheme if scheme in SCHEMES else request.protocol}://{host}")
    try:
        return origin if origin is not None and urlsplit(origin).port != 0 else None
    except ValueError:  # an IPv6 address or a port that is none
        return None


def _forwarded_prefix(request: Request) -> str:
    """The path a proxy has taken off, if it says so and it is one."""
    prefix = _first(request.headers.get("x-forwarded-prefix")).rstrip("/")
    return prefix if re.fullmatch(PUBLIC_PATH, prefix) else ""


def _on_own_port(conf: AutopushConfig, base: str) -> str:
    """The WebSocket's address where it has a port of its own: under the name the visitor uses,
    unless a public URL says that others have another one."""
    if conf.public_url:
        return conf.ws_url
    host = urlsplit(base).netloc.rpartition(":" if urlsplit(base).port else "\0")
    own = urlsplit(conf.ws_url)
    port = f":{own.port}" if own.port else ""
    return f"{own.scheme}://{host[0] or host[2]}{port}/"


def _leads_here(url: str) -> bool:
    """Whether a URL names this machine, whoever asks."""
    return is_loopback(urlsplit(url).hostname or "")


def _first(value: str | None) -> str:
    """The item of the proxy that is nearest to the visitor."""
    return (value or "").partition(",")[0].strip()
