"""What the HTTP API and the WebSocket can answer, as :mod:`docs_support` reads it off the code."""

from __future__ import annotations

import ast
import pkgutil
import re
from functools import cache
from typing import Any

import autopush.router
import autopush.session
import autopush.web
from autopush.tests.docs.support import ANY, Emission, Program, Scope, World, bind, name_of, value

PREFIX = "Request did not validate "

SIGNATURES = {
    "InvalidRequest": ("message", "status_code", "errno", "headers"),
    "RouterException": ("message", "status_code", "response_body", "router_data", "headers"),
    "RouterResponse": ("status_code", "response_body", "router_data", "headers", "errno"),
    "Reason": ("status", "errno", "message", "crit", "gone", "retry"),
    "VapidAuthException": ("message",),
    "_write_response": ("status_code", "errno", "message", "error", "headers"),
}
STATUS = {"InvalidRequest": 400, "RouterException": 500, "RouterResponse": 200}

UNREACHABLE = {"No Registration IDs specified"}
"""Mistakes of callers; ours make none."""

WRAPPED = {"missing authorization header: <>"}
"""Around a VapidAuthException, which is looked at itself."""


def modules_of(*packages: Any) -> list[str]:
    """Names of the modules in packages."""
    return [
        f"{package.__name__}.{found.name}"
        for package in packages
        for found in pkgutil.iter_modules(package.__path__)
    ]


@cache
def http_errors() -> list[Emission]:
    """Every error answer of the HTTP API; ``errno`` is ``"none"`` where there is no such member."""
    names = [*modules_of(autopush.web, autopush.router), "autopush.message.vapid", "autopush.http"]
    names += ["autopush.message.notification", "autopush.web.page.handlers"]
    found = Program([*names, "autopush.message.endpoint_token"]).emissions(is_answer, read_http)
    return [one for one in found if one.text not in UNREACHABLE | WRAPPED]


def is_answer(node: ast.AST) -> bool:
    """Whether a node makes an error answer, or may be the body of one."""
    return isinstance(node, ast.Dict) or (
        isinstance(node, ast.Call) and name_of(node) in SIGNATURES
    )


def read_http(node: ast.AST, scope: Scope, world: World) -> Emission | None:
    """Read what :func:`is_answer` found."""
    if isinstance(node, ast.Dict):
        return _body(node, scope, world)
    assert isinstance(node, ast.Call)
    kind = name_of(node)
    given = {
        name: value(argument, scope, world)
        for name, argument in bind(SIGNATURES[kind], node).items()
    }
    status, errno, text = _read(kind, given, scope)
    if status is ANY and errno is ANY:
        return None  # passes on what was made elsewhere
    if isinstance(status, int) and status < 300:
        return None
    where = f"{scope.module.name}:{node.lineno}"
    return Emission(status, errno, text or "none", where)


def _read(kind: str, given: dict[str, Any], scope: Scope) -> tuple[Any, Any, Any]:
    status, errno = given.get("status_code", STATUS.get(kind)), given.get("errno")
    text = given.get("message")
    if kind == "VapidAuthException":
        return 401, 109, f"missing authorization header: {text}"
    if kind == "Reason":
        if given.get("retry"):
            return 200, None, ""  # answered by please_wait
        if given.get("crit"):
            text = scope.module.namespace["LATER"]
        return given["status"], errno or 999, re.sub(r"\{\w+\}", "<>", str(text))
    registering = scope.function is not None and scope.function.name == "register"
    if kind == "RouterException" and not registering:
        return status, errno or 999, given.get("response_body") or text
    if kind == "RouterResponse":
        return status, errno or 999, given.get("response_body")
    if isinstance(text, str):
        text = text.removeprefix(PREFIX)
    return status, errno, text


def _body(node: ast.Dict, scope: Scope, world: World) -> Emission | None:
    literal = [part for part in zip(node.keys, node.values, strict=True) if is_code(*part)]
    members = _members(node, scope, world)
    if not literal or "errors" in members:
        return None
    text = str(members.get("message", "none")).removeprefix(PREFIX)
    where = f"{scope.module.name}:{node.lineno}"
    return Emission(members["code"], members.get("errno", "none"), text, where)


def is_code(key: ast.expr | None, status: ast.expr) -> bool:
    """Whether a member is the status of an answer that is written down where it stands."""
    return (
        isinstance(key, ast.Constant) and key.value == "code" and isinstance(status, ast.Constant)
    )


def _members(node: ast.Dict, scope: Scope, world: World) -> dict[str, Any]:
    return {
        str(key.value): value(node.values[number], scope, world)
        for number, key in enumerate(node.keys)
        if isinstance(key, ast.Constant)
    }


@cache
def websocket_errors() -> list[Emission]:
    """Every reply with a ``status`` of failure: the message type is in ``errno``'s place."""
    program = Program(modules_of(autopush.session))
    return program.emissions(lambda node: isinstance(node, ast.Dict), read_websocket)


def read_websocket(node: ast.AST, scope: Scope, world: World) -> Emission | None:
    """Read a reply."""
    assert isinstance(node, ast.Dict)
    members = _members(node, scope, world)
    if "messageType" not in members or members.get("status", 200) == 200:
        return None
    where = f"{scope.module.name}:{node.lineno}"
    reason = members.get("reason") or "none"
    return Emission(members["status"], members["messageType"], reason, where)


def same(one: Any, other: Any) -> bool:
    """Whether two values can be the same."""
    return one is ANY or other is ANY or str(one) == str(other)
