"""Documented names of :mod:`autopush.net.ignorebody` (python-api.md 2)."""

from autopush.net.ignorebody import IgnoreBody

__all__ = ["IgnoreBody"]
