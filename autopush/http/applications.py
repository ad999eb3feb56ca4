"""Which path goes to which handler (spec/http-endpoint 2, spec/python-api 5.2).

========================= ============================ ===============================
application               listener                     serves
========================= ============================ ===============================
EndpointHTTPFactory       endpoint node; with          public API, health routes;
                          ``upgrade_factory`` the      WebSocket, if it has an
                          standalone server            ``upgrade_factory``
StandaloneHTTPFactory     standalone server            the same, and the page
InternalRouterHTTPFactory connection node, internal    /push, /notif, health routes
WebSocketHTTPFactory      connection node, public      /status; all else is WebSocket
MemUsageHTTPFactory       both, private                /_memusage
PrometheusHTTPFactory     both, private                /metrics
========================= ============================ ===============================

:class:`~autopush.websocket.site.WebSocketHTTPFactory` lies with what it serves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ClassVar

from autopush.httpserver.application import RoutedServer, Routes
from autopush.httpserver.connection import REASONS
from autopush.web.access import Access, NoAccessHandler
from autopush.web.base import NotFoundHandler, invalid_request, standard_error
from autopush.web.dockerflow import LBHeartbeatHandler, VersionHandler
from autopush.web.health import HealthHandler, MemUsageHandler, StatusHandler
from autopush.web.log_check import LogCheckHandler
from autopush.web.message import MessageHandler
from autopush.web.nodes import NotificationHandler, RouterHandler
from autopush.web.page.handlers import ROUTES as PAGE_ROUTES, Page, SlashHandler
from autopush.web.prometheus import MetricsHandler
from autopush.web.rates import Rates
from autopush.web.refusals import Refusals, count_refused
from autopush.web.registration import (
    ChannelRegistrationHandler,
    NewRegistrationHandler,
    SubRegistrationHandler,
    UaidRegistrationHandler,
)
from autopush.web.webpush import WebPushHandler, too_long

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from autopush.config import AutopushConfig
    from autopush.db.interface import Store
    from autopush.httpserver.handler import BaseHandler
    from autopush.httpserver.request import Headers, Request
    from autopush.router.interface import IRouter
    from autopush.ssl import AutopushSSLContextFactory


class BaseHTTPFactory(RoutedServer):
    """An application with the health routes."""

    health_ap_handlers: ClassVar[Routes] = (
        (r"^/status", StatusHandler),
        (r"^/health", HealthHandler),
        (r"^/__version__", VersionHandler),
        (r"^/__heartbeat__", StatusHandler),
        (r"^/__lbheartbeat__", LBHeartbeatHandler),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.refusals = Refusals(self.clock)

    def tell_counted(self) -> None:
        super().tell_counted()
        self.refusals.stop()


class EndpointHTTPFactory(BaseHTTPFactory):
    """The public API.

    Set ``upgrade_factory`` to serve WebSocket on the same port.
    """

    ap_handlers: ClassVar[Routes] = (
        (
            r"/wpush/(?:(?P<api_ver>v\d+)\/)?(?P<token>[^\/]+)",
            WebPushHandler,
        ),
        (r"/m/(?P<message_id>[^\/]+)", MessageHandler),
        (
            r"/v1/(?P<type>[^\/]+)/(?P<app_id>[^\/]+)/registration",
            NewRegistrationHandler,
        ),
        (
            r"/v1/(?P<type>[^\/]+)/(?P<app_id>[^\/]+)/registration/(?P<uaid>[^\/]+)/?",
            UaidRegistrationHandler,
        ),
        (
            r"/v1/(?P<type>[^\/]+)/(?P<app_id>[^\/]+)/registration/(?P<uaid>[^\/]+)/subscription",
            SubRegistrationHandler,
        ),
        (
            (
                r"/v1/(?P<type>[^\/]+)/(?P<app_id>[^\/]+)/registration/(?P<uaid>[^\/]+)"
                r"/subscription/(?P<chid>[^\/]+)"
            ),
            ChannelRegistrationHandler,
        ),
        (r"/v1/err(?:/(?P<err_type>[^\/]+))?", LogCheckHandler),
        (r".*", NotFoundHandler),
    )
    not_found_handler = NotFoundHandler

    def __init__(
        self,
        conf: AutopushConfig,
        db: Store | None,
        routers: dict[str, IRouter] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(conf, db, **kwargs)
        self.routers = routers if routers is not None else {}
        self.access = Access.of(conf, self.clock.seconds)
        if self.access is not None or conf.public_path:
            self.doorkeeper = self._doorkeeper
        self.rates = Rates.of(conf, self.clock.seconds)

    def tell_counted(self) -> None:
        super().tell_counted()
        if self.access is not None:
            self.access.tell_counted()

    def _doorkeeper(self, request: Request) -> type[BaseHandler] | None:
        """In a private service only those who may come in get further.

        The path of the public URL is taken off before, unless a proxy has done that.
        """
        path = self.conf.public_path
        if path and request.path.startswith(f"{path}/"):
            request.path = request.path[len(path) :]
            request.uri = request.uri.replace(f"{path}/", "/", 1)
        access = self.access
        return None if access is None or access.enter(request) else NoAccessHandler

    def wants_upgrade(self, method: str, path: str, headers: Headers) -> bool:
        """Whether it is a WebSocket handshake, be it a good one or not."""
        upgrade = dict.get(headers, "upgrade")
        if upgrade is not None and "websocket" in upgrade.lower():
            return True
        return "\nsec-websocket" in "\n".join(("", *headers))

    def refusal(self, status: int, reason: str) -> tuple[dict[str, str], bytes]:
        """What no handler gets to see is refused in the API's own form (spec/http-endpoint 3.1),
        which pages of other origins may read, too."""
        headers = {"Content-Type": "application/json"}
        if self.conf.cors:
            headers["Access-Control-Allow-Origin"] = "*"
            headers["Access-Control-Expose-Headers"] = "retry-after"
        if status == 413:
            body = invalid_request(too_long(self.conf.max_data))
        else:
            body = standard_error(status, 999, reason or REASONS[status], REASONS[status])
        count_refused(self, body["code"], body["errno"])
        return headers, json.dumps(body).encode()

    def ssl_cf(self) -> AutopushSSLContextFactory | None:
        """TLS context factory of the public listener; None: no TLS."""
        return self.conf.ssl.cf(require_peer_certs=self.conf.enable_tls_auth)


class StandaloneHTTPFactory(EndpointHTTPFactory):
    """The public API, with a page for people.

    :param page: what is shown
    """

    # Behind the API's own routes: those are looked at first, and most of what comes is for them.
    ap_handlers: ClassVar[Routes] = (
        *EndpointHTTPFactory.ap_handlers[:-1],
        *PAGE_ROUTES,
        EndpointHTTPFactory.ap_handlers[-1],
    )

    def __init__(self, conf: AutopushConfig, *args: Any, page: Page, **kwargs: Any) -> None:
        handlers: Routes = (*self.health_ap_handlers, *self.ap_handlers)
        if conf.public_path:
            handlers = ((re.escape(conf.public_path), SlashHandler), *handlers)
        super().__init__(conf, *args, handlers=handlers, **kwargs)
        self.page = page


class InternalRouterHTTPFactory(BaseHTTPFactory):
    """What endpoints and other connection nodes ask of this one (spec/websocket 19)."""

    ap_handlers: ClassVar[Routes] = (
        (r"/push/([^\/]+)", RouterHandler),
        (r"/notif/([^\/]+)(?:/(\d+))?", NotificationHandler),
    )

    def __init__(
        self, conf: AutopushConfig, db: Store | None, clients: dict[str, Any], **kwargs: Any
    ) -> None:
        super().__init__(conf, db, **kwargs)
        self.clients = clients

    def ssl_cf(self) -> AutopushSSLContextFactory | None:
        """TLS context factory of the internal listener; None: no TLS."""
        return self.conf.router_ssl.cf()


class MemUsageHTTPFactory(BaseHTTPFactory):
    """``/_memusage`` for the operator; never on a public port."""

    ap_handlers: ClassVar[Routes] = ((r"^/_memusage", MemUsageHandler),)

    def __init__(self, conf: AutopushConfig, db: Store | None = None, **kwargs: Any) -> None:
        super().__init__(conf, db, handlers=self.ap_handlers, **kwargs)


class PrometheusHTTPFactory(BaseHTTPFactory):
    """``/metrics`` for Prometheus; never on a public port.

    :param registry: what to show
    """

    ap_handlers: ClassVar[Routes] = ((r"/metrics", MetricsHandler),)
    refresh: Callable[[], Awaitable[None]] | None = None
    """Called before each answer, where the figures have to be gathered."""

    def __init__(self, conf: AutopushConfig, registry: CollectorRegistry, **kwargs: Any) -> None:
        super().__init__(conf, None, handlers=self.ap_handlers, **kwargs)
        self.registry = registry
