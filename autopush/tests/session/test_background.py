"""What goes on behind a session's back is tried again, and bounded (spec/websocket Q16)."""

from __future__ import annotations

from twisted.internet.defer import CancelledError

from autopush.exceptions import StoreBusy, StoreError
from autopush.session.background import DELAYS, GIVEN_UP
from autopush.tests.session.support import (
    UAID,
    Events,
    outcome,
)


def test_shutdown_waits_for_retries_and_hurries_them(rig):
    rig.store.fail("drop_user", *[StoreBusy()] * 12)
    dropped = rig.node.background.persist(rig.store.drop_user, UAID)
    rig.clock.pump(DELAYS[:5])
    assert rig.store.called("drop_user") == 6
    done = rig.node.shutdown()  # eight seconds before the next attempt
    assert rig.store.called("drop_user") == 7 and not done.called
    rig.clock.pump([DELAYS[0]] * 6)
    assert outcome(dropped) is False
    assert outcome(done) is None


def test_shutdown_that_is_cut_short_ends_retries(rig):
    rig.store.fail("drop_user", *[StoreBusy()] * 99)
    dropped = rig.node.background.persist(rig.store.drop_user, UAID)
    done = rig.node.shutdown()
    rig.clock.pump([DELAYS[0]] * 12)
    assert rig.store.called("drop_user") == 14
    done.addErrback(lambda failure: failure.trap(CancelledError))
    done.cancel()  # as the service does after its time
    assert outcome(dropped) is GIVEN_UP
    assert rig.clock.getDelayedCalls() == []
    assert outcome(rig.node.idle()) is None


def test_idle_waits_for_background_work(rig):
    assert outcome(rig.node.idle()) is None
    rig.store.fail("drop_user", StoreBusy())
    rig.node.background.persist(rig.store.drop_user, UAID)
    idle = rig.node.idle()
    assert not idle.called
    rig.clock.advance(DELAYS[0])
    assert idle.called


def test_q16_background_operations_have_a_result(rig):
    rig.user()
    persist = rig.node.background.persist
    assert outcome(persist(rig.store.drop_user, UAID)) is True
    assert outcome(persist(rig.store.drop_user, UAID)) is False


def test_q16_they_are_given_up_in_the_end(rig):
    rig.store.fail("drop_user", *[StoreBusy()] * (len(DELAYS) + 1))
    with Events() as events:
        result = rig.node.background.persist(rig.store.drop_user, UAID)
        for delay in DELAYS:
            assert outcome(result) is result
            rig.clock.advance(delay)
    assert outcome(result) is GIVEN_UP
    assert rig.store.called("drop_user") == len(DELAYS) + 1
    (event,) = events.of("Unexpected error")
    assert event["extra"] == "Given up"


def test_q16_failures_are_logged(rig):
    rig.store.fail("drop_user", StoreError(), StoreError(), StoreBusy())
    with Events() as events:
        result = rig.node.background.persist(rig.store.drop_user, UAID)
        rig.clock.pump([1.0] * 3)
    assert outcome(result) is False
    assert len(events.of("Unexpected error")) == 2


def test_q16_what_waits_is_bounded(rig, monkeypatch):
    monkeypatch.setattr("autopush.session.background.MAX_WAITING", 1)
    rig.store.fail("drop_user", StoreBusy(), StoreBusy())
    first, second = (rig.node.background.persist(rig.store.drop_user, UAID) for _ in range(2))
    assert outcome(second) is GIVEN_UP
    rig.clock.advance(1)
    assert outcome(first) is False


def test_q16_an_operation_that_raises_is_a_failure(rig):
    attempts = []

    def operation():
        attempts.append(1)
        raise StoreError("closed")

    result = rig.node.background.persist(operation)
    assert outcome(result) is result
    rig.clock.pump([30.0] * 8)
    assert outcome(result) is GIVEN_UP and len(attempts) == 9
