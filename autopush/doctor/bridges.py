"""Checks of the bridges' credentials, by the bridges' own code."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from autopush.app.starterrors import EXPECTED, start_error_text
from autopush.doctor.certificates import validity
from autopush.doctor.report import Result, Subject, fail, ok, warn
from autopush.exceptions import InvalidConfig
from autopush.metrics import SinkMetrics
from autopush.net.environment import ca_bundle
from autopush.options.bridges import BRIDGES
from autopush.router import routers_from_config
from autopush.ssl import TLSFileError, load_chain

TOKENS_WITHIN = 20
"""Seconds for all requests for access tokens together."""


def bridges(subject: Subject) -> Iterator[Result]:
    """Whether the credentials can be used, and are good for access tokens."""
    if not subject.has_api:
        return
    routers: dict[str, Any] = {}
    for name in BRIDGES:
        if not subject.conf.router_conf.get(name):
            continue
        conf = copy.copy(subject.conf)
        conf.router_conf = {name: subject.conf.router_conf[name]}
        nothing: Any = None
        try:
            routers[name] = routers_from_config(conf, nothing, None, metrics=SinkMetrics())[name]
        except (*EXPECTED, ValueError, KeyError, TypeError) as exc:
            yield fail(name, _reason(exc))
            continue
        yield from _checks(name, routers[name])
    yield from _tokens(routers)


def authorities(subject: Subject) -> Iterator[Result]:
    """Whom bridges trust, where the environment says so."""
    bundle = ca_bundle()
    if bundle and subject.has_api and any(map(subject.conf.router_conf.get, BRIDGES)):
        variable, path = bundle
        yield ok("authorities", f"{path} ({variable}), but where a bridge has a ca_file")


def _reason(exc: BaseException) -> str:
    """Why a router can't be made: what is behind the general text of some."""
    cause = exc if isinstance(exc, InvalidConfig) else exc.__cause__ or exc
    if isinstance(cause, EXPECTED):
        return start_error_text(cause)
    return f"{type(cause).__name__} {cause.args[0] if cause.args else ''}"


def _checks(name: str, router: Any) -> Iterator[Result]:
    """What the bridge itself has to say, and how its messages leave."""
    for server, proxy in sorted(router.proxies().items()):
        yield ok(name, f"{server} by the proxy {proxy}")
    for check in router.checks():
        label = f"{name} {check.label}".strip()
        if check.certificate is None:
            yield (warn if check.warning else ok)(label, check.text)
            continue
        try:
            certificate = load_chain(check.certificate)[0]
        except TLSFileError as exc:
            yield fail(label, str(exc))
        else:
            yield validity(label, certificate, check.certificate)


def _tokens(routers: dict[str, Any]) -> Iterator[Result]:
    """Ask for the access tokens of the bridges that need some; runs the event loop."""
    asked = {
        f"{name} {account}": source
        for name, router in routers.items()
        for account, source in router.token_sources().items()
    }
    if not asked:
        return
    from twisted.internet import reactor

    loop: Any = reactor
    results: list[Result] = []

    async def ask(label: str, source: Callable[[], Deferred[str]]) -> None:
        try:
            await source().addTimeout(TOKENS_WITHIN, loop)
        except Exception as exc:
            text = str(exc.args[0] if exc.args else "")[:200]
            results.append(fail(label, f"no access token: {type(exc).__name__} {text}"))
        else:
            results.append(ok(label, "an access token was obtained"))

    def begin() -> None:
        waiting = [Deferred.fromCoroutine(ask(*item)) for item in asked.items()]
        gatherResults(waiting, consumeErrors=True).addBoth(lambda _: loop.stop())

    loop.callWhenRunning(begin)
    loop.run()
    yield from sorted(results, key=lambda result: result.name)
