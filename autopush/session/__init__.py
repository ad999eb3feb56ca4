"""What one connected user agent may do (spec/websocket 4 to 18); no socket and no HTTP in here.

From the bottom: what is known of a session and its node (``session``, with ``states``,
``outstanding`` and other data); a module for each thing that is done with it; and on top of
those ``conversation``, which knows all commands, and ``delivery``, which finds a user's session.
"""

from autopush.session.conversation import Session
from autopush.session.delivery import Node
from autopush.session.session import Delivery
from autopush.session.wire import Wire

__all__ = ["Delivery", "Node", "Session", "Wire"]
