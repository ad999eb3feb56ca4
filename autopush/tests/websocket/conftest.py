"""A server on both base classes."""

from __future__ import annotations

import pytest

from autopush.tests.websocket.support import Server, StockPushProtocol
from autopush.websocket import PushServerProtocol


@pytest.fixture(params=[PushServerProtocol, StockPushProtocol], ids=["slim", "stock"])
def cls(request):
    return request.param


@pytest.fixture
def server(cls):
    return Server(cls)
