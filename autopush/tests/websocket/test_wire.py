"""The WebSocket side of a connection node, on both base classes and with a session of paper."""

# mypy: disable-error-code="arg-type,attr-defined,misc,truthy-function,valid-type,var-annotated"

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from autobahn.websocket.types import ConnectionDeny
from twisted.python.failure import Failure

from autopush import websocket as documented
from autopush.tests.websocket.support import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    UAID,
    Server,
    close_frame,
    frame,
    heard,
    parse_frames,
    request,
    say,
)
from autopush.websocket import (
    PushServerFactory,
    PushServerProtocol,
    decode_message,
    encode_message,
    log_exception,
)


def test_a_configured_slim_class_is_used():
    assert PushServerProtocol.parent_class.__name__ == "SlimServerProtocol"


# ----------------------------------------------------------------- spec/websocket 3: frame level


def test_text_messages_are_dispatched(server):
    transport = server.open()
    say(transport, {"a": 1}, {})
    whole = b'{"b":"\xc3\xa4"}'
    transport.protocol.dataReceived(frame(TEXT, whole[:7], fin=False) + frame(CONT, whole[7:]))
    assert heard(transport) == [{"a": 1}, {}, {"b": "ä"}]


def test_invalid_utf8_aborts(server):
    transport = server.open()
    transport.protocol.dataReceived(frame(TEXT, b'{"a":"\xff"}'))
    assert transport.ending == "abort"
    assert transport.take() == b""


def test_binary_closes_without_aborting(server):
    transport = server.open()
    transport.protocol.dataReceived(frame(BINARY, b"{}"))
    assert heard(transport) == ["bad input"]
    assert transport.take_frames() == [(CLOSE, b"")]
    assert transport.ending == "fin"


def test_a_violation_aborts(server):
    transport = server.open()
    transport.protocol.dataReceived(frame(TEXT, b"{}", masked=False))
    assert transport.ending == "abort"


def test_ping_is_answered_before_hello(server):
    transport = server.open()
    transport.protocol.dataReceived(frame(PING, b"abc"))
    assert transport.take_frames() == [(PONG, b"abc")]


def test_a_close_is_answered_1000_and_tcp_closed(server):
    transport = server.open()
    transport.protocol.dataReceived(close_frame(1001, b"bye"))
    assert transport.take_frames() == [(CLOSE, b"\x03\xe8")]
    assert transport.ending == "close"


def test_a_user_agent_that_closes_but_keeps_tcp_open_is_nuked(server):
    transport = server.open()
    transport.protocol.dataReceived(close_frame(1000))
    server.clock.advance(10.1)
    assert "abort" in transport.events


@pytest.mark.parametrize("first", [TEXT, BINARY])
def test_a_message_over_the_limit_is_refused_with_1009_from_its_header(server, first):
    transport = server.open()
    transport.protocol.dataReceived(bytes([0x80 | first, 0xFF]) + (10**8).to_bytes(8, "big"))
    transport.protocol.dataReceived(b"mask" + b"\xff" * 1000)
    for _ in range(100):
        transport.protocol.dataReceived(b"\xff" * 65536)
    assert transport.take_frames() == [(CLOSE, b"\x03\xf1")]
    assert transport.events[-1] == "fin"
    held = [value for value in vars(transport.protocol).values() if isinstance(value, bytes)]
    assert sum(map(len, held)) < 1000
    server.clock.advance(10.1)
    assert transport.events[-1] == "abort"


def test_fragments_over_the_limit_are_refused_with_1009(server):
    transport = server.open()
    transport.protocol.dataReceived(frame(TEXT, b"x" * 6000, fin=False))
    transport.protocol.dataReceived(frame(CONT, b"x" * 6000))
    assert transport.take_frames() == [(CLOSE, b"\x03\xf1")]


def test_a_message_of_exactly_the_limit_passes(server):
    transport = server.open(hello=True)
    heard(transport)
    transport.protocol.dataReceived(frame(TEXT, b'{"a":"' + b"x" * 9_992 + b'"}'))
    assert len(heard(transport)[0]["a"]) == 9_992


# --------------------------------------------------------------------- spec/websocket 4: decoding


@pytest.mark.parametrize("text", ["", "x", "null", "1", '"hello"', "[]", "[{}]", "{", "{}x"])
def test_what_is_no_object_is_bad_input(server, text):
    transport = server.open()
    transport.protocol.dataReceived(frame(TEXT, text.encode()))
    assert heard(transport) == ["bad input"]


def test_a_depth_bomb_is_bad_input():
    server = Server(max_message_size=1 << 20)
    transport = server.open(hello=True)
    heard(transport)
    transport.protocol.dataReceived(frame(TEXT, b'{"a":' * 200_000))
    assert heard(transport) == ["bad input"]
    assert transport.ending == "fin"


def test_what_python_2_took_as_json():
    assert decode_message(b'{"a":Infinity,"b":-Infinity}') == {
        "a": float("inf"),
        "b": float("-inf"),
    }
    assert decode_message(b'{"a":NaN}')["a"] != decode_message(b'{"a":NaN}')["a"]
    assert decode_message(b'{"a":"\\ud800"}') == {"a": "\ud800"}
    assert decode_message(b'{"a":1,"a":2}') == {"a": 2}
    assert decode_message(b'{"a":18446744073709551616}')["a"] == 2**64


def test_an_integer_of_5000_digits_is_no_json():
    with pytest.raises(ValueError, match=r".*"):
        decode_message(b"9" * 5000)


def test_whatever_was_decoded_can_be_sent(server):
    transport = server.open()
    for text in (
        b'{"messageType":"echo","a":"\\ud800"}',
        b'{"messageType":"echo","a":1e999}',
        b'{"messageType":"echo","a":123456789012345678901234567890}',
        b'{"messageType":"echo","a":' + b"[" * 500 + b"]" * 500 + b"}",
    ):
        transport.protocol.dataReceived(frame(TEXT, text))
    frames = transport.take_frames()
    assert [opcode for opcode, _ in frames] == [TEXT] * 4
    assert all(json.loads(payload)["messageType"] == "echo" for _, payload in frames)


@pytest.mark.parametrize("sizes", [(), (0,), (1, 120, 130, 9000)])
def test_send_all_is_as_send_of_each(cls, sizes):
    messages = [{"data": "x" * size} for size in sizes]
    sent = []
    for together in (True, False):
        transport = Server(cls).open(hello=True)
        transport.take()
        protocol = transport.protocol
        if together:
            protocol.send_all(messages)
        else:
            for message in messages:
                protocol.send(message)
        sent.append((transport.written, protocol.output_paused, protocol._backlog > 0))
        protocol.close()
        protocol.send_all(messages)  # nothing happens
    assert sent[0][0] == sent[1][0] and sent[0][1] == sent[1][1]


def test_send_all_of_one_that_does_not_read_holds_it(server):
    transport = server.open(hello=True)
    transport.protocol.send_all([{"data": "x" * 1000}] * 5)
    assert transport.protocol.output_paused and transport.reading
    transport.protocol.send_all([{"data": "x" * 1000}] * 70)
    assert not transport.reading
    transport.drain()
    assert transport.reading


@pytest.mark.parametrize("name", ["send", "sendMessage", "sendJSON"])
def test_send_all_goes_through_what_a_program_replaces(name):
    called = []

    def noted(self, *args, **kwargs):
        called.append(args)
        return getattr(PushServerProtocol, name)(self, *args, **kwargs)

    transport = Server(type("Own", (PushServerProtocol,), {name: noted})).open()
    transport.protocol.send_all([{"a": 1}, {"a": 2}])
    assert len(called) == 2 and len(transport.take_frames()) == 2


def test_what_is_nested_too_deep_to_send_closes(server):
    transport = server.open()
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    transport.protocol.send({"a": deep})
    assert transport.take_frames() == [(CLOSE, b"")]
    while deep:
        deep = deep.pop()


# ----------------------------------------------------------------------------- the session's wire


def test_send_is_one_text_frame(server):
    transport = server.open()
    transport.protocol.send({"messageType": "notification", "data": "ä" * 100})
    ((opcode, payload),) = transport.take_frames()
    assert opcode == TEXT
    assert json.loads(payload) == {"messageType": "notification", "data": "ä" * 100}


def test_the_ping_reply_is_two_characters():
    assert encode_message({}) == b"{}"


@pytest.mark.parametrize(("code", "body"), [(None, b""), (4774, b"\x12\xa6")])
def test_close_sends_the_frame_and_fin_at_once(server, code, body):
    transport = server.open()
    transport.protocol.close(code)
    assert transport.take_frames() == [(CLOSE, body)]
    assert transport.ending == "fin"
    assert transport.producer is None


def test_nothing_is_said_or_heard_after_a_close(server):
    transport = server.open()
    say(transport, {"messageType": "close"})
    transport.take()
    say(transport, {"late": 1})
    transport.protocol.dataReceived(frame(PING, b"late"))
    transport.protocol.send({"late": 2})
    transport.protocol.close(4774)
    assert transport.take() == b""
    assert heard(transport) == [{"messageType": "close"}]
    transport.end()


@pytest.mark.parametrize("pieces", [1, 3, 50])
def test_3_the_answer_to_our_close_frame_ends_tcp_at_once(server, pieces):
    transport = server.open()
    transport.protocol.close()
    late = frame(TEXT, b'{"messageType":"echo"}') + frame(PING, b"?") + frame(TEXT, b"x" * 70_000)
    data = late + close_frame(1000, b"bye")
    size = -(-len(data) // pieces)
    for start in range(0, len(data), size):
        assert transport.events[-1] == "fin"
        transport.protocol.dataReceived(data[start : start + size])
    assert transport.events[-1] == "close"
    assert heard(transport) == []


def test_3_also_if_it_comes_with_what_made_us_close(server):
    transport = server.open()
    message = frame(TEXT, b'{"messageType":"close"}')
    transport.protocol.dataReceived(message + frame(TEXT, b"{}") + close_frame())
    assert transport.events[-1] in ("close", "abort")  # Autobahn's own takes the harder way


def test_3_also_if_a_message_was_on_its_way():
    transport = Server(PushServerProtocol).open()
    begun = frame(TEXT, b'{"messageType":"echo"}')
    transport.protocol.dataReceived(begun[:9])
    transport.protocol.close()
    transport.protocol.dataReceived(begun[9:] + close_frame())
    assert transport.events[-1] == "close"
    assert heard(transport) == []


def test_messages_in_the_same_read_as_the_one_that_closes_are_ignored(server):
    transport = server.open()
    late = frame(TEXT, b'{"late":1}')
    transport.protocol.dataReceived(frame(TEXT, b'{"messageType":"close"}') + late)
    assert heard(transport) == [{"messageType": "close"}]


def test_tcp_that_does_not_end_is_aborted_after_10_seconds(server):
    transport = server.open()
    transport.protocol.close()
    server.clock.advance(9.9)
    assert "abort" not in transport.events
    server.clock.advance(0.3)
    assert transport.events[-1] == "abort"


def test_close_handshake_timeout_replaces_the_10_seconds(cls):
    server = Server(cls, close_handshake_timeout=3)
    transport = server.open()
    transport.protocol.close()
    server.clock.advance(3.1)
    assert transport.events[-1] == "abort"


def test_no_timer_is_left_when_tcp_has_ended(server):
    transport = server.open()
    transport.protocol.close()
    transport.end()
    assert server.clock.getDelayedCalls() == []
    assert not server.factory.protocols


def test_tls_is_closed_as_a_whole(server):
    transport = server.open()
    transport.getPeerCertificate = lambda: None
    transport.protocol.close()
    assert transport.ending == "close"


# ------------------------------------------------------------ spec/websocket 12: two kinds of pause


def test_reading_pause(server):
    transport = server.open()
    transport.protocol.pause_reading()
    assert transport.reading is False
    say(transport, {"same": "read"})
    assert heard(transport) == [{"same": "read"}]
    transport.protocol.resume_reading()
    assert transport.reading is True


def test_a_close_while_reading_is_paused_notices_the_end(server):
    transport = server.open()
    transport.protocol.pause_reading()
    transport.protocol.close()
    assert transport.reading is True
    transport.protocol.pause_reading()
    assert transport.reading is True


def test_output_is_paused_above_2048_bytes(server):
    transport = server.open()
    protocol = transport.protocol
    transport.drain()
    heard(transport)
    protocol.sendMessage(b"x" * 2044)
    assert protocol.output_paused is False
    protocol.sendMessage(b"x")
    assert protocol.output_paused is True
    assert protocol.paused is True
    transport.drain()
    assert protocol.output_paused is False
    assert heard(transport) == ["output resumed"]


def test_output_is_paused_above_65536_bytes_with_own_tls(server):
    transport = server.connect()
    transport.getPeerCertificate = lambda: None
    transport.protocol.dataReceived(request())
    assert transport.bufferSize == 65536


def test_behind_a_proxy_protocol_wrapper_the_limit_is_set_below(server):
    transport = server.connect()
    transport.transport = SimpleNamespace(bufferSize=65536)
    transport.protocol.dataReceived(request())
    assert transport.transport.bufferSize == 2048


def test_output_stays_paused_when_the_transport_is_lost(server):
    transport = server.open()
    protocol = transport.protocol
    transport.end()
    assert protocol.output_paused is True


def test_one_who_does_not_take_answers_is_not_read(server):
    transport = server.open()
    message = {"messageType": "echo", "data": "x" * 5000}
    for _ in range(12):
        say(transport, message)
    assert transport.reading is True
    for _ in range(4):
        say(transport, message)
    assert transport.reading is False
    transport.drain()
    assert transport.reading is True


def test_the_two_holds_are_independent(server):
    transport = server.open()
    protocol = transport.protocol
    for _ in range(16):
        say(transport, {"messageType": "echo", "data": "x" * 5000})
    protocol.pause_reading()
    protocol.resume_reading()
    assert transport.reading is False
    protocol.pause_reading()
    transport.drain()
    assert transport.reading is False
    protocol.resume_reading()
    assert transport.reading is True


def test_one_who_pings_without_reading_is_owed_one_pong(server):
    transport = server.open()
    transport.protocol.send({"data": "x" * 5000})
    transport.take()
    for number in range(1000):
        transport.protocol.dataReceived(frame(PING, b"%d" % number))
    assert transport.take() == b""
    transport.drain()
    assert transport.take_frames() == [(PONG, b"999")]


# ------------------------------------------------------------ spec/python-api 8: documented members


def test_process_members_reach_the_session(server):
    transport = server.open()
    protocol = transport.protocol
    for name in ("hello", "register", "unregister", "ack", "nack"):
        getattr(protocol, f"process_{name}")({"x": name})
    protocol.process_ping()
    assert heard(transport) == [
        *({"x": n, "messageType": n} for n in ("hello", "register", "unregister", "ack", "nack")),
        {},
    ]
    protocol.process_notifications()
    assert server.node.checked == [UAID]


def test_base_tags_are_the_sessions(server):
    transport = server.open()
    assert transport.protocol.base_tags is None
    say(transport, {"messageType": "hello"})
    session = transport.protocol.session
    session.user_agent = SimpleNamespace(tags={"ua_os_family": "Linux"})
    assert transport.protocol.base_tags == [
        "ua_os_family:Linux",
        "host:push.example",
        "use_webpush:True",
    ]


def test_log_exception():
    class Thing:
        _log_exc = True
        failures: list[Failure] = []

        def log_failure(self, failure):
            self.failures.append(failure)

        @log_exception
        def work(self, fails):
            if fails:
                raise RuntimeError("x")
            return 7

    thing = Thing()
    assert thing.work(False) == 7
    assert thing.work(True) is None
    assert thing.failures[0].check(RuntimeError)
    thing._log_exc = False
    with pytest.raises(RuntimeError):
        thing.work(True)


def test_a_hook_may_deny(server):
    class Denying(PushServerFactory.protocol):
        def onConnect(self, request):
            raise ConnectionDeny(403, "no")

    reply, _ = Server(Denying).handshake(request())
    assert reply == b"HTTP/1.1 403 no\r\n\r\n"


def test_log_and_time_are_importable():
    assert documented.ms_time() > 1_600_000_000_000
    assert documented.WebSocketServerProtocol
    assert documented.DEFAULT_WS_ERR.endswith("websocket.html#private-http-endpoint")
    assert documented.NACK_CODES == (301, 302, 303)
    assert documented.USER_RECORD_VERSION == 1


def test_frames_of_ours_are_readable(server):
    """The helper the tests rely on does notice what is wrong with a frame."""
    with pytest.raises(AssertionError):
        parse_frames(frame(TEXT, b"x", fin=False))
