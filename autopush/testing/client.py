"""The service, as a test sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from autopush.testing.browser import Browser, decoded
from autopush.testing.http import Control, ControlError

__all__ = ["ControlError", "Push", "Request"]


@dataclass(frozen=True)
class Request:
    """What a sender posted, and what became of it.

    :ivar status: of the answer; None: there was none
    :ivar errno: number of the error, as the manual lists them; None: it was accepted
    :ivar reason: why it was refused
    :ivar fault: name of the fault it met
    :ivar headers: by lower-case name
    :ivar answer: headers of the answer
    :ivar body: as it was sent
    :ivar channel: channel id of the subscription, if the request was right
    :ivar message: id of the message it brought
    """

    status: int | None
    reason: str | None
    errno: int | None
    method: str
    endpoint: str
    fault: str | None
    vapid: dict[str, Any] | None
    channel: str | None
    message: str | None = field(repr=False)
    ttl: int | None
    headers: dict[str, str] = field(repr=False)
    answer: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    remote: str = field(repr=False)
    time: float = field(repr=False)

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Request:
        """Of what the control API says."""
        given = {name: entry[name] for name in cls.__dataclass_fields__ if name in entry}
        body = decoded(entry["body"]) or b""
        return cls(**{**given, "channel": entry["subscription"], "body": body})


class Push:
    """A running service, through its control API.

    :param url: of the control API, with the token
    :ivar url: origin of the endpoints, which is the ``aud`` of VAPID
    :ivar websocket_url: where user agents connect
    """

    def __init__(self, url: str) -> None:
        self.control = Control(url)
        self.control_url = self.control.url
        facts = self.control.call("GET", "/")
        self.url: str = facts["url"]
        self.websocket_url: str = facts["websocket_url"]
        self._preferences: dict[str, Any] = facts["firefox_preferences"]

    def browser(self) -> Browser:
        """Return a new user agent, which is online."""
        return Browser(self.control, self.control.call("POST", "/browsers"))

    def firefox_preferences(self) -> dict[str, Any]:
        """What a real Firefox must be told to use this service, with nobody to click."""
        return dict(self._preferences)

    def expire(self, subscription: dict[str, Any]) -> None:
        """Let the service end a subscription, also a real browser's: senders get 410 at once."""
        self.control.call("POST", "/expire", {"endpoint": subscription["endpoint"]})

    @property
    def requests(self) -> list[Request]:
        """What senders posted, refused or not, the oldest first."""
        entries = self.control.call("GET", "/requests")["requests"]
        return [Request.from_json(entry) for entry in entries]

    # ---- faults

    def fail(
        self,
        fault: int | str | None = None,
        *,
        times: int | None = None,
        subscription: dict[str, Any] | str | None = None,
        sender: str | None = None,
        delay: float | None = None,
        retry_after: int | None = None,
        reset: bool = False,
    ) -> None:
        """Let something go wrong from now on.

        :param fault: a status, or a name of the list of faults; with ``delay`` or ``reset`` none is
            needed
        :param times: how often; None: until :meth:`heal`
        :param subscription: the only one it is for
        :param sender: the only one it is for: its VAPID key (base64url), ``sub``, or address
        :param delay: seconds until a late answer
        :param retry_after: seconds for ``Retry-After``
        :raises autopush.testing.ControlError: there is no such fault, or no such subscription
        :raises ValueError: none was named
        """
        if fault is None:
            fault = "reset" if reset else "late" if delay is not None else None
        if fault is None:
            raise ValueError("which fault? A status, a name, delay or reset")
        if isinstance(subscription, dict):
            subscription = subscription["endpoint"]
        body = {
            "fault": str(fault),
            "times": times,
            "subscription": subscription,
            "sender": sender,
            "delay": delay,
            "retry_after": retry_after,
        }
        self.control.call("POST", "/faults", body)

    def heal(self) -> None:
        """Let nothing go wrong any more; what faults hold back goes on."""
        self.control.call("DELETE", "/faults")

    # ---- time

    def advance(self, seconds: float) -> None:
        """Let time pass for the service: messages expire, signatures end, pings become due."""
        self.control.call("POST", "/clock", {"advance": seconds})

    @property
    def time(self) -> float:
        """What time it is for the service, Unix seconds."""
        now: float = self.control.call("GET", "/clock")["time"]
        return now

    # ---- all of it

    def reset(self) -> None:
        """Be as after the start: no browser, request or fault, and the true time."""
        self.control.call("POST", "/reset")
