"""What was sent and is not acknowledged, or is not known to storage as acknowledged yet.

The data only: :mod:`~autopush.session.direct` and :mod:`~autopush.session.settle` work with it.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from autopush.message.notification import WebPushNotification

Key = tuple[str, str | None]
"""Channel id and version: what an acknowledgement names."""


class Row(enum.IntEnum):
    """What storage knows of a direct notification. Falsy: nothing."""

    NONE = 0
    WRITING = 1
    STORED = 2
    DELETING = 3
    GONE = 4
    """Deleted, but a fetch that started before may still bring it."""


NONE, WRITING, STORED, DELETING, GONE = Row


class Direct:
    """A notification sent directly and the state of its row."""

    __slots__ = ("early", "notification", "row", "writing")

    def __init__(self, notification: WebPushNotification, row: Row) -> None:
        self.notification = notification
        self.row = row
        self.writing = row is WRITING
        self.early = False
        """Whether its deletion was asked for before it was written."""

    @property
    def kept(self) -> bool:
        """Whether a fetch that starts now may still bring its row."""
        return self.row is not GONE or (self.early and self.writing)

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
