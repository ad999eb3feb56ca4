"""Requests that are read rule by rule.

A kind of request is a class with slots, a :class:`ParsedRequest`, and the table of its rules: plain
functions, in the order in which senders are told of them. Each takes the request, and adds what it
has found out or raises what is wrong. A handler's method that is :func:`validated` is called when
all are kept; every failure becomes the documented answer (spec/http-endpoint 3, 11).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, ClassVar

import attrs

from autopush import clock
from autopush.httpserver.request import Headers
from autopush.ids import parse_uuid
from autopush.types import JSONDict
from autopush.web.base import RequestSchema

Rule = Callable[[Any], Awaitable[None] | None]
"""Takes a :class:`ParsedRequest`.

:raises marshmallow.ValidationError: answered as field errors (section 3.2)
:raises autopush.exceptions.InvalidRequest: answered as is, with a prefix
:raises autopush.exceptions.StoreError: answered 503
"""


@attrs.define
class ParsedRequest:
    """What is known of a request, more with each rule.

    :cvar rules: what is to be applied, in this order
    :ivar app: the application: ``conf``, ``db``, ``metrics``, ``routers``
    :ivar path: the groups of the route's pattern
    :ivar keywords: those of the handler's method, complete after the last rule
    :ivar router_type: for the tags of an error's metric, as soon as it is known
    :ivar vapid: whether the sender has shown who it is; for the same
    """

    rules: ClassVar[tuple[Rule, ...]] = ()

    app: Any
    headers: Headers
    body: bytes
    path: dict[str, str | None]
    keywords: JSONDict = attrs.field(factory=dict, init=False)
    router_type: str | None = attrs.field(default=None, init=False)
    vapid: bool = attrs.field(default=False, init=False)

    def whom(self) -> tuple[str | None, str | None]:
        """UAID (hex) and channel of whom the request is about, as far as the path tells."""
        return _hex(self.path.get("uaid")), _hex(self.path.get("chid"))


def _hex(text: str | None) -> str | None:
    """Return the digits of a UUID; None: it is none."""
    try:
        return parse_uuid(text).hex if text else None
    except ValueError:
        return None


class RulesSchema(RequestSchema):
    """The same for handlers of one's own, in ``@threaded_validate``.

    :cvar kind: whose rules are applied
    """

    kind: ClassVar[type[ParsedRequest]] = ParsedRequest

    async def process(self, request: JSONDict, app: Any) -> JSONDict:
        """Return the keywords; see :meth:`~autopush.web.base.RequestSchema.process`."""
        headers = Headers((name.lower(), text) for name, text in request["headers"].items())
        parsed = self.kind(app, headers, request["body"], request["path_kwargs"])
        try:
            for rule in self.kind.rules:
                pending = rule(parsed)
                if pending is not None:
                    await pending
        finally:
            request["router_type"], request["vapid"] = parsed.router_type, parsed.vapid
        return parsed.keywords


def validated(kind: type[ParsedRequest]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate an ``async def`` method of a handler, which must finish the request.

    :param kind: the method gets the :attr:`~ParsedRequest.keywords` of one of these
    """

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        async def wrapper(handler: Any, **path: str | None) -> None:
            request = handler.request
            parsed = kind(handler.application, request.headers, request.body, path)
            start_time = clock.now()
            refused: Exception | None = None
            try:
                for rule in kind.rules:
                    pending = rule(parsed)
                    if pending is not None:
                        await pending
            except Exception as exc:
                refused = exc
            handler._timings["validation_time"] = clock.now() - start_time
            if refused is not None:
                handler._about = parsed.whom()
                handler._refuse(refused, parsed.router_type, parsed.vapid)
                return
            try:
                await method(handler, **parsed.keywords)
            except Exception as exc:
                handler._response_err(exc)

        return wrapper

    return decorate
