"""Several who wait for the same moment."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from autopush.waiters import Waiters, follow


class WaitersTest(SynchronousTestCase):
    def test_all_are_told_in_their_order(self):
        waiters: Waiters[str] = Waiters()
        told: list[object] = []
        assert not waiters
        for number in range(3):
            waiters.wait().addCallback(lambda result, number=number: told.append((number, result)))
        assert waiters
        waiters.fire("over")
        assert told == [(0, "over"), (1, "over"), (2, "over")]
        assert not waiters
        waiters.fire("again")
        assert len(told) == 3

    def test_who_begins_to_wait_meanwhile_waits_for_the_next_time(self):
        waiters: Waiters[None] = Waiters()
        again: list[Deferred[None]] = []
        waiters.wait().addCallback(lambda _: again.append(waiters.wait()))
        waiters.fire(None)
        self.assertNoResult(again[0])
        waiters.fire(None)
        self.successResultOf(again[0])

    def test_they_may_give_up(self):
        waiters: Waiters[None] = Waiters()
        first, second, third = (waiters.wait() for _ in range(3))
        first.cancel()
        self.failureResultOf(first, CancelledError)
        second.addCallback(lambda _: third.cancel())
        waiters.fire(None)
        self.successResultOf(second)
        self.failureResultOf(third, CancelledError)
        assert not waiters

    def test_they_may_be_told_of_a_failure(self):
        waiters: Waiters[None] = Waiters()
        both = waiters.wait(), waiters.wait()
        waiters.fire(Failure(ValueError()))
        for waiter in both:
            self.failureResultOf(waiter, ValueError)


class FollowTest(SynchronousTestCase):
    def test_the_value_stays_with_the_first(self):
        first: Deferred[int] = Deferred()
        followers = follow(first), follow(first)
        self.assertNoResult(followers[0])
        first.callback(3)
        for follower in (*followers, follow(succeed(None))):
            assert self.successResultOf(follower) is None
        assert self.successResultOf(first) == 3
