"""Client of the Apple Push Notification service.

::

    → HEADERS  POST /3/device/<token>  apns-id apns-topic apns-priority apns-push-type
               [apns-expiration] [apns-collapse-id] [authorization: bearer <JWT>]
    → DATA     {"aps": {...}, ...}                                        at most 4096 bytes
    ← HEADERS  200, or another status with
    ← DATA     {"reason": "BadDeviceToken"[, "timestamp": <ms>]}

Source: spec/bridges 7 and 10; Apple, "Sending notification requests to APNs" and "Handling
notification responses from APNs".
"""

from __future__ import annotations

import json
import re
from collections import deque
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cryptography import x509
from hpack import NeverIndexedHeaderTuple
from OpenSSL import SSL
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.ssl import optionsForClientTLS

from autopush.net.environment import Proxy, proxy_for, trust_root
from autopush.net.http2 import Busy, HeaderList, Http2Connection, Response
from autopush.net.http2pool import Http2Pool
from autopush.net.tunnel import way_to
from autopush.router.bridge import parse_retry_after
from autopush.ssl import read_certificates, read_private_key

if TYPE_CHECKING:
    from twisted.logger import Logger

    from autopush.metrics import IMetrics
    from autopush.router.apnstoken import ProviderToken
    from autopush.types import JSONDict

SERVER = "api.push.apple.com"
SANDBOX = "api.development.push.apple.com"
PORT = 443
ALTERNATE_PORT = 2197
"""For networks that let nothing else through; TLS as well."""

APNS_MAX_CONNECTIONS = 20
MAX_RETRY = 2

APNS_PRIORITY_IMMEDIATE = "10"
APNS_PRIORITY_LOW = "5"

CONNECT_TIMEOUT = 5.0
"""Seconds for name look-up, TCP, TLS and the first SETTINGS."""

TIMEOUT = 10.0
"""Seconds for one message, with all attempts: who sent it is waiting."""

MAX_TOKEN = 2048
"""Characters of a percent-encoded device token. Apple's have 64 so far and may grow to 200; what
is longer still would only get the connection reset."""

REASON = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")
"""What Apple's reasons look like; nothing else of an answer gets into logs and metrics."""


class APNSException(Exception):
    """APNs refused a message.

    :param status: HTTP status
    :param reason: Apple's word for it; None: the answer has none
    :param retry_after: seconds Apple asks to wait; None: nothing said
    """

    def __init__(self, status: int, reason: str | None, retry_after: int | None = None) -> None:
        super().__init__(f"{status}:{reason or 'unknown'}")
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


class ComplexEncoder(json.JSONEncoder):
    """Writes numbers as DynamoDB returns them; whole ones as integers."""

    def default(self, o: Any) -> Any:
        """Return what stands for the object in JSON."""
        if isinstance(o, Decimal):
            return int(o) if o == o.to_integral_value() else float(o)
        return super().default(o)


_ENCODER = ComplexEncoder(ensure_ascii=False, separators=(",", ":"))


class APNSClient:
    """Sends messages for one app.

    :param cert_file: PEM file of the client certificate and its chain; may hold the key, too
    :param key_file: PEM file of its key
    :param topic: bundle id of the app
    :param alt: use port 2197
    :param use_sandbox: use the development server
    :param max_connections: at most this many; more than one are only made under load
    :param logger: not used
    :param metrics: not used
    :param load_connections: False: never connect, and read no file; sends are refused as busy
    :param max_retry: times a message is sent, at most
    :param host: name or address of the server, instead of Apple's
    :param port: its port
    :param ca_file: PEM file of the authorities to trust; None: the environment's, or the system's
    :param token: authenticates requests, instead of a certificate
    :param timeout: seconds for one message
    :param reactor: default: the global one
    :ivar proxy: on the way to the server
    :raises InvalidConfig: the environment names a proxy or authorities that can't be used
    :raises OSError: a file can't be read
    :raises ValueError: a file holds something else
    :raises OpenSSL.SSL.Error: certificate and key don't belong together
    """

    def __init__(
        self,
        cert_file: str | None,
        key_file: str | None,
        topic: str,
        alt: bool = False,
        use_sandbox: bool = False,
        max_connections: int = APNS_MAX_CONNECTIONS,
        logger: Logger | None = None,
        metrics: IMetrics | None = None,
        load_connections: bool = True,
        max_retry: int = MAX_RETRY,
        *,
        host: str | None = None,
        port: int | None = None,
        ca_file: str | None = None,
        token: ProviderToken | None = None,
        timeout: float = TIMEOUT,
        reactor: Any = None,
    ) -> None:
        if reactor is None:
            from twisted.internet import reactor
        self.server = host or (SANDBOX if use_sandbox else SERVER)
        self.port = port or (ALTERNATE_PORT if alt else PORT)
        self.topic = topic
        self.max_connections = max_connections
        self._token = token
        self._reactor = reactor
        self._authority = self.server if self.port == PORT else f"{self.server}:{self.port}"
        self.proxy: Proxy | None = None
        self._pool: Http2Pool | None = None
        if load_connections:
            host = f"[{self.server}]" if ":" in self.server else self.server
            self.proxy = proxy_for(f"https://{host}:{self.port}")
            self._options = tls_options(self.server, cert_file, key_file, ca_file)
            self._pool = Http2Pool(
                reactor, self._endpoint, max_connections, max_retry, timeout, CONNECT_TIMEOUT
            )

    @property
    def connections(self) -> deque[Http2Connection]:
        """The connections there are now."""
        return self._pool.connections if self._pool else deque()

    def _endpoint(self) -> Any:
        tcp = way_to(self._reactor, self.server, self.port, CONNECT_TIMEOUT, self.proxy)
        return wrapClientTLS(self._options, tcp)

    def send(
        self,
        router_token: str,
        payload: JSONDict,
        apns_id: str,
        priority: bool = True,
        topic: str | None = None,
        exp: int | None = None,
        *,
        push_type: str | None = None,
        collapse_id: str | None = None,
    ) -> Deferred[None]:
        """Send a message. (1.58.3 blocked; this fires when Apple has accepted it.)

        :param router_token: device token
        :param payload: JSON object
        :param apns_id: dashed lower-case UUID
        :param priority: whether to deliver at once, at the price of power
        :param topic: default: the client's
        :param exp: Unix seconds until when to keep it; 0: don't; None: as long as Apple likes
        :param push_type: ``alert``, ``background``, ...
        :param collapse_id: at most 64 bytes; replaces the message with the same one
        :raises APNSException: (as failure) Apple refused it
        :raises Http2Error: (as failure) there was no answer
        """
        headers = [
            ("apns-id", apns_id),
            ("apns-priority", APNS_PRIORITY_IMMEDIATE if priority else APNS_PRIORITY_LOW),
            ("apns-topic", topic or self.topic),
        ]
        if exp is not None:
            headers.append(("apns-expiration", str(exp)))
        if push_type is not None:
            headers.append(("apns-push-type", push_type))
        if collapse_id is not None:
            headers.append(("apns-collapse-id", collapse_id))
        body = _ENCODER.encode(payload).encode("utf-8", "replace")
        return Deferred.fromCoroutine(self._send(router_token, headers, body))

    async def _send(self, router_token: str, headers: HeaderList, body: bytes) -> None:
        if self._pool is None:
            raise Busy("no connections")
        device = quote(router_token, safe="", errors="replace")
        if not 0 < len(device) <= MAX_TOKEN:
            raise APNSException(400, "BadDeviceToken")
        while True:
            token = self._token.get() if self._token else None
            response = await self._pool.send(self._headers(device, token, headers), body)
            if response.status == 200:
                return
            refusal = parse_refusal(response)
            if refusal.reason != "ExpiredProviderToken" or not (
                self._token and token and self._token.renew(token)
            ):
                raise refusal

    def _headers(self, device: str, token: str | None, headers: HeaderList) -> HeaderList:
        """Return the complete header list; what differs every time is kept out of HPACK's table.

        Apple asks for that, too.
        """
        result: list[Any] = [
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", self._authority),
            NeverIndexedHeaderTuple(":path", f"/3/device/{device}"),
        ]
        if token is not None:
            result.append(("authorization", f"bearer {token}"))
        result += [
            NeverIndexedHeaderTuple(*pair) if pair[0] in CHANGING else pair for pair in headers
        ]
        return result

    def close(self) -> Deferred[None]:
        """Fail what is under way; fires when all connections are closed."""
        return self._pool.close() if self._pool else succeed(None)


CHANGING = frozenset(("apns-id", "apns-expiration", "apns-collapse-id"))


def parse_refusal(response: Response) -> APNSException:
    """Return what an answer other than 200 says."""
    try:
        reason = json.loads(response.body)["reason"]
    except (ValueError, TypeError, LookupError, RecursionError):
        reason = None
    if not isinstance(reason, str) or not REASON.fullmatch(reason):
        reason = None
    retry_after = parse_retry_after(response.headers.get(b"retry-after"))
    return APNSException(response.status, reason, retry_after)


def tls_options(
    server: str, cert_file: str | None, key_file: str | None, ca_file: str | None
) -> Any:
    """Return what a TLS connection to the server is made with: HTTP/2, its name verified."""
    extra: dict[str, Any] = {}
    if cert_file:
        chain = read_certificates(cert_file)
        extra = {
            "certificate": chain[0],
            "extraCertChain": chain[1:],
            "privateKey": read_private_key(key_file or cert_file),
        }
        check_pair(chain[0], extra["privateKey"])
    return optionsForClientTLS(
        server,
        trustRoot=trust_root(ca_file),
        acceptableProtocols=[b"h2"],
        extraCertificateOptions=extra,
    )


def check_pair(certificate: x509.Certificate, key: Any) -> None:
    """:raises OpenSSL.SSL.Error: the key is not the certificate's."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.use_certificate(certificate)
    context.use_privatekey(key)
    context.check_privatekey()
