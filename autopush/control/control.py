"""Puts the test mode together, for the service that runs in it."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from autopush.control.api import ControlServer
from autopush.control.inbox import Inbox
from autopush.control.observed import ObservedEndpoint, ObservedStandalone
from autopush.control.rig import Rig, firefox_preferences
from autopush.web.page.document import INBOX
from autopush.web.page.handlers import Page

if TYPE_CHECKING:
    from autopush.clock import Shift
    from autopush.config import AutopushConfig
    from autopush.session import Node
    from autopush.types import JSONDict

LOOPBACK = "127.0.0.1"


class Control:
    """The test mode of one service.

    :param shift: moves the clock of the process
    """

    def __init__(self, shift: Shift, reactor: Any) -> None:
        self._shift = shift
        self._reactor = reactor
        self._token = secrets.token_urlsafe(24)
        self.rig: Rig

    def endpoint(self, page: Page | None, conf: AutopushConfig, *args: Any, **kwargs: Any) -> Any:
        """Return the HTTP API, in place of the usual one.

        :param page: what would be shown; None: nothing is
        """
        if page is None:
            return ObservedEndpoint(conf, *args, **kwargs)
        page.document = INBOX
        return ObservedStandalone(conf, *args, page=page, **kwargs)

    def serve(self, conf: AutopushConfig, endpoint: Any, node: Node) -> ControlServer:
        """Return the application of the control API."""
        self.rig = Rig(endpoint, node, self._shift, self._reactor)
        if isinstance(endpoint, ObservedStandalone) and conf.page == "full":
            endpoint.page.figures = Inbox(self.rig).show
        return ControlServer(conf, self.rig, self._token, clock=self._reactor)

    def started(self, agents_port: int | None) -> None:
        """The service listens, on this port for user agents without TLS."""
        self.rig.port = agents_port or 0

    def url(self, port: int | None) -> str:
        """Where the control API is, with its token."""
        return f"http://{LOOPBACK}:{port}/{self._token}"

    def preferences(self) -> JSONDict:
        """What Firefox must be told, see :func:`firefox_preferences`."""
        return firefox_preferences(self.rig.websocket_url)

    def stop(self) -> None:
        """The service ends: nobody waits for anything any more."""
        self.rig.stop()
