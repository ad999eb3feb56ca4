"""Health, status, memory (spec/http-endpoint 10, spec/websocket 20, spec/configuration 9)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, TimeoutError
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from autopush import __version__
from autopush.exceptions import StoreError
from autopush.httpserver.handler import BaseHandler
from autopush.types import JSONDict
from autopush.web.base import BaseWebHandler

HEALTH_WITHIN = 10
"""Seconds the store gets to answer; load balancers wait no longer than about that."""

_STATUS = {"status": "OK", "version": __version__}


class StatusHandler(BaseWebHandler):
    """``/status`` and ``/__heartbeat__``: the process answers; nothing else is checked."""

    def authenticate_peer_cert(self) -> bool:
        """Open to everybody."""
        return True

    def get(self) -> None:
        """Status and version."""
        self.write(_STATUS)


class SiteStatusHandler(BaseHandler):
    """``/status`` and anything below it on the WebSocket port, whatever the method."""

    def _execute(self, transforms: Any, *args: Any, **kwargs: Any) -> None:
        self.finish(_STATUS)


class HealthHandler(BaseWebHandler):
    """``/health``: whether the storage works."""

    def authenticate_peer_cert(self) -> bool:
        """Open to everybody."""
        return True

    async def get(self) -> None:
        """200 if every part of the store is well, else 503."""
        parts: dict[str, str | None]
        failure: Failure | None = None
        try:
            parts = await self.db.health().addTimeout(HEALTH_WITHIN, self.application.clock)
        except (TimeoutError, CancelledError):
            parts = {"storage": f"No answer within {HEALTH_WITHIN} seconds"}
        except Exception:
            failure = Failure()
            parts = {"storage": "Internal error"}
        body: JSONDict = {**_STATUS, "clients": self._clients()}
        workers = await self._workers()
        users = self._users()
        if users is not None:
            body["users"] = users
        for name, error in parts.items():
            if error is None:
                body[name] = {"status": "OK"}
                continue
            body[name] = {"status": "NOT OK", "error": error}
            body["status"] = "NOT OK"
            reason = failure or Failure(StoreError(error))
            self.log.failure(
                "{text}",
                reason,
                text=str(reason.value) or "Heath Exception",
                name=name,
                client_info=self._client_info,
            )
        if workers is not None:
            body.update(workers)
        if body["status"] != "OK":
            self.set_status(503)
        self.finish(body)

    async def _workers(self) -> JSONDict | None:
        """What differs where the service has several processes; None: it has one."""
        if self.application.whole is None:
            return None
        try:
            whole: JSONDict = await self.application.whole()
        except Exception as error:
            return {"status": "NOT OK", "workers": {"error": str(error)}}
        if whole["users"] is None:
            del whole["users"]
        if any(one["status"] == "NOT OK" for one in whole["workers"].values()):
            whole["status"] = "NOT OK"
        return whole

    def _clients(self) -> int:
        """User agents connected to this process."""
        application = self.application
        if application.node is not None:
            return len(application.node.clients)
        return len(getattr(application, "clients", ()))

    def _users(self) -> int | None:
        """User agents the store knows, as of the last count; None: nobody counts, or not yet."""
        return getattr(self.application.node, "users", None)


class MemUsageHandler(BaseWebHandler):
    """``/_memusage``: where the memory is."""

    def authenticate_peer_cert(self) -> bool:
        """Open to whoever reaches the private port."""
        return True

    async def get(self) -> None:
        """Plain text, made in a worker thread."""
        from autopush.web.memusage import memusage

        parts = {
            f"do_{name}": self.get_argument(name, "").lower() != "false"
            for name in ("dump_rpy_heap", "objgraph")
        }
        self.finish(await deferToThread(memusage, **parts))
