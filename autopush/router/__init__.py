"""Where a notification goes: one router per ``router_type`` (spec/bridges).

A router (:class:`~autopush.router.interface.IRouter`) has two ends. ``register`` looks at what a
device says of itself when it registers; ``route_notification`` takes a notification and the
user's record, and returns what the sender is told and what becomes of the record, or raises
:class:`~autopush.exceptions.RouterException`. It never answers a request itself, nor writes a
record of a bridge's user: handlers do.

:class:`~autopush.router.webpush.WebPushRouter` is the one for browsers: to their node, or into
the store. The others (:class:`~autopush.router.bridge.BridgeRouter`) are bridges to the push
services of vendors: a module for each router, with a module for the client that speaks to the
vendor beside it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from autopush.metrics import SinkMetrics
from autopush.router.interface import IRouter
from autopush.router.webpush import WebPushRouter

if TYPE_CHECKING:
    from autopush.config import AutopushConfig
    from autopush.db.interface import Store
    from autopush.metrics import IMetrics
    from autopush.net.nodeclient import NodeClient
    from autopush.session import Node

BRIDGES = {
    "ADMRouter": "adm",
    "APNSRouter": "apnsrouter",
    "FCMRouter": "fcm",
    "FCMv1Router": "fcm_v1",
    "GCMRouter": "gcm",
}
"""Classes by module; imported only when needed: they bring libraries most services do without."""

__all__ = [*BRIDGES, "WebPushRouter", "routers_from_config"]


def __getattr__(name: str) -> Any:
    if name not in BRIDGES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{BRIDGES[name]}"), name)


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
    :param metrics: default: the node's or the store's, if they have any
    :raises InvalidConfig, OSError: a bridge can't work with its settings
    """
    router_conf = conf.router_conf
    routers: dict[str, IRouter] = {
        "webpush": WebPushRouter(
            conf, router_conf.get("webpush"), db, agent, node=node, metrics=metrics
        )
    }
    if metrics is None:
        metrics = getattr(node, "metrics", None) or getattr(db, "metrics", None) or SinkMetrics()
    bridges = {
        "apns": "APNSRouter",
        "gcm": "GCMRouter",
        "fcm": FCM_VERSIONS.get((router_conf.get("fcm") or {}).get("version", 1)),
        "adm": "ADMRouter",
    }
    for router_type, name in bridges.items():
        if name is not None and router_conf.get(router_type):
            routers[router_type] = __getattr__(name)(conf, router_conf[router_type], metrics)
    return routers


FCM_VERSIONS = {0: "FCMRouter", 1: "FCMv1Router"}
"""By ``fcm_version``; the configuration allows no others."""
