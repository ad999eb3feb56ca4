"""The documented Python surface: names, signatures, behaviour (spec/python-api, marks D).

The callback steps (``finish_*``, ``error_*``, ``_*``) are no part of it (decisions/compatibility).
"""

# mypy: disable-error-code="arg-type,no-untyped-def"

from __future__ import annotations

import base64
import importlib
import inspect
import json
from inspect import Parameter
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from cryptography.exceptions import InvalidSignature
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.web.http_headers import Headers

from autopush.config import AutopushConfig, DDBTableConfig, SSLConfig
from autopush.exceptions import RouterException
from autopush.jwt import VerifyJWT
from autopush.main import ConnectionApplication, StandaloneApplication
from autopush.message.encoding import base64url_encode
from autopush.metrics import SinkMetrics
from autopush.router.bridgehttp import Reply
from autopush.router.gcm import GCMRouter
from autopush.router.gcmclient import GCMError, JSONMessage, Result
from autopush.session import Session
from autopush.tests.message.vapid_support import ES256, Sender
from autopush.tests.session.support import CHID, UAID, Rig, ack, message
from autopush.tests.websocket.support import CLOSE, FakeTransport, make_conf, request, say
from autopush.websocket import DEFAULT_WS_ERR, ConnectionWSSite, PushServerFactory

DOCUMENTED = """
autopush.config:SSLConfig(key=None, cert=None, dh_param=None)
autopush.config:SSLConfig.cf(**kwargs)
autopush.config:DDBTableConfig(tablename, read_throughput=5, write_throughput=5)
autopush.config:AutopushConfig.enable_tls_auth
autopush.config:AutopushConfig.from_argparse(ns, **kwargs)
autopush.config:AutopushConfig.make_endpoint(uaid, chid, key=None)
autopush.config:AutopushConfig.parse_endpoint(metrics, token, version='v1', ckey_header=None,\
 auth_header=None)
autopush.exceptions:AutopushException
autopush.exceptions:RouterException(message, status_code=500, response_body='', router_data=None,\
 headers=None, log_exception=True, errno=None, logged_status=None, **kwargs)
autopush.jwt:VerifyJWT.extract_signature(auth)
autopush.jwt:VerifyJWT.extract_assertion(token)
autopush.jwt:VerifyJWT.validate_and_extract_assertion(token, key)
autopush.utils:canonical_url(scheme, hostname, port=None)
autopush.utils:resolve_ip(hostname)
autopush.utils:validate_uaid(uaid)
autopush.utils:generate_hash(key, payload)
autopush.ssl:AutopushSSLContextFactory(*args, **kwargs)
autopush.ssl:AutopushSSLContextFactory.cacheContext()
autopush.protocol:IgnoreBody(response, deferred)
autopush.protocol:IgnoreBody.ignore(response)
autopush.protocol:IgnoreBody.dataReceived(data)
autopush.protocol:IgnoreBody.connectionLost(reason)
autopush.main:AutopushMultiService(conf, resource=None)
autopush.main:AutopushMultiService.parse_args(config_files, args)
autopush.main:AutopushMultiService.setup(rotate_tables=True)
autopush.main:AutopushMultiService.add_maybe_ssl(port, factory, ssl_cf)
autopush.main:AutopushMultiService.add_timer(*args, **kwargs)
autopush.main:AutopushMultiService.add_memusage()
autopush.main:AutopushMultiService.run()
autopush.main:AutopushMultiService._from_argparse(ns, resource=None, **kwargs)
autopush.main:AutopushMultiService.main(args=None, use_files=True, resource=None)
autopush.main:EndpointApplication(conf, resource=None)
autopush.main:EndpointApplication.setup(rotate_tables=True)
autopush.main:EndpointApplication.add_endpoint()
autopush.main:EndpointApplication.from_argparse(ns, resource=None)
autopush.main:ConnectionApplication(conf, resource=None)
autopush.main:ConnectionApplication.setup(rotate_tables=True)
autopush.main:ConnectionApplication.add_internal_router()
autopush.main:ConnectionApplication.add_websocket()
autopush.main:ConnectionApplication.from_argparse(ns, resource=None)
autopush.db:create_router_table(tablename='router', read_throughput=5, write_throughput=5,\
 boto_resource=None)
autopush.db:get_router_table(tablename='router', read_throughput=5, write_throughput=5,\
 boto_resource=None)
autopush.db:preflight_check(message, router, uaid='deadbeef00000000deadbeef00000000')
autopush.db:Router(conf, metrics, resource=None)
autopush.db:Router.get_uaid(uaid)
autopush.db:Router.register_user(data)
autopush.db:Router.drop_user(uaid)
autopush.db:Router.update_message_month(uaid, month)
autopush.db:Router.clear_node(item)
autopush.logging:PushLogger(logger_name, log_level='debug', log_format='json',\
 log_output='stdout', sentry_dsn=None, firehose_delivery_stream=None)
autopush.logging:PushLogger.__call__(event)
autopush.logging:PushLogger.raven_log(event)
autopush.logging:PushLogger.json_format(event)
autopush.logging:PushLogger.start()
autopush.logging:PushLogger.stop()
autopush.logging:PushLogger.setup_logging(logger_name, log_level='info', log_format='json',\
 log_output='stdout', sentry_dsn=None, firehose_delivery_stream=None, no_aws=False)
autopush.logging:FirehoseProcessor(stream_name, maxsize=0)
autopush.logging:FirehoseProcessor.start()
autopush.logging:FirehoseProcessor.stop()
autopush.logging:FirehoseProcessor.process(record)
autopush.metrics:IMetrics(*args, **kwargs)
autopush.metrics:IMetrics.start()
autopush.metrics:IMetrics.increment(name, count=1, **kwargs)
autopush.metrics:IMetrics.gauge(name, count, **kwargs)
autopush.metrics:IMetrics.timing(name, duration, **kwargs)
autopush.metrics:SinkMetrics.increment(name, count=1, **kwargs)
autopush.metrics:SinkMetrics.gauge(name, count, **kwargs)
autopush.metrics:SinkMetrics.timing(name, duration, **kwargs)
autopush.web.base:ThreadedValidate(schema)
autopush.web.base:ThreadedValidate.validate(schema)
autopush.web.base:threaded_validate(schema)
autopush.web.base:BaseWebHandler.cors_methods
autopush.web.base:BaseWebHandler.cors_request_headers
autopush.web.base:BaseWebHandler.cors_response_headers
autopush.web.base:BaseWebHandler.initialize()
autopush.web.base:BaseWebHandler.prepare()
autopush.web.base:BaseWebHandler.options()
autopush.web.base:BaseWebHandler.head()
autopush.web.base:BaseWebHandler.routers
autopush.web.webpush:WebPushHandler.initialize()
autopush.web.webpush:WebPushHandler.post(subscription, notification, jwt=None, **kwargs)
autopush.web.message:MessageHandler.delete(notification)
autopush.web.registration:NewRegistrationHandler.post(router_type, router_data)
autopush.web.registration:UaidRegistrationHandler.get(uaid)
autopush.web.registration:UaidRegistrationHandler.put(router_type, router_data, uaid)
autopush.web.registration:UaidRegistrationHandler.post(router_type, router_data, uaid)
autopush.web.registration:UaidRegistrationHandler.delete(uaid)
autopush.web.registration:SubRegistrationHandler.post(uaid, chid, app_server_key=None)
autopush.web.registration:ChannelRegistrationHandler.delete(uaid, chid)
autopush.web.log_check:LogCheckHandler.authenticate_peer_cert()
autopush.web.log_check:LogCheckHandler.get(err_type=None)
autopush.web.health:HealthHandler.authenticate_peer_cert()
autopush.web.health:HealthHandler.get()
autopush.web.health:StatusHandler.authenticate_peer_cert()
autopush.web.health:StatusHandler.get()
autopush.router.interface:RouterResponse(status_code=200, response_body='', router_data=None,\
 headers=None, errno=None, logged_status=None)
autopush.router.interface:IRouter(conf, router_conf, **kwargs)
autopush.router.interface:IRouter.register(uaid, router_data, app_id, *args, **kwargs)
autopush.router.interface:IRouter.amend_endpoint_response(response, router_data)
autopush.router.interface:IRouter.route_notification(notification, uaid_data)
autopush.router.gcm:GCMRouter(conf, router_conf, metrics)
autopush.router.gcm:GCMRouter.register(uaid, router_data, app_id, *args, **kwargs)
autopush.router.gcm:GCMRouter.amend_endpoint_response(response, router_data)
autopush.router.gcm:GCMRouter.route_notification(notification, uaid_data)
autopush.router.gcmclient:GCM(api_key=None, logger=None, metrics=None,\
 endpoint='gcm-http.googleapis.com/gcm/send', **options)
autopush.router.gcmclient:GCM.send(payload)
autopush.router.gcmclient:GCM.process(response, payload)
autopush.router.gcmclient:GCM.error(failure)
autopush.router.gcmclient:JSONMessage(registration_ids, collapse_key, time_to_live, dry_run, data)
autopush.router.gcmclient:Result(response, message)
autopush.router.gcmclient:Result.parse_response(content, code, message)
autopush.router.fcm:FCMRouter(conf, router_conf, metrics)
autopush.router.apnsrouter:APNSRouter(conf, router_conf, metrics, load_connections=True)
autopush.router.apns2:APNSClient(cert_file, key_file, topic, alt=False, use_sandbox=False,\
 max_connections=20, logger=None, metrics=None, load_connections=True, max_retry=2)
autopush.router.apns2:APNSClient.send(router_token, payload, apns_id, priority=True, topic=None,\
 exp=None)
autopush.websocket:ms_time()
autopush.websocket:log_exception(func)
autopush.websocket:PushServerProtocol.parent_class
autopush.websocket:PushServerProtocol.randrange
autopush.websocket:PushServerProtocol.deferToThread(func, *args, **kwargs)
autopush.websocket:PushServerProtocol.deferToLater(when, func, *args, **kwargs)
autopush.websocket:PushServerProtocol.force_retry(func, *args, **kwargs)
autopush.websocket:PushServerProtocol.base_tags
autopush.websocket:PushServerProtocol.log_failure(failure, **kwargs)
autopush.websocket:PushServerProtocol.paused
autopush.websocket:PushServerProtocol.sendClose(code=None, reason=None)
autopush.websocket:PushServerProtocol.nukeConnection()
autopush.websocket:PushServerProtocol.onConnect(request)
autopush.websocket:PushServerProtocol.processHandshake()
autopush.websocket:PushServerProtocol.onMessage(payload, isBinary)
autopush.websocket:PushServerProtocol.timeoutConnection()
autopush.websocket:PushServerProtocol.onAutoPingTimeout()
autopush.websocket:PushServerProtocol.onClose(wasClean, code, reason)
autopush.websocket:PushServerProtocol.cleanUp(wasClean, code, reason)
autopush.websocket:PushServerProtocol.returnError(messageType, reason, statusCode, close=True,\
 url='http://autopush.readthedocs.io/en/latest/api/websocket.html#private-http-endpoint')
autopush.websocket:PushServerProtocol.sendJSON(body)
autopush.websocket:PushServerProtocol.process_hello(data)
autopush.websocket:PushServerProtocol.process_notifications()
autopush.websocket:PushServerProtocol.webpush_fetch()
autopush.websocket:PushServerProtocol.process_ping()
autopush.websocket:PushServerProtocol.process_register(data)
autopush.websocket:PushServerProtocol.process_unregister(data)
autopush.websocket:PushServerProtocol.ack_update(update)
autopush.websocket:PushServerProtocol.process_ack(data)
autopush.websocket:PushServerProtocol.process_nack(data)
autopush.websocket:PushServerProtocol.check_missed_notifications(results, resume=False)
autopush.websocket:PushServerProtocol.bad_message(typ, message=None,\
 url='http://autopush.readthedocs.io/en/latest/api/websocket.html#private-http-endpoint')
autopush.websocket:PushServerProtocol.send_notification(update)
autopush.websocket:RouterHandler.put(uaid)
autopush.websocket:NotificationHandler.put(uaid, *args)
autopush.websocket:NotificationHandler.delete(uaid, connected_at)
autopush.websocket:ConnectionWSSite(conf, ws_factory)
"""

CONFIGURATION: dict[str, Any] = {
    "debug": False,
    "crypto_key": None,
    "bear_hash_key": [],
    "human_logs": True,
    "hostname": None,
    "port": None,
    "resolve_hostname": False,
    "router_scheme": None,
    "router_hostname": None,
    "router_port": None,
    "endpoint_scheme": None,
    "endpoint_hostname": None,
    "endpoint_port": None,
    "proxy_protocol_port": None,
    "memusage_port": None,
    "statsd_host": "localhost",
    "statsd_port": 8125,
    "megaphone_api_url": None,
    "megaphone_api_token": None,
    "megaphone_poll_interval": 30,
    "datadog_api_key": None,
    "datadog_app_key": None,
    "datadog_flush_interval": None,
    "router_table": DDBTableConfig("router"),
    "message_table": DDBTableConfig("message"),
    "preflight_uaid": "deadbeef00000000deadbeef00000000",
    "ssl": SSLConfig(),
    "router_ssl": SSLConfig(),
    "client_certs": None,
    "router_conf": {},
    "connect_timeout": 0.5,
    "max_data": 4096,
    "env": "development",
    "ami_id": None,
    "cors": False,
    "hello_timeout": 0,
    "msg_limit": 100,
    "auto_ping_interval": None,
    "auto_ping_timeout": None,
    "max_connections": None,
    "close_handshake_timeout": None,
    "notification_legacy": False,
    "use_cryptography": False,
    "sts_max_age": 31536000,
    "no_sslcontext_cache": False,
    "aws_ddb_endpoint": None,
    "allow_table_rotation": True,
}
"""Constructor keywords of AutopushConfig, in order (2.2)."""

VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def _find(name: str) -> tuple[Any, Any]:
    """The object and, for a member, its class."""
    module, _, path = name.partition(":")
    owner, found = None, importlib.import_module(module)
    for part in path.split("."):
        owner, found = found, getattr(found, part)
    return found, owner if inspect.isclass(owner) else None


def _parameters(signature: inspect.Signature) -> list[Parameter]:
    return [one for one in signature.parameters.values() if one.name != "self"]


def _documented(text: str) -> list[Parameter]:
    namespace: dict[str, Any] = {}
    exec(f"def documented({text}): pass", namespace)
    return _parameters(inspect.signature(namespace["documented"]))


@pytest.mark.parametrize("line", DOCUMENTED.strip().splitlines())
def test_documented_names_take_what_is_documented(line: str) -> None:
    """Callers may pass the documented arguments, by position and by name; more are optional."""
    name, parenthesis, rest = line.partition("(")
    found, _ = _find(name)
    if not parenthesis:
        return
    actual = _parameters(inspect.signature(found))
    by_name = {one.name: one for one in actual}
    takes_any = {one.kind for one in actual if one.kind in VARIADIC}
    documented = _documented(rest.removesuffix(")"))
    positional = [one for one in documented if one.kind not in VARIADIC]
    for place, wanted in enumerate(positional):
        if wanted.name not in by_name:
            assert takes_any == set(VARIADIC), wanted.name
            continue
        assert actual[place].name == wanted.name
        default = by_name[wanted.name].default
        assert default == wanted.default or wanted.default is Parameter.empty, wanted.name
    if any(one.kind is Parameter.VAR_KEYWORD for one in documented):
        assert Parameter.VAR_KEYWORD in takes_any
    known = {one.name for one in positional}
    if any(one.kind is Parameter.VAR_POSITIONAL for one in documented):
        assert Parameter.VAR_POSITIONAL in takes_any
        return
    for extra in actual:
        optional = extra.kind in VARIADIC or extra.default is not Parameter.empty
        assert extra.name in known or optional, extra.name


def test_2_2_the_constructor_keywords_of_the_configuration() -> None:
    fields = [field for field in attrs.fields(AutopushConfig) if field.init]
    names = [field.alias for field in fields]
    assert names[: len(CONFIGURATION)] == list(CONFIGURATION)
    conf = AutopushConfig()
    computed = {"hostname", "router_hostname", "endpoint_hostname", "crypto_key"}
    for name, default in CONFIGURATION.items():
        if name not in computed:
            attribute = getattr(conf, name) if hasattr(conf, name) else getattr(conf, f"_{name}")
            assert attribute == default, name
    assert len(conf._crypto_key) == 1
    assert AutopushConfig().bear_hash_key is not AutopushConfig().bear_hash_key


# -------------------------------------------------------------------------------- 2: core modules

SENDER = Sender()


@pytest.mark.parametrize(
    "key",
    [
        SENDER.point,
        bytearray(SENDER.point),
        memoryview(SENDER.point),
        SENDER.point.decode("latin-1"),
        base64url_encode(SENDER.point),
        base64.urlsafe_b64encode(SENDER.point).decode(),
    ],
    ids=["bytes", "bytearray", "memoryview", "characters", "base64url", "padded"],
)
def test_verify_jwt_takes_keys_of_any_form(key):
    told = {"aud": "https://push.example"}
    token = SENDER.token(told, ES256)
    assert VerifyJWT.validate_and_extract_assertion(token, key) == told
    other = Sender().token(told, ES256)
    for wrong_token, wrong_key in (other, key), (token, key[2:]), (token, "\u20ac" * 65):
        with pytest.raises(InvalidSignature):
            VerifyJWT.validate_and_extract_assertion(wrong_token, wrong_key)


@pytest.mark.parametrize("application", [ConnectionApplication, StandaloneApplication])
def test_a_subclass_of_the_application_may_have_its_own_factories(application, tmp_path):
    """They are what the public listener serves."""

    class Sockets(PushServerFactory):
        pass

    class Site(ConnectionWSSite):
        pass

    assert application.websocket_factory is PushServerFactory
    assert application.websocket_site_factory is ConnectionWSSite

    class Mine(application):
        websocket_factory = Sockets
        websocket_site_factory = Site
        listening = ()

        def listen(self, port, factory, ssl_cf=None, *args, **kwargs):
            self.listening = (*self.listening, factory)

        add_maybe_ssl = listen

    conf = AutopushConfig(db_dsn=f"sqlite:///{tmp_path}/db", port=0, router_port=0)
    more = {"own_endpoint_port": True} if application is StandaloneApplication else {}
    app = Mine(conf, **more)
    if application is StandaloneApplication:
        app.setup(rotate_tables=False)
    else:
        app.add_websocket()
    site = next(each for each in app.listening if isinstance(each, ConnectionWSSite))
    assert type(site) is Site and type(site.upgrade_factory) is Sockets


# ------------------------------------------------------------------------------------- 7: routers

RESULTS = {"results": [{"message_id": "1", "registration_id": "new"}, {"error": "NotRegistered"}]}


def _answers(status, body, headers):
    text = json.dumps(body)
    yield "bridge", Reply(status, Headers({k: [v] for k, v in headers.items()}), text.encode())
    yield (
        "requests",
        SimpleNamespace(
            status_code=status,
            headers={k.title(): v for k, v in headers.items()},
            text=text,
            content=text.encode(),
        ),
    )
    yield "dict", SimpleNamespace(status=status, headers=headers, text=text)


@pytest.mark.parametrize("kind", ["bridge", "requests", "dict"])
def test_gcm_result_takes_anything_with_status_headers_and_text(kind):
    message = JSONMessage(["a", "b"], None, 60, False, {})
    answer = dict(_answers(200, RESULTS, {"retry-after": "3"}))[kind]
    result = Result(answer, message)
    assert result.success == {"a": "1"} and result.canonicals == {"a": "new"}
    assert (result.not_registered, result.retry_after, result.retry_message) == (["b"], 3, None)
    result = Result(dict(_answers(503, {}, {}))[kind], message)
    assert (result.unavailable, result.retry_after) == (["a", "b"], None)
    assert result.retry_message is message
    with pytest.raises(GCMError):
        Result(dict(_answers(400, {"error": "no"}, {}))[kind], message)


def test_gcm_result_of_an_answer_that_is_still_to_be_read():
    message = JSONMessage("a", None, 60, False, {})
    answer = SimpleNamespace(code=200, headers=Headers({"Retry-After": ["3"]}), text=lambda: None)
    result = Result(answer, message)
    assert (result.success, result.retry_after) == ({}, 3)
    for _ in range(2):
        result.parse_response('{"results": [{"error": "Unavailable"}]}', 200, message)
        assert result.unavailable == ["a"]
    with pytest.raises(TypeError):
        Result(SimpleNamespace(headers={}, text="{}"), message)


def test_gcm_router_error_raises():
    settings = {"senderIDs": {"1": {"auth": "key"}}, "endpoint": "gcm.example"}
    router = GCMRouter(AutopushConfig(), settings, SinkMetrics())
    with pytest.raises(RouterException) as caught:
        router._error("no", 503, errno=7)
    refusal = caught.value
    assert (str(refusal), refusal.status_code, refusal.response_body) == ("no", 503, "no")
    assert refusal.errno == 7


# ------------------------------------------------------------------------- 8: PushServerProtocol


class Connection:
    """A WebSocket with a real session on it."""

    def __init__(self) -> None:
        self.rig = Rig()
        self.clock = Clock()
        self.factory = PushServerFactory(make_conf(), self.rig.node, self.clock, Session)
        self.transport = FakeTransport()
        self.transport.connect(self.factory.buildProtocol(None))
        self.protocol = self.transport.protocol
        self.protocol.dataReceived(request())
        self.transport.take()

    def hello(self) -> None:
        self.rig.user()
        say(self.transport, {"messageType": "hello", "use_webpush": True, "uaid": UAID})
        self.transport.take()

    def frames(self) -> list[Any]:
        return self.transport.take_frames()

    def lose(self) -> None:
        self.transport.end()


@pytest.fixture
def connection():
    return Connection()


def outcome(deferred: Deferred[Any]) -> list[Any]:
    results: list[Any] = []
    deferred.addBoth(results.append)
    return results


def test_defer_to_later(connection):
    results = outcome(connection.protocol.deferToLater(5, lambda a, b: (a, b), 1, b=2))
    connection.clock.advance(4.9)
    assert results == []
    connection.clock.advance(0.2)
    assert results == [(1, 2)]


def test_a_delayed_call_is_not_executed_after_the_end(connection):
    called: list[int] = []
    results = outcome(connection.protocol.deferToLater(5, called.append, 1))
    connection.lose()
    connection.clock.advance(10)
    assert called == [] and results[0].check(CancelledError)


def test_defer_to_thread_is_cancelled_at_the_end(connection, monkeypatch):
    waiting: Deferred[int] = Deferred()
    calls: list[Any] = []

    def thread(func, *args, **kwargs):
        calls.append((func, args, kwargs))
        return waiting

    monkeypatch.setattr("autopush.websocket.members.deferToThread", thread)
    results = outcome(connection.protocol.deferToThread(max, 1, 2, key=abs))
    assert calls == [(max, (1, 2), {"key": abs})]
    connection.lose()
    assert results[0].check(CancelledError)
    waiting.callback(1)  # what the thread has to say then interests nobody
    assert len(results) == 1


def test_force_retry_survives_failures_and_the_connection(connection, monkeypatch):
    monkeypatch.setattr(
        "autopush.websocket.members.deferToThread", lambda func: Deferred.fromCoroutine(_run(func))
    )
    attempts: list[int] = []

    def work(value, more):
        attempts.append(value)
        if len(attempts) == 1:
            raise RuntimeError
        return value + more

    results = outcome(connection.protocol.force_retry(work, 1, more=2))
    connection.lose()
    assert results == []
    connection.rig.clock.advance(1)
    assert attempts == [1, 1] and results == [3]


async def _run(func):
    return func()


def test_return_error_answers_and_closes(connection):
    protocol = connection.protocol
    protocol.returnError("register", "no", 500, close=False)
    protocol.returnError("hello", "no", 401)
    first, second, close = connection.frames()
    wanted = {"messageType": "register", "reason": "no", "status": 500, "more_info": DEFAULT_WS_ERR}
    assert _message(first) == wanted
    assert _message(second) == {**wanted, "messageType": "hello", "status": 401}
    assert close == (CLOSE, b"")


def test_bad_message_answers_401(connection):
    connection.protocol.bad_message("register")
    connection.protocol.bad_message("unregister", "Missing ChannelID", url="u")
    first, second = connection.frames()
    assert _message(first) == {
        "messageType": "register",
        "status": 401,
        "more_info": DEFAULT_WS_ERR,
    }
    assert _message(second) == {
        "messageType": "unregister",
        "status": 401,
        "more_info": "u",
        "reason": "Missing ChannelID",
    }


def test_ack_update_is_an_ack(connection):
    connection.hello()
    connection.protocol.ack_update({"channelID": "x", "version": "y"})
    assert connection.rig.metrics.of("ua.command.ack") == [(1, None)]


@pytest.mark.parametrize(
    ("deletes_read", "topic", "write"),
    [
        (False, "topic", "delete_message"),
        (True, None, "delete_message"),
        (False, None, "set_pointer"),
    ],
)
def test_ack_update_fires_when_what_was_stored_is_over(connection, deletes_read, topic, write):
    rig, protocol = connection.rig, connection.protocol
    rig.store.deletes_read = deletes_read
    notifications = [message(None if topic else n, topic=topic and f"t{n}") for n in range(2)]
    rig.put(*notifications)
    connection.hello()
    assert len(protocol.session.stored) == 2
    update = ack(*notifications)["updates"][0]
    rig.store.hold(write)
    done = outcome(protocol.ack_update(update))
    assert done == []
    rig.store.release(write)
    assert done == [None]
    assert protocol.ack_update(update) is None


def test_ack_update_of_what_was_never_stored_deletes_nothing(connection):
    connection.hello()
    protocol = connection.protocol
    protocol.send_notification({"channelID": CHID, "version": "v", "ttl": 60})
    assert protocol.ack_update({"channelID": CHID, "version": "v"}) is None
    assert not protocol.session.direct
    for update in ({}, [], {"channelID": [], "version": "v"}):
        assert protocol.ack_update(update) is None


def test_ack_update_of_a_direct_message_with_a_row(connection):
    connection.rig.conf.store_direct = True
    connection.hello()
    protocol = connection.protocol
    stored = outcome(protocol.send_notification({"channelID": CHID, "version": "v", "ttl": 60}))
    assert len(stored) == 1 and len(connection.rig.rows()) == 1
    assert outcome(protocol.ack_update({"channelID": CHID, "version": "v"})) == [None]
    assert connection.rig.rows() == []


def test_send_notification_takes_the_body_of_a_push_and_keeps_it(connection):
    body = {
        "channelID": CHID,
        "version": "v",
        "ttl": 60,
        "topic": None,
        "timestamp": 1_795_459_299,
        "data": "YWJj",
        "headers": {"encoding": "aes128gcm"},
    }
    with pytest.raises(RuntimeError):
        connection.protocol.send_notification(body)
    connection.hello()
    assert connection.protocol.send_notification(body) is None
    (frame,) = connection.frames()
    assert _message(frame) == {
        "messageType": "notification",
        "channelID": CHID,
        "version": "v",
        "data": "YWJj",
        "headers": {"encoding": "aes128gcm"},
    }
    with pytest.raises(ValueError):
        connection.protocol.send_notification({"version": "v"})
    protocol = connection.protocol
    connection.lose()
    assert len(connection.rig.rows()) == 1  # it was not acknowledged
    with pytest.raises(RuntimeError):
        protocol.send_notification(body)


def test_send_notification_keeps_a_notification_until_it_is_acknowledged(connection):
    connection.hello()
    notification = message()
    connection.protocol.send_notification(notification)
    connection.frames()
    say(connection.transport, ack(notification))
    connection.lose()
    assert connection.rig.rows() == []


def test_webpush_fetch_and_the_follow_up(connection):
    protocol = connection.protocol
    with pytest.raises(RuntimeError):
        protocol.webpush_fetch()
    connection.hello()
    fetch = protocol.webpush_fetch()
    (batch,) = outcome(fetch())
    assert (batch.timestamp, batch.messages) == (None, [])
    before = len(connection.rig.store.calls)
    protocol.session.check_wanted = True
    protocol.pause_reading()
    protocol.check_missed_notifications(None, resume=True)
    assert len(connection.rig.store.calls) > before
    assert not protocol._holds


def test_send_json(connection):
    connection.protocol.sendJSON(body={"a": 1})
    (only,) = connection.frames()
    assert _message(only) == {"a": 1}


def _message(frame: tuple[int, bytes]) -> Any:
    return json.loads(frame[1])


# ------------------------------------------------------------------------------- 8: the site


def test_connection_ws_site_serves_the_factory():
    conf = AutopushConfig()
    site = ConnectionWSSite(conf, ws_factory="the factory")
    assert site.upgrade_factory == "the factory"
    assert site.ssl_cf() is None
