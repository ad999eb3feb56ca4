"""What several workers cost and bring, beside one process, interleaved in one run.

    python bench/workers.py                        all parts, about two minutes
    python bench/workers.py direct --workers 4 --rounds 5 --count 4000
    python bench/workers.py idle --connections 60000 --workers 4

CPU is that of all processes of a service. "By shares" is how many operations a second the service
would carry if nothing but its busiest worker bounded it: the machine that measures has two cores,
one of which makes the load. See bench/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import psutil
from loadgen import Browser, Loop, connect_browsers
from process import ServerProcess
from standalone import FAR, FEW, Bench, Figure, cores, report

CROWD = 15_000
"""Idle connections of a process of ours: it needs a file and a port for each."""

SHARED = (
    "from autopush.workers.sockets import Listening; Listening.__init__.__defaults__ = (False,);"
    " import sys; from autopush.__main__ import main; sys.exit(main())"
)
"""The service with one listening socket for all workers, as it isn't on Linux."""


class Service(ServerProcess):
    """A service with its workers.

    :param count: of workers
    """

    def __init__(self, python: str, count: int, options: Sequence[str] = ()) -> None:
        super().__init__(python, ["--workers", str(count), *options], None, None)
        self.count = count
        children = self.process.children() if count > 1 else []
        self.processes = children or [self.process]
        self.process = self  # type: ignore[assignment]
        core, _ = cores()
        if core is not None:
            for one in self.processes:
                for task in Path(f"/proc/{one.pid}/task").iterdir():
                    os.sched_setaffinity(int(task.name), [core])

    def cpus(self) -> list[float]:
        """Seconds of CPU of each worker."""
        return [
            sum(
                int((task / "schedstat").read_text().split()[0])
                for task in Path(f"/proc/{one.pid}/task").iterdir()
            )
            / 1e9
            for one in self.processes
        ]

    def cpu(self) -> float:
        return sum(self.cpus())

    def num_fds(self) -> int:
        """Open descriptors of all."""
        return sum(one.num_fds() for one in self.processes)

    def memory(self) -> tuple[int, int]:
        infos = [one.memory_full_info() for one in self.processes]
        return sum(info.rss for info in infos), sum(info.pss for info in infos)

    def spread(self) -> list[int]:
        """User agents connected to each worker."""
        with urllib.request.urlopen(f"{self.url}/health", timeout=20) as answer:
            workers = json.load(answer)["workers"]
        return [one["clients"] for one in workers.values()]


class Sharing(Service):
    """One whose workers accept from the same socket."""

    def __init__(self, python: str, count: int) -> None:
        self._python = python
        super().__init__(python, count)

    def popen(self, command: list[str], **kwargs: Any) -> subprocess.Popen[bytes]:
        at = command.index("-m")
        return subprocess.Popen([*command[:at], "-c", SHARED, *command[at + 2 :]], **kwargs)


def compare(
    args: argparse.Namespace, run: Callable[[Bench], list[float]], name: str
) -> list[Figure]:
    """Rounds with one process and with several, in turns."""
    services = {count: Service(args.python, count, args.option) for count in (1, 2, args.workers)}
    try:
        benches = {count: Bench(service, args) for count, service in services.items()}
        micros: dict[int, list[float]] = {count: [] for count in services}
        shares: dict[int, list[float]] = {count: [] for count in services}
        for round_ in range(args.rounds + 1):
            for count, bench in benches.items():
                before = services[count].cpus()
                cost = run(bench)[0]
                used = [
                    now - then for now, then in zip(services[count].cpus(), before, strict=True)
                ]
                if round_:  # the first warms up
                    micros[count].append(cost)
                    shares[count].append(args.count / max(used))
        figures = []
        one = statistics.median(micros[1])
        rate = statistics.median(shares[1])
        for count in services:
            median = statistics.median(micros[count])
            figures.append(Figure(f"{name}, {count} workers: CPU", median, "µs"))
            if count > 1:
                bar = 150 if name == "direct" and count == 4 else None
                figures.append(Figure("  in relation to one", median / one * 100, "%", bar))
                more = statistics.median(shares[count]) / rate * 100
                figures.append(Figure("  throughput by shares, in relation to one", more, "%"))
        return figures
    finally:
        for service in services.values():
            service.close()


BROWSERS: dict[int, list[Browser]] = {}


def browsers(bench: Bench) -> list[Browser]:
    """Connected once for all rounds."""
    key = id(bench)
    if key not in BROWSERS:
        BROWSERS[key] = bench.browsers(FEW)
    return BROWSERS[key]


def direct(args: argparse.Namespace) -> list[Figure]:
    """Acknowledged at once."""
    return compare(args, lambda bench: bench.send(browsers(bench)), "direct")


def late(args: argparse.Namespace) -> list[Figure]:
    """Acknowledged as from afar: every message is written and deleted."""

    def run(bench: Bench) -> list[float]:
        for browser in browsers(bench):
            browser.delay = FAR
        return bench.send(browsers(bench))

    return compare(args, run, "direct, acknowledged late")


def stored(args: argparse.Namespace) -> list[Figure]:
    """To browsers that are away."""

    def run(bench: Bench) -> list[float]:
        users = bench.browsers(FEW)
        bench.disconnect(users)
        requests = [(bench.sender.request(b), None) for b in users] * (args.count // FEW)
        return bench.flow(requests)

    return compare(args, run, "stored")


def spread(args: argparse.Namespace) -> list[Figure]:
    """How connections spread over workers, and what a connection with hello costs."""
    figures = []
    for make, name in ((Service, "a socket each"), (Sharing, "one socket")):
        for at_once in (1, 32, 500):
            service = make(args.python, args.workers)
            try:
                bench = Bench(service, args)
                service.settle()
                before = service.cpu()
                users = connect_browsers(
                    bench.loop, service.address, args.count, concurrency=at_once
                )
                service.settle()
                cost = (service.cpu() - before) / args.count * 1e6
                counts = service.spread()
                most = max(counts) / (args.count / args.workers) * 100
                text = f"{name}, {at_once} at a time"
                figures.append(Figure(f"{text}: most, in relation to fair", most, "%"))
                figures.append(Figure(f"{text}: CPU of connect and hello", cost, "µs"))
                print(f"{text}: {counts}", file=sys.stderr)
                for user in users:
                    user.close()
            finally:
                service.close()
    return figures


def crowd(address: tuple[str, int], source: str, count: int, pipe: Pipe) -> None:
    """Connect so many user agents, say so, and stay until told to end."""
    users = connect_browsers(Loop(source), address, count)
    pipe.send(len(users))
    pipe.recv()


def gather(address: tuple[str, int], connections: int) -> list[Pipe]:
    """Have processes connect, none of which needs more files or ports than it may have.

    :returns: a pipe to each; they end with what is sent into them
    """
    fork = get_context("fork")
    number = -(-connections // CROWD)
    pipes = []
    for index in range(number):
        pipe, its = fork.Pipe()
        count = connections * (index + 1) // number - connections * index // number
        words = address, f"127.0.0.{index + 2}", count, its
        fork.Process(target=crowd, args=words, daemon=True).start()
        its.close()
        pipes.append(pipe)
    for pipe in pipes:
        pipe.recv()
    return pipes


def idle(args: argparse.Namespace) -> list[Figure]:
    """Many connections to a service whose processes may each open a part of that many files."""
    most = args.files
    if most is None:
        most = args.connections // max(args.workers - 1, 1)
    service = Service(args.python, args.workers, args.option)
    try:
        for one in service.processes:
            one.rlimit(psutil.RLIMIT_NOFILE, (most, most))
        service.settle()
        before, cpu, start = service.memory(), service.cpu(), time.monotonic()
        pipes = gather(service.address, args.connections)
        seconds = time.monotonic() - start
        service.settle()
        cost = (service.cpu() - cpu) / args.connections
        counts = service.spread()
        after = service.memory()
        print(f"each may open {most} files; connections: {counts}", file=sys.stderr)
        for pipe in pipes:
            pipe.send(None)
        rss, pss = (
            (now - then) / 1024 / args.connections for now, then in zip(after, before, strict=True)
        )
        return [
            Figure("idle connections", sum(counts), ""),
            Figure("  most of a worker", max(counts), ""),
            Figure("  least of a worker", min(counts), ""),
            Figure("  connected in", seconds, "s"),
            Figure("  CPU of connect and hello", cost * 1e6, "µs"),
            Figure("  RSS", rss, "KiB"),
            Figure("  PSS", pss, "KiB"),
        ]
    finally:
        service.close()


PARTS: dict[str, Callable[[argparse.Namespace], list[Figure]]] = {
    "direct": direct,
    "late": late,
    "stored": stored,
    "spread": spread,
    "idle": idle,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--workers", type=int, default=4, help="beside 1 and 2 (4)")
    parser.add_argument("--count", type=int, default=2000, help="operations a round (2000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; medians count (3)")
    parser.add_argument("--concurrency", type=int, default=32, help="requests at a time (32)")
    parser.add_argument("--connections", type=int, default=5000, help="idle ones (5000)")
    parser.add_argument(
        "--files",
        type=int,
        metavar="N",
        help="that each worker may open beside idle connections (connections / (workers - 1))",
    )
    parser.add_argument(
        "--option", action="append", default=[], metavar="WORD", help="for the service; repeatable"
    )
    parser.add_argument("--python", default=sys.executable, help="interpreter of the server")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    args = parser.parse_args()
    if set(args.parts) - set(PARTS):
        parser.error(f"parts are {', '.join(PARTS)}")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    _, own_core = cores()
    if own_core is not None:
        os.sched_setaffinity(0, [own_core])
    figures: list[Figure] = []
    for name in args.parts or PARTS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        figures += PARTS[name](args)
    return 0 if report(figures, 0, args) else 1


if __name__ == "__main__":
    sys.exit(main())
