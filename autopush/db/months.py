"""Which message table is whose: names and the calendar (spec/storage 8).

Months are those of UTC (quirk S18), and a process accepts its own month and both neighbours, so
neither clocks that differ by minutes nor nodes in other time zones lose anybody at the month's
end. What is accepted depends on the date alone: a node that has been up for three months and one
that has just been started agree (quirk S4).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta

from autopush import clock
from autopush.db.interface import Months

ACCEPTED_WITHOUT_ROTATION = 3
"""The latest tables whose users are taken where tables don't rotate (quirk S6)."""

DAY = 86_400


def today(now: float | None = None) -> date:
    """The date in UTC.

    :param now: seconds since the epoch; None: the clock
    """
    return datetime.fromtimestamp(clock.now() if now is None else now, UTC).date()


def step_months(day: date, delta: int) -> date:
    """The first day of the month that is ``delta`` months after the one of ``day``."""
    months = day.year * 12 + day.month - 1 + delta
    return date(months // 12, months % 12 + 1, 1)


def get_month(delta: int = 0) -> date:
    """A date ``delta`` months away, negative for the past; the day means nothing."""
    return step_months(today(), delta)


def make_rotating_tablename(prefix: str, delta: int = 0, date: date | None = None) -> str:
    """Name of a month's message table.

    :param delta: months from now; without meaning if there is a ``date``
    :param date: any day of the month
    """
    day = date or get_month(delta)
    return f"{prefix}_{day.year:04}_{day.month:02}"


def message_tables(prefix: str, names: Iterable[str]) -> list[str]:
    """The message tables among these, oldest first: ``<prefix>`` or ``<prefix>_YYYY_MM``.

    Exactly those (quirk S6): not ``messages_2026_11``, not ``message_int_test``.
    """
    pattern = re.compile(re.escape(prefix) + r"(_\d{4}_(0[1-9]|1[0-2]))?")
    return sorted(name for name in set(names) if pattern.fullmatch(name))


class RotatingMonths(Months):
    """One table a month.

    ``current`` follows the calendar only through :meth:`adopt`: a table nobody has made sure of
    is given to no user.

    :param prefix: ``message_tablename``
    :param now: seconds since the epoch
    """

    def __init__(self, prefix: str, now: Callable[[], float] | None = None) -> None:
        self.prefix = prefix
        self._now = now or clock.now
        self._current = self.this_month()
        self._accepted: tuple[int, tuple[str, ...]] = (-1, ())

    @property
    def current(self) -> str:
        return self._current

    def accepts(self, month: object) -> bool:
        """Whether it is last month's, this month's, next month's or the adopted table."""
        day, names = self._accepted  # one object: threads ask, too
        today = int(self._now() // DAY)
        if day != today:
            names = self.neighbours()
            self._accepted = (today, names)
        return month in names or month == self._current

    def settled(self, month: str) -> bool:
        """Whether it is the current one, and not about to change or just changed somewhere."""
        if month != self._current:
            return False
        now = self._now()
        return today(now - DAY).month == today(now + DAY).month

    def adopt(self, month: str) -> bool:
        """Use this table from now on; whether that is a change."""
        changed, self._current = month != self._current, month
        return changed

    # ---- the calendar

    def _name(self, delta: int) -> str:
        return make_rotating_tablename(self.prefix, date=step_months(today(self._now()), delta))

    def this_month(self) -> str:
        """The table of the calendar's month."""
        return self._name(0)

    def neighbours(self) -> tuple[str, str, str]:
        """Last month's, this month's and next month's table."""
        return self._name(-1), self._name(0), self._name(1)

    def needed(self) -> list[str]:
        """The tables that must exist from now on: this month's, on its last day the next."""
        tomorrow = make_rotating_tablename(self.prefix, date=today(self._now()) + timedelta(days=1))
        this = self.this_month()
        return [this] if tomorrow == this else [this, tomorrow]

    def needed_at_start(self) -> list[str]:
        """Those and last month's, whose users have not all moved yet."""
        return [self._name(-1), *self.needed()]


class LatestMonths(Months):
    """The latest table for ever (``no_table_rotation``).

    :param prefix: ``message_tablename``; name of the table if there is none
    :param names: tables that exist
    """

    def __init__(self, prefix: str, names: Iterable[str]) -> None:
        tables = message_tables(prefix, names) or [prefix]
        self._accepted = tables[-ACCEPTED_WITHOUT_ROTATION:]

    @property
    def current(self) -> str:
        return self._accepted[-1]

    def accepts(self, month: object) -> bool:
        """Whether it is one of the latest three (quirk S6)."""
        return month in self._accepted


class OneMonth(Months):
    """The table that never ends, under one name."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def current(self) -> str:
        return self._name

    def accepts(self, month: object) -> bool:
        """Any name: users moved here from rotated tables keep their subscriptions."""
        return isinstance(month, str) and month != ""
