"""What all sessions of a node share."""

from __future__ import annotations

import gc
import sys

import pytest
from twisted.internet.defer import CancelledError

from autopush.exceptions import StoreBusy, StoreError
from autopush.session import Delivery
from autopush.session.background import DELAYS, GIVEN_UP
from autopush.tests.session.support import (
    MONTH,
    UAID,
    Events,
    Rig,
    message,
    outcome,
)


@pytest.fixture
def rig():
    return Rig()


def test_19_check(rig):
    assert rig.node.check(UAID) is Delivery.NOT_CONNECTED
    session = rig.live()
    assert rig.node.check(UAID) is Delivery.DELIVERED
    session.wire.output_paused = True
    assert rig.node.check(UAID) is Delivery.BUSY
    session.close()
    assert rig.node.check(UAID) is Delivery.NOT_CONNECTED


def test_19_disconnect(rig):
    assert rig.node.disconnect(UAID, 1) is False
    session = rig.live()
    assert rig.node.disconnect(UAID, session.connected_at + 1) is False
    assert session.wire.closes == []
    assert rig.node.disconnect(UAID, session.connected_at) is True
    assert session.wire.closes == [None]


def test_router_url_is_the_configurations(rig):
    rig.conf.router_url = "http://late.example"
    assert rig.node.router_url == "http://late.example"
    assert repr(rig.node) == "<Node http://late.example with 0 clients>"


def test_shutdown_closes_and_saves(rig):
    session = rig.live()
    notification = message()
    rig.deliver(notification)
    rig.store.hold("store_message")
    with Events() as events:
        done = rig.node.shutdown()
        assert session.wire.output_paused and rig.node.clients == {}
        assert not done.called
        rig.store.release("store_message")
    assert outcome(done) is None
    (row,) = rig.store.messages[MONTH, UAID].values()
    assert row.update_id == notification.version
    # No Session events during shutdown (spec/observability 4.4).
    assert events.of("Session") == []


def test_shutdown_waits_for_sessions_that_ended_before(rig):
    session = rig.live()
    rig.deliver(message())
    rig.store.hold("store_message")
    session.closed()
    done = rig.node.shutdown()
    assert not done.called
    rig.store.release("store_message")
    assert done.called


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


def test_nobody_enters_during_shutdown(rig):
    rig.store.hold("register_user")
    session = rig.hello()
    rig.node.shutdown()
    rig.store.release("register_user")
    assert session.wire.closes == [None] and rig.node.clients == {}


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


def own_size(session, shared):
    """Bytes of the session and of what belongs to nobody else."""
    total = sys.getsizeof(session)
    for name in session.__slots__:
        value = getattr(session, name)
        if id(value) not in shared and not isinstance(value, bool | type(None)):
            shared.add(id(value))
            total += sys.getsizeof(value)
    return total


@pytest.mark.parametrize("uaid", [None, UAID])
def test_an_idle_session_is_small(rig, uaid):
    session = rig.hello(uaid)
    shared = {id(obj) for obj in (rig.node, session.wire, session.agent, session.host)}
    shared |= {id(session.month), id(session.state), id(0)}
    assert session.queue is session.direct is session.leaving is None
    assert session.stored is session.settling is session.timer is None
    assert not hasattr(session, "__dict__")
    assert own_size(session, shared) < 600


def test_an_ended_session_is_freed_without_the_collector(rig):
    gc.collect()
    gc.disable()
    try:
        session = rig.live()
        rig.deliver(message())
        wire = session.wire
        wire.session = session
        session.closed()
        before = sys.getrefcount(session)
        wire.session = None
        assert sys.getrefcount(session) == before - 1 == 2
    finally:
        gc.enable()
