"""Documented names of :mod:`autopush.net.ignorebody` (spec/python-api 2)."""

from autopush.net.ignorebody import IgnoreBody

__all__ = ["IgnoreBody"]
