"""What the stand-ins that speak HTTP/1.1 over TLS share.

Where a service has a second address, for access tokens, answers for that one are scripted with
``"on": "token"``; all others are for messages.
"""

from __future__ import annotations

import copy
import json
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from automock.standin import Answer, Script, StandIn
from automock.web import Reply, Request, Server


class TwoScripts(Script):
    """The script of a service that also issues tokens."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._token_answers: deque[Answer] = deque()

    def add(self, answers: Mapping[str, Any] | Iterable[Mapping[str, Any]]) -> None:
        before = len(self._answers)
        super().add(answers)
        added = [self._answers.pop() for _ in range(len(self._answers) - before)][::-1]
        for answer in added:
            on = answer.more.pop("on", "message")
            (self._token_answers if on == "token" else self._answers).append(answer)

    def next_token(self) -> Answer | None:
        """Take the answer for a request for a token; None: none is scripted."""
        messages, self._answers = self._answers, self._token_answers
        try:
            return self.next()
        finally:
            self._answers = messages

    def reset(self) -> None:
        super().reset()
        self._token_answers.clear()

    @property
    def waiting(self) -> int:
        return super().waiting + sum(answer.times for answer in self._token_answers)


class HTTPStandIn(StandIn):
    """A service with one address for messages and perhaps one for tokens.

    Tokens it has issued stay valid over a reset.

    Subclasses say what the vendor would answer; :attr:`DEFAULTS` are their settings.
    """

    DEFAULTS: ClassVar[dict[str, Any]] = {}
    token_path: ClassVar[str | None] = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.script: TwoScripts = TwoScripts(self.actions)
        self.settings = copy.deepcopy(self.DEFAULTS)
        self._server: Server | None = None

    async def start(self) -> None:
        context = self.authority.server_context(f"{self.name}-server", self.host)
        self._server = Server(self._handle, self.host, self.port, context)
        await self._server.start()
        self.port = self._server.port

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop()

    def configure(self, settings: Mapping[str, Any]) -> None:
        for name, value in settings.items():
            if name not in self.DEFAULTS or type(value) is not type(self.DEFAULTS[name]):
                raise ValueError(f"{self.name} has no setting {name} of this type")
        self.settings.update(settings)

    def reset(self) -> None:
        super().reset()
        self.settings = copy.deepcopy(self.DEFAULTS)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The requests that carried messages."""
        return [one for one in list(self.script.requests) if one["path"] != self.token_path]

    @property
    def token_requests(self) -> list[dict[str, Any]]:
        """The requests for tokens."""
        return [one for one in list(self.script.requests) if one["path"] == self.token_path]

    def _handle(self, request: Request) -> tuple[Reply, Answer | None]:
        self.script.saw(_describe(request))
        if request.path == self.token_path:
            answer = self.script.next_token()
            return self.token(request), answer
        answer = self.script.next()
        reply = self.named(answer.more) if answer is not None else None
        return reply or self.message(request), answer

    # ---- for each vendor

    def message(self, request: Request) -> Reply:
        """Answer a request with a message."""
        raise NotImplementedError

    def token(self, request: Request) -> Reply:
        """Answer a request for a token."""
        return Reply(404)

    def named(self, more: Mapping[str, Any]) -> Reply | None:
        """Return the vendor's answer for the name of an error in a script."""
        return None


def _describe(request: Request) -> dict[str, Any]:
    try:
        payload = request.json()
    except ValueError:
        payload = None
    return {
        "method": request.method,
        "target": request.target,
        "path": request.path,
        "headers": request.headers,
        "payload": payload,
        "form": request.form if payload is None else {},
        "text": request.body.decode("utf-8", "replace"),
    }


def texts(value: Any) -> bool:
    """Whether this is a map of texts, as data members must be."""
    return isinstance(value, dict) and all(isinstance(one, str) for one in value.values())


def size_of(data: Mapping[str, str]) -> int:
    """Bytes of keys and values."""
    return sum(len(key.encode()) + len(value.encode()) for key, value in data.items())


def json_size(value: Any) -> int:
    """Bytes of a value as compact JSON."""
    return len(json.dumps(value, separators=(",", ":")).encode())
