"""The ``last_connect`` attribute of a record (spec/storage 7)."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import Any

from autopush import clock


def generate_last_connect(now: float | None = None) -> int:
    """Digits ``YYYYMMHHRRRR`` in UTC: year, month, hour (no day), random number 0 to 10.

    :param now: seconds since the epoch; None: the clock
    """
    today = time.gmtime(clock.now() if now is None else now)
    return int(f"{today.tm_year:04}{today.tm_mon:02}{today.tm_hour:02}{random.randint(0, 10):04}")


def has_connected_this_month(user: Mapping[str, Any], now: float | None = None) -> bool:
    """Whether the record's ``last_connect`` is of the current month (UTC)."""
    last_connect = user.get("last_connect")
    if not last_connect:
        return False
    return str(last_connect).startswith(
        time.strftime("%Y%m", time.gmtime(clock.now() if now is None else now))
    )


def last_connects_of_month(now: float | None = None) -> tuple[int, int]:
    """The lowest and the highest ``last_connect`` of the current month (UTC)."""
    today = time.gmtime(clock.now() if now is None else now)
    first = (today.tm_year * 100 + today.tm_mon) * 1_000_000
    return first, first + 999_999
