"""The HTTP API for application servers, watched and disturbed.

Every request is written down when it has its answer, whatever handler it met. A message that is
right meets the faults before it is routed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from autopush import clock
from autopush.control.faults import Fault, Faults
from autopush.control.journal import MAX_ENTRIES, Journal
from autopush.exceptions import RouterException
from autopush.http import EndpointHTTPFactory, StandaloneHTTPFactory
from autopush.httpserver.handler import BaseHandler
from autopush.message.encoding import base64url_encode
from autopush.web.base import NotFoundHandler
from autopush.web.rules import validated
from autopush.web.webpush import PushRequest, WebPushHandler

if TYPE_CHECKING:
    from autopush.db.interface import User
    from autopush.httpserver.application import Routes
    from autopush.message.notification import WebPushNotification
    from autopush.types import JSONDict

BAD_GATEWAY = "<html><head><title>502 Bad Gateway</title></head><body>502 Bad Gateway</body></html>"


@attrs.define
class Record:
    """A request, and what became of it.

    :ivar time: Unix seconds, by the service's clock
    :ivar endpoint: the URL it was sent to
    :ivar status: None: there was no answer
    :ivar errno: number in the answer's body (see the manual), if it was refused
    :ivar reason: why it was refused
    :ivar fault: name of the fault it met
    :ivar vapid: ``sub``, ``aud``, ``exp`` and the other claims, and ``key``; None if it was not
        signed, or refused before the signature was checked
    :ivar channel: id of the subscription, as soon as that was known
    :ivar message: the message's id, as its ``Location`` has it
    """

    time: float
    method: str
    endpoint: str
    path: str
    remote: str
    headers: dict[str, str]
    body: bytes
    status: int | None = None
    answer: dict[str, str] = attrs.field(factory=dict)
    errno: int | None = None
    reason: str | None = None
    fault: str | None = None
    vapid: JSONDict | None = None
    channel: str | None = None
    message: str | None = None
    ttl: int | None = None

    @property
    def senders(self) -> set[str]:
        """By what names its sender may be meant."""
        vapid = self.vapid or {}
        names = (self.remote, vapid.get("key"), vapid.get("sub"))
        return {name for name in names if isinstance(name, str)}

    def to_json(self) -> JSONDict:
        """As the API shows it."""
        shown = attrs.asdict(self)
        shown["body"] = base64url_encode(self.body)
        shown["subscription"] = shown.pop("channel")
        return shown


class Observed(BaseHandler):
    """A handler whose requests are written down."""

    record: Record
    _noted = False

    def initialize(self, **kwargs: Any) -> None:
        super().initialize(**kwargs)
        request = self.request
        self.record = Record(
            clock.now(),
            request.method,
            self.conf.endpoint_url + request.path,
            request.path,
            request.remote_ip,
            dict(request.headers),
            request.body,
        )

    def finish(self, chunk: Any = None) -> None:
        """Complete the answer, and write down what it was."""
        record = self.record
        record.status = self._status_code
        record.answer = dict(self._headers)
        if self._status_code >= 300 and isinstance(chunk, bytes):
            why = json.loads(chunk)
            record.errno, record.reason = why.get("errno"), why.get("message")
        self.note()
        super().finish(chunk)

    def note(self) -> None:
        """Write the request down, once."""
        if not self._noted and self.request.method != "OPTIONS":
            self._noted = True
            self.application.requests.append(self.record)

    def on_connection_close(self) -> None:
        """The sender did not wait for its answer."""
        self.note()


class ObservedNotFoundHandler(Observed, NotFoundHandler):
    """Where there is nothing."""


class ObservedWebPushHandler(Observed, WebPushHandler):
    """Where messages come to."""

    application: ObservedEndpoint

    async def meet(
        self,
        subscription: JSONDict,
        notification: WebPushNotification,
        jwt: JSONDict | None = None,
        **kwargs: Any,
    ) -> None:
        """Let a message that passed all checks meet its fault, or go on as ever."""
        record = self.record
        record.channel = str(notification.channel_id)
        record.message, record.ttl = notification.message_id, notification.ttl
        if jwt:
            record.vapid = {**jwt["jwt_data"], "key": jwt["jwt_crypto_key"]}
        app = self.application
        app.remember(notification, record)
        fault = app.faults.take(record)
        message = Message(self, subscription, notification, jwt)
        if fault is None:
            await message.route()
        else:
            record.fault = fault.name
            await ACTIONS.get(fault.name, answer)(message, fault)
        await app.release(notification.channel_id.hex, message)

    post = validated(PushRequest)(meet)


@attrs.define(eq=False)
class Message:
    """A message that is right, on its way."""

    handler: ObservedWebPushHandler
    subscription: JSONDict
    notification: WebPushNotification
    jwt: JSONDict | None

    @property
    def user(self) -> User:
        """The record of the user it is for."""
        user: User = self.subscription["user_data"]
        return user

    async def route(self) -> None:
        """Go the usual way."""
        await self.handler.route(self.subscription, self.notification, self.jwt)

    def accept(self) -> None:
        """Answer 201, as for a message that waits for its user agent."""
        router: Any = self.handler.application.routers["webpush"]
        self.handler._router_response(
            router.stored_response(self.notification), "webpush", self.jwt
        )

    async def deliver(self, notification: WebPushNotification) -> None:
        """Route a message whose sender hears nothing of it."""
        router: Any = self.handler.application.routers[self.user["router_type"]]
        user = await self.handler.db.get_user(notification.uaid.hex)
        if user is None:
            return
        with contextlib.suppress(RouterException):  # which nobody is to hear of
            await router.route(notification, user)


# ---------------------------------------------------------------------------- what faults do


async def answer(message: Message, fault: Fault) -> None:
    """A status of its own."""
    kind, handler = fault.kind, message.handler
    assert kind.status is not None
    headers = {"Retry-After": str(fault.retry_after)} if kind.status in (429, 503) else None
    handler._write_response(
        kind.status, kind.errno, message=f"Fault: {fault.name}", headers=headers
    )


async def bad_gateway(message: Message, fault: Fault) -> None:
    """What doesn't come from a push service at all."""
    handler = message.handler
    handler.clear()
    handler.set_status(502)
    handler.finish(BAD_GATEWAY)


async def late(message: Message, fault: Fault) -> None:
    """Let the sender wait, by the service's clock."""
    await message.handler.application.hold(message.handler, fault.delay)
    await message.route()


async def time_out(message: Message, fault: Fault) -> None:
    """Answer nothing, until the sender leaves or the faults are taken back."""
    message.handler._auto_finish = False
    message.handler.note()
    await message.handler.application.hold(message.handler)
    hang_up(message.handler)


async def reset(message: Message, fault: Fault) -> None:
    """End the connection in the midst."""
    message.handler._auto_finish = False
    message.handler.note()
    hang_up(message.handler)


def hang_up(handler: BaseHandler) -> None:
    """Reset the sender's connection."""
    handler.request.connection.transport.abortConnection()  # type: ignore[union-attr]


async def duplicate(message: Message, fault: Fault) -> None:
    """Deliver a copy first: user agents know one of the same id."""
    copy = attrs.evolve(message.notification, sortkey_timestamp=None)
    copy.generate_message_id(message.handler.conf.fernet)
    message.handler.application.remember(copy, message.handler.record)
    await message.deliver(copy)
    await message.route()


async def disorder(message: Message, fault: Fault) -> None:
    """Keep it until the next one has come."""
    message.accept()
    message.handler.application.keep(message)


async def lost(message: Message, fault: Fault) -> None:
    """Accept it, and nothing else."""
    message.accept()


async def expired(message: Message, fault: Fault) -> None:
    """Accept it for no time at all."""
    message.notification.ttl = 0
    message.accept()


ACTIONS: dict[str, Callable[[Message, Fault], Awaitable[None]]] = {
    "bad-gateway": bad_gateway,
    "late": late,
    "time-out": time_out,
    "reset": reset,
    "duplicate": duplicate,
    "disorder": disorder,
    "lost": lost,
    "expired": expired,
}
"""What the faults do that are more than a status."""


# ------------------------------------------------------------------------------- the application


OBSERVED: dict[Any, Any] = {
    WebPushHandler: ObservedWebPushHandler,
    NotFoundHandler: ObservedNotFoundHandler,
}


def observed(routes: Routes) -> Routes:
    """The same routes, to handlers that are watched."""
    return tuple((pattern, OBSERVED.get(handler, handler)) for pattern, handler in routes)


class ObservedEndpoint(EndpointHTTPFactory):
    """The HTTP API, with a book of requests, and faults.

    :ivar requests: everything that was answered, but for preflights
    :ivar by_message: what brought a message, by the message's id
    """

    ap_handlers = observed(EndpointHTTPFactory.ap_handlers)
    not_found_handler = ObservedNotFoundHandler

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.faults = Faults()
        self.requests: Journal[Record] = Journal(self.clock)
        self.by_message: dict[str, Record] = {}
        self._held: set[Deferred[Any]] = set()
        self._kept: dict[str, list[Message]] = {}

    def refusal(self, status: int, reason: str) -> tuple[dict[str, str], bytes]:
        """Write down what was no request, as far as it can be told."""
        headers, body = super().refusal(status, reason)
        record = Record(clock.now(), "", self.conf.endpoint_url, "", "", {}, b"", status, headers)
        why = json.loads(body)
        record.errno, record.reason = why["errno"], why.get("message")
        self.requests.append(record)
        return headers, body

    def remember(self, notification: WebPushNotification, record: Record) -> None:
        """What brought this message; the oldest are forgotten first."""
        self.by_message[str(notification.message_id)] = record
        if len(self.by_message) > MAX_ENTRIES:
            del self.by_message[next(iter(self.by_message))]

    # ---- who has to wait

    async def hold(self, handler: BaseHandler, seconds: float | None = None) -> None:
        """Wait.

        :param seconds: by the service's clock; None: until the sender leaves, or :meth:`heal`
        """
        waiting: Deferred[Any]
        if seconds is None:
            waiting = Deferred()
            handler.notifyFinish().addBoth(lambda _: self._let_go(waiting))
        else:
            waiting = deferLater(self.clock, seconds)
        self._held.add(waiting)
        try:
            await waiting
        except CancelledError:  # by heal
            pass
        finally:
            self._held.discard(waiting)

    def _let_go(self, waiting: Deferred[Any]) -> None:
        if not waiting.called:
            waiting.callback(None)

    def keep(self, message: Message) -> None:
        """Keep a message until the next of its subscription has been routed."""
        self._kept.setdefault(message.notification.channel_id.hex, []).append(message)

    async def release(self, channel: str, latest: Message | None = None) -> None:
        """Deliver what was kept for a subscription, but for this one."""
        kept = self._kept.pop(channel, [])
        for message in kept:
            if message is latest:
                self.keep(message)
            else:
                await message.deliver(message.notification)

    def stop(self) -> None:
        """The service ends: nobody is to wait any more."""
        self.requests.close()
        for waiting in list(self._held):
            waiting.cancel()

    async def heal(self) -> None:
        """Take the faults back, and let go of what they hold."""
        self.faults.clear()
        for waiting in list(self._held):
            waiting.cancel()
        for channel in list(self._kept):
            await self.release(channel)

    async def reset(self) -> None:
        """Forget everything."""
        self._kept.clear()
        await self.heal()
        self.requests.clear()
        self.by_message.clear()


class ObservedStandalone(ObservedEndpoint, StandaloneHTTPFactory):
    """The same with a page."""

    ap_handlers = observed(StandaloneHTTPFactory.ap_handlers)
