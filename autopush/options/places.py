"""Where the value is from that an error is about which was found when all options had been read."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Iterator

from autopush.options.bridges import BRIDGES
from autopush.options.tables import JSON

PORTS = (
    "port",
    "endpoint_port",
    "router_port",
    "proxy_protocol_port",
    "memusage_port",
    "prometheus_port",
)

SHORTEST = 4
"""Characters of a value from which on it is looked for in a text: shorter ones are in many."""


class Options(Namespace):
    """Options as they have been read.

    :ivar places: where each was given, of those that were. It is no option, and none of ``vars``.
    """

    __slots__ = ("places",)
    places: dict[str, str]


def places(ns: Namespace | None) -> dict[str, str]:
    """Return where each option was given, as in ``command line`` or ``x.ini, line 3``."""
    return getattr(ns, "places", {})


def with_place(text: str, ns: Namespace | None, *options: str) -> str:
    """Return an error's text with the place of the first of these options that was given."""
    given = places(ns)
    for option in options:
        if option in given:
            name = "" if re.search(rf"\b{option}\b", text) else f"{option}, "
            return f"{text} ({name}{given[option]})"
    return text


def named(text: str, ns: Namespace | None) -> Iterator[str]:
    """Yield the options that a text names, then those with the credentials of a bridge it names."""
    words = re.findall(r"\w+", text)
    given = places(ns)
    yield from (word for word in words if word in given)
    for bridge in filter(None, (BRIDGES.get(word.lower()) for word in words)):
        yield from (row.name for row in bridge.options if row.kind == JSON)


def containing(text: str, ns: Namespace | None) -> Iterator[str]:
    """Yield the options whose values a text has, such as the name of a file; the longest first."""
    given = {option: getattr(ns, option, None) for option in places(ns)}
    values = {
        option: value.removeprefix("sqlite://")
        for option, value in given.items()
        if isinstance(value, str)
    }
    for option in sorted(values, key=lambda option: -len(values[option])):
        if len(values[option]) >= SHORTEST and values[option] in text:
            yield option


def listening(port: object, ns: Namespace | None) -> Iterator[str]:
    """Yield the options that give this port; for the path of a socket those that give addresses."""
    if isinstance(port, int):
        yield from (name for name in PORTS if getattr(ns, name, None) == port)
    else:
        for name in ("host", "router_host"):
            if str(getattr(ns, name, "")).endswith(f":{port}"):
                yield name
