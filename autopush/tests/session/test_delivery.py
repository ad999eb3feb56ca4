"""What all sessions of a node share."""

from __future__ import annotations

from autopush.session import Delivery
from autopush.tests.session.support import (
    MONTH,
    UAID,
    Events,
    message,
    outcome,
)


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


def test_nobody_enters_during_shutdown(rig):
    rig.store.hold("register_user")
    session = rig.hello(UAID)
    rig.node.shutdown()
    rig.store.release("register_user")
    assert session.wire.closes == [None] and rig.node.clients == {}
