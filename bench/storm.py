"""Everybody comes back at once: what others notice of it.

    python bench/storm.py                           15,000 users
    python bench/storm.py --users 3000 --json result.json

The standalone service is stopped while all its users are connected, and started again. They come
back as fast as they are let in, ``--at_a_time`` of them in the listening socket's queue, while
application servers send to some of them at an even rate. It prints how long it took until all were
back, how long senders waited for an answer and messages for their way to the user meanwhile, how
many were refused, memory, and CPU. Exits 1 above a bar. See bench/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from loadgen import Browser, Flow, Loop, Poster, connect_browsers
from process import TREE, ServerProcess
from standalone import FEW, Figure, Sender, cores, percentiles

RATE = 200
"""Messages a second."""


class Answers(Flow):
    """Notifications, and how long each one waited for its answer."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.answers: list[float] = []
        self.statuses: dict[int, int] = {}

    def _answered(self, poster: Poster, status: int) -> None:
        self.answers.append(time.perf_counter() - self._busy[poster][0])
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self._half(poster)

    def _notified(self, browser: Browser) -> None:
        if browser in self._by_browser:  # else it has come a second time
            super()._notified(browser)


class Storm:
    """The users, and the return of them all.

    :param server: the service, with a port and data of its own
    :param users: how many there are
    :param at_a_time: connections that are being made
    """

    def __init__(self, server: ServerProcess, users: int, at_a_time: int) -> None:
        self.server = server
        self.loop = Loop()
        self.sender = Sender(server.url)
        self.at_a_time = at_a_time
        self.users = connect_browsers(self.loop, server.address, users, key=self.sender.public)

    def run(self) -> list[Figure]:
        """Restart, come back, send."""
        count, server = len(self.users), self.server
        for user in self.users:
            user.close()
        server.restart()
        memory = server.memory()[0]
        targets = self.users[:FEW]
        listening = connect_browsers(
            self.loop, server.address, FEW, [user.uaid or "" for user in targets]
        )
        for old, new in zip(targets, listening, strict=True):
            new.endpoint, new.channel = old.endpoint, old.channel
        rest = [user.uaid or "" for user in self.users[FEW:]]
        posters = [Poster(self.loop, server.address) for _ in range(32)]
        # More than there will be time for: it ends when all are back.
        requests = [(self.sender.request(b), b) for b in listening] * (RATE * 600 // FEW)
        flow = Answers(self.loop, posters, requests, RATE)
        before, start = server.cpu(), time.monotonic()
        back = self._come_back(rest, flow)
        seconds = time.monotonic() - start
        assert len(back) == len(rest)
        refused = sum(number for status, number in flow.statuses.items() if status != 201)
        return [
            Figure("all are back after", seconds, "s"),
            Figure("CPU of it all, per user", (server.cpu() - before) / count * 1e6, "µs"),
            *self._latencies("POST to answer", flow.answers, 60),
            *self._latencies("POST to frame", flow.latencies, None),
            Figure("messages refused", refused, "", 0),
            Figure("memory, per user", (server.memory()[0] - memory) / count / 1024, "KiB"),
        ]

    @staticmethod
    def _latencies(name: str, values: list[float], bar: float | None) -> list[Figure]:
        median, worst = percentiles(name, sorted(values))
        return [median, worst._replace(bar=bar)]

    def _come_back(self, uaids: list[str], flow: Answers) -> list[Browser]:
        done: list[Browser] = []
        waiting = iter(uaids)

        def start() -> None:
            uaid = next(waiting, None)
            if uaid is not None:
                Browser(self.loop, self.server.address, ready, uaid)

        def ready(browser: Browser) -> None:
            done.append(browser)
            start()

        for _ in range(min(self.at_a_time, len(uaids))):
            start()
        flow.run(lambda: len(done) == len(uaids))
        return done


def main() -> int:
    """Run and print; returns the exit status."""
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
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    server_core, own_core = cores()
    if own_core is not None:
        os.sched_setaffinity(0, [own_core])
    server = ServerProcess(args.python, args.option, server_core, None, args.tree)
    try:
        figures = Storm(server, args.users, args.at_a_time).run()
    finally:
        server.close()
    for figure in figures:
        bar = "" if figure.bar is None else f"<= {figure.bar:g}"
        verdict = {None: "", True: "ok", False: "TOO MUCH"}[figure.passed]
        line = f"{figure.name:<28} {figure.value:10.1f} {figure.unit:<4} {bar:<7} {verdict}"
        print(line.rstrip())
    if args.json:
        rows = [{**figure._asdict(), "passed": figure.passed} for figure in figures]
        Path(args.json).write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    return 0 if all(figure.passed is not False for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
