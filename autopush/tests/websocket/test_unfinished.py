"""Messages that have not arrived completely: how long, and how much of them all."""

# mypy: disable-error-code="arg-type,attr-defined,misc,valid-type"

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings, strategies as st
from twisted.logger import capturedLogs

from autopush.tests.websocket.support import (
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    Server,
    StockPushProtocol,
    frame,
    heard,
    say,
)
from autopush.websocket import PushServerProtocol
from autopush.websocket.trimmed import OPEN
from autopush.websocket.unfinished import RELIEF, STRANGER_MESSAGE, Budget

TOO_BIG = [(CLOSE, struct.pack("!H", 1009))]
LATER = [(CLOSE, struct.pack("!H", 1013))]
CLASSES = {"slim": PushServerProtocol, "stock": StockPushProtocol}


@pytest.fixture(params=list(CLASSES.values()), ids=list(CLASSES))
def cls(request):
    return request.param


def announced(size: int, first: int = 0x80 | TEXT) -> bytes:
    """The header of a frame, and nothing of the frame."""
    form = ("!BBH", 0xFE) if size <= 65535 else ("!BBQ", 0xFF)
    return struct.pack(form[0], first, form[1], size) + b"mask"


def padded(size: int) -> bytes:
    """A message of this size that makes sense."""
    return b'{"messageType": "echo", "pad": ""}'[:-2] + b"x" * (size - 34) + b'"}'


# ------------------------------------------------------------------ one message of a stranger


def test_a_message_before_hello_may_have_8192_bytes(cls):
    transport = Server(cls, max_message_size=1 << 20).open()
    transport.protocol.dataReceived(frame(TEXT, padded(STRANGER_MESSAGE)))
    assert len(heard(transport)) == 1 and transport.ending is None


@pytest.mark.parametrize("first", [0x80 | TEXT, TEXT, 0x82, 2])
@pytest.mark.parametrize("size", [STRANGER_MESSAGE + 1, 65535, 65536, 1 << 20])
def test_a_longer_one_is_refused_from_its_header(cls, first, size):
    transport = Server(cls, max_message_size=1 << 20).open()
    transport.protocol.dataReceived(announced(size, first))
    assert transport.take_frames() == TOO_BIG
    assert heard(transport) == []


def test_all_its_frames_count_together(cls):
    transport = Server(cls, max_message_size=1 << 20).open()
    protocol, half = transport.protocol, padded(STRANGER_MESSAGE)
    protocol.dataReceived(frame(TEXT, half[:5000], fin=False) + frame(PING, b"p" * 125))
    assert transport.take_frames() == [(PONG, b"p" * 125)]
    protocol.dataReceived(frame(CONT, half[5000:], fin=False))
    assert transport.take() == b""
    protocol.dataReceived(frame(CONT, b"x"))
    assert transport.take_frames() == TOO_BIG
    assert heard(transport) == []


def test_after_hello_only_max_message_size_counts(cls):
    transport = Server(cls, max_message_size=10_000).open()
    long = frame(TEXT, padded(10_000))
    transport.protocol.dataReceived(frame(TEXT, b'{"messageType": "hello"}') + long)
    (opcode, echo), *rest = transport.take_frames()
    assert (opcode, len(echo), rest) == (TEXT, 10_000 - 3, [])  # written without blanks
    transport.protocol.dataReceived(frame(TEXT, padded(10_001)))
    assert transport.take_frames() == TOO_BIG


def test_a_shorter_max_message_size_counts_before_hello_too(cls):
    transport = Server(cls, max_message_size=100).open()
    transport.protocol.dataReceived(frame(TEXT, padded(101)))
    assert transport.take_frames() == TOO_BIG


# ------------------------------------------------------------------------ all that is incomplete


def crowd(cls, strangers: int, users: int, limit: int) -> tuple[Server, list, list]:
    """A server whose budgets are small, and its connections."""
    server = Server(cls, max_message_size=1 << 20)
    server.factory.unfinished.strangers.limit = server.factory.unfinished.users.limit = limit
    return (
        server,
        [server.open() for _ in range(strangers)],
        [server.open(hello=True) for _ in range(users)],
    )


def begin(transport, size: int) -> None:
    """Send so much of the payload of a longer message."""
    data = frame(TEXT, b"x" * 8000)
    transport.protocol.dataReceived(data[: len(data) - 8000 + size])


def test_up_to_the_budget_nobody_is_closed(cls):
    _, strangers, users = crowd(cls, 3, 3, limit=3 * 1100)
    for transport in (*strangers, *users):
        begin(transport, 1000)
    assert [t.ending for t in (*strangers, *users)] == [None] * 6


def test_above_it_who_holds_most_is_told_to_come_back(cls):
    server, _, (small, big, middle) = crowd(cls, 0, 3, limit=6000)
    begin(small, 1000)
    begin(big, 3000)
    with capturedLogs() as logs:
        begin(middle, 2500)
    assert big.take_frames() == LATER
    assert small.take() == middle.take() == b""
    assert server.factory.unfinished.users.total < 6000
    (event,) = [event for event in logs if "Incomplete messages" in str(event["log_format"])]
    assert (event["limit"], event["count"]) == (6000, 1)


@pytest.mark.parametrize(("longest", "limit"), [(1 << 20, 48 << 20), (64 << 20, 128 << 20)])
def test_the_longest_message_has_room(cls, longest, limit):
    unfinished = Server(cls, max_message_size=longest).factory.unfinished
    assert (unfinished.users.limit, unfinished.strangers.limit) == (limit, 16 << 20)


def test_strangers_take_nothing_from_user_agents(cls):
    server, strangers, (user,) = crowd(cls, 20, 1, limit=6000)
    begin(user, 5000)
    for transport in strangers:
        begin(transport, 1000)
    assert user.ending is None
    assert sum(t.ending is None for t in strangers) == len(server.factory.unfinished.strangers.held)


def test_user_agents_take_nothing_from_strangers(cls):
    _, (stranger,), users = crowd(cls, 1, 20, limit=6000)
    begin(stranger, 5000)
    for transport in users:
        begin(transport, 1000)
    assert stranger.ending is None


def test_complete_messages_of_the_same_read_are_not_lost(cls):
    """Also when what follows is too much."""
    _, _, (user,) = crowd(cls, 0, 1, limit=1000)
    heard(user)
    begun = frame(TEXT, b"x" * 8000)[:5000]
    user.protocol.dataReceived(frame(TEXT, b'{"a": 1}') + frame(TEXT, b'{"b": 2}') + begun)
    assert heard(user) == [{"a": 1}, {"b": 2}]
    assert user.take_frames() == LATER


def test_a_hello_takes_what_follows_it_to_the_other_budget(cls):
    server, (stranger,), _ = crowd(cls, 1, 0, limit=6000)
    begin(stranger, 100)
    unfinished = server.factory.unfinished
    assert unfinished.strangers.total and not unfinished.users.total
    rest = frame(TEXT, b'{"messageType": "hello"}') + frame(TEXT, b"x" * 100)[:50]
    other = server.open()
    other.protocol.dataReceived(rest)
    assert list(unfinished.users.held) == [other.protocol]


def test_what_a_closed_connection_held_is_free_before_tcp_ends(cls):
    server, _, (user,) = crowd(cls, 0, 1, limit=6000)
    begin(user, 4000)
    user.protocol.session.close()
    assert server.factory.unfinished.users.total == 0
    kept = {value for value in vars(user.protocol).values() if isinstance(value, bytearray)}
    assert not kept


def test_the_answer_to_a_close_amid_a_message_still_ends_tcp():
    """What was let go of is skipped by its length."""
    _, _, (user,) = crowd(PushServerProtocol, 0, 1, limit=6000)
    data = frame(TEXT, b"x" * 4000)
    user.protocol.dataReceived(data[:2000])
    user.protocol.session.close()
    user.protocol.dataReceived(data[2000:])
    assert "close" not in user.events
    user.protocol.dataReceived(frame(CLOSE))
    assert "close" in user.events


PIECES = st.one_of(
    st.sampled_from(["hello", "close", "end", "server close"]),
    st.binary(max_size=40).map(lambda data: frame(TEXT, data, fin=False)),
    st.binary(max_size=300).map(lambda data: frame(TEXT, data)),
    st.binary(max_size=300).map(lambda data: frame(CONT, data, fin=False)),
    st.binary(max_size=300).map(lambda data: frame(CONT, data)),
    st.binary(max_size=200).map(lambda data: frame(PING, data[:125])),
    st.binary(max_size=20),
)


@settings(max_examples=300)
@given(
    steps=st.lists(st.tuples(st.integers(0, 3), PIECES, st.integers(0, 300)), max_size=40),
    limit=st.integers(50, 700),
    kind=st.sampled_from(list(CLASSES)),
)
def test_the_books_are_right_whatever_happens(steps, limit, kind):
    server, strangers, users = crowd(CLASSES[kind], 2, 2, limit)
    transports = [*strangers, *users]
    unfinished = server.factory.unfinished
    for index, piece, cut in steps:
        transport = transports[index]
        if not transport.connected:
            continue
        act(transport, piece, cut)
        for budget in (unfinished.strangers, unfinished.users):
            assert budget.total == sum(budget.held.values()) <= limit
        if kind == "slim":
            kept = {t.protocol: keeps(t.protocol) for t in transports if t.connected}
            held = {**unfinished.strangers.held, **unfinished.users.held}
            assert {p: size for p, size in kept.items() if size} == held
    for transport in transports:
        transport.end()
    assert unfinished.strangers.total == unfinished.users.total == 0
    assert unfinished.strangers.held == unfinished.users.held == {}


def act(transport, piece, cut: int) -> None:
    if piece == "hello":
        say(transport, {"messageType": "hello"})
    elif piece == "end":
        transport.end()
    elif piece == "server close":
        transport.protocol.session.close()
    elif piece == "close":
        transport.protocol.dataReceived(frame(CLOSE))
    else:
        transport.protocol.dataReceived(piece[:cut])
        if transport.connected:
            transport.protocol.dataReceived(piece[cut:])


def keeps(protocol) -> int:
    """What an open connection has in its hands."""
    if protocol.state != OPEN:
        return 0
    partial, fragments = protocol._partial, protocol._fragments
    return (len(partial[1]) if partial else 0) + (len(fragments[1]) if fragments else 0)


# ------------------------------------------------------------------------------- the budget alone


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 100)), max_size=60), st.integers(1, 400)
)
def test_a_budget_is_never_exceeded_and_sheds_the_largest(steps, limit):
    shed: list[int] = []
    budget = Budget(limit, shed.append)
    for connection, size in steps:
        shed.clear()
        before = {**budget.held, connection: size}
        budget.hold(connection, size)
        assert budget.total == sum(budget.held.values()) <= limit
        if shed:
            assert min(before[one] for one in shed) >= max(budget.held.values(), default=0)
            # No more than it takes to have some room again.
            spared = budget.total + before[shed[-1]]
            assert spared > limit - limit // RELIEF
        else:
            assert sum(before.values()) <= limit
