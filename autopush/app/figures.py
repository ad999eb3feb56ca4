"""The figures that are looked up when somebody fetches them: how much there is at this moment.

All but one are in memory. Whether the store works is looked at once a minute, as that costs a write
or two requests.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, TimeoutError

from autopush import __version__, clock as wall_clock
from autopush.exceptions import StoreError
from autopush.web.health import HEALTH_WITHIN

if TYPE_CHECKING:
    from autopush.db.interface import Store
    from autopush.metrics import IMetrics
    from autopush.session.session import BaseNode
    from autopush.ssl import AutopushSSLContextFactory

LOOK_INTERVAL = 60
"""Seconds between two looks whether the store works."""

DAY = 86_400

BUILD = [f"version:{__version__}", f"python:{platform.python_version()}"]


class Figures:
    """The figures of one process.

    :param store: looked at by :meth:`look`
    :param tls: the listeners' certificates; more may come later
    :param node: the connection node in this process, if any
    :param clock: IReactorTime
    :param now: seconds since the epoch
    :ivar up: whether the store worked when it was looked at; None: it was not
    """

    def __init__(
        self,
        store: Store,
        tls: Sequence[AutopushSSLContextFactory],
        node: BaseNode | None,
        clock: Any,
        now: Callable[[], float] | None = None,
    ) -> None:
        self._store = store
        self._tls = tls
        self._node = node
        self._clock = clock
        self._now = now or wall_clock.now
        self.up: bool | None = None

    async def look(self) -> None:
        """See whether the store works. To be called every ``LOOK_INTERVAL`` seconds."""
        up = False
        try:
            parts = await self._store.health().addTimeout(HEALTH_WITHIN, self._clock)
            up = all(error is None for error in parts.values())
        except (StoreError, TimeoutError, CancelledError):
            pass  # who needs the store logs what is wrong with it
        finally:
            self.up = up

    def writes_waiting(self) -> int | None:
        """Writes the store has not done yet; None: it has no queue."""
        return self._store.writes_waiting()

    def certificate_days_left(self) -> float | None:
        """Days until the first certificate ends; None: there is no TLS."""
        if not self._tls:
            return None
        end = min(one.certificate.not_valid_after_utc for one in self._tls)
        return (end.timestamp() - self._now()) / DAY

    def report(self, metrics: IMetrics) -> None:
        """Set the gauges."""
        metrics.gauge("build_info", 1, tags=BUILD)
        if self.up is not None:
            metrics.gauge("store.up", int(self.up))
        waiting = self.writes_waiting()
        if waiting is not None:
            metrics.gauge("store.writes_waiting", waiting)
        days_left = self.certificate_days_left()
        if days_left is not None:
            metrics.gauge("certificate.days_left", days_left)
        node = self._node
        if node is not None:
            metrics.gauge("connections", len(node.clients))
            metrics.gauge("unacknowledged", unacknowledged(node))


def unacknowledged(node: BaseNode) -> int:
    """Messages that were handed to user agents and not acknowledged yet."""
    return sum(len(one.direct) for one in node.clients.values() if one.direct)
