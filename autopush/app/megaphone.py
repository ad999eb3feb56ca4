"""Where a node's broadcasts come from: it asks one server now and then (spec/broadcasts 1.1).

::

    GET <megaphone_api_url>        Authorization: <megaphone_api_token>
    200 {"broadcasts": {"<id>": "<version>", ...}}

A failure leaves what is known as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import orjson
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool, ResponseFailed

from autopush.app.process import Timer
from autopush.net.environment import proxy_for
from autopush.net.tunnel import ProxyError
from autopush.router.bridgehttp import BodyReader, BridgeUnavailable, Ways, describe, tls_policy
from autopush.session.broadcasts import ERRORS, MAX_NAME

if TYPE_CHECKING:
    from autopush.config import AutopushConfig
    from autopush.metrics import IMetrics
    from autopush.session.broadcasts import Broadcasts

log = Logger("autopush.main")

MAX_BODY = 1024 * 1024
"""Bytes of the answer; that of Mozilla's server has 300."""

MAX_VERSION = 1024
"""Characters of a version: it goes to everybody. In use are about 20."""

MAX_TIMEOUT = 10.0
"""Seconds for an answer; less where the next request would be due."""

MAX_LISTED = 10
"""Names of entries of no use that are shown in the log."""

IDLE_TIMEOUT = 60
"""Seconds the connection is kept between two requests."""


class NoAnswer(Exception):
    """The server answered, but not with broadcasts; the text says with what."""


class Source:
    """The server that knows the versions.

    :param url: where to ask
    :param token: the Authorization header; None or empty: none
    :param timeout: seconds for an answer
    :raises OSError, InvalidConfig: what the environment says of ways out can't be used
    """

    def __init__(self, url: str, token: str | None, timeout: float, reactor: Any) -> None:
        self._url = url
        self._headers = {"Accept": "application/json"}
        if token:
            self._headers["Authorization"] = token
        self._timeout = timeout
        self._reactor = reactor
        proxy_for(url)
        self._pool = HTTPConnectionPool(reactor)
        self._pool.maxPersistentPerHost = 1
        self._pool.cachedConnectionTimeout = IDLE_TIMEOUT
        ways: Any = RedirectedWays(reactor, timeout)
        agent: Any = Agent.usingEndpointFactory(reactor, ways, self._pool)
        self._http: Any = HTTPClient(agent)

    def fetch(self) -> Deferred[dict[str, Any]]:
        """Ask once; fires with what it has for broadcasts, id to version.

        Fails with TimeoutError, :class:`NoAnswer`, or whatever kept the answer away. Cancelling it
        ends the request.
        """
        asked = Deferred.fromCoroutine(self._fetch())
        return asked.addTimeout(self._timeout, self._reactor, _too_late)

    def close(self) -> Deferred[Any]:
        """Close the connection."""
        closed: Deferred[Any] = self._pool.closeCachedConnections()
        return closed

    async def _fetch(self) -> dict[str, Any]:
        # Redirects are followed; to another server the token does not go along.
        response = await self._http.get(
            self._url, headers=self._headers, unbuffered=True, reactor=self._reactor
        )
        reader = BodyReader(MAX_BODY)
        response.deliverBody(reader)
        body = await reader.finished
        if not 200 <= response.code < 300:
            raise NoAnswer(f"status {response.code}")
        return broadcasts_in(body)


class RedirectedWays:
    """Where the client connects to: each server by the proxy that the environment has for it."""

    def __init__(self, reactor: Any, timeout: float) -> None:
        self._reactor = reactor
        self._timeout = timeout
        self._policy = tls_policy(None)

    def endpointForURI(self, uri: URI) -> Any:
        """Return the endpoint of a server."""
        proxy = proxy_for(uri.toBytes().decode("ascii"))
        return Ways(self._reactor, self._policy, self._timeout, proxy).endpointForURI(uri)


def _too_late(_result: object, timeout: float) -> Failure:
    return Failure(TimeoutError(f"no answer within {timeout:g} s"))


def broadcasts_in(body: bytes) -> dict[str, Any]:
    """Read an answer.

    :raises NoAnswer: it is none
    """
    try:
        content = orjson.loads(body)
    except ValueError:
        raise NoAnswer("no JSON") from None
    found = content.get("broadcasts") if isinstance(content, dict) else None
    if not isinstance(found, dict):
        raise NoAnswer("no object of broadcasts")
    return found


def usable(found: dict[str, Any]) -> dict[str, str]:
    """Return the entries that can be told to user agents."""
    return {
        name: text
        for name, text in found.items()
        if isinstance(text, str)
        and 0 < len(name) <= MAX_NAME
        and len(text) <= MAX_VERSION
        and name != ERRORS
    }


def reason_of(error: BaseException) -> str:
    """Return the tag of what kept an answer away."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ConnectError | DNSLookupError | ProxyError):
        return "connect"
    if isinstance(error, NoAnswer | BridgeUnavailable | ResponseFailed):
        return "io"
    return "unknown"


class Megaphone(Timer):
    """Asks the source every ``megaphone_poll_interval`` seconds, the first time at the start.

    One request at a time, and none is started while the last has not ended.

    :param broadcasts: what the node knows
    """

    def __init__(
        self,
        conf: AutopushConfig,
        broadcasts: Broadcasts,
        metrics: IMetrics,
        reactor: Any,
        source: Callable[..., Source] = Source,
    ) -> None:
        interval = conf.megaphone_poll_interval
        super().__init__(interval, self.poll)
        self.clock = reactor
        self._broadcasts = broadcasts
        self._metrics = metrics
        timeout = min(MAX_TIMEOUT, interval * 0.8)
        self._source = source(conf.megaphone_api_url, conf.megaphone_api_token, timeout, reactor)
        self._asked: Deferred[None] | None = None
        self._failing = False
        self._stopping = False
        self._left_out: list[str] = []

    def poll(self) -> Deferred[None]:
        """Ask once. Never fails."""
        self._asked = Deferred.fromCoroutine(self._poll())
        return self._asked

    def stopService(self) -> Deferred[None] | None:
        """Ask no more; what is under way is given up."""
        self._stopping = True
        if self._asked is not None:
            self._asked.cancel()
        self._source.close().addErrback(lambda _: None)
        return super().stopService()

    async def _poll(self) -> None:
        try:
            found = await self._source.fetch()
            news = self._broadcasts.learn(self._sorted(found))
        except Exception as error:
            if not self._stopping:
                self._failed(error)
            return
        self._metrics.increment("megaphone.updater.ok")
        if self._failing:
            self._failing = False
            log.info("Broadcasts are fetched again")
        if news:
            log.info("Broadcasts changed", count=len(news), names=", ".join(news[:MAX_LISTED]))

    def _failed(self, error: Exception) -> None:
        reason = reason_of(error)
        self._metrics.increment("megaphone.updater.error", tags=[f"reason:{reason}"])
        if reason == "unknown":
            log.failure("Unexpected error", extra="Broadcasts could not be fetched")
        elif not self._failing:
            log.warn("Broadcasts could not be fetched", reason=f"{reason}: {describe(error)}")
        self._failing = True

    def _sorted(self, found: dict[str, Any]) -> dict[str, str]:
        """Leave out what can't be told; a line in the log each time that is something else."""
        good = usable(found)
        left_out = sorted(found.keys() - good.keys())
        if left_out != self._left_out:
            self._left_out = left_out
            if left_out:
                names = ", ".join(name[:MAX_NAME] for name in left_out[:MAX_LISTED])
                log.warn("Broadcasts of no use left out", count=len(left_out), names=names)
        return good
