"""Documented names of :mod:`autopush.net.proxyprotocol` (python-api.md 5)."""

from autopush.net.proxyprotocol import HAProxyServerEndpoint

__all__ = ["HAProxyServerEndpoint"]
