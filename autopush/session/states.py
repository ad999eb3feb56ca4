"""The states of a session (spec/websocket 8).

::

    UNIDENTIFIED ──hello──▶ IDENTIFYING ──entered──▶ LIVE

    LIVE ──known user, check──▶ DRAINING_TOPICS ──no more──▶ DRAINING_TIMESTAMPED ──no more──▶ LIVE
    DRAINING_TOPICS ──stored meanwhile──▶ DRAINING_TOPICS
    DRAINING_TIMESTAMPED ──stored meanwhile──▶ DRAINING_TOPICS

    LIVE ──drained, old month──▶ MOVING_MONTH ──moved──▶ DRAINING_TOPICS
    MOVING_MONTH ──store busy──▶ LIVE

    any ──the node closes──▶ CLOSING ──TCP ends──▶ CLOSED

*Any* is each one above. While a batch of stored messages is outstanding a draining state
is kept; what waits is the next fetch.
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


TRANSITIONS: dict[State, frozenset[State]] = {
    State.UNIDENTIFIED: frozenset({State.IDENTIFYING, State.CLOSING}),
    State.IDENTIFYING: frozenset({State.LIVE, State.CLOSING}),
    State.MOVING_MONTH: frozenset({State.DRAINING_TOPICS, State.LIVE, State.CLOSING}),
    State.DRAINING_TOPICS: frozenset(
        {State.DRAINING_TOPICS, State.DRAINING_TIMESTAMPED, State.CLOSING}
    ),
    State.DRAINING_TIMESTAMPED: frozenset({State.DRAINING_TOPICS, State.LIVE, State.CLOSING}),
    State.LIVE: frozenset({State.DRAINING_TOPICS, State.MOVING_MONTH, State.CLOSING}),
    State.CLOSING: frozenset({State.CLOSED}),
    State.CLOSED: frozenset(),
}
"""Every change of state that exists. :meth:`autopush.session.session.BaseSession.to` makes them;
production does not look them up, the tests refuse all others."""
