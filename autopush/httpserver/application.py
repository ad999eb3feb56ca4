"""An application of an HTTP server: which handler answers which path.

Knows no route; :mod:`autopush.http` does, and :mod:`autopush.websocket.site`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import unquote_to_bytes

from autopush.httpserver.connection import HTTPServer
from autopush.httpserver.handler import Application, BaseHandler, PageNotFoundHandler
from autopush.httpserver.parser import BODY_LIMIT
from autopush.metrics.interface import SinkMetrics

if TYPE_CHECKING:
    from autopush.config import AutopushConfig
    from autopush.db.interface import Store
    from autopush.httpserver.request import Request
    from autopush.metrics.interface import IMetrics
    from autopush.session import Node
    from autopush.types import JSONDict

Routes = Sequence[tuple[str, Any]]
"""Patterns of whole paths, each with a handler class."""

_BODY_FACTOR = 16
"""Bodies up to this many times ``max_data`` reach the handlers, so that they can answer those
which are a little too long."""

_FIRST_SEGMENT = re.compile(r"\^?/(\w+)(?=/|$)")
_ESCAPED = re.compile(r"[%+\x80-\xff]")


def skip_request_logging(handler: BaseHandler) -> None:
    """A ``log_function`` that writes no access log."""


class RoutedServer(HTTPServer, Application):
    """An application of some handlers.

    :param handlers: routes to serve; default: all of :attr:`ap_handlers` and the health routes
    :param log_function: called with each handler when its answer is out
    :param metrics: default: none
    :param node: the connection node in this process, if any
    :param clock: (IReactorTime) for the connections' deadlines; default: the reactor
    :ivar accepted: messages that were accepted
    :ivar refused: requests that were refused, by status and errno
    """

    ap_handlers: ClassVar[Routes] = ()
    health_ap_handlers: ClassVar[Routes] = ()
    not_found_handler: Any = PageNotFoundHandler
    doorkeeper: Callable[[Request], type[BaseHandler] | None] | None = None
    """Returns who answers a request that may not get further; it may change the request's path."""
    whole: Callable[[], Awaitable[JSONDict]] | None = None
    """Tells how all processes of the service are, where there are several."""

    def __init__(
        self,
        conf: AutopushConfig,
        db: Store | None,
        handlers: Routes | None = None,
        log_function: Callable[[Any], None] = skip_request_logging,
        *,
        metrics: IMetrics | None = None,
        node: Node | None = None,
        clock: Any = None,
        **kwargs: Any,
    ) -> None:
        if clock is None:
            from twisted.internet import reactor

            clock = reactor
        super().__init__(clock, **kwargs)
        self.conf = conf
        self.db = db
        self.node = node
        self.metrics = metrics if metrics is not None else SinkMetrics()
        self.accepted = 0
        self.refused: Counter[tuple[int, int]] = Counter()
        self.log_function = None if log_function is skip_request_logging else log_function
        self.body_limit = max(BODY_LIMIT, _BODY_FACTOR * conf.max_data)
        self._routes: dict[str, list[_Route]] = {}
        self._fallback: list[_Route] = []
        if handlers is None:
            self.add_health_handlers()
            handlers = self.ap_handlers
        self.add_routes(handlers)

    @classmethod
    def for_handler(
        cls, handler_cls: type, conf: AutopushConfig, db: Store | None = None, **kwargs: Any
    ) -> RoutedServer:
        """An application with just that handler's route, for tests.

        :raises ValueError: the application has no route for it
        """
        for pattern, handler in (*cls.ap_handlers, *cls.health_ap_handlers):
            if handler is handler_cls:
                return cls(conf, db, handlers=[(pattern, handler_cls)], **kwargs)
        raise ValueError(f"{handler_cls.__name__} has no route in {cls.__name__}")

    def add_health_handlers(self) -> None:
        """Serve the health routes; they precede the application's own."""
        self.add_routes(self.health_ap_handlers)

    # ---- routing

    def add_routes(self, routes: Iterable[tuple[str, Any]]) -> None:
        """Append routes; the first whose pattern matches the whole path gets the request."""
        for pattern, handler in routes:
            route = _Route(re.compile(pattern), handler)
            first = _FIRST_SEGMENT.match(pattern)
            if first is not None:
                self._routes.setdefault(first[1], list(self._fallback)).append(route)
            else:
                self._fallback.append(route)
                for others in self._routes.values():
                    others.append(route)

    def __call__(self, request: Request) -> BaseHandler:
        """Find the handler of a request and start it."""
        denied = None if self.doorkeeper is None else self.doorkeeper(request)
        path = request.path
        segments = path.split("/", 2)
        first = segments[1] if len(segments) > 1 else ""
        handler_class: Any = self.not_found_handler
        groups: tuple[str | None, ...] = ()
        named: dict[str, str | None] = {}
        for route in self._routes.get(first, self._fallback):
            match = route.regex.fullmatch(path)
            if match is not None:
                handler_class = route.handler_class
                if route.named:
                    named = match.groupdict()
                else:
                    groups = match.groups()
                break
        if _ESCAPED.search(path) is not None:
            try:
                groups = tuple(map(_decode, groups))
                named = {name: _decode(value) for name, value in named.items()}
            except UnicodeDecodeError:
                handler_class, groups, named = self.not_found_handler, (), {}
        if denied is not None:
            handler_class, groups, named = denied, (), {}
        handler: BaseHandler = handler_class(self, request)
        rest = handler._execute((), *groups, **named)
        if rest is not None:
            handler._go_on(None, rest)
        return handler


class _Route:
    __slots__ = ("handler_class", "named", "regex")

    def __init__(self, regex: re.Pattern[str], handler_class: Any) -> None:
        self.regex = regex
        self.handler_class = handler_class
        self.named = bool(regex.groupindex)


def _decode(group: str | None) -> str | None:
    """A part of the path, percent-decoded.

    :raises UnicodeDecodeError: it isn't UTF-8
    """
    if group is None or _ESCAPED.search(group) is None:
        return group
    return unquote_to_bytes(group.replace("+", " ").encode("latin-1")).decode("utf-8")
