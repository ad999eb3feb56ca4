"""The end of a connection (spec/websocket 14 and 16)."""

from __future__ import annotations

from decimal import Decimal

import pytest
from twisted.internet.defer import fail

from autopush.exceptions import StoreBusy, StoreError
from autopush.net.nodeclient import NodeGone
from autopush.session.states import State
from autopush.tests.session.support import (
    CHID,
    CHID2,
    MONTH,
    ROUTER_URL,
    UAID,
    Events,
    Peers,
    Rig,
    ack,
    hello,
    message,
    numbers,
    outcome,
    versions,
)

OTHER = "http://other.example:8081"


def stored_ids(rig):
    return sorted(row.update_id for row in rig.store.messages.get((MONTH, UAID), {}).values())


def test_14_a_session_without_uaid_leaves_no_trace(rig):
    session = rig.connect()
    with Events() as events:
        assert outcome(session.closed()) is None
    assert rig.metrics.calls == [] and rig.store.calls == [] and events.seen == []
    assert session.state is State.CLOSED


def test_14_1_lifespan(rig):
    session = rig.live()
    rig.clock.advance(687)
    session.closed()
    ((seconds, tags),) = rig.metrics.of("ua.connection.lifespan")
    assert seconds == pytest.approx(687, abs=1)
    assert tags == [
        "ua_os_family:Linux",
        "ua_browser_family:Firefox",
        "host:push.example",
        "use_webpush:True",
    ]


def test_14_1_tags_without_a_user_agent(rig):
    session = rig.connect(agent=None, host="")
    session.received(hello())
    session.closed()
    ((_, tags),) = rig.metrics.of("ua.connection.lifespan")
    assert tags == ["use_webpush:True"]


def test_14_a_second_end_of_the_same_connection_is_none(rig):
    """Both TCP and a subclass of the protocol may say it."""
    session = rig.live()
    with Events() as events:
        session.closed()
        assert outcome(session.closed()) is None
    assert len(rig.metrics.of("ua.connection.lifespan")) == len(events.of("Session")) == 1
    assert session.state is State.CLOSED


def test_14_2_only_its_own_entry_is_removed(rig):
    first = rig.hello(UAID)
    second = rig.hello(UAID)
    first.closed()
    assert rig.node.clients == {UAID: second}
    second.closed()
    assert rig.node.clients == {}


def test_14_3_delays_end(rig):
    rig.store.fail("fetch_topics", StoreBusy())
    session = rig.hello(UAID)
    session.closed()
    assert rig.clock.getDelayedCalls() == []


def test_14_4_unacknowledged_direct_ones_are_saved(rig):
    session = rig.live()
    kept = [message(ttl=60), message(ttl=None), message(ttl=60, topic="a")]
    acked, momentary = message(), message(ttl=0)
    for notification in (*kept, acked, momentary):
        rig.deliver(notification)
    session.received(ack(acked))
    assert outcome(session.closed()) is None
    assert stored_ids(rig) == numbers(*kept)
    assert session.direct_storage == 3
    assert rig.rows()[0] == f"01:{CHID}:a"


def test_14_4_they_follow_a_user_that_moved_to_another_month(rig):
    """spec/storage S17: the next connection, on another node, was quicker."""
    session = rig.live()
    notification = message(ttl=60)
    rig.deliver(notification)
    rig.store.users[session.uaid]["current_month"] = "message_2026_12"
    assert outcome(session.closed()) is None
    rows = rig.store.messages["message_2026_12", session.uaid]
    assert [row.update_id for row in rows.values()] == [notification.update_id]


def test_14_4_nothing_is_carried_for_a_user_that_stayed_in_its_month(rig):
    session = rig.live()
    rig.deliver(message(ttl=60))
    session.closed()
    assert rig.store.called("store_message") == 1
    assert rig.store.called("carry_late") == 0


def test_14_4_they_get_a_new_place(rig):
    session = rig.live()
    notification = message(1)
    rig.deliver(notification)
    session.closed()
    (key,) = rig.rows()
    assert key != f"02:{message(1).sortkey_timestamp}:{CHID}"


def test_14_4_closed_fires_when_they_are_saved(rig):
    session = rig.live()
    rig.deliver(message())
    rig.store.hold("store_message")
    first, second = session.closed(), session.closed()
    assert not first.called and not second.called
    rig.store.release("store_message")
    assert first.called and second.called
    assert outcome(session.closed()) is None


def test_14_4_a_store_that_fails_is_tried_again(rig):
    session = rig.live()
    notification = message()
    rig.deliver(notification)
    rig.store.fail("store_message", StoreError(), StoreBusy())
    saved = session.closed()
    rig.clock.pump([0.25, 0.5])
    assert saved.called
    assert stored_ids(rig) == numbers(notification)


def test_14_4_stored_ones_need_nothing(rig):
    rig.put(message(1))
    session = rig.hello(UAID)
    session.closed()
    assert rig.store.called("store_message") == 0
    assert len(rig.rows()) == 1


def test_14_5_the_connection_that_followed_is_told():
    rig = Rig(peers=Peers())
    session = rig.live()
    rig.deliver(message())
    rig.store.users[UAID].update(node_id=OTHER, connected_at=Decimal(session.connected_at + 5))
    session.closed()
    assert rig.peers.requests == [("PUT", f"{OTHER}/notif/{UAID}")]


@pytest.mark.parametrize("changes", [{"node_id": None}, {"node_id": OTHER}, {}])
def test_14_5_nobody_is_told_without_a_reason(changes):
    rig = Rig(peers=Peers())
    session = rig.live()
    rig.deliver(message())
    rig.store.users[UAID].update(changes)  # connected_at is this session's
    session.closed()
    assert rig.peers.requests == []


def test_14_5_the_connection_that_followed_may_be_here(rig):
    first = rig.live()
    notification = message()
    rig.deliver(notification)
    second = rig.hello(UAID)
    assert versions(second.wire.sent[1:]) == numbers(notification)
    first.closed()
    assert len(second.wire.sent) == 2
    assert rig.store.users[UAID]["node_id"] == ROUTER_URL


def test_14_5_also_if_the_row_was_being_written():
    rig = Rig(store_direct=True)
    first = rig.live()
    rows = rig.store.store_message
    waiting = []

    def later(month, notification):
        deferred = rows(month, message(ttl=0, uaid="b0" * 16))
        deferred.pause()
        waiting.append((deferred, notification))
        return deferred

    rig.store.store_message = later
    notification = message()
    rig.deliver(notification)
    second = rig.hello(UAID)
    second.wire.take()
    saved = first.closed()
    assert not saved.called and second.wire.sent == []
    ((deferred, _),) = waiting
    rows(MONTH, notification)
    deferred.unpause()
    assert saved.called
    assert versions(second.wire.sent) == numbers(notification)


@pytest.mark.parametrize("failure, logged", [(NodeGone(), []), (ValueError(), ["notify node"])])
def test_14_5_that_it_is_gone_is_no_error(failure, logged):
    rig = Rig(peers=Peers(fail(failure)))
    session = rig.live()
    rig.deliver(message())
    rig.store.users[UAID].update(node_id=OTHER, connected_at=1)
    with Events() as events:
        session.closed()
    extras = [event["extra"] for event in events.of("Unexpected error")]
    assert extras == ["Failed to " + text for text in logged]


def test_14_5_a_look_up_that_fails_is_logged(rig):
    session = rig.live()
    rig.deliver(message())
    rig.store.fail("get_user", StoreError())
    with Events() as events:
        session.closed()
    assert events.of("Unexpected error")[0]["extra"] == "Failed to get UAID for redeliver"


def test_14_5_a_dropped_user_is_no_error(rig):
    session = rig.live()
    rig.deliver(message())
    rig.store.users.clear()
    with Events() as events:
        session.closed()
    assert events.of("Unexpected error") == []


def test_14_node_id_stays(rig):
    session = rig.live()
    session.closed()
    assert rig.store.users[UAID]["node_id"] == ROUTER_URL


def test_16_the_session_event(rig):
    rig.put(message(1), message(2))
    session = rig.hello(UAID)
    direct, lost = message(), message()
    rig.deliver(direct)
    rig.deliver(lost)
    stored = [{"channelID": CHID, "version": v} for v in versions(session.wire.sent[1:2])]
    session.received({"messageType": "ack", "updates": stored})
    session.received(ack(direct))
    session.received({"messageType": "nack", "version": "x"})
    session.received({"messageType": "register", "channelID": CHID})
    session.received({"messageType": "unregister", "channelID": CHID2})
    session.received({"messageType": "unregister", "channelID": CHID2})
    rig.clock.advance(12.5)
    with Events() as events:
        session.closed()
        session.closed()
    (event,) = events.of("Session")
    fields = {
        "uaid_hash": UAID,
        "uaid_reset": False,
        "existing_uaid": True,
        "connection_type": "webpush",
        "host": "push.example",
        "ua_os_family": "Linux",
        "ua_browser_family": "Firefox",
        "ua_browser_ver": event["ua_browser_ver"],
        "ua_os_ver": "",
        "connection_time": 12,
        "direct_acked": 1,
        "direct_storage": 1,
        "stored_retrieved": 2,
        "stored_acked": 1,
        "nacks": 1,
        "unregisters": 2,
        "registers": 1,
    }
    assert {name: event[name] for name in fields} == fields
    assert event["ua_browser_ver"].startswith("140")


def test_16_there_is_no_session_event_when_the_node_stops(rig):
    """Or a stop would log a line for each user agent at once."""
    session = rig.live()
    with Events() as events:
        rig.node.shutdown()
        rig.clock.pump([1.0] * 10)
        session.closed()
    assert events.of("Session") == []
    assert len(rig.metrics.of("ua.connection.lifespan")) == 1


def test_16_limited_families_in_the_session_event(rig):
    session = rig.connect(agent="curl/8.1 Ubuntu")
    with Events() as events:
        session.received(hello())
        session.closed()
    (full,) = events.of("hello")
    (limited,) = events.of("Session")
    assert full["ua_browser_family"] != "Other" == limited["ua_browser_family"]


def test_q21_first_time_users_count_as_reset(rig):
    session = rig.hello()
    with Events() as events:
        session.closed()
    (event,) = events.of("Session")
    assert event["uaid_reset"] is True and event["existing_uaid"] is False


def test_16_without_a_user_agent(rig):
    session = rig.connect(agent=None)
    session.received(hello())
    with Events() as events:
        session.closed()
    (event,) = events.of("Session")
    names = ("ua_os_family", "ua_os_ver", "ua_browser_family", "ua_browser_ver")
    assert [event[name] for name in names] == [""] * 4


def test_14_a_connection_refused_at_hello_is_reported_too(rig):
    rig.user(node_id=OTHER, connected_at=10**15)
    session = rig.hello(UAID)
    with Events() as events:
        session.closed()
    assert len(events.of("Session")) == 1


def test_14_nothing_reaches_a_connection_that_has_ended(rig):
    session = rig.live()
    wire = session.wire
    rig.store.hold("add_channel")
    session.received({"messageType": "register", "channelID": CHID})
    session.closed()
    rig.store.release("add_channel")
    assert wire.sent == []
    assert session.wire is not wire


class TestDecidedToClose:
    """What was not acknowledged is saved when the node decides to close, whenever TCP ends."""

    def test_it_is_saved_although_the_peer_is_mute(self, rig):
        session = rig.live()
        notification = message()
        rig.deliver(notification)
        session.close()
        assert stored_ids(rig) == numbers(notification)
        # Nothing it says counts any more (Q26), and the end of TCP saves nothing again.
        session.received(ack(notification))
        rig.store.calls.clear()
        assert outcome(session.closed()) is None
        assert rig.store.called("store_message") == 0 and session.direct_storage == 1

    def test_the_next_connection_is_told_on_another_node(self):
        rig = Rig(peers=Peers())
        session = rig.live()
        notification = message()
        rig.deliver(notification)
        rig.store.users[UAID].update(node_id=OTHER, connected_at=session.connected_at + 5)
        assert rig.node.disconnect(UAID, session.connected_at)
        assert rig.peers.requests == [("PUT", f"{OTHER}/notif/{UAID}")]

    def test_the_end_waits_for_acknowledgements_on_their_way(self, rig):
        rig.put(message(1))
        session = rig.hello(UAID)
        rig.store.hold("set_pointer")
        session.received(ack(message(1, version=session.wire.sent[1]["version"])))
        ended = session.closed()
        assert not ended.called
        rig.store.release("set_pointer")
        assert ended.called and rig.node.saving == set()

    def test_of_one_topic_the_latest_is_saved(self, rig):
        session = rig.live()
        first, second = message(topic="a"), message(topic="a")
        rig.deliver(first)
        rig.deliver(second)
        session.closed()
        assert stored_ids(rig) == numbers(second)

    def test_it_does_not_replace_a_later_one_of_its_topic(self, rig):
        session = rig.live()
        rig.deliver(message(topic="a", age=1))
        later = message(topic="a")
        rig.put(later)
        session.closed()
        assert stored_ids(rig) == numbers(later)
