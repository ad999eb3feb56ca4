"""The HTTP/2 client under APNs (RFC 9113), against h2's server half in memory; time is a Clock."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    PingReceived,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
)
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame, PingFrame
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from autopush.net import http2, http2pool
from autopush.net.http2 import (
    CLOSE_WITHIN,
    PING_BUSY,
    PING_IDLE,
    PING_TIMEOUT,
    STREAMS_PER_CONNECTION,
    Busy,
    ConnectionFailed,
    Http2Connection,
    StreamFailed,
    TimedOut,
    TransportFailed,
    Unprocessed,
)
from autopush.net.http2pool import (
    ASSUMED_STREAMS,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    MAX_REFUSALS,
    MAX_WAITING,
    PATIENCE,
    Http2Pool,
)

HEADERS = [
    (":method", "POST"),
    (":scheme", "https"),
    (":authority", "apns.example"),
    (":path", "/3/device/abc"),
]
CONNECT_TIMEOUT = 5.0
TIMEOUT = 10.0


class Transport(StringTransport):
    """The client's end of a TLS connection."""

    protocol: Any
    negotiatedProtocol: bytes | None = b"h2"
    aborted = False

    def abortConnection(self):
        if not self.aborted:
            self.aborted = True
            self.protocol.connectionLost(Failure(ConnectionDone()))

    def setTcpNoDelay(self, enabled):
        pass


class Server:
    """The server's end."""

    def __init__(self, client: Any, settings=None, alpn=b"h2", greet=True):
        self.client: Http2Connection = client
        self.transport: Any = Transport()
        self.transport.protocol = client
        self.transport.negotiatedProtocol = alpn
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.h2.local_settings = Settings(client=False, initial_values=settings or {})
        self.events: list[Any] = []
        client.makeConnection(self.transport)
        client.handshakeCompleted()
        if greet and alpn == b"h2":
            self.h2.initiate_connection()
            self.exchange()

    def exchange(self):
        """Pass bytes both ways until both are silent."""
        while True:
            sent = self.transport.value()
            self.transport.clear()
            if sent:
                self.events += self.h2.receive_data(sent)
            answer = self.h2.data_to_send()
            if answer:
                self.client.dataReceived(answer)
            if not sent and not answer:
                return

    def raw(self, data: bytes):
        self.client.dataReceived(data)

    def of(self, kind):
        self.exchange()
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def requests(self):
        """Stream ids of the requests so far."""
        return [event.stream_id for event in self.of(RequestReceived)]

    @property
    def complete(self):
        return [event.stream_id for event in self.of(StreamEnded)]

    def answer(self, stream_id, status="200", body=b"", headers=()):
        self.exchange()
        self.h2.send_headers(stream_id, [(":status", status), *headers], end_stream=not body)
        if body:
            self.h2.send_data(stream_id, body, end_stream=True)
        self.exchange()

    def reset(self, stream_id, code):
        self.exchange()
        self.h2.reset_stream(stream_id, code)
        self.exchange()

    def go_away(self, last, code=ErrorCodes.NO_ERROR):
        frame = GoAwayFrame(0)
        frame.last_stream_id, frame.error_code = last, code
        self.exchange()
        self.raw(frame.serialize())

    def lose(self):
        self.client.connectionLost(Failure(ConnectionDone()))


class Rig:
    """A pool whose connections the test makes."""

    def __init__(self, max_connections=3, max_attempts=2):
        self.clock = Clock()
        self.attempts: list[tuple[Deferred[Any], Any]] = []
        self.cancelled = 0
        self.pool = Http2Pool(
            self.clock, lambda: self, max_connections, max_attempts, TIMEOUT, CONNECT_TIMEOUT
        )

    def connect(self, factory):
        attempt: Deferred[Any] = Deferred(self._cancelled)
        self.attempts.append((attempt, factory))
        return attempt

    def _cancelled(self, _attempt):
        self.cancelled += 1

    def accept(self, **settings) -> Server:
        return self.accept_with(settings={SettingCodes[k]: v for k, v in settings.items()})

    def accept_with(self, **kwargs) -> Server:
        attempt, factory = self.attempts.pop(0)
        client = factory.buildProtocol(None)
        attempt.callback(client)
        return Server(client, **kwargs)

    def refuse(self):
        self.attempts.pop(0)[0].errback(ConnectionRefusedError())

    def send(self, body=b"{}"):
        result: list[Any] = []
        self.last = self.pool.send(HEADERS, body)
        self.last.addBoth(result.append)
        return result

    def advance(self, seconds):
        """In steps of the pool's timer."""
        for _ in range(int(seconds * 2)):
            self.clock.advance(0.5)


@pytest.fixture
def rig():
    return Rig()


def status_of(result):
    (response,) = result
    return response.status


def error_of(result):
    (failure,) = result
    return failure.value


# ------------------------------------------------------------------------------ plain sailing


def test_request_and_answer(rig):
    result = rig.send(b'{"a": 1}')
    server = rig.accept()
    assert server.requests == [1]
    assert b"".join(event.data for event in server.of(DataReceived)) == b'{"a": 1}'
    assert server.complete == [1]
    assert result == []
    server.answer(1, "400", b'{"reason": "x"}', [("retry-after", "7")])
    (response,) = result
    assert (response.status, response.body) == (400, b'{"reason": "x"}')
    assert response.headers[b"retry-after"] == b"7"


def test_push_is_switched_off(rig):
    rig.send()
    server = rig.accept()
    changed = server.of(RemoteSettingsChanged)[0].changed_settings
    assert changed[SettingCodes.ENABLE_PUSH].new_value == 0


def test_many_requests_share_one_connection(rig):
    results = [rig.send() for _ in range(50)]
    server = rig.accept()
    assert len(server.requests) == 50
    assert rig.attempts == []
    for stream_id in reversed(server.requests):  # answers come in any order
        server.answer(stream_id)
    assert [status_of(result) for result in results] == [200] * 50


def test_nothing_is_sent_before_the_servers_settings(rig):
    rig.send()
    server = rig.accept_with(greet=False)
    assert rig.pool.connections[0].has_room is False
    server.h2.initiate_connection()
    server.exchange()
    assert server.requests == [1]


def test_a_request_without_body_ends_with_its_headers(rig):
    rig.send(b"")
    server = rig.accept()
    assert server.complete == [1]
    assert server.of(DataReceived) == []


# ------------------------------------------------------------------------------ limits of the peer


def test_max_concurrent_streams_is_kept(rig):
    rig = Rig(max_connections=1)
    results = [rig.send() for _ in range(5)]
    server = rig.accept(MAX_CONCURRENT_STREAMS=2)
    assert server.requests == [1, 3]
    server.answer(1)
    assert server.requests == [1, 3, 5]
    for stream_id in (3, 5, 7, 9):
        server.answer(stream_id)
    assert [status_of(result) for result in results] == [200] * 5


def test_max_concurrent_streams_may_change(rig):
    rig = Rig(max_connections=1)
    for _ in range(5):
        rig.send()
    server = rig.accept(MAX_CONCURRENT_STREAMS=1)
    assert server.requests == [1]
    server.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 4})
    server.exchange()
    assert server.requests == [1, 3, 5, 7]


def test_zero_concurrent_streams_lets_requests_wait(rig):
    rig = Rig(max_connections=1)
    result = rig.send()
    server = rig.accept(MAX_CONCURRENT_STREAMS=0)
    assert server.requests == []
    rig.advance(TIMEOUT + 1)
    assert isinstance(error_of(result), TimedOut)


def test_our_own_limit_of_streams(rig):
    rig.send()
    server = rig.accept()  # names no limit
    for _ in range(STREAMS_PER_CONNECTION):
        rig.send()
    assert len(server.requests) == STREAMS_PER_CONNECTION
    assert len(rig.attempts) == 1


def test_another_connection_is_made_when_those_there_are_full(rig):
    for _ in range(3):
        rig.send()
    first = rig.accept(MAX_CONCURRENT_STREAMS=2)
    assert first.requests == [1, 3]
    second = rig.accept(MAX_CONCURRENT_STREAMS=2)
    assert second.requests == [1]
    rig.send()
    rig.send()
    assert second.requests == [1, 3]
    rig.accept(MAX_CONCURRENT_STREAMS=1)
    rig.send()
    assert rig.attempts == []  # max_connections


def test_a_burst_opens_as_many_connections_as_it_may_need(rig):
    for _ in range(ASSUMED_STREAMS + 1):
        rig.send()
    assert len(rig.attempts) == 2


def test_body_follows_the_stream_window(rig):
    result = rig.send(b"x" * 1000)
    server = rig.accept(INITIAL_WINDOW_SIZE=300)
    assert sum(len(event.data) for event in server.of(DataReceived)) == 300
    assert server.complete == []
    server.h2.increment_flow_control_window(500, 1)
    assert sum(len(event.data) for event in server.of(DataReceived)) == 800
    server.h2.increment_flow_control_window(500, 1)
    assert server.complete == [1]
    server.answer(1)
    assert status_of(result) == 200


def test_body_follows_the_connection_window(rig):
    bodies = 70_000 // 4096 + 1
    for _ in range(bodies):
        rig.send(b"x" * 4096)
    server = rig.accept()
    assert sum(len(event.data) for event in server.of(DataReceived)) == 65535
    assert len(server.complete) < bodies
    server.h2.increment_flow_control_window(10_000)
    assert len(server.complete) == bodies


def test_body_follows_a_changed_initial_window(rig):
    rig.send(b"x" * 1000)
    server = rig.accept(INITIAL_WINDOW_SIZE=0)
    assert server.requests == [1]
    assert server.of(DataReceived) == []
    server.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2000})
    assert server.complete == [1]


def test_body_is_cut_into_frames(rig):
    rig.send(b"x" * 40_000)
    server = rig.accept()
    assert [len(event.data) for event in server.of(DataReceived)] == [16384, 16384, 7232]


def test_window_of_answers_is_given_back(rig):
    server = None
    for _ in range(40):  # 80 KB: more than the first window
        result = rig.send()
        server = server or rig.accept()
        server.answer(server.requests[-1], "400", b"x" * 2000)
        assert status_of(result) == 400


def test_an_answer_before_the_body_is_complete(rig):
    result = rig.send(b"x" * 1000)
    server = rig.accept(INITIAL_WINDOW_SIZE=300)
    server.answer(1, "413", b"{}")
    assert status_of(result) == 413
    assert rig.pool.connections[0].busy is False
    again = rig.send(b"")
    server.answer(3)
    assert status_of(again) == 200


# ------------------------------------------------------------------------------ answers


def test_too_long_an_answer_is_reset(rig):
    rig = Rig(max_attempts=1)
    result = rig.send()
    server = rig.accept()
    server.h2.send_headers(1, [(":status", "400")])
    while not result:
        server.h2.send_data(1, b"x" * 16384)
        server.exchange()
    assert isinstance(error_of(result), StreamFailed)
    assert "too long" in str(error_of(result))
    assert [event.error_code for event in server.of(StreamReset)] == [ErrorCodes.CANCEL]
    assert len(rig.pool.connections) == 1


@pytest.mark.parametrize("status", ["abc", "20", "2000"])
def test_malformed_status(status):
    rig = Rig(max_attempts=1)
    result = rig.send()
    server = rig.accept()
    server.answer(1, status)
    assert isinstance(error_of(result), StreamFailed)


def test_informational_answers_are_skipped(rig):
    result = rig.send()
    server = rig.accept()
    server.h2.send_headers(1, [(":status", "103")])
    server.exchange()
    assert result == []
    server.answer(1)
    assert status_of(result) == 200


def test_an_answer_nobody_waits_for_does_no_harm(rig):
    result = rig.send()
    server = rig.accept()
    assert server.requests == [1]
    rig.last.cancel()
    assert isinstance(error_of(result), CancelledError)
    server.h2.send_headers(1, [(":status", "400")])
    server.h2.send_data(1, b"x" * 100, end_stream=True)
    data = server.h2.data_to_send()  # on its way when our RST_STREAM arrives
    server.raw(data)
    again = rig.send()
    server.answer(3)
    assert status_of(again) == 200


def test_a_cancelled_request_is_not_sent(rig):
    rig.send()
    rig.last.cancel()
    server = rig.accept()
    assert server.requests == []


# ------------------------------------------------------------------------------ GOAWAY, RST_STREAM


def test_goaway_lets_earlier_requests_finish(rig):
    first, second = rig.send(), rig.send()
    server = rig.accept()
    server.go_away(last=3)
    assert (first, second) == ([], [])
    server.answer(1)
    server.answer(3)
    assert status_of(first) == status_of(second) == 200
    assert server.transport.disconnecting


def test_goaway_and_answer_in_one_segment(rig):
    result = rig.send()
    server = rig.accept()
    server.exchange()
    frame = GoAwayFrame(0)
    frame.last_stream_id = 1
    server.h2.send_headers(1, [(":status", "200")], end_stream=True)
    server.raw(frame.serialize() + server.h2.data_to_send())
    assert status_of(result) == 200


def test_requests_after_the_last_stream_id_go_elsewhere(rig):
    first, second = rig.send(), rig.send()
    server = rig.accept()
    server.go_away(last=1)
    other = rig.accept()
    assert other.requests == [1]
    other.answer(1)
    server.answer(1)
    assert status_of(first) == status_of(second) == 200


def test_new_requests_after_goaway_go_elsewhere(rig):
    rig.send()
    server = rig.accept()
    server.go_away(last=1)
    rig.send()
    assert server.requests == [1]
    assert rig.accept().requests == [1]


def test_two_goaways_the_graceful_way(rig):
    first, second = rig.send(), rig.send()
    server = rig.accept()
    server.go_away(last=2**31 - 1)
    assert (first, second) == ([], [])
    server.go_away(last=1)
    other = rig.accept()
    other.answer(1)
    server.answer(1)
    assert status_of(first) == status_of(second) == 200


def test_connection_that_goes_away_with_an_error(rig):
    rig = Rig(max_attempts=1)
    result = rig.send()
    server = rig.accept()
    server.go_away(last=1, code=ErrorCodes.ENHANCE_YOUR_CALM)
    server.lose()
    assert isinstance(error_of(result), ConnectionFailed)
    assert "ENHANCE_YOUR_CALM" in str(error_of(result))


def test_goaway_on_an_idle_connection_closes_it(rig):
    rig.send()
    server = rig.accept()
    server.answer(1)
    server.go_away(last=1)
    assert server.transport.disconnecting
    assert len(rig.pool.connections) == 0
    rig.send()
    assert len(rig.attempts) == 1


def test_server_that_always_goes_away_is_given_up(rig):
    result = rig.send()
    for number in itertools.count():
        assert number <= MAX_REFUSALS
        if not rig.attempts:
            break
        rig.accept().go_away(last=0)
    assert rig.attempts == []  # not tried again at once
    for _ in range(int(TIMEOUT) + 1):
        rig.advance(1)
        while rig.attempts and not result:
            rig.accept().go_away(last=0)
    assert isinstance(error_of(result), ConnectionFailed | Unprocessed | TransportFailed)


def test_refused_stream_is_sent_again_after_a_pause(rig):
    result = rig.send()
    server = rig.accept()
    server.exchange()
    server.reset(1, ErrorCodes.REFUSED_STREAM)
    assert server.requests == [1]
    rig.advance(1)
    assert server.requests == [1, 3]
    server.answer(3)
    assert status_of(result) == 200


def test_refused_streams_do_not_count_as_attempts_but_end(rig):
    result = rig.send()
    server = rig.accept()
    for number in itertools.count():
        assert number <= MAX_REFUSALS
        server.exchange()
        server.reset(server.requests[-1], ErrorCodes.REFUSED_STREAM)
        if result:
            break
        rig.clock.advance(http2pool.REFUSED_PAUSE * 2**number)
    assert number == MAX_REFUSALS > 2
    assert isinstance(error_of(result), Unprocessed)


def test_reset_stream_is_tried_again_then_fails(rig):
    result = rig.send()
    server = rig.accept()
    server.exchange()
    server.reset(1, ErrorCodes.INTERNAL_ERROR)
    assert server.requests == [1, 3]
    server.reset(3, ErrorCodes.INTERNAL_ERROR)
    assert isinstance(error_of(result), StreamFailed)
    assert "INTERNAL_ERROR" in str(error_of(result))
    assert error_of(result).reason == "http2_error"


def test_a_reset_concerns_no_other_request(rig):
    first, second = rig.send(), rig.send()
    server = rig.accept()
    server.exchange()
    server.reset(1, ErrorCodes.CANCEL)
    server.answer(3)
    server.answer(5)
    assert status_of(first) == status_of(second) == 200


# ------------------------------------------------------------------------------ lost connections


def test_lost_connection_is_tried_again_on_a_new_one(rig):
    result = rig.send()
    server = rig.accept()
    server.exchange()
    server.lose()
    other = rig.accept()
    assert other.requests == [1]
    other.answer(1)
    assert status_of(result) == 200


def test_max_retry_counts_attempts(rig):
    rig = Rig(max_attempts=3)
    result = rig.send()
    for _ in range(3):
        assert result == []
        server = rig.accept()
        assert server.requests == [1]
        server.lose()
    assert isinstance(error_of(result), TransportFailed)
    assert error_of(result).reason == "http2_error"


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n" * 20, b"\xff" * 200])
def test_garbage(rig, garbage):
    rig = Rig(max_attempts=1)
    result = rig.send()
    server = rig.accept()
    server.exchange()
    server.raw(garbage)
    assert isinstance(error_of(result), ConnectionFailed)
    assert error_of(result).reason == "connection_error"
    assert server.transport.aborted
    assert len(rig.pool.connections) == 0


def test_garbage_that_could_be_the_beginning_of_a_frame(rig):
    result = rig.send()
    server = rig.accept()
    server.exchange()
    for _ in range(int(PING_BUSY + PING_TIMEOUT) + 2):
        server.raw(b"\0\x3f\xff\0")
        rig.advance(1)
    assert server.transport.aborted
    rig.accept().answer(1)
    assert status_of(result) == 200


def test_garbage_instead_of_settings(rig):
    result = rig.send()
    for _ in range(2):
        rig.accept_with(greet=False).raw(b"SSH-2.0-OpenSSH_9.2\r\n")
    assert isinstance(error_of(result), ConnectionFailed)


def test_connection_lost_in_the_middle_of_a_body(rig):
    rig = Rig(max_attempts=1)
    result = rig.send()
    server = rig.accept()
    server.h2.send_headers(1, [(":status", "400"), ("content-length", "100")])
    server.h2.send_data(1, b"half")
    server.exchange()
    server.lose()
    assert isinstance(error_of(result), TransportFailed)


def test_body_shorter_than_its_content_length(rig):
    rig = Rig(max_attempts=1)
    result = rig.send()
    server = rig.accept()
    server.answer(1, "400", b"short", [("content-length", "100")])
    assert isinstance(error_of(result), ConnectionFailed)


def test_a_server_without_http2(rig):
    result = rig.send()
    for alpn in (None, b"http/1.1"):
        server = rig.accept_with(alpn=alpn)
        assert server.transport.aborted
    assert isinstance(error_of(result), ConnectionFailed)
    assert "HTTP/2" in str(error_of(result))


# ------------------------------------------------------------------------------ back-off


def test_refused_connection_is_tried_max_retry_times(rig):
    result = rig.send()
    rig.refuse()
    assert result == []
    rig.refuse()
    assert isinstance(error_of(result), TransportFailed)
    assert rig.attempts == []


def test_requests_wait_for_the_end_of_a_short_pause(rig):
    rig.send()
    rig.refuse()
    rig.refuse()
    result = rig.send()
    assert (result, rig.attempts) == ([], [])
    rig.clock.advance(FIRST_PAUSE * 1.25)
    rig.accept().answer(1)
    assert status_of(result) == 200


def fail_until_a_long_pause(rig):
    """Let connections fail until requests fail without one."""
    while True:
        assert rig.clock.seconds() < 60
        result = rig.send()
        if result:
            return result
        while not result:
            if rig.attempts:
                rig.refuse()
            else:
                rig.clock.advance(0.1)


def test_requests_in_a_long_pause_fail_at_once(rig):
    result = fail_until_a_long_pause(rig)
    assert isinstance(error_of(result), TransportFailed)
    assert rig.attempts == []


def test_back_off_grows_up_to_its_limit(rig):
    fail_until_a_long_pause(rig)
    pauses = []
    for _ in range(8):
        start = rig.clock.seconds()
        while not rig.attempts:
            rig.clock.advance(0.25)
            rig.send()
        pauses.append(rig.clock.seconds() - start)
        while rig.attempts:
            rig.refuse()
    assert pauses[2] > pauses[1]
    assert max(pauses) <= LONGEST_PAUSE * 1.25 + 0.25
    assert min(pauses[-3:]) >= LONGEST_PAUSE * 0.75 - PATIENCE


def test_an_answer_ends_the_back_off(rig):
    rig.send()
    rig.refuse()
    server = rig.accept()
    server.answer(1)
    server.lose()
    rig.send()
    rig.refuse()
    assert len(rig.attempts) == 1  # the second attempt, at once


def test_server_that_drops_connections_after_each_request_is_not_hammered(rig):
    made = 0
    while not (result := rig.send()):
        while not result:
            while rig.attempts:
                rig.accept().lose()
                made += 1
            rig.clock.advance(0.1)
    assert isinstance(error_of(result), TransportFailed)
    assert made < 10


def test_losing_an_idle_connection_is_no_failure(rig):
    rig = Rig(max_attempts=1)
    for _ in range(3):
        result = rig.send()
        server = rig.accept()
        server.answer(1)
        server.lose()
        assert status_of(result) == 200


# ------------------------------------------------------------------------------ time


def test_connection_that_does_not_come_about_in_time(rig):
    result = rig.send()
    rig.advance(CONNECT_TIMEOUT)
    assert rig.cancelled == 1
    rig.attempts.pop(0)
    assert result == []
    rig.advance(CONNECT_TIMEOUT + 1)
    assert isinstance(error_of(result), TimedOut)
    assert error_of(result).reason == "timeout"


def test_server_that_accepts_and_says_nothing(rig):
    result = rig.send()
    server = rig.accept_with(greet=False)
    rig.advance(CONNECT_TIMEOUT)
    assert server.transport.aborted
    assert result == []
    assert len(rig.attempts) == 1


def test_response_timeout(rig):
    result = rig.send()
    server = rig.accept()
    assert server.requests == [1]
    for _ in range(int(TIMEOUT)):
        rig.advance(1)
        server.exchange()  # answers PINGs
    assert isinstance(error_of(result), TimedOut)
    assert [event.error_code for event in server.of(StreamReset)] == [ErrorCodes.CANCEL]
    assert len(rig.pool.connections) == 1
    assert rig.pool.connections[0].busy is False


def test_one_slow_request_does_not_delay_others(rig):
    slow, quick = rig.send(), rig.send()
    server = rig.accept()
    server.answer(3)
    assert (slow, status_of(quick)) == ([], 200)


def test_ping_on_a_silent_connection_with_requests(rig):
    result = rig.send()
    server = rig.accept()
    server.exchange()
    rig.advance(PING_BUSY + 1)
    sent = server.transport.value()
    assert any(isinstance(event, PingReceived) for event in server.h2.receive_data(sent))
    rig.advance(PING_TIMEOUT + 1)  # no answer
    assert server.transport.aborted
    other = rig.accept()
    other.answer(1)
    assert status_of(result) == 200  # well before its own time-out


def test_ping_keeps_an_idle_connection(rig):
    rig.send()
    server = rig.accept()
    server.answer(1)
    for _ in range(5):
        rig.advance(PING_IDLE / 2)
        server.exchange()
    assert 1 <= len(server.of(PingReceived)) <= 3
    assert len(rig.pool.connections) == 1


def test_idle_connection_whose_ping_is_not_answered_is_dropped(rig):
    rig.send()
    server = rig.accept()
    server.answer(1)
    rig.advance(PING_IDLE + PING_TIMEOUT + 2)
    assert server.transport.aborted
    assert len(rig.pool.connections) == 0


def test_new_requests_do_not_hide_a_dead_connection(rig):
    rig.send()
    server = rig.accept()
    server.exchange()
    for _ in range(int(PING_BUSY + PING_TIMEOUT) + 2):
        rig.advance(1)
        rig.send()
    assert server.transport.aborted


def test_a_ping_of_the_server_is_answered(rig):
    rig.send()
    server = rig.accept()
    server.exchange()
    server.h2.ping(b"12345678")
    server.raw(server.h2.data_to_send())
    assert PingFrame(0, b"12345678", flags=["ACK"]).serialize() in server.transport.value()


def test_timers_end_when_there_is_nothing_to_look_after(rig):
    rig.send()
    server = rig.accept()
    server.answer(1)
    server.lose()
    rig.advance(2)
    assert rig.clock.getDelayedCalls() == []


# ------------------------------------------------------------------------------ too many, the end


def test_busy_when_too_many_wait(rig):
    rig = Rig(max_connections=1)
    results = [rig.send() for _ in range(MAX_WAITING)]
    assert isinstance(error_of(rig.send()), Busy)
    assert results == [[]] * MAX_WAITING
    server = rig.accept(MAX_CONCURRENT_STREAMS=1)
    server.exchange()
    server.answer(1)
    assert rig.send() == []


def test_finished_requests_are_forgotten(rig):
    rig.send(b"x" * 100)
    server = rig.accept()
    server.answer(1)
    assert rig.pool._pending == {}
    assert not rig.pool._waiting


def test_stream_ids_that_run_out(rig):
    rig.send()
    server = rig.accept()
    server.answer(1)
    rig.pool.connections[0]._h2.highest_outbound_stream_id = 2**31 - 1
    result = rig.send()
    other = rig.accept()
    other.answer(1)
    assert status_of(result) == 200
    assert server.transport.disconnecting


def test_close_fails_what_is_under_way_and_waits_for_the_sockets(rig):
    under_way = rig.send()
    server = rig.accept()
    server.exchange()
    closed: list[Any] = []
    rig.pool.close().addCallback(closed.append)
    assert isinstance(error_of(under_way), TransportFailed)
    assert server.transport.disconnecting
    assert closed == []
    rig.clock.advance(CLOSE_WITHIN)  # the server keeps its end open
    assert closed == [None]
    assert server.transport.aborted
    assert isinstance(error_of(rig.send()), TransportFailed)
    assert rig.clock.getDelayedCalls() == []


def test_close_while_connecting(rig):
    result = rig.send()
    closed: list[Any] = []
    rig.pool.close().addCallback(closed.append)
    assert closed == [None]
    assert rig.cancelled == 1
    assert isinstance(error_of(result), TransportFailed)


def test_close_with_a_pause_running(rig):
    result = rig.send()
    server = rig.accept()
    server.exchange()
    server.reset(1, ErrorCodes.REFUSED_STREAM)
    rig.pool.close()
    assert isinstance(error_of(result), TransportFailed)
    server.lose()
    assert rig.clock.getDelayedCalls() == []


def test_connection_closed_by_us_is_cut_if_the_server_keeps_it(rig):
    rig.send()
    server = rig.accept()
    server.answer(1)
    server.go_away(last=1)
    assert server.transport.disconnecting
    rig.advance(CLOSE_WITHIN + 1)
    assert server.transport.aborted


def test_sensitive_headers_are_not_in_the_errors(rig):
    rig = Rig(max_attempts=1)
    result = rig.send(b"secret body")
    rig.accept().lose()
    assert "abc" not in str(error_of(result))
    assert "secret" not in repr(error_of(result))


def test_error_names():
    assert http2.error_name(ErrorCodes.CANCEL) == "CANCEL"
    assert http2.error_name(4711) == "4711"
