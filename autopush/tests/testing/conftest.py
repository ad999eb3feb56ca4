"""One service for all of these tests, through the fixtures they are about."""

from __future__ import annotations

from typing import Any

import pytest
from pywebpush import WebPushException, webpush

from autopush.testing.plugin import push, push_service

__all__ = ["push", "push_service", "send"]


@pytest.fixture
def send():
    """Sends with pywebpush; returns the status, refused or not."""

    def deliver(subscription: dict[str, Any], text: str | bytes = "x", **how: Any) -> int:
        how.setdefault("ttl", 60)
        try:
            answer = webpush(subscription, text, **how)
        except WebPushException as exc:
            assert exc.response is not None
            answer = exc.response
        status: int = answer.status_code
        return status

    return deliver
