"""What connection nodes tell each other (spec/websocket 7 step 8, 14 step 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autopush.addresses import is_node_url
from autopush.net.nodeclient import NodeGone
from autopush.session.events import log

if TYPE_CHECKING:
    from autopush.session.session import BaseNode


async def disconnect(node: BaseNode, node_id: Any, uaid: str, connected_at: int) -> None:
    """Ask another node to close the connection this user agent had there."""
    path = f"/notif/{uaid}/{connected_at}"
    await _request(node, "DELETE", node_id, path, "Failed to delete old node")


async def notify(node: BaseNode, node_id: Any, uaid: str) -> None:
    """Tell another node that something was stored for a user connected there."""
    await _request(node, "PUT", node_id, f"/notif/{uaid}", "Failed to notify node")


async def _request(node: BaseNode, method: str, node_id: Any, path: str, complaint: str) -> None:
    """Nodes come and go: that one can't be reached is no error."""
    if node.peers is None:
        return
    # Only what has the shape of a node's URL is a place to connect to.
    if not is_node_url(node_id):
        log.warn("Not a node's URL", node_id=str(node_id))
        return
    try:
        await node.peers.request(method, node_id + path)
    except NodeGone:
        pass
    except Exception:
        log.failure("Unexpected error", extra=complaint)
