"""What the operator sees of a running service on its page: how it is at this moment, and what came
in of late.

It is made when somebody looks. What costs a request to the store is asked for then, at most now and
then, and shown the next time.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from autopush import __version__
from autopush.app.figures import Figures, unacknowledged
from autopush.types import JSONDict

if TYPE_CHECKING:
    from autopush.httpserver.application import RoutedServer
    from autopush.session.census import Census
    from autopush.session.session import BaseNode

SAMPLE_INTERVAL = 5
"""Seconds between two looks at how many messages there were."""

SAMPLES = 13
"""Those of a minute, its beginning and its end."""

LOOK_INTERVAL = 10
"""Seconds after which the store is looked at again for somebody who looks."""

REASONS: dict[int, str] = {
    0: "other",
    1: "the vendor refused it",
    4: "the vendor was sent too much",
    101: "a header of the encryption is missing",
    102: "the address is none of this service",
    103: "the user agent is not known any more",
    104: "the message is too long",
    105: "the subscription has ended",
    106: "the subscription is not known",
    108: "the request could not be read",
    109: "not signed, or not rightly (VAPID)",
    110: "a header of the encryption is wrong",
    111: "a header is missing, such as the TTL",
    112: "the TTL is no number",
    113: "the topic is not one",
    114: "the TTL is negative",
    115: "the user agent has too many subscriptions",
    116: "the urgency is not one",
    201: "the store was too busy",
    202: "the store failed",
    203: "too much is waiting for the receiver",
    204: "the sender or the subscription was too fast",
    900: "the bridge is not set up for it",
    901: "the vendor refused the credentials of this service",
    902: "the vendor could not be reached",
    903: "the vendor did not answer in time",
    999: "other",
}
"""Why requests are refused, by errno, for people."""

REASON_OF_ORIGIN = "a web page of another origin wanted a WebSocket"
"""The same of 403 without an errno."""


def reason_of(status: int, errno: int) -> str:
    """Why requests are refused that are answered this way, for people."""
    if (status, errno) == (403, 0):
        return REASON_OF_ORIGIN
    return REASONS.get(errno, REASONS[0])


class Overview:
    """The overview of one process.

    :param figures: whose store is looked at
    :param node: its connections
    :ivar census: counts users, channels and stored messages for who looks; None: another process
        does
    :param application: counts what was accepted and refused
    :param clock: IReactorTime
    """

    def __init__(
        self,
        figures: Figures,
        node: BaseNode,
        census: Census | None,
        application: RoutedServer,
        clock: Any,
    ) -> None:
        self._figures = figures
        self._node = node
        self.census = census
        self._application = application
        self._clock = clock
        self._started: float = clock.seconds()
        self._looked: float | None = None
        self._samples: deque[int] = deque([0], SAMPLES)

    def sample(self) -> None:
        """Note how many messages there were. To be called every ``SAMPLE_INTERVAL`` seconds."""
        self._samples.append(self._application.accepted)

    def show(self) -> JSONDict:
        """Return all there is, for JSON."""
        self._look()
        if self.census is not None:
            self.census.freshen()
        node, figures, accepted = self._node, self._figures, self._application.accepted
        stock = node.stock
        return {
            "version": __version__,
            "uptime": int(self._clock.seconds() - self._started),
            "connections": len(node.clients),
            "unacknowledged": unacknowledged(node),
            "users": node.users,
            "channels": None if stock is None else stock.channels,
            "messages": {"minute": accepted - self._samples[0], "total": accepted},
            "stored": None if stock is None else {"messages": stock.messages, "bytes": stock.size},
            "store": {"up": figures.up, "waiting": figures.writes_waiting()},
            "certificate_days": figures.certificate_days_left(),
            "refused": _rows(self._application.refused),
        }

    def _look(self) -> None:
        now = self._clock.seconds()
        if self._looked is None or now - self._looked >= LOOK_INTERVAL:
            self._looked = now
            self._node.background.watch(Deferred.fromCoroutine(self._figures.look()))


class Whole:
    """The overview of a service of several processes: the sum of theirs.

    Each counts for itself. What one that has ended had counted when somebody last looked stays.

    :param count: how many processes there are to be
    :param clock: IReactorTime
    """

    def __init__(self, count: int, clock: Any) -> None:
        self._count = count
        self._clock = clock
        self._started: float = clock.seconds()
        self._accepted: dict[int, int] = {}
        self._refused: dict[int, Counter[tuple[int, int]]] = {}

    def ended(self, number: int) -> None:
        """A process has ended: another one will begin to count in its place."""
        ended = 0  # no process has this number
        self._accepted[ended] = self._accepted.get(ended, 0) + self._accepted.pop(number, 0)
        self._refused.setdefault(ended, Counter()).update(self._refused.pop(number, Counter()))

    def show(self, parts: Mapping[int, JSONDict | None]) -> JSONDict:
        """Return all there is, for JSON.

        :param parts: by the number of the process (from 1; the first counts what is stored for all)
            what its overview shows; None: it doesn't answer
        """
        here = {number: part for number, part in parts.items() if part is not None}
        for number, part in here.items():
            self._accepted[number] = part["messages"]["total"]
            self._refused[number] = Counter(
                {(row["status"], row["errno"]): row["count"] for row in part["refused"]}
            )
        shown, stored = list(here.values()), here.get(1, {})
        days = _known(part["certificate_days"] for part in shown)
        return {
            "version": __version__,
            "uptime": int(self._clock.seconds() - self._started),
            "workers": {"serving": len(shown), "count": self._count},
            "connections": sum(part["connections"] for part in shown),
            "unacknowledged": sum(part["unacknowledged"] for part in shown),
            **{name: stored.get(name) for name in ("users", "channels", "stored")},
            "messages": {
                "minute": sum(part["messages"]["minute"] for part in shown),
                "total": sum(self._accepted.values()),
            },
            "store": _store([part["store"] for part in shown]),
            "certificate_days": min(days, default=None),
            "refused": _rows(sum(self._refused.values(), Counter())),
        }


def _store(parts: Iterable[JSONDict]) -> JSONDict:
    """What several processes say of the store: it is well if it is for each."""
    parts = list(parts)
    up = _known(part["up"] for part in parts)
    waiting = _known(part["waiting"] for part in parts)
    return {"up": all(up) if up else None, "waiting": sum(waiting) if waiting else None}


def _known(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if value is not None]


def _rows(refused: Counter[tuple[int, int]]) -> list[JSONDict]:
    """What was refused since the start, most often first."""
    return [
        {
            "status": status,
            "errno": errno,
            "count": count,
            "reason": reason_of(status, errno),
        }
        for (status, errno), count in refused.most_common()
    ]
