"""The HTTP applications: which handler answers where (spec/http-endpoint 2).

A request on its way to the rule that is about it::

    HTTPConnection ──bytes──▶ RequestParser        autopush.httpserver
          │ Request
          ▼
    an application of this package                 its table of routes, by path
          │
          ▼
    a handler of autopush.web                      a method named after the request's
          │
          ▼
    rules beside it, then the method               what is right, then what is done

The table of all applications is in :mod:`autopush.http.applications`. What 1.58.3 had in this
module is here, too.
"""

from autopush.http.applications import (
    BaseHTTPFactory,
    EndpointHTTPFactory,
    InternalRouterHTTPFactory,
    MemUsageHTTPFactory,
    PrometheusHTTPFactory,
    StandaloneHTTPFactory,
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
    "StandaloneHTTPFactory",
    "WebSocketHTTPFactory",
    "skip_request_logging",
]
