"""spec/bridges 3: delivery to connection nodes."""

import json
from typing import Any, cast
from uuid import UUID

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import capturedLogs

from autopush.config import AutopushConfig
from autopush.exceptions import RouterException, StoreBusy, StoreError, UserFull
from autopush.message.notification import WebPushNotification
from autopush.message.urgency import HIGH, LOW, NORMAL, VERY_LOW
from autopush.net.nodeclient import GONE, NodeBusy, NodeGone
from autopush.router import WebPushRouter, routers_from_config
from autopush.session import Delivery
from autopush.tests.db.memory_store import MemoryStore
from autopush.tests.web.support import CHID, NODE_URL, ORIGIN, UAID, FakeNode, Metrics

REMOTE = "http://other.example:8081"
CONNECTED_AT = 1_700_000_000_000


class Agent:
    """Answers requests to nodes with what a test sets, by the first part of the path."""

    def __init__(self):
        self.answers = {"push": 200, "notif": 202}
        self.requests = []

    def request(self, method, url, body=b""):
        self.requests.append((method, url, body))
        answer = self.answers[url.split("/")[3]]
        if isinstance(answer, Deferred):
            return answer
        return fail(answer) if isinstance(answer, Exception) else succeed(answer)


class Rig:
    """A router and what is around it."""

    def __init__(self, node=False, agent=True):
        self.conf = AutopushConfig(hostname="push.example", endpoint_port=8082)
        self.store = MemoryStore()
        self.metrics = cast(Any, Metrics())
        self.agent = cast(Any, Agent() if agent else None)
        self.node = cast(Any, FakeNode() if node else None)
        self.router = WebPushRouter(
            self.conf, None, self.store, self.agent, self.node, self.metrics
        )

    def add_user(self, **record):
        self.store.users[UAID] = {
            "router_type": "webpush",
            "current_month": self.store.months.current,
            "connected_at": CONNECTED_AT,
            **record,
        }

    def user(self):
        return {**self.store.users[UAID], "uaid": UAID}

    def start(self, ttl=60, user=None, **kwargs):
        self.notification = WebPushNotification(
            uaid=UUID(UAID), channel_id=UUID(CHID), ttl=ttl, **kwargs
        )
        self.notification.generate_message_id(self.conf.fernet)
        return self.router.route_notification(self.notification, user or self.user())

    def route(self, **kwargs):
        """The router's answer, which must be there at once."""
        results: list[Any] = []
        self.start(**kwargs).addBoth(results.append)
        result = results[0]
        if hasattr(result, "value"):
            raise result.value
        return result

    def refused(self, **kwargs):
        with pytest.raises(RouterException) as caught:
            self.route(**kwargs)
        return caught.value

    def rows(self):
        return list(self.store.messages.get((self.store.months.current, UAID), {}).values())

    def counted(self, name):
        return self.metrics.of(name)


@pytest.fixture
def rig():
    """The user is on another node."""
    rig = Rig()
    rig.add_user(node_id=REMOTE)
    return rig


@pytest.fixture
def offline():
    """The user is nowhere."""
    rig = Rig()
    rig.add_user()
    return rig


@pytest.fixture
def local():
    """The user is on the node in this process."""
    rig = Rig(node=True)
    rig.add_user(node_id=NODE_URL)
    return rig


def assert_delivered(rig, response):
    assert response.logged_status == 200
    assert_accepted(rig, response)
    assert rig.counted("notification.message_data")[0][1] == ["destination:Direct"]


def assert_stored(rig, response):
    assert response.logged_status == 201
    assert_accepted(rig, response)
    assert rig.counted("notification.message_data")[0][1] == ["destination:Stored"]
    assert [row.update_id for row in rig.rows()] == [rig.notification.message_id]


def assert_accepted(rig, response):
    """Section 3.5"""
    assert (response.status_code, response.response_body) == (201, "")
    assert response.router_data is None
    assert response.headers == {
        "Location": f"{ORIGIN}/m/{rig.notification.message_id}",
        "TTL": str(rig.notification.ttl or 0),
    }
    assert [count for count, _ in rig.counted("notification.message_data")] == [
        rig.notification.data_length
    ]


class TestDeliver:
    """Section 3.1 steps 1 and 2, section 3.2"""

    def test_node_takes_it(self, rig):
        assert_delivered(rig, rig.route(data="eHh4", headers={"encoding": "aes128gcm"}))
        assert rig.rows() == []
        method, url, body = rig.agent.requests[0]
        assert (method, url) == ("PUT", f"{REMOTE}/push/{UAID}")
        assert json.loads(body) == {
            "channelID": CHID,
            "version": rig.notification.message_id,
            "ttl": 60,
            "topic": None,
            "timestamp": rig.notification.timestamp,
            "data": "eHh4",
            "headers": {"encoding": "aes128gcm"},
        }
        assert len(rig.agent.requests) == 1

    def test_without_data(self, rig):
        rig.route(topic="t")
        body = json.loads(rig.agent.requests[0][2])
        assert set(body) == {"channelID", "version", "ttl", "topic", "timestamp"}

    def test_connected_clients_need_no_ttl(self, rig):
        """B23"""
        assert_delivered(rig, rig.route(ttl=None))

    @pytest.mark.parametrize("status", [503, 500, 202])
    def test_node_does_not_take_it(self, rig, status):
        """The node stays in the record."""
        rig.agent.answers["push"] = status
        assert_stored(rig, rig.route())
        assert rig.store.users[UAID]["node_id"] == REMOTE
        assert rig.counted("updates.client.host_gone") == []

    def test_user_is_not_connected_there_any_more(self, rig):
        """The node leaves the record, so the next sender needs no request to it: B22"""
        rig.agent.answers["push"] = 404
        assert_stored(rig, rig.route())
        assert "node_id" not in rig.store.users[UAID]
        assert rig.counted("updates.client.host_gone") == []
        assert len(rig.agent.requests) == 1

    def test_user_has_connected_again_meanwhile(self, rig):
        """The newer connection stays in the record."""
        rig.agent.answers["push"] = answer = Deferred()
        results = []
        rig.start().addBoth(results.append)
        newer = {"node_id": "http://newer.example:8081", "connected_at": CONNECTED_AT + 1}
        rig.store.users[UAID].update(newer)
        answer.callback(404)
        assert_stored(rig, results[0])
        assert rig.store.users[UAID]["node_id"] == "http://newer.example:8081"

    @pytest.mark.parametrize(("age", "kept"), [(0, True), (59, True), (60, False)])
    def test_404_of_a_node_that_may_be_finishing_a_hello(self, rig, age, kept):
        """Nodes of 1.58.3 say so; the user must stay reachable."""
        rig.agent.answers["push"] = 404
        rig.router._now = lambda: CONNECTED_AT / 1000 + age
        assert_stored(rig, rig.route())
        assert ("node_id" in rig.store.users[UAID]) is kept

    def test_node_that_is_sure(self, rig):
        """Nodes of this version say "busy" while they finish a hello: no minute need pass."""
        rig.agent.answers["push"] = GONE
        rig.router._now = lambda: CONNECTED_AT / 1000
        assert_stored(rig, rig.route())
        assert "node_id" not in rig.store.users[UAID]
        assert rig.counted("updates.client.host_gone") == []
        assert len(rig.agent.requests) == 1

    def test_node_is_gone(self, rig):
        """Every transport error means that: B20, B21"""
        rig.agent.answers["push"] = NodeGone("refused")
        with capturedLogs() as events:
            assert_stored(rig, rig.route())
        assert "node_id" not in rig.store.users[UAID]
        assert rig.counted("updates.client.host_gone") == [(1, None)]
        event = next(e for e in events if e["log_format"] == "Could not route message: {exc}")
        assert str(event["exc"]) == "refused"
        assert [request[1] for request in rig.agent.requests] == [f"{REMOTE}/push/{UAID}"]

    def test_node_is_overloaded(self, rig):
        """It is there, as far as we know."""
        rig.agent.answers["push"] = NodeBusy("too many")
        assert_stored(rig, rig.route())
        assert rig.store.users[UAID]["node_id"] == REMOTE
        assert rig.counted("updates.client.host_gone") == []

    @pytest.mark.parametrize(
        "node_id",
        [
            "ftp://x",
            "http://x/path",
            "http://u@x",
            "http://x?q",
            "x:80",
            "http://a b",
            "http://\xe9",
        ],
    )
    def test_node_id_is_no_node(self, rig, node_id):
        """B21"""
        rig.store.users[UAID]["node_id"] = node_id
        assert_stored(rig, rig.route())
        assert rig.agent.requests == []
        assert "node_id" not in rig.store.users[UAID]

    @pytest.mark.parametrize("node_id", ["https://node-1.example", "http://[::1]:8081", "http://h"])
    def test_shapes_of_nodes(self, rig, node_id):
        rig.store.users[UAID]["node_id"] = node_id
        assert_delivered(rig, rig.route())

    def test_single_node_asks_nobody(self):
        rig = Rig(node=True, agent=False)
        rig.add_user(node_id=REMOTE)
        assert_stored(rig, rig.route())
        assert rig.node.delivered == []


class TestClearNode:
    """Section 3.4"""

    def test_newer_connection_stays(self, rig):
        rig.agent.answers["push"] = NodeGone()
        user = {**rig.user(), "connected_at": CONNECTED_AT - 1}
        assert_stored(rig, rig.route(user=user))
        assert rig.store.users[UAID]["node_id"] == REMOTE
        assert "node_id" not in user

    @pytest.mark.parametrize("exc", [StoreBusy(), StoreError()])
    def test_failure_is_ignored(self, rig, exc):
        rig.agent.answers["push"] = NodeGone()
        rig.store.fail("clear_node", exc)
        assert_stored(rig, rig.route())

    def test_record_without_connected_at(self, rig):
        rig.agent.answers["push"] = NodeGone()
        del rig.store.users[UAID]["connected_at"]
        assert_stored(rig, rig.route())
        assert rig.store.called("clear_node") == 0


class TestSave:
    """Section 3.3"""

    def test_row(self, offline):
        data = {"data": "eHh4", "headers": {"encoding": "aes128gcm"}}
        assert_stored(offline, offline.route(ttl=7, **data))
        row = offline.rows()[0]
        assert row.sort_key == offline.notification.sort_key
        assert row.ttl == 7

    def test_month_of_the_user(self, offline):
        month = offline.store.months.current
        offline.store.months.current = "message_2027_01"
        offline.route()
        assert list(offline.store.messages) == [(month, UAID)]

    def test_no_ttl(self, offline):
        exc = offline.refused(ttl=None)
        assert str(exc) == "Missing TTL Header"
        assert (exc.status_code, exc.errno, exc.log_exception) == (400, 111, False)
        url = "https://webpush-wg.github.io/webpush-protocol/#rfc.section.6.2"
        assert exc.response_body == f"Missing TTL Header, see: {url}"
        assert offline.rows() == []

    def test_ttl_0(self, offline):
        """B24"""
        exc = offline.refused(ttl=0)
        assert (exc.status_code, exc.logged_status, exc.log_exception) == (201, 204, False)
        assert exc.response_body == "Finished Routing"
        location = f"{ORIGIN}/m/{offline.notification.message_id}"
        assert exc.headers == {"TTL": "0", "Location": location}
        assert offline.rows() == []
        assert offline.counted("notification.message_data") == []

    @pytest.mark.parametrize(("exc", "logged"), [(StoreBusy(), False), (StoreError(), True)])
    def test_store_fails(self, offline, exc, logged):
        offline.store.fail("store_message", exc)
        refusal = offline.refused()
        assert str(refusal) == "Error saving to database"
        assert (refusal.status_code, refusal.errno) == (503, 201)
        assert (refusal.response_body, refusal.log_exception) == ("Retry Request", logged)


class TestRoom:
    """What may wait is bounded where it is accepted (decisions/quotas)."""

    FULL = "Too much is waiting: 100 messages are waiting for this user agent already"

    def assert_full(self, refusal, text=FULL):
        assert (refusal.status_code, refusal.errno, refusal.log_exception) == (429, 203, False)
        assert refusal.response_body == text
        assert refusal.headers == {"Retry-After": "300"}

    def test_no_room_in_the_store(self, offline):
        offline.store.refusal = lambda notification: UserFull("2 bytes are waiting")
        self.assert_full(offline.refused(), "Too much is waiting: 2 bytes are waiting")
        assert offline.rows() == []
        assert offline.refused(ttl=0).status_code == 201  # needs none
        assert offline.refused(ttl=None).status_code == 400

    def test_a_message_delivered_at_once_needs_none(self, rig):
        rig.store.refusal = lambda notification: UserFull("x")
        assert rig.route().status_code == 201

    def test_a_store_that_can_t_tell(self, offline):
        def refusal(notification):
            raise StoreError("closed")

        offline.store.refusal = refusal
        assert offline.refused().status_code == 503

    def test_msg_limit_of_one_who_is_away(self, offline):
        for _ in range(100):
            assert offline.route().status_code == 201
        self.assert_full(offline.refused())
        self.assert_full(offline.refused())
        assert len(offline.rows()) == 100

    def test_one_who_was_connected_meanwhile_may_have_read_them(self, offline):
        for _ in range(100):
            offline.route()
        offline.add_user(connected_at=CONNECTED_AT + 1)
        assert offline.route().status_code == 201

    def test_nothing_is_known_of_one_who_is_connected(self, rig):
        rig.agent.answers["push"] = 503
        for _ in range(150):
            assert rig.route().status_code == 201
        assert {row.live for row in rig.rows()} == {1}

    def test_a_replaced_topic_counts_once(self, offline):
        for _ in range(150):
            assert offline.route(topic="t").status_code == 201
        for _ in range(99):
            offline.route()
        self.assert_full(offline.refused())
        assert offline.route(topic="t").status_code == 201

    def test_what_was_not_stored_does_not_count(self, offline):
        offline.store.fail("store_message", *[StoreBusy()] * 100)
        for _ in range(100):
            assert offline.refused().status_code == 503
        assert offline.route().status_code == 201


class TestUrgency:
    """spec/broadcasts 2"""

    def test_what_the_record_does_not_ask_for_is_only_stored(self, rig):
        rig.add_user(node_id=REMOTE, urgency="normal")
        assert rig.route(urgency=LOW).status_code == 201
        assert rig.agent.requests == []
        (row,) = rig.rows()
        assert (row.urgency, row.live) == ("low", 1)
        assert rig.route(urgency=NORMAL).status_code == 201
        assert len(rig.agent.requests) == 1

    @pytest.mark.parametrize("value", [None, "", "urgent", 3])
    def test_a_record_with_something_else_asks_for_everything(self, rig, value):
        rig.add_user(node_id=REMOTE, urgency=value)
        rig.route(urgency=VERY_LOW)
        assert len(rig.agent.requests) == 1

    def test_nodes_are_told_of_what_is_not_normal(self, rig):
        for level, told in enumerate(("very-low", "low", None, "high")):
            rig.route(urgency=level)
            assert json.loads(rig.agent.requests[-1][2]).get("urgency") == told

    def test_a_ttl_of_0_is_dropped(self, rig):
        rig.add_user(node_id=REMOTE, urgency="normal")
        assert rig.refused(urgency=LOW, ttl=0).status_code == 201
        assert (rig.rows(), rig.agent.requests) == ([], [])

    def test_the_minimum_that_counts_is_that_after_the_write(self, rig):
        rig.add_user(node_id=REMOTE, urgency="normal")
        stale = rig.user()
        rig.add_user(node_id=REMOTE, urgency="low")
        rig.agent.answers["notif"] = 200
        rig.route(urgency=LOW, user=stale)
        assert [url.split("/")[3] for _, url, _ in rig.agent.requests] == ["notif"]

    def test_what_waits_for_one_who_is_connected_is_bounded(self, rig):
        rig.add_user(node_id=REMOTE, urgency="high")
        for _ in range(100):
            assert rig.route(urgency=NORMAL).status_code == 201
        refusal = rig.refused(urgency=NORMAL)
        assert (refusal.status_code, refusal.errno) == (429, 203)
        assert rig.route(urgency=HIGH).status_code == 201


class TestUserWhoMovesMeanwhile:
    """spec/storage S17: the record read before names a month that nobody reads any more."""

    OLD = "message_2026_10"

    def stale(self, rig):
        return {**rig.user(), "current_month": self.OLD}

    def test_message_follows(self, offline):
        response = offline.route(user=self.stale(offline))
        assert response.status_code == 201
        assert [row.update_id for row in offline.rows()] == [offline.notification.update_id]
        assert offline.store.messages[self.OLD, UAID] == {}  # or a later look would find it again

    @pytest.mark.parametrize(("exc", "logged"), [(StoreBusy(), False), (StoreError(), True)])
    def test_message_that_can_t_follow_is_not_accepted(self, offline, exc, logged):
        offline.store.fail("carry_late", exc)
        refusal = offline.refused(user=self.stale(offline))
        assert (refusal.status_code, refusal.errno, refusal.log_exception) == (503, 201, logged)


class TestCheck:
    """Section 3.1 steps 4 to 6"""

    @pytest.fixture
    def reconnecting(self, offline):
        """The user connects while its message is stored."""
        offline.store.hold("store_message")
        self.results: list[Any] = []
        offline.start().addBoth(self.results.append)
        offline.add_user(node_id=REMOTE)
        return offline

    def finish(self, rig):
        rig.store.release("store_message")
        return self.results[0]

    def test_answer_waits_for_the_store(self, reconnecting):
        assert self.results == []
        assert_stored(reconnecting, self.finish(reconnecting))

    def test_node_looks_at_once(self, reconnecting):
        reconnecting.agent.answers["notif"] = 200
        assert_delivered(reconnecting, self.finish(reconnecting))
        assert len(reconnecting.rows()) == 1
        assert reconnecting.agent.requests == [("PUT", f"{REMOTE}/notif/{UAID}", b"")]

    def test_user_has_left_there(self, reconnecting):
        reconnecting.agent.answers["notif"] = 404
        assert_stored(reconnecting, self.finish(reconnecting))
        assert "node_id" not in reconnecting.store.users[UAID]

    @pytest.mark.parametrize("status", [202, 500])
    def test_node_does_not(self, reconnecting, status):
        reconnecting.agent.answers["notif"] = status
        assert_stored(reconnecting, self.finish(reconnecting))
        assert reconnecting.store.users[UAID]["node_id"] == REMOTE

    def test_node_is_gone(self, reconnecting):
        """B21"""
        reconnecting.agent.answers["notif"] = NodeGone()
        assert_stored(reconnecting, self.finish(reconnecting))
        assert "node_id" not in reconnecting.store.users[UAID]
        assert reconnecting.counted("updates.client.host_gone") == [(1, None)]

    @pytest.mark.parametrize("exc", [StoreBusy(), StoreError()])
    def test_record_can_t_be_read(self, rig, exc):
        rig.agent.answers["push"] = 404
        rig.store.fail("get_user", exc)
        assert_stored(rig, rig.route())
        assert len(rig.agent.requests) == 1

    def test_user_is_deleted(self, reconnecting):
        reconnecting.store.users.clear()
        exc = self.finish(reconnecting).value
        assert str(exc) == "User was deleted"
        assert (exc.status_code, exc.errno, exc.response_body) == (410, 105, "Invalid UAID")
        assert exc.log_exception is False
        assert reconnecting.counted("updates.client.deleted") == [(1, None)]


class TestNodeInThisProcess:
    def test_delivered(self, local):
        assert_delivered(local, local.route())
        assert local.node.delivered == [(UAID, local.notification)]
        assert local.agent.requests == []
        assert local.rows() == []

    @pytest.mark.parametrize("delivery", [Delivery.NOT_CONNECTED, Delivery.BUSY])
    def test_not_delivered(self, local, delivery):
        local.node.delivery = delivery
        assert_stored(local, local.route())
        assert local.node.checked == [UAID]
        assert local.store.users[UAID]["node_id"] == NODE_URL

    def test_looks_at_once(self, local):
        local.node.delivery = Delivery.BUSY
        local.node.check_result = Delivery.DELIVERED
        assert_delivered(local, local.route())
        assert local.counted("ua.notification_check") == [(1, None)]

    def test_looks_later(self, local):
        local.node.delivery = local.node.check_result = Delivery.BUSY
        assert_stored(local, local.route())
        assert local.counted("ua.notification_check") == []

    @pytest.mark.parametrize(("exc", "logged"), [(StoreBusy(), False), (StoreError(), True)])
    def test_sent_but_not_kept(self, local, exc, logged):
        local.node.error = exc
        refusal = local.refused()
        assert (refusal.status_code, refusal.errno) == (503, 201)
        assert (refusal.response_body, refusal.log_exception) == ("Retry Request", logged)

    def test_users_of_other_nodes(self, local):
        local.store.users[UAID]["node_id"] = REMOTE
        assert_delivered(local, local.route())
        assert local.node.delivered == []


class TestRegistration:
    """Section 3: register accepts anything, adds nothing."""

    def test_nothing_happens(self, rig):
        data, response = {"a": 1}, {"b": 2}
        rig.router.register("", router_data=data, app_id="x")
        rig.router.amend_endpoint_response(response, data)
        assert (data, response) == ({"a": 1}, {"b": 2})


class TestRoutersFromConfig:
    """Section 2.2"""

    def test_webpush_always(self, rig):
        routers = routers_from_config(rig.conf, rig.store, rig.agent)
        assert list(routers) == ["webpush"]
        assert isinstance(routers["webpush"], WebPushRouter)

    def test_metrics(self, rig):
        node: Any = FakeNode(Metrics())
        router: Any = routers_from_config(rig.conf, rig.store, None, node)["webpush"]
        assert router.metrics is node.metrics
        router = routers_from_config(rig.conf, rig.store, None, metrics=rig.metrics)["webpush"]
        assert router.metrics is rig.metrics
        router = routers_from_config(rig.conf, rig.store, None)["webpush"]
        assert router.metrics.active is False
