"""spec/http-endpoint 3 and 11: what all answers of the endpoint have in common."""

import json
from typing import Any

import pytest
from marshmallow import Schema, ValidationError, fields, pre_load
from marshmallow.experimental.context import Context
from twisted.internet.error import ConnectionDone
from twisted.logger import capturedLogs

from autopush.exceptions import InvalidRequest, RouterException, StoreBusy, StoreError
from autopush.httpserver.connection import RETRY_AFTER
from autopush.router.interface import RouterResponse
from autopush.tests.web.support import ERROR_URL, Endpoint, error, field_errors, refused
from autopush.web.base import (
    BaseWebHandler,
    RequestSchema,
    ThreadedValidate,
    loggable_record,
    threaded_validate,
)


class NameSchema(RequestSchema):
    name = fields.String(required=True)

    async def process(self, request, app):
        return self.load(request["headers"])


class Handler(BaseWebHandler):
    act: Any = None
    cors_methods = "GET"

    async def get(self):
        outcome = self.act()
        if outcome is not None:
            await outcome

    @threaded_validate(NameSchema)
    async def post(self, name):
        self._write_response(400, 7, message=f"{name}")

    @threaded_validate(NameSchema())
    async def put(self, name):
        self.act()


@pytest.fixture
def endpoint():
    return Endpoint()


def handle(endpoint, act, method="GET", cls=Handler, **headers):
    handler = type("Handler", (cls,), {"act": act})
    endpoint.app.add_routes([("/test", handler)])
    endpoint.app._routes["test"] = [endpoint.app._routes["test"][-1]]
    return endpoint.request(method, "/test", **headers)


class TestRefusedRequests:
    """``requests.refused``: whatever the reason, once for each answer."""

    @pytest.mark.parametrize(
        ("act", "errno", "code"),
        [
            (lambda self: self._write_response(404, 106), 106, 404),
            (lambda self: self._write_response(410, None), 0, 410),
            (lambda self: self._write_validation_err({"headers": {"ttl": ["no"]}}), 112, 400),
            (lambda self: self._validation_err(InvalidRequest("x", 429, errno=204)), 204, 429),
            (lambda self: self._store_err(StoreBusy("x")), 201, 503),
            (lambda self: self._store_err(StoreError("x")), 202, 503),
            (lambda self: self._router_response(RouterException("x", 413, errno=104), "", 0),
             104, 413),
            (lambda self: self._response_err(ValueError("x")), 999, 500),
        ],
    )  # fmt: skip
    def test_counted_by_errno(self, endpoint, act, errno, code):
        with capturedLogs():
            assert handle(endpoint, act).status == code
        assert endpoint.metrics.of("requests.refused") == [(1, [f"errno:{errno}", f"code:{code}"])]

    def test_what_no_method_answers(self, endpoint):
        assert handle(endpoint, lambda self: None, "DELETE").status == 405
        assert endpoint.request("GET", "/nowhere").status == 404
        assert endpoint.metrics.of("requests.refused") == [
            (1, ["errno:999", "code:405"]),
            (1, ["errno:102", "code:404"]),
        ]

    def test_what_no_handler_sees(self, endpoint):
        endpoint.app.refusal(408, "")
        endpoint.app.refusal(413, "")
        assert endpoint.metrics.of("requests.refused") == [
            (1, ["errno:999", "code:408"]),
            (1, ["errno:104", "code:413"]),
        ]

    def test_good_answers_are_not(self, endpoint):
        handle(endpoint, lambda self: self._success({}))
        assert endpoint.metrics.calls == []


class TestStandardError:
    """Section 3.1"""

    def test_members(self, endpoint):
        answer = handle(endpoint, lambda self: self._write_response(404, 102, message="m"))
        assert json.loads(answer.body) == {
            "code": 404,
            "errno": 102,
            "error": "Not Found",
            "more_info": ERROR_URL,
            "message": "m",
        }
        assert list(json.loads(answer.body))[:2] == ["code", "errno"]
        assert b'{"code": 404, "errno": 102, ' in answer.body
        assert answer.headers["content-type"] == "application/json"

    def test_empty_message_is_left_out(self, endpoint):
        answer = handle(endpoint, lambda self: self._write_response(404, None, message=""))
        assert json.loads(answer.body) == {
            "code": 404,
            "errno": None,
            "error": "Not Found",
            "more_info": ERROR_URL,
        }

    @pytest.mark.parametrize(
        ("status", "reason", "text"),
        [
            (400, "Bad Request", "Bad Request"),
            (401, "Unauthorized", "Unauthorized"),
            (402, "Payment Required", ""),
            (410, "Gone", ""),
            (413, "Request Entity Too Large", "Payload Too Large"),
            (418, "I'm a Teapot", "I'm a teapot"),
            (500, "Internal Server Error", "Internal Server Error"),
            (502, "Bad Gateway", ""),
            (503, "Service Unavailable", "Service Unavailable"),
            (599, "Unknown", ""),
        ],
    )
    def test_reason_and_error_text(self, endpoint, status, reason, text):
        answer = handle(endpoint, lambda self: self._write_response(status, 1))
        assert (answer.status, answer.reason) == (status, reason)
        assert json.loads(answer.body)["error"] == text

    def test_explicit_error_is_also_the_reason(self, endpoint):
        answer = handle(endpoint, lambda self: self._write_response(418, 9, error="Test Error"))
        assert answer.reason == json.loads(answer.body)["error"] == "Test Error"

    def test_410_may_be_cached_for_a_day(self, endpoint):
        answer = handle(endpoint, lambda self: self._write_response(410, 103))
        assert answer.headers["cache-control"] == "max-age=86400"
        answer = handle(endpoint, lambda self: self._write_response(404, 103))
        assert "cache-control" not in answer.headers

    def test_headers_are_attached(self, endpoint):
        answer = handle(
            endpoint, lambda self: self._write_response(503, 1, headers={"Retry-After": 120})
        )
        assert answer.headers["retry-after"] == "120"

    def test_no_metric_of_messages_outside_of_messages(self, endpoint):
        handle(endpoint, lambda self: self._write_response(503, 1))
        assert endpoint.metrics.of("notification.message.error") == []


class TestFieldErrors:
    """Section 3.2, Q8: the standard error, with the members of old beside it"""

    @pytest.mark.parametrize(
        ("errors", "errno", "text"),
        [
            ({"headers": {"ttl": ["No."]}}, 112, "headers.ttl: No."),
            ({"headers": {"topic": ["No."]}}, 113, "headers.topic: No."),
            ({"headers": {"encryption": ["No."]}}, 111, "headers.encryption: No."),
            ({"headers": {"encryption-key": ["No."]}}, 101, "headers.encryption-key: No."),
            ({"body": {"token": ["No.", "Nor."]}}, 108, "body.token: No. Nor."),
            ({"body": {"a": {"b": ["No."]}}}, 108, "body.a.b: No."),
            ({"name": ["No."]}, 108, "name: No."),
            (
                {"headers": {"encryption": ["A."], "ttl": ["B."]}},
                112,
                "headers.encryption: A.; headers.ttl: B.",
            ),
        ],
    )
    def test_answer(self, endpoint, errors, errno, text):
        answer = handle(endpoint, lambda self: self._write_validation_err(errors))
        assert refused(answer) == (400, errno, text)
        assert json.loads(answer.body)["errors"] == errors


class TestFixedHeaders:
    """Section 3.3"""

    CORS = {
        "access-control-allow-origin": "*",
        "access-control-allow-methods": "GET",
        "access-control-allow-headers": "",
        "access-control-expose-headers": "",
    }

    def fixed(self, answer):
        return {
            name: value
            for name, value in answer.headers.items()
            if name.startswith("access-control") or name == "strict-transport-security"
        }

    def test_on_success_and_errors(self, endpoint):
        sts = {"strict-transport-security": "max-age=31536000;includeSubDomains"}
        assert self.fixed(handle(endpoint, lambda self: None)) == {**self.CORS, **sts}
        answer = handle(endpoint, lambda self: self._write_response(500, 1))
        assert self.fixed(answer) == {**self.CORS, **sts}

    def test_without_cors(self):
        answer = handle(Endpoint(cors=False, sts_max_age=60), lambda self: None)
        assert self.fixed(answer) == {"strict-transport-security": "max-age=60;includeSubDomains"}

    def test_without_sts(self):
        answer = handle(Endpoint(sts_max_age=0), lambda self: None)
        assert self.fixed(answer) == self.CORS

    @pytest.mark.parametrize("method", ["OPTIONS", "HEAD"])
    def test_options_and_head_validate_nothing(self, endpoint, method):
        answer = endpoint.request(method, "/v1/webpush/app/registration/nope/subscription")
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["access-control-allow-methods"] == "POST"

    def test_not_on_405(self, endpoint):
        answer = handle(endpoint, lambda self: None, method="DELETE")
        assert self.fixed(answer) == {}
        assert error(answer) == (405, 999, "The route has no such method")
        assert set(answer.headers["allow"].split(", ")) >= {"GET", "HEAD", "OPTIONS"}


class TestChallenge:
    """RFC 9110 15.5.2: a 401 says how to authenticate."""

    def test_every_401(self, endpoint):
        answer = handle(endpoint, lambda self: self._write_response(401, 109))
        assert answer.headers["www-authenticate"] == "webpush"

    def test_of_a_handler(self, endpoint):
        class Other(Handler):
            challenge = "vapid"

        answer = handle(endpoint, lambda self: self._write_response(401, 109), cls=Other)
        assert answer.headers["www-authenticate"] == "vapid"

    def test_not_on_others(self, endpoint):
        answer = handle(endpoint, lambda self: self._write_response(403, 109))
        assert "www-authenticate" not in answer.headers


class TestPreflight:
    """What only a browser that asks before it sends needs to know."""

    def test_may_be_remembered_for_a_day(self, endpoint):
        answer = endpoint.request("OPTIONS", endpoint.endpoint())
        assert answer.headers["access-control-max-age"] == "86400"

    def test_not_on_answers(self, endpoint):
        assert "access-control-max-age" not in endpoint.push().headers

    def test_not_without_cors(self):
        endpoint = Endpoint(cors=False)
        answer = endpoint.request("OPTIONS", endpoint.endpoint())
        assert "access-control-max-age" not in answer.headers


class TestNotFound:
    """Section 2, R8"""

    @pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
    def test_answer(self, endpoint, method):
        answer = endpoint.request(method, "/v1/webpush//registration")
        assert (answer.status, answer.reason) == (404, "Page not found")
        assert error(answer) == (404, 102, "There is no such route")
        assert json.loads(answer.body)["error"] == "Page not found"
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        assert "access-control-allow-origin" not in answer.headers

    @pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PATCH"])
    def test_other_methods(self, endpoint, method):
        answer = endpoint.request(method, "/nowhere")
        assert answer.status == 405
        if method != "HEAD":
            assert error(answer) == (405, 999, "The route has no such method")

    def test_path_that_is_not_utf8(self, endpoint):
        """Q12"""
        assert endpoint.request("POST", "/wpush/v1/%ff").status == 404


class TestValidation:
    """Section 11: a failed validation."""

    def test_result_becomes_keywords(self, endpoint):
        assert error(handle(endpoint, None, "POST", name="x")) == (400, 7, "x")

    def test_field_errors(self, endpoint):
        answer = handle(endpoint, None, "POST")
        assert field_errors(answer) == {"name": ["Missing data for required field."]}

    def test_schema_instance_or_class(self):
        assert isinstance(ThreadedValidate(NameSchema).schema, NameSchema)
        schema = NameSchema()
        assert ThreadedValidate(schema).schema is schema

    @pytest.mark.parametrize("made", [lambda cls: cls, lambda cls: cls()])
    def test_any_schema_and_a_plain_method(self, endpoint, made):
        class Plain(Schema):
            arguments = fields.Dict()
            body = fields.Raw()
            uuid = fields.UUID(allow_none=True)

        class Answering(BaseWebHandler):
            @threaded_validate(made(Plain))
            def post(self, arguments, body, uuid=None):
                self.finish({"arguments": arguments, "body": body.decode(), "uuid": uuid})

        endpoint.app.add_routes([("/plain", Answering)])
        endpoint.app._routes["plain"] = [endpoint.app._routes["plain"][-1]]
        answer = endpoint.request("POST", "/plain?a=1&a=2&b=", b"text")
        assert json.loads(answer.body) == {
            "arguments": {"a": ["1", "2"], "b": [""]},
            "body": "text",
            "uuid": None,
        }

    def test_any_schema_finds_the_application_in_its_context(self, endpoint):
        seen = []

        class Plain(Schema):
            @pre_load
            def look(self, data, **kwargs):
                seen.append(Context.get())
                return data

        class Answering(BaseWebHandler):
            @threaded_validate(Plain)
            def get(self):
                self.finish()

        assert handle(endpoint, None, cls=Answering).status == 200
        app = endpoint.app
        assert {name: seen[0][name] for name in ("conf", "db", "metrics", "routers")} == {
            "conf": app.conf,
            "db": app.db,
            "metrics": app.metrics,
            "routers": app.routers,
        }
        assert seen[0]["log"].namespace == ThreadedValidate.log.namespace

    def test_any_schema_s_field_errors(self, endpoint):
        class Plain(Schema):
            uuid = fields.UUID(required=True)

        class Answering(BaseWebHandler):
            @threaded_validate(Plain)
            def get(self, uuid):
                raise AssertionError("called")

        answer = handle(endpoint, None, cls=Answering)
        assert field_errors(answer) == {"uuid": ["Missing data for required field."]}

    def test_a_plain_method_may_answer_later(self, endpoint):
        waiting = []

        class Answering(BaseWebHandler):
            @threaded_validate(NameSchema)
            def get(self, name):
                waiting.append(self)

        class Failing(BaseWebHandler):
            @threaded_validate(NameSchema)
            def get(self, name):
                raise LookupError

        with pytest.raises(IndexError):  # there is no answer so far
            handle(endpoint, None, cls=Answering, name="x")
        waiting[0].finish("later")
        assert endpoint.wire.answers()[0].body == b"later"
        with capturedLogs():
            assert error(handle(endpoint, None, cls=Failing, name="x"))[0] == 500

    def fails_with(self, endpoint, exc):
        def act(self):
            raise exc

        class Failing(RequestSchema):
            async def process(self, request, app):
                raise exc

        class Refusing(BaseWebHandler):
            @threaded_validate(Failing)
            async def get(self):
                raise AssertionError("called")

        return handle(endpoint, act, cls=Refusing)

    def test_rule_with_its_own_error(self, endpoint):
        exc = InvalidRequest("text", status_code=401, errno=109, headers={"www-authenticate": "w"})
        answer = self.fails_with(endpoint, exc)
        assert refused(answer) == (401, 109, "text")
        assert answer.headers["www-authenticate"] == "w"

    def test_event_of_a_broken_rule(self, endpoint):
        with capturedLogs() as events:
            self.fails_with(endpoint, InvalidRequest("{text}", errno=1))
        event = next(e for e in events if "Request validation error" in e["log_format"])
        assert (event["text"], event["status_code"], event["errno"]) == ("{text}", 400, 1)
        assert event["client_info"]["uri"] == "/test"

    def test_store_busy(self, endpoint):
        answer = self.fails_with(endpoint, StoreBusy())
        assert error(answer) == (503, 201, "Please slow message send rate")
        assert answer.headers["retry-after"] == str(RETRY_AFTER)

    def test_store_error(self, endpoint):
        assert error(self.fails_with(endpoint, StoreError("x"))) == (503, 202, "Unexpected Error")

    def test_anything_else(self, endpoint):
        """Braces in the text do no harm (Q35)."""
        with capturedLogs() as events:
            answer = self.fails_with(endpoint, RuntimeError("{x} {"))
        assert error(answer) == (500, 999, "An unexpected server error occurred.")
        event = next(e for e in events if e["log_level"].name == "critical")
        assert (event["text"], event["status_code"], event["errno"]) == ("{x} {", 500, 999)
        assert event["log_failure"].check(RuntimeError)

    def test_exception_in_the_method(self, endpoint):
        def act(self):
            raise KeyError("x")

        answer = handle(endpoint, act, "PUT", name="x")
        assert error(answer) == (500, 999, "An unexpected server error occurred.")

    def test_exception_after_the_answer(self, endpoint):
        def act(self):
            self.finish("done")
            raise KeyError("x")

        with capturedLogs() as events:
            answer = handle(endpoint, act, "PUT", name="x")
        assert (answer.status, answer.body) == (200, b"done")
        failures = [e["log_failure"] for e in events if "log_failure" in e]
        assert [failure.type for failure in failures] == [KeyError]

    def test_closed_connection_is_ignored(self, endpoint):
        def act(self):
            self._response_err(ConnectionDone())

        with capturedLogs() as events:
            handle(endpoint, act, "PUT", name="x")
        assert [e for e in events if e["log_level"].name == "critical"] == []

    def test_timings(self, endpoint):
        with capturedLogs() as events:
            handle(endpoint, None, "POST", name="x")
        event = next(e for e in events if e["log_format"] == "Request timings")
        assert event["status_code"] == 400
        assert set(event["timings"]) == {"validation_time", "request_time"}
        assert all(0 <= value < 60 for value in event["timings"].values())

    def test_nested_messages_are_kept(self, endpoint):
        exc = ValidationError({"body": {"_schema": ["Invalid input type."]}})
        answer = self.fails_with(endpoint, exc)
        assert json.loads(answer.body)["errors"] == exc.messages


class TestRouterResults:
    """Sections 5.8 and 11: what routers answer."""

    def respond(self, endpoint, response):
        return handle(endpoint, lambda self: self._router_response(response, "webpush", None))

    def fail(self, endpoint, exc, **kwargs):
        return handle(endpoint, lambda self: self._router_fail_err(exc, **kwargs))

    def test_success(self, endpoint):
        headers = {"Location": "http://x", "TTL": 60, "Left-Out": None}
        answer = self.respond(endpoint, RouterResponse(201, "text", headers=headers))
        assert (answer.status, answer.body) == (201, b"text")
        assert answer.headers["content-type"] == "text/html; charset=UTF-8"
        assert (answer.headers["location"], answer.headers["ttl"]) == ("http://x", "60")
        assert "left-out" not in answer.headers

    @pytest.mark.parametrize(
        ("logged_status", "destination"),
        [(200, "Direct"), (201, "Stored"), (202, "Stored"), (204, "Direct"), (None, "Direct")],
    )
    def test_destination_tag(self, endpoint, logged_status, destination):
        """Q5, O4"""
        self.respond(endpoint, RouterResponse(201, logged_status=logged_status))
        tags = [f"destination:{destination}", "router:webpush", "vapid:False"]
        assert endpoint.metrics.of("notification.message.success") == [(1, tags)]

    @pytest.mark.parametrize("errno", [None, 0])
    def test_error_without_number(self, endpoint, errno):
        answer = self.respond(endpoint, RouterResponse(502, "text", errno=errno))
        assert error(answer) == (502, 999, "text")

    def test_exception_with_success(self, endpoint):
        answer = self.fail(endpoint, RouterException("text", status_code=201, log_exception=False))
        assert (answer.status, answer.body) == (201, b"text")

    @pytest.mark.parametrize(
        ("status", "level", "text"),
        [
            (503, "critical", "{text}"),
            (404, "debug", "Client error: {text}"),
            (201, "debug", "Success"),
        ],
    )
    def test_logged_as(self, endpoint, status, level, text):
        exc = RouterException("a {b}", status_code=status, errno=5, logged_status=9)
        with capturedLogs() as events:
            self.fail(endpoint, exc)
        event = next(e for e in events if e["log_format"] == text)
        assert event["log_level"].name == level
        assert (event["text"], event["status_code"], event["errno"]) == ("a {b}", status, 5)

    def test_not_logged(self, endpoint):
        with capturedLogs() as events:
            self.fail(endpoint, RouterException("x", status_code=503, log_exception=False))
        assert {e["log_format"] for e in events} == {"Refused", "Request timings"}

    @pytest.mark.parametrize("router_type", ["apns", "fcm", "adm"])
    @pytest.mark.parametrize("status", [404, 410])
    def test_bridge_device_is_gone(self, endpoint, router_type, status):
        """Q3, O1"""
        endpoint.store.users["u"] = {"router_type": router_type}
        exc = RouterException("gone", status_code=status, errno=106)
        answer = self.fail(endpoint, exc, router_type=router_type, uaid="u")
        assert error(answer) == (status, 106, "gone")
        assert endpoint.store.users == {}
        tags = [f"platform:{router_type}", "reason:unregistered", f"error:{status}", "errno:0"]
        assert endpoint.metrics.of("notification.bridge.error") == [(1, tags)]

    @pytest.mark.parametrize("router_type", ["webpush", "gcm"])
    def test_others_are_kept(self, endpoint, router_type):
        endpoint.store.users["u"] = {"router_type": router_type}
        exc = RouterException("gone", status_code=410)
        assert self.fail(endpoint, exc, router_type=router_type, uaid="u").status == 410
        assert endpoint.store.users

    def test_sender_hears_of_it_even_if_the_drop_fails(self, endpoint):
        endpoint.store.fail("drop_user", StoreBusy())
        exc = RouterException("gone", status_code=410, errno=106)
        assert error(self.fail(endpoint, exc, router_type="fcm", uaid="u")) == (410, 106, "gone")


def test_records_in_logs_have_no_secrets():
    """Q24"""
    user = {"uaid": "a0" * 16, "router_type": "fcm", "router_data": {"token": "secret"}}
    text = loggable_record("key", user)
    assert "secret" not in text
    assert "a0" * 16 not in text
    assert "fcm" in text
    assert user["router_data"] == {"token": "secret"}
