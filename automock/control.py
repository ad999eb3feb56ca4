"""The HTTP API that scripts the stand-ins.

::

    GET  /                    which stand-ins run, where, and how many scripted answers wait
    GET  /options             the daemons' options that point them here, as a JSON object
    POST /<name>/next         an answer, or a list of answers, for the next requests
    GET  /<name>/requests     what was seen, oldest first
    POST /<name>/settings     change how the stand-in behaves
    POST /<name>/reset        forget all of that

For example, the next three sends are told that the device is gone::

    curl -d '{"status": 410, "reason": "Unregistered", "times": 3}' http://127.0.0.1:8099/apns/next
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from automock.standin import StandIn
from automock.web import Reply, Request, Server


class Control:
    """Serves the API for some stand-ins.

    :param stand_ins: by name
    """

    def __init__(
        self, stand_ins: Mapping[str, StandIn], host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.stand_ins = stand_ins
        self._server = Server(lambda request: (self.handle(request), None), host, port)

    async def start(self) -> None:
        """Listen."""
        await self._server.start()

    async def stop(self) -> None:
        """Stop listening."""
        await self._server.stop()

    @property
    def url(self) -> str:
        """Where it listens."""
        return self._server.url

    def handle(self, request: Request) -> Reply:
        """Answer one request."""
        parts = request.path.strip("/").split("/")
        if request.method == "GET" and parts == [""]:
            return Reply(json={name: self._describe(one) for name, one in self.stand_ins.items()})
        if request.method == "GET" and parts == ["options"]:
            return Reply(json=all_options(self.stand_ins))
        if len(parts) != 2 or parts[0] not in self.stand_ins:
            return Reply(404, json={"error": "no such stand-in or path"})
        stand_in = self.stand_ins[parts[0]]
        if (request.method, parts[1]) == ("GET", "requests"):
            return Reply(json=list(stand_in.script.requests))
        if request.method != "POST" or parts[1] not in ("next", "settings", "reset"):
            return Reply(404, json={"error": "no such stand-in or path"})
        try:
            self._change(stand_in, parts[1], request)
        except (ValueError, TypeError, RecursionError) as exc:
            return Reply(400, json={"error": str(exc)})
        return Reply(json=self._describe(stand_in))

    def _change(self, stand_in: StandIn, what: str, request: Request) -> None:
        if what == "reset":
            stand_in.reset()
            return
        content = request.json()
        if what == "next":
            stand_in.script.add(content)
        elif isinstance(content, dict):
            stand_in.configure(content)
        else:
            raise ValueError("settings must be an object")

    def _describe(self, stand_in: StandIn) -> dict[str, Any]:
        return {
            "url": stand_in.url,
            "requests": len(stand_in.script.requests),
            "scripted": stand_in.script.waiting,
        }


def all_options(stand_ins: Mapping[str, StandIn]) -> dict[str, Any]:
    """Return the daemons' options for all these stand-ins; objects of one name are merged."""
    merged: dict[str, Any] = {}
    for stand_in in stand_ins.values():
        for name, value in stand_in.options().items():
            if isinstance(value, dict) and isinstance(merged.get(name), dict):
                merged[name] = {**merged[name], **value}
            else:
                merged[name] = value
    return merged
