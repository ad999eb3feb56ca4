"""What a push service may do wrong, and whom it happens to.

A fault is for messages that are right: one that would be refused anyway gets its own answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

import attrs

if TYPE_CHECKING:
    from autopush.types import JSONDict


class Kind(NamedTuple):
    """A row of the list of faults.

    :ivar text: what happens, for the manual and the API's description
    :ivar status: what the sender is answered; None: it is answered 201, or nothing
    :ivar errno: number in the answer's body
    """

    text: str
    status: int | None = None
    errno: int | None = None


KINDS: Mapping[str, Kind] = {
    "late": Kind("201 after ``delay`` seconds of the service's clock"),
    "not-found": Kind("404: there is no such endpoint", 404, 102),
    "gone": Kind("410: the subscription has ended", 410, 106),
    "too-large": Kind("413: the message is too long", 413, 104),
    "too-many": Kind("429 with ``Retry-After``: too many messages", 429, 204),
    "error": Kind("500: an error inside the service", 500, 999),
    "bad-gateway": Kind("502 with a page of HTML, as a proxy in front answers", 502),
    "unavailable": Kind("503 with ``Retry-After``: overloaded", 503, 201),
    "time-out": Kind("no answer; the connection stays open until the sender gives up"),
    "reset": Kind("no answer; the connection is reset"),
    "duplicate": Kind("201, and the message comes twice"),
    "disorder": Kind("201, and the message comes after the next one of its subscription"),
    "lost": Kind("201, and the message never comes"),
    "expired": Kind("201 with ``TTL: 0``: its time is over before anybody gets it"),
}
"""All faults by their names."""

BY_STATUS = {kind.status: name for name, kind in KINDS.items() if kind.status is not None}

RETRY_AFTER = 30
"""Seconds in ``Retry-After``, if the fault names none."""

DELAY = 5.0
"""Seconds a late answer takes, if the fault names none."""


@attrs.define
class Fault:
    """One that was ordered.

    :ivar number: identifies it
    :ivar name: of :data:`KINDS`
    :ivar subscription: endpoint URL or channel id of the only one it is for
    :ivar sender: the only one it is for: its VAPID key (base64url), ``sub``, or address
    :ivar times: how often it still happens; None: until it is taken back
    :ivar delay: seconds
    :ivar retry_after: seconds
    """

    number: int
    name: str
    subscription: str | None = None
    sender: str | None = None
    times: int | None = None
    delay: float = DELAY
    retry_after: int = RETRY_AFTER

    @property
    def kind(self) -> Kind:
        """What it does."""
        return KINDS[self.name]

    def meets(self, record: Any) -> bool:
        """Whether a request is one it is for.

        :param record: :class:`~autopush.control.observed.Record`
        """
        if self.subscription and self.subscription not in (record.endpoint, record.channel):
            return False
        return not self.sender or self.sender in record.senders

    def to_json(self) -> JSONDict:
        """As the API shows it."""
        shown = attrs.asdict(self)
        shown["id"] = shown.pop("number")
        shown["fault"] = shown.pop("name")
        return shown


def name_of(fault: int | str) -> str:
    """The name of a fault that was given as name or status.

    :raises ValueError: there is none of that; the text lists those that are
    """
    name = BY_STATUS.get(int(fault)) if str(fault).isdecimal() else str(fault)
    if name is None or name not in KINDS:
        known = ", ".join([*KINDS, *map(str, BY_STATUS)])
        raise ValueError(f"there is no fault {fault}; there are {known}")
    return name


class Faults:
    """The faults in force."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._numbers = count(1)

    def __iter__(self) -> Iterator[Fault]:
        return iter(self._faults)

    def add(self, fault: int | str, **how: Any) -> Fault:
        """Order a fault; of several that are for a request the one ordered first is taken.

        :param fault: name or status
        :param how: the other attributes of :class:`Fault`; those that are None are as usual
        :raises ValueError: there is no such fault
        """
        given = {name: value for name, value in how.items() if value is not None}
        added = Fault(next(self._numbers), name_of(fault), **given)
        self._faults.append(added)
        return added

    def take(self, record: Any) -> Fault | None:
        """The fault for this request, if any; it has happened once more then."""
        for fault in self._faults:
            if fault.meets(record):
                if fault.times is not None:
                    fault.times -= 1
                    if not fault.times:
                        self._faults.remove(fault)
                return fault
        return None

    def remove(self, number: int) -> bool:
        """Take one back; whether it was in force."""
        left = [fault for fault in self._faults if fault.number != number]
        found = len(left) < len(self._faults)
        self._faults = left
        return found

    def clear(self) -> None:
        """Take all back."""
        self._faults.clear()
