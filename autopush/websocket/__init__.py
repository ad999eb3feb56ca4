"""The connections of user agents: frames to commands and back (spec/websocket 1 to 3)."""

from autobahn.twisted.websocket import WebSocketServerProtocol

from autopush.clock import ms_time
from autopush.constants import RECORD_VERSION as USER_RECORD_VERSION
from autopush.session.acks import NACK_CODES
from autopush.session.errors import MORE_INFO as DEFAULT_WS_ERR
from autopush.session.events import extract_code
from autopush.web.nodes import NotificationHandler, RouterHandler
from autopush.websocket.factory import PushServerFactory, PushServerProtocol
from autopush.websocket.site import ConnectionWSSite, WebSocketHTTPFactory
from autopush.websocket.wire import decode_message, encode_message, log_exception

__all__ = [
    "DEFAULT_WS_ERR",
    "NACK_CODES",
    "USER_RECORD_VERSION",
    "ConnectionWSSite",
    "NotificationHandler",
    "PushServerFactory",
    "PushServerProtocol",
    "RouterHandler",
    "WebSocketHTTPFactory",
    "WebSocketServerProtocol",
    "decode_message",
    "encode_message",
    "extract_code",
    "log_exception",
    "ms_time",
]
