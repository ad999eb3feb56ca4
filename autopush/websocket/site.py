"""The public port of a connection node (spec/websocket 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autopush.httpserver.application import RoutedServer
from autopush.web.health import SiteStatusHandler

if TYPE_CHECKING:
    from autopush.config import AutopushConfig
    from autopush.httpserver.request import Headers
    from autopush.ssl import AutopushSSLContextFactory
    from autopush.websocket.factory import PushServerFactory


class WebSocketHTTPFactory(RoutedServer):
    """The public port of a connection node: ``/status``, and WebSocket everywhere else.

    :param upgrade_factory: what answers everything else, well formed or not (spec/websocket 2)
    """

    def __init__(self, conf: AutopushConfig, upgrade_factory: Any, **kwargs: Any) -> None:
        routes = [(r"/status(?:/.*)?", SiteStatusHandler)]
        super().__init__(conf, None, handlers=routes, **kwargs)
        self.upgrade_factory = upgrade_factory

    def wants_upgrade(self, method: str, path: str, headers: Headers) -> bool:
        """Whether the first segment of the path is not exactly ``status``."""
        return path != "/status" and not path.startswith("/status/")

    def ssl_cf(self) -> AutopushSSLContextFactory | None:
        """TLS context factory of the public listener; None: no TLS."""
        return self.conf.ssl.cf()


class ConnectionWSSite(WebSocketHTTPFactory):
    """The public port of a connection node.

    :param ws_factory: makes the WebSockets
    """

    def __init__(self, conf: AutopushConfig, ws_factory: PushServerFactory, **kwargs: Any) -> None:
        super().__init__(conf, ws_factory, **kwargs)
