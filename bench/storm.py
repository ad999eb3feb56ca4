"""Everybody comes back at once: what others notice of it.

    python bench/storm.py                           15,000 users
    python bench/storm.py --users 3000 --json result.json

The standalone service is stopped while all its users are connected, and started again. They come
back as fast as they are let in, ``--at_a_time`` of them in the listening socket's queue, while
application servers send to some of them at an even rate. It prints how long it took until all were
back, how long senders waited for an answer and messages for their way to the user meanwhile, how
many were refused, memory, and CPU. Exits 1 above a bar. See bench/README.md.

Who sends, and the users that are sent to, are a process of their own: behind a thousand events of
those who come back an answer would wait for us, not for the service. When something arrived is told
by the kernel.
"""

from __future__ import annotations

import argparse
import os
import resource
import socket
import struct
import sys
import time
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

from loadgen import Browser, Connection, Flow, Loop, Poster, connect_browsers
from process import TREE, ServerProcess
from standalone import FEW, Figure, Sender, cores, percentiles, report

RATE = 200
"""Messages a second."""

POSTERS = 32
"""Connections of application servers."""

YIELD = 10
"""By how much those who come back are nicer than those who send and take the time."""


TIMESTAMPS = 35
"""Linux, ``SO_TIMESTAMPNS``: have the kernel say when something arrived (socket(7))."""


class Stamped(Connection):
    """A connection that knows when it was sent something last, even if we come to it later.

    :ivar arrived: seconds since the epoch
    """

    __slots__ = ()
    arrived: float

    def opened(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, TIMESTAMPS, 1)
        super().opened()

    def read(self) -> bytes:
        data, notes, _, _ = self.sock.recvmsg(65536, 64)
        self.arrived = time.time()
        for level, kind, note in notes:
            if (level, kind) == (socket.SOL_SOCKET, TIMESTAMPS):
                seconds, nanoseconds = struct.unpack("@ll", note)
                self.arrived = seconds + nanoseconds / 1e9
        return data


class StampedPoster(Stamped, Poster):
    """An application server."""

    __slots__ = ("arrived",)


class StampedBrowser(Stamped, Browser):
    """A user who is sent to."""

    __slots__ = ("arrived",)


class Answers(Flow):
    """Notifications, and how long each one waited for its answer and for its frame."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.answers: list[float] = []
        self.statuses: dict[int, int] = {}
        self._began: dict[Poster, float] = {}

    def _start(self, poster: Poster, request: bytes, browser: Browser | None) -> None:
        self._began[poster] = time.time()
        super()._start(poster, request, browser)

    def _answered(self, poster: StampedPoster, status: int) -> None:
        self.answers.append(poster.arrived - self._began[poster])
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self._half(poster)

    def _notified(self, browser: StampedBrowser) -> None:
        poster = self._by_browser.pop(browser, None)
        if poster is not None:  # else it has come a second time
            self.latencies.append(browser.arrived - self._began[poster])
            self._half(poster)


class Sent(NamedTuple):
    """What became of the messages that were sent meanwhile; seconds."""

    answers: list[float]
    latencies: list[float]
    refused: int


def send(address: tuple[str, int], sender: Sender, users: Sequence[Target], pipe: Pipe) -> None:
    """Connect the users that are sent to, say so, and send until told to end."""
    loop = Loop()
    listening = connect_browsers(
        loop, address, len(users), [u.uaid for u in users], browser=StampedBrowser
    )
    for one in listening:
        target = next(user for user in users if user.uaid == one.uaid)
        one.endpoint, one.channel = target.endpoint, target.channel
    posters = [StampedPoster(loop, address) for _ in range(POSTERS)]
    # More than there will be time for: it ends when all are back.
    requests = [(sender.request(b), b) for b in listening] * (RATE * 600 // len(users))
    Flow(loop, posters, requests[: 10 * len(users)]).run()  # the service knows them all then
    flow = Answers(loop, posters, requests, RATE)
    pipe.send(None)
    flow.run(pipe.poll)
    refused = sum(number for status, number in flow.statuses.items() if status != 201)
    pipe.send(Sent(flow.answers, flow.latencies, refused))


class Target(NamedTuple):
    """A user who is sent to."""

    uaid: str
    endpoint: str
    channel: str


class Storm:
    """The users, and the return of them all.

    :param server: the service, with a port and data of its own
    :param users: how many there are
    :param at_a_time: connections that are being made
    :ivar load_share: CPU of those who come back, while they do
    """

    def __init__(self, server: ServerProcess, users: int, at_a_time: int) -> None:
        self.server = server
        self.loop = Loop()
        self.sender = Sender(server.url)
        self.at_a_time = at_a_time
        self.users = connect_browsers(self.loop, server.address, users, key=self.sender.public)
        self.load_share = 0.0

    def run(self) -> list[Figure]:
        """Restart, come back, send."""
        count, server = len(self.users), self.server
        for user in self.users:
            user.close()
        server.restart()
        memory = server.memory()[0]
        targets = [Target(u.uaid or "", u.endpoint, u.channel) for u in self.users[:FEW]]
        rest = [user.uaid or "" for user in self.users[FEW:]]
        # A fork: it has the keys, and stays on our core.
        fork = get_context("fork")
        pipe, its = fork.Pipe()
        words = server.address, self.sender, targets, its
        sending = fork.Process(target=send, args=words, daemon=True)
        sending.start()
        its.close()
        pipe.recv()
        before, own, start = server.cpu(), time.process_time(), time.monotonic()
        os.nice(YIELD)
        back = connect_browsers(
            self.loop, server.address, len(rest), rest, concurrency=self.at_a_time
        )
        seconds = time.monotonic() - start
        self.load_share = (time.process_time() - own) / seconds
        pipe.send(None)
        sent: Sent = pipe.recv()
        sending.join()
        assert len(back) == len(rest)
        return [
            Figure("all are back after", seconds, "s"),
            Figure("CPU of it all, per user", (server.cpu() - before) / count * 1e6, "µs"),
            *self._latencies("POST to answer", sent.answers, 60),
            *self._latencies("POST to frame", sent.latencies, None),
            Figure("messages refused", sent.refused, "", 0),
            Figure("memory, per user", (server.memory()[0] - memory) / count / 1024, "KiB"),
        ]

    @staticmethod
    def _latencies(name: str, values: list[float], bar: float | None) -> list[Figure]:
        median, worst = percentiles(name, sorted(values))
        return [median, worst._replace(bar=bar)]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=15_000, help="how many (15000)")
    parser.add_argument("--at_a_time", type=int, default=1000, metavar="N", help="(1000)")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the server")
    parser.add_argument(
        "--tree", default=TREE, metavar="DIRECTORY", help="checkout to measure, not this one"
    )
    parser.add_argument("--option", action="append", default=[], metavar="WORD")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    args = parser.parse_args()
    if args.users <= FEW:
        parser.error(f"--users must be more than {FEW}")
    args.count, args.rounds, args.concurrency = args.users, 1, args.at_a_time
    return args


def main() -> int:
    """Run and print; returns the exit status."""
    args = arguments()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    server_core, own_core = cores()
    if own_core is not None:
        os.sched_setaffinity(0, [own_core])
    server = ServerProcess(args.python, args.option, server_core, None, args.tree)
    try:
        storm = Storm(server, args.users, args.at_a_time)
        kept = report(storm.run(), storm.load_share, args)
    finally:
        server.close()
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
