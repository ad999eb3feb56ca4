"""What one connected user agent may do (spec/websocket 4 to 18); no socket and no HTTP in here."""

from autopush.session.node import Delivery, Node
from autopush.session.session import Session
from autopush.session.wire import Wire

__all__ = ["Delivery", "Node", "Session", "Wire"]
