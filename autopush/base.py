"""Documented names of :mod:`autopush.httpserver.handler` (spec/python-api 6)."""

from autopush.httpserver.handler import BaseHandler, PageNotFoundHandler

__all__ = ["BaseHandler", "PageNotFoundHandler"]
