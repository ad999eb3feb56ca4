"""``async def`` tests."""

from autopush.tests.e2e.conftest import pytest_pyfunc_call

__all__ = ["pytest_pyfunc_call"]
