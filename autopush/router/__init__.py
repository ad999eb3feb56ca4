"""Where a notification goes: one router per ``router_type`` (bridges.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopush.router.interface import IRouter
from autopush.router.webpush import WebPushRouter

if TYPE_CHECKING:
    from autopush.config import AutopushConfig
    from autopush.db.interface import Store
    from autopush.metrics import IMetrics
    from autopush.nodeclient import NodeClient
    from autopush.session import Node

__all__ = ["WebPushRouter", "routers_from_config"]


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
    """
    return {
        "webpush": WebPushRouter(
            conf, conf.router_conf.get("webpush"), db, agent, node=node, metrics=metrics
        )
    }
