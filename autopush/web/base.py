"""What the endpoint's handlers share: headers, JSON errors, validation of requests.

A handler method decorated with :func:`threaded_validate` gets what its schema made of the request
as keywords; every failure becomes the documented answer (spec/http-endpoint 3, 11).
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from functools import lru_cache, wraps
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, ClassVar

from marshmallow import EXCLUDE, Schema, ValidationError
from marshmallow.experimental.context import Context
from twisted.internet.error import ConnectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from autopush import clock
from autopush.exceptions import InvalidRequest, RouterException, StoreBusy, StoreError
from autopush.httpserver.connection import REASONS
from autopush.httpserver.handler import BaseHandler
from autopush.ids import hash_uaid
from autopush.logging import enabled, for_people
from autopush.options.bridges import BRIDGES
from autopush.types import JSONDict
from autopush.web.refusals import count_refused

if TYPE_CHECKING:
    from autopush.router.interface import IRouter, RouterResponse

status_codes = {
    200: "OK",
    201: "Created",
    202: "Accepted",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Payload Too Large",
    418: "I'm a teapot",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
"""``error`` members of answers (spec/http-endpoint 3.1). Not the phrases of the status line."""

AUTH_SCHEMES = ("bearer", "webpush", "vapid")
PREF_SCHEME = "webpush"
PREFLIGHT_LIFE = 86400
"""Seconds a browser may remember the answer to a preflight; Firefox takes no more."""

DEFAULT_ERR_URL = "http://autopush.readthedocs.io/en/latest/http.html#error-codes"

UNANSWERED = {
    401: (109, "A TLS client certificate is missing or not known"),
    405: (999, "The route has no such method"),
    500: (999, "An unexpected server error occurred."),
}
"""errno and message where no method of a handler answers."""

FIELD_ERRNOS = {"ttl": 112, "topic": 113, "urgency": 116, "encryption": 111, "encryption-key": 101}
"""errno of a header that is missing or malformed, the first that is wrong counts."""

BODY_ERRNO = 108

Method = Callable[..., Awaitable[None] | None]

CONTEXT = ("conf", "db", "metrics", "routers")
"""Attributes of the application that schemas find in their context."""


class RequestSchema(Schema):
    """The rules for one kind of request.

    Rules which need no storage are fields of this or other schemas; :meth:`process` says in which
    order rules are applied.
    """

    class Meta:
        unknown = EXCLUDE

    async def process(self, request: JSONDict, app: Any) -> JSONDict:
        """Turn a request into the keywords of the handler's method.

        :param request: ``headers``, ``body``, ``path_args``, ``path_kwargs`` and ``arguments``.
            What is known about it on the way, ``router_type`` and ``vapid``, may be added for the
            tags of an error's metric.
        :param app: the application: ``conf``, ``db``, ``metrics``, ``routers``
        :raises marshmallow.ValidationError: answered as field errors (section 3.2)
        :raises InvalidRequest: answered as is, with a prefix
        :raises StoreError: answered 503
        """
        loaded: JSONDict = self.load(request)
        return loaded


class ThreadedValidate:
    """Validates a request before a handler method sees it; the name is historical.

    :param schema: a :class:`RequestSchema` or any other marshmallow schema, as class or instance.
        One instance serves all requests. What another one loads is the mapping described at
        :meth:`RequestSchema.process`; it finds ``conf``, ``db``, ``metrics``, ``routers`` and
        ``log`` in marshmallow's ``Context``.
    """

    log = Logger()

    def __init__(self, schema: type[Schema] | Schema) -> None:
        self.schema = schema = schema() if isinstance(schema, type) else schema
        self._process = schema.process if isinstance(schema, RequestSchema) else self._load

    async def _load(self, request: JSONDict, app: Any) -> JSONDict:
        context = {name: getattr(app, name, None) for name in CONTEXT}
        with Context({**context, "log": self.log}):
            loaded: JSONDict = self.schema.load(request, unknown=EXCLUDE)
        return loaded

    def _validate_request(
        self, request: JSONDict, handler: BaseWebHandler, *args: Any, **kwargs: Any
    ) -> Awaitable[JSONDict]:
        request.update(
            headers=handler.request.headers,
            body=handler.request.body,
            path_args=args,
            path_kwargs=kwargs,
            arguments=handler.request.arguments,
        )
        return self._process(request, handler.application)

    async def _call_func(self, result: JSONDict, func: Method, handler: BaseWebHandler) -> None:
        try:
            outcome = func(handler, **result)
            if isawaitable(outcome):
                await outcome
            else:
                handler._auto_finish = False  # whoever answers may do so later
        except Exception as exc:
            handler._response_err(exc)

    def _track_validation_timing(self, handler: BaseWebHandler, start_time: float) -> None:
        handler._timings["validation_time"] = clock.now() - start_time

    def _decorator(self, func: Method) -> Method:
        @wraps(func)
        async def wrapper(handler: BaseWebHandler, *args: Any, **kwargs: Any) -> None:
            request: JSONDict = {}
            start_time = clock.now()
            try:
                result = await self._validate_request(request, handler, *args, **kwargs)
            except Exception as exc:
                self._track_validation_timing(handler, start_time)
                handler._refuse(exc, request.get("router_type"), request.get("vapid"))
            else:
                self._track_validation_timing(handler, start_time)
                await self._call_func(result, func, handler)

        return wrapper

    @classmethod
    def validate(cls, schema: type[Schema] | Schema) -> Callable[[Method], Method]:
        """Decorate a method of a :class:`BaseWebHandler`, which must finish the request.

        It may be ``async def``, return a Deferred, or be a plain ``def`` that finishes the request
        then or later::

            class MySchema(Schema):
                arguments = fields.Dict()

            class MyHandler(BaseWebHandler):
                @threaded_validate(MySchema)
                def get(self, arguments):
                    self.finish(arguments)
        """
        return cls(schema)._decorator


threaded_validate = ThreadedValidate.validate


def standard_error(
    status_code: int,
    errno: int | None,
    message: str | None,
    error: str | None = None,
    url: str = DEFAULT_ERR_URL,
) -> JSONDict:
    """Return the body of an error (section 3.1); ``message`` is left out when empty."""
    body = {
        "code": status_code,
        "errno": errno,
        "error": error or status_codes.get(status_code, ""),
        "more_info": url,
    }
    if message:
        body["message"] = message
    return body


def invalid_request(exc: InvalidRequest) -> JSONDict:
    """Return the body that tells which rule a request broke."""
    return standard_error(exc.status_code, exc.errno, f"Request did not validate {exc}")


def _field_texts(place: str, errors: Any) -> Iterator[str]:
    """Yield what is wrong with each field, after its name."""
    if isinstance(errors, dict):
        for name, found in errors.items():
            yield from _field_texts(f"{place}.{name}" if place else str(name), found)
    else:
        yield f"{place}: {' '.join(map(str, errors))}"


@lru_cache
def _fixed_headers(
    sts_max_age: int,
    cors: bool,
    methods: str,
    request_headers: tuple[str, ...],
    response_headers: tuple[str, ...],
) -> dict[str, str]:
    """Return the headers of section 3.3."""
    headers = {}
    if cors:
        headers = {
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Allow-Methods": methods,
            "Access-Control-Allow-Headers": ",".join(request_headers),
            "Access-Control-Expose-Headers": ",".join(response_headers),
        }
    if sts_max_age:
        headers["Strict-Transport-Security"] = f"max-age={sts_max_age};includeSubDomains"
    return headers


class BaseWebHandler(BaseHandler):
    """Base of the handlers of the endpoint's API: all they answer is JSON, errors too.

    :cvar challenge: ``WWW-Authenticate`` of every 401
    """

    cors_methods: ClassVar[str] = ""
    """Methods a page of another origin may use, separated by commas."""
    cors_request_headers: ClassVar[tuple[str, ...]] = ()
    """Headers such a page may send."""
    cors_response_headers: ClassVar[tuple[str, ...]] = ()
    """Headers of the answer such a page may read."""
    challenge: ClassVar[str] = PREF_SCHEME

    _handling_message = False
    _about: tuple[str | None, str | None] = (None, None)
    """UAID and channel of whom a request is about that a rule refused, as far as they are known."""
    _refusal_told = False
    """Whether another line of the log tells that this request was refused, and why."""

    def prepare(self) -> None:
        """Check the client's certificate, then add the headers of section 3.3."""
        conf = self.conf
        if conf.client_certs is not None and not self.authenticate_peer_cert():
            return
        self._headers.update(
            _fixed_headers(
                conf.sts_max_age,
                conf.cors,
                self.cors_methods,
                self.cors_request_headers,
                self.cors_response_headers,
            )
        )

    def options(self, *_args: Any, **_kwargs: Any) -> None:
        """Answer a CORS preflight; nothing is validated."""
        if self.conf.cors:
            self._headers["Access-Control-Max-Age"] = str(PREFLIGHT_LIFE)

    def head(self, *_args: Any, **_kwargs: Any) -> None:
        """Answer with headers only; nothing is validated."""

    @property
    def routers(self) -> dict[str, IRouter]:
        """Routers by router type."""
        routers: dict[str, IRouter] = self.application.routers
        return routers

    # ---- answers

    def _write_response(
        self,
        status_code: int,
        errno: int | None,
        message: str | None = None,
        error: str | None = None,
        headers: dict[str, Any] | None = None,
        url: str = DEFAULT_ERR_URL,
        router_type: str | None = None,
        vapid: Any = None,
    ) -> None:
        """Answer with the standard error (section 3.1).

        :param errno: number from the public documentation; becomes null when None
        :param message: left out when empty
        :param error: replaces the text from :data:`status_codes` and the status line's phrase
        :param url: where the error is explained
        :param router_type: for the metric of a message that was refused
        :param vapid: truthy if the message had a valid VAPID token; for the same metric
        """
        body = standard_error(status_code, errno, message, error, url)
        self._write_error_json(body, error, headers)
        self._count_error(status_code, router_type, vapid)
        self._track_timing(status_code=status_code)

    def _write_error_json(
        self, body: JSONDict, reason: str | None = None, headers: dict[str, Any] | None = None
    ) -> None:
        status_code = body["code"]
        self._headers["Content-Type"] = "application/json"
        self.set_status(status_code, reason or REASONS.get(status_code, "Unknown"))
        if status_code == 401:
            self._headers["www-authenticate"] = self.challenge
        for name, value in (headers or {}).items():
            self.set_header(name, value)
        if status_code == 410:
            self._headers["Cache-Control"] = "max-age=86400"
        count_refused(self.application, status_code, body["errno"])
        self.finish(json.dumps(body).encode())
        if not self._refusal_told and enabled("info"):
            self._tell_refusal(body)

    def _count_error(self, status_code: int, router_type: str | None, vapid: Any) -> None:
        if self._handling_message and status_code >= 300 and self.metrics.active:
            self.metrics.increment(
                "notification.message.error",
                tags=[f"code:{status_code}", f"router:{router_type}", f"vapid:{bool(vapid)}"],
            )

    def _write_validation_err(self, errors: JSONDict) -> None:
        """Answer with field errors (section 3.2): the standard error with ``errors`` beside (Q8).

        :param errors: texts by field by container: ``headers`` or ``body``
        """
        wrong = errors.get("headers", ())
        errno = next((FIELD_ERRNOS[name] for name in FIELD_ERRNOS if name in wrong), BODY_ERRNO)
        text = "; ".join(_field_texts("", errors))
        body = standard_error(400, errno, f"Request did not validate {text}")
        self._write_error_json({**body, "errors": errors})
        self._track_timing(status_code=400)

    def _success(self, body: JSONDict) -> None:
        """Answer 200 with JSON."""
        self._headers["Content-Type"] = "application/json"
        self.finish(json.dumps(body).encode())

    # ---- failures

    def _finish_error(self, code: int) -> None:
        """Where no method has answered: 405, TLS client certificates, mistakes."""
        errno, message = UNANSWERED.get(code, (999, REASONS.get(code)))
        count_refused(self.application, code, errno)
        self._headers["Content-Type"] = "application/json"
        self.finish(json.dumps(standard_error(code, errno, message)).encode())

    def _refuse(self, exc: Exception, router_type: str | None, vapid: Any) -> None:
        """Answer a request whose validation failed.

        :param router_type: for the metric of a message, where it was known already
        :param vapid: truthy if the message had a valid VAPID token; for the same
        """
        tags = {"router_type": router_type, "vapid": vapid}
        if isinstance(exc, ValidationError):
            self._write_validation_err(exc.normalized_messages())
        elif isinstance(exc, InvalidRequest):
            self._validation_err(exc, **tags)
        elif isinstance(exc, StoreError):
            self._store_err(exc, **tags)
        else:
            self._response_err(exc, **tags)

    def _validation_err(self, exc: InvalidRequest, **tags: Any) -> None:
        """A rule with an error of its own was broken."""
        if enabled("debug"):
            self.log.debug(
                "Request validation error: {text}",
                text=str(exc),
                status_code=exc.status_code,
                errno=exc.errno or 0,
                client_info=self._client_info,
            )
        self._write_response(
            exc.status_code,
            exc.errno,
            message=f"Request did not validate {exc}",
            headers=exc.headers,
            **tags,
        )

    def _store_err(self, exc: StoreError, **tags: Any) -> None:
        """The store failed before anything was decided (section 11)."""
        busy = isinstance(exc, StoreBusy)
        errno = 201 if busy else 202
        if enabled("debug"):
            self.log.debug(
                "Throughput Exceeded" if busy else "Unhandled Client Error: {text}",
                text=str(exc),
                status_code=503,
                errno=errno,
                client_info=self._client_info,
            )
        message = "Please slow message send rate" if busy else "Unexpected Error"
        self._write_response(503, errno, message=message, **tags)

    def _response_err(self, exc: Exception, **tags: Any) -> None:
        """Something nobody expected."""
        if isinstance(exc, ConnectionDone):
            return
        # The text is a value, not the format: it may contain braces (Q35).
        self._refusal_told = True
        self.log.failure(
            "{text}",
            failure_of(exc),
            text=str(exc) or "Exception",
            status_code=500,
            errno=999,
            client_info=self._client_info,
        )
        if not self._finished:
            self._write_response(500, 999, message="An unexpected server error occurred.", **tags)

    # ---- what routers answer

    async def _router_fail_err(
        self,
        exc: RouterException,
        router_type: str | None = None,
        vapid: Any = False,
        uaid: str | None = None,
    ) -> None:
        """Answer a notification its router refused; a device that is gone is dropped."""
        if exc.log_exception:
            self._log_router_exception(exc)
        bridge = BRIDGES.get(router_type or "")
        if uaid and bridge is not None and exc.status_code in bridge.gone:
            self.metrics.increment(
                "notification.bridge.error",
                tags=[
                    f"platform:{router_type}",
                    "reason:unregistered",
                    f"error:{exc.status_code}",
                    "errno:0",
                ],
            )
            try:
                await self.db.drop_user(uaid)
            except StoreError as failed:
                # The sender is to stop all the same; whoever goes on makes us try again.
                self.log.failure("Could not drop user", failure_of(failed))
        self._router_response(exc, router_type, vapid)

    def _log_router_exception(self, exc: RouterException) -> None:
        if exc.status_code >= 500:
            self._refusal_told = True
            self.log.failure(
                "{text}",
                failure_of(exc),
                text=str(exc) or "Exception",
                status_code=exc.status_code,
                errno=exc.errno or 0,
                client_info=self._client_info,
            )
        elif enabled("debug"):
            success = exc.status_code < 300
            self.log.debug(
                "Success" if success else "Client error: {text}",
                text=str(exc),
                status_code=exc.status_code,
                logged_status=exc.logged_status or 0,
                errno=exc.errno or 0,
                client_info=self._client_info,
            )

    def _router_response(
        self, response: RouterResponse | RouterException, router_type: str | None, vapid: Any
    ) -> None:
        """Answer with what a router returned or raised (section 5.8)."""
        status_code = response.status_code
        if not 200 <= status_code < 300:
            self._write_response(
                status_code,
                response.errno or 999,
                message=response.response_body,
                headers={k: v for k, v in response.headers.items() if v is not None},
                router_type=router_type,
                vapid=vapid,
            )
            return
        self.application.accepted += 1
        self.set_status(status_code)
        for name, value in response.headers.items():
            if value is not None:
                self.set_header(name, value)
        if self.metrics.active:
            self.metrics.increment(
                "notification.message.success",
                tags=[
                    f"destination:{'Stored' if was_stored(response) else 'Direct'}",
                    f"router:{router_type}",
                    f"vapid:{bool(vapid)}",
                ],
            )
        self.finish(response.response_body or None)
        if for_people():
            self._tell(response, router_type)
        if enabled("debug"):
            self._track_timing(status_code=response.logged_status)

    # ---- logs

    def _tell(self, response: RouterResponse | RouterException, router_type: str | None) -> None:
        """Log what became of a message, for people."""

    def _tell_refusal(self, body: JSONDict) -> None:
        """Log whom the answer was refused to, and why; of a flood of them not each."""
        errno = body["errno"] or 0
        if self.application.refusals.take(errno):
            self.log.info(
                "Refused",
                client_info=self._client_info,
                reason=body.get("message", ""),
                status_code=body["code"],
                errno=errno,
                **self._whom(),
                shown={"took": clock.now() - self._start_time},
            )

    def _whom(self) -> JSONDict:
        """Fields of whom a request is about that a rule refused."""
        uaid, channel = self._about
        fields = {"uaid_hash": uaid and self._uaid_hash(uaid), "channel_id": channel}
        return {name: value for name, value in fields.items() if value}

    def _took(self, **fields: Any) -> JSONDict:
        """Fields for people only: how a request ended that was answered 200, and how soon."""
        return {"status": 200, "took": clock.now() - self._start_time, **fields}

    def _track_timing(self, status_code: int | None = None) -> None:
        """Log how long the parts of the request took."""
        if not enabled("debug"):
            return
        self._timings["request_time"] = clock.now() - self._start_time
        self.log.debug(
            "Request timings",
            client_info=self._client_info,
            timings=self._timings,
            status_code=status_code,
        )

    def _uaid_hash(self, uaid: str) -> str:
        return hash_uaid(self.conf.key_hash, uaid)


class NotFoundHandler(BaseWebHandler):
    """The answer for every other path."""

    HEADERS = {
        "Content-Type": "application/json",
        "Strict-Transport-Security": "max-age=31536000",
    }
    BODY = json.dumps(
        {
            "code": 404,
            "errno": 102,
            "error": "Page not found",
            "more_info": DEFAULT_ERR_URL,
            "message": "There is no such route",
        }
    ).encode()

    SUPPORTED_METHODS = ("GET", "POST", "DELETE", "PUT")

    def prepare(self) -> None:
        """Open to everybody."""

    def get(self, *_args: Any, **_kwargs: Any) -> None:
        self.set_status(404, "Page not found")
        self._headers.update(self.HEADERS)
        if self.conf.public_path:
            del self._headers["Strict-Transport-Security"]
        count_refused(self.application, 404, 102)
        self.finish(self.BODY)

    put = post = delete = get


def failure_of(exc: Exception) -> Failure:
    """Return a caught exception as a Failure with its traceback."""
    return Failure(exc, type(exc), exc.__traceback__)


def was_stored(response: RouterResponse | RouterException) -> bool:
    """Whether a notification waits in the store (O4: 202 is what 1.58.3 looked for)."""
    return response.logged_status in (201, 202)


def loggable_record(key_hash: str, user: JSONDict) -> str:
    """Return the text of a user's record without what allows to reach the device (Q24)."""
    record = {**user, "uaid": hash_uaid(key_hash, str(user.get("uaid", "")))}
    if "router_data" in record:
        record["router_data"] = "[redacted]"
    return repr(record)
