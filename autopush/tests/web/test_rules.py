"""Requests that are read rule by rule, and the same as schemas."""

import attrs
import pytest
from marshmallow import ValidationError
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from autopush.exceptions import InvalidRequest, StoreBusy
from autopush.tests.web.support import (
    AES128GCM,
    CHID,
    SENDER,
    UAID,
    Endpoint,
    error,
    field_errors,
    refused,
    vapid,
)
from autopush.web.base import BaseWebHandler, threaded_validate
from autopush.web.message import MessageHandler, MessageSchema
from autopush.web.registration import (
    ChannelRegistrationHandler,
    NewRegistrationHandler,
    SubRegistrationHandler,
    UaidRegistrationHandler,
)
from autopush.web.rules import ParsedRequest, RulesSchema, validated
from autopush.web.schemas_registration import (
    NewChidSchema,
    NewRegistrationSchema,
    TokenUpdateSchema,
    UaidSchema,
    UnregisterChidSchema,
)
from autopush.web.webpush import WebPushHandler, WebPushRequestSchema


@pytest.fixture
def endpoint():
    endpoint = Endpoint()
    endpoint.add_user()
    return endpoint


def serve(endpoint, pattern, handler):
    """Let a handler answer a path before all others."""
    endpoint.app.add_routes([(pattern, handler)])
    for routes in endpoint.app._routes.values():
        routes.insert(0, routes.pop())


class Trial(ParsedRequest):
    """What rules of a test need: nothing."""


def handler_of(*rules, answer=None):
    """A handler of a method with these rules."""

    @attrs.define
    class Kind(Trial):
        pass

    Kind.rules = rules

    class Handler(BaseWebHandler):
        _handling_message = True

        @validated(Kind)
        async def post(self, **keywords):
            if answer is not None:
                answer(self)
            self.finish({"keywords": keywords})

    return Handler


def load(schema, request, app):
    """What a schema makes of a request, with a store that answers at once."""
    try:
        schema().process(request, app).send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("waits")


def ask(endpoint, *rules, answer=None, body=b""):
    serve(endpoint, "/trial/(?P<name>[^/]+)", handler_of(*rules, answer=answer))
    return endpoint.request("POST", "/trial/x", body, topic="T")


class TestRules:
    def test_one_after_the_other(self, endpoint):
        def first(request):
            assert request.keywords == {}
            request.keywords["name"] = request.path["name"]

        async def second(request):
            assert request.keywords == {"name": "x"}
            request.keywords["topic"] = request.headers["Topic"]

        def third(request):
            request.keywords["body"] = request.body.decode()

        answer = ask(endpoint, first, second, third, body=b"b")
        assert answer.body == b'{"keywords": {"name": "x", "topic": "T", "body": "b"}}'

    def test_one_may_take_its_time(self, endpoint):
        waiting = Deferred()

        def later(request):
            request.keywords["app"] = request.app is endpoint.app
            return waiting

        with pytest.raises(IndexError):  # there is no answer so far
            ask(endpoint, later)
        waiting.callback("ignored")
        (answer,) = endpoint.wire.answers()
        assert answer.body == b'{"keywords": {"app": true}}'

    @pytest.mark.parametrize("late", [False, True])
    def test_the_first_that_is_broken_is_told(self, endpoint, late):
        def broken(request):
            raise InvalidRequest("first", status_code=418, errno=7)

        async def broken_late(request):
            broken(request)

        def never(request):
            raise AssertionError("called")

        answer = ask(endpoint, broken_late if late else broken, never, answer=never)
        assert refused(answer) == (418, 7, "first")

    def test_field_errors_and_a_store_that_fails(self, endpoint):
        def fields(request):
            raise ValidationError({"headers": {"ttl": ["No."]}})

        def busy(request):
            raise StoreBusy

        assert field_errors(ask(endpoint, fields)) == {"headers": {"ttl": ["No."]}}
        assert error(ask(endpoint, busy))[:2] == (503, 201)

    def test_mistakes_in_rules_and_methods(self, endpoint):
        def mistake(_):
            raise LookupError

        with capturedLogs() as events:
            assert error(ask(endpoint, mistake))[:2] == (500, 999)
            assert error(ask(endpoint, answer=mistake))[:2] == (500, 999)
        assert sum("log_failure" in event for event in events) == 2

    def test_what_is_known_on_the_way_is_in_the_metric(self, endpoint):
        def known(request):
            request.router_type, request.vapid = "fcm", True

        def broken(request):
            raise InvalidRequest("text")

        ask(endpoint, known, broken)
        ask(endpoint, broken)
        assert endpoint.metrics.of("notification.message.error") == [
            (1, ["code:400", "router:fcm", "vapid:True"]),
            (1, ["code:400", "router:None", "vapid:False"]),
        ]


class TestSchemas:
    """The schemas of 1.58.3, in handlers of one's own"""

    def test_a_message(self, endpoint):
        taken = []

        class Own(BaseWebHandler):
            @threaded_validate(WebPushRequestSchema)
            async def post(self, subscription, notification, jwt=None):
                taken.append((subscription, notification, jwt))

        serve(endpoint, r"/wpush/(?:(?P<api_ver>v\d+)\/)?(?P<token>[^\/]+)", Own)
        assert endpoint.push(b"data", authorization=vapid(), **AES128GCM).status == 200
        ((subscription, notification, jwt),) = taken
        assert (subscription["uaid"].hex, str(subscription["chid"])) == (UAID, CHID)
        assert subscription["user_data"]["router_type"] == "webpush"
        assert (notification.ttl, notification.data) == (60, "ZGF0YQ")
        assert jwt["jwt_crypto_key"] == SENDER.public_key and jwt["jwt_data"]["aud"]
        assert endpoint.push().status == 200 and taken[1][2] is None
        assert refused(endpoint.push(ttl="-1"))[1] == 114
        assert field_errors(endpoint.push(ttl="x"))
        assert error(endpoint.push(path="/wpush/v1/none"))[:2] == (404, 102)

    def test_headers_of_any_spelling_and_tags_for_errors(self, endpoint):
        path = {"api_ver": "v1", "token": endpoint.endpoint().rpartition("/")[2]}
        request = {"headers": {"TTL": "5", "ToPiC": "t"}, "body": b"", "path_kwargs": path}
        result = load(WebPushRequestSchema, request, endpoint.app)
        assert (result["notification"].ttl, result["notification"].topic) == (5, "t")
        assert (request["router_type"], request["vapid"]) == ("webpush", False)
        request["headers"]["ttl"] = "-1"
        request["router_type"] = None
        with pytest.raises(InvalidRequest):
            load(WebPushRequestSchema, request, endpoint.app)
        assert request["router_type"] == "webpush"

    @pytest.mark.parametrize(
        ("schema", "handler", "method"),
        [
            (WebPushRequestSchema, WebPushHandler, "post"),
            (MessageSchema, MessageHandler, "delete"),
            (NewRegistrationSchema, NewRegistrationHandler, "post"),
            (UaidSchema, UaidRegistrationHandler, "get"),
            (UaidSchema, UaidRegistrationHandler, "delete"),
            (TokenUpdateSchema, UaidRegistrationHandler, "put"),
            (NewChidSchema, SubRegistrationHandler, "post"),
            (UnregisterChidSchema, ChannelRegistrationHandler, "delete"),
        ],
    )
    def test_they_are_the_rules_of_the_handlers(self, schema, handler, method):
        assert issubclass(schema, RulesSchema)
        wrapper = getattr(handler, method)
        used = dict(zip(wrapper.__code__.co_freevars, wrapper.__closure__, strict=True))
        assert used["kind"].cell_contents is schema.kind
