"""What every router offers to the web handlers (spec/bridges 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autopush.types import JSONDict

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from autopush.config import AutopushConfig
    from autopush.message.notification import WebPushNotification


class RouterResponse:
    """A router's answer to a notification.

    :param status_code: HTTP status for the sender
    :param response_body: body (2xx) or the error's ``message``
    :param router_data: None: leave the record; ``{}``: drop the user; else: replaces the
        record's ``router_data``
    :param headers: copied to the HTTP answer where the value is not None
    :param errno: error number; 999 is used when none is given and the status is not 2xx
    :param logged_status: status for logs; 202 means "stored"
    """

    def __init__(
        self,
        status_code: int = 200,
        response_body: str = "",
        router_data: JSONDict | None = None,
        headers: dict[str, Any] | None = None,
        errno: int | None = None,
        logged_status: int | None = None,
    ) -> None:
        self.status_code = status_code
        self.response_body = response_body
        self.router_data = router_data
        self.headers = headers or {}
        self.errno = errno
        self.logged_status = logged_status


class IRouter:
    """Where notifications of one ``router_type`` go."""

    def __init__(self, conf: AutopushConfig, router_conf: JSONDict, **kwargs: Any) -> None:
        """May raise when the configuration can't work."""
        raise NotImplementedError

    def register(
        self, uaid: str, router_data: JSONDict, app_id: str, *args: Any, **kwargs: Any
    ) -> None:
        """Check a registration and complete ``router_data`` in place before it is stored.

        :raises RouterException: the registration is refused.
        """
        raise NotImplementedError

    def amend_endpoint_response(self, response: JSONDict, router_data: JSONDict) -> None:
        """Add members to the answer of a new registration, in place."""
        raise NotImplementedError

    def route_notification(
        self, notification: WebPushNotification, uaid_data: JSONDict
    ) -> RouterResponse | Deferred[RouterResponse]:
        """Send one notification to the user whose full record is ``uaid_data``.

        :raises RouterException: also as the failure of the Deferred.
        """
        raise NotImplementedError

    async def route(self, notification: WebPushNotification, uaid_data: JSONDict) -> RouterResponse:
        """As :meth:`route_notification`, for who awaits it."""
        routed = self.route_notification(notification, uaid_data)
        return routed if isinstance(routed, RouterResponse) else await routed

    def forget(self, notification: WebPushNotification) -> None:
        """A stored notification was taken back by its sender."""

    def close(self) -> Deferred[Any] | None:
        """Let go of connections, at the end of the process."""
        return None
