"""How many users, channels and stored messages there are, and which users are forgotten: one slow
round over all of them.

A user agent gets a record with its first channel, and in older releases with its first hello. Many
unsubscribe again and don't come back: nobody can send to them, but their records would stay for
ever. So those that have no channel and were not seen for long are deleted. Should one come back
after all, it gets another UAID, and has nothing to lose by that.

A round goes through the records in slices, each a transaction of some milliseconds, with a pause in
between for other writers. Then, where there are metrics, through channels and messages in the same
way; where there are none, those are counted when somebody looks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from autopush.db.interface import Forgotten, Stock
from autopush.exceptions import StoreError

if TYPE_CHECKING:
    from autopush.session.session import BaseNode

ROUND_INTERVAL = 600
"""Seconds from the beginning of a round to that of the next: as old is what is told of users."""

STOCK_INTERVAL = 30
"""Seconds after which channels and messages are counted again for somebody who looks."""

SLICE_PAUSE = 0.1
"""Seconds between two slices of a round, for other writers."""

DAY = 86_400


class Census:
    """The rounds of one node.

    :param node: whose store, and whose connections
    :param forget_after: days after which a user agent without a channel is forgotten; 0: never
    """

    log = Logger()

    def __init__(self, node: BaseNode, forget_after: int) -> None:
        self._node = node
        self._forget_after = forget_after
        self._counting = False
        self._looked: float | None = None

    def begin(self) -> None:
        """Begin a round, unless the last one is still under way. To be called now and then."""
        if not self._counting:
            self._node.background.watch(Deferred.fromCoroutine(self._round()))

    async def _round(self) -> None:
        """Look at everything once, and note on the node how much there is.

        It ends early where the store fails or can't count, or the node stops.
        """
        self._counting = True
        node = self._node
        try:
            users = await self._count_users()
            if users is not None:
                node.users = users
                self.report()
                if node.metered:
                    node.stock = await self._take_stock()
        except StoreError as error:
            self.log.warn("Users not counted: {error}", error=str(error))
        finally:
            self._counting = False

    def freshen(self) -> None:
        """Count channels and messages for somebody who looks, unless that was done a moment ago or
        a round is under way."""
        background = self._node.background
        now = background.clock.seconds()
        recent = self._looked is not None and now - self._looked < STOCK_INTERVAL
        if not recent and not self._counting:
            self._looked = now
            background.watch(Deferred.fromCoroutine(self._restock()))

    async def _restock(self) -> None:
        self._counting = True
        try:
            self._node.stock = await self._take_stock()
        except StoreError as error:
            self.log.warn("Channels and messages not counted: {error}", error=str(error))
        finally:
            self._counting = False

    async def _count_users(self) -> int | None:
        """Count those who stay; None: the store can't, or the node stops."""
        forgotten = self._forgotten()
        users = gone = 0
        last: str | None = ""
        try:
            while last is not None:
                if last and await self._pause():
                    return None
                survey = await self._node.store.survey(last, forgotten)
                if survey is None:
                    return None
                users += survey.users
                gone += survey.forgotten
                last = survey.last
        finally:
            if gone:
                self.log.info("Forgot {count} user agents without a channel", count=gone)
                self._node.metrics.increment("updates.forgotten_users", gone)
        return users

    async def _take_stock(self) -> Stock | None:
        """Count channels and messages; None: the store can't, or the node stops."""
        channels = messages = size = 0
        last: str | None = ""
        while last is not None:
            if await self._pause():
                return None
            part = await self._node.store.take_stock(last)
            if part is None:
                return None
            channels += part.channels
            messages += part.messages
            size += part.size
            last = part.last
        return Stock(channels, messages, size, None)

    async def _pause(self) -> bool:
        """Wait for the next slice; whether there shall be none, as the node stops."""
        await self._node.background.pause(SLICE_PAUSE)
        return self._node.stopping

    def report(self) -> None:
        """Tell the metrics what is known."""
        node = self._node
        if node.users is not None and node.metered:
            node.metrics.gauge("users", node.users)
        if node.stock is not None:
            node.metrics.gauge("channels", node.stock.channels)
            node.metrics.gauge("stored.messages", node.stock.messages)
            node.metrics.gauge("stored.bytes", node.stock.size)

    def _forgotten(self) -> Forgotten | None:
        if not self._forget_after:
            return None
        node = self._node
        before = int((node.now() - self._forget_after * DAY) * 1000)
        # Who has been connected for as long has an old record. Nobody's record becomes old while
        # the round is under way.
        connected = (uaid for uaid, one in node.clients.items() if one.connected_at < before)
        return Forgotten(before, node.router_url, frozenset(connected))
