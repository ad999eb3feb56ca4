"""What time ends, and how all ends, on both base classes and with a session of paper."""

# mypy: disable-error-code="arg-type,attr-defined,misc,truthy-function,valid-type,var-annotated"

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred, fail

from autopush.tests.websocket.support import (
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    UAID,
    Server,
    frame,
    request,
    say,
)
from autopush.websocket.wire import PushWire

# --------------------------------------------------------- spec/websocket 3: automatic ping, idle


def pinging(cls, **changes):
    server = Server(cls, auto_ping_interval=20.0, auto_ping_timeout=4.0, **changes)
    transport = server.open(hello=True)
    transport.take()
    return server, transport


def the_ping(transport) -> bytes:
    ((opcode, payload),) = transport.take_frames()
    assert opcode == PING
    assert len(payload) == 4
    assert payload.isascii()
    return payload


def test_a_ping_every_interval_after_the_last_pong(cls):
    server, transport = pinging(cls)
    server.clock.advance(19.9)
    assert transport.take() == b""
    server.clock.advance(0.3)
    first = the_ping(transport)
    server.clock.advance(3)
    transport.protocol.dataReceived(frame(PONG, first))
    server.clock.advance(19.8)
    assert transport.take() == b""
    server.clock.advance(0.4)
    assert the_ping(transport) != b""
    assert transport.ending is None


def test_no_pong_in_time_aborts(cls):
    server, transport = pinging(cls)
    server.clock.advance(20.1)
    assert the_ping(transport)
    transport.protocol.dataReceived(frame(PONG, b"none"))
    say(transport, {"other": "traffic"})
    server.clock.advance(3.9)
    assert transport.ending is None
    server.clock.advance(0.3)
    assert transport.ending == "abort"
    assert transport.take() == b""


def test_a_ping_timeout_of_0_waits_for_ever(cls):
    server = Server(cls, auto_ping_interval=20, auto_ping_timeout=0)
    transport = server.open(hello=True)
    server.clock.advance(20.1)
    transport.protocol.pause_reading()
    transport.protocol.resume_reading()
    server.clock.pump([10] * 100)
    assert transport.ending is None


def test_a_ping_tick_before_hello_closes_and_aborts(cls):
    server = Server(cls, auto_ping_interval=2, auto_ping_timeout=1)
    transport = server.open()
    server.clock.advance(2.1)
    assert transport.take_frames() == [(CLOSE, b"")]
    server.clock.advance(1.1)
    assert transport.events[-1] == "abort"


def test_a_ping_tick_closes_a_session_that_is_not_registered(cls):
    server, transport = pinging(cls)
    server.node.clients[UAID] = object()
    server.clock.advance(20.1)
    assert transport.take_frames() == [(CLOSE, b"")]


def test_a_ping_tick_while_hello_waits_for_storage_only_pings(cls):
    server = Server(cls, auto_ping_interval=2, auto_ping_timeout=1)
    transport = server.open()
    transport.protocol.pause_reading()
    server.clock.advance(2.1)
    assert the_ping(transport)


def test_a_pong_timeout_does_not_count_while_reading_is_paused(cls):
    server, transport = pinging(cls)
    server.clock.advance(20.1)
    ping = the_ping(transport)
    transport.protocol.pause_reading()
    server.clock.pump([1] * 60)
    assert transport.ending is None
    transport.protocol.resume_reading()
    server.clock.advance(3.8)
    assert transport.ending is None
    transport.protocol.dataReceived(frame(PONG, ping))
    server.clock.advance(5)
    assert transport.ending is None


def test_after_a_reading_pause_the_pong_is_awaited_again(cls):
    server, transport = pinging(cls)
    server.clock.advance(20.1)
    transport.protocol.pause_reading()
    server.clock.pump([1] * 60)
    transport.protocol.resume_reading()
    server.clock.advance(4.3)
    assert transport.ending == "abort"


def test_output_that_resumes_gives_the_pong_no_more_time(cls):
    """Or one who takes what is sent, but answers no ping, would be kept for ever."""
    server, transport = pinging(cls)
    server.clock.advance(20.1)
    for _ in range(4):
        server.clock.advance(0.9)
        transport.drain()
    assert transport.ending is None
    server.clock.advance(0.7)
    assert transport.ending == "abort"


def test_nothing_is_awaited_of_a_connection_that_ended_while_reading_was_paused(cls):
    server, transport = pinging(cls)
    server.clock.advance(20.1)
    transport.protocol.pause_reading()
    transport.end()
    transport.protocol.resume_reading()
    assert transport.protocol not in server.factory.pongs.started
    assert transport.reading is False


def test_no_pings_without_an_interval(server):
    transport = server.open(hello=True)
    server.clock.pump([60] * 60)
    assert transport.take() == b""
    assert server.clock.getDelayedCalls() == []


def test_hello_timeout_closes_one_who_says_no_hello(cls):
    server = Server(cls, hello_timeout=3)
    transport = server.open()
    say(transport, {"no": "hello"})
    server.clock.advance(2.9)
    assert transport.take() == b""
    server.clock.advance(0.3)
    assert transport.take_frames() == [(CLOSE, b"")]


def test_hello_timeout_is_not_put_off_by_anything_but_a_hello(cls):
    server = Server(cls, hello_timeout=3)
    transport = server.open()
    rest = frame(CONT, b"x" * 9)
    for piece in (frame(PING, b"p"), frame(TEXT, b"{", fin=False), rest[:7], rest[7:8]):
        server.clock.advance(0.7)
        transport.protocol.dataReceived(piece)
    assert transport.take_frames() == [(PONG, b"p")]
    server.clock.advance(0.4)
    assert transport.take_frames() == [(CLOSE, b"")]


@pytest.mark.parametrize("spent", [0, 1, 2, 5])
def test_hello_timeout_counts_what_the_request_took(cls, spent):
    server = Server(cls, hello_timeout=3)
    early = server.open()
    slow = server.connect()
    slow.protocol.spent = spent
    slow.protocol.dataReceived(request())
    late = server.open()
    left = max(1, 3 - spent)
    server.clock.advance(left - 0.3)
    assert slow.ending is None
    server.clock.advance(0.5)
    assert slow.ending == "fin"
    if left < 3:
        assert early.ending is late.ending is None
    server.clock.advance(3)
    assert early.ending == late.ending == "fin"


def test_hello_timeout_is_off_after_hello(cls):
    server = Server(cls, hello_timeout=3)
    transport = server.open(hello=True)
    server.clock.pump([1] * 20)
    assert transport.ending is None


def test_hello_timeout_is_off_while_hello_waits_for_storage(cls):
    server = Server(cls, hello_timeout=3)
    transport = server.open()
    transport.protocol.pause_reading()
    server.clock.pump([1] * 20)
    assert transport.ending is None


# --------------------------------------------------------------------------------- the end


def test_the_session_ends_with_tcp(server):
    transport = server.open(hello=True)
    session = transport.protocol.session
    transport.end()
    assert session.log[-1] == "closed"
    assert transport.protocol.session is None


def test_the_session_ends_when_the_handshake_failed_after_it_began(server):
    _, transport = server.handshake(request(sec_websocket_extensions="permessage-deflate; x"))
    session = transport.protocol.session
    transport.end()
    assert session.log == ["closed"]


def test_a_session_that_can_not_save_is_logged(server, monkeypatch):
    transport = server.open(hello=True)
    failures = []
    monkeypatch.setattr(PushWire, "log_failure", lambda self, failure: failures.append(failure))
    transport.protocol.session.saved = fail(RuntimeError("disk full"))
    transport.end()
    assert failures[0].check(RuntimeError)


def test_hooks_after_the_end_do_nothing(server):
    transport = server.open(hello=True)
    protocol = transport.protocol
    transport.end()
    protocol.onMessage(b"{}", False)
    protocol._sendAutoPing()
    protocol.timeoutConnection()
    protocol.process_ping()
    protocol.process_notifications()
    protocol.send({})
    protocol.close()
    assert protocol.base_tags is None


def test_shutdown_sends_1001_and_ends_tcp(server):
    transports = [server.open() for _ in range(3)]
    done = []
    server.factory.shutdown().addCallback(done.append)
    for transport in transports:
        assert transport.take_frames() == [(CLOSE, b"\x03\xe9")]
        assert transport.ending == "fin"
        assert not done
        transport.end()
    assert done == [None]


def test_shutdown_spreads_the_closes(server):
    transports = [server.open() for _ in range(10)]
    server.factory.shutdown(spread=0.5)
    closed = []
    for _ in range(5):
        closed.append(sum(t.ending == "fin" for t in transports))
        server.clock.advance(0.1)
    assert closed == [2, 4, 6, 8, 10]


def test_shutdown_survives_those_who_left_meanwhile(server):
    transports = [server.open() for _ in range(4)]
    done = []
    server.factory.shutdown(spread=1).addCallback(done.append)
    for transport in transports:
        transport.end()
    server.clock.pump([0.1] * 20)
    assert done == [None]


def test_shutdown_aborts_who_stays(server):
    transport = server.open()
    done = []
    server.factory.shutdown().addCallback(done.append)
    server.clock.advance(10.1)
    assert transport.events[-1] == "abort"
    assert done == [None]


def test_shutdown_saves_at_once_and_waits_for_it(server):
    transport = server.open(hello=True)
    session = transport.protocol.session
    session.saved = saved = Deferred()
    done = []
    server.factory.shutdown().addCallback(done.append)
    assert session.log[-1] == "closed"
    assert transport.ending == "fin"
    transport.end()
    assert done == []
    saved.callback(None)
    assert done == [None]


def test_shutdown_waits_for_sessions_that_had_just_ended(server):
    transport = server.open(hello=True)
    transport.protocol.session.saved = saved = Deferred()
    transport.end()
    done = []
    server.factory.shutdown().addCallback(done.append)
    assert done == []
    saved.callback(None)
    assert done == [None]


def test_shutdown_may_be_called_again(server):
    transport = server.open()
    done = []
    for _ in range(2):
        server.factory.shutdown().addCallback(done.append)
    transport.end()
    assert done == [None, None]


def test_shutdown_refuses_new_ones(server):
    done = []
    server.factory.shutdown().addCallback(done.append)
    assert done == [None]
    reply, _ = server.handshake(request())
    assert reply == b"HTTP/1.1 503 shutting down\r\nRetry-After: 10\r\n\r\n"
