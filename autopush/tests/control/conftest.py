"""The service with its control API, as one process for all of these tests."""

from __future__ import annotations

from autopush.testing.plugin import push, push_service
from autopush.tests.testing.conftest import send

__all__ = ["push", "push_service", "send"]
