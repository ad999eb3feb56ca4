"""Failures for Sentry, through raven (spec/observability 5).

What leaves is the exception with its stack, the event's format, name space and ``client_info``,
redacted as in log lines and a little more; no variables, no command line.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from io import BytesIO
from types import FrameType
from typing import Any

from raven import Client
from raven.exceptions import InvalidDsn
from raven.transport.twisted import TwistedHTTPTransport
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import Agent, FileBodyProducer, HTTPConnectionPool
from twisted.web.http_headers import Headers

from autopush import __version__
from autopush.exceptions import InvalidConfig
from autopush.logging.redaction import redact, redact_text
from autopush.types import JSONDict
from autopush.waiters import Waiters

reactor: Any = _reactor

TIMEOUT = 5.0
"""Seconds to connect to Sentry, and again for its answer."""

MAX_SENDING = 100
"""Events on their way; further ones are dropped. Each is some 10 KB."""

COMPLAIN_EVERY = 60.0
"""Seconds between two log lines about events that were not delivered."""

LAST_WORDS = 2.0
"""Seconds a shutdown waits for events on their way."""

PRIVATE = frozenset(("authorization", "message_id", "version"))
"""Members of ``client_info`` that allow to do something in someone's place."""

TAGS = ("status_code", "errno")
"""Members of an event that become tags, beside its name space."""

MACHINERY = ("twisted.logger", "twisted.python.log", "autopush.logging")
"""Modules whose frames say nothing about where an event comes from."""

DSN = re.compile(r"(?:\w+\+)?https?://", re.ASCII)
"""How one begins; a transport before the scheme is of older days, and ignored."""

log = Logger()


class Transport(TwistedHTTPTransport):
    """raven's, able to send on Python 3, from any thread, and not for ever."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._agent = Agent(reactor, connectTimeout=TIMEOUT, pool=HTTPConnectionPool(reactor))
        self.sending = 0
        self._idle: Waiters[None] = Waiters()

    def async_send(
        self, url: str, data: bytes, headers: JSONDict, success_cb: Any, failure_cb: Any
    ) -> None:
        """Send an event; one of the functions is called in the end, in the reactor's thread."""
        reactor.callFromThread(self._send, url.encode(), data, headers, success_cb, failure_cb)

    def _send(self, url: bytes, data: bytes, headers: JSONDict, success: Any, failure: Any) -> None:
        if self.sending >= MAX_SENDING:
            failure(RuntimeError(f"{MAX_SENDING} events are on their way already"))
            return
        self.sending += 1
        body: Any = FileBodyProducer(BytesIO(data))
        request = self._agent.request(
            b"POST",
            url,
            Headers({name: [value] for name, value in headers.items()}),
            body,
        )
        request.addCallback(_check)
        request.addTimeout(TIMEOUT, reactor)
        request.addCallbacks(lambda _: success(), lambda reason: failure(reason.value))
        request.addErrback(lambda reason: None)  # raven's own mistakes
        request.addBoth(self._sent)

    def _sent(self, _: object) -> None:
        self.sending -= 1
        if not self.sending:
            self._idle.fire(None)

    def idle(self) -> Deferred[None]:
        """Fires when nothing is on its way."""
        if not self.sending:
            return succeed(None)
        return self._idle.wait()


class _Rest(Protocol):
    """Takes a body nobody reads; without that the connection could not be used again."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.done: Deferred[None] = Deferred()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.status == 200:
            self.done.callback(None)
        else:
            self.done.errback(RuntimeError(f"Sentry answered {self.status}"))


def _check(response: Any) -> Deferred[None]:
    rest = _Rest(response.code)
    response.deliverBody(rest)
    return rest.done


class SentryClient(Client):
    """raven's client for our events.

    :param dsn: where to send to
    :raises InvalidConfig: it is none
    """

    def __init__(self, dsn: str) -> None:
        try:
            if not DSN.match(dsn):
                raise ValueError("scheme")
            super().__init__(
                dsn=dsn,
                transport=Transport,
                release=__version__,
                # Not the command line, which may hold keys, nor what variables hold.
                context={},
                capture_locals=False,
                include_versions=False,
                enable_breadcrumbs=False,
                install_sys_hook=False,
                install_logging_hook=False,
                hook_libraries=(),
            )
        except (InvalidDsn, ValueError):
            # The text would show the key.
            raise InvalidConfig("Invalid SENTRY_DSN") from None
        self.transport: Transport = self.remote.get_transport()
        self._complain_next = 0.0

    def report(self, event: JSONDict) -> None:
        """Send an event that carries a failure."""
        failure = event["log_failure"]
        traceback = failure.getTracebackObject()
        extra: JSONDict = {
            "log_format": _text(event.get("log_format")),
            "log_namespace": event.get("log_namespace"),
            "client_info": scrubbed(event.get("client_info")),
        }
        stack = None
        if traceback is None:
            extra["no_failure_tb"] = True
            stack = list(reversed(list(current_stack())))
        self.captureException(
            (failure.type, failure.value, traceback),
            extra=extra,
            tags=tags_of(event),
            stack=stack,
        )

    def build_msg(self, event_type: str, *args: Any, **kwargs: Any) -> JSONDict:
        """Build the event, and take out of its texts what lets others send."""
        data: JSONDict = super().build_msg(event_type, *args, **kwargs)
        for value in data.get("exception", {}).get("values", ()):
            value["value"] = _text(value["value"])
        data["message"] = _text(data.get("message"))
        return data

    def idle(self) -> Deferred[Any]:
        """Fires when all events are delivered, or after :data:`LAST_WORDS` seconds."""
        waiting = self.transport.idle()
        if not waiting.called:
            waiting.addTimeout(LAST_WORDS, reactor, onTimeoutCancel=lambda *_: None)
        return waiting

    # ---- traps

    def skip_error_for_logging(self, exc_info: Any) -> bool:
        """Send every event: raven would know one again by its address in memory."""
        return False

    def record_exception_seen(self, exc_info: Any) -> None:
        """Don't remember it; the memory would never be freed."""

    def _failed_send(self, exc: Any, url: str, data: Any) -> None:
        """Tell, but not with every event, nor as a failure: that would come here again."""
        self.state.set_fail()
        now = time.monotonic()
        if now >= self._complain_next:
            self._complain_next = now + COMPLAIN_EVERY
            log.warn("Events for Sentry are lost: {error}", error=str(exc) or type(exc).__name__)

    def _log_failed_submission(self, data: Any) -> None:
        """The event is in the log already."""


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return redact_text("" if value is None else str(value))


def scrubbed(client_info: Any) -> JSONDict | None:
    """Return a request's fields as they may be shown to others."""
    if not isinstance(client_info, dict):
        return None
    return {
        name: "..." if name in PRIVATE and value else redact(name, value)
        for name, value in client_info.items()
    }


def tags_of(event: JSONDict) -> dict[str, str]:
    """Return what events may be searched by."""
    tags = {name: str(event[name]) for name in TAGS if isinstance(event.get(name), int)}
    return {"log_namespace": str(event.get("log_namespace", "")), **tags}


def current_stack() -> Iterator[tuple[FrameType, int]]:
    """Yield the frames that led to the event, innermost first, with their lines."""
    frame: FrameType | None = sys._getframe(1)
    outside = False
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        outside = outside or not module.startswith(MACHINERY)
        if outside:
            yield frame, frame.f_lineno
        frame = frame.f_back
