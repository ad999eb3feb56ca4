"""The fixtures of pytest: ``push``, and ``push_service`` behind it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from autopush.testing import Push


@pytest.fixture(scope="session")
def push_service() -> Iterator[Push]:
    """A running push service for all tests; with xdist each worker has one of its own."""
    from autopush.testing import PushService

    with PushService() as push:
        yield push


@pytest.fixture
def push(push_service: Push) -> Iterator[Push]:
    """The push service, as if it had just been started."""
    push_service.reset()
    yield push_service
    push_service.reset()
