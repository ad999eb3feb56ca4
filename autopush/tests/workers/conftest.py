"""``async def`` tests, and the servers of end-to-end tests."""

from __future__ import annotations

from autopush.tests.e2e.conftest import make_server, pytest_pyfunc_call

__all__ = ["make_server", "pytest_pyfunc_call"]
