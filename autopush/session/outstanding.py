"""What was sent and is not acknowledged, or is not known to storage as acknowledged yet.

The data only: :mod:`~autopush.session.direct` and :mod:`~autopush.session.settle` work with it.
This becomes of the row of a direct notification that is stored as well. A store need not keep the
order of its operations, so a deletion that was asked for early may find nothing, and is repeated::

    WRITING ──written──▶ STORED ──acknowledged──▶ DELETING ──deleted──▶ DONE
    WRITING ──store fails──▶ NONE
    WRITING ──acknowledged, taken back──▶ DONE
    WRITING ──acknowledged──▶ CROSSING ──row found──▶ DONE
    CROSSING ──nothing found──▶ AWAITED ──written──▶ DELETING
    CROSSING ──written──▶ UNSURE ──row found──▶ DONE
    UNSURE ──nothing found──▶ DELETING
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

import attrs

if TYPE_CHECKING:
    from autopush.message.notification import WebPushNotification

Key = tuple[str, str | None]
"""Channel id and version: what an acknowledgement names."""


class Row(enum.IntEnum):
    """What storage knows of a direct notification. Falsy: nothing."""

    NONE = 0
    WRITING = 1
    STORED = 2
    CROSSING = 3
    """Deleted while it was being written; which of the two comes first is not known."""
    UNSURE = 4
    """Written meanwhile, and the deletion, which may have come before that, is still under way."""
    AWAITED = 5
    """The deletion has found nothing: it is repeated once the row is written."""
    DELETING = 6
    DONE = 7
    """Deleted, but a fetch that started before may still bring it."""


NONE, WRITING, STORED, CROSSING, UNSURE, AWAITED, DELETING, DONE = Row

ROW_TRANSITIONS: dict[Row, frozenset[Row]] = {
    NONE: frozenset(),
    WRITING: frozenset({NONE, STORED, CROSSING, DONE}),
    STORED: frozenset({DELETING}),
    CROSSING: frozenset({UNSURE, AWAITED, DONE}),
    UNSURE: frozenset({DELETING, DONE}),
    AWAITED: frozenset({DELETING}),
    DELETING: frozenset({DONE}),
    DONE: frozenset(),
}
"""Every change of :attr:`Direct.row` that exists; the tests refuse all others."""


@attrs.define(eq=False)
class Direct:
    """A notification sent directly and the state of its row.

    It is in ``session.direct`` until it is acknowledged, and from ``CROSSING`` or ``DELETING`` to
    ``DONE`` in ``session.leaving``.
    """

    notification: WebPushNotification
    row: Row

    @property
    def kept(self) -> bool:
        """Whether a fetch that starts now may still bring its row."""
        return self.row is not DONE

    @property
    def paged(self) -> bool:
        """Whether the read pointer can leave the row behind: topic rows it can't."""
        notification = self.notification
        return not (notification.topic or notification.legacy)


class Done(NamedTuple):
    """A timestamped row that nobody has to get any more."""

    stamp: int
    """Its sort-key timestamp (µs)."""
    notification: WebPushNotification | None
    """What to delete if the pointer can't cover it; None: it may as well come to light again."""
    key: Key | None
    """Under which it is in ``session.stored``; None: it was not sent."""
