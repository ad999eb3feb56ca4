"""What is done now and then for users of whom no event reminds: one slow round for all.

* A channel row expires 30 days after it was last written, and a message table is accepted until the
  end of the month after its own. A hello sees to both (quirk S2, spec/storage 8.5); a connection
  that stays for weeks has none, so it gets its turn here once a day.
* A node of 1.58.3 that takes its time stores into the month which the user has left meanwhile, and
  leaves it at that (quirk S17). So some time after a move the old month is looked at once more.
* Such a node also moves a user that has gone on to another connection, which stays in the old
  month. So some time after a connection began there, that month is looked at, too.

No timers and no memory per connection (decisions/timers): a list of UAIDs a day, and a short queue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from autopush.session import drain, peers
from autopush.session.month import is_later
from autopush.session.moves import Move
from autopush.session.records import number
from autopush.session.states import State

if TYPE_CHECKING:
    from autopush.session.session import BaseNode, BaseSession

STEP = 10.0
"""Seconds between two calls of :meth:`Upkeep.step`."""

DAY = 86_400

STEPS = int(DAY / STEP)
"""Steps of a round: each takes an equal share of the connections, so that their writes spread."""


class Upkeep:
    """The round of one connection node.

    :param node: whose connections
    """

    __slots__ = ("_node", "_rest", "_share", "_steps_left")

    def __init__(self, node: BaseNode) -> None:
        self._node = node
        self._rest: list[str] = []
        self._share = 0
        self._steps_left = 0

    def step(self) -> None:
        """To be called every ``STEP`` seconds."""
        self._visit_some()
        for move in self._node.moves.due():
            self._look_back(move)

    def whole_round(self) -> None:
        """See to all connections at once, where a day has passed at once."""
        for session in list(self._node.clients.values()):
            self._visit(session)

    def finish(self) -> None:
        """The node stops: take the looks that are due later now."""
        for move in self._node.moves.take_all():
            self._look_back(move)

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
            if session is None or not session.recorded:
                continue  # nothing is stored for it
            if self._node.now() - session.connected_at / 1000 >= DAY:
                self._visit(session)

    def _visit(self, session: BaseSession) -> None:
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
        session = node.clients.get(move.uaid)
        if session is not None and session.month == move.old:
            # The messages of that month are still its business.
            if move.new is None:
                node.moves.note(move.uaid, move.old, None)
            return
        record = await persist(store.get_user, move.uaid)
        month = record.get("current_month") if isinstance(record, dict) else None
        if month is None or month != (move.new or month) or month == move.old:
            return  # it came to nothing
        if await persist(store.carry_late, move.uaid, move.old, month, move.known) is not True:
            return
        if move.uaid in node.clients:
            node.check(move.uaid)
        elif record.get("node_id") not in (None, node.router_url):
            await peers.notify(node, record["node_id"], move.uaid)


def resume(node: BaseNode, uaid: str, old: str, new: str) -> None:
    """A user is here whom a node was moving, perhaps the one that died in the midst of it."""
    node.background.watch(Deferred.fromCoroutine(_resume(node, uaid, old, new)))


async def _resume(node: BaseNode, uaid: str, old: str, new: str) -> None:
    await node.background.persist(node.store.finish_move, uaid, old, new)
    # Whoever has carried it: what this connection has read before may not have been all.
    node.check(uaid)


async def _follow(session: BaseSession) -> None:
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
