"""Documented names of :mod:`autopush.httpserver.handler` (python-api.md 6)."""

from autopush.httpserver.handler import BaseHandler, PageNotFoundHandler

__all__ = ["BaseHandler", "PageNotFoundHandler"]
