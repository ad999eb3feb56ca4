"""Documented names of :mod:`autopush.net.proxyprotocol` (spec/python-api 5)."""

from autopush.net.proxyprotocol import HAProxyServerEndpoint

__all__ = ["HAProxyServerEndpoint"]
