"""Stand-in for Sentry: takes events over HTTP and shows them decoded.

The daemons are pointed at it with the variable ``SENTRY_DSN``. What it saw are objects of ``auth``
(the members of ``X-Sentry-Auth``) and ``event``. Answers can be scripted as with the bridges'
stand-ins.
"""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from typing import Any, ClassVar

from automock.certs import Authority
from automock.standin import Answer, StandIn
from automock.web import Reply, Request, Server

STORE = re.compile(r"/api/(\w+)/store/")

KEY = "0123456789abcdef0123456789abcdef"
"""The public key in the DSN; any other is refused."""

PROJECT = "1"


class Sentry(StandIn):
    """The store endpoint of Sentry's API, version 7 and before."""

    name: ClassVar[str] = "sentry"

    def __init__(
        self, directory: Path, authority: Authority, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        super().__init__(directory, authority, host, port)
        self._server = Server(self.handle, host, port)

    async def start(self) -> None:
        """Listen; sets :attr:`port`."""
        await self._server.start()
        self.port = self._server.port

    async def stop(self) -> None:
        """Stop listening and cut all connections."""
        await self._server.stop()

    def options(self) -> dict[str, Any]:
        """There is no option."""
        return {}

    def environment(self) -> dict[str, str]:
        """The variable that is one instead."""
        return {"SENTRY_DSN": self.dsn}

    @property
    def url(self) -> str:
        """Where it listens."""
        return self._server.url

    @property
    def dsn(self) -> str:
        """What clients are configured with."""
        return f"http://{KEY}@{self.host}:{self.port}/{PROJECT}"

    @property
    def events(self) -> list[dict[str, Any]]:
        """What was reported so far, oldest first."""
        return [seen["event"] for seen in self.script.requests if "event" in seen]

    def handle(self, request: Request) -> tuple[Reply, Answer | None]:
        """Answer as Sentry does."""
        match = STORE.fullmatch(request.path)
        if request.method != "POST" or match is None:
            return Reply(404, json={"detail": "not found"}), None
        auth = parse_auth(request.headers.get("x-sentry-auth", ""))
        if auth.get("sentry_key") != KEY or match[1] != PROJECT:
            self.script.saw({"auth": auth})
            return Reply(403, json={"detail": "bad sentry DSN public key"}), self.script.next()
        try:
            event = json.loads(decode(request))
        except (ValueError, zlib.error) as exc:
            self.script.saw({"auth": auth, "error": str(exc)})
            return Reply(400, json={"detail": "failed to read request body"}), self.script.next()
        self.script.saw({"auth": auth, "event": event})
        return Reply(json={"id": event.get("event_id")}), self.script.next()


def parse_auth(header: str) -> dict[str, str]:
    """Return the members of ``Sentry sentry_key=..., sentry_version=...``."""
    scheme, _, rest = header.partition(" ")
    if scheme.lower() != "sentry":
        return {}
    items = (item.strip().partition("=") for item in rest.split(","))
    return {name: value for name, _, value in items}


def decode(request: Request) -> bytes:
    """Return a body without its compression.

    :raises zlib.error: it has another
    """
    encoding = request.headers.get("content-encoding", "")
    if encoding == "deflate":
        return zlib.decompress(request.body)
    if encoding == "gzip":
        return zlib.decompress(request.body, zlib.MAX_WBITS | 16)
    return request.body
