"""What a program's own protocol class replaces takes effect, also in the service's own flow."""

# mypy: disable-error-code="arg-type,no-untyped-def"

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from autopush.session import Delivery, Session
from autopush.tests.session.support import CHID, UAID, Rig, ack, message
from autopush.tests.websocket.support import FakeTransport, make_conf, request, say
from autopush.websocket import PushServerFactory, PushServerProtocol
from autopush.websocket.overrides import REPLACEABLE, RoutedSession
from autopush.websocket.wire import PushWire

HELLO = {"messageType": "hello", "use_webpush": True, "uaid": UAID}
REGISTER = {"messageType": "register", "channelID": CHID}

TIMEOUTS = {
    "opening": "onOpenHandshakeTimeout",
    "hellos": "timeoutConnection",
    "pings": "_sendAutoPing",
    "pongs": "onAutoPingTimeout",
    "closing": "nukeConnection",
}


class Connection:
    """A connection of a protocol class with the given members, each of which notes its calls.

    :param passes: whether the members do what the replaced ones do as well
    """

    def __init__(self, *names: str, passes: bool = True, rig: Rig | None = None, **members: Any):
        self.calls: list[tuple[Any, ...]] = []
        self.rig = rig or Rig()
        noting = {name: self._noting(name, passes) for name in names}
        mine = type("Mine", (PushServerProtocol,), {**noting, **members})
        factory = type("Factory", (PushServerFactory,), {"protocol": mine})
        self.factory = factory(make_conf(hello_timeout=3), self.rig.node, Clock())
        self.transport = FakeTransport()
        self.transport.connect(self.factory.buildProtocol(None))
        self.protocol = self.transport.protocol
        self.protocol.dataReceived(request())
        self.transport.take()
        self.rig.user()

    def _noting(self, name: str, passes: bool) -> Any:
        replaced = getattr(PushServerProtocol, name)

        def member(protocol: Any, *args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, *args))
            return replaced(protocol, *args, **kwargs) if passes else None

        return member

    def say(self, *messages: Any) -> list[Any]:
        for each in messages:
            say(self.transport, each)
        return self.frames()

    def frames(self) -> list[Any]:
        return [json.loads(body) for _, body in self.transport.take_frames() if body]

    def called(self, name: str) -> list[tuple[Any, ...]]:
        return [args for found, *rest in self.calls if found == name for args in [tuple(rest)]]


@pytest.mark.parametrize("queue", TIMEOUTS)
def test_time_outs_call_the_class_s_own(queue: str) -> None:
    connection = Connection(TIMEOUTS[queue], passes=False)
    own = getattr(connection.factory, queue)
    own.seconds = 1
    own.start(connection.protocol)
    connection.factory.reactor.advance(2)
    assert connection.calls == [(TIMEOUTS[queue],)]


@pytest.mark.parametrize(
    "data",
    [
        REGISTER,
        {"messageType": "unregister", "channelID": CHID},
        {"messageType": "ack", "updates": [{"channelID": CHID, "version": "v"}]},
        {"messageType": "nack", "version": "v", "code": 301},
    ],
    ids=lambda data: data["messageType"],
)
def test_commands(data: dict[str, Any]) -> None:
    """A member that calls the replaced one changes nothing; one that doesn't decides alone."""
    name = f"process_{data['messageType']}"
    plain = Connection()
    wanted = [plain.say(HELLO), plain.say(data)]
    passing = Connection(name)
    assert [passing.say(HELLO), passing.say(data)] == wanted
    assert passing.calls == [(name, data)]
    silent = Connection(name, passes=False)
    silent.say(HELLO)
    before = list(silent.rig.store.calls)
    assert silent.say(data) == []
    assert silent.calls == [(name, data)]
    assert silent.rig.store.calls == before


def test_hello() -> None:
    connection = Connection("process_hello")
    (reply,) = connection.say(HELLO)
    assert (reply["status"], reply["uaid"]) == (200, UAID)
    again = connection.say(HELLO)
    assert again[0]["reason"] == "duplicate hello"
    assert connection.called("process_hello") == [(HELLO,), (HELLO,)]


def test_nothing_but_a_hello_comes_first() -> None:
    connection = Connection("process_register")
    assert connection.say(REGISTER) == []
    assert connection.calls == []
    assert connection.transport.ending == "fin"


def test_what_comes_during_a_hello_waits_for_it() -> None:
    connection = Connection("process_register")
    connection.rig.store.hold("get_user")
    assert connection.say(HELLO, REGISTER) == []
    assert connection.calls == []
    connection.rig.store.release("get_user")
    hello, registered = connection.frames()
    assert (hello["status"], registered["status"]) == (200, 200)
    assert connection.calls == [("process_register", REGISTER)]


@pytest.mark.parametrize("ping", [{}, {"messageType": "ping"}])
def test_ping(ping: dict[str, Any]) -> None:
    connection = Connection("process_ping")
    connection.say(HELLO)
    assert connection.say(ping) == [{}]
    assert connection.calls == [("process_ping",)]


def test_a_member_may_let_another_message_through_later() -> None:
    later: Deferred[None] = Deferred()

    async def process_register(self, data):
        await later
        PushServerProtocol.process_register(self, {**data, "channelID": CHID})

    connection = Connection(process_register=process_register)
    connection.say(HELLO)
    assert connection.say({"messageType": "register", "channelID": "no"}) == []
    later.callback(None)
    (registered,) = connection.frames()
    assert (registered["status"], registered["channelID"]) == (200, CHID)


def test_a_member_that_fails_is_logged() -> None:
    failures: list[Any] = []

    async def process_register(self, data):
        raise LookupError

    connection = Connection(
        process_register=process_register,
        log_failure=lambda _, failure: failures.append(failure),
    )
    connection.say(HELLO)
    assert connection.say(REGISTER) == []
    assert failures[0].check(LookupError)
    assert connection.say({}) == [{}]


def test_send_json_sends_everything() -> None:
    connection = Connection("sendJSON")
    (hello,) = connection.say(HELLO)
    (registered,) = connection.say(REGISTER)
    notification = message()
    assert connection.rig.deliver(notification) is Delivery.DELIVERED
    (pushed,) = connection.frames()
    connection.protocol.bad_message("register")
    (refused,) = connection.frames()
    assert connection.called("sendJSON") == [(hello,), (registered,), (pushed,), (refused,)]
    connection.protocol.close()
    connection.protocol.send({"late": 1})
    assert len(connection.calls) == 4


def test_send_json_may_change_what_is_sent() -> None:
    def sendJSON(self, body):
        PushServerProtocol.sendJSON(self, {**body, "mine": 1})

    connection = Connection(sendJSON=sendJSON)
    assert connection.say(HELLO)[0]["mine"] == 1


@pytest.mark.parametrize("store_direct", [False, True])
def test_send_notification_delivers_what_others_push(store_direct: bool) -> None:
    connection = Connection("send_notification", rig=Rig(store_direct=store_direct))
    connection.say(HELLO)
    notification = message()
    assert connection.rig.deliver(notification) is Delivery.DELIVERED
    (frame,) = connection.frames()
    assert frame["version"] == notification.version
    assert connection.calls == [("send_notification", notification)]
    assert len(connection.rig.rows()) == store_direct
    connection.transport.end()
    assert len(connection.rig.rows()) == 1  # it was not acknowledged


def test_send_notification_may_keep_it_to_itself() -> None:
    connection = Connection("send_notification", passes=False)
    connection.say(HELLO)
    assert connection.rig.deliver(message()) is Delivery.DELIVERED
    assert connection.frames() == []


def test_process_notifications_is_every_check() -> None:
    connection = Connection("process_notifications")
    connection.rig.put(message(1))
    _, stored = connection.say(HELLO)
    assert stored["messageType"] == "notification"
    assert connection.calls == [("process_notifications",)]
    assert connection.rig.node.check(UAID) is Delivery.DELIVERED
    assert connection.calls == [("process_notifications",)] * 2


def test_check_missed_notifications_decides_whether_to_go_on() -> None:
    passing, silent = (
        Connection("check_missed_notifications", passes=passes) for passes in (True, False)
    )
    for connection, rest in (passing, 1), (silent, 0):
        notifications = [message(stamp) for stamp in range(1, 12)]
        connection.rig.put(*notifications)
        frames = connection.say(HELLO)
        assert len(frames) == 11
        assert connection.calls == []
        assert len(connection.say(ack(*notifications[:10]))) == rest
        assert ("check_missed_notifications", None) in connection.calls


@pytest.mark.parametrize(
    ("data", "args"),
    [
        ({"messageType": "register"}, ("register", "Missing ChannelID")),
        ({"messageType": "register", "channelID": "no"}, ("register", "Invalid UUID specified")),
        (
            {"messageType": "register", "channelID": CHID, "key": "no"},
            ("register", "Invalid key: not a P-256 point"),
        ),
        ({"messageType": "unregister"}, ("unregister", "Missing ChannelID")),
    ],
)
def test_bad_message_answers_what_makes_no_sense(data, args) -> None:
    plain, connection = Connection(), Connection("bad_message")
    plain.say(HELLO), connection.say(HELLO)
    assert connection.say(data) == plain.say(data)
    assert connection.calls == [("bad_message", *args)]


def test_who_replaces_nothing_pays_nothing() -> None:
    plain = Connection()
    assert type(plain.protocol.session) is Session
    for name in "send", "_process", "_check":
        assert getattr(type(plain.protocol), name) is getattr(PushWire, name)
    timed = Connection("timeoutConnection")
    assert type(timed.protocol.session) is Session
    for name in REPLACEABLE - {"sendJSON"}:
        session = Connection(name).protocol.session
        assert isinstance(session, RoutedSession), name


def test_a_class_may_be_assigned_to_a_factory_that_exists() -> None:
    called = []

    class Mine(PushServerProtocol):
        def process_ping(self) -> None:
            called.append("process_ping")

        def timeoutConnection(self) -> None:
            called.append("timeoutConnection")

    clock, rig, transport = Clock(), Rig(), FakeTransport()
    factory = PushServerFactory(make_conf(hello_timeout=3), rig.node, clock)
    factory.protocol = Mine
    transport.connect(factory.buildProtocol(None))
    assert transport.protocol.factory is factory and isinstance(transport.protocol, Mine)
    transport.protocol.dataReceived(request())
    clock.advance(4)
    rig.user()
    say(transport, HELLO)
    say(transport, {})
    assert called == ["timeoutConnection", "process_ping"]


def test_sessions_made_otherwise_stay_as_they_are() -> None:
    class Own(Session):
        __slots__ = ("more",)

    mine = type("Mine", (PushServerProtocol,), {"process_ping": lambda self: None})
    factory = type("Factory", (PushServerFactory,), {"protocol": mine})
    made = factory(make_conf(), Rig().node, Clock(), Own).new_session
    assert issubclass(made, Own) and issubclass(made, RoutedSession)

    def make(*args):
        return Own(*args)

    assert factory(make_conf(), Rig().node, Clock(), make).new_session is make
