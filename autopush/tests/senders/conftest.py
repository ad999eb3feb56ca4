"""Fixtures of the tests with senders in other languages."""

from __future__ import annotations

from autopush.tests.e2e.conftest import certificate, pytest_pyfunc_call

__all__ = ["certificate", "pytest_pyfunc_call"]
