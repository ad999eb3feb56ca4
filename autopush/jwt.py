"""Documented names of :mod:`autopush.message.jwt` (spec/python-api 2.6)."""

from autopush.message.jwt import VerifyJWT, repad

__all__ = ["VerifyJWT", "repad"]
