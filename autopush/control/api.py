"""The control API: JSON over HTTP on loopback, for who has the token.

The token is the first part of the path (``/<token>/browsers``), or in ``Authorization: Bearer``.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from autopush.control.agents import AgentError
from autopush.control.aliases import ALIASES
from autopush.control.openapi import document
from autopush.control.operations import OPERATIONS, Operation
from autopush.control.rig import NotFound, Rig
from autopush.control.schema import BadInput, from_body, from_query
from autopush.httpserver.application import RoutedServer
from autopush.httpserver.handler import BaseHandler

if TYPE_CHECKING:
    from autopush.config import AutopushConfig
    from autopush.httpserver.request import Request
    from autopush.types import JSONDict

STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (BadInput, 400),
    (NotFound, 404),
    (AgentError, 409),
)
"""How operations are refused."""


class ControlHandler(BaseHandler):
    """Answers in JSON, errors too: ``{"error": "..."}``."""

    application: ControlServer

    def reply(self, status: int, body: JSONDict | None) -> None:
        """Complete the answer."""
        self.set_status(status)
        if body is None:
            self._headers.pop("Content-Type", None)
            self.finish()
        else:
            self._headers["Content-Type"] = "application/json"
            self.finish(json.dumps(body).encode())

    def _finish_error(self, code: int) -> None:
        self.reply(code, {"error": self._reason})


class OperationHandler(ControlHandler):
    """One path.

    :cvar operations: by method
    """

    operations: ClassVar[dict[str, Operation]] = {}

    @classmethod
    def allowed_methods(cls) -> list[str]:
        return list(cls.SUPPORTED_METHODS)

    async def do(self, **path: str | None) -> None:
        """Do what the method asks for."""
        request = self.request
        operation = self.operations[request.method]
        try:
            given = from_body(request.body, operation.body) if operation.body is not None else {}
            given |= from_query(request.arguments, operation.query)
            parts = {name: part or "" for name, part in path.items()}
            answer = await operation.act(self.application.rig, parts, given)
        except tuple(kind for kind, _ in STATUSES) as exc:
            status = next(status for kind, status in STATUSES if isinstance(exc, kind))
            self.reply(status, {"error": str(exc)})
        else:
            self.reply(operation.status, answer)

    get = post = delete = do


class DocumentHandler(ControlHandler):
    """``/openapi.json``."""

    SUPPORTED_METHODS = ("GET",)

    def get(self) -> None:
        self.reply(200, document())


class NothingHandler(ControlHandler):
    """404 for every other path."""

    def prepare(self) -> None:
        self.reply(404, {"error": "there is no such path; /openapi.json lists those there are"})


class StrangerHandler(ControlHandler):
    """401 without the token."""

    def prepare(self) -> None:
        self._headers["WWW-Authenticate"] = "Bearer"
        self.reply(401, {"error": "the token is missing or wrong"})


def routes(operations: Iterable[Operation]) -> list[tuple[str, Any]]:
    """A handler for each path."""
    paths: dict[str, dict[str, Operation]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method] = operation
    found: list[tuple[str, Any]] = []
    for path, methods in paths.items():
        members = {"operations": methods, "SUPPORTED_METHODS": tuple(methods)}
        handler = type("PathHandler", (OperationHandler,), members)
        found.append((re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path), handler))
    return found


class ControlServer(RoutedServer):
    """The application.

    :param token: who has it may do everything here
    """

    not_found_handler = NothingHandler

    def __init__(self, conf: AutopushConfig, rig: Rig, token: str, **kwargs: Any) -> None:
        handlers = [*routes(OPERATIONS), *routes(ALIASES), ("/openapi.json", DocumentHandler)]
        super().__init__(conf, None, handlers=handlers, **kwargs)
        self.rig = rig
        self._token = token
        self.doorkeeper = self._enter

    def _enter(self, request: Request) -> type[BaseHandler] | None:
        first, _, rest = request.path[1:].partition("/")
        if self._is_token(first):
            request.path = f"/{rest}"
            return None
        scheme, _, shown = request.headers.get("authorization", "").partition(" ")
        known = scheme.lower() == "bearer" and self._is_token(shown.strip())
        return None if known else StrangerHandler

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode("utf-8", "surrogatepass"), self._token.encode())
