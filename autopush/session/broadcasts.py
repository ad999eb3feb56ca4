"""Broadcasts: named values of public interest, of which only the last counts (spec/broadcasts 1).

::

    source --poll--> Broadcasts.learn --+--> broadcast, to each connection that subscribed
                                        |        in slices, over a while
    hello, broadcast_subscribe --> answer

A connection keeps which names it subscribed to, as a set it shares with all that subscribed to the
same, and the number of the last change it knows of. Nothing is stored and nothing acknowledged.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from weakref import WeakValueDictionary

from autopush.session.errors import NotUnderstood
from autopush.session.states import State
from autopush.session.timers import Call, Clock
from autopush.session.wire import Wire
from autopush.types import JSONDict

if TYPE_CHECKING:
    from autopush.metrics import IMetrics

NOT_FOUND = "Broadcast not found"
TOO_MANY = "Too many broadcasts"

ERRORS = "errors"
"""What is wrong stands under this name among the versions, so no broadcast can be called so."""

MAX_SUBSCRIPTIONS = 100
"""Broadcasts one connection may subscribe to. Firefox has three; each is looked at with every
change of any of them."""

MAX_NAME = 200
"""Characters in the name of a broadcast; in use are about 40."""

MAX_KNOWN = 10_000
"""Broadcasts remembered, as a name that is gone from the source keeps its version."""

AT_ONCE = 100
"""Connections that are told of a change at once: 2 ms of work."""

MIN_RATE = 100
"""Connections a second that are told of a change, at least."""

SPREAD = 60.0
"""Seconds over which a change is told to all others. They all fetch the same thing then, from the
same server, which is why they should not do so at the same moment."""

TICK = 0.05
"""Seconds between two slices of that; of 20,000 connections 17 are told in one, in 0.4 ms."""


class Version(NamedTuple):
    """What is known of a broadcast."""

    name: str
    text: str
    change: int
    """Number of the change it came with."""


class Speaker(Protocol):
    """A node, as its connections see it here."""

    @property
    def broadcasts(self) -> Broadcasts:
        """What it knows."""


class Listener(Protocol):
    """A session, as it is seen here."""

    broadcasts: frozenset[str] | None
    broadcast_seen: int
    state: State
    wire: Wire

    @property
    def node(self) -> Speaker:
        """Where it is connected."""


class Broadcasts:
    """What a node knows of broadcasts, and whom it has still to tell.

    :param clients: the node's sessions
    :param clock: delays come from here
    :param metrics: where to count
    """

    def __init__(self, clients: Mapping[str, Listener], clock: Clock, metrics: IMetrics) -> None:
        self.known: dict[str, Version] = {}
        self.changes = 0
        """How often something has changed."""
        self._clients = clients
        self._clock = clock
        self._metrics = metrics
        self._sets: WeakValueDictionary[tuple[str, ...], frozenset[str]] = WeakValueDictionary()
        self._queue: deque[Listener] = deque()
        self._portion = 0
        self._call: Call | None = None

    # ---- from the source

    def learn(self, versions: Mapping[str, str]) -> list[str]:
        """Take over what the source says, and begin to tell those who subscribed.

        :returns: the names that are new or have another version
        """
        change = self.changes + 1
        news = []
        for name, text in versions.items():
            known = self.known.get(name)
            if known is None and len(self.known) >= MAX_KNOWN:
                continue
            if known is None or known.text != text:
                self.known[name] = Version(name if known is None else known.name, text, change)
                news.append(name)
        if news:
            self.changes = change
            self._begin(frozenset(news))
        return news

    def stop(self) -> None:
        """Tell nobody any more."""
        self._queue.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    # ---- to user agents

    def answer(self, session: Listener, wanted: Any) -> JSONDict:
        """Subscribe a connection, and say what it doesn't know yet.

        :param wanted: id to version; anything but an object counts as an empty one
        """
        if not wanted or not isinstance(wanted, dict):
            return {}
        earlier = session.broadcasts or frozenset()
        mine = set(earlier)
        found: JSONDict = {
            name: self.known[name].text
            for name in earlier
            if name not in wanted and self.known[name].change > session.broadcast_seen
        }
        errors = {}
        for name, text in wanted.items():
            known = self.known.get(name)
            if known is None:
                errors[name] = NOT_FOUND
            elif name not in mine and len(mine) >= MAX_SUBSCRIPTIONS:
                errors[name] = TOO_MANY
            else:
                mine.add(known.name)
                if known.text != text:
                    found[known.name] = known.text
        if mine:
            session.broadcasts = self._shared(mine)
            session.broadcast_seen = self.changes
        if errors:
            found[ERRORS] = errors
        return found

    def tell(self, session: Listener) -> bool:
        """Tell a connection of all changes since it last heard of any; whether there were some.

        One whose output is paused is told when it resumes.
        """
        names = session.broadcasts
        if names is None or session.state >= State.CLOSING or session.wire.output_paused:
            return False
        seen, known = session.broadcast_seen, self.known
        news = {name: known[name].text for name in names if known[name].change > seen}
        session.broadcast_seen = self.changes
        if news:
            session.wire.send({"messageType": "broadcast", "broadcasts": news})
        return bool(news)

    def resumed(self, session: Listener) -> None:
        """The output of a connection is no longer paused."""
        if session.broadcast_seen != self.changes and self.tell(session):
            self._count(1)

    def _shared(self, names: set[str]) -> frozenset[str]:
        """The one set of these names."""
        key = tuple(sorted(names))
        found = self._sets.get(key)
        if found is None:
            found = self._sets[key] = frozenset(names)
        return found

    # ---- one after the other

    def _begin(self, news: frozenset[str]) -> None:
        """Those who have not heard of the last change come first, so that everybody's turn does."""
        queue = dict.fromkeys(self._queue)
        for session in self._clients.values():
            names = session.broadcasts
            if names is not None and not names.isdisjoint(news):
                queue[session] = None
        count = len(queue)
        portion = count
        if count > AT_ONCE:
            portion = math.ceil(count * TICK / min(SPREAD, count / MIN_RATE))
        self._portion = max(portion, self._portion if self._queue else 0)
        self._queue = deque(queue)
        if queue and self._call is None:
            self._step()

    def _step(self) -> None:
        self._call = None
        queue = self._queue
        slice_ = [queue.popleft() for _ in range(min(self._portion, len(queue)))]
        told = sum(map(self.tell, slice_))
        if told:
            self._count(told)
        if queue:
            self._call = self._clock.callLater(TICK, self._step)

    def _count(self, told: int) -> None:
        if getattr(self._metrics, "active", True):
            self._metrics.increment("megaphone.broadcast.sent", told)


def subscribe(session: Listener, message: JSONDict) -> None:
    """``broadcast_subscribe``: answered only where there is something to say.

    :raises NotUnderstood: a version is no text
    """
    wanted = message.get("broadcasts")
    if isinstance(wanted, dict) and not all(isinstance(text, str) for text in wanted.values()):
        raise NotUnderstood("a version of a broadcast is no text")
    found = session.node.broadcasts.answer(session, wanted)
    if found:
        session.wire.send({"messageType": "broadcast", "broadcasts": found})
