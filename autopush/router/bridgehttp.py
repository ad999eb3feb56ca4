"""What the bridges that speak HTTP/1.1 share: a client with limits, and the token cache.

Each credential has a client of its own, so one bridge that hangs can't take the connections of
another. Everything is bounded: connections, sends that wait for one, the time to wait and the time
for an answer, the answer's size. Redirects are not followed: where to send is the operator's
decision.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import orjson
from treq.client import HTTPClient
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import (
    URI,
    Agent,
    BrowserLikePolicyForHTTPS,
    HostnameCachingHTTPSPolicy,
    HTTPConnectionPool,
    ResponseDone,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from autopush.constants import DEFAULT_ROUTER_TIMEOUT
from autopush.exceptions import InvalidConfig, RouterException
from autopush.net.environment import Proxy, proxy_for, trust_root
from autopush.net.tunnel import way_to
from autopush.router.bridge import RETRY_AFTER, BridgeMetrics, busy, parse_retry_after
from autopush.types import JSONDict
from autopush.waiters import Waiters

MAX_CONNECTIONS = 100
"""Connections of one credential. At 50 ms an answer that is 2,000 sends a second. They may all be
made at once, and a TLS handshake is 1 ms in which nothing else is served."""

MAX_WAITING = 2000
"""Sends that may wait for a connection: what a bridge that hangs can pile up in memory."""

MAX_WAIT = 10.0
"""Seconds a send waits for a connection: its sender is waiting, too."""

IDLE_TIMEOUT = 30
"""Seconds an unused connection is kept. Less than common servers wait (nginx 75, Google 240), so
that we seldom send into a connection that is just being closed."""

BODY_LIMIT = 64 * 1024
"""Bytes of an answer. The longest of the vendors' are about 2 KB."""


class BridgeError(Exception):
    """No usable answer came. The text names the cause and holds no secret."""


class BridgeTimeout(BridgeError):
    """No complete answer in time; what was sent may or may not have been delivered."""


class BridgeUnavailable(BridgeError):
    """Connecting, TLS, or the exchange failed."""


class BridgeBusy(BridgeUnavailable):
    """Too many sends wait already; this one was not tried."""


def please_wait(text: str, metrics: BridgeMetrics, retry_after: int | None) -> RouterException:
    """Count and return the 503 for a message that may be sent again later.

    :param text: for the log
    :param retry_after: seconds the bridge asked for, if it did
    """
    metrics.error("retry", error=503, errno=0)
    seconds = retry_after or RETRY_AFTER
    body = f"Please try request in {seconds} seconds."
    return busy(text, body, seconds, log_exception=False)


def no_answer(exc: BridgeError, metrics: BridgeMetrics) -> RouterException:
    """Count and return the answer for a message whose bridge gave none (spec/bridges B16).

    The caller has logged it already.
    """
    if isinstance(exc, BridgeBusy):
        return please_wait(str(exc), metrics, None)
    timed_out = isinstance(exc, BridgeTimeout)
    errno = 903 if timed_out else 902
    reason = "timeout" if timed_out else "connection_unavailable"
    metrics.error(reason, error=502, errno=errno)
    return RouterException(
        f"Server error: {exc}",
        status_code=502,
        errno=errno,
        response_body="Server error",
        log_exception=False,
    )


class Reply(NamedTuple):
    """A complete answer."""

    code: int
    headers: Headers
    content: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """Return the decoded body.

        :raises ValueError: it isn't JSON
        """
        return orjson.loads(self.content)

    def json_object(self) -> JSONDict | None:
        """Return the decoded body if it is a JSON object."""
        try:
            data = self.json()
        except ValueError:
            return None
        return data if isinstance(data, dict) else None

    @property
    def retry_after(self) -> int | None:
        """Seconds in ``Retry-After``; None if absent or unreadable."""
        return parse_retry_after(self.headers.getRawHeaders("Retry-After", [None])[0])


def base_url(value: Any, default: str, name: str) -> str:
    """Return a configured base URL without its final slash; https if it names no scheme.

    :param name: what it is, for the error
    :raises InvalidConfig: not an http or https URL of a host
    """
    if value is None or value == "":
        return default
    url = value if isinstance(value, str) else ""
    if "://" not in url:
        url = f"https://{url}"
    error = f"Invalid {name}: {value!r} is not a URL"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidConfig(error) from None
    usable = parts.scheme in ("http", "https") and parts.hostname and port != 0
    if not usable or parts.query or parts.fragment or parts.username or not url.isascii():
        raise InvalidConfig(error)
    return url.rstrip("/")


# ---------------------------------------------------------------------------------- the client


def tls_policy(ca_file: str | None) -> HostnameCachingHTTPSPolicy:
    """Return how servers are verified, see :func:`~autopush.net.environment.trust_root`.

    One TLS context per host is made and kept: reading the system's certificates takes as long as
    many sends.

    :param ca_file: PEM file
    :raises OSError: it can't be read
    :raises InvalidConfig: it holds no certificate
    """
    try:
        policy: Any = BrowserLikePolicyForHTTPS(trust_root(ca_file))
    except ValueError as exc:
        raise InvalidConfig(f"Can't use {exc}") from exc
    return HostnameCachingHTTPSPolicy(policy)


@implementer(IAgentEndpointFactory)
class Ways:
    """Where the client connects to.

    :param timeout: seconds until there must be a connection
    :param proxy: on the way to all servers that are spoken to by TLS
    """

    def __init__(
        self, reactor: Any, policy: HostnameCachingHTTPSPolicy, timeout: float, proxy: Proxy | None
    ) -> None:
        self._reactor = reactor
        self._policy = policy
        self._timeout = timeout
        self._proxy = proxy

    def endpointForURI(self, uri: URI) -> Any:
        """Return the endpoint of a server."""
        host = uri.host.decode("ascii")
        if uri.scheme != b"https":
            return way_to(self._reactor, host, uri.port, self._timeout, None)
        tcp = way_to(self._reactor, host, uri.port, self._timeout, self._proxy)
        return wrapClientTLS(self._policy.creatorForNetloc(uri.host, uri.port), tcp)


class BridgeClient:
    """Posts to one bridge with one credential.

    :param timeout: seconds for an answer, from the moment there is a connection to use or to make
    :param ca_file: PEM file of the certificate authorities to trust, instead of the environment's
        or the system's
    :param server: base URL of all it posts to; with none there is no proxy
    :param reactor: default: the global one
    :ivar proxy: on the way to the server
    :raises OSError, InvalidConfig: see :func:`tls_policy` and
        :func:`~autopush.net.environment.proxy_for`
    """

    def __init__(
        self,
        timeout: float = DEFAULT_ROUTER_TIMEOUT,
        ca_file: str | None = None,
        max_connections: int = MAX_CONNECTIONS,
        max_waiting: int = MAX_WAITING,
        reactor: Any = None,
        server: str = "",
    ) -> None:
        self.server = server
        self.proxy = proxy_for(server)
        self.timeout = timeout
        self.max_connections = max_connections
        self.max_waiting = max_waiting
        self.reactor: Any = reactor or _reactor
        self.pool = HTTPConnectionPool(self.reactor)
        self.pool.maxPersistentPerHost = max_connections
        self.pool.cachedConnectionTimeout = IDLE_TIMEOUT
        ways: Any = Ways(self.reactor, tls_policy(ca_file), timeout, self.proxy)
        agent: Any = Agent.usingEndpointFactory(self.reactor, ways, self.pool)
        self.http: Any = HTTPClient(agent)
        self._active = 0
        self._waiting: deque[Deferred[None]] = deque()

    def post(self, url: str, headers: dict[str, str], body: bytes) -> Deferred[Reply]:
        """Send a request.

        :returns: fires with the complete answer, whatever its status; fails with
            :class:`BridgeError`
        """
        return Deferred.fromCoroutine(self._post(url, headers, body))

    def close(self) -> Deferred[None]:
        """Close the idle connections."""
        closed: Deferred[None] = self.pool.closeCachedConnections()
        return closed

    async def _post(self, url: str, headers: dict[str, str], body: bytes) -> Reply:
        if self._active >= self.max_connections:
            await self._turn()
        else:
            self._active += 1
        try:
            exchange = Deferred.fromCoroutine(self._exchange(url, headers, body))
            exchange.addTimeout(self.timeout, self.reactor, self._timed_out)
            return await exchange
        except BridgeError:
            raise
        except Exception as exc:
            raise BridgeUnavailable(describe(exc)) from exc
        finally:
            self._release()

    async def _exchange(self, url: str, headers: dict[str, str], body: bytes) -> Reply:
        response = await self.http.post(
            url,
            headers=headers,
            data=body,
            allow_redirects=False,
            unbuffered=True,
            reactor=self.reactor,
        )
        reader = BodyReader()
        response.deliverBody(reader)
        return Reply(response.code, response.headers, await reader.finished)

    def _timed_out(self, _result: object, timeout: float) -> Failure:
        by = f" by the proxy {self.proxy.name}" if self.proxy else ""
        return Failure(BridgeTimeout(f"no answer within {timeout:g} s{by}"))

    def _turn(self) -> Deferred[None]:
        """Fires when a connection is ours to use."""
        if len(self._waiting) >= self.max_waiting:
            return fail(BridgeBusy("too many sends are waiting"))
        turn: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(turn)
        return turn.addTimeout(MAX_WAIT, self.reactor, _waited_too_long)

    def _release(self) -> None:
        if self._waiting:
            self._waiting.popleft().callback(None)
        else:
            self._active -= 1


def _waited_too_long(_result: object, timeout: float) -> Failure:
    return Failure(BridgeBusy(f"no free connection within {timeout:g} s"))


def describe(exc: BaseException | None) -> str:
    """Return what went wrong in an exchange; no URL and nothing that was sent is in it."""
    reasons = getattr(exc, "reasons", None)
    if reasons:
        first = reasons[0]
        inner = first.value if isinstance(first, Failure) else first
        return f"{type(exc).__name__}: {describe(inner)}"
    return f"{type(exc).__name__}: {str(exc)[:200]}".rstrip(": ")


class BodyReader(Protocol):
    """Collects the body of an answer.

    ``finished`` fires with it, or fails with :class:`BridgeUnavailable`: it is too long or ends
    too early. Cancelling it cuts the connection.

    :param limit: bytes
    """

    def __init__(self, limit: int = BODY_LIMIT) -> None:
        self._limit = limit
        self.finished: Deferred[bytes] = Deferred(lambda _: self._abort())
        self._parts: list[bytes] = []
        self._size = 0

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        self._parts.append(data)
        if self._size > self._limit and not self.finished.called:
            self.finished.errback(BridgeUnavailable("the answer is too long"))
            self._abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.finished.called:
            return
        # PotentialDataLoss: an answer that ends with its connection.
        if reason.check(ResponseDone, PotentialDataLoss):
            self.finished.callback(b"".join(self._parts))
        else:
            self.finished.errback(BridgeUnavailable(describe(reason.value)))

    def _abort(self) -> None:
        """Cut the connection. Closing would wait for a TLS peer that may hang."""
        transport: Any = self.transport
        # What responses get is a proxy without abortConnection.
        transport = getattr(transport, "_producer", None) or transport
        if transport is not None:
            getattr(transport, "abortConnection", transport.loseConnection)()


# ----------------------------------------------------------------------------------- the tokens


class Token(NamedTuple):
    """An access token and the seconds it is valid for from now on."""

    value: str
    lifetime: float


class TokenCache:
    """An access token, fetched when it is needed; one fetch at a time, whoever waits.

    From ``early`` seconds before its end on it is still handed out, and renewed meanwhile.

    :param fetch: gets a new one; may raise what it likes
    :param seconds: monotonic clock
    :param early: seconds; never more than half of the token's lifetime
    """

    HOLD_OFF = 1.0
    """Seconds after a failed fetch in which it isn't tried again: sends that come in between fail
    the same way."""

    def __init__(
        self, fetch: Callable[[], Awaitable[Token]], seconds: Callable[[], float], early: float
    ) -> None:
        self._fetch = fetch
        self._seconds = seconds
        self._early = early
        self._value: str | None = None
        self._renew_at = self._ends_at = self._fetched_at = 0.0
        self._fetching = False
        self._waiting: Waiters[str] = Waiters()
        self._error: Exception | None = None
        self._error_until = 0.0

    def get(self) -> Deferred[str]:
        """Fires with a token; fails with what ``fetch`` raised."""
        now = self._seconds()
        held_off = self._error is not None and now < self._error_until
        if now >= self._renew_at and not self._fetching and not held_off:
            self._start()
        if self._value is not None and now < self._ends_at:
            return succeed(self._value)
        if not self._fetching and self._error is not None and held_off:
            return fail(self._error)
        return self._wait()

    def invalidate(self, value: str, younger_than: float = 0.0) -> None:
        """Forget a token the bridge refused, unless there is a newer one.

        :param younger_than: seconds; a token refused at this age is kept, because it isn't its
            age that is wrong
        """
        if value == self._value and self._seconds() - self._fetched_at >= younger_than:
            self._value = None
            self._renew_at = self._ends_at = 0.0

    def _wait(self) -> Deferred[str]:
        waiter = self._waiting.wait()
        if not self._fetching:
            self._settle()
        return waiter

    def _start(self) -> None:
        self._fetching = True
        self._error = None
        Deferred.fromCoroutine(self._renew()).addErrback(lambda _: None)

    async def _renew(self) -> None:
        try:
            token = await self._fetch()
        except Exception as exc:
            self._error = exc
            self._error_until = self._seconds() + self.HOLD_OFF
        else:
            now = self._fetched_at = self._seconds()
            self._value = token.value
            self._ends_at = now + token.lifetime
            self._renew_at = self._ends_at - min(self._early, token.lifetime / 2)
        finally:
            self._fetching = False
            self._settle()

    def _settle(self) -> None:
        """Tell those who wait how the fetch ended."""
        self._waiting.fire(str(self._value) if self._error is None else Failure(self._error))
