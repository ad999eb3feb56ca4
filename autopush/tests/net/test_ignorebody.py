"""IgnoreBody (spec/python-api 2.10)."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone

from autopush.net.ignorebody import IgnoreBody


class Response:
    protocol: Any = None

    def deliverBody(self, protocol):
        self.protocol = protocol


class IgnoreBodyTests(SynchronousTestCase):
    def test_fires_with_the_response_at_the_end(self):
        response = Response()
        done = IgnoreBody.ignore(response)
        response.protocol.dataReceived(b"data")
        self.assertNoResult(done)
        response.protocol.connectionLost(Failure(ResponseDone()))
        self.assertIs(self.successResultOf(done), response)

    def test_fails_with_the_reason(self):
        response = Response()
        done = IgnoreBody.ignore(response)
        response.protocol.connectionLost(Failure(ConnectionLost()))
        self.failureResultOf(done, ConnectionLost)

    def test_no_response_never_fires(self):
        self.assertNoResult(IgnoreBody.ignore(None))
