"""Token buckets: never more than is allowed, never less, and in bounded memory."""

from __future__ import annotations

import base64
import json
import math

import pytest
from hypothesis import given, strategies as st
from twisted.internet.task import Clock

from autopush.config import AutopushConfig
from autopush.tests.message.vapid_support import Sender
from autopush.tests.web.support import CHID, SENDER, UAID, Endpoint, vapid
from autopush.web.rates import Rates, TokenBuckets

OTHER = "86dfb18c-1eb1-4f92-80a5-7fdf8d462b5c"
TTL = {"ttl": "60"}

RATES = st.integers(1, 100_000)
BURSTS = st.integers(1, 50)
GAPS = st.lists(st.floats(0, 90, allow_subnormal=False), min_size=1, max_size=120)


def accept(buckets, key, now):
    """Whether there was a token, which then is taken."""
    if buckets.shortage(key, now) > 0:
        return False
    buckets.take(key, now)
    return True


def wait_for(buckets, key, now):
    return buckets.shortage(key, now)


# ------------------------------------------------------------------------------------ the buckets


@given(RATES, BURSTS, GAPS, st.floats(0, 1e6))
def test_never_more_than_burst_and_rate(rate, burst, gaps, start):
    """In any interval, not only from the beginning on."""
    buckets = TokenBuckets(rate, burst)
    now, accepted = start, []
    for gap in gaps:
        now += gap
        if accept(buckets, "k", now):
            accepted.append(now)
    for first, begin in enumerate(accepted):
        for last in range(first, len(accepted)):
            allowed = burst + (accepted[last] - begin) * rate / 60
            assert last - first + 1 <= allowed + 2e-3


@given(RATES, BURSTS, GAPS, st.floats(0, 1e6))
def test_who_keeps_below_the_rate_is_never_refused(rate, burst, gaps, start):
    """However they come, if there are never more than ``burst`` too early."""
    buckets = TokenBuckets(rate, burst)
    now = start
    tokens: float = burst
    for gap in gaps:
        now += gap
        tokens = min(burst, tokens + gap * rate / 60)
        if tokens < 1 + 1e-6:
            continue  # this one would be too early
        tokens -= 1
        assert accept(buckets, "k", now)


@given(RATES, BURSTS, st.floats(0, 1e6))
def test_wait_is_how_long_it_takes(rate, burst, now):
    buckets = TokenBuckets(rate, burst)
    while accept(buckets, "k", now):
        pass
    wait = wait_for(buckets, "k", now)
    assert 0 < wait <= 60 / rate + 1e-6
    assert wait_for(buckets, "k", now + wait * 0.9) > 0 or wait < 1e-6
    assert accept(buckets, "k", now + math.ceil(wait))


def test_a_pause_gives_the_whole_burst_again():
    buckets = TokenBuckets(60, 5)
    for now in (0.0, 5.0):
        assert [accept(buckets, "k", now) for _ in range(6)] == [True] * 5 + [False]


def test_keys_have_nothing_to_do_with_each_other():
    buckets = TokenBuckets(1, 1)
    assert accept(buckets, "a", 0.0)
    assert not accept(buckets, "a", 0.0)
    assert accept(buckets, "b", 0.0)


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 5)), max_size=200))
def test_memory_is_bounded(messages):
    buckets, now = TokenBuckets(60, 3, size=10), 0.0
    for key, gap in messages:
        now += gap
        accept(buckets, key, now)
        assert len(buckets) <= 10


def test_full_buckets_are_forgotten():
    buckets = TokenBuckets(60, 10)
    for key in range(100):
        accept(buckets, key, 0.0)
    assert len(buckets) == 100
    for number in range(100):
        accept(buckets, "last", 2.0 + number)
    assert len(buckets) <= 2


def test_the_ones_used_lately_are_remembered():
    buckets = TokenBuckets(1, 1, size=100)
    for key in range(1000):
        assert accept(buckets, key, 0.0)
        for used in range(max(0, key - 45), key + 1):
            assert not accept(buckets, used, 0.0)
    assert accept(buckets, 0, 0.0)


@given(RATES, BURSTS, st.lists(st.tuples(st.integers(0, 5), st.floats(0, 90)), max_size=100))
def test_what_is_forgotten_makes_no_difference(rate, burst, messages):
    """As long as there are not too many: those that are forgotten are full."""
    buckets, now = TokenBuckets(rate, burst), 0.0
    apart = [TokenBuckets(rate, burst) for _ in range(6)]
    for one in apart:
        one._change_at = math.inf
    for key, gap in messages:
        now += gap
        assert accept(buckets, key, now) == accept(apart[key], key, now)


def test_a_rate_beyond_what_a_clock_can_tell():
    buckets = TokenBuckets(10**12, 1)
    for key in range(5):
        assert accept(buckets, key, 1e9)
    assert len(buckets) <= 5


# ----------------------------------------------------------------------------------- the endpoint


@pytest.fixture
def endpoint():
    endpoint = Endpoint(rate_subscription=60, burst_subscription=2)
    endpoint.add_user()
    endpoint.store.add_channel(endpoint.month, UAID, OTHER)
    return endpoint


def statuses(endpoint, url, number, **headers):
    return [endpoint.request("POST", url, **{**TTL, **headers}).status for _ in range(number)]


def test_off_by_default():
    assert Rates.of(AutopushConfig(), Clock().seconds) is None
    endpoint = Endpoint()
    endpoint.add_user()
    assert statuses(endpoint, endpoint.endpoint(), 5) == [201] * 5


def test_subscription_that_gets_too_many(endpoint):
    assert statuses(endpoint, endpoint.endpoint(), 2) == [201, 201]
    answer = endpoint.request("POST", endpoint.endpoint(), **TTL)
    assert answer.status == 429
    assert answer.headers["retry-after"] == "1"
    body = json.loads(answer.body)
    assert body["errno"] == 204
    assert body["message"].endswith(
        "Too many messages for this subscription: 60 a minute, 2 at once"
    )
    assert endpoint.metrics.of("notification.message.error") == [
        (1, ["code:429", "router:webpush", "vapid:False"])
    ]
    assert len(endpoint.node.delivered) == 2
    # Others don't feel it, and neither does this one a second later.
    assert statuses(endpoint, endpoint.endpoint(chid=OTHER), 3) == [201, 201, 429]
    endpoint.app.clock.advance(1)
    assert statuses(endpoint, endpoint.endpoint(), 2) == [201, 429]


def test_retry_after_is_when_there_is_a_token():
    endpoint = Endpoint(rate_subscription=2, burst_subscription=1)
    endpoint.add_user()
    assert statuses(endpoint, endpoint.endpoint(), 1) == [201]
    endpoint.app.clock.advance(12.5)
    answer = endpoint.request("POST", endpoint.endpoint(), **TTL)
    assert (answer.status, answer.headers["retry-after"]) == (429, "18")
    endpoint.app.clock.advance(18)
    assert statuses(endpoint, endpoint.endpoint(), 1) == [201]


def test_what_is_refused_for_another_reason_takes_no_token(endpoint):
    for headers in ({"ttl": "soon"}, {"topic": "?"}, {"authorization": "vapid t=x,k=y"}):
        for status in statuses(endpoint, endpoint.endpoint(), 5, **headers):
            assert status in (400, 401)
    assert statuses(endpoint, endpoint.endpoint(), 3) == [201, 201, 429]


def test_sender_that_sends_too_many():
    endpoint = Endpoint(rate_sender=60, burst_sender=3)
    endpoint.add_user()
    endpoint.store.add_channel(endpoint.month, UAID, OTHER)
    first, second = (endpoint.endpoint(chid=chid) for chid in (CHID, OTHER))
    ours, theirs = {"authorization": vapid()}, {"authorization": vapid(Sender())}
    assert statuses(endpoint, first, 2, **ours) == [201, 201]
    assert statuses(endpoint, second, 2, **ours) == [201, 429]
    body = json.loads(endpoint.request("POST", first, **TTL, **ours).body)
    assert "for this sender's key: 60 a minute, 3 at once" in body["message"]
    assert statuses(endpoint, first, 1, **theirs) == [201]
    assert statuses(endpoint, first, 5) == [201] * 5  # who doesn't say who it is has no such bucket
    # One that is not who it says takes nothing from the other.
    forged = {"authorization": theirs["authorization"][:-4] + "AAAA"}
    assert statuses(endpoint, first, 5, **forged) == [401] * 5
    assert statuses(endpoint, first, 3, **theirs) == [201, 201, 429]


def test_a_key_is_the_same_however_it_is_written():
    endpoint = Endpoint(rate_sender=60, burst_sender=1)
    endpoint.add_user()
    ours = {"authorization": vapid()}
    assert statuses(endpoint, endpoint.endpoint(), 1, **ours) == [201]
    point = base64.urlsafe_b64decode(SENDER.public_key + "==")
    shorter = base64.urlsafe_b64encode(point[1:]).decode().rstrip("=")
    other = {"authorization": ours["authorization"].replace(SENDER.public_key, shorter)}
    assert other != ours
    assert statuses(endpoint, endpoint.endpoint(), 1, **other) == [429]


def test_refused_by_one_bucket_takes_nothing_of_the_other():
    endpoint = Endpoint(rate_subscription=60, burst_subscription=2, rate_sender=60, burst_sender=1)
    endpoint.add_user()
    ours = {"authorization": vapid()}
    assert statuses(endpoint, endpoint.endpoint(), 9, **ours) == [201, *[429] * 8]
    assert statuses(endpoint, endpoint.endpoint(), 2) == [201, 429]
