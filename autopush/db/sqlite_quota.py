"""How many messages one user may have in the embedded store (design.md 6).

Whoever knows an endpoint can send 4 KB at a time to be kept for 60 days, and the disk is shared by
all users. Counting costs as much as storing does, so it is done now and then only.
"""

from __future__ import annotations

from collections.abc import Callable

MAX_STORED = 10_000
"""Messages stored for one user: 60 MB if each has 4 KB of body, more with long headers; further
senders are answered 503. A hundred times ``msg_limit``, beyond which a user agent starts anew
instead of reading them."""

LOOK_EVERY = 100
"""Messages taken for a user between two counts: the limit is exact to as many per process."""

MAX_TRACKED = 10_000
"""Users remembered between two counts, about 150 bytes each."""


class StoredQuota:
    """Tells which users have too much.

    :param count: returns how many messages a user has, of which it need not count more than the
        second argument
    """

    def __init__(self, count: Callable[[str, int], int]) -> None:
        self._count = count
        self._left: dict[str, int] = {}

    def refuses(self, uaid: str) -> bool:
        """Whether no further message may be stored for this user; counts it if one may."""
        left = self._left.get(uaid, LOOK_EVERY)
        if left <= 0:
            left = min(LOOK_EVERY, MAX_STORED - self._count(uaid, MAX_STORED))
            if left <= 0:
                return True
        if len(self._left) >= MAX_TRACKED:
            self._left.clear()
        self._left[uaid] = left - 1
        return False
