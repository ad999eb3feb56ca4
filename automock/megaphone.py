"""Stand-in for Megaphone, the server that knows the versions of broadcasts.

``GET /v1/broadcasts`` with the right token is answered ``{"code": 200, "broadcasts": {...}}``; with
a slash behind it, it leads there. The versions are a setting::

    curl -d '{"broadcasts": {"remote-settings/monitor_changes": "\\"2\\""}}' \\
        http://127.0.0.1:8099/megaphone/settings

Answers can be scripted as with the bridges' stand-ins.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from automock.certs import Authority
from automock.standin import Answer, StandIn
from automock.web import Reply, Request, Server

PATH = "/v1/broadcasts"

FIRST = {"remote-settings/monitor_changes": '"1"'}
"""What is known after the start, and after a reset."""


class Megaphone(StandIn):
    """The server, with one token."""

    name: ClassVar[str] = "megaphone"
    token = "Bearer automock-megaphone"

    def __init__(
        self, directory: Path, authority: Authority, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        super().__init__(directory, authority, host, port)
        self.broadcasts = dict(FIRST)
        self._server = Server(self.handle, host, port)

    async def start(self) -> None:
        """Listen; sets :attr:`port`."""
        await self._server.start()
        self.port = self._server.port

    async def stop(self) -> None:
        """Stop listening and cut all connections."""
        await self._server.stop()

    def options(self) -> dict[str, Any]:
        """There is no option that endpoint nodes know, too."""
        return {}

    def environment(self) -> dict[str, str]:
        """The variables of connection nodes."""
        return {"MEGAPHONE_API_URL": f"{self.url}{PATH}", "MEGAPHONE_API_TOKEN": self.token}

    @property
    def url(self) -> str:
        """Where it listens."""
        return self._server.url

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Change the versions: ``broadcasts``, an object of all of them."""
        if set(settings) != {"broadcasts"} or not isinstance(settings["broadcasts"], dict):
            raise ValueError("megaphone has one setting: broadcasts, an object")
        self.broadcasts = dict(settings["broadcasts"])

    def reset(self) -> None:
        """Back to the versions after the start, too."""
        super().reset()
        self.broadcasts = dict(FIRST)

    def handle(self, request: Request) -> tuple[Reply, Answer | None]:
        """Answer a request."""
        self.script.saw(
            {"method": request.method, "path": request.path, "headers": request.headers}
        )
        return self._reply(request), self.script.next()

    def _reply(self, request: Request) -> Reply:
        if request.method != "GET" or request.path.rstrip("/") != PATH:
            return Reply(404)
        if request.path != PATH:
            return Reply(301, headers={"Location": PATH})
        if request.headers.get("authorization") != self.token:
            return Reply(401, json={"code": 401})
        return Reply(json={"code": 200, "broadcasts": self.broadcasts})
