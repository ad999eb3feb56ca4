"""What the page of the test mode shows: subscriptions, messages, and what was refused and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopush.control.agents import Received, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from autopush.control.observed import Record
    from autopush.control.rig import Rig
    from autopush.types import JSONDict

SHOWN = 100
"""Requests, and messages of each browser, that are looked at: the latest. Who wants all asks the
control API."""

LOOKING = ("GET", "HEAD")
"""Methods of who looks for something: no sender's."""

MAX_TEXT = 500
"""Characters of a message that are shown: enough to know which it is. Tests see all of it."""


class Inbox:
    """What happened in the test mode, as the page shows it.

    :param rig: the service under test
    """

    def __init__(self, rig: Rig) -> None:
        self._rig = rig

    def show(self) -> JSONDict:
        """Everything, the latest first."""
        rig = self._rig
        journal = rig.endpoint.requests
        latest = journal.after(journal.last - SHOWN)[::-1]
        records = [record for record in latest if record.method not in LOOKING]
        arrived = self._arrived()
        owners = {}
        for agent, s in rig.subscriptions():
            owners[s.channel] = owners[s.endpoint] = agent.name
        return {
            "ahead": rig.shift.seconds,
            "faults": [fault.name for fault in rig.endpoint.faults],
            "messages": [
                {**_common(r, owners), **_content(r, arrived.get(id(r), ()))}
                for r in records
                if is_accepted(r)
            ],
            "refused": [
                {**_common(r, owners), "status": r.status, "reason": r.reason}
                for r in records
                if not is_accepted(r)
            ],
            "subscriptions": [
                {"browser": agent.name, "online": agent.online, "endpoint": s.endpoint}
                for agent, s in rig.subscriptions()
            ][::-1],
        }

    def _arrived(self) -> dict[int, list[Received]]:
        """What came to the browsers, by the identity of the record of its request."""
        found: dict[int, list[Received]] = {}
        for agent in self._rig.agents.values():
            for received in agent.messages.after(agent.messages.last - SHOWN):
                if received.request is not None:
                    found.setdefault(id(received.request), []).append(received)
        return found


def is_accepted(record: Record) -> bool:
    """Whether a sender was told that all is well."""
    return record.status is not None and record.status < 300


def _common(record: Record, owners: dict[str, str]) -> JSONDict:
    """Of any request.

    :param owners: names of browsers by channel id and by endpoint: what is refused early, as for a
        subscription that has ended, has no channel
    """
    return {
        "time": record.time,
        "browser": owners.get(record.channel or record.endpoint),
        "subscription": record.channel,
        "path": record.path,
        "fault": record.fault,
    }


def _content(record: Record, arrived: Iterable[Received]) -> JSONDict:
    """Of a message, as far as the keys for it are here.

    :param arrived: each time it came
    """
    came = list(arrived)
    texts = [text for text in (text_of(one.data) for one in came) if text is not None]
    return {
        "texts": [text[:MAX_TEXT] for text in texts],
        "bytes": len(record.body),
        "error": next((one.error for one in came if one.error), None),
        "count": len(came),
        "ttl": record.ttl,
        "topic": record.headers.get("topic"),
        "urgency": record.headers.get("urgency"),
        "sender": (record.vapid or {}).get("sub"),
    }
