"""Where a notification goes: one router per ``router_type`` (spec/bridges)."""

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
