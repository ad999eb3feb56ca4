"""How fast messages may come: a token bucket for each subscription and for each sender's key.

A sender that runs wild, or somebody who knows an endpoint, drains a battery and takes time that
others could have. A bucket holds ``burst`` tokens and gets ``rate`` back a minute; a message takes
one of its subscription's and, if it has a valid VAPID token, one of its key's. Where one is missing
it is answered 429 at once, with the seconds after which there will be one. Nothing waits, here or
elsewhere.

A bucket is one number, the time at which it will be full again. Full ones are forgotten, and so are
those that were not used for long when there are too many, in favour of their senders.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import TYPE_CHECKING

from autopush.exceptions import InvalidRequest
from autopush.message.vapid import decipher_public_key

if TYPE_CHECKING:
    from autopush.config import AutopushConfig
    from autopush.message.endpoint_token import EndpointToken

MAX_BUCKETS = 20_000
"""Buckets of each kind that are remembered, about 5 MB; others are taken for full."""

KNOWN_KEYS = 1024
"""Sender's keys whose spelling is remembered: decoding one takes longer than all the rest."""

ROUNDING = 0.001
"""Part of a token by which sums of fractions may be wrong, in favour of the sender."""

ERRNO = 204


class TokenBuckets:
    """Buckets of one kind.

    Two generations instead of an ordered map: what was not used for as long as an empty bucket
    takes to get full is full, and forgotten with its generation.

    :param rate: tokens a minute
    :param burst: tokens a full bucket holds
    :param size: buckets remembered
    """

    __slots__ = ("_change_at", "_generation", "_old", "_span", "_step", "_young", "burst", "rate")

    def __init__(self, rate: int, burst: int, size: int = MAX_BUCKETS) -> None:
        self.rate = rate
        self.burst = burst
        self._step = 60 / rate
        self._span = (burst + ROUNDING) * self._step
        self._generation = size // 2
        self._change_at = -math.inf
        self._young: dict[Hashable, float] = {}
        self._old: dict[Hashable, float] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def shortage(self, key: Hashable, now: float) -> float:
        """Return the seconds until there is a token to take; not above 0: there is one.

        :param now: seconds, monotonic
        """
        full_at = self._young.get(key) or self._old.get(key, now)
        return max(full_at, now) + self._step - now - self._span

    def take(self, key: Hashable, now: float) -> None:
        """Take a token that is there; parameters as for :meth:`shortage`."""
        full_at = self._young.get(key) or self._old.get(key, now)
        if now >= self._change_at or len(self._young) >= self._generation:
            self._change_at = now + self._span
            self._old, self._young = self._young, {}
        self._young[key] = max(full_at, now) + self._step


class Rates:
    """The buckets of an application; see the module.

    :param subscriptions: those of subscriptions; None: any number of messages
    :param senders: those of sender's keys; None: any number
    :param now: seconds, monotonic
    """

    def __init__(
        self,
        subscriptions: TokenBuckets | None,
        senders: TokenBuckets | None,
        now: Callable[[], float],
    ) -> None:
        self._subscriptions = subscriptions
        self._senders = senders
        self._now = now

    @classmethod
    def of(cls, conf: AutopushConfig, now: Callable[[], float]) -> Rates | None:
        """Of a configuration; None: it limits nothing."""
        subscriptions = _buckets(conf.rate_subscription, conf.burst_subscription)
        senders = _buckets(conf.rate_sender, conf.burst_sender)
        if subscriptions is None and senders is None:
            return None
        return cls(subscriptions, senders, now)

    def take(self, token: EndpointToken) -> None:
        """Let a message pass whose token was opened, and whose sender is who it says.

        :raises InvalidRequest: 429: it came too fast; no token was taken
        """
        now = self._now()
        subscriptions, senders = self._subscriptions, self._senders
        subscription = (token.uaid, token.chid)
        if subscriptions is not None and (wait := subscriptions.shortage(subscription, now)) > 0:
            raise too_fast("subscription", subscriptions, wait)
        if senders is not None and token.auth and token.public_key:
            sender = _point(token.public_key)
            if (wait := senders.shortage(sender, now)) > 0:
                raise too_fast("sender's key", senders, wait)
            senders.take(sender, now)
        if subscriptions is not None:
            subscriptions.take(subscription, now)


def _buckets(rate: int, burst: int) -> TokenBuckets | None:
    return TokenBuckets(rate, burst) if rate else None


_point = lru_cache(KNOWN_KEYS)(decipher_public_key)
"""A key however it is written: each is one sender."""


def too_fast(whose: str, buckets: TokenBuckets, wait: float) -> InvalidRequest:
    """Return the refusal of a message.

    :param whose: what it was too fast for
    :param wait: seconds until there is a token
    """
    return InvalidRequest(
        f"Too many messages for this {whose}: {buckets.rate} a minute, {buckets.burst} at once",
        status_code=429,
        errno=ERRNO,
        headers={"Retry-After": str(max(1, math.ceil(wait)))},
    )
