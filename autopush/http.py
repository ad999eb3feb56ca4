"""The HTTP applications: which path goes to which handler (http-endpoint.md 2, python-api.md 5.2).

========================= ============================ ===============================
application               listener                     serves
========================= ============================ ===============================
EndpointHTTPFactory       endpoint node; with          public API, health routes;
                          ``upgrade_factory`` the      WebSocket, if it has an
                          standalone server            ``upgrade_factory``
InternalRouterHTTPFactory connection node, internal    /push, /notif, health routes
WebSocketHTTPFactory      connection node, public      /status; all else is WebSocket
MemUsageHTTPFactory       both, private                /_memusage
PrometheusHTTPFactory     both, private                /metrics
========================= ============================ ===============================

Handlers are named, not imported: a connection node needs no marshmallow, an endpoint no Autobahn.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import unquote_to_bytes

from twisted.python.reflect import namedAny

from autopush.base import Application, BaseHandler, PageNotFoundHandler
from autopush.httpconnection import REASONS, HTTPConnection, HTTPServer
from autopush.httpparser import BODY_LIMIT, Request

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from autopush.config import AutopushConfig
    from autopush.db.interface import Store
    from autopush.httpparser import Headers
    from autopush.metrics import IMetrics
    from autopush.router.interface import IRouter
    from autopush.session import Node
    from autopush.ssl import AutopushSSLContextFactory

Routes = Sequence[tuple[str, Any]]
"""Patterns of whole paths, each with a handler class or its dotted name."""

_BODY_FACTOR = 16
"""Bodies up to this many times ``max_data`` reach the handlers, so that they can answer those
which are a little too long."""

_FIRST_SEGMENT = re.compile(r"\^?/(\w+)(?=/|$)")
_ESCAPED = re.compile(r"[%+\x80-\xff]")
_ERROR_URL = "http://autopush.readthedocs.io/en/latest/http.html#error-codes"


def skip_request_logging(handler: BaseHandler) -> None:
    """A ``log_function`` that writes no access log."""


class BaseHTTPFactory(HTTPServer, Application):
    """An application of some handlers.

    :param handlers: routes to serve; default: all of :attr:`ap_handlers` and the health routes
    :param log_function: called with each handler when its answer is out
    :param metrics: default: those of ``db`` if it has any, else none
    :param node: the connection node in this process, if any
    :param clock: (IReactorTime) for the connections' deadlines; default: the reactor
    """

    ap_handlers: ClassVar[Routes] = ()
    health_ap_handlers: ClassVar[Routes] = (
        (r"^/status", "autopush.web.health.StatusHandler"),
        (r"^/health", "autopush.web.health.HealthHandler"),
        (r"^/__version__", "autopush.web.dockerflow.VersionHandler"),
        (r"^/__heartbeat__", "autopush.web.health.StatusHandler"),
        (r"^/__lbheartbeat__", "autopush.web.dockerflow.LBHeartbeatHandler"),
    )
    not_found_handler: Any = PageNotFoundHandler

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
        self.metrics = metrics if metrics is not None else default_metrics(db)
        self.log_function = None if log_function is skip_request_logging else log_function
        self.body_limit = max(BODY_LIMIT, _BODY_FACTOR * conf.max_data)
        self._routes: dict[str, list[_Route]] = {}
        self._fallback: list[_Route] = []
        self._not_found = _resolve(self.not_found_handler)
        if handlers is None:
            self.add_health_handlers()
            handlers = self.ap_handlers
        self.add_routes(handlers)

    @classmethod
    def for_handler(
        cls, handler_cls: type, conf: AutopushConfig, db: Store | None = None, **kwargs: Any
    ) -> BaseHTTPFactory:
        """An application with just that handler's route, for tests.

        :raises ValueError: the application has no route for it
        """
        for pattern, handler in (*cls.ap_handlers, *cls.health_ap_handlers):
            if _resolve(handler) is handler_cls:
                return cls(conf, db, handlers=[(pattern, handler_cls)], **kwargs)
        raise ValueError(f"{handler_cls.__name__} has no route in {cls.__name__}")

    def add_health_handlers(self) -> None:
        """Serve the health routes; they precede the application's own."""
        self.add_routes(self.health_ap_handlers)

    # ---- routing

    def add_routes(self, routes: Iterable[tuple[str, Any]]) -> None:
        """Append routes; the first whose pattern matches the whole path gets the request."""
        for pattern, handler in routes:
            route = _Route(re.compile(pattern), _resolve(handler))
            first = _FIRST_SEGMENT.match(pattern)
            if first is not None:
                self._routes.setdefault(first[1], list(self._fallback)).append(route)
            else:
                self._fallback.append(route)
                for others in self._routes.values():
                    others.append(route)

    def __call__(self, request: Request) -> BaseHandler:
        """Find the handler of a request and start it."""
        path = request.path
        segments = path.split("/", 2)
        first = segments[1] if len(segments) > 1 else ""
        for route in self._routes.get(first, self._fallback):
            match = route.regex.fullmatch(path)
            if match is not None:
                break
        else:
            return _run(self._not_found(self, request))
        if not route.regex.groups:
            return _run(route.handler_class(self, request))
        try:
            if route.named:
                named = {name: _decode(value) for name, value in match.groupdict().items()}
                return _run(route.handler_class(self, request), **named)
            groups = [_decode(value) for value in match.groups()]
        except UnicodeDecodeError:
            return _run(self._not_found(self, request))
        return _run(route.handler_class(self, request), *groups)


class _Route:
    __slots__ = ("handler_class", "named", "regex")

    def __init__(self, regex: re.Pattern[str], handler_class: Any) -> None:
        self.regex = regex
        self.handler_class = handler_class
        self.named = bool(regex.groupindex)


def _run(handler: BaseHandler, *args: str | None, **kwargs: str | None) -> BaseHandler:
    handler._execute((), *args, **kwargs)
    return handler


def _decode(group: str | None) -> str | None:
    """A part of the path, percent-decoded.

    :raises UnicodeDecodeError: it isn't UTF-8
    """
    if group is None or _ESCAPED.search(group) is None:
        return group
    return unquote_to_bytes(group.replace("+", " ").encode("latin-1")).decode("utf-8")


def _resolve(handler: Any) -> Any:
    return namedAny(handler) if isinstance(handler, str) else handler


def default_metrics(db: Any) -> IMetrics:
    """The metrics a store brings along, else silent ones."""
    from autopush.metrics import SinkMetrics

    metrics = getattr(db, "metrics", None)
    return metrics if metrics is not None else SinkMetrics()


class EndpointHTTPFactory(BaseHTTPFactory):
    """The public API.

    Set ``upgrade_factory`` to serve WebSocket on the same port.
    """

    ap_handlers: ClassVar[Routes] = (
        (
            r"/wpush/(?:(?P<api_ver>v\d+)\/)?(?P<token>[^\/]+)",
            "autopush.web.webpush.WebPushHandler",
        ),
        (r"/m/(?P<message_id>[^\/]+)", "autopush.web.message.MessageHandler"),
        (
            r"/v1/(?P<type>[^\/]+)/(?P<app_id>[^\/]+)/registration",
            "autopush.web.registration.NewRegistrationHandler",
        ),
        (
            r"/v1/(?P<type>[^\/]+)/(?P<app_id>[^\/]+)/registration/(?P<uaid>[^\/]+)/?",
            "autopush.web.registration.UaidRegistrationHandler",
        ),
        (
            r"/v1/(?P<type>[^\/]+)/(?P<app_id>[^\/]+)/registration/(?P<uaid>[^\/]+)/subscription",
            "autopush.web.registration.SubRegistrationHandler",
        ),
        (
            (
                r"/v1/(?P<type>[^\/]+)/(?P<app_id>[^\/]+)/registration/(?P<uaid>[^\/]+)"
                r"/subscription/(?P<chid>[^\/]+)"
            ),
            "autopush.web.registration.ChannelRegistrationHandler",
        ),
        (r"/v1/err(?:/(?P<err_type>[^\/]+))?", "autopush.web.log_check.LogCheckHandler"),
        (r".*", "autopush.web.base.NotFoundHandler"),
    )
    not_found_handler = "autopush.web.base.NotFoundHandler"

    def __init__(
        self,
        conf: AutopushConfig,
        db: Store | None,
        routers: dict[str, IRouter] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(conf, db, **kwargs)
        self.routers = routers if routers is not None else {}

    def wants_upgrade(self, method: str, path: str, headers: Headers) -> bool:
        """Whether it is a WebSocket handshake, be it a good one or not."""
        upgrade = dict.get(headers, "upgrade")
        if upgrade is not None and "websocket" in upgrade.lower():
            return True
        return "\nsec-websocket" in "\n".join(("", *headers))

    def refusal(self, status: int, reason: str) -> tuple[str, bytes]:
        """What no handler gets to see is refused in the API's own form (http-endpoint.md 3.1)."""
        error: dict[str, Any] = {
            "code": status,
            "errno": 999,
            "error": REASONS[status],
            "more_info": _ERROR_URL,
            "message": reason or REASONS[status],
        }
        if status == 413:
            error = {
                "code": 413,
                "errno": 104,
                "error": "Payload Too Large",
                "more_info": _ERROR_URL,
                "message": "Request did not validate Data payload must be smaller than "
                f"{self.conf.max_data}",
            }
        return "application/json", json.dumps(error).encode()

    def ssl_cf(self) -> AutopushSSLContextFactory | None:
        """TLS context factory of the public listener; None: no TLS."""
        return self.conf.ssl.cf(require_peer_certs=self.conf.enable_tls_auth)


class InternalRouterHTTPFactory(BaseHTTPFactory):
    """What endpoints and other connection nodes ask of this one (websocket.md 19)."""

    ap_handlers: ClassVar[Routes] = (
        (r"/push/([^\/]+)", "autopush.websocket.RouterHandler"),
        (r"/notif/([^\/]+)(?:/(\d+))?", "autopush.websocket.NotificationHandler"),
    )

    def __init__(
        self, conf: AutopushConfig, db: Store | None, clients: dict[str, Any], **kwargs: Any
    ) -> None:
        super().__init__(conf, db, **kwargs)
        self.clients = clients

    def ssl_cf(self) -> AutopushSSLContextFactory | None:
        """TLS context factory of the internal listener; None: no TLS."""
        return self.conf.router_ssl.cf()


class WebSocketHTTPFactory(BaseHTTPFactory):
    """The public port of a connection node: ``/status``, and WebSocket everywhere else.

    :param upgrade_factory: what answers everything else, well formed or not (websocket.md 2)
    """

    def __init__(self, conf: AutopushConfig, upgrade_factory: Any, **kwargs: Any) -> None:
        routes = [(r"/status(?:/.*)?", "autopush.web.health.SiteStatusHandler")]
        super().__init__(conf, None, handlers=routes, **kwargs)
        self.upgrade_factory = upgrade_factory

    def wants_upgrade(self, method: str, path: str, headers: Headers) -> bool:
        """Whether the first segment of the path is not exactly ``status``."""
        return path != "/status" and not path.startswith("/status/")

    def ssl_cf(self) -> AutopushSSLContextFactory | None:
        """TLS context factory of the public listener; None: no TLS."""
        return self.conf.ssl.cf()


class MemUsageHTTPFactory(BaseHTTPFactory):
    """``/_memusage`` for the operator; never on a public port."""

    ap_handlers: ClassVar[Routes] = ((r"^/_memusage", "autopush.web.health.MemUsageHandler"),)

    def __init__(self, conf: AutopushConfig, db: Store | None = None, **kwargs: Any) -> None:
        super().__init__(conf, db, handlers=self.ap_handlers, **kwargs)


class PrometheusHTTPFactory(BaseHTTPFactory):
    """``/metrics`` for Prometheus; never on a public port.

    :param registry: what to show
    """

    ap_handlers: ClassVar[Routes] = ((r"/metrics", "autopush.web.prometheus.MetricsHandler"),)

    def __init__(self, conf: AutopushConfig, registry: CollectorRegistry, **kwargs: Any) -> None:
        super().__init__(conf, None, handlers=self.ap_handlers, **kwargs)
        self.registry = registry


__all__ = [
    "BaseHTTPFactory",
    "EndpointHTTPFactory",
    "HTTPConnection",
    "InternalRouterHTTPFactory",
    "MemUsageHTTPFactory",
    "PrometheusHTTPFactory",
    "WebSocketHTTPFactory",
    "skip_request_logging",
]
