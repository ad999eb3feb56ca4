"""spec/http-endpoint 5 and 13: ``POST /wpush``, from the user's record to the answer."""

import json
import time
from base64 import urlsafe_b64encode

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.logger import capturedLogs

from autopush.exceptions import RouterException, StoreBusy, StoreError
from autopush.router.interface import IRouter, RouterResponse
from autopush.session import Delivery
from autopush.tests.web.support import (
    AES128GCM,
    AESGCM,
    CHID,
    ERROR_URL,
    ORIGIN,
    SENDER,
    UAID,
    Endpoint,
    error,
    refused,
    vapid,
)


@pytest.fixture
def endpoint():
    endpoint = Endpoint()
    endpoint.add_user()
    return endpoint


@pytest.fixture
def offline(endpoint):
    del endpoint.store.users[UAID]["node_id"]
    return endpoint


class FakeRouter(IRouter):
    def __init__(self, result=None):
        self.result = result
        self.routed = []

    def route_notification(self, notification, uaid_data):
        self.routed.append((notification, uaid_data))
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def add_bridge_user(endpoint, router_type, result=None, **record):
    router = FakeRouter(result or RouterResponse(201, logged_status=200))
    endpoint.routers[router_type] = router
    endpoint.store.users[UAID] = {"router_type": router_type, "connected_at": 5, **record}
    return router


class TestUserRecord:
    """Section 5.3"""

    NO_SUBSCRIPTION = (410, 106, "No such subscription")

    def test_unknown_user(self, endpoint):
        endpoint.store.users.clear()
        answer = endpoint.push()
        assert refused(answer) == (410, 103, "UAID not found")
        assert answer.headers["cache-control"] == "max-age=86400"

    @pytest.mark.parametrize("router_type", [None, "", "carrier pigeon"])
    def test_unknown_router_type(self, endpoint, router_type):
        endpoint.store.users[UAID]["router_type"] = router_type
        with capturedLogs() as events:
            assert refused(endpoint.push()) == self.NO_SUBSCRIPTION
        assert endpoint.store.users == {}
        assert endpoint.metrics.of("updates.drop_user") == [(1, ["errno:102"])]
        event = next(e for e in events if e["log_format"] == "Dropping User")
        assert (event["code"], event["uaid_hash"]) == (102, UAID)
        assert event["log_namespace"] == "autopush.web.base.ThreadedValidate"

    def test_no_month(self, endpoint):
        del endpoint.store.users[UAID]["current_month"]
        assert refused(endpoint.push()) == self.NO_SUBSCRIPTION
        assert endpoint.store.users == {}
        assert endpoint.metrics.of("updates.drop_user") == [(1, ["errno:102"])]

    def test_unknown_month(self, endpoint):
        endpoint.store.users[UAID]["current_month"] = "message_1999_01"
        assert refused(endpoint.push()) == self.NO_SUBSCRIPTION
        assert endpoint.store.users == {}
        assert endpoint.metrics.of("updates.drop_user") == [(1, ["errno:103"])]

    def test_unknown_channel(self, endpoint):
        other = CHID.replace("76", "77")
        with capturedLogs() as events:
            answer = endpoint.push(path=endpoint.endpoint(chid=other))
        assert refused(answer) == self.NO_SUBSCRIPTION
        assert endpoint.store.users
        event = next(e for e in events if "Unknown subscription" in e["log_format"])
        assert event["channel_id"] == other

    def test_critical_failure(self, endpoint):
        endpoint.store.users[UAID]["critical_failure"] = "Broken"
        assert refused(endpoint.push()) == (410, 105, "Critical Failure: Broken")

    def test_simplepush_is_webpush(self, endpoint):
        endpoint.store.users[UAID]["router_type"] = "simplepush"
        assert endpoint.push().status == 201
        assert endpoint.store.users[UAID]["router_type"] == "simplepush"
        tags = ["destination:Direct", "router:webpush", "vapid:False"]
        assert endpoint.metrics.of("notification.message.success") == [(1, tags)]

    @pytest.mark.parametrize(
        ("router_type", "data"),
        [
            ("gcm", {"creds": {"senderID": "1"}}),
            ("fcm", {"app_id": "a"}),
            ("apns", {}),
            ("adm", {}),
        ],
    )
    def test_bridges_need_no_channel_and_no_month(self, endpoint, router_type, data):
        """Q18"""
        router = add_bridge_user(endpoint, router_type, router_data=data)
        assert endpoint.push(path=endpoint.endpoint(chid=CHID.replace("76", "77"))).status == 201
        notification, user = router.routed[0]
        assert (notification.uaid.hex, user["uaid"]) == (UAID, UAID)

    @pytest.mark.parametrize(
        ("router_type", "data"), [("gcm", {"creds": {}}), ("gcm", None), ("fcm", {}), ("fcm", None)]
    )
    def test_bridge_without_sender_is_marked_once(self, endpoint, router_type, data):
        """Q36"""
        add_bridge_user(endpoint, router_type, router_data=data)
        expected = (410, 105, "Critical Failure: Missing SenderID")
        assert refused(endpoint.push()) == expected
        assert endpoint.store.users[UAID]["critical_failure"] == "Missing SenderID"
        assert endpoint.store.users[UAID]["connected_at"] == 5
        assert refused(endpoint.push()) == expected
        assert endpoint.store.called("register_user") == 1

    @pytest.mark.parametrize(
        ("router_type", "data"), [("gcm", {"creds": {"senderID": "1"}}), ("fcm", {"app_id": "a"})]
    )
    def test_marked_record_that_was_registered_again(self, endpoint, router_type, data):
        """It is as good as new; another mark is not ours to remove."""
        add_bridge_user(endpoint, router_type, router_data=data)
        user = endpoint.store.users[UAID]
        user["critical_failure"] = "Missing SenderID"
        endpoint.push()
        assert endpoint.metrics.of("notification.message.error") == []
        user["critical_failure"] = "Broken"
        assert refused(endpoint.push()) == (410, 105, "Critical Failure: Broken")

    def test_marking_needs_no_connected_at(self, endpoint):
        add_bridge_user(endpoint, "fcm", connected_at=None)
        del endpoint.store.users[UAID]["connected_at"]
        assert refused(endpoint.push())[1] == 105
        assert endpoint.store.users[UAID]["critical_failure"] == "Missing SenderID"

    @pytest.mark.parametrize(
        ("exc", "expected"),
        [
            (StoreBusy(), (503, 201, "Please slow message send rate")),
            (StoreError(), (503, 202, "Unexpected Error")),
        ],
    )
    def test_store_fails(self, endpoint, exc, expected):
        """Section 11"""
        endpoint.store.fail("get_subscription", exc)
        assert error(endpoint.push()) == expected

    def test_one_read(self, endpoint):
        endpoint.store.calls.clear()
        endpoint.push()
        assert [name for name, _ in endpoint.store.calls] == ["get_subscription"]


class TestNotification:
    """Section 5.7"""

    def test_with_data(self, endpoint):
        before = int(time.time())
        endpoint.push(b"\xff\xfe body", topic="t", **AESGCM)
        uaid, notification = endpoint.node.delivered[0]
        assert uaid == notification.uaid.hex == UAID
        assert str(notification.channel_id) == CHID
        data = urlsafe_b64encode(b"\xff\xfe body").decode().rstrip("=")
        assert (notification.data, notification.topic, notification.ttl) == (data, "t", 60)
        assert notification.headers == {
            "encoding": "aesgcm",
            "encryption": "keyid=p256dh;salt=S3Y5cEV0Y0pWcGZFRFFrSA",
            "crypto_key": AESGCM["crypto_key"].replace('"', ""),
        }
        assert before <= notification.timestamp <= time.time()

    def test_encryption_key_is_kept_as_it_is(self, endpoint):
        """Q11"""
        endpoint.push(
            b"x",
            content_encoding="aesgcm128",
            encryption='salt="asdf==="',
            encryption_key='keyid=p;dh="abc=="',
        )
        assert endpoint.node.delivered[0][1].headers == {
            "encoding": "aesgcm128",
            "encryption": "salt=asdf",
            "encryption_key": 'keyid=p;dh="abc=="',
        }

    def test_without_data(self, endpoint):
        endpoint.push(**AESGCM)
        notification = endpoint.node.delivered[0][1]
        assert (notification.data, notification.headers) == (None, None)

    def test_data_of_any_content_type(self, endpoint):
        endpoint.push(b"a=b&c", content_type="application/x-www-form-urlencoded", **AES128GCM)
        assert endpoint.node.delivered[0][1].data == "YT1iJmM"


class TestRouting:
    """Sections 5.8 and 5.9"""

    def test_delivered(self, endpoint):
        answer = endpoint.push(b"x", **AES128GCM)
        message_id = endpoint.node.delivered[0][1].message_id
        assert (answer.status, answer.body) == (201, b"")
        assert answer.headers["location"] == f"{ORIGIN}/m/{message_id}"
        assert answer.headers["ttl"] == "60"
        assert answer.headers["content-type"] == "text/html; charset=UTF-8"
        assert endpoint.messages() == []

    def test_stored(self, offline):
        answer = offline.push(b"x", **AES128GCM)
        assert (answer.status, answer.body, answer.headers["ttl"]) == (201, b"", "60")
        row = offline.messages()[0]
        assert answer.headers["location"] == f"{ORIGIN}/m/{row.update_id}"

    def test_dropped(self, offline):
        answer = offline.push(ttl="0")
        assert (answer.status, answer.body, answer.headers["ttl"]) == (
            201,
            b"Finished Routing",
            "0",
        )
        assert "/m/" in answer.headers["location"]
        assert offline.messages() == []

    def test_answer_later(self, endpoint):
        later: Deferred[RouterResponse] = Deferred()
        add_bridge_user(endpoint, "apns", later)
        with pytest.raises(IndexError):
            endpoint.push()
        later.callback(RouterResponse(200, "late"))
        answer = endpoint.wire.answers("POST")[0]
        assert (answer.status, answer.body) == (200, b"late")

    def test_no_router_for_the_type(self, endpoint):
        add_bridge_user(endpoint, "apns")
        del endpoint.routers["apns"]
        assert error(endpoint.push()) == (500, 999, "An unexpected server error occurred.")

    def test_router_drops_the_user(self, endpoint):
        add_bridge_user(
            endpoint, "apns", succeed(RouterResponse(410, "gone", router_data={}, errno=106))
        )
        with capturedLogs() as events:
            assert error(endpoint.push()) == (410, 106, "gone")
        assert endpoint.store.users == {}
        event = next(e for e in events if e["log_format"] == "Dropping User")
        assert (event["code"], event["uaid_hash"]) == (100, UAID)
        assert endpoint.metrics.of("notification.request_time") == []

    def test_router_changes_the_user(self, endpoint):
        data = {"token": "new"}
        add_bridge_user(
            endpoint,
            "apns",
            RouterResponse(201, router_data=data, logged_status=200),
            router_data={"token": "old", "more": 1},
        )
        before = int(time.time() * 1000)
        assert endpoint.push().status == 201
        user = endpoint.store.users[UAID]
        assert user["router_data"] == data
        assert user["connected_at"] >= before
        assert len(endpoint.metrics.of("notification.request_time")) == 1

    def test_change_of_the_user_fails(self, endpoint):
        add_bridge_user(endpoint, "apns", RouterResponse(201, router_data={"a": 1}))
        endpoint.store.fail("register_user", StoreBusy())
        assert error(endpoint.push()) == (500, 999, "An unexpected server error occurred.")

    def test_bridge_says_gone(self, endpoint):
        """Q3"""
        add_bridge_user(endpoint, "apns", RouterException("gone", status_code=410, errno=106))
        assert error(endpoint.push()) == (410, 106, "gone")
        assert endpoint.store.users == {}

    def test_storing_fails(self, offline):
        offline.store.fail("store_message", StoreBusy())
        assert error(offline.push()) == (503, 201, "Retry Request")

    def test_direct_message_can_t_be_kept(self, endpoint):
        endpoint.node.error = StoreError("disk full")
        assert error(endpoint.push()) == (503, 201, "Retry Request")


class TestMetrics:
    """Section 13.3, spec/observability 8"""

    def error_tags(self, endpoint):
        return [tags for _, tags in endpoint.metrics.of("notification.message.error")]

    def test_delivered(self, endpoint):
        endpoint.push(b"x", authorization=vapid(), **AES128GCM)
        assert endpoint.metrics.of("updates.notification.encoding.aes128gcm") == [(1, None)]
        assert endpoint.metrics.of("notification.message_data") == [(2, ["destination:Direct"])]
        tags = ["destination:Direct", "router:webpush", "vapid:True"]
        assert endpoint.metrics.of("notification.message.success") == [(1, tags)]
        assert 0 <= endpoint.metrics.of("notification.request_time")[0][0] < 60

    def test_route_time_for_those_who_keep_histograms(self, endpoint):
        observed = []
        endpoint.metrics.observe = lambda *args: observed.append(args)
        endpoint.push(b"x", **AES128GCM)
        assert observed == []
        endpoint.metrics.histograms = True
        endpoint.push(b"x", **AES128GCM)
        ((name, seconds),) = observed
        assert name == "notification.route_time"
        assert 0 <= seconds < 60

    def test_stored(self, offline):
        """Q5"""
        offline.push()
        tags = ["destination:Stored", "router:webpush", "vapid:False"]
        assert offline.metrics.of("notification.message.success") == [(1, tags)]
        assert offline.metrics.of("notification.message_data") == [(0, ["destination:Stored"])]

    def test_no_encoding_without_data(self, endpoint):
        endpoint.push(**AES128GCM)
        assert endpoint.metrics.of("updates.notification.encoding.aes128gcm") == []

    def test_refused(self, endpoint):
        """Q4, O3: the router is told as soon as it is known."""
        endpoint.push(path="/wpush/v1/x")
        endpoint.push(ttl="-1")
        assert self.error_tags(endpoint) == [
            ["code:404", "router:None", "vapid:False"],
            ["code:400", "router:webpush", "vapid:False"],
        ]

    def test_refused_by_the_router(self, offline):
        offline.push(ttl=None, authorization=vapid())
        offline.push(ttl=None)
        assert self.error_tags(offline) == [
            ["code:400", "router:webpush", "vapid:True"],
            ["code:400", "router:webpush", "vapid:False"],
        ]

    def test_not_for_field_errors(self, endpoint):
        endpoint.push(ttl="x")
        assert self.error_tags(endpoint) == []


class TestEvents:
    """Section 13, spec/observability 4.2"""

    def event(self, events, text):
        return next(e for e in events if e["log_format"] == text)

    def test_delivered(self, endpoint):
        with capturedLogs() as events:
            endpoint.push(b"x", authorization=vapid(), topic="t", **AES128GCM)
        event = self.event(events, "Successful delivery")
        assert event["log_namespace"].endswith("WebPushHandler")
        info = event["client_info"]
        notification = endpoint.node.delivered[0][1]
        assert info["message_id"] == info["version"] == notification.message_id
        assert info["uaid_hash"] == UAID
        assert info["channel_id"] == CHID.replace("-", "")
        assert (info["router_key"], info["message_size"], info["message_ttl"]) == (
            "webpush",
            2,
            60,
        )
        assert info["encoding"] == "aes128gcm"
        assert (info["jwt_aud"], info["jwt_sub"]) == (ORIGIN, "mailto:ops@example.com")
        key = urlsafe_b64encode(SENDER.public_key.encode()).decode().rstrip("=")
        assert info["jwt_crypto_key"] == key

    def test_stored(self, offline):
        """O4"""
        with capturedLogs() as events:
            offline.push()
        event = self.event(events, "Router miss, message stored.")
        assert event["client_info"]["encoding"] == ""
        assert [e for e in events if e["log_format"] == "Successful delivery"] == []

    @pytest.mark.parametrize(
        ("connected", "ttl", "status"), [(True, "60", 200), (False, "60", 201), (False, "0", 204)]
    )
    def test_timings(self, endpoint, connected, ttl, status):
        if not connected:
            endpoint.node.delivery = Delivery.NOT_CONNECTED
        with capturedLogs() as events:
            endpoint.push(ttl=ttl)
        event = self.event(events, "Request timings")
        assert event["status_code"] == status
        names = {"validation_time", "request_time"}
        assert set(event["timings"]) == (names if ttl == "0" else names | {"route_time"})

    def test_hashed_uaid(self):
        endpoint = Endpoint(key_hash="SuperSikkret")
        endpoint.add_user()
        with capturedLogs() as events:
            endpoint.push()
        info = self.event(events, "Successful delivery")["client_info"]
        assert len(info["uaid_hash"]) == 64
        assert endpoint.node.delivered[0][0] == UAID

    def test_many_claims(self, endpoint):
        claims = {f"claim{number}": number for number in range(50)}
        with capturedLogs() as events:
            endpoint.push(authorization=vapid(**claims))
        info = self.event(events, "Successful delivery")["client_info"]
        assert len([name for name in info if name.startswith("jwt_")]) == 11

    def test_no_secrets(self, endpoint):
        """Q24"""
        with capturedLogs() as events:
            endpoint.push(authorization=vapid())
        info = self.event(events, "Successful delivery")["client_info"]
        assert endpoint.endpoint()[-40:] not in info["uri"]
        assert "eyJ" not in info["authorization"]


def test_other_methods(endpoint):
    """Section 2, with Allow: Q28"""
    answer = endpoint.request("PUT", endpoint.endpoint())
    assert error(answer) == (405, 999, "The route has no such method")
    assert set(answer.headers["allow"].split(", ")) == {"POST", "HEAD", "OPTIONS"}


def test_cors_headers(endpoint):
    """Section 3.3, with what RFC 8030, 8291 and 8292 have in addition (Q29)."""
    answer = endpoint.push()
    assert answer.headers["access-control-allow-headers"] == (
        "content-encoding,encryption,crypto-key,ttl,encryption-key,content-type,authorization,topic,"
        "urgency,prefer"
    )
    assert answer.headers["access-control-expose-headers"] == (
        "location,www-authenticate,link,ttl,retry-after"
    )
    assert answer.headers["access-control-allow-methods"] == "POST"


def test_error_body_is_exact(endpoint):
    """As recorded: ep_vapid/form_vapid_trailing_comma_v1"""
    answer = endpoint.push(authorization="vapid t=x,k=y,")
    assert json.loads(answer.body) == {
        "errno": 109,
        "message": "Request did not validate missing authorization header: Invalid Auth Token",
        "code": 401,
        "more_info": ERROR_URL,
        "error": "Unauthorized",
    }
