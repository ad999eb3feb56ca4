"""What is done now and then for users of whom no event reminds: one slow round for all.

* A channel row expires 30 days after it was last written, and a message table is accepted until the
  end of the month after its own. A hello sees to both (quirk S2, storage.md 8.5); a connection that
  stays for weeks has none, so it gets its turn here once a day.
* A node of 1.58.3 that takes its time stores into the month which the user has left meanwhile, and
  leaves it at that (quirk S17). So some time after a move the old month is looked at once more.

No timers and no memory per connection (design.md 5): a list of UAIDs a day, and a short queue.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from twisted.internet.defer import Deferred

from autopush.session import drain, peers
from autopush.session.month import is_later
from autopush.session.records import number
from autopush.session.states import State

if TYPE_CHECKING:
    from autopush.session.node import Node
    from autopush.session.session import Session

STEP = 10.0
"""Seconds between two calls of :meth:`Upkeep.step`."""

DAY = 86_400

STEPS = int(DAY / STEP)
"""Steps of a round: each takes an equal share of the connections, so that their writes spread."""

LOOK_BACK = 60.0
"""Seconds after a move until the old month is looked at again: a sender of 1.58.3 waits seconds for
a node and half a minute for the throttled write that follows; ours store a second time instead."""

MAX_MOVES = 100_000
"""Users in the queue for that look, about 20 MB; beyond it the oldest is let go."""


class Move(NamedTuple):
    """A user's way from one message table to another."""

    at: float
    """Seconds of the node's clock."""
    uaid: str
    old: str
    new: str


class Upkeep:
    """The round of one connection node.

    :param node: whose connections
    """

    __slots__ = ("_moves", "_node", "_rest", "_share", "_steps_left")

    def __init__(self, node: Node) -> None:
        self._node = node
        self._rest: list[str] = []
        self._share = 0
        self._steps_left = 0
        self._moves: deque[Move] = deque(maxlen=MAX_MOVES)

    def step(self) -> None:
        """To be called every ``STEP`` seconds."""
        self._visit_some()
        before = self._node.clock.seconds() - LOOK_BACK
        while self._moves and self._moves[0].at <= before:
            self._look_back(self._moves.popleft())

    def moving(self, uaid: str, old: str, new: str) -> None:
        """Note that a user is about to move to another month."""
        self._moves.append(Move(self._node.clock.seconds(), uaid, old, new))

    def finish(self) -> None:
        """The node stops: take the looks that are due later now."""
        while self._moves:
            self._look_back(self._moves.popleft())

    # ---- connections that stay

    def _visit_some(self) -> None:
        if not self._steps_left:
            self._rest = list(self._node.clients)
            self._share = -(-len(self._rest) // STEPS)
            self._steps_left = STEPS
        self._steps_left -= 1
        clients = self._node.clients
        for _ in range(min(self._share, len(self._rest))):
            session = clients.get(self._rest.pop())
            if session is not None and self._node.now() - session.connected_at / 1000 >= DAY:
                self._visit(session)

    def _visit(self, session: Session) -> None:
        node = self._node
        node.background.persist(node.store.touch_channels, session.month, session.uaid)
        current = node.store.months.current
        if session.month != current and not is_later(session.month, current):
            node.background.watch(Deferred.fromCoroutine(_follow(session)))

    # ---- messages stored too late

    def _look_back(self, move: Move) -> None:
        self._node.background.watch(Deferred.fromCoroutine(self._carry(move)))

    async def _carry(self, move: Move) -> None:
        node = self._node
        persist, store = node.background.persist, node.store
        record = await persist(store.get_user, move.uaid)
        if not isinstance(record, dict) or record.get("current_month") != move.new:
            return  # it came to nothing
        if await persist(store.carry_late, move.uaid, move.old, move.new) is not True:
            return
        if move.uaid in node.clients:
            node.check(move.uaid)
        elif record.get("node_id") not in (None, node.router_url):
            await peers.notify(node, record["node_id"], move.uaid)


async def _follow(session: Session) -> None:
    """Begin the move to the current month, unless the user has left this connection."""
    assert session.uaid is not None
    record = await session.node.store.get_user(session.uaid)
    if not State.DRAINING_TOPICS <= session.state <= State.LIVE:
        return
    if record is None or number(record.get("connected_at")) != session.connected_at:
        # Nothing is sent here any more: another node has the user, or nobody knows it.
        session.close()
        return
    session.rotate = True
    drain.check(session)
