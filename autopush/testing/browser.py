"""A user agent without a browser, as a test sees it."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import dataclass, field
from typing import Any

from autopush.testing.http import Control

WAIT = 10.0
"""Seconds :meth:`Browser.wait` waits, if it isn't told how long. A message that is on its way comes
within milliseconds, but for machines that run many tests at once."""

LONGEST = 300.0
"""Seconds one request may wait; more is asked again."""


class NoMessage(TimeoutError, AssertionError):
    """No message came in time."""


def decoded(text: str | None) -> bytes | None:
    """The bytes of a base64url text."""
    return None if text is None else base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass(frozen=True)
class Message:
    """A message that came, decrypted.

    :ivar data: plain text; None: it had none, or could not be decrypted
    :ivar error: why it could not be decrypted; None: it could
    :ivar ttl: seconds the sender gave it
    :ivar urgency: ``very-low``, ``low``, ``normal``, ``high``; None: the sender named none
    :ivar vapid: claims of the sender, with its public key as ``key``; None: it did not sign
    :ivar encoding: ``aes128gcm`` or ``aesgcm``; None: there is no data
    :ivar channel: channel id of the subscription
    :ivar headers: of the request that brought it, by lower-case name
    :ivar time: when it came, Unix seconds by the service's clock
    """

    id: str
    channel: str
    data: bytes | None
    error: str | None
    ttl: int | None
    topic: str | None
    urgency: str | None
    vapid: dict[str, Any] | None
    encoding: str | None
    headers: dict[str, str] = field(repr=False)
    time: float = field(repr=False)

    @property
    def text(self) -> str:
        """The data as text.

        :raises ValueError: there is none, or it is no UTF-8
        """
        if self.data is None:
            raise ValueError(self.error or "the message has no data")
        return self.data.decode("utf-8")

    def json(self) -> Any:
        """The data, parsed as JSON.

        :raises ValueError: there is none, or it is no JSON
        """
        return json.loads(self.text)

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Message:
        """Of what the control API says."""
        given = {name: entry[name] for name in cls.__dataclass_fields__ if name in entry}
        return cls(**{**given, "channel": entry["subscription"], "data": decoded(entry["data"])})


class Browser:
    """A user agent, connected until it goes :meth:`offline`.

    :param entry: what the control API says of it
    :ivar uaid: what the service calls it
    """

    def __init__(self, control: Control, entry: dict[str, Any]) -> None:
        self._control = control
        self._path = f"/browsers/{entry['id']}"
        self._id: str = entry["id"]
        self._taken = 0
        self.uaid: str | None = entry["uaid"]

    def __repr__(self) -> str:
        return f"<Browser {self._id}>"

    # ---- subscriptions

    def subscribe(self, application_server_key: str | bytes | None = None) -> dict[str, Any]:
        """Make a subscription; returns what ``PushSubscription.toJSON()`` does in a page.

        :param application_server_key: public key of the only sender that may use it: base64url, or
            the bytes of the uncompressed point; None: anybody may
        :raises autopush.testing.ControlError: it is no such key, or the browser is offline
        """
        key = application_server_key
        if isinstance(key, bytes):
            key = base64.urlsafe_b64encode(key).rstrip(b"=").decode()
        body = {"browser": self._id, "applicationServerKey": key}
        made = self._control.call("POST", "/subscriptions", body)
        subscription: dict[str, Any] = made["subscription"]
        return subscription

    def unsubscribe(self, subscription: dict[str, Any]) -> None:
        """End a subscription, as a page does.

        :raises autopush.testing.ControlError: it isn't this browser's, or the browser is offline
        """
        known = self._control.call("GET", "/subscriptions")["subscriptions"]
        for entry in known:
            if entry["subscription"]["endpoint"] == subscription["endpoint"]:
                self._control.call("DELETE", f"/subscriptions/{entry['id']}")
                return
        raise ValueError("there is no such subscription")

    def expire(self, subscription: dict[str, Any]) -> None:
        """Let the service end a subscription: senders get 410 from now on."""
        self._control.call("POST", "/expire", {"endpoint": subscription["endpoint"]})

    # ---- connection

    def offline(self) -> None:
        """Disconnect: what is sent waits from now on."""
        self._control.call("POST", f"{self._path}/offline")

    def online(self) -> None:
        """Connect again: what has waited comes."""
        self.uaid = self._control.call("POST", f"{self._path}/online")["uaid"]

    def close(self) -> None:
        """Let it go, with its subscriptions."""
        self._control.call("DELETE", self._path)

    # ---- messages

    @property
    def messages(self) -> list[Message]:
        """All that came so far, also those that :meth:`wait` returned."""
        return [Message.from_json(entry) for entry in self._look(0, 0)["messages"]]

    def wait(self, timeout: float = WAIT) -> Message:
        """Return the next message, which may have come already.

        :param timeout: seconds
        :raises NoMessage: none came
        """
        __tracebackhide__ = True  # pytest shows the line of the test
        left = timeout
        while True:
            step = min(left, LONGEST)
            answer = self._look(self._taken, step)
            found = answer["messages"]
            if found:
                self._taken = answer["last"] - len(found) + 1
                return Message.from_json(found[0])
            left -= step
            if left <= 0:
                raise NoMessage(f"no message within {timeout:g} s; {self._explanation()}")

    async def wait_async(self, timeout: float = WAIT) -> Message:
        """As :meth:`wait`, for tests that run in an event loop of asyncio."""
        return await asyncio.to_thread(self.wait, timeout)

    def _look(self, after: int, timeout: float) -> dict[str, Any]:
        answer: dict[str, Any] = self._control.call(
            "GET", f"{self._path}/messages", after=after, timeout=timeout
        )
        return answer

    def _explanation(self) -> str:
        """What senders were told meanwhile: most likely that is why."""
        requests = self._control.call("GET", "/requests")["requests"]
        if not requests:
            return "nobody has sent anything"
        last = requests[-1]
        why = f": {last['reason']}" if last["reason"] else ""
        return f"the last of {len(requests)} requests was answered {last['status']}{why}"
