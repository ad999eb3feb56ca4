"""What the operator decided, as one object every part of the service reads.

Source: spec/python-api 2.2, spec/configuration 4 and 5.
"""

from __future__ import annotations

import json
import re
import socket
from typing import Any, TypeVar
from urllib.parse import urlsplit

import attrs
from cryptography.fernet import Fernet, MultiFernet

from autopush import ids
from autopush.addresses import (
    canonical_url,
    get_amid,
    origin_of,
    resolve_ip,
    without_password,
)
from autopush.exceptions import InvalidConfig
from autopush.message import endpoint_token
from autopush.options.bridges import BRIDGES
from autopush.ssl import AutopushSSLContextFactory
from autopush.types import Counter, JSONDict

T = TypeVar("T")

FINGERPRINT = re.compile(r"[0-9A-F]{2}(?::[0-9A-F]{2}){31}", re.IGNORECASE)
"""SHA-256 fingerprint of a client certificate."""

UNIX = "unix:"
"""Prefix of a ``host`` that is the path of a Unix socket."""

WILDCARD_HOSTS = frozenset({"", "::", "0.0.0.0"})
"""Listening addresses that are no name others can use."""


# ---------------------------------------------------------------------------------- value types


@attrs.define(slots=False)
class SSLConfig:
    """Files of a TLS listener; no key means no TLS."""

    key: str | None = None
    cert: str | None = None
    dh_param: str | None = None

    def cf(self, **kwargs: Any) -> AutopushSSLContextFactory | None:
        """Build the context factory, or None if TLS is off.

        :param kwargs: passed on (``require_peer_certs``)
        :raises TLSFileError: a file is missing or unusable
        """
        if not self.key:
            return None
        return AutopushSSLContextFactory(self.key, self.cert, dh_file=self.dh_param, **kwargs)


@attrs.define(slots=False)
class DDBTableConfig:
    """Name and provisioned capacity (units) of a DynamoDB table."""

    tablename: str
    read_throughput: int = 5
    write_throughput: int = 5


def _init_crypto_key(ck: str | bytes | list[str] | list[bytes] | None) -> list[str]:
    """Normalise ``crypto_key``: none, or only empty texts, becomes one fresh random key."""
    keys: list[Any] = [ck] if isinstance(ck, str | bytes) else list(ck or [])
    texts = [key.decode("ascii") if isinstance(key, bytes) else key for key in keys if key]
    return texts or [Fernet.generate_key().decode()]


def _nested(cls: type[T], **kwargs: Any) -> Any:
    """Describe an attribute whose dict value is turned into ``cls(**value)``."""

    def convert(value: T | dict[str, Any]) -> T:
        return cls(**value) if isinstance(value, dict) else value

    return attrs.field(converter=convert, **kwargs)


# ------------------------------------------------------------------------------------ the object


@attrs.define(slots=False, eq=False, on_setattr=attrs.setters.NO_OP)
class AutopushConfig:
    """The whole configuration. Attributes may be changed after construction.

    Times are seconds, sizes bytes. ``hostname``, ``router_url``, ``endpoint_url``, ``ws_url`` and
    ``fernet`` are computed (spec/configuration 4.1).

    :raises ValueError: a crypto key is not 32 bytes of url-safe base64
    :raises InvalidConfig: ``public_url`` is neither an origin nor one with a path, or
        ``megaphone_api_url`` no URL
    """

    debug: bool = False
    _crypto_key: Any = attrs.field(default=None, converter=_init_crypto_key, repr=False)
    bear_hash_key: list[str] = attrs.field(factory=list, repr=False)
    human_logs: bool = True
    hostname: str | None = None
    port: int | None = None
    _resolve_hostname: bool = False
    router_scheme: str | None = None
    router_hostname: str | None = None
    router_port: int | None = None
    endpoint_scheme: str | None = None
    endpoint_hostname: str | None = None
    endpoint_port: int | None = None
    proxy_protocol_port: int | None = None
    memusage_port: int | None = None
    statsd_host: str | None = "localhost"
    statsd_port: int = 8125
    megaphone_api_url: str | None = None
    megaphone_api_token: str | None = attrs.field(default=None, repr=False)
    megaphone_poll_interval: int = 30
    datadog_api_key: str | None = attrs.field(default=None, repr=False)
    datadog_app_key: str | None = attrs.field(default=None, repr=False)
    datadog_flush_interval: int | None = None
    router_table: DDBTableConfig = _nested(  # noqa: RUF009
        DDBTableConfig, factory=lambda: DDBTableConfig(tablename="router")
    )
    message_table: DDBTableConfig = _nested(  # noqa: RUF009
        DDBTableConfig, factory=lambda: DDBTableConfig(tablename="message")
    )
    preflight_uaid: str = "deadbeef00000000deadbeef00000000"
    ssl: SSLConfig = _nested(SSLConfig, factory=SSLConfig)  # noqa: RUF009
    router_ssl: SSLConfig = _nested(SSLConfig, factory=SSLConfig)  # noqa: RUF009
    client_certs: dict[str, str] | None = None
    router_conf: JSONDict = attrs.field(factory=dict, repr=False)
    connect_timeout: float = 0.5
    max_data: int = 4096
    env: str = "development"
    ami_id: str | None = None
    cors: bool = False
    hello_timeout: int = 0
    msg_limit: int = 100
    auto_ping_interval: float | None = None
    auto_ping_timeout: float | None = None
    max_connections: int | None = None
    close_handshake_timeout: int | None = None
    _notification_legacy: bool = False
    use_cryptography: bool = False
    sts_max_age: int = 31536000
    no_sslcontext_cache: bool = False
    aws_ddb_endpoint: str | None = None
    allow_table_rotation: bool = True

    # ---- not in 1.58.3
    key_hash: str = attrs.field(default="", repr=False)
    """HMAC key for UAIDs in storage and logs; empty: they are used as they are."""
    db_dsn: str = attrs.field(default="dynamodb:", repr=without_password)
    store_direct: bool = False
    """Whether a message handed to a connected user agent is also stored until acknowledged."""
    require_ttl: bool = False
    """Whether a message without ``TTL`` is refused, also if it hasn't to be stored."""
    public_url: str | None = None
    """Where others reach the HTTP API, an origin or one with a path; when set, ``endpoint_url``."""
    data_dir: str | None = None
    host: str = "0.0.0.0"
    """Address the listeners bind, or ``unix:<path>``."""
    router_host: str | None = None
    """The same for the listener of other nodes; None: ``host``."""
    allowed_origins: list[str] | None = None
    """Origins of web pages that may open WebSockets besides our own, ``*`` for all; None: all."""
    max_message_size: int = 1024 * 1024
    """Longest WebSocket message taken from a user agent."""
    max_stored: int = 10_000
    """Messages that may wait for one user agent in the SQLite store; 0: any number."""
    max_stored_bytes: int = 64 * 1024 * 1024
    """Bytes of those; 0: any number."""
    max_stored_share: int = 25
    """Percent of both that one subscription may have."""
    max_direct_unacked: int = 1000
    """Direct messages one connection may have un-acknowledged."""
    rate_subscription: int = 0
    """Messages a minute that one subscription may get; 0: any number."""
    burst_subscription: int = 1000
    """Messages it may get at once."""
    rate_sender: int = 0
    """Messages a minute that may be sent with one VAPID key; 0: any number."""
    burst_sender: int = 100_000
    """Messages that may be sent with it at once."""
    forget_after: int = 0
    """Days after which user agents without a channel are forgotten; 0: never."""
    access_keys: list[str] = attrs.field(factory=list, repr=False)
    """Who shows one of these may become a user agent; none: anybody may."""
    page: str = "off"
    """How much the page at ``/`` shows: ``off``, ``info`` or ``full``."""
    page_token: str | None = attrs.field(default=None, repr=False)
    """Who shows it on the page is the operator; None: who is on this machine."""
    prometheus_port: int | None = None
    prometheus_host: str = "127.0.0.1"
    workers: int = 1
    """Processes of the service that have one file, and one port."""
    worker: int | None = None
    """Number of this one of them, from 1; None: it is none of several."""
    worker_sockets: dict[str, str] = attrs.field(factory=dict)
    """Paths of the Unix sockets at which its workers reach each other, by the host in the URL of
    each; empty: there are no others, or they have ports."""

    router_url: str = attrs.field(init=False)
    endpoint_url: str = attrs.field(init=False)
    ws_url: str = attrs.field(init=False)
    fernet: MultiFernet = attrs.field(init=False, repr=False)
    public_origin: str | None = attrs.field(init=False, default=None)
    """Origin of a ``public_url`` with a path; None: ``endpoint_url`` is an origin itself."""
    public_path: str = attrs.field(init=False, default="")
    """That path, beginning with a slash and not ending with one; empty: there is none."""

    def __attrs_post_init__(self) -> None:
        name = self.hostname or socket.gethostname()
        self.hostname = resolve_ip(name) if self._resolve_hostname else name
        self.endpoint_hostname = self.endpoint_hostname or self.hostname
        self.router_hostname = self.router_hostname or self.hostname
        self.use_crypto_keys(self._crypto_key)
        if self.public_url:
            origin, self.public_path = normalize_public_url(self.public_url)
            self.public_origin = origin if self.public_path else None
            self.public_url = origin + self.public_path
        if self.megaphone_api_url:
            check_source(self.megaphone_api_url)
        self.compute_urls()

    def compute_urls(self) -> None:
        """Derive the URLs from scheme, host and port; again after a port has been chosen."""
        self.router_url = canonical_url(
            self.router_scheme or "http", str(self.router_hostname), self.router_port
        )
        self.endpoint_url = self.public_url or canonical_url(
            self.endpoint_scheme or "http", bracketed(self.endpoint_hostname), self.endpoint_port
        )
        scheme = "wss" if self.ssl.key else "ws"
        host = bracketed(self.hostname)
        self.ws_url = f"{scheme}://{host}:{self.port}/" if self.port else f"{scheme}://{host}/"

    @property
    def has_peers(self) -> bool:
        """Whether there may be other nodes, in other processes."""
        return bool(self.router_port or self.worker_sockets)

    @property
    def enable_tls_auth(self) -> bool:
        """Whether requests are authorised by TLS client certificate."""
        return self.client_certs is not None

    @classmethod
    def from_argparse(cls, ns: Any, **kwargs: Any) -> AutopushConfig:
        """Build an instance from parsed options.

        :param ns: object with the options as attributes; absent ones count as not given
        :param kwargs: constructor keywords that override what the options say
        :raises InvalidConfig: options contradict each other or can't be used
        """
        options: dict[str, Any] = {
            "router_conf": router_conf_from_options(ns),
            **{
                name: getattr(ns, name) for name in SAME_NAME if getattr(ns, name, None) is not None
            },
            **_renamed_options(ns),
        }
        options["client_certs"] = client_certs_from_options(ns)
        check_router_conf(options["router_conf"])
        check_unix_sockets(ns)
        if not getattr(ns, "no_aws", False) and "ami_id" not in kwargs:
            options["ami_id"] = get_amid() or "Unknown"
        if options.get("key_hash"):
            ids.key_hash = options["key_hash"]
        options.update(kwargs)
        try:
            return cls(**options)
        except (ValueError, TypeError) as exc:
            raise InvalidConfig(f"Invalid crypto_key: {exc}") from exc
        except OSError as exc:
            raise InvalidConfig(f"Can't resolve hostname: {exc}") from exc

    @property
    def crypto_keys(self) -> list[str]:
        """The crypto keys, newest first."""
        return list(self._crypto_key)

    def use_crypto_keys(self, keys: list[str]) -> None:
        """Replace the crypto keys, newest first.

        :raises ValueError: one is no Fernet key
        """
        self._crypto_key = keys
        self.fernet = MultiFernet([Fernet(key) for key in keys])

    # ------------------------------------------------------------------------------- endpoints

    def make_endpoint(self, uaid: str, chid: str, key: str | None = None) -> str:
        """Return the URL at which messages for a channel are accepted (spec/http-endpoint 4).

        :param uaid: user agent id, with or without dashes
        :param chid: channel id, with or without dashes
        :param key: application server key as base64url; the URL then only takes its messages
        :raises ValueError: ``key`` can't be decoded
        """
        return endpoint_token.make_endpoint(self.fernet, self.endpoint_url, uaid, chid, key)

    def parse_endpoint(
        self,
        metrics: Counter,
        token: str,
        version: str | None = "v1",
        ckey_header: str | None = None,
        auth_header: str | None = None,
    ) -> JSONDict:
        """Decode an endpoint's token (spec/http-endpoint 5.2), counting ``notification.auth``.

        :returns: ``uaid``, ``chid`` (hex), ``version``, ``public_key``
        :raises cryptography.fernet.InvalidToken: not our token
        :raises InvalidTokenException: ours, but malformed
        :raises VapidAuthException: Authorization or Crypto-Key don't fit the token
        """

        def count(auth: JSONDict) -> None:
            tags = [f"vapid:{auth['version']}", f"scheme:{auth['scheme']}"]
            metrics.increment("notification.auth", tags=tags)

        parsed = endpoint_token.parse_endpoint(
            self.fernet, token, version, ckey_header, auth_header, count
        )
        return {
            "uaid": parsed.uaid,
            "chid": parsed.chid,
            "version": parsed.version,
            "public_key": parsed.public_key,
        }


# --------------------------------------------------------------------------- options → attributes

SAME_NAME = (  # noqa: SIM905
    "debug crypto_key human_logs hostname port resolve_hostname router_hostname router_port"
    " endpoint_scheme endpoint_hostname endpoint_port proxy_protocol_port memusage_port"
    " statsd_host statsd_port datadog_api_key datadog_app_key datadog_flush_interval max_data env"
    " hello_timeout msg_limit auto_ping_interval auto_ping_timeout max_connections"
    " close_handshake_timeout use_cryptography sts_max_age aws_ddb_endpoint key_hash db_dsn"
    " store_direct public_url data_dir host max_message_size max_direct_unacked max_stored"
    " max_stored_bytes max_stored_share prometheus_port prometheus_host require_ttl"
    " router_host forget_after rate_subscription burst_subscription rate_sender burst_sender"
    " page"
    " megaphone_api_url megaphone_api_token megaphone_poll_interval"
    " workers"
).split()
"""Options that keep their name as an attribute."""


def _renamed_options(ns: Any) -> dict[str, Any]:
    """Return the attributes that are named or shaped differently from their options."""

    def given(name: str, default: Any = None) -> Any:
        return getattr(ns, name, default)

    def table(prefix: str) -> dict[str, Any]:
        return {
            "tablename": given(f"{prefix}_tablename") or prefix,
            "read_throughput": given(f"{prefix}_read_throughput", 5),
            "write_throughput": given(f"{prefix}_write_throughput", 5),
        }

    def ssl(prefix: str) -> dict[str, Any]:
        return {
            "key": given(f"{prefix}ssl_key"),
            "cert": given(f"{prefix}ssl_cert"),
            "dh_param": given("ssl_dh_param"),
        }

    return {
        # An empty key would make every registration secret forgeable: quirk C6.
        "bear_hash_key": [key for key in given("auth_key") or [] if key],
        "connect_timeout": given("connection_timeout", 1),
        "allowed_origins": allowed_origins(given("allowed_origins")),
        "no_sslcontext_cache": bool(given("_no_sslcontext_cache", False)),
        "cors": not given("no_cors", True),
        "allow_table_rotation": not given("no_table_rotation", False),
        "router_scheme": "https" if given("router_ssl_key") else "http",
        "router_table": table("router"),
        "message_table": table("message"),
        "ssl": ssl(""),
        "router_ssl": ssl("router_"),
    }


def router_conf_from_options(ns: Any) -> JSONDict:
    """Collect the bridges' settings, by router type (spec/configuration 4.4).

    :raises InvalidConfig: first half of spec/configuration 5
    """
    found = {name: bridge.settings(ns) for name, bridge in BRIDGES.items()}
    return {name: settings for name, settings in found.items() if settings is not None}


def check_router_conf(conf: JSONDict) -> None:
    """Check the bridges' settings further, in place.

    What is wrong here comes after ``client_certs`` in the order of spec/configuration 5, hence the
    second pass.

    :raises InvalidConfig: second half of spec/configuration 5
    """
    for name, bridge in BRIDGES.items():
        if name in conf:
            conf[name] = bridge.checked(conf[name])


def client_certs_from_options(ns: Any) -> dict[str, str] | None:
    """Turn ``{"<name>": ["<fingerprint>", …]}`` into fingerprint (upper case) → name.

    :raises InvalidConfig: spec/configuration 5
    """
    text = getattr(ns, "client_certs", None)
    if not text:
        return None
    error = "Invalid JSON specified for client_certs"
    try:
        certs = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InvalidConfig(error) from exc
    if not certs and not isinstance(certs, bool):
        return None
    if not isinstance(certs, dict) or not all(isinstance(v, list) for v in certs.values()):
        raise InvalidConfig(error)
    if not getattr(ns, "ssl_key", None):
        raise InvalidConfig("client_certs specified without SSL enabled (no ssl_key specified)")
    names: dict[str, str] = {}
    for name, fingerprints in certs.items():
        for fingerprint in fingerprints:
            usable = name and isinstance(fingerprint, str) and FINGERPRINT.fullmatch(fingerprint)
            if not usable or fingerprint.upper() in names:
                raise InvalidConfig("Invalid client_certs argument")
            names[fingerprint.upper()] = name
    return names


# ------------------------------------------------------------------------------ addresses


def bracketed(host: str | None) -> str:
    """Return the host as it appears in a URL: IPv6 addresses in brackets."""
    host = host or ""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def check_unix_sockets(ns: Any) -> None:
    """:raises InvalidConfig: a Unix socket has no path, or two listeners would share one."""
    host, router_host = getattr(ns, "host", None) or "", getattr(ns, "router_host", None) or ""
    if UNIX in (host, router_host):
        raise InvalidConfig(f"{'host' if host == UNIX else 'router_host'} unix:<path> needs a path")
    if host.startswith(UNIX) and getattr(ns, "router_port", None) and router_host in ("", host):
        raise InvalidConfig("host unix:<path> needs a router_host beside router_port")


PUBLIC_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+)*")
"""A path that is the same in every spelling: no proxy or client has to escape anything in it."""

OWN_SEGMENTS = frozenset(
    "wpush m v1 page status health __version__ __heartbeat__ __lbheartbeat__".split()  # noqa: SIM905
)
"""First segments of the HTTP API's own paths."""


def normalize_public_url(url: str) -> tuple[str, str]:
    """Check ``public_url`` and return it as an origin, as browsers serialise one (RFC 6454 6.2),
    and a path, which may be empty.

    The origin is what VAPID's ``aud`` is compared with (RFC 8292 2). A path must not begin like one
    of our own, which it could not be told from where a proxy takes it off.

    :raises InvalidConfig: not ``http[s]://host[:port][/path]``
    """
    error = f"Invalid public_url: {url!r}, must be http[s]://host[:port], or that with a /path"
    try:
        parts = urlsplit(url.strip())
        port = parts.port
        host = (parts.hostname or "").encode("idna" if parts.hostname else "ascii").decode()
    except ValueError as exc:
        raise InvalidConfig(error) from exc
    path = parts.path.rstrip("/")
    first = path[1:].partition("/")[0]
    if first in OWN_SEGMENTS:
        raise InvalidConfig(
            f"Invalid public_url: {url!r}, /{first} is a path of the service itself"
        )
    if not PUBLIC_PATH.fullmatch(path):
        raise InvalidConfig(error)
    extra = parts.query or parts.fragment or "@" in parts.netloc
    if parts.scheme not in ("http", "https") or not host or extra or port == 0:
        raise InvalidConfig(error)
    if not re.fullmatch(r"[a-z0-9._-]+|[0-9a-f:.]+", host):
        raise InvalidConfig(error)
    return canonical_url(parts.scheme, bracketed(host), port), path


def check_source(url: str) -> None:
    """:raises InvalidConfig: broadcasts can't be fetched there. The text doesn't show the URL."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isascii() or "@" in parts.netloc or re.search(r"\s", url):
        raise InvalidConfig(
            "Invalid megaphone_api_url: must be http://host[:port]/path or https://, and without a"
            " user and password: megaphone_api_token is for those"
        )


def allowed_origins(texts: list[str] | None) -> list[str] | None:
    """Check ``allowed_origins`` and return them as browsers write them.

    :param texts: each may hold several, separated by commas; None where there is no such option
    :raises InvalidConfig: one is no origin
    """
    if texts is None:
        return None
    found = []
    for text in ",".join(texts).replace(",", " ").split():
        origin = text if text == "*" else origin_of(text)
        if origin is None:
            raise InvalidConfig(f"Invalid allowed_origins: {text!r}, must be https://host[:port]")
        found.append(origin)
    return found


def announced_host(host: str, hostname: str | None) -> str:
    """Return the name to put into URLs for a service that listens on ``host``.

    An explicit ``hostname`` wins. A wildcard is reached under the machine's name, a Unix socket
    by a proxy on this machine, anything else under the address itself.
    """
    if hostname:
        return hostname
    if host.startswith(UNIX):
        return "localhost"
    if host in WILDCARD_HOSTS:
        return socket.gethostname()
    return host
