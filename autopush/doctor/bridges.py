"""Checks of the bridges' credentials, by the bridges' own code."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from cryptography import x509
from twisted.internet.defer import Deferred, gatherResults

from autopush.app.starterrors import EXPECTED, start_error_text
from autopush.doctor.certificates import validity
from autopush.doctor.report import Result, Subject, fail, ok, plural, warn
from autopush.exceptions import InvalidConfig
from autopush.metrics import SinkMetrics
from autopush.router import routers_from_config

TOKENS_WITHIN = 20
"""Seconds for all requests for access tokens together."""


def bridges(subject: Subject) -> Iterator[Result]:
    """Whether the credentials can be used, and are good for access tokens."""
    if not subject.has_api:
        return
    routers: dict[str, Any] = {}
    for name in ("fcm", "gcm", "apns", "adm"):
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
        yield from WELL_FORMED[name](name, routers[name])
    yield from _tokens(routers)


def _reason(exc: BaseException) -> str:
    """Why a router can't be made: what is behind the general text of some."""
    cause = exc if isinstance(exc, InvalidConfig) else exc.__cause__ or exc
    if isinstance(cause, EXPECTED):
        return start_error_text(cause)
    return f"{type(cause).__name__} {cause.args[0] if cause.args else ''}"


# ---------------------------------------------------------------------------------- well-formed


def _fcm(name: str, router: Any) -> Iterator[Result]:
    yield ok(name, f"credentials of {plural(len(router.clients), 'app')} are well-formed")


def _gcm(name: str, router: Any) -> Iterator[Result]:
    yield warn(name, f"{plural(len(router.senderIDs), 'sender')}; Google has ended this service")


def _adm(name: str, router: Any) -> Iterator[Result]:
    yield ok(name, f"credentials of {plural(len(router.profiles), 'profile')} are well-formed")


def _apns(name: str, router: Any) -> Iterator[Result]:
    for channel, settings in router._channels.items():
        label = f"{name} {channel}"
        if settings.p8:
            router._provider_token(settings).get()
            yield ok(label, f"token of key {settings.key_id} for {settings.topic} was made")
            continue
        try:
            with open(settings.cert, "rb") as file:
                certificate = x509.load_pem_x509_certificate(file.read())
        except (OSError, ValueError) as exc:
            yield fail(label, f"{settings.cert}: {exc}")
            continue
        yield validity(label, certificate, settings.cert)


WELL_FORMED = {"fcm": _fcm, "gcm": _gcm, "adm": _adm, "apns": _apns}


# --------------------------------------------------------------------------------------- tokens


def _tokens(routers: dict[str, Any]) -> Iterator[Result]:
    """Ask for the access tokens of the bridges that need some; runs the event loop."""
    asked = {
        f"{name} {app}": client
        for name in ("fcm", "adm")
        if name in routers
        for app, client in routers[name].clients.items()
        if hasattr(client, "_tokens")
    }
    if not asked:
        return
    from twisted.internet import reactor

    loop: Any = reactor
    results: list[Result] = []

    async def ask(label: str, client: Any) -> None:
        waiting: Deferred[str] = client._tokens.get()
        try:
            await waiting.addTimeout(TOKENS_WITHIN, loop)
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
