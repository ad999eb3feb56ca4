"""Documented members of the WebSocket protocol that the service itself has no use for.

Source: spec/python-api 8. Programs that extend the protocol run their own work with them: it is
waited for as long as the connection lasts.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from autopush.db.interface import Batch
from autopush.message.notification import WebPushNotification
from autopush.session import direct, drain, settle
from autopush.session.errors import MORE_INFO
from autopush.session.states import State
from autopush.types import JSONDict

if TYPE_CHECKING:
    from autopush.session import Session
    from autopush.session.background import Background


class ProtocolMembers:
    """Mixed into :class:`autopush.websocket.PushServerProtocol`."""

    if TYPE_CHECKING:
        factory: Any
        session: Session | None
        send: Callable[[JSONDict], None]
        close: Callable[[], None]
        resume_reading: Callable[[], None]

    randrange = staticmethod(random.randrange)
    """Source of random delays."""

    refusal: JSONDict | None = None
    """What the answer has besides, while one is asked of :meth:`bad_message`."""
    _waits: set[Deferred[Any]] | None = None

    # ---- work whose result is of no interest any more when the connection has ended

    def deferToThread(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Run ``func`` in a worker thread.

        :returns: its result; fails with ``CancelledError`` when the connection ends first
        """
        return self._tracked(deferToThread(func, *args, **kwargs))

    def deferToLater(
        self, when: float, func: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Deferred[Any]:
        """Call ``func`` after ``when`` seconds, unless the connection ends before.

        :returns: its result; fails with ``CancelledError`` when the connection ends first
        """

        def cancel(_: Deferred[None]) -> None:
            call.cancel()

        over: Deferred[None] = Deferred(cancel)
        call = self.factory.reactor.callLater(when, over.callback, None)
        return self._tracked(over.addCallback(lambda _: func(*args, **kwargs)))

    def _tracked(self, wait: Deferred[Any]) -> Deferred[Any]:
        waits = self._waits
        if waits is None:
            waits = self._waits = set()
        waits.add(wait)

        def over(result: Any) -> Any:
            waits.discard(wait)
            return result

        return wait.addBoth(over)

    def cleanUp(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        """End the session, and what was deferred for the connection."""
        waits, self._waits = self._waits, None
        for wait in list(waits or ()):
            wait.cancel()
            wait.addErrback(_ignore_cancelled)
        super().cleanUp(wasClean, code, reason)  # type: ignore[misc]

    def force_retry(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Run ``func`` in a worker thread until it succeeds, also when the connection has ended.

        Failures are logged. It is given up in the end (quirk Q16).

        :returns: its result, or :data:`autopush.session.background.GIVEN_UP`
        """
        background: Background = self.factory.node.background
        return background.persist(deferToThread, functools.partial(func, *args, **kwargs))

    # ---- answers

    def returnError(
        self,
        messageType: str,
        reason: str,
        statusCode: int,
        close: bool = True,
        url: str = MORE_INFO,
    ) -> None:
        """Answer with an error, and close the connection if ``close``."""
        self.send(
            {"messageType": messageType, "reason": reason, "status": statusCode, "more_info": url}
        )
        if close:
            self.close()

    def bad_message(self, typ: str, message: str | None = None, url: str = MORE_INFO) -> None:
        """Answer a message of type ``typ`` that can't be carried out; ``message`` says why."""
        reply = {"messageType": typ, "status": 401, "more_info": url}
        if message:
            reply["reason"] = message
        self.send({**reply, **(self.refusal or {})})

    # ---- stored notifications

    def webpush_fetch(self) -> Callable[[], Deferred[Batch]]:
        """Return the function that reads, and does not send, what the next fetch of the session
        finds: pointer and notifications (spec/websocket 9.1).

        :raises RuntimeError: there has been no hello
        """
        session = self._identified()
        store, month, uaid = session.node.store, session.month, session.uaid
        assert uaid is not None
        if session.state is State.DRAINING_TIMESTAMPED:
            return functools.partial(store.fetch_since, month, uaid, session.position)
        return functools.partial(store.fetch_topics, month, uaid)

    def ack_update(self, update: JSONDict) -> Deferred[None] | None:
        """Handle one element of an ack's ``updates``.

        :returns: None if nothing has to be deleted; else fires when what was acknowledged is
        """
        session = self.session
        if session is None:
            return None
        stored = _has_row(session, update)
        session.received({"messageType": "ack", "updates": [update]})
        if not stored:
            return None
        settle.flush(session)
        return session.row_operations_done()

    def send_notification(self, update: WebPushNotification | JSONDict) -> Deferred[Any] | None:
        """Send a notification, and keep it until it is acknowledged, as PUT /push does.

        With ``store_direct`` it is stored as well, unless the store refuses it or it has no TTL;
        what is not acknowledged when the connection ends is stored then.

        :param update: a notification, or what the body of a PUT /push holds (spec/websocket 19)
        :returns: fires when it is stored, and fails with a ``StoreError`` if it can't be; None if
            it is not stored now
        :raises ValueError: it is no notification
        :raises RuntimeError: there has been no hello, or the connection is closing
        """
        session = self._identified()
        if isinstance(update, dict):
            update = WebPushNotification.from_serialized(session.uaid or "", update)
        update.live = True
        node = session.node
        if node.conf.store_direct and update.ttl and node.store.refusal(update) is None:
            return direct.send_and_store(session, update)
        direct.send(session, update)
        return None

    def _identified(self) -> Session:
        session = self.session
        if session is None or not State.DRAINING_TOPICS <= session.state <= State.LIVE:
            raise RuntimeError("no hello so far, or the connection is being moved or closed")
        return session

    def check_missed_notifications(self, results: Any, resume: bool = False) -> None:
        """Go on after acknowledgements (spec/websocket 10).

        :param results: of what was waited for; not looked at
        :param resume: whether reading was paused meanwhile
        """
        if resume:
            self.resume_reading()
        if self.session is not None:
            drain.advance(self.session)


def _has_row(session: Session, update: Any) -> bool:
    """Whether an acknowledgement names something that is, or is being, stored."""
    if not isinstance(update, dict):
        return False
    chid, version = update.get("channelID"), update.get("version")
    if not isinstance(chid, str) or not isinstance(version, str):
        return False
    key = (chid, version)
    sent = (session.direct or {}).get(key)
    return bool(sent.row) if sent is not None else key in (session.stored or ())


def _ignore_cancelled(failure: Failure) -> None:
    failure.trap(CancelledError)
