"""The listening sockets of a service of several processes."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
from twisted.internet.error import CannotListenError

from autopush.tests.e2e.harness import eventually
from autopush.workers.sockets import APART, Listening, forget, socket_paths

MANY = 400


def accepted(listening: Listening) -> list[int]:
    """Connect many times; returns how many connections each worker would have."""
    clients = [socket.create_connection(("127.0.0.1", listening.port)) for _ in range(MANY)]
    counts = [0] * len(listening.sockets)

    def all_are_there() -> bool:
        # Whoever connects hears of it before the kernel has told the listener.
        for index, one in enumerate(listening.sockets):
            counts[index] += accept_all(one)
        return sum(counts) >= MANY

    eventually(all_are_there)
    for client in clients:
        client.close()
    return counts


def accept_all(one: socket.socket) -> int:
    count = 0
    while True:
        try:
            one.accept()[0].close()
        except OSError:  # nobody waits; or it doesn't listen
            return count
        count += 1


@pytest.mark.skipif(not APART, reason="the kernel doesn't spread connections")
def test_each_worker_has_its_share() -> None:
    listening = Listening("127.0.0.1", 0, 4)
    try:
        counts = accepted(listening)
        # Binomial, 400 of 1/4: 100, and 9 more or less in two of three cases.
        assert sum(counts) == MANY and min(counts) > 40
        assert len({one.getsockname() for one in listening.sockets}) == 1
    finally:
        listening.close()


@pytest.mark.skipif(not APART, reason="the kernel doesn't spread connections")
@pytest.mark.parametrize("away", [0, 1])
def test_the_others_get_what_comes_while_one_is_away(away: int) -> None:
    listening = Listening("127.0.0.1", 0, 2)
    try:
        for _ in range(2):
            listening.rest(away)
            listening.rest(away)
            assert accepted(listening)[away] == 0
            listening.resume(away)
            listening.resume(away)
            assert min(accepted(listening)) > MANY / 4
    finally:
        listening.close()


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("other", [1, 2])
@pytest.mark.parametrize("apart", sorted({False, APART}))
def test_two_services_never_share_a_port(count: int, other: int, apart: bool) -> None:
    listening = Listening("127.0.0.1", 0, count, apart)
    try:
        with pytest.raises(CannotListenError) as caught:
            Listening("127.0.0.1", listening.port, other, apart)
        assert caught.value.port == listening.port
    finally:
        listening.close()


def test_one_socket_for_all() -> None:
    listening = Listening("127.0.0.1", 0, 3, apart=False)
    try:
        assert len({one.fileno() for one in listening.sockets}) == 1
        listening.rest(1)  # the others listen at it, too
        assert accepted(listening)[0] == MANY
    finally:
        listening.close()


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_ipv6() -> None:
    listening = Listening("::1", 0, 2)
    with socket.create_connection(("::1", listening.port)):
        pass
    listening.close()


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    for _ in range(2):  # its file goes with it
        listening = Listening(f"unix:{path}", 0, 2)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o666
        with pytest.raises(CannotListenError):
            Listening(f"unix:{path}", 0, 2)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            assert accept_all(listening.sockets[1]) == 1
        listening.close()
        assert list(tmp_path.iterdir()) == []


def test_a_unix_socket_left_by_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    gone = 2**22 + 1  # no process has such a number
    os.symlink(str(gone), f"{path}.lock")
    Listening(f"unix:{path}", 0, 2).close()


def test_a_unix_socket_where_none_can_be(tmp_path: Path) -> None:
    with pytest.raises(CannotListenError):
        Listening(f"unix:{tmp_path}/none/s", 0, 2)


def test_a_unix_socket_that_can_not_be_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.mkdir()
    with pytest.raises(CannotListenError):
        Listening(f"unix:{path}", 0, 2)
    assert list(tmp_path.iterdir()) == [path]


def left_behind(path: Path) -> None:
    """Leave what a process does that is killed, and whose number another one has by now."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    os.symlink(str(os.getpid()), f"{path}.lock")


def test_what_other_workers_have_left_is_removed(tmp_path: Path) -> None:
    for number in (1, 2, 9):
        left_behind(tmp_path / f"worker-{number}.sock")
    (tmp_path / "worker-9.sock").unlink()
    for name in ("worker-1.txt", "autopush.sqlite3"):
        (tmp_path / name).write_text("somebody's")
    socket_paths(str(tmp_path), 2)
    assert {one.name for one in tmp_path.iterdir()} == {"worker-1.txt", "autopush.sqlite3"}


def test_what_one_worker_has_left_is_removed(tmp_path: Path) -> None:
    for number in (1, 2):
        left_behind(tmp_path / f"worker-{number}.sock")
    for _ in range(2):  # or nothing
        forget(str(tmp_path / "worker-1.sock"))
        names = sorted(one.name for one in tmp_path.iterdir())
        assert names == ["worker-2.sock", "worker-2.sock.lock"]


def test_paths_for_each_worker(tmp_path: Path) -> None:
    paths = socket_paths(str(tmp_path), 3)
    assert len(set(paths)) == 3
    assert list(tmp_path.iterdir()) == []
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    with pytest.raises(OSError, match="too long"):
        socket_paths(str(deep), 3)
