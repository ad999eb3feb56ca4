"""Where a notification goes: one router per ``router_type`` (spec/bridges).

A router (:class:`~autopush.router.interface.IRouter`) has two ends. ``register`` looks at what a
device says of itself when it registers; ``route_notification`` takes a notification and the
user's record, and returns what the sender is told and what becomes of the record, or raises
:class:`~autopush.exceptions.RouterException`. It never answers a request itself, nor writes a
record of a bridge's user: handlers do.

:class:`~autopush.router.webpush.WebPushRouter` is the one for browsers: to their node, or into
the store. The others (:class:`~autopush.router.bridge.BridgeRouter`) are bridges to the push
services of vendors: a module for each router, with a module for the client that speaks to the
vendor beside it. :mod:`autopush.options.bridges` has what they say of themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autopush.metrics import SinkMetrics
from autopush.options.bridges import BRIDGES
from autopush.router.interface import IRouter
from autopush.router.webpush import WebPushRouter

if TYPE_CHECKING:
    from autopush.config import AutopushConfig
    from autopush.db.interface import Store
    from autopush.metrics import IMetrics
    from autopush.net.nodeclient import NodeClient
    from autopush.session import Node

CLASSES = {name: bridge for bridge in BRIDGES.values() for name in bridge.classes}
"""Imported only when needed: they bring libraries most services do without."""

__all__ = ["BRIDGES", *CLASSES, "WebPushRouter", "routers_from_config"]


def __getattr__(name: str) -> Any:
    for bridge in BRIDGES.values():
        if name in bridge.classes:
            return bridge.router_class(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def routers_from_config(
    conf: AutopushConfig,
    db: Store,
    agent: NodeClient | None,
    node: Node | None = None,
    metrics: IMetrics | None = None,
) -> dict[str, IRouter]:
    """Make the routers the configuration asks for, by router type.

    :param agent: client for other connection nodes; None: there are none
    :param node: the connection node in this process, if there is one
    :param metrics: default: the node's, if there is one
    :raises InvalidConfig, OSError: a bridge can't work with its settings
    """
    router_conf = conf.router_conf
    if metrics is None:
        metrics = node.metrics if node is not None else SinkMetrics()
    routers: dict[str, IRouter] = {
        "webpush": WebPushRouter(
            conf, router_conf.get("webpush"), db, agent, node=node, metrics=metrics
        )
    }
    for router_type, bridge in BRIDGES.items():
        settings = router_conf.get(router_type)
        name = bridge.choose(settings) if settings else None
        if name is not None:
            routers[router_type] = bridge.router_class(name)(conf, settings, metrics)
    return routers
