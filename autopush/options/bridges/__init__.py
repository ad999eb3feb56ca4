"""The bridges, each declared in a small module that brings none of its libraries.

A :class:`~autopush.options.bridges.declaration.Bridge` says everything that others have to know:
its options and what becomes of them, what a registration has to look like, which answers drop a
user, and which class of :mod:`autopush.router` does the work. Another bridge is another module
here and another line of :data:`DECLARATIONS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from autopush.options.bridges.declaration import Bridge
from autopush.options.tables import Option, OptionGroup

DECLARATIONS = (
    "autopush.options.bridges.apns",
    "autopush.options.bridges.gcm",
    "autopush.options.bridges.fcm",
    "autopush.options.bridges.adm",
)
"""Modules with a ``BRIDGE``, in the order in which their settings are read (spec/configuration 5).
"""


def declared(modules: Iterable[str]) -> dict[str, Bridge]:
    """Return what bridges say of themselves, by router type."""
    bridges = [importlib.import_module(module).BRIDGE for module in modules]
    return {bridge.router_type: bridge for bridge in bridges}


BRIDGES = declared(DECLARATIONS)
"""By router type."""


def option_groups() -> list[OptionGroup]:
    """Return the options of all bridges, by their subjects."""
    subjects: dict[str, list[Option]] = {}
    for bridge in BRIDGES.values():
        subjects.setdefault(bridge.subject, []).extend(bridge.options)
    return [(subject, tuple(rows)) for subject, rows in subjects.items()]
