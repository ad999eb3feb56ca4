"""The HTTP applications: which handler answers where (spec/http-endpoint 2)."""

from autopush.http.applications import (
    BaseHTTPFactory,
    EndpointHTTPFactory,
    InternalRouterHTTPFactory,
    MemUsageHTTPFactory,
    PrometheusHTTPFactory,
)
from autopush.httpserver.application import skip_request_logging
from autopush.httpserver.connection import HTTPConnection
from autopush.websocket.site import WebSocketHTTPFactory

__all__ = [
    "BaseHTTPFactory",
    "EndpointHTTPFactory",
    "HTTPConnection",
    "InternalRouterHTTPFactory",
    "MemUsageHTTPFactory",
    "PrometheusHTTPFactory",
    "WebSocketHTTPFactory",
    "skip_request_logging",
]
