"""The states of a session (spec/websocket 8).

::

    UNIDENTIFIED ──hello──▶ IDENTIFYING ──new user──────────────────────────▶ LIVE ◀─────────┐
                                 │                                           ▲  │ check      │
                                 └─known user─▶ DRAINING_TOPICS ◀────────────┼──┘            │
                                                     │ no more               │ no more       │
                                                     ▼                       │               │
                                                DRAINING_TIMESTAMPED ────────┤               │
                                                     │ no more, old month    │               │
                                                     ▼                       │               │
                                                MOVING_MONTH ──▶ DRAINING_TOPICS (new month) ┘

    any ──the node closes──▶ CLOSING ──TCP ends──▶ CLOSED

While a batch of stored messages is outstanding a draining state is kept; what waits is the
next fetch.
"""

from __future__ import annotations

import enum


class State(enum.IntEnum):
    """Ordered: commands are taken from ``DRAINING_TOPICS`` to ``LIVE``, kept for later in
    ``IDENTIFYING`` and ``MOVING_MONTH``, and ignored from ``CLOSING`` on."""

    UNIDENTIFIED = 0
    IDENTIFYING = 1
    MOVING_MONTH = 2
    DRAINING_TOPICS = 3
    DRAINING_TIMESTAMPED = 4
    LIVE = 5
    CLOSING = 6
    CLOSED = 7
