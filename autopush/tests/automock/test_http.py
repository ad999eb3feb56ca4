"""The stand-ins for GCM, FCM and ADM refuse what the vendors refuse."""

from __future__ import annotations

import json
import ssl

import httpx
import pytest
from google.auth.transport.requests import Request
from google.oauth2.service_account import Credentials

from automock.fcm import SCOPE
from automock.running import Background


@pytest.fixture(scope="module")
def mock():
    with Background("gcm", "fcm_legacy", "fcm", "adm") as started:
        yield started


@pytest.fixture(autouse=True)
def clean(mock):
    for stand_in in mock.automock.stand_ins.values():
        stand_in.reset()


@pytest.fixture(scope="module")
def client(mock):
    context = ssl.create_default_context(cafile=str(mock.automock.authority.ca_file))
    with httpx.Client(verify=context, trust_env=False) as made:
        yield made


class TestFCM:
    """HTTP v1"""

    MESSAGE = {"token": "t", "android": {"ttl": "60s", "priority": "HIGH", "data": {"a": "b"}}}

    @pytest.fixture
    def send(self, mock, client):
        fcm = mock["fcm"]
        credentials = Credentials.from_service_account_file(fcm.account_file, scopes=[SCOPE])
        credentials = credentials.with_claims({"aud": f"{fcm.url}/token"})
        session = Request()
        session.session.trust_env = False
        session.session.verify = str(mock.automock.authority.ca_file)
        credentials.refresh(session)

        def send(content, token=credentials.token, project="automock"):
            return client.post(
                f"{fcm.url}/v1/projects/{project}/messages:send",
                json=content,
                headers={"Authorization": f"Bearer {token}"},
            )

        return send

    def test_accepts(self, send):
        answer = send({"message": self.MESSAGE})
        assert answer.status_code == 200
        assert answer.json()["name"].startswith("projects/automock/messages/")
        answer = send({"message": self.MESSAGE, "validate_only": True})
        assert answer.json()["name"] == "projects/automock/messages/fake_message_id"

    @pytest.mark.parametrize(
        ("message", "field"),
        [
            ({**MESSAGE, "token": ""}, "message.token"),
            ({**MESSAGE, "odd": 1}, "message.odd"),
            ({**MESSAGE, "android": {"ttl": "60"}}, "message.android.ttl"),
            ({**MESSAGE, "android": {"ttl": "2419201s"}}, "message.android.ttl"),
            ({**MESSAGE, "android": {"priority": "x"}}, "message.android.priority"),
            ({**MESSAGE, "android": {"data": {"a": 1}}}, "message.android.data"),
            ({**MESSAGE, "android": {"data": {"a": "x" * 4096}}}, "message"),
            ({**MESSAGE, "android": {"odd": 1}}, "message.android.odd"),
            (None, "message"),
        ],
    )
    def test_invalid_argument(self, send, message, field):
        error = send({"message": message}).json()["error"]
        assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
        assert error["details"][0]["errorCode"] == "INVALID_ARGUMENT"
        assert error["details"][1]["fieldViolations"][0]["field"] == field

    def test_authorization(self, send):
        error = send({"message": self.MESSAGE}, token="x").json()["error"]
        assert (error["code"], error["status"]) == (401, "UNAUTHENTICATED")
        assert send({"message": self.MESSAGE}, project="other").status_code == 403

    def test_bad_assertion(self, mock, client):
        url = f"{mock['fcm'].url}/token"
        grant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
        form = {"grant_type": grant, "assertion": "a.b.c"}
        answer = client.post(url, data=form)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
        assert client.post(url, data={}).json() == {"error": "unsupported_grant_type"}

    def test_next_three_sends_by_control_api(self, mock, send):
        url = f"{mock.automock.control.url}/fcm/next"
        httpx.post(url, json={"error": "UNREGISTERED", "times": 3})
        codes = [send({"message": self.MESSAGE}).status_code for _ in range(4)]
        assert codes == [404, 404, 404, 200]

    def test_expired_token(self, mock, send):
        fcm = mock["fcm"]
        for token in fcm.access_tokens:
            fcm.access_tokens[token] = 0
        assert send({"message": self.MESSAGE}).status_code == 401


class TestGCM:
    def send(self, mock, client, content, key=None, name="gcm"):
        stand_in = mock[name]
        headers = {"Authorization": f"key={key or stand_in.server_key}"}
        return client.post(f"{stand_in.url}{stand_in.path}", json=content, headers=headers)

    @pytest.mark.parametrize(
        ("more", "error"),
        [
            ({"registration_ids": [""]}, "MissingRegistration"),
            ({"time_to_live": 2419201}, "InvalidTtl"),
            ({"data": {"a": 1}}, "InvalidDataKey"),
            ({"data": {"from": "x"}}, "InvalidDataKey"),
            ({"data": {"a": "x" * 6000}}, "MessageTooBig"),
        ],
    )
    def test_errors(self, mock, client, more, error):
        answer = self.send(mock, client, {"registration_ids": ["t"], **more}).json()
        assert (answer["failure"], answer["results"]) == (1, [{"error": error}])

    def test_refuses(self, mock, client):
        assert self.send(mock, client, {"registration_ids": ["t"]}, "wrong").status_code == 401
        for content in ([], {}, {"registration_ids": []}, {"registration_ids": ["t"], "odd": 1}):
            assert self.send(mock, client, content).status_code == 400
        for content in ({}, {"to": "t"}, {"to": "t", "priority": "high", "odd": 1}):
            assert self.send(mock, client, content, name="fcm_legacy").status_code == 400

    def test_legacy_fcm_accepts(self, mock, client):
        content = {"to": "t", "priority": "high", "data": {}}
        answer = self.send(mock, client, content, name="fcm_legacy").json()
        assert (answer["success"], answer["canonical_ids"]) == (1, 0)


class TestADM:
    HEADERS = {
        "X-Amzn-Type-Version": "com.amazon.device.messaging.ADMMessage@1.0",
        "X-Amzn-Accept-Type": "com.amazon.device.messaging.ADMSendResult@1.0",
    }

    def token(self, mock, client, **changes):
        adm = mock["adm"]
        form = {
            "grant_type": "client_credentials",
            "scope": "messaging:push",
            "client_id": adm.client_id,
            "client_secret": adm.client_secret,
            **changes,
        }
        return client.post(f"{adm.url}/auth/O2/token", data=form)

    def send(self, mock, client, content, **headers):
        token = self.token(mock, client).json()["access_token"]
        given = {"Authorization": f"Bearer {token}", **self.HEADERS, **headers}
        url = f"{mock['adm'].url}/messaging/registrations/device/messages"
        return client.post(url, content=json.dumps(content), headers=given)

    def test_accepts(self, mock, client):
        answer = self.send(mock, client, {"data": {"a": "b"}, "expiresAfter": 60})
        assert (answer.status_code, answer.json()) == (200, {"registrationID": "device"})

    @pytest.mark.parametrize(
        ("content", "status", "reason"),
        [
            ({}, 400, "InvalidData"),
            ({"data": {"a": 1}}, 400, "InvalidData"),
            ({"data": {}, "expiresAfter": 2678401}, 400, "InvalidExpiration"),
            ({"data": {}, "consolidationKey": "x" * 65}, 400, "InvalidConsolidationKey"),
            ({"data": {"a": "x" * 6144}}, 413, "MessageTooLarge"),
        ],
    )
    def test_refuses(self, mock, client, content, status, reason):
        answer = self.send(mock, client, content)
        assert (answer.status_code, answer.json()) == (status, {"reason": reason})

    def test_headers(self, mock, client):
        answer = self.send(mock, client, {"data": {}}, Authorization="Bearer x")
        assert (answer.status_code, answer.json()["reason"]) == (401, "AccessTokenExpired")
        answer = self.send(mock, client, {"data": {}}, **{"X-Amzn-Type-Version": "x"})
        assert answer.json()["reason"] == "InvalidType"

    def test_tokens(self, mock, client):
        for changes, error in (
            ({"grant_type": "x"}, "unsupported_grant_type"),
            ({"scope": "x"}, "invalid_scope"),
            ({"client_secret": "x"}, "invalid_client"),
        ):
            assert self.token(mock, client, **changes).json() == {"error": error}
