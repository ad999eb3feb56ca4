"""spec/http-endpoint 8: the registration API."""

import json
from uuid import UUID

import pytest
from twisted.logger import capturedLogs

from autopush.exceptions import ChannelLimit, RouterException, StoreBusy, StoreError
from autopush.ids import generate_hash
from autopush.tests.message.vapid_support import Sender
from autopush.tests.web.support import CHID, ORIGIN, UAID, Endpoint, error, field_errors, refused
from autopush.web import schemas_registration
from autopush.web.schemas_registration import RegistrationRequest

NEW = "/v1/webpush/app/registration"
USER = f"{NEW}/{UAID}"
SUBSCRIPTION = f"{USER}/subscription"
CHANNEL = f"{SUBSCRIPTION}/{CHID}"
OTHER = "86dfb18c-1eb1-4f92-80a5-7fdf8d462b5c"
KEY = Sender().public_key
AUTH = "webpush secret"
TOKENS = {
    "gcm": "x" * 8,
    "fcm": "x" * 8,
    "apns": "x" * 8,
    "adm": "amzn1.adm-registration.v3." + "x" * 256,
}


@pytest.fixture
def endpoint():
    return Endpoint()


@pytest.fixture
def known(endpoint):
    endpoint.add_user()
    return endpoint


class FakeRouter:
    """A bridge that adds to what it is given."""

    error = None

    def register(self, uaid, router_data, app_id):
        if self.error is not None:
            raise self.error
        self.registered = (uaid, app_id)
        router_data["app"] = app_id

    def amend_endpoint_response(self, response, router_data):
        response["senderid"] = router_data["app"]


def add_bridge(endpoint, router_type, exc=None):
    router = endpoint.routers[router_type] = FakeRouter()
    router.error = exc
    return router


def ok(answer):
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == "application/json"
    return json.loads(answer.body)


class TestNew:
    """Section 8.5"""

    def test_answer(self, endpoint):
        body = ok(endpoint.request("POST", NEW, {}))
        assert list(body) == ["uaid", "secret", "endpoint", "channelID"]
        assert UUID(hex=body["uaid"]).hex == body["uaid"]
        assert UUID(hex=body["channelID"]).hex == body["channelID"]
        assert body["secret"] is None
        assert body["endpoint"].startswith(f"{ORIGIN}/wpush/v1/")
        token = body["endpoint"].rpartition("/")[2]
        assert len(token) == 140
        opened = endpoint.conf.fernet.decrypt(token)
        assert opened.hex() == body["uaid"] + body["channelID"]

    def test_secret(self):
        """The first key makes it."""
        endpoint = Endpoint(bear_hash_key=["one", "two"])
        body = ok(endpoint.request("POST", NEW, {}))
        assert body["secret"] == generate_hash("one", body["uaid"])

    def test_record(self, endpoint):
        """With a month: Q14"""
        body = ok(endpoint.request("POST", NEW, {"token": "t", "unknown": 1}))
        user = dict(endpoint.store.users[body["uaid"]])
        assert 1_700_000_000_000 < user.pop("connected_at") < 10**14
        assert len(str(user.pop("last_connect"))) == 12
        assert user == {
            "router_type": "webpush",
            "router_data": {"token": "t"},
            "expiry": 0,
            "current_month": endpoint.month,
            "record_version": 1,
        }
        channels = endpoint.store.channels[endpoint.month, body["uaid"]]
        assert channels.chids == {str(UUID(body["channelID"]))}

    def test_messages_are_accepted(self, endpoint):
        """Q14"""
        body = ok(endpoint.request("POST", NEW, {}))
        assert endpoint.push(path=body["endpoint"].removeprefix(ORIGIN)).status == 201
        assert len(endpoint.messages(body["uaid"])) == 1

    @pytest.mark.parametrize("chid", [CHID, CHID.replace("-", ""), CHID.upper(), f"{{{CHID}}}"])
    def test_chosen_channel(self, endpoint, chid):
        body = ok(endpoint.request("POST", NEW, {"channelID": chid}))
        assert body["channelID"] == CHID.replace("-", "")
        assert endpoint.store.users[body["uaid"]]["router_data"] == {
            "channelID": CHID.replace("-", "")
        }

    def test_key(self, endpoint):
        body = ok(endpoint.request("POST", NEW, {"key": KEY}))
        assert body["endpoint"].startswith(f"{ORIGIN}/wpush/v2/")
        assert endpoint.store.users[body["uaid"]]["router_data"] == {"key": KEY}

    @pytest.mark.parametrize("key", ["", None])
    def test_empty_key_counts_as_none(self, endpoint, key):
        """Q38"""
        body = ok(endpoint.request("POST", NEW, {"key": key}))
        assert body["endpoint"].startswith(f"{ORIGIN}/wpush/v1/")

    @pytest.mark.parametrize("key", [KEY + "=\n", " " + KEY + "\n", KEY + "\u00e9"])
    def test_foreign_characters_in_a_key_are_skipped(self, endpoint, key):
        assert "/wpush/v2/" in ok(endpoint.request("POST", NEW, {"key": key}))["endpoint"]

    @pytest.mark.parametrize("key", ["a", "abcde", "a!b=", "!!!!", "AAAA", KEY[:-2], KEY + "AAAA"])
    def test_bad_key(self, endpoint, key):
        """Before anything is written: Q12, Q13"""
        answer = endpoint.request("POST", NEW, {"key": key})
        assert refused(answer) == (400, 108, "Invalid key: not a P-256 point")
        assert endpoint.store.users == endpoint.store.channels == {}

    def test_bridge(self, endpoint):
        router = add_bridge(endpoint, "fcm")
        body = ok(endpoint.request("POST", "/v1/fcm/app%20id/registration", {"token": "x" * 8}))
        assert body["senderid"] == "app id"
        assert router.registered == ("", "app id")
        user = endpoint.store.users[body["uaid"]]
        assert user["router_data"] == {"token": "x" * 8, "app": "app id"}
        assert "current_month" not in user

    def test_bridge_refuses(self, endpoint):
        exc = RouterException("no {}", status_code=410, errno=105, headers={"X-A": "b"})
        add_bridge(endpoint, "gcm", exc)
        answer = endpoint.request("POST", "/v1/gcm/a/registration", {"token": "x" * 8})
        assert refused(answer) == (410, 105, "no {}")
        assert answer.headers["x-a"] == "b"
        assert endpoint.store.users == {}

    @pytest.mark.parametrize("operation", ["register_user", "add_channel"])
    def test_store_fails(self, endpoint, operation):
        endpoint.store.fail(operation, StoreBusy())
        answer = endpoint.request("POST", NEW, {})
        assert error(answer) == (500, 999, "An unexpected server error occurred.")

    def test_needs_no_authorization(self):
        assert Endpoint(bear_hash_key=["key"]).request("POST", NEW, {}).status == 200

    def test_app_id_in_utf8(self, endpoint):
        path = "/v1/webpush/caf%C3%A9/registration"
        assert endpoint.request("POST", path, {}).status == 200


class TestRouterType:
    """Section 8.1"""

    INVALID = (400, 108, "Invalid router")

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", NEW),
            ("PUT", USER),
            ("POST", USER),
            ("GET", USER),
            ("DELETE", USER),
            ("POST", SUBSCRIPTION),
            ("DELETE", CHANNEL),
        ],
    )
    @pytest.mark.parametrize("router_type", ["fcm", "nope", "simplepush"])
    def test_not_configured(self, endpoint, method, path, router_type):
        path = path.replace("webpush", router_type)
        assert refused(endpoint.request(method, path, {})) == self.INVALID

    @pytest.mark.parametrize(("method", "path"), [("POST", NEW), ("PUT", USER)])
    def test_body_for_an_unknown_type_is_not_parsed(self, endpoint, method, path):
        answer = endpoint.request(method, path.replace("webpush", "nope"), b"{")
        assert refused(answer) == self.INVALID
        answer = endpoint.request(method, path.replace("webpush", "fcm"), b"{")
        assert refused(answer) == (400, 108, "Invalid Request body")


class TestBody:
    """Section 8.2"""

    def post(self, endpoint, body, router_type="webpush"):
        if router_type not in endpoint.routers:
            add_bridge(endpoint, router_type)
        return endpoint.request("POST", f"/v1/{router_type}/a/registration", body)

    @pytest.mark.parametrize("body", [b"{", b"\0", b"{'a': 1}", b'{"a": "\xff"}', b"[" * 5000])
    def test_not_json(self, endpoint, body):
        assert refused(self.post(endpoint, body)) == (400, 108, "Invalid Request body")

    @pytest.mark.parametrize("body", [b"", b" \r\n"])
    def test_empty_where_no_member_is_needed(self, endpoint, body):
        assert set(ok(self.post(endpoint, body))) >= {"uaid", "endpoint", "channelID"}

    @pytest.mark.parametrize("router_type", TOKENS)
    def test_empty_where_a_token_is_needed(self, endpoint, router_type):
        answer = self.post(endpoint, b"", router_type)
        assert refused(answer) == (400, 108, "Invalid Request body")

    @pytest.mark.parametrize("body", [b"null", b"[]", b'"x"', b"1"])
    def test_not_an_object(self, endpoint, body):
        errors = field_errors(self.post(endpoint, body))
        assert errors == {"body": {"_schema": ["Invalid input type."]}}

    @pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded"])
    def test_of_any_content_type(self, endpoint, content_type):
        assert endpoint.request("POST", NEW, {}, content_type=content_type).status == 200

    @pytest.mark.parametrize("router_type", TOKENS)
    def test_token(self, endpoint, router_type):
        token = TOKENS[router_type]
        assert self.post(endpoint, {"token": token}, router_type).status == 200
        assert self.post(endpoint, {}, router_type).status == 200
        for wrong in (token[:-1], f"{token[:-1]} "):
            assert field_errors(self.post(endpoint, {"token": wrong}, router_type)) == {
                "body": {"token": ["String does not match expected pattern."]}
            }
        assert field_errors(self.post(endpoint, {"token": None}, router_type)) == {
            "body": {"token": ["Field may not be null."]}
        }

    @pytest.mark.parametrize("token", [None, "", "x y"])
    def test_token_for_webpush(self, endpoint, token):
        assert self.post(endpoint, {"token": token}).status == 200

    @pytest.mark.parametrize("name", ["token", "key"])
    def test_not_text(self, endpoint, name):
        errors = field_errors(self.post(endpoint, {name: 1}))
        assert errors == {"body": {name: ["Not a valid string."]}}

    @pytest.mark.parametrize("chid", ["nope", "", 5, [], CHID[:-1], "1_" + CHID[2:]])
    def test_channel_is_no_uuid(self, endpoint, chid):
        errors = field_errors(self.post(endpoint, {"channelID": chid}))
        assert errors == {"body": {"channelID": ["Not a valid UUID."]}}

    def test_channel_is_null(self, endpoint):
        """Q12"""
        errors = field_errors(self.post(endpoint, {"channelID": None}))
        assert errors == {"body": {"channelID": ["Field may not be null."]}}

    def test_aps(self, endpoint):
        assert self.post(endpoint, {"aps": {"alert": "x"}}, "apns").status == 200
        assert self.post(endpoint, {"aps": None}, "apns").status == 200
        errors = field_errors(self.post(endpoint, {"aps": "x"}, "apns"))
        assert errors == {"body": {"aps": ["Not a valid mapping type."]}}

    def test_several_errors(self, endpoint):
        errors = field_errors(self.post(endpoint, {"token": 1, "channelID": "x"}))
        assert set(errors["body"]) == {"token", "channelID"}


class TestAuthorization:
    """Section 8.3"""

    REQUESTS = (
        ("GET", USER, b""),
        ("PUT", USER, b"{}"),
        ("POST", USER, b"{}"),
        ("DELETE", USER, b""),
        ("POST", SUBSCRIPTION, b"{}"),
        ("DELETE", CHANNEL, b""),
    )

    @pytest.fixture
    def locked(self):
        endpoint = Endpoint(bear_hash_key=["one", "two"])
        endpoint.add_user()
        return endpoint

    def refused_text(self, answer):
        status, errno, text = refused(answer)
        assert (status, errno) == (401, 109)
        assert answer.headers["www-authenticate"] == "webpush"
        return text

    @pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
    def test_missing(self, known, method, path, body):
        assert self.refused_text(known.request(method, path, body)) == "Unauthorized"
        answer = known.request(method, path, body, authorization="")
        assert self.refused_text(answer) == "Unauthorized"

    @pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
    def test_same_for_unknown_users(self, locked, method, path, body):
        """Q16"""
        known = locked.request(method, path, body, authorization="webpush wrong")
        locked.store.users.clear()
        unknown = locked.request(method, path, body, authorization="webpush wrong")
        assert self.refused_text(known) == "Invalid Authentication"
        assert (known.status, known.body) == (unknown.status, unknown.body)

    @pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
    def test_right_secret_of_a_deleted_user(self, locked, method, path, body):
        locked.store.users.clear()
        secret = generate_hash("one", UAID)
        answer = locked.request(method, path, body, authorization=f"webpush {secret}")
        assert refused(answer) == (410, 103, "UAID not found")

    @pytest.mark.parametrize("key", ["one", "two"])
    @pytest.mark.parametrize("form", ["webpush {}", "Bearer {}", "VAPID {}", "webpush    {}"])
    def test_any_key_and_scheme(self, locked, key, form):
        header = form.format(generate_hash(key, UAID))
        assert ok(locked.request("GET", USER, authorization=header))["uaid"] == UAID

    @pytest.mark.parametrize(
        "header", ["webpush", "webpush a b", "basic {}", "{}", "webpush {}x", "webpush \xe9"]
    )
    def test_invalid(self, locked, header):
        header = header.format(generate_hash("one", UAID))
        answer = locked.request("GET", USER, authorization=header)
        assert self.refused_text(answer) == "Invalid Authentication"

    def test_secret_is_made_of_plain_hex(self, locked):
        """Whatever the spelling in the path."""
        header = "webpush " + generate_hash("one", UAID)
        path = USER.replace(UAID, str(UUID(UAID)).upper())
        assert locked.request("GET", path, authorization=header).status == 200

    def test_any_secret_without_keys(self, known):
        """Q17"""
        assert known.request("GET", USER, authorization=AUTH).status == 200
        for header in ("basic x", "webpush", "webpush a b"):
            answer = known.request("GET", USER, authorization=header)
            assert self.refused_text(answer) == "Invalid Authentication"


class TestOrder:
    """Section 8.4, with authorisation before anything about the user (Q16)"""

    def test_json_path_type(self, endpoint):
        bad_path = f"{NEW}/nope"
        assert refused(endpoint.request("PUT", bad_path, b"{"))[2] == "Invalid Request body"
        answer = endpoint.request("PUT", bad_path.replace("webpush", "adm"), {})
        assert refused(answer) == (404, None, "Invalid Path")
        answer = endpoint.request("POST", f"{NEW}/nope/subscription", b"{")
        assert refused(answer)[2] == "Invalid Request body"
        assert refused(endpoint.request("DELETE", f"{SUBSCRIPTION}/nope"))[0] == 404

    def test_authorization_before_field_errors(self, known):
        assert refused(known.request("PUT", USER, {"token": 1}))[0] == 401
        assert refused(known.request("POST", SUBSCRIPTION, {"key": 1}))[0] == 401
        answer = known.request("PUT", USER, {"token": 1}, authorization=AUTH)
        assert field_errors(answer)

    def test_authorization_before_the_router(self, known):
        add_bridge(known, "fcm", RouterException("no", status_code=410))
        path = USER.replace("webpush", "fcm")
        assert refused(known.request("PUT", path, {}))[0] == 401
        assert refused(known.request("PUT", path, {}, authorization=AUTH))[0] == 410

    @pytest.mark.parametrize("uaid", ["nope", "1_" + UAID[2:], UAID[:-1], "%C3%A9"])
    def test_uaid_is_no_uuid(self, endpoint, uaid):
        answer = endpoint.request("GET", f"{NEW}/{uaid}", authorization=AUTH)
        assert refused(answer) == (404, None, "Invalid Path")

    @pytest.mark.parametrize(("exc", "errno"), [(StoreBusy(), 201), (StoreError(), 202)])
    def test_store_fails(self, known, exc, errno):
        """Section 11"""
        known.store.fail("get_user", exc)
        answer = known.request("GET", USER, authorization=AUTH)
        assert error(answer)[:2] == (503, errno)


class TestUser:
    """Section 8.6"""

    def request(self, endpoint, method, body=b"", path=USER):
        return endpoint.request(method, path, body, authorization=AUTH)

    def test_channels(self, known):
        known.store.add_channel(known.month, UAID, OTHER)
        answer = self.request(known, "GET")
        body = ok(answer)
        assert body["uaid"] == UAID
        assert sorted(body["channelIDs"]) == [CHID, OTHER]
        assert answer.headers["etag"]

    def test_slash_behind_the_path(self, known):
        """As the manual of 1.58.3 had the list's."""
        assert ok(self.request(known, "GET", path=f"{USER}/")) == ok(self.request(known, "GET"))
        assert self.request(known, "GET", path=f"{USER}//").status == 404

    def test_no_channels(self, known):
        known.store.channels.clear()
        assert ok(self.request(known, "GET"))["channelIDs"] == []

    def test_channels_of_the_month_of_the_user(self, known):
        """Q21"""
        known.store.months.current = "message_2027_01"
        assert ok(self.request(known, "GET"))["channelIDs"] == [CHID]

    def test_channels_of_a_bridge_user_whatever_the_month(self, known):
        """spec/storage S4"""
        known.store.users[UAID] = {"router_type": "fcm"}
        known.store.channels[None, UAID] = known.store.channels.pop((known.month, UAID))
        known.store.months.current = "message_2027_01"
        assert ok(self.request(known, "GET"))["channelIDs"] == [CHID]

    @pytest.mark.parametrize("method", ["PUT", "POST"])
    def test_update(self, known, method):
        known.store.users[UAID] = {"router_type": "fcm", "router_data": {"old": 1}, "more": 2}
        add_bridge(known, "fcm")
        path = USER.replace("webpush", "fcm")
        assert ok(self.request(known, method, {"token": "y" * 8}, path)) == {}
        user = known.store.users[UAID]
        assert user["router_data"] == {"token": "y" * 8, "app": "app"}
        assert user["more"] == 2
        assert user["connected_at"] > 1_700_000_000_000
        assert len(str(user["last_connect"])) == 12

    def test_update_with_another_type(self, known):
        """Q15"""
        add_bridge(known, "fcm")
        before = dict(known.store.users[UAID])
        answer = self.request(known, "PUT", {"token": "y" * 8}, USER.replace("webpush", "fcm"))
        assert refused(answer) == (400, 108, "Invalid router")
        assert known.store.users[UAID] == before

    def test_update_that_loses(self, known):
        """Q15"""
        known.store.users[UAID]["connected_at"] = 10**15
        answer = self.request(known, "PUT", {})
        assert refused(answer) == (400, 108, "Invalid router")

    def test_delete(self, known):
        with capturedLogs() as events:
            assert ok(self.request(known, "DELETE")) == {}
        assert known.store.users == {}
        event = next(e for e in events if e["log_format"] == "Dropping User")
        assert (event["code"], event["uaid_hash"]) == (101, UAID)
        assert known.store.channels

    def test_delete_of_a_user_that_vanishes(self, known):
        known.store.hold("get_user")
        with pytest.raises(IndexError):
            self.request(known, "DELETE")
        known.store.users.clear()
        with capturedLogs() as events:
            known.store.release("get_user")
        answer = known.wire.answers("DELETE")[0]
        text = "Endpoint has expired. Do not send messages to this endpoint."
        assert error(answer) == (410, 103, text)
        assert "UAID not found in AWS." in [e["log_format"] for e in events]


class TestSubscription:
    """Sections 8.7 and 8.8"""

    def request(self, endpoint, method, path, body=b""):
        return endpoint.request(method, path, body, authorization=AUTH)

    def test_new_channel(self, known):
        body = ok(self.request(known, "POST", SUBSCRIPTION, {}))
        assert set(body) == {"uaid", "channelID", "endpoint"}
        assert body["uaid"] == UAID
        assert str(UUID(body["channelID"])) in known.store.channels[known.month, UAID].chids
        assert known.push(path=body["endpoint"].removeprefix(ORIGIN)).status == 201

    def test_empty_body(self, known):
        body = ok(self.request(known, "POST", SUBSCRIPTION, b""))
        assert str(UUID(body["channelID"])) in known.store.channels[known.month, UAID].chids

    def test_chosen_channel_and_key(self, known):
        body = ok(self.request(known, "POST", SUBSCRIPTION, {"channelID": OTHER, "key": KEY}))
        assert body["channelID"] == OTHER.replace("-", "")
        assert "/wpush/v2/" in body["endpoint"]

    def test_bad_key(self, known):
        """Q13"""
        answer = self.request(known, "POST", SUBSCRIPTION, {"key": "a"})
        assert refused(answer) == (400, 108, "Invalid key: not a P-256 point")
        assert known.store.channels[known.month, UAID].chids == {CHID}

    def test_limit_of_channels(self, known):
        known.store.fail("add_channel", ChannelLimit("10000 channels"))
        answer = self.request(known, "POST", SUBSCRIPTION, {})
        assert refused(answer) == (403, 115, "Too many channels: end some first")

    def test_new_channel_in_the_month_of_the_user(self, known):
        """Q21"""
        old = known.month
        known.store.months.current = "message_2027_01"
        self.request(known, "POST", SUBSCRIPTION, {"channelID": OTHER})
        assert known.store.channels[old, UAID].chids == {CHID, OTHER}

    def test_remove(self, known):
        assert ok(self.request(known, "DELETE", CHANNEL)) == {}
        assert known.store.channels[known.month, UAID].chids == set()
        with capturedLogs() as events:
            answer = self.request(known, "DELETE", CHANNEL)
        assert error(answer) == (410, 106, "Invalid endpoint.")
        event = next(e for e in events if e["log_format"] == "CHID not found in AWS.")
        assert (event["status_code"], event["errno"], event["uri"]) == (410, 106, CHANNEL)

    def test_remove_from_the_month_of_the_user(self, known):
        """Q21"""
        known.store.months.current = "message_2027_01"
        assert ok(self.request(known, "DELETE", CHANNEL)) == {}


class TestDocumentedArguments:
    """spec/python-api 6.2: the methods do with what is documented, without the record"""

    @pytest.fixture(autouse=True)
    def only_the_uaid(self, monkeypatch):
        def authorize(request):
            request.keywords["uaid"] = UUID(request.path["uaid"])

        for kind in RegistrationRequest.__subclasses__():
            usual = schemas_registration.authorize
            rules = [authorize if rule is usual else rule for rule in kind.rules]
            monkeypatch.setattr(kind, "rules", rules)

    @pytest.mark.parametrize("router_type", ["webpush", "fcm"])
    def test_channels_where_the_record_says(self, known, router_type):
        known.store.users[UAID]["router_type"] = router_type
        if router_type == "fcm":
            known.store.channels[None, UAID] = known.store.channels.pop((known.month, UAID))
        known.store.months.current = "message_2027_01"
        add_bridge(known, "fcm")
        assert ok(known.request("GET", USER))["channelIDs"] == [CHID]
        assert ok(known.request("POST", SUBSCRIPTION, {"channelID": OTHER}))
        (channels,) = known.store.channels.values()
        assert channels.chids == {CHID, OTHER}
        assert ok(known.request("DELETE", CHANNEL)) == {}
        assert channels.chids == {OTHER}

    def test_update(self, known):
        assert ok(known.request("PUT", USER, {"token": "new"})) == {}
        assert known.store.users[UAID]["router_data"] == {"token": "new"}
        add_bridge(known, "fcm")
        answer = known.request("PUT", USER.replace("webpush", "fcm"), {"token": "y" * 8})
        assert refused(answer) == (400, 108, "Invalid router")

    def test_delete(self, known):
        assert ok(known.request("DELETE", USER)) == {}
        assert known.store.users == {}


class TestMetricsAndEvents:
    """Section 13, spec/observability 8"""

    FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"

    def test_register(self, endpoint):
        with capturedLogs() as events:
            body = ok(endpoint.request("POST", NEW, {}, user_agent=self.FIREFOX))
        tags = ["ua_os_family:Linux", "ua_browser_family:Firefox", "host:h"]
        assert endpoint.metrics.of("ua.command.register") == [(1, tags)]
        event = next(e for e in events if e["log_format"] == "Register")
        assert event["log_level"].name == "info"
        assert (event["uaid_hash"], event["endpoint"]) == (body["uaid"], body["endpoint"])
        assert event["client_info"]["user_agent"] == self.FIREFOX

    def test_tags_of_odd_clients(self, endpoint):
        """O13"""
        head = f"POST {NEW} HTTP/1.1\r\nHost: a|b_c\r\nUser-Agent: a,b:c|d\r\n"
        endpoint.wire.send(f"{head}Content-Length: 2\r\n\r\n{{}}".encode())
        tags = ["ua_os_family:Other", "ua_browser_family:Other", "host:unknown"]
        assert endpoint.metrics.of("ua.command.register") == [(1, tags)]

    def test_unregister(self, known):
        with capturedLogs() as events:
            known.request("DELETE", CHANNEL, authorization=AUTH)
        assert known.metrics.of("ua.command.unregister") == [(1, ["host:h"])]
        event = next(e for e in events if e["log_format"] == "Unregister")
        assert (event["channel_id"], event["uaid_hash"]) == (CHID.replace("-", ""), UAID)


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        (NEW, "POST"),
        (USER, "GET,POST,PUT,DELETE"),
        (SUBSCRIPTION, "POST"),
        (CHANNEL, "DELETE"),
    ],
)
def test_cors_methods(endpoint, path, methods):
    """Section 3.3"""
    headers = endpoint.request("OPTIONS", path).headers
    assert headers["access-control-allow-methods"] == methods
    assert headers["access-control-allow-headers"] == ""
    assert headers["access-control-expose-headers"] == ""
