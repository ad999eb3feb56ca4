"""spec/http-endpoint 8 with the real routers of the bridges, and records of old deployments."""

import json
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from automock.running import Automock
from autopush.config import check_router_conf, router_conf_from_options
from autopush.exceptions import StoreError
from autopush.ids import generate_hash
from autopush.tests.message.vapid_support import Sender
from autopush.tests.web.support import CHID, UAID, Endpoint, error, field_errors, refused

APPS = {"gcm": "12345", "fcm": "fcmapp", "adm": "admprofile", "apns": "firefox"}
TOKENS = {
    "gcm": "x" * 8,
    "fcm": "x" * 8,
    "apns": "ab" * 32,
    "adm": "amzn1.adm-registration.v3." + "x" * 256,
}
STORED: dict[str, Any] = {
    "gcm": {"token": TOKENS["gcm"], "creds": {"senderID": "12345"}},
    "fcm": {"token": TOKENS["fcm"], "app_id": "fcmapp"},
    "apns": {"token": TOKENS["apns"], "rel_channel": "firefox"},
    "adm": {"token": TOKENS["adm"], "creds": {"profile": "admprofile"}},
}
"""``router_data`` of section 8.5 (the server key of gcm is no longer in it: B26)."""

OLD_RECORDS: dict[str, Any] = {
    **STORED,
    "gcm": {"token": TOKENS["gcm"], "creds": {"senderID": "12345", "auth": "server-key"}},
    "apns": {**STORED["apns"], "aps": {"alert": {"title": "x"}}},
}
"""The same as 1.58.3 wrote them."""

KEYS = ["newest", "older"]


@pytest.fixture(scope="module")
def router_conf():
    """Settings for all bridges; nothing listens."""
    with tempfile.TemporaryDirectory() as directory:
        automock = Automock(["gcm", "adm", "apns", "fcm"], Path(directory))
        for stand_in in automock.stand_ins.values():
            stand_in.port = 1
        automock.stand_ins["fcm"].write_account()
        options = {
            "gcm_ttl": 60,
            "gcm_dryrun": False,
            "gcm_collapsekey": "simplepush",
            "fcm_ttl": 60,
            "fcm_dryrun": False,
            "fcm_collapsekey": "simplepush",
            "max_data": 4096,
            **automock.options(),
            "fcm_version": 1,
        }
        conf = router_conf_from_options(SimpleNamespace(**options))
        check_router_conf(conf)
        yield conf


@pytest.fixture
def endpoint(router_conf):
    return Endpoint(router_conf=router_conf, bear_hash_key=list(KEYS))


@pytest.fixture(params=APPS)
def bridge(request):
    return request.param


def path(bridge, app=None, uaid=None):
    base = f"/v1/{bridge}/{app or APPS[bridge]}/registration"
    return base if uaid is None else f"{base}/{uaid}"


def register(endpoint, bridge, **body):
    answer = endpoint.request("POST", path(bridge), {"token": TOKENS[bridge], **body})
    assert answer.status == 200, answer
    return json.loads(answer.body)


def auth(uaid, key=KEYS[0]):
    return {"authorization": f"webpush {generate_hash(key, uaid)}"}


class TestNew:
    """Section 8.5"""

    def test_record_is_as_it_was(self, endpoint, bridge):
        body = register(endpoint, bridge)
        user = dict(endpoint.store.users[body["uaid"]])
        assert isinstance(user.pop("connected_at"), int)
        assert len(str(user.pop("last_connect"))) == 12
        expected = {"router_type": bridge, "router_data": STORED[bridge], "expiry": 0}
        assert {name: user[name] for name in expected} == expected
        assert "node_id" not in user and "current_month" not in user

    def test_channel_row(self, endpoint, bridge):
        body = register(endpoint, bridge)
        ((_, uaid), channels) = next(iter(endpoint.store.channels.items()))
        assert uaid == body["uaid"]
        assert {one.replace("-", "") for one in channels.chids} == {body["channelID"]}

    def test_answer(self, endpoint, bridge):
        body = register(endpoint, bridge, channelID=CHID)
        assert body["channelID"] == CHID.replace("-", "")
        assert body["secret"] == generate_hash(KEYS[0], body["uaid"])
        senderid = APPS[bridge] if bridge in ("gcm", "fcm") else None
        assert body.get("senderid") == senderid
        assert endpoint.store.users[body["uaid"]]["router_data"] == {
            **STORED[bridge],
            "channelID": CHID.replace("-", ""),
        }

    def test_key(self, endpoint, bridge):
        body = register(endpoint, bridge, key=Sender().public_key)
        assert "/wpush/v2/" in body["endpoint"]

    def test_aps(self, endpoint):
        body = register(endpoint, "apns", aps={"alert": "x"})
        data = endpoint.store.users[body["uaid"]]["router_data"]
        assert data == {**STORED["apns"], "aps": {"alert": "x"}}

    @pytest.mark.parametrize("method", ["POST", "PUT"])
    def test_refusals_of_the_routers(self, endpoint, bridge, method):
        if method == "PUT":
            uaid, headers = UAID, auth(UAID)
            endpoint.store.users[UAID] = {"router_type": bridge, "connected_at": 1}
        else:
            uaid, headers = None, {}
        answer = endpoint.request(method, path(bridge, uaid=uaid), {}, **headers)
        if bridge == "apns":
            assert refused(answer) == (400, None, "No token registered")
        else:
            text = f"connect info missing {bridge.upper()} Instance 'token'"
            assert refused(answer) == (401, None, text)
        body = {"token": TOKENS[bridge]}
        answer = endpoint.request(method, path(bridge, "unknown", uaid), body, **headers)
        assert refused(answer) == {
            "apns": (400, None, "Unknown release channel specified"),
            "adm": (400, 105, "Invalid ADM Profile"),
        }.get(bridge, (400, 105, "Invalid SenderID"))

    def test_bad_token(self, endpoint, bridge):
        for token in ("short", "with space in it", 5):
            answer = endpoint.request("POST", path(bridge), {"token": token})
            assert "token" in field_errors(answer)["body"]
        assert endpoint.store.users == {}


class TestOrder:
    """Section 8.4, with authorisation first (Q16)"""

    def test_new(self, endpoint, bridge):
        url = path(bridge, "unknown")
        assert refused(endpoint.request("POST", url, b"{"))[2] == "Invalid Request body"
        assert field_errors(endpoint.request("POST", url, {"token": "short"}))

    def test_update(self, endpoint, bridge):
        url = path(bridge, "unknown", UAID)
        bad = {"token": "short"}
        assert refused(endpoint.request("PUT", url, b"{"))[2] == "Invalid Request body"
        assert refused(endpoint.request("PUT", f"{path(bridge)}/x", bad))[0] == 404
        assert refused(endpoint.request("PUT", url, bad))[0] == 401
        assert refused(endpoint.request("PUT", url, bad, **auth(UAID))) == (
            410,
            103,
            "UAID not found",
        )
        endpoint.store.users[UAID] = {"router_type": bridge, "connected_at": 1}
        assert field_errors(endpoint.request("PUT", url, bad, **auth(UAID)))

    @pytest.mark.parametrize("method", ["GET", "DELETE"])
    def test_others(self, endpoint, bridge, method):
        assert refused(endpoint.request(method, f"{path(bridge)}/x"))[0] == 404
        assert refused(endpoint.request(method, path(bridge, uaid=UAID)))[0] == 401
        answer = endpoint.request(method, path(bridge, uaid=UAID), **auth(UAID))
        assert refused(answer)[1] == 103


class TestExistingUsers:
    """A record made by 1.58.3 keeps working"""

    @pytest.fixture
    def old(self, endpoint, bridge):
        """As in spec/storage 2: no ``current_month``, ``expiry`` 0."""
        endpoint.store.users[UAID] = {
            "router_type": bridge,
            "router_data": json.loads(json.dumps(OLD_RECORDS[bridge])),
            "connected_at": 1_600_000_000_000,
            "last_connect": 202009120005,
            "expiry": 0,
        }
        endpoint.store.add_channel(None, UAID, CHID)
        return endpoint

    @pytest.mark.parametrize("key", KEYS)
    def test_channels(self, old, bridge, key):
        """Any key that ever made a secret"""
        answer = old.request("GET", path(bridge, uaid=UAID), **auth(UAID, key))
        assert json.loads(answer.body) == {"uaid": UAID, "channelIDs": [CHID]}

    def test_update(self, old, bridge):
        body = {"token": TOKENS[bridge]}
        answer = old.request("PUT", path(bridge, uaid=UAID), body, **auth(UAID))
        assert (answer.status, answer.body) == (200, b"{}")
        user = old.store.users[UAID]
        assert user["router_data"] == STORED[bridge]
        assert user["connected_at"] > 1_600_000_000_000

    def test_new_channel(self, old, bridge):
        url = f"{path(bridge, uaid=UAID)}/subscription"
        body = json.loads(old.request("POST", url, {}, **auth(UAID)).body)
        assert set(body) == {"uaid", "channelID", "endpoint"}

    def test_delete(self, old, bridge):
        answer = old.request("DELETE", path(bridge, uaid=UAID), **auth(UAID))
        assert (answer.status, answer.body) == (200, b"{}")
        assert old.store.users == {}

    def test_message_is_routed(self, old, bridge):
        routed = []
        router = old.routers[bridge]

        def route(notification, user):
            routed.append(user)
            raise StoreError("enough")

        with mock.patch.object(router, "route_notification", route):
            assert old.push().status == 500
        assert routed[0]["router_data"] == OLD_RECORDS[bridge]


class TestRecordChecks:
    """Section 5.3, rows 3 to 5"""

    DAMAGED = (
        ("gcm", {"token": "x" * 8}),
        ("gcm", {"token": "x" * 8, "creds": {}}),
        ("gcm", {"token": "x" * 8, "creds": None}),
        ("fcm", {"token": "x" * 8}),
    )

    @pytest.mark.parametrize(("bridge", "data"), DAMAGED)
    def test_no_sender_id(self, endpoint, bridge, data):
        endpoint.store.users[UAID] = {
            "router_type": bridge,
            "router_data": data,
            "connected_at": 1_600_000_000_000,
        }
        for _ in range(2):
            answer = endpoint.push()
            assert refused(answer) == (410, 105, "Critical Failure: Missing SenderID")
        user = endpoint.store.users[UAID]
        assert user["critical_failure"] == "Missing SenderID"
        assert user["router_data"] == data

    def test_existing_failure_is_kept(self, endpoint):
        endpoint.store.users[UAID] = {
            "router_type": "gcm",
            "router_data": {},
            "connected_at": 1,
            "critical_failure": "Other",
        }
        assert refused(endpoint.push()) == (410, 105, "Critical Failure: Other")

    def test_any_type_with_a_failure(self, endpoint, bridge):
        endpoint.store.users[UAID] = {
            "router_type": bridge,
            "router_data": STORED[bridge],
            "connected_at": 1,
            "critical_failure": "x",
        }
        assert refused(endpoint.push()) == (410, 105, "Critical Failure: x")


def test_type_without_router_here(endpoint):
    """Section 5.8"""
    endpoint.store.users[UAID] = {
        "router_type": "adm",
        "router_data": STORED["adm"],
        "connected_at": 1,
    }
    del endpoint.routers["adm"]
    assert error(endpoint.push())[:2] == (500, 999)


def test_routers(endpoint):
    assert set(endpoint.routers) == {"webpush", *APPS}
