"""Small Twisted protocols."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.web.client import ResponseDone

if TYPE_CHECKING:
    from twisted.python.failure import Failure


class IgnoreBody(Protocol):
    """Reads a response's body and throws it away, so that its connection can be used again.

    :param response: the :class:`~twisted.web.iweb.IResponse`
    :param deferred: fires with ``response`` at the body's regular end, or fails
    """

    def __init__(self, response: Any, deferred: Deferred[Any]) -> None:
        self.response = response
        self.deferred = deferred

    @classmethod
    def ignore(cls, response: Any) -> Deferred[Any]:
        """Skip a response's body.

        :returns: Deferred of the response; it never fires when that is None
        """
        deferred: Deferred[Any] = Deferred()
        if response is not None:
            response.deliverBody(cls(response, deferred))
        return deferred

    def dataReceived(self, data: bytes) -> None:
        """Ignore a piece of the body."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Report the end of the body."""
        if reason.check(ResponseDone):
            self.deferred.callback(self.response)
        else:
            self.deferred.errback(reason)
